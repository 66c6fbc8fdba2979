//! From accumulators to stored bytes in NEON registers: [`Requant::apply`]'s rule, 16 channels at a time.
//!
//! Shared by every aarch64 kernel. A row of 16 channels is four `int32x4_t` sums, then two `int16x8_t`,
//! then one 16-byte store. Channel parameters are loaded once per block and used for all its rows.
//!
//! Instructions for 8 channels: 8 to `p` (SCVTF, FMUL, FCVTNS, SQXTN twice), 16 for a gated activation,
//! 4 for a residual, 2.5 to the byte. SQRDMULH is `mulhrs` but for `-32768 * -32768`, which a
//! [`Requant`] rules out: multipliers are at least 0, and a gate's Horner sums stay small.
//!
//! Test: `kernels::arm_tests` (on the emulated CPUs), and the suite that all kernels share.

use std::arch::aarch64::*;

use super::{Act, DenseTile, DepthwiseTile, Requant};

/// Sums of one output pixel's 16 channels.
pub(super) type Sums = [int32x4_t; 4];
/// The same after scaling and rounding, `p` of [`super::requant`].
pub(super) type Row = [int16x8_t; 2];

/// `$body` for each row `$r` in `0..$count`, at most 8, written out so that rows stay in registers.
macro_rules! each_row {
    ($count:ident, $r:ident => $body:block) => {
        each_row!($count, $r => $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($count:ident, $r:ident => $body:block, $($index:literal),*) => {
        const { assert!($count <= 8) };
        $(if $count > $index {
            let $r = $index;
            $body
        })*
    };
}

/// Where and how one block of 16 channels is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    requant: &'a Requant,
    /// Index of the block's first channel in the requantisation's vectors.
    first: usize,
    /// Channels to store, 1..=16.
    channels: usize,
    out: *mut u8,
    out_stride: usize,
    residual: Option<*const u8>,
    residual_stride: usize,
}

/// A gated activation's constants, in every lane.
struct Gate {
    limit: int16x8_t,
    shift: int16x8_t,
    poly: [int16x8_t; 6],
}

impl Gate {
    #[inline(always)]
    fn new(shift: u32, poly: &[i16; 6]) -> Self {
        // SAFETY: the loads are of the first 4 and the last 2 of the 6 coefficients.
        unsafe {
            let int16x8x4_t(k0, k1, k2, k3) = vld4q_dup_s16(poly.as_ptr());
            let int16x8x2_t(k4, k5) = vld2q_dup_s16(poly.as_ptr().add(4));
            Self {
                limit: vdupq_n_s16(32767 >> shift),
                shift: vdupq_n_s16(shift as i16 + 1),
                poly: [k0, k1, k2, k3, k4, k5],
            }
        }
    }

    /// `max(p, 0) - C(|p|)`; the last shift of `t` and the doubling in `v` are one instruction.
    #[inline(always)]
    fn apply(&self, p: int16x8_t) -> int16x8_t {
        // SAFETY: NEON is part of every aarch64 target that this file is built for.
        unsafe {
            let t = vminq_s16(vqabsq_s16(p), self.limit);
            let v = veorq_s16(vshlq_s16(t, self.shift), vdupq_n_s16(i16::MIN));
            let mut h = self.poly[5];
            for k in (0..5).rev() {
                h = vaddq_s16(vqrdmulhq_s16(h, v), self.poly[k]);
            }
            vqsubq_s16(vmaxq_s16(p, vdupq_n_s16(0)), h)
        }
    }
}

impl<'a> Block<'a> {
    /// Block `index` of a dense tile.
    ///
    /// # Safety
    /// - the tile keeps the duties of [`super::Kernels::dense`]; `index < channels.div_ceil(16)`.
    #[inline(always)]
    pub(super) unsafe fn of_dense(tile: &DenseTile<'a>, index: usize) -> Self {
        let offset = index * 16;
        let residual = tile.residual.wrapping_add(offset);
        Self {
            requant: tile.requant,
            first: tile.first_channel + offset,
            channels: (tile.channels - offset).min(16),
            out: tile.out.wrapping_add(offset),
            out_stride: tile.out_stride,
            residual: (!tile.residual.is_null()).then_some(residual),
            residual_stride: tile.residual_stride,
        }
    }

    /// Block `index` of a depthwise run, from output pixel `pixel` on.
    ///
    /// # Safety
    /// - the run keeps the duties of [`super::Kernels::depthwise`]; `index < channels.div_ceil(16)`.
    #[inline(always)]
    pub(super) unsafe fn of_depthwise(tile: &DepthwiseTile<'a>, index: usize, pixel: usize) -> Self {
        let offset = index * 16;
        Self {
            requant: tile.requant,
            first: offset,
            channels: (tile.channels - offset).min(16),
            out: tile.out.wrapping_add(pixel * tile.out_stride + offset),
            out_stride: tile.out_stride,
            residual: None,
            residual_stride: 0,
        }
    }

    /// Start values of the sums.
    #[inline(always)]
    pub(super) fn bias(&self) -> *const i32 {
        self.requant.bias.as_ptr().wrapping_add(self.first)
    }

    /// Rounds sums to `p`.
    ///
    /// # Safety
    /// - `scale` reaches `first` + 16.
    #[inline(always)]
    pub(super) unsafe fn round<const R: usize>(&self, sums: &[Sums; R]) -> [Row; R] {
        let scale = self.requant.scale.as_ptr().wrapping_add(self.first);
        // SAFETY: `scale` is readable for 16 elements, a duty of this function.
        unsafe {
            let scale = [
                vld1q_f32(scale),
                vld1q_f32(scale.add(4)),
                vld1q_f32(scale.add(8)),
                vld1q_f32(scale.add(12)),
            ];
            let whole = |sum, scale| vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sum), scale));
            let pair = |s: &Sums, i: usize| {
                vqmovn_high_s32(vqmovn_s32(whole(s[i], scale[i])), whole(s[i + 1], scale[i + 1]))
            };
            std::array::from_fn(|r| [pair(&sums[r], 0), pair(&sums[r], 2)])
        }
    }

    /// Activation, residual, requantisation and store of the first `rows` of `p`.
    ///
    /// # Safety
    /// - the requantisation's vectors reach `first` + 16, and it is not float.
    /// - `out` takes `rows` pixels of `channels` bytes; `residual`, if any, has them; `rows <= R`.
    #[inline(always)]
    pub(super) unsafe fn finish<const R: usize>(&self, p: [Row; R], rows: usize) {
        // SAFETY: the same duties; a whole block is one of 16 channels and `R` rows.
        unsafe {
            if rows == R && self.channels == 16 {
                self.finish_whole(p)
            } else {
                // Copies, so that neither needs memory otherwise.
                let (block, mut copy) = (*self, [[vdupq_n_s16(0); 2]; R]);
                each_row!(R, r => { copy[r] = p[r] });
                block.finish_part(copy, rows)
            }
        }
    }

    /// A block at the picture's or the channels' end, by way of a whole one.
    ///
    /// # Safety
    /// - the duties of [`Block::finish`].
    #[cold]
    #[inline(never)]
    unsafe fn finish_part<const R: usize>(&self, p: [Row; R], rows: usize) {
        let mut out = [[0u8; 16]; R];
        let mut residual = [[0u8; 16]; R];
        // SAFETY: the first `rows` rows of `channels <= 16` bytes are those that the caller promises, and
        // both arrays have them.
        unsafe {
            if let Some(from) = self.residual {
                for (i, row) in residual.iter_mut().enumerate().take(rows) {
                    let from = from.add(i * self.residual_stride);
                    std::ptr::copy_nonoverlapping(from, row.as_mut_ptr(), self.channels);
                }
            }
            let whole = Block {
                channels: 16,
                out: out.as_mut_ptr().cast(),
                out_stride: 16,
                residual: self.residual.map(|_| residual.as_ptr().cast()),
                residual_stride: 16,
                ..*self
            };
            whole.finish_whole(p);
            for (i, row) in out.iter().enumerate().take(rows) {
                let to = self.out.add(i * self.out_stride);
                std::ptr::copy_nonoverlapping(row.as_ptr(), to, self.channels);
            }
        }
    }

    /// [`Block::finish`] for 16 channels and `R` rows, without a branch per row.
    ///
    /// # Safety
    /// - the duties of [`Block::finish`].
    #[inline(always)]
    unsafe fn finish_whole<const R: usize>(&self, mut p: [Row; R]) {
        match &self.requant.act {
            Act::Identity => {}
            Act::Relu => {
                each_row!(R, r => {
                    // SAFETY: NEON is part of every aarch64 target that this file is built for.
                    p[r] = p[r].map(|x| unsafe { vmaxq_s16(x, vdupq_n_s16(0)) });
                });
            }
            Act::Gated { shift, poly } => {
                let gate = Gate::new(*shift, poly);
                each_row!(R, r => { p[r] = [gate.apply(p[r][0]), gate.apply(p[r][1])] });
            }
        }
        if let (Some(r), Some(residual)) = (&self.requant.residual, self.residual) {
            // SAFETY: the residual's vectors reach `first` + 16, and its pixels lie as the output's do.
            unsafe {
                let (mult, [low, high]) = (self.row(&r.mult), self.row(&r.zero));
                let zero = [vshlq_n_s16::<7>(low), vshlq_n_s16::<7>(high)];
                each_row!(R, r => {
                    let a = vld1q_s8(residual.add(r * self.residual_stride).cast());
                    let low = vsubq_s16(vshll_n_s8::<7>(vget_low_s8(a)), zero[0]);
                    let high = vsubq_s16(vshll_high_n_s8::<7>(a), zero[1]);
                    p[r][0] = vqaddq_s16(p[r][0], vqrdmulhq_s16(low, mult[0]));
                    p[r][1] = vqaddq_s16(p[r][1], vqrdmulhq_s16(high, mult[1]));
                });
            }
        }
        // SAFETY: the vectors reach `first` + 16, and `out` takes `R` pixels, duties of this function.
        unsafe {
            let (mult, zero) = (self.row(&self.requant.mult), self.row(&self.requant.zero));
            each_row!(R, r => {
                let low = vqaddq_s16(vqrdmulhq_s16(p[r][0], mult[0]), zero[0]);
                let high = vqaddq_s16(vqrdmulhq_s16(p[r][1], mult[1]), zero[1]);
                let out = self.out.add(r * self.out_stride);
                vst1q_s8(out.cast(), vqmovn_high_s16(vqmovn_s16(low), high));
            });
        }
    }

    /// One parameter of the block's 16 channels.
    ///
    /// # Safety
    /// - `values` reaches `first` + 16.
    #[inline(always)]
    unsafe fn row(&self, values: &[i16]) -> Row {
        let values = values.as_ptr().wrapping_add(self.first);
        // SAFETY: readable for 16 elements, a duty of this function.
        unsafe { [vld1q_s16(values), vld1q_s16(values.add(8))] }
    }
}

/// Stores sums of block `index` as f32, from output pixel `row` on, as far as the tile has rows.
///
/// # Safety
/// - the tile keeps the duties of [`super::Kernels::dense`] and is float; `index < channels.div_ceil(16)`.
#[cold]
#[inline(never)]
pub(super) unsafe fn store_float(tile: &DenseTile<'_>, index: usize, row: usize, sums: &[Sums]) {
    let offset = index * 16;
    let bytes = (tile.channels - offset).min(16) * 4;
    // SAFETY: `scale` reaches the block's 16 channels and `out` takes the tile's rows and channels, duties of
    // `dense`.
    unsafe {
        let scale = tile.requant.scale.as_ptr().add(tile.first_channel + offset);
        for (r, sums) in (row..tile.rows).zip(sums) {
            let out = tile.out.add(r * tile.out_stride + offset * 4);
            let mut all = [0f32; 16];
            let to = if bytes == 64 { out.cast::<f32>() } else { all.as_mut_ptr() };
            for (i, &sum) in sums.iter().enumerate() {
                let product = vmulq_f32(vcvtq_f32_s32(sum), vld1q_f32(scale.add(4 * i)));
                vst1q_f32(to.add(4 * i), product);
            }
            if bytes != 64 {
                std::ptr::copy_nonoverlapping(all.as_ptr().cast::<u8>(), out, bytes);
            }
        }
    }
}

/// The first `n` bytes at `from`, the others 0.
///
/// # Safety
/// - `from` is readable for `n` bytes; `1 <= n <= 16`.
#[inline(always)]
pub(super) unsafe fn load(from: *const u8, n: usize) -> int8x16_t {
    // SAFETY: a whole load is only made where all 16 bytes are readable.
    unsafe { if n == 16 { vld1q_s8(from.cast()) } else { load_part(from, n) } }
}

/// Stores the first `n` bytes.
///
/// # Safety
/// - `to` takes `n` bytes; `1 <= n <= 16`.
#[inline(always)]
pub(super) unsafe fn store(to: *mut u8, bytes: int8x16_t, n: usize) {
    // SAFETY: a whole store is only made where `to` takes all 16 bytes.
    unsafe { if n == 16 { vst1q_s8(to.cast(), bytes) } else { store_part(to, bytes, n) } }
}

/// # Safety
/// - `from` is readable for `n` bytes; `n <= 16`.
#[cold]
#[inline(never)]
unsafe fn load_part(from: *const u8, n: usize) -> int8x16_t {
    let mut all = [0u8; 16];
    // SAFETY: `from` is readable for `n <= 16` bytes, and `all` has 16.
    unsafe {
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
        vld1q_s8(all.as_ptr().cast())
    }
}

/// # Safety
/// - `to` takes `n` bytes; `n <= 16`.
#[cold]
#[inline(never)]
unsafe fn store_part(to: *mut u8, bytes: int8x16_t, n: usize) {
    let mut all = [0u8; 16];
    // SAFETY: `all` has 16 bytes, and `to` takes `n <= 16` of them.
    unsafe {
        vst1q_s8(all.as_mut_ptr().cast(), bytes);
        std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
    }
}
