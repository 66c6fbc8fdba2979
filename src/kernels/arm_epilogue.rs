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
    residual: *const u8,
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
        // SAFETY: NEON is part of every aarch64 target that this file is built for.
        unsafe {
            Self {
                limit: vdupq_n_s16(32767 >> shift),
                shift: vdupq_n_s16(shift as i16 + 1),
                poly: [
                    vdupq_n_s16(poly[0]),
                    vdupq_n_s16(poly[1]),
                    vdupq_n_s16(poly[2]),
                    vdupq_n_s16(poly[3]),
                    vdupq_n_s16(poly[4]),
                    vdupq_n_s16(poly[5]),
                ],
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
        let element = if tile.requant.is_float() { 4 } else { 1 };
        Self {
            requant: tile.requant,
            first: tile.first_channel + offset,
            channels: (tile.channels - offset).min(16),
            out: tile.out.wrapping_add(offset * element),
            out_stride: tile.out_stride,
            residual: if tile.residual.is_null() {
                tile.residual
            } else {
                tile.residual.wrapping_add(offset)
            },
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
            residual: std::ptr::null(),
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
    /// - `out` takes `rows` pixels of `channels` bytes; `residual`, if not null, has them.
    #[inline(always)]
    pub(super) unsafe fn finish<const R: usize>(&self, mut p: [Row; R], rows: usize) {
        match &self.requant.act {
            Act::Identity => {}
            Act::Relu => {
                // SAFETY: NEON is part of every aarch64 target that this file is built for.
                let relu = |x| unsafe { vmaxq_s16(x, vdupq_n_s16(0)) };
                p = p.map(|[a, b]| [relu(a), relu(b)]);
            }
            Act::Gated { shift, poly } => {
                let gate = Gate::new(*shift, poly);
                p = p.map(|[a, b]| [gate.apply(a), gate.apply(b)]);
            }
        }
        if let (Some(r), false) = (&self.requant.residual, self.residual.is_null()) {
            // SAFETY: the residual's vectors reach `first` + 16, and its pixels lie as the output's do.
            unsafe {
                let (mult, zero) = (self.row(&r.mult), self.row(&r.zero));
                let zero = [vnegq_s16(zero[0]), vnegq_s16(zero[1])];
                for (i, row) in p.iter_mut().enumerate().take(rows) {
                    let a = load(self.residual.wrapping_add(i * self.residual_stride), self.channels);
                    let low = vshlq_n_s16::<7>(vaddw_s8(zero[0], vget_low_s8(a)));
                    let high = vshlq_n_s16::<7>(vaddw_high_s8(zero[1], a));
                    row[0] = vqaddq_s16(row[0], vqrdmulhq_s16(low, mult[0]));
                    row[1] = vqaddq_s16(row[1], vqrdmulhq_s16(high, mult[1]));
                }
            }
        }
        // SAFETY: the vectors reach `first` + 16, and `out` takes `rows` pixels, duties of this function.
        unsafe {
            let (mult, zero) = (self.row(&self.requant.mult), self.row(&self.requant.zero));
            let step = |y, i: usize| vqaddq_s16(vqrdmulhq_s16(y, mult[i]), zero[i]);
            for (i, row) in p.iter().enumerate() {
                if i == rows {
                    break;
                }
                let bytes = vqmovn_high_s16(vqmovn_s16(step(row[0], 0)), step(row[1], 1));
                store(self.out.wrapping_add(i * self.out_stride), bytes, self.channels);
            }
        }
    }

    /// Stores the first `rows` of `sums` as f32, from output pixel `row` on.
    ///
    /// # Safety
    /// - `scale` reaches `first` + 16.
    /// - `out` takes `row + rows.min(sums.len())` pixels of `channels` f32.
    #[inline(never)]
    pub(super) unsafe fn finish_float(&self, sums: &[Sums], row: usize, rows: usize) {
        // SAFETY: `scale` is readable for 16 elements and `out` takes the pixels, duties of this function.
        unsafe {
            let scale = self.requant.scale.as_ptr().add(self.first);
            for (r, sums) in sums.iter().enumerate().take(rows) {
                let mut all = [0f32; 16];
                for (i, &sum) in sums.iter().enumerate() {
                    let product = vmulq_f32(vcvtq_f32_s32(sum), vld1q_f32(scale.add(4 * i)));
                    vst1q_f32(all.as_mut_ptr().add(4 * i), product);
                }
                let out = self.out.add((row + r) * self.out_stride);
                std::ptr::copy_nonoverlapping(all.as_ptr().cast::<u8>(), out, self.channels * 4);
            }
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

#[cold]
unsafe fn load_part(from: *const u8, n: usize) -> int8x16_t {
    let mut all = [0u8; 16];
    // SAFETY: `from` is readable for `n <= 16` bytes, and `all` has 16.
    unsafe {
        std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
        vld1q_s8(all.as_ptr().cast())
    }
}

#[cold]
unsafe fn store_part(to: *mut u8, bytes: int8x16_t, n: usize) {
    let mut all = [0u8; 16];
    // SAFETY: `all` has 16 bytes, and `to` takes `n <= 16` of them.
    unsafe {
        vst1q_s8(all.as_mut_ptr().cast(), bytes);
        std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
    }
}
