//! What is the same on every aarch64 CPU: a batch's tiles, depthwise convolution, maximum, channel sums, in baseline NEON.
//!
//! Depthwise takes taps two by two: a pair of products of `±128 * ±127` fits in i16, so that SMULL and
//! SMLAL share one widening SADDW per half. Test: `kernels::arm_tests` and the suite of all kernels.

use std::arch::aarch64::*;

use super::arm_epilogue::{Block, Sums, load, store};
use super::{DenseTile, DepthwiseTile};

/// Pixels that one round of [`depthwise`] carries to the epilogue together.
const PIXELS: usize = 4;

/// Of a batch the tile of at most `rows` pixels from `first` on, which is one of its rows.
#[inline(always)]
pub(super) fn tile_of<'a>(batch: &DenseTile<'a>, first: usize, rows: usize) -> DenseTile<'a> {
    DenseTile {
        pixels: &batch.pixels[first..],
        rows: rows.min(batch.rows - first),
        out: batch.out.wrapping_add(first * batch.out_stride),
        residual: match batch.residual.is_null() {
            true => batch.residual,
            false => batch.residual.wrapping_add(first * batch.residual_stride),
        },
        ..*batch
    }
}

/// [`super::Kernels::depthwise`].
///
/// # Safety
/// - the duties of [`super::Kernels::depthwise`].
pub(super) unsafe fn depthwise(tile: &DepthwiseTile<'_>) {
    let stride = tile.channels.next_multiple_of(16);
    let pixels = tile.pixels.len() / tile.taps;
    for index in 0..tile.channels.div_ceil(16) {
        let offset = index * 16;
        let n = (tile.channels - offset).min(16);
        let weights = tile.weights.wrapping_add(offset);
        for first in (0..pixels).step_by(PIXELS) {
            let rows = PIXELS.min(pixels - first);
            // SAFETY: the tile's vectors, pixels and output are as `depthwise` of the trait asks, `index` is
            // a block of it, and `first + rows <= pixels`.
            unsafe {
                let block = Block::of_depthwise(tile, index, first);
                let mut p = [[vdupq_n_s16(0); 2]; PIXELS];
                for (r, p) in p.iter_mut().enumerate().take(rows) {
                    let taps = tile.pixels.as_ptr().add((first + r) * tile.taps);
                    let taps = std::slice::from_raw_parts(taps, tile.taps);
                    let sums = depthwise_pixel(taps, offset, n, weights, stride, block.bias());
                    [*p] = block.round(&[sums]);
                }
                block.finish(p, rows);
            }
        }
    }
}

/// Sums of one pixel's 16 channels from `offset` on, of which `n` are readable.
///
/// # Safety
/// - each of `taps` is readable for `offset + n` bytes, `1 <= n <= 16`.
/// - `weights` has a row of 16 per tap, `stride` apart; `bias` 16 elements.
#[inline(always)]
unsafe fn depthwise_pixel(
    taps: &[*const u8],
    offset: usize,
    n: usize,
    weights: *const i8,
    stride: usize,
    bias: *const i32,
) -> Sums {
    // SAFETY: every load is of a pixel's `n` bytes, a weight row or the bias, as this function's duties say.
    unsafe {
        let mut sums =
            [vld1q_s32(bias), vld1q_s32(bias.add(4)), vld1q_s32(bias.add(8)), vld1q_s32(bias.add(12))];
        let mut add = |low, high| {
            sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
            sums[1] = vaddw_high_s16(sums[1], low);
            sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
            sums[3] = vaddw_high_s16(sums[3], high);
        };
        let mut weights = weights;
        let mut pairs = taps.chunks_exact(2);
        for pair in &mut pairs {
            let (a, b) = (load(pair[0].add(offset), n), load(pair[1].add(offset), n));
            let (v, w) = (vld1q_s8(weights), vld1q_s8(weights.add(stride)));
            let low = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(v)), vget_low_s8(b), vget_low_s8(w));
            let high = vmlal_high_s8(vmull_high_s8(a, v), b, w);
            add(low, high);
            weights = weights.wrapping_add(2 * stride);
        }
        if let [last] = pairs.remainder() {
            let (a, v) = (load(last.add(offset), n), vld1q_s8(weights));
            add(vmull_s8(vget_low_s8(a), vget_low_s8(v)), vmull_high_s8(a, v));
        }
        sums
    }
}

/// [`super::Kernels::max`].
///
/// # Safety
/// - the duties of [`super::Kernels::max`].
pub(super) unsafe fn max(sources: &[*const u8], len: usize, out: *mut u8) {
    for at in (0..len).step_by(16) {
        let n = (len - at).min(16);
        // SAFETY: each source is readable, and `out` writable, for `len` bytes; `at + n <= len`.
        unsafe {
            let best = sources.iter().fold(vdupq_n_s8(i8::MIN), |best, s| vmaxq_s8(best, load(s.add(at), n)));
            store(out.add(at), best, n);
        }
    }
}

/// [`super::Kernels::channel_sums`].
///
/// # Safety
/// - the duties of [`super::Kernels::channel_sums`].
pub(super) unsafe fn channel_sums(
    input: *const u8,
    pixels: usize,
    stride: usize,
    channels: usize,
    sums: &mut [u32],
) {
    /// `255 * 128` still fits in i16.
    const RUN: usize = 255;
    for (index, sums) in sums[..channels].chunks_mut(16).enumerate() {
        let input = input.wrapping_add(index * 16);
        for start in (0..pixels).step_by(RUN) {
            let end = (start + RUN).min(pixels);
            let mut row = [0i16; 16];
            // SAFETY: pixel `p < pixels` is readable for `channels` bytes, of which these are some;
            // `row` has 16 elements.
            unsafe {
                let (mut low, mut high) = (vdupq_n_s16(0), vdupq_n_s16(0));
                let pixel = |p: usize| load(input.add(p * stride), sums.len());
                for p in (start..end - 1).step_by(2) {
                    let (a, b) = (pixel(p), pixel(p + 1));
                    low = vaddq_s16(low, vaddl_s8(vget_low_s8(a), vget_low_s8(b)));
                    high = vaddq_s16(high, vaddl_high_s8(a, b));
                }
                if !(end - start).is_multiple_of(2) {
                    let last = pixel(end - 1);
                    low = vaddw_s8(low, vget_low_s8(last));
                    high = vaddw_high_s8(high, last);
                }
                vst1q_s16(row.as_mut_ptr(), low);
                vst1q_s16(row.as_mut_ptr().add(8), high);
            }
            let offset = (end - start) as i32 * super::STORED_OFFSET;
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add((row as i32 + offset) as u32);
            }
        }
    }
}
