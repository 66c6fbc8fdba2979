//! int8 convolution with SDOT (Cortex-A55, A76, A78AE, Neoverse N1): `neon-dotprod`.
//!
//! Tile: 5 pixels x 8 blocks of 16 channels, one block at a time, depth step 64.
//! Registers of a block: v0-v19 sums (pixel r, channels 4c..: `v(4r + c)`), v20-v24 pixels (16 bytes each),
//! v25-v28 one cell, v29-v31 free; no spill.
//! Layout: pointer table `[tap][10]`, two tiles, weights as the file has them (`N16K4`), output pixels `out_stride` apart.
//! SDOT by lane: lane `k` of a pixel holds depth `4k..4k + 4`, a cell's register four channels of it.
//! The instruction is written as assembly, since its intrinsics are not stable.
//! Figures: 320 of 358 instructions of a depth step of 64 are SDOT, 16 MAC each; llvm-mca models
//! 31.6 MAC/cycle on A76 (peak 32), 8.5 on A55. YOLOv8n at 640x640, convolutions alone: 387 M instructions
//! for 4371 MMAC (emulated).
//! Test: `kernels::arm_tests` and the suite of all kernels.

use std::arch::asm;

use super::arm_epilogue::{Block, Sums, store_float};
use super::{DenseTile, DepthwiseTile, Kernels, Layout, Tile, arm_common};

const ROWS: usize = 5;
const BLOCKS: usize = 8;
const BATCH: usize = 2;

/// The kernels of this file; a value exists only where the CPU has SDOT.
#[derive(Debug, Clone, Copy)]
pub struct NeonDotprod(());

impl NeonDotprod {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "the dot product instructions (asimddp)";

    /// The kernels, where the CPU has SDOT.
    pub fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}

impl Kernels for NeonDotprod {
    fn name(&self) -> &'static str {
        "neon-dotprod"
    }

    fn layout(&self) -> Layout {
        Layout::N16K4
    }

    fn tile(&self) -> Tile {
        Tile { rows: ROWS, blocks: BLOCKS }
    }

    fn batch(&self) -> usize {
        BATCH
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        // SAFETY: the caller keeps the duties of `dense`, and `self` exists only where the CPU has SDOT.
        unsafe { dense(tile) }
    }

    unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>) {
        // SAFETY: the same duties.
        unsafe { arm_common::depthwise(tile) }
    }

    unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8) {
        // SAFETY: the same duties.
        unsafe { arm_common::max(sources, len, out) }
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
        unsafe { arm_common::channel_sums(input, pixels, stride, channels, sums) }
    }
}

/// [`Kernels::dense`].
///
/// # Safety
/// - the duties of [`Kernels::dense`]; the CPU has SDOT.
#[target_feature(enable = "dotprod")]
unsafe fn dense(tile: &DenseTile<'_>) {
    for first in (0..tile.rows).step_by(ROWS) {
        // SAFETY: a tile of the batch: pixel `first`, below its rows, is where `out` and `residual` have it.
        unsafe { dense_tile(&arm_common::tile_of(tile, first, ROWS)) }
    }
}

/// One tile of the batch.
///
/// # Safety
/// - the duties of [`dense`], of at most `ROWS` rows.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn dense_tile(tile: &DenseTile<'_>) {
    let block_len = Layout::N16K4.packed_len(16, tile.taps, tile.depth);
    for index in 0..tile.channels.div_ceil(16) {
        // SAFETY: the caller keeps the duties of `dense`, and `index` is one of the tile's blocks.
        unsafe {
            let block = Block::of_dense(tile, index);
            let sums = sums(tile, tile.weights.add(index * block_len), block.bias());
            if tile.requant.is_float() {
                let sums = sums;
                store_float(tile, index, 0, &sums);
            } else {
                block.finish(block.round(&sums), tile.rows);
            }
        }
    }
}

/// One pixel's 16 channels: lane `$k` of `v$a` with the cell in v25-v28.
#[rustfmt::skip]
macro_rules! pixel {
    ($k:literal, $a:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            "sdot v", $s0, ".4s, v25.16b, v", $a, ".4b[", $k, "]\n",
            "sdot v", $s1, ".4s, v26.16b, v", $a, ".4b[", $k, "]\n",
            "sdot v", $s2, ".4s, v27.16b, v", $a, ".4b[", $k, "]\n",
            "sdot v", $s3, ".4s, v28.16b, v", $a, ".4b[", $k, "]\n",
        )
    };
}

/// One cell: depth step of 4, lane `$k` of every pixel.
#[rustfmt::skip]
macro_rules! cell {
    ($k:literal) => {
        concat!(
            "ld1 {{v25.16b, v26.16b, v27.16b, v28.16b}}, [{w}], #64\n",
            pixel!($k, "20", "0", "1", "2", "3"),
            pixel!($k, "21", "4", "5", "6", "7"),
            pixel!($k, "22", "8", "9", "10", "11"),
            pixel!($k, "23", "12", "13", "14", "15"),
            pixel!($k, "24", "16", "17", "18", "19"),
        )
    };
}

/// Depth step of 16.
#[rustfmt::skip]
macro_rules! step16 {
    () => {
        concat!(
            "ldr q20, [{a0}], #16\n",
            "ldr q21, [{a1}], #16\n",
            "ldr q22, [{a2}], #16\n",
            "ldr q23, [{a3}], #16\n",
            "ldr q24, [{a4}], #16\n",
            cell!("0"),
            cell!("1"),
            cell!("2"),
            cell!("3"),
        )
    };
}

/// Sums of 5 pixels x 16 channels.
///
/// # Safety
/// - `tile` keeps the duties of [`Kernels::dense`]; the CPU has SDOT.
/// - `weights` is one `N16K4` block of the tile's taps and depth; `bias` has 16 elements.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn sums(tile: &DenseTile<'_>, weights: *const i8, bias: *const i32) -> [Sums; ROWS] {
    let (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9);
    let (s10, s11, s12, s13, s14, s15, s16, s17, s18, s19);
    // SAFETY: reads `ROWS` pointers a tap, `depth` bytes behind each in steps of 64, 32, 16, 8 and 4, a cell per 4
    // of them, and 16 of `bias`, all readable by this function's duties; writes no memory.
    unsafe {
        asm!(
            "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{bias}]",
            "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{bias}]",
            "ld1 {{v8.4s, v9.4s, v10.4s, v11.4s}}, [{bias}]",
            "ld1 {{v12.4s, v13.4s, v14.4s, v15.4s}}, [{bias}]",
            "ld1 {{v16.4s, v17.4s, v18.4s, v19.4s}}, [{bias}]",
            "2:",
            "ldp {a0}, {a1}, [{table}], #16",
            "ldp {a2}, {a3}, [{table}], #16",
            "ldr {a4}, [{table}], #{rest_of_row}",
            "cbz {deep}, 4f",
            "mov {n}, {deep}",
            "3:",
            step16!(),
            step16!(),
            step16!(),
            "subs {n}, {n}, #1",
            step16!(),
            "b.ne 3b",
            "4:",
            "tbz {depth}, #5, 5f",
            step16!(),
            step16!(),
            "5:",
            "tbz {depth}, #4, 6f",
            step16!(),
            "6:",
            "tst {depth}, #12",
            "b.eq 8f",
            "tbz {depth}, #3, 7f",
            "ldr d20, [{a0}], #8",
            "ldr d21, [{a1}], #8",
            "ldr d22, [{a2}], #8",
            "ldr d23, [{a3}], #8",
            "ldr d24, [{a4}], #8",
            cell!("0"),
            cell!("1"),
            "tbz {depth}, #2, 8f",
            "7:",
            "ldr s20, [{a0}]",
            "ldr s21, [{a1}]",
            "ldr s22, [{a2}]",
            "ldr s23, [{a3}]",
            "ldr s24, [{a4}]",
            cell!("0"),
            "8:",
            "subs {taps}, {taps}, #1",
            "b.ne 2b",
            table = inout(reg) tile.pixels.as_ptr() => _,
            rest_of_row = const (BATCH * ROWS - 4) * 8,
            w = inout(reg) weights => _,
            taps = inout(reg) tile.taps => _,
            bias = in(reg) bias,
            depth = in(reg) tile.depth,
            deep = in(reg) tile.depth / 64,
            a0 = out(reg) _, a1 = out(reg) _, a2 = out(reg) _, a3 = out(reg) _, a4 = out(reg) _,
            n = out(reg) _,
            out("v0") s0, out("v1") s1, out("v2") s2, out("v3") s3,
            out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7,
            out("v8") s8, out("v9") s9, out("v10") s10, out("v11") s11,
            out("v12") s12, out("v13") s13, out("v14") s14, out("v15") s15,
            out("v16") s16, out("v17") s17, out("v18") s18, out("v19") s19,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _,
            out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            options(nostack, readonly),
        );
    }
    [[s0, s1, s2, s3], [s4, s5, s6, s7], [s8, s9, s10, s11], [s12, s13, s14, s15], [s16, s17, s18, s19]]
}
