//! int8 convolution for every aarch64 CPU, without SDOT (Cortex-A53, A57, A72): `neon`.
//!
//! Tile: 6 pixels x 8 blocks of 16 channels, in passes of 2 pixels x 16 channels, depth step 8.
//! Registers of a pass: v0-v7 sums of pixel 0 (2 channels x 2 halves of the depth each), v8-v15 sums of
//! pixel 1, v16-v19 pixels (4 bytes in every lane), v20-v27 two cells, v28-v31 products; no spill.
//! Sums wait in a buffer for the epilogue of all 6 pixels.
//! Layout: pointer table `[tap][6]`, weights as the file has them (`N16K4`), output pixels `out_stride` apart.
//! Products: SMULL and SMLAL add two products of `±128 * ±127` in i16, at most 32512, and SADALP adds
//! neighbours to i32: 16 MAC in 3 instructions. One ADDP per 4 sums joins the halves at the end.
//! Figures: 48 of 52 instructions of a depth step of 8 multiply or add; llvm-mca models 7.99 MAC/cycle on A72
//! (peak 8), 3.0 on A53. YOLOv8n at 640x640, convolutions alone: 1004 M instructions for 4371 MMAC (emulated).
//! Test: `kernels::arm_tests` and the suite of all kernels.

use std::arch::asm;
use std::mem::MaybeUninit;

use super::arm_epilogue::{Block, Sums, store_float};
use super::{DenseTile, DepthwiseTile, Kernels, Layout, Tile, arm_common};

const ROWS: usize = 6;
const BLOCKS: usize = 8;

/// The kernels of this file. NEON is part of the aarch64 baseline, so they always run.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

impl Neon {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "NEON";

    /// The kernels, always there.
    pub fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Kernels for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn layout(&self) -> Layout {
        Layout::N16K4
    }

    fn tile(&self) -> Tile {
        Tile { rows: ROWS, blocks: BLOCKS }
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        let block_len = self.layout().packed_len(16, tile.taps, tile.depth);
        for index in 0..tile.channels.div_ceil(16) {
            // SAFETY: the caller keeps the duties of `dense`; `index` is one of the tile's blocks.
            unsafe {
                let weights = tile.weights.add(index * block_len);
                let block = Block::of_dense(tile, index);
                let mut buffer = MaybeUninit::uninit();
                let sums = sums(tile, weights, block.bias(), &mut buffer);
                if tile.requant.is_float() {
                    store_float(tile, index, 0, sums);
                } else {
                    block.finish(block.round(sums), tile.rows);
                }
            }
        }
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

/// Four channels of both pixels, 8 deep: cells `v$b` (depth 0-3) and `v$c` (4-7) into four sums.
#[rustfmt::skip]
macro_rules! four_channels {
    ($b:literal, $c:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            "smull v28.8h, v16.8b, v", $b, ".8b\n",
            "smull2 v29.8h, v16.16b, v", $b, ".16b\n",
            "smull v30.8h, v18.8b, v", $b, ".8b\n",
            "smull2 v31.8h, v18.16b, v", $b, ".16b\n",
            "smlal v28.8h, v17.8b, v", $c, ".8b\n",
            "smlal2 v29.8h, v17.16b, v", $c, ".16b\n",
            "smlal v30.8h, v19.8b, v", $c, ".8b\n",
            "smlal2 v31.8h, v19.16b, v", $c, ".16b\n",
            "sadalp v", $s0, ".4s, v28.8h\n",
            "sadalp v", $s1, ".4s, v29.8h\n",
            "sadalp v", $s2, ".4s, v30.8h\n",
            "sadalp v", $s3, ".4s, v31.8h\n",
        )
    };
}

/// Depth step of 8: both pixels, two cells.
#[rustfmt::skip]
macro_rules! step8 {
    () => {
        concat!(
            "ld2r {{v16.4s, v17.4s}}, [{a0}], #8\n",
            "ld2r {{v18.4s, v19.4s}}, [{a1}], #8\n",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{w}], #64\n",
            "ld1 {{v24.16b, v25.16b, v26.16b, v27.16b}}, [{w}], #64\n",
            four_channels!("20", "24", "0", "1", "8", "9"),
            four_channels!("21", "25", "2", "3", "10", "11"),
            four_channels!("22", "26", "4", "5", "12", "13"),
            four_channels!("23", "27", "6", "7", "14", "15"),
        )
    };
}

/// Four channels of both pixels, 4 deep.
#[rustfmt::skip]
macro_rules! last_four {
    ($b:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
        concat!(
            "smull v28.8h, v16.8b, v", $b, ".8b\n",
            "smull2 v29.8h, v16.16b, v", $b, ".16b\n",
            "smull v30.8h, v18.8b, v", $b, ".8b\n",
            "smull2 v31.8h, v18.16b, v", $b, ".16b\n",
            "sadalp v", $s0, ".4s, v28.8h\n",
            "sadalp v", $s1, ".4s, v29.8h\n",
            "sadalp v", $s2, ".4s, v30.8h\n",
            "sadalp v", $s3, ".4s, v31.8h\n",
        )
    };
}

/// Sums of `ROWS` pixels x 16 channels, pair by pair; pairs past the tile's rows are 0.
///
/// # Safety
/// - `tile` keeps the duties of [`Kernels::dense`].
/// - `weights` is one `N16K4` block of the tile's taps and depth; `bias` has 16 elements.
#[inline(always)]
unsafe fn sums<'a>(
    tile: &DenseTile<'_>,
    weights: *const i8,
    bias: *const i32,
    sums: &'a mut MaybeUninit<[Sums; ROWS]>,
) -> &'a [Sums; ROWS] {
    if tile.rows < ROWS {
        *sums = MaybeUninit::zeroed();
    }
    // SAFETY: reads two pointers a pair and tap, `depth` bytes behind each in steps of 16, 8 and 4, a cell per
    // 4 of them, and 16 of `bias`, all readable by this function's duties; writes two rows of `sums` a pair,
    // and there are `ROWS / 2` pairs at most.
    unsafe {
        asm!(
            "8:",
            "ldp q20, q21, [{bias}]",
            "ldp q22, q23, [{bias}, #32]",
            "movi v24.4s, #0",
            "mov {t}, {table}",
            "zip1 v0.4s, v20.4s, v24.4s",
            "zip2 v1.4s, v20.4s, v24.4s",
            "zip1 v2.4s, v21.4s, v24.4s",
            "zip2 v3.4s, v21.4s, v24.4s",
            "zip1 v4.4s, v22.4s, v24.4s",
            "zip2 v5.4s, v22.4s, v24.4s",
            "zip1 v6.4s, v23.4s, v24.4s",
            "zip2 v7.4s, v23.4s, v24.4s",
            "mov {w}, {weights}",
            "mov v8.16b, v0.16b",
            "mov v9.16b, v1.16b",
            "mov v10.16b, v2.16b",
            "mov v11.16b, v3.16b",
            "mov v12.16b, v4.16b",
            "mov v13.16b, v5.16b",
            "mov v14.16b, v6.16b",
            "mov v15.16b, v7.16b",
            "mov {left}, {taps}",
            "2:",
            "ldp {a0}, {a1}, [{t}], #48",
            "cbz {deep}, 4f",
            "mov {n}, {deep}",
            "3:",
            step8!(),
            "subs {n}, {n}, #1",
            step8!(),
            "b.ne 3b",
            "4:",
            "tbz {depth}, #3, 5f",
            step8!(),
            "5:",
            "tbz {depth}, #2, 6f",
            "ld1r {{v16.4s}}, [{a0}]",
            "ld1r {{v18.4s}}, [{a1}]",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{w}], #64",
            last_four!("20", "0", "1", "8", "9"),
            last_four!("21", "2", "3", "10", "11"),
            last_four!("22", "4", "5", "12", "13"),
            last_four!("23", "6", "7", "14", "15"),
            "6:",
            "subs {left}, {left}, #1",
            "b.ne 2b",
            "add {table}, {table}, #16",
            "addp v0.4s, v0.4s, v1.4s",
            "addp v1.4s, v2.4s, v3.4s",
            "addp v2.4s, v4.4s, v5.4s",
            "addp v3.4s, v6.4s, v7.4s",
            "addp v4.4s, v8.4s, v9.4s",
            "addp v5.4s, v10.4s, v11.4s",
            "addp v6.4s, v12.4s, v13.4s",
            "addp v7.4s, v14.4s, v15.4s",
            "subs {pairs}, {pairs}, #1",
            "stp q0, q1, [{sums}], #32",
            "stp q2, q3, [{sums}], #32",
            "stp q4, q5, [{sums}], #32",
            "stp q6, q7, [{sums}], #32",
            "b.ne 8b",
            table = inout(reg) tile.pixels.as_ptr() => _,
            pairs = inout(reg) tile.rows.min(ROWS).div_ceil(2) => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            weights = in(reg) weights,
            taps = in(reg) tile.taps,
            bias = in(reg) bias,
            depth = in(reg) tile.depth,
            deep = in(reg) tile.depth / 16,
            a0 = out(reg) _, a1 = out(reg) _, t = out(reg) _, w = out(reg) _, n = out(reg) _, left = out(reg) _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
        sums.assume_init_ref()
    }
}
