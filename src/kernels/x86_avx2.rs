//! int8 kernels for 256-bit x86: `avx-vnni` and `avx2`.
//!
//! | kernel | tile | step of K | product |
//! |---|---|---|---|
//! | `avx-vnni` | 6 pixels x 16 channels: 12 sums, 2 cells, 1 pixel | 4 | `vpdpbusd`, exact |
//! | `avx2` | 6 pixels x 16 channels, 8 blocks in turn: 12 sums, half a cell, 1 pixel | 4 | `vpmaddwd` |
//!
//! The loop of `avx2` is in `super::x86_madd`.
//! Layout: pixel pointers `[tap][6]`, weights `N16K4`, output rows `out_stride` apart.
//! Epilogue: sums go through a buffer in L1, two pixels at a time: converted, packed to i16, activated,
//! packed to u8, and put in order by one permutation.
//! Figures: Zen 5, one thread, `kernels::tests::throughput`: 64-channel 3x3 layers run at 240 GMAC/s
//! (`avx-vnni`) and 95 GMAC/s (`avx2`).
//! Test: `kernels::tests`.

use super::x86_madd;
use super::{Act, CELL_CHANNELS, DenseTile, DepthwiseTile, Kernels, Layout, MAX_TAPS, Requant, Tile};
use std::arch::x86_64::*;

/// Most pixels of a tile, made even: sums that the epilogue takes.
pub(super) const PIXELS: usize = 6;
/// The two halves of a pixel's sums of a block.
pub(super) type Sums = [__m256i; 2];

/// The kernel for AVX2; the value proves that the CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// The kernel for AVX-VNNI; the value proves that the CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(());

impl Avx2 {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "AVX2";

    /// The kernel, if CPU and system support it.
    pub fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

impl AvxVnni {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "AVX2 and AVX-VNNI";

    /// The kernel, if CPU and system support it.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni")).then_some(Self(()))
    }
}

/// The methods that both kernels share.
macro_rules! common {
    () => {
        fn layout(&self) -> Layout {
            Layout::N16K4
        }

        unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>) {
            // SAFETY: the CPU has AVX2 (`new`); duties are the same.
            unsafe { depthwise(tile) }
        }

        unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8) {
            // SAFETY: the CPU has AVX2 (`new`); duties are the same.
            unsafe { max(sources, len, out) }
        }

        unsafe fn channel_sums(
            &self,
            input: *const u8,
            pixels: usize,
            stride: usize,
            channels: usize,
            sums: &mut [u32],
        ) {
            // SAFETY: the CPU has AVX2 (`new`); duties are the same.
            unsafe { channel_sums(input, pixels, stride, channels, sums) }
        }
    };
}

impl Kernels for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn tile(&self) -> Tile {
        Tile { rows: PIXELS, blocks: 8 }
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        // SAFETY: the CPU has the feature (`new`); duties are the same.
        unsafe { x86_madd::dense(tile) }
    }

    common!();
}

impl Kernels for AvxVnni {
    fn name(&self) -> &'static str {
        "avx-vnni"
    }

    fn tile(&self) -> Tile {
        Tile { rows: PIXELS, blocks: 1 }
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        // SAFETY: the CPU has the features (`new`); duties are the same.
        unsafe { dense_vnni(tile) }
    }

    common!();
}

/// # Safety
/// - The CPU has the features. - Duties of [`Kernels::dense`] with a tile of 6x16.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn dense_vnni(tile: &DenseTile<'_>) {
    const R: usize = PIXELS;
    let bias = tile.requant.bias[tile.first_channel..].as_ptr();
    // SAFETY: the bias reaches the block.
    let start: Sums = std::array::from_fn(|h| unsafe { _mm256_loadu_si256(bias.add(h * 8).cast()) });
    let mut acc = [start; R];
    let mut weights = tile.weights;
    for tap in 0..tile.taps {
        // SAFETY: the table has `taps` rows of `R`.
        let pixels: [*const u8; R] =
            std::array::from_fn(|r| unsafe { *tile.pixels.as_ptr().add(tap * R + r) });
        for k in (0..tile.depth).step_by(4) {
            // SAFETY: the block has 64 bytes for each tap and four channels.
            let cell: Sums =
                std::array::from_fn(|h| unsafe { _mm256_loadu_si256(weights.add(h * 32).cast()) });
            for r in 0..R {
                // SAFETY: each pixel is readable for `depth` bytes, a multiple of 4.
                let a = unsafe { _mm256_set1_epi32(pixels[r].add(k).cast::<i32>().read_unaligned()) };
                for h in 0..2 {
                    acc[r][h] = _mm256_dpbusd_avx_epi32(acc[r][h], a, cell[h]);
                }
            }
            weights = weights.wrapping_add(64);
        }
    }
    // A copy: were the address of `acc` itself taken, each sum would be stored within the loop.
    let mut sums = [[_mm256_setzero_si256(); 2]; PIXELS];
    for r in 0..R {
        for h in 0..2 {
            sums[r][h] = acc[r][h];
        }
    }
    // SAFETY: duties are passed on.
    unsafe { finish(&sums, tile.rows, &Out::of_block(tile, 0)) };
}

/// Where a block's sums go.
pub(super) struct Out<'a> {
    requant: &'a Requant,
    first_channel: usize,
    channels: usize,
    out: *mut u8,
    out_stride: usize,
    residual: *const u8,
    residual_stride: usize,
}

impl<'a> Out<'a> {
    /// Where block `block` of a tile goes.
    pub(super) fn of_block(tile: &DenseTile<'a>, block: usize) -> Self {
        let first = block * CELL_CHANNELS;
        let element = if tile.requant.is_float() { 4 } else { 1 };
        Self {
            requant: tile.requant,
            first_channel: tile.first_channel + first,
            channels: (tile.channels - first).min(CELL_CHANNELS),
            out: tile.out.wrapping_add(first * element),
            out_stride: tile.out_stride,
            residual: tile.residual.wrapping_add(first),
            residual_stride: tile.residual_stride,
        }
    }
}

/// The activation's constants.
struct Curve {
    act: Act,
    shift: __m128i,
    limit: __m256i,
    poly: [__m256i; 6],
}

impl Curve {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn new(act: Act) -> Self {
        let (shift, poly) = match act {
            Act::Gated { shift, poly } => (shift.min(15), poly),
            _ => (0, [0; 6]),
        };
        Self {
            act,
            shift: _mm_cvtsi32_si128(shift as i32),
            limit: _mm256_set1_epi16(32767 >> shift),
            poly: poly.map(|k| _mm256_set1_epi16(k)),
        }
    }

    /// [`Act::apply`].
    #[target_feature(enable = "avx2")]
    #[inline]
    fn apply(&self, p: __m256i) -> __m256i {
        let relu = _mm256_max_epi16(p, _mm256_setzero_si256());
        match self.act {
            Act::Identity => p,
            Act::Relu => relu,
            Act::Gated { .. } => {
                // |-32768| is 32768 as an unsigned number, and the limit is at most 32767.
                let t = _mm256_sll_epi16(_mm256_min_epu16(_mm256_abs_epi16(p), self.limit), self.shift);
                let v = _mm256_xor_si256(_mm256_slli_epi16::<1>(t), _mm256_set1_epi16(i16::MIN));
                let mut c = self.poly[5];
                for k in [4, 3, 2, 1, 0] {
                    c = _mm256_add_epi16(_mm256_mulhrs_epi16(c, v), self.poly[k]);
                }
                _mm256_subs_epi16(relu, c)
            }
        }
    }
}

/// 16 numbers of a block in the order of `vpackssdw`: channels 0-3 8-11 | 4-7 12-15.
///
/// # Safety
/// - The CPU has the feature. - `from` is readable for 16 elements.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn pack_order(from: *const i16) -> __m256i {
    // SAFETY: the caller's duty.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(unsafe { _mm256_loadu_si256(from.cast()) })
}

/// 16 bytes, of which the first `count` are read.
///
/// # Safety
/// - `from` is readable for `count` bytes, `count <= 16`.
#[inline]
unsafe fn load_part(from: *const u8, count: usize) -> __m128i {
    let mut bytes = [0u8; 16];
    // SAFETY: the caller's duty; `bytes` is as long as a vector.
    unsafe {
        if count == 16 {
            return _mm_loadu_si128(from.cast());
        }
        std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

/// Stores the first `count` bytes of a vector.
///
/// # Safety
/// - `to` takes `count` bytes, `count <= 16`.
#[inline]
unsafe fn store_part(to: *mut u8, count: usize, vector: __m128i) {
    let mut bytes = [0u8; 16];
    // SAFETY: the caller's duty; `bytes` is as long as a vector.
    unsafe {
        if count == 16 {
            return _mm_storeu_si128(to.cast(), vector);
        }
        _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
    }
}

/// Requantises and stores the first `rows` rows of sums, two at a time.
///
/// # Safety
/// - The CPU has the feature. - `rows <= sums.len()`, which is even.
/// - `out` keeps the duties of [`Kernels::dense`] for `rows` pixels of one block.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn finish(sums: &[Sums], rows: usize, out: &Out<'_>) {
    let (requant, c, channels) = (out.requant, out.first_channel, out.channels);
    // SAFETY: the vectors reach the block.
    let scale: [__m256; 2] =
        std::array::from_fn(|h| unsafe { _mm256_loadu_ps(requant.scale.as_ptr().add(c + h * 8)) });
    let scaled = |acc: &Sums, h: usize| _mm256_mul_ps(_mm256_cvtepi32_ps(acc[h]), scale[h]);
    if requant.is_float() {
        for (row, acc) in sums[..rows].iter().enumerate() {
            let mut y = [0f32; 16];
            // SAFETY: `y` has 16 elements; the output takes `channels <= 16` f32 of this pixel.
            unsafe {
                for h in 0..2 {
                    _mm256_storeu_ps(y.as_mut_ptr().add(h * 8), scaled(acc, h));
                }
                let to = out.out.add(row * out.out_stride);
                std::ptr::copy_nonoverlapping(y.as_ptr().cast(), to, channels * 4);
            }
        }
        return;
    }
    let curve = Curve::new(requant.act);
    // SAFETY: the vectors reach the block.
    let (mult, zero, residual) = unsafe {
        (
            pack_order(requant.mult.as_ptr().add(c)),
            pack_order(requant.zero.as_ptr().add(c)),
            requant.residual.as_ref().map(|residual| {
                (pack_order(residual.mult.as_ptr().add(c)), pack_order(residual.zero.as_ptr().add(c)))
            }),
        )
    };
    for row in (0..rows).step_by(2) {
        let row_bytes = |i: usize| {
            let acc = &sums[row + i];
            let p = std::array::from_fn(|h| _mm256_cvtps_epi32(scaled(acc, h)));
            let [low, high]: [__m256i; 2] = p;
            let mut y = curve.apply(_mm256_packs_epi32(low, high));
            if let Some((mult, zero)) = residual {
                // SAFETY: the residual is readable for these channels of this pixel (or the one before,
                // where this row is not wanted).
                let bytes = unsafe {
                    let row = (row + i).min(rows - 1);
                    load_part(out.residual.add(row * out.residual_stride), channels)
                };
                let wide = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_cvtepu8_epi16(bytes));
                let centred = _mm256_slli_epi16::<7>(_mm256_sub_epi16(wide, zero));
                y = _mm256_adds_epi16(y, _mm256_mulhrs_epi16(centred, mult));
            }
            _mm256_adds_epi16(_mm256_mulhrs_epi16(y, mult), zero)
        };
        // Groups of four channels, 0 2 of each row | 1 3 of each row, then in order.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(row_bytes(0), row_bytes(1)), order);
        // SAFETY: the output takes `channels` bytes of each wanted pixel.
        unsafe {
            let to = out.out.add(row * out.out_stride);
            store_part(to, channels, _mm256_castsi256_si128(bytes));
            if row + 1 < rows {
                store_part(to.add(out.out_stride), channels, _mm256_extracti128_si256::<1>(bytes));
            }
        }
    }
}

/// See [`Kernels::depthwise`]: 6 pixels x 16 channels, two taps in one `vpmaddwd`.
///
/// # Safety
/// - The CPU has the feature. - Duties of [`Kernels::depthwise`].
#[target_feature(enable = "avx2")]
unsafe fn depthwise(tile: &DepthwiseTile<'_>) {
    let (taps, width) = (tile.taps, tile.channels.next_multiple_of(CELL_CHANNELS));
    let none = _mm256_setzero_si256();
    for c in (0..tile.channels).step_by(CELL_CHANNELS) {
        let channels = (tile.channels - c).min(CELL_CHANNELS);
        // Weights of taps 2i and 2i + 1 in the halves of each channel's 32 bits.
        let mut weights = [[none; 2]; MAX_TAPS.div_ceil(2)];
        for (i, weights) in weights[..taps.div_ceil(2)].iter_mut().enumerate() {
            // SAFETY: weights have `taps` rows of `width`.
            let row = |tap: usize| unsafe { _mm_loadu_si128(tile.weights.add(tap * width + c).cast()) };
            let next = if 2 * i + 1 < taps { row(2 * i + 1) } else { _mm_setzero_si128() };
            *weights = interleave(_mm256_cvtepi8_epi16(row(2 * i)), _mm256_cvtepi8_epi16(next));
        }
        // SAFETY: the bias reaches this block.
        let bias: Sums = std::array::from_fn(|h| unsafe {
            _mm256_loadu_si256(tile.requant.bias.as_ptr().add(c + h * 8).cast())
        });
        for (run, pixels) in tile.pixels.chunks(PIXELS * taps).enumerate() {
            let mut sums = [[none; 2]; PIXELS];
            for (sums, pixel) in sums.iter_mut().zip(pixels.chunks_exact(taps)) {
                let mut acc = [none; 2];
                for (pair, w) in pixel.chunks(2).zip(&weights) {
                    // SAFETY: each pixel is readable for `channels` bytes.
                    let wide = |p: &*const u8| unsafe { _mm256_cvtepu8_epi16(load_part(p.add(c), channels)) };
                    let a = interleave(wide(&pair[0]), pair.get(1).map_or(none, wide));
                    for h in 0..2 {
                        acc[h] = _mm256_add_epi32(acc[h], _mm256_madd_epi16(a[h], w[h]));
                    }
                }
                // Channels 0-3 8-11 and 4-7 12-15, then in order.
                let low = _mm256_permute2x128_si256::<0x20>(acc[0], acc[1]);
                let high = _mm256_permute2x128_si256::<0x31>(acc[0], acc[1]);
                *sums = [_mm256_add_epi32(low, bias[0]), _mm256_add_epi32(high, bias[1])];
            }
            let out = Out {
                requant: tile.requant,
                first_channel: c,
                channels,
                // SAFETY: the pixel and the channel are among those wanted.
                out: unsafe { tile.out.add(run * PIXELS * tile.out_stride + c) },
                out_stride: tile.out_stride,
                residual: std::ptr::null(),
                residual_stride: 0,
            };
            // SAFETY: duties are passed on.
            unsafe { finish(&sums, pixels.len() / taps, &out) };
        }
    }
}

/// Pairs of elements of two vectors: those of channels 0-3 8-11, and of 4-7 12-15.
#[target_feature(enable = "avx2")]
#[inline]
fn interleave(first: __m256i, second: __m256i) -> [__m256i; 2] {
    [_mm256_unpacklo_epi16(first, second), _mm256_unpackhi_epi16(first, second)]
}

/// See [`Kernels::max`].
///
/// # Safety
/// - The CPU has the feature. - Duties of [`Kernels::max`].
#[target_feature(enable = "avx2")]
unsafe fn max(sources: &[*const u8], len: usize, out: *mut u8) {
    let whole = len / 32 * 32;
    for i in (0..whole).step_by(32) {
        let mut best = _mm256_setzero_si256();
        for &source in sources {
            // SAFETY: the source is readable for `len` bytes.
            best = _mm256_max_epu8(best, unsafe { _mm256_loadu_si256(source.add(i).cast()) });
        }
        // SAFETY: `out` takes `len` bytes.
        unsafe { _mm256_storeu_si256(out.add(i).cast(), best) };
    }
    for i in (whole..len).step_by(16) {
        let count = (len - i).min(16);
        let mut best = _mm_setzero_si128();
        for &source in sources {
            // SAFETY: the source is readable for `len` bytes.
            best = _mm_max_epu8(best, unsafe { load_part(source.add(i), count) });
        }
        // SAFETY: `out` takes `len` bytes.
        unsafe { store_part(out.add(i), count, best) };
    }
}

/// See [`Kernels::channel_sums`].
///
/// # Safety
/// - The CPU has the feature. - Duties of [`Kernels::channel_sums`].
#[target_feature(enable = "avx2")]
unsafe fn channel_sums(input: *const u8, pixels: usize, stride: usize, channels: usize, sums: &mut [u32]) {
    for c in (0..channels).step_by(16) {
        let count = (channels - c).min(16);
        let mut acc = [_mm256_setzero_si256(); 2];
        // A run of 257 pixels fits u16 lanes: 257 * 255 = 65535.
        for first in (0..pixels).step_by(257) {
            let mut short = _mm256_setzero_si256();
            for pixel in first..pixels.min(first + 257) {
                // SAFETY: `input` is readable for `pixels` runs of `channels` bytes, `stride` apart.
                let bytes = unsafe { load_part(input.add(pixel * stride + c), count) };
                short = _mm256_add_epi16(short, _mm256_cvtepu8_epi16(bytes));
            }
            let halves = [_mm256_castsi256_si128(short), _mm256_extracti128_si256::<1>(short)];
            for h in 0..2 {
                acc[h] = _mm256_add_epi32(acc[h], _mm256_cvtepu16_epi32(halves[h]));
            }
        }
        let mut part = [0u32; 16];
        for (part, acc) in part.chunks_exact_mut(8).zip(acc) {
            // SAFETY: `part` has 8 elements.
            unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), acc) };
        }
        for (sum, part) in sums[c..c + count].iter_mut().zip(part) {
            *sum = sum.wrapping_add(part);
        }
    }
}
