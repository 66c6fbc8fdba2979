//! A plain kernel of layout `N16K8`, so that the operations are tested with both layouts everywhere.

use super::*;

#[derive(Debug)]
pub(super) struct Deep;

impl Kernels for Deep {
    fn name(&self) -> &'static str {
        "scalar-n16k8"
    }

    fn layout(&self) -> Layout {
        Layout::N16K8
    }

    fn tile(&self) -> Tile {
        Tile { rows: 5, blocks: 2 }
    }

    fn tile_for(&self, channels: usize) -> Tile {
        Tile { rows: 3, blocks: channels.div_ceil(16).clamp(1, 2) }
    }

    fn batch(&self) -> usize {
        2
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        assert!(tile.depth.is_multiple_of(8));
        for (row, c) in (0..tile.rows).flat_map(|row| (0..tile.channels).map(move |c| (row, c))) {
            let (channel, block) = (tile.first_channel + c, tile.taps * tile.depth * 16);
            let mut acc = tile.requant.bias[channel];
            for (tap, k) in (0..tile.taps).flat_map(|tap| (0..tile.depth).map(move |k| (tap, k))) {
                let cell = (tap * tile.depth / 8 + k / 8) * 128 + c % 16 * 8 + k % 8;
                // SAFETY: pixels are readable for `depth` bytes, and the weights have all blocks.
                let (a, w) = unsafe {
                    (*tile.pixels[tap * 10 + row].add(k), *tile.weights.add(c / 16 * block + cell))
                };
                acc = acc.wrapping_add(operand(a) * i32::from(w));
            }
            // SAFETY: output and residual have these pixels and channels.
            unsafe {
                if tile.requant.is_float() {
                    let y = acc as f32 * tile.requant.scale[channel];
                    tile.out.add(row * tile.out_stride + c * 4).cast::<f32>().write_unaligned(y);
                } else {
                    let residual = (!tile.residual.is_null())
                        .then(|| *tile.residual.add(row * tile.residual_stride + c));
                    *tile.out.add(row * tile.out_stride + c) = tile.requant.apply(channel, acc, residual);
                }
            }
        }
    }

    unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>) {
        // SAFETY: the same duties.
        unsafe { scalar::Scalar.depthwise(tile) }
    }

    unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8) {
        // SAFETY: the same duties.
        unsafe { scalar::Scalar.max(sources, len, out) }
    }

    unsafe fn channel_sums(
        &self,
        input: *const u8,
        pixels: usize,
        stride: usize,
        channels: usize,
        sums: &mut [u32],
    ) {
        // SAFETY: the same duties.
        unsafe { scalar::Scalar.channel_sums(input, pixels, stride, channels, sums) }
    }
}
