//! int8 kernels for AVX-512 VNNI: `avx512-vnni`.
//!
//! Tile: 16 pixels x 16 channels, 12x32, 8x48, 6x64 or 4x80, by the convolution's width; K step 4.
//! Registers: 16–24 sums, 1–5 weight cells, 1 broadcast pixel; no spill within the loop over K.
//! Layout: pixel pointers `[tap][16]`, weights `N16K4` (a cell is one ZMM), output rows `out_stride` apart.
//! Arithmetic: `vpdpbusd`, u8 pixels x s8 weights, four products into one i32 without saturation.
//! Epilogue: sums go through a buffer in L1 in quads: four pixels of one block, or one pixel of four blocks;
//! a quad is converted, packed to i16, activated, packed to u8, and put in order by one 4x4 permutation.
//! Figures: Zen 5, one thread, `kernels::tests::throughput`: 450–500 GMAC/s on layers of 64 and more
//! channels 3x3 (`vpdpbusd` alone: 530–550), 375 on 32 channels, 228 on 16, where the epilogue weighs most.
//! Test: `kernels::tests`.

use super::{Act, CELL_CHANNELS, DenseTile, DepthwiseTile, Kernels, Layout, MAX_TAPS, Requant, Tile};
use std::arch::x86_64::*;

/// Rows of the pixel table: those of the narrowest tile.
const PITCH: usize = 16;
/// Most blocks of a tile.
const BLOCKS: usize = 5;
/// Most sums of a tile.
const SUMS: usize = 24;

/// Pixels of a tile of that many blocks.
const fn rows(blocks: usize) -> usize {
    [16, 12, 8, 6, 4][blocks - 1]
}

/// The kernel; the value proves that the CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "AVX-512 F, BW, DQ, VL and VNNI";

    /// The kernel, if CPU and system support it.
    pub fn new() -> Option<Self> {
        let here = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        here.then_some(Self(()))
    }
}

impl Kernels for Avx512Vnni {
    fn name(&self) -> &'static str {
        "avx512-vnni"
    }

    fn layout(&self) -> Layout {
        Layout::N16K4
    }

    fn tile(&self) -> Tile {
        Tile { rows: PITCH, blocks: BLOCKS }
    }

    fn tile_for(&self, channels: usize) -> Tile {
        let all = channels.div_ceil(CELL_CHANNELS).max(1);
        // The widest that divides the channels; else the one that leaves the fullest last tile.
        let waste = |blocks: usize| all.next_multiple_of(blocks) - all;
        let blocks = [4, 5, 3, 2, 1].into_iter().filter(|&b| b <= all).min_by_key(|&b| (waste(b), b < 3));
        let blocks = blocks.unwrap_or(1);
        Tile { rows: rows(blocks), blocks }
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        let blocks = tile.channels.div_ceil(CELL_CHANNELS);
        let mut done = 0;
        while done < tile.rows {
            // The last part of a tile with more pixels than fit its width starts early enough to end
            // with the table: some of its pixels are computed twice, to the same bytes.
            let first = done.min(PITCH - rows(blocks));
            // SAFETY: the CPU has the features (`new`); duties are those of `dense`; `first + rows(blocks)`
            // is at most the table's rows.
            unsafe {
                match blocks {
                    1 => dense::<16, 1>(tile, first),
                    2 => dense::<12, 2>(tile, first),
                    3 => dense::<8, 3>(tile, first),
                    4 => dense::<6, 4>(tile, first),
                    _ => dense::<4, 5>(tile, first),
                }
            }
            done = first + rows(blocks);
        }
    }

    unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>) {
        // SAFETY: the CPU has the features (`new`); duties are the same.
        unsafe { depthwise(tile) }
    }

    unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8) {
        // SAFETY: the CPU has the features (`new`); duties are the same.
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
        // SAFETY: the CPU has the features (`new`); duties are the same.
        unsafe { channel_sums(input, pixels, stride, channels, sums) }
    }
}

/// Pixels `first..first + R` of a tile of `B` blocks.
///
/// # Safety
/// - The CPU has the features. - Duties of [`Kernels::dense`]. - `first + R <= PITCH`.
/// - `tile.channels` is in the `B`th block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn dense<const R: usize, const B: usize>(tile: &DenseTile<'_>, first: usize) {
    const { assert!(R * B <= SUMS && R <= PITCH && B <= BLOCKS) };
    let bias = tile.requant.bias[tile.first_channel..].as_ptr();
    let block = tile.taps * tile.depth * CELL_CHANNELS;
    // SAFETY: the bias reaches all `B` blocks.
    let start: [__m512i; B] = std::array::from_fn(|b| unsafe { _mm512_loadu_si512(bias.add(b * 16).cast()) });
    let mut acc = [start; R];
    let mut weights = tile.weights;
    for tap in 0..tile.taps {
        // SAFETY: the table has `taps` rows of `PITCH`.
        let row = unsafe { tile.pixels.as_ptr().add(tap * PITCH + first) };
        // SAFETY: as above, and `first + R <= PITCH`.
        let pixels: [*const u8; R] = std::array::from_fn(|r| unsafe { *row.add(r) });
        for k in (0..tile.depth).step_by(4) {
            // SAFETY: a cell is 64 bytes; each block has one for each tap and four channels.
            let cells: [__m512i; B] =
                std::array::from_fn(|b| unsafe { _mm512_loadu_si512(weights.add(b * block).cast()) });
            for r in 0..R {
                // SAFETY: each pixel is readable for `depth` bytes, a multiple of 4.
                let a = unsafe { _mm512_set1_epi32(pixels[r].add(k).cast::<i32>().read_unaligned()) };
                for b in 0..B {
                    acc[r][b] = _mm512_dpbusd_epi32(acc[r][b], a, cells[b]);
                }
            }
            weights = weights.wrapping_add(64);
        }
    }
    // A copy: were the address of `acc` itself taken, each sum would be stored within the loop.
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for r in 0..R {
        for b in 0..B {
            sums[r * B + b] = acc[r][b];
        }
    }
    let out = Out {
        requant: tile.requant,
        first_channel: tile.first_channel,
        channels: tile.channels,
        // SAFETY: where `first` is not 0 there are more pixels than that.
        out: unsafe { tile.out.add(first * tile.out_stride) },
        out_stride: tile.out_stride,
        residual: tile.residual.wrapping_add(if tile.residual.is_null() {
            0
        } else {
            first * tile.residual_stride
        }),
        residual_stride: tile.residual_stride,
    };
    // SAFETY: there are `R` rows of `B` sums; the rest is passed on.
    unsafe { finish(&sums[..R * B], B, R.min(tile.rows - first), &out) };
}

/// Where a tile's sums go.
struct Out<'a> {
    requant: &'a Requant,
    first_channel: usize,
    channels: usize,
    out: *mut u8,
    out_stride: usize,
    residual: *const u8,
    residual_stride: usize,
}

/// The activation's constants.
struct Curve {
    act: Act,
    shift: __m128i,
    limit: __m512i,
    poly: [__m512i; 6],
}

impl Curve {
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn new(act: Act) -> Self {
        let (shift, poly) = match act {
            Act::Gated { shift, poly } => (shift.min(15), poly),
            _ => (0, [0; 6]),
        };
        Self {
            act,
            shift: _mm_cvtsi32_si128(shift as i32),
            limit: _mm512_set1_epi16(32767 >> shift),
            poly: poly.map(|k| _mm512_set1_epi16(k)),
        }
    }

    /// [`Act::apply`].
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn apply(&self, p: __m512i) -> __m512i {
        let relu = _mm512_max_epi16(p, _mm512_setzero_si512());
        match self.act {
            Act::Identity => p,
            Act::Relu => relu,
            Act::Gated { .. } => {
                // |-32768| is 32768 as an unsigned number, and the limit is at most 32767.
                let t = _mm512_sll_epi16(_mm512_min_epu16(_mm512_abs_epi16(p), self.limit), self.shift);
                let v = _mm512_xor_si512(_mm512_slli_epi16::<1>(t), _mm512_set1_epi16(i16::MIN));
                let mut c = self.poly[5];
                for k in [4, 3, 2, 1, 0] {
                    c = _mm512_add_epi16(_mm512_mulhrs_epi16(c, v), self.poly[k]);
                }
                _mm512_subs_epi16(relu, c)
            }
        }
    }
}

/// Transposes a quad's 4x4 groups of four channels: from pack order to memory order, and back.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(bytes: __m512i) -> __m512i {
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(order, bytes)
}

/// Constants of a quad's channels, in pack order: two vectors, for elements 0 and 1, and 2 and 3.
#[derive(Clone, Copy)]
struct Pair([__m512i; 2]);

impl Pair {
    /// For four pixels of one block.
    ///
    /// # Safety
    /// - The CPU has the features. - `from` is readable for 16 elements.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn of_block(from: *const i16) -> Self {
        // SAFETY: the caller's duty.
        let block = _mm512_castsi256_si512(unsafe { _mm256_loadu_si256(from.cast()) });
        Self([_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), block); 2])
    }

    /// For one pixel of four blocks.
    ///
    /// # Safety
    /// - The CPU has the features. - `from` is readable for 64 elements.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn of_blocks(from: *const i16) -> Self {
        let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
        // SAFETY: the caller's duty.
        let halves = unsafe { [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(32).cast())] };
        Self(halves.map(|half| _mm512_permutexvar_epi64(order, half)))
    }
}

/// All constants of a quad's channels.
struct Quad {
    scale: [__m512; 4],
    mult: Pair,
    zero: Pair,
    /// The residual's `mult` and `zero`.
    residual: Option<(Pair, Pair)>,
}

impl Quad {
    /// Constants of the channels from `c` on: four blocks, or one block four times.
    ///
    /// # Safety
    /// - The CPU has the features. - `requant`'s vectors reach `c + 16`, or `c + 64` with `four`.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn new(requant: &Requant, c: usize, four: bool) -> Self {
        // SAFETY: the caller's duty.
        let pair = |v: &[i16]| unsafe {
            let from = v.as_ptr().add(c);
            if four { Pair::of_blocks(from) } else { Pair::of_block(from) }
        };
        let scale = std::array::from_fn(|i| {
            // SAFETY: the caller's duty.
            unsafe { _mm512_loadu_ps(requant.scale.as_ptr().add(c + if four { i * 16 } else { 0 })) }
        });
        Self {
            scale,
            mult: pair(&requant.mult),
            zero: pair(&requant.zero),
            residual: requant.residual.as_ref().map(|r| (pair(&r.mult), pair(&r.zero))),
        }
    }

    /// [`Requant::apply`] for four vectors of sums; `residual` and the result are in memory order.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn apply(&self, curve: &Curve, acc: [__m512i; 4], residual: impl FnOnce() -> __m512i) -> __m512i {
        let mut p = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            p[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[i]), self.scale[i]));
        }
        let mut y =
            [curve.apply(_mm512_packs_epi32(p[0], p[1])), curve.apply(_mm512_packs_epi32(p[2], p[3]))];
        if let Some((mult, zero)) = &self.residual {
            let bytes = transpose(residual());
            let none = _mm512_setzero_si512();
            let wide = [_mm512_unpacklo_epi8(bytes, none), _mm512_unpackhi_epi8(bytes, none)];
            for i in 0..2 {
                let centred = _mm512_slli_epi16::<7>(_mm512_sub_epi16(wide[i], zero.0[i]));
                y[i] = _mm512_adds_epi16(y[i], _mm512_mulhrs_epi16(centred, mult.0[i]));
            }
        }
        for (i, y) in y.iter_mut().enumerate() {
            *y = _mm512_adds_epi16(_mm512_mulhrs_epi16(*y, self.mult.0[i]), self.zero.0[i]);
        }
        transpose(_mm512_packus_epi16(y[0], y[1]))
    }
}

/// Requantises and stores `rows` rows of `blocks` sums.
///
/// # Safety
/// - The CPU has the features. - `acc` has at least `rows` rows (rounded up to 4 unless `blocks` is 4).
/// - `out` keeps the duties of [`Kernels::dense`] for `rows` pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn finish(acc: &[__m512i], blocks: usize, rows: usize, out: &Out<'_>) {
    if out.requant.is_float() {
        // SAFETY: the same duties.
        return unsafe { finish_float(acc, blocks, rows, out) };
    }
    let curve = Curve::new(out.requant.act);
    if blocks == 4 {
        // SAFETY: the vectors reach all four blocks.
        let quad = unsafe { Quad::new(out.requant, out.first_channel, true) };
        let mask = u64::MAX >> (64 - out.channels);
        for (row, acc) in acc.chunks_exact(4).take(rows).enumerate() {
            // SAFETY: where it is read, the residual is readable for these channels of this pixel.
            let residual = || unsafe {
                _mm512_maskz_loadu_epi8(mask, out.residual.add(row * out.residual_stride).cast())
            };
            let bytes = quad.apply(&curve, [acc[0], acc[1], acc[2], acc[3]], residual);
            // SAFETY: the output takes these channels of this pixel.
            unsafe { _mm512_mask_storeu_epi8(out.out.add(row * out.out_stride).cast(), mask, bytes) };
        }
        return;
    }
    for b in 0..blocks {
        // SAFETY: the vectors reach this block.
        let quad = unsafe { Quad::new(out.requant, out.first_channel + b * 16, false) };
        let mask = u16::MAX >> (16 - (out.channels - b * 16).min(16));
        for row in (0..rows).step_by(4) {
            let sums: [__m512i; 4] = std::array::from_fn(|i| acc[(row + i) * blocks + b]);
            let count = (rows - row).min(4);
            let residual = || {
                // SAFETY: where it is read, the residual is readable for these channels of each pixel.
                let load = |i: usize| unsafe {
                    let at = (row + i.min(count - 1)) * out.residual_stride + b * 16;
                    _mm_maskz_loadu_epi8(mask, out.residual.add(at).cast())
                };
                let bytes = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(load(0)), load(1));
                _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(bytes, load(2)), load(3))
            };
            let bytes = quad.apply(&curve, sums, residual);
            let parts = [
                _mm512_castsi512_si128(bytes),
                _mm512_extracti32x4_epi32::<1>(bytes),
                _mm512_extracti32x4_epi32::<2>(bytes),
                _mm512_extracti32x4_epi32::<3>(bytes),
            ];
            for (i, &part) in parts.iter().enumerate().take(count) {
                // SAFETY: the output takes these channels of this pixel.
                unsafe {
                    let at = out.out.add((row + i) * out.out_stride + b * 16);
                    if mask == u16::MAX {
                        _mm_storeu_si128(at.cast(), part);
                    } else {
                        _mm_mask_storeu_epi8(at.cast(), mask, part);
                    }
                }
            }
        }
    }
}

/// [`finish`] for f32 output.
///
/// # Safety
/// - As [`finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn finish_float(acc: &[__m512i], blocks: usize, rows: usize, out: &Out<'_>) {
    for b in 0..blocks {
        let mask = u16::MAX >> (16 - (out.channels - b * 16).min(16));
        // SAFETY: the vectors reach this block.
        let scale = unsafe { _mm512_loadu_ps(out.requant.scale.as_ptr().add(out.first_channel + b * 16)) };
        for row in 0..rows {
            let y = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[row * blocks + b]), scale);
            // SAFETY: the output takes these channels of this pixel.
            unsafe {
                let at = out.out.add(row * out.out_stride + b * 64);
                _mm512_mask_storeu_ps(at.cast(), mask, y);
            }
        }
    }
}

/// See [`Kernels::depthwise`]: 16 pixels x 16 channels, two taps in one `vpmaddwd`.
///
/// # Safety
/// - The CPU has the features. - Duties of [`Kernels::depthwise`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn depthwise(tile: &DepthwiseTile<'_>) {
    let (taps, width) = (tile.taps, tile.channels.next_multiple_of(CELL_CHANNELS));
    let none = _mm512_setzero_si512();
    for c in (0..tile.channels).step_by(CELL_CHANNELS) {
        let mask = u16::MAX >> (16 - (tile.channels - c).min(16));
        // Weights of taps 2i and 2i + 1 in the halves of each channel's 32 bits.
        let mut weights = [none; MAX_TAPS.div_ceil(2)];
        for (tap, chunk) in (0..taps).map(|tap| (tap, tap / 2)) {
            // SAFETY: weights have `taps` rows of `width`.
            let w = unsafe { _mm_loadu_si128(tile.weights.add(tap * width + c).cast()) };
            let w = _mm512_cvtepi8_epi32(w);
            weights[chunk] = if tap % 2 == 0 {
                _mm512_and_si512(w, _mm512_set1_epi32(0xffff))
            } else {
                _mm512_or_si512(weights[chunk], _mm512_slli_epi32::<16>(w))
            };
        }
        // SAFETY: the bias reaches this block.
        let bias = unsafe { _mm512_loadu_si512(tile.requant.bias.as_ptr().add(c).cast()) };
        for (run, pixels) in tile.pixels.chunks(PITCH * taps).enumerate() {
            let mut acc = [none; PITCH];
            for (acc, pixel) in acc.iter_mut().zip(pixels.chunks_exact(taps)) {
                // SAFETY: each pixel is readable for `channels` bytes.
                let load = |p: *const u8| unsafe {
                    _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p.add(c).cast()))
                };
                *acc = bias;
                for (pair, &w) in pixel.chunks(2).zip(&weights) {
                    let high = pair.get(1).map_or(none, |&p| _mm512_slli_epi32::<16>(load(p)));
                    let both = _mm512_or_si512(load(pair[0]), high);
                    *acc = _mm512_add_epi32(*acc, _mm512_madd_epi16(both, w));
                }
            }
            let out = Out {
                requant: tile.requant,
                first_channel: c,
                channels: (tile.channels - c).min(16),
                // SAFETY: the pixel and the channel are among those wanted.
                out: unsafe { tile.out.add(run * PITCH * tile.out_stride + c) },
                out_stride: tile.out_stride,
                residual: std::ptr::null(),
                residual_stride: 0,
            };
            // SAFETY: there are 16 sums; duties are passed on.
            unsafe { finish(&acc, 1, pixels.len() / taps, &out) };
        }
    }
}

/// See [`Kernels::max`].
///
/// # Safety
/// - The CPU has the features. - Duties of [`Kernels::max`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn max(sources: &[*const u8], len: usize, out: *mut u8) {
    for i in (0..len).step_by(64) {
        let mask = u64::MAX >> (64 - (len - i).min(64));
        let mut best = _mm512_setzero_si512();
        for &source in sources {
            // SAFETY: the source is readable for `len` bytes.
            best = _mm512_max_epu8(best, unsafe { _mm512_maskz_loadu_epi8(mask, source.add(i).cast()) });
        }
        // SAFETY: `out` takes `len` bytes.
        unsafe { _mm512_mask_storeu_epi8(out.add(i).cast(), mask, best) };
    }
}

/// See [`Kernels::channel_sums`]: four pixels at a time.
///
/// # Safety
/// - The CPU has the features. - Duties of [`Kernels::channel_sums`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn channel_sums(input: *const u8, pixels: usize, stride: usize, channels: usize, sums: &mut [u32]) {
    for c in (0..channels).step_by(16) {
        let mask = u16::MAX >> (16 - (channels - c).min(16));
        // SAFETY: `input` is readable for `pixels` runs of `channels` bytes, `stride` apart.
        let load = |pixel: usize| unsafe {
            _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, input.add(pixel * stride + c).cast()))
        };
        let mut acc = [_mm512_setzero_si512(); 4];
        for pixel in (0..pixels / 4 * 4).step_by(4) {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_add_epi32(*acc, load(pixel + i));
            }
        }
        for pixel in pixels / 4 * 4..pixels {
            acc[0] = _mm512_add_epi32(acc[0], load(pixel));
        }
        let acc = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
        let sums = &mut sums[c..channels.min(c + 16)];
        // SAFETY: the mask covers just these elements.
        unsafe {
            let before = _mm512_maskz_loadu_epi32(mask, sums.as_ptr().cast());
            _mm512_mask_storeu_epi32(sums.as_mut_ptr().cast(), mask, _mm512_add_epi32(before, acc));
        }
    }
}
