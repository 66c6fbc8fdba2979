//! The product of `avx2`: `vpmaddwd` of bytes widened to 16 bits, exact.
//!
//! Tile: 6 pixels x 16 channels, up to 8 blocks in turn; K step 4.
//! Registers: ymm0-ymm11 sums, ymm12-ymm13 half a cell's weights, ymm14 a pixel, ymm15 a product; no spill.
//! `vpmaddubsw` is not used: 2 * 255 * 127 does not fit its i16. Widening needs no shuffle: in a group of four
//! channels, bytes 0 and 2 are one pair of 16-bit numbers, and bytes 1 and 3 another, for pixels (by a mask or
//! a shift, once for all blocks, into a panel in L1) as for weights (by shifts).
//! Test: `kernels::tests`.

use super::x86_avx2::{Out, PIXELS, Sums, finish};
use super::{CELL_CHANNELS, DenseTile};
use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Cells' worth of pixels that are widened at a time: with the weights that meet them, they fit L1.
const PANEL: usize = 648;

/// Six pixels' inputs as 16-bit numbers, for each group of four channels: 0 and 2, then 1 and 3.
type Panel = [[MaybeUninit<[u32; 2]>; PANEL]; PIXELS];

/// # Safety
/// - The CPU has the feature. - Duties of [`Kernels::dense`] with a tile of 6 pixels.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dense(tile: &DenseTile<'_>) {
    let mut panel: Panel = [[MaybeUninit::uninit(); PANEL]; PIXELS];
    let mut held = None;
    let cells = tile.taps * (tile.depth / 4);
    for block in 0..tile.channels.div_ceil(CELL_CHANNELS) {
        let bias = tile.requant.bias[tile.first_channel + block * CELL_CHANNELS..].as_ptr();
        // SAFETY: the bias reaches the block.
        let start: Sums = std::array::from_fn(|h| unsafe { _mm256_loadu_si256(bias.add(h * 8).cast()) });
        let mut acc = [start; PIXELS];
        for first in (0..cells).step_by(PANEL) {
            let count = PANEL.min(cells - first);
            // SAFETY: the cells are among the tile's; the panel is filled for them before it is read, and the
            // block has 64 bytes for each.
            unsafe {
                if held != Some(first) {
                    widen(tile, first, count, &mut panel);
                    held = Some(first);
                }
                multiply(&panel, tile.weights.add((block * cells + first) * 64), count, &mut acc);
            }
        }
        // SAFETY: duties are passed on.
        unsafe { finish(&acc, tile.rows, &Out::of_block(tile, block)) };
    }
}

/// Fills a panel with the pixels of `count` cells from the `first` on.
///
/// # Safety
/// - The CPU has the feature. - Duties of [`Kernels::dense`] with a tile of 6 pixels.
/// - The tile has `first + count` cells, `count <= PANEL`.
#[target_feature(enable = "avx2")]
unsafe fn widen(tile: &DenseTile<'_>, first: usize, count: usize, panel: &mut Panel) {
    let per_tap = tile.depth / 4;
    let low = _mm_set1_epi16(0xff);
    for (r, panel) in panel.iter_mut().enumerate() {
        let mut done = 0;
        while done < count {
            let (tap, cell) = ((first + done) / per_tap, (first + done) % per_tap);
            let run = (per_tap - cell).min(count - done);
            // SAFETY: the table has a pointer for this tap and pixel, readable for `depth` bytes, of which
            // those of `run` cells from `cell` on are some; the panel has room for `done + run` cells.
            unsafe {
                let from = tile.pixels.as_ptr().add(tap * PIXELS + r).read().add(cell * 4);
                let to = panel.as_mut_ptr().add(done);
                for at in (0..run / 4 * 4).step_by(4) {
                    let bytes = _mm_loadu_si128(from.add(at * 4).cast());
                    let (even, odd) = (_mm_and_si128(bytes, low), _mm_srli_epi16::<8>(bytes));
                    _mm_storeu_si128(to.add(at).cast(), _mm_unpacklo_epi32(even, odd));
                    _mm_storeu_si128(to.add(at + 2).cast(), _mm_unpackhi_epi32(even, odd));
                }
                for at in run / 4 * 4..run {
                    let bytes = from.add(at * 4).cast::<u32>().read_unaligned();
                    to.add(at).write(MaybeUninit::new([bytes & 0x00ff_00ff, bytes >> 8 & 0x00ff_00ff]));
                }
            }
            done += run;
        }
    }
}

/// Pixel `$r`: its pair of inputs, `$odd` bytes into the panel's cell, with the weights in ymm12 and ymm13.
#[rustfmt::skip]
macro_rules! pixel {
    ($r:literal, $odd:literal, $s0:literal, $s1:literal) => {
        concat!(
            "vpbroadcastd ymm14, dword ptr [{panel} + ", $r, " * {row} + ", $odd, "]\n",
            "vpmaddwd ymm15, ymm14, ymm12\n",
            "vpmaddwd ymm14, ymm14, ymm13\n",
            "vpaddd ymm", $s0, ", ymm", $s0, ", ymm15\n",
            "vpaddd ymm", $s1, ", ymm", $s1, ", ymm14\n",
        )
    };
}

/// All pixels.
#[rustfmt::skip]
macro_rules! pixels {
    ($odd:literal) => {
        concat!(
            pixel!("0", $odd, "0", "1"),
            pixel!("1", $odd, "2", "3"),
            pixel!("2", $odd, "4", "5"),
            pixel!("3", $odd, "6", "7"),
            pixel!("4", $odd, "8", "9"),
            pixel!("5", $odd, "10", "11"),
        )
    };
}

/// Adds the products of `count` cells of a panel to `acc`. In assembly: a compiler that orders the sums
/// anew, as it may, runs out of registers and stores half of them in every round.
///
/// # Safety
/// - The CPU has the feature. - The panel is filled for `count` cells; `weights` has as many.
/// - `count` is not 0.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn multiply(panel: &Panel, weights: *const i8, count: usize, acc: &mut [Sums; PIXELS]) {
    let [[s0, s1], [s2, s3], [s4, s5], [s6, s7], [s8, s9], [s10, s11]] = acc;
    // SAFETY: reads `count` cells of 64 bytes and as many of each pixel of the panel; writes no memory.
    unsafe {
        asm!(
            "2:",
            "vmovdqu ymm12, ymmword ptr [{weights}]",
            "vmovdqu ymm13, ymmword ptr [{weights} + 32]",
            "vpsllw ymm12, ymm12, 8",
            "vpsllw ymm13, ymm13, 8",
            "vpsraw ymm12, ymm12, 8",
            "vpsraw ymm13, ymm13, 8",
            pixels!("0"),
            "vmovdqu ymm12, ymmword ptr [{weights}]",
            "vmovdqu ymm13, ymmword ptr [{weights} + 32]",
            "vpsraw ymm12, ymm12, 8",
            "vpsraw ymm13, ymm13, 8",
            pixels!("4"),
            "add {weights}, 64",
            "add {panel}, 8",
            "dec {count}",
            "jnz 2b",
            weights = inout(reg) weights => _,
            panel = inout(reg) panel.as_ptr() => _,
            count = inout(reg) count => _,
            row = const PANEL * 8,
            inout("ymm0") *s0, inout("ymm1") *s1, inout("ymm2") *s2, inout("ymm3") *s3,
            inout("ymm4") *s4, inout("ymm5") *s5, inout("ymm6") *s6, inout("ymm7") *s7,
            inout("ymm8") *s8, inout("ymm9") *s9, inout("ymm10") *s10, inout("ymm11") *s11,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, readonly),
        );
    }
}
