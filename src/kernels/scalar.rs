//! The rule itself, in plain Rust: what every other kernel must equal bit for bit.
//!
//! Tile: 4 pixels x 16 channels, sums in an array; weights `N16K4`. Runs everywhere.
//! Test: `kernels::tests::convolution_equals_its_definition`, against loops over the unpacked weights.

use super::{CELL_CHANNELS, DenseTile, DepthwiseTile, Kernels, Layout, Tile, load, operand};

const ROWS: usize = 4;

/// The portable kernel.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

impl Kernels for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn layout(&self) -> Layout {
        Layout::N16K4
    }

    fn tile(&self) -> Tile {
        Tile { rows: ROWS, blocks: 1 }
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        let block = Layout::N16K4.packed_len(CELL_CHANNELS, tile.taps, tile.depth);
        for first in (0..tile.channels).step_by(CELL_CHANNELS) {
            let channels = (tile.channels - first).min(CELL_CHANNELS);
            // SAFETY: the caller's weights have this block; its bytes are initialised.
            let weights =
                unsafe { std::slice::from_raw_parts(tile.weights.add(first / CELL_CHANNELS * block), block) };
            for row in 0..tile.rows {
                let mut acc = [0i32; CELL_CHANNELS];
                let c0 = tile.first_channel + first;
                acc.copy_from_slice(&tile.requant.bias[c0..c0 + CELL_CHANNELS]);
                for (tap, cells) in weights.chunks_exact((block / tile.taps).max(1)).enumerate() {
                    // SAFETY: the caller's pointer of this tap and row is readable for `depth` bytes.
                    let pixel =
                        unsafe { std::slice::from_raw_parts(tile.pixels[tap * ROWS + row], tile.depth) };
                    for (cell, a) in cells.chunks_exact(64).zip(pixel.chunks_exact(4)) {
                        for (acc, w) in acc.iter_mut().zip(cell.chunks_exact(4)) {
                            for (&a, &w) in a.iter().zip(w) {
                                *acc = acc.wrapping_add(operand(a) * i32::from(w));
                            }
                        }
                    }
                }
                for (c, &acc) in acc[..channels].iter().enumerate() {
                    if tile.requant.is_float() {
                        let y = acc as f32 * tile.requant.scale[c0 + c];
                        // SAFETY: `out` takes `rows` pixels of `channels` f32, `out_stride` apart.
                        unsafe {
                            let out = tile.out.add(row * tile.out_stride + (first + c) * 4);
                            out.cast::<f32>().write_unaligned(y);
                        }
                        continue;
                    }
                    let at = row * tile.residual_stride + first + c;
                    // SAFETY: where it is not null, the residual is readable for this pixel and channel.
                    let residual = (!tile.residual.is_null()).then(|| unsafe { *tile.residual.add(at) });
                    let y = tile.requant.apply(c0 + c, acc, residual);
                    // SAFETY: `out` takes `rows` pixels of `channels` bytes, `out_stride` apart.
                    unsafe { *tile.out.add(row * tile.out_stride + first + c) = y };
                }
            }
        }
    }

    unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>) {
        let width = tile.channels.next_multiple_of(CELL_CHANNELS);
        for (row, taps) in tile.pixels.chunks_exact(tile.taps).enumerate() {
            for c in 0..tile.channels {
                let mut acc = tile.requant.bias[c];
                for (tap, &pixel) in taps.iter().enumerate() {
                    // SAFETY: pixels are readable for `channels` bytes, weights have `taps` rows of `width`.
                    let (a, w) = unsafe { (*pixel.add(c), *tile.weights.add(tap * width + c)) };
                    acc = acc.wrapping_add(operand(a) * i32::from(w));
                }
                // SAFETY: `out` takes the pixels, `out_stride` apart.
                unsafe { *tile.out.add(row * tile.out_stride + c) = tile.requant.apply(c, acc, None) };
            }
        }
    }

    unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8) {
        for i in 0..len {
            // SAFETY: each source is readable and `out` writable for `len` bytes.
            unsafe {
                let mut best = *sources[0].add(i);
                for source in &sources[1..] {
                    let byte = *source.add(i);
                    best = if operand(byte) > operand(best) { byte } else { best };
                }
                *out.add(i) = best;
            }
        }
    }

    unsafe fn channel_sums(
        &self,
        input: *const u8,
        pixels: usize,
        stride: usize,
        channels: usize,
        sums: &mut [u32],
    ) {
        for pixel in 0..pixels {
            for (c, sum) in sums[..channels].iter_mut().enumerate() {
                // SAFETY: `input` is readable for `pixels` runs of `channels` bytes, `stride` apart.
                *sum = sum.wrapping_add(u32::from(load(unsafe { *input.add(pixel * stride + c) })));
            }
        }
    }
}
