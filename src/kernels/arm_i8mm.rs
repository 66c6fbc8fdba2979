//! int8 convolution with SMMLA (Cortex-A510, A710, A720, Neoverse N2, V1): `neon-i8mm`.
//!
//! Tile: 6 pixels x 8 blocks of 16 channels, one block at a time, depth step 64.
//! Registers of a block: v0-v23 sums (pixels 2r and 2r + 1 x channels 2c and 2c + 1: `v(8r + c)`), v24-v26
//! pairs of pixels (8 bytes each), v27 free, v28-v31 half a cell; no spill.
//! Layout: pointer table `[tap][12]`, two tiles, weights `N16K8` (a register is two channels, 8 deep), output pixels
//! `out_stride` apart. SMMLA multiplies a pair of pixels by a pair of channels, 2x2 sums; rows are sorted
//! out once at the end. It is written as assembly, since its intrinsics are not stable.
//! Figures: 192 of 258 instructions of a depth step of 64 are SMMLA, 32 MAC each; llvm-mca models 55 MAC/cycle
//! on Neoverse N2 (peak 64). YOLOv8n at 640x640, convolutions alone: 271 M instructions for 4371 MMAC
//! (emulated).
//! Test: `kernels::arm_tests` and the suite of all kernels.

use std::arch::aarch64::*;
use std::arch::asm;

use super::arm_epilogue::{Block, Sums, store_float};
use super::{DenseTile, DepthwiseTile, Kernels, Layout, Tile, arm_common};

const ROWS: usize = 6;
const BLOCKS: usize = 8;
const BATCH: usize = 2;

/// The kernels of this file; a value exists only where the CPU has SMMLA.
#[derive(Debug, Clone, Copy)]
pub struct NeonI8mm(());

impl NeonI8mm {
    /// What the CPU must have.
    pub const NEEDS: &'static str = "the int8 matrix instructions (i8mm)";

    /// The kernels, where the CPU has SMMLA.
    pub fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("i8mm").then_some(Self(()))
    }
}

impl Kernels for NeonI8mm {
    fn name(&self) -> &'static str {
        "neon-i8mm"
    }

    fn layout(&self) -> Layout {
        Layout::N16K8
    }

    fn tile(&self) -> Tile {
        Tile { rows: ROWS, blocks: BLOCKS }
    }

    fn batch(&self) -> usize {
        BATCH
    }

    unsafe fn dense(&self, tile: &DenseTile<'_>) {
        // SAFETY: the caller keeps the duties of `dense`, and `self` exists only where the CPU has SMMLA.
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
/// - the duties of [`Kernels::dense`]; the CPU has SMMLA.
#[target_feature(enable = "i8mm")]
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
#[target_feature(enable = "i8mm")]
unsafe fn dense_tile(tile: &DenseTile<'_>) {
    let block_len = Layout::N16K8.packed_len(16, tile.taps, tile.depth);
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

/// Three pairs of pixels with a pair of channels, `v$b`.
#[rustfmt::skip]
macro_rules! channels {
    ($b:literal, $s0:literal, $s1:literal, $s2:literal) => {
        concat!(
            "smmla v", $s0, ".4s, v24.16b, v", $b, ".16b\n",
            "smmla v", $s1, ".4s, v25.16b, v", $b, ".16b\n",
            "smmla v", $s2, ".4s, v26.16b, v", $b, ".16b\n",
        )
    };
}

/// One cell with the pixels in v24-v26.
#[rustfmt::skip]
macro_rules! cell {
    () => {
        concat!(
            "ld1 {{v28.16b, v29.16b, v30.16b, v31.16b}}, [{w}], #64\n",
            channels!("28", "0", "8", "16"),
            channels!("29", "1", "9", "17"),
            channels!("30", "2", "10", "18"),
            channels!("31", "3", "11", "19"),
            "ld1 {{v28.16b, v29.16b, v30.16b, v31.16b}}, [{w}], #64\n",
            channels!("28", "4", "12", "20"),
            channels!("29", "5", "13", "21"),
            channels!("30", "6", "14", "22"),
            channels!("31", "7", "15", "23"),
        )
    };
}

/// Depth step of 8.
#[rustfmt::skip]
macro_rules! step8 {
    () => {
        concat!(
            "ldr d24, [{a0}], #8\n",
            "ldr d25, [{a2}], #8\n",
            "ldr d26, [{a4}], #8\n",
            "ld1 {{v24.d}}[1], [{a1}], #8\n",
            "ld1 {{v25.d}}[1], [{a3}], #8\n",
            "ld1 {{v26.d}}[1], [{a5}], #8\n",
            cell!(),
        )
    };
}

/// Depth step of 32.
#[rustfmt::skip]
macro_rules! step32 {
    () => {
        concat!(step8!(), step8!(), step8!(), step8!())
    };
}

/// Start values of a pair of pixels: each pair of channels twice.
#[rustfmt::skip]
macro_rules! start {
    ($s0:literal, $s1:literal, $s2:literal, $s3:literal, $s4:literal, $s5:literal, $s6:literal, $s7:literal) => {
        concat!(
            "ld4r {{v", $s0, ".2d, v", $s1, ".2d, v", $s2, ".2d, v", $s3, ".2d}}, [{bias}]\n",
            "ld4r {{v", $s4, ".2d, v", $s5, ".2d, v", $s6, ".2d, v", $s7, ".2d}}, [{bias_high}]\n",
        )
    };
}

/// Sums of 6 pixels x 16 channels.
///
/// # Safety
/// - `tile` keeps the duties of [`Kernels::dense`]; the CPU has SMMLA.
/// - `weights` is one `N16K8` block of the tile's taps and depth; `bias` has 16 elements.
#[inline]
#[target_feature(enable = "i8mm")]
unsafe fn sums(tile: &DenseTile<'_>, weights: *const i8, bias: *const i32) -> [Sums; ROWS] {
    let (s0, s1, s2, s3, s4, s5, s6, s7);
    let (s8, s9, s10, s11, s12, s13, s14, s15);
    let (s16, s17, s18, s19, s20, s21, s22, s23);
    // SAFETY: reads `ROWS` pointers a tap, `depth` bytes behind each in steps of 64, 32, 16, 8 and 4, a cell per
    // 8 or last 4 of them, and 16 of `bias`, all readable by this function's duties; writes no memory.
    unsafe {
        asm!(
            start!("0", "1", "2", "3", "4", "5", "6", "7"),
            start!("8", "9", "10", "11", "12", "13", "14", "15"),
            start!("16", "17", "18", "19", "20", "21", "22", "23"),
            "2:",
            "ldp {a0}, {a1}, [{table}], #16",
            "ldp {a2}, {a3}, [{table}], #16",
            "ldp {a4}, {a5}, [{table}], #{rest_of_row}",
            "cbz {deep}, 4f",
            "mov {n}, {deep}",
            "3:",
            step32!(),
            "subs {n}, {n}, #1",
            step32!(),
            "b.ne 3b",
            "4:",
            "tbz {depth}, #5, 5f",
            step32!(),
            "5:",
            "tbz {depth}, #4, 6f",
            step8!(),
            step8!(),
            "6:",
            "tbz {depth}, #3, 7f",
            step8!(),
            "7:",
            "tbz {depth}, #2, 8f",
            "ldr s24, [{a0}]",
            "ldr s25, [{a2}]",
            "ldr s26, [{a4}]",
            "ld1 {{v24.s}}[2], [{a1}]",
            "ld1 {{v25.s}}[2], [{a3}]",
            "ld1 {{v26.s}}[2], [{a5}]",
            cell!(),
            "8:",
            "subs {taps}, {taps}, #1",
            "b.ne 2b",
            table = inout(reg) tile.pixels.as_ptr() => _,
            rest_of_row = const (BATCH * ROWS - 4) * 8,
            w = inout(reg) weights => _,
            taps = inout(reg) tile.taps => _,
            bias = in(reg) bias,
            bias_high = in(reg) bias.add(8),
            depth = in(reg) tile.depth,
            deep = in(reg) tile.depth / 64,
            a0 = out(reg) _, a1 = out(reg) _, a2 = out(reg) _,
            a3 = out(reg) _, a4 = out(reg) _, a5 = out(reg) _,
            n = out(reg) _,
            out("v0") s0, out("v1") s1, out("v2") s2, out("v3") s3,
            out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7,
            out("v8") s8, out("v9") s9, out("v10") s10, out("v11") s11,
            out("v12") s12, out("v13") s13, out("v14") s14, out("v15") s15,
            out("v16") s16, out("v17") s17, out("v18") s18, out("v19") s19,
            out("v20") s20, out("v21") s21, out("v22") s22, out("v23") s23,
            out("v24") _, out("v25") _, out("v26") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack, readonly),
        );
    }
    let [p0, p1] = sort([s0, s1, s2, s3, s4, s5, s6, s7]);
    let [p2, p3] = sort([s8, s9, s10, s11, s12, s13, s14, s15]);
    let [p4, p5] = sort([s16, s17, s18, s19, s20, s21, s22, s23]);
    [p0, p1, p2, p3, p4, p5]
}

/// 2x2 sums of two pixels to the sums of each.
#[inline(always)]
fn sort(s: [int32x4_t; 8]) -> [Sums; 2] {
    // SAFETY: NEON is part of every aarch64 target that this file is built for.
    unsafe {
        let even =
            |a, b| vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
        let odd =
            |a, b| vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
        [
            [even(s[0], s[1]), even(s[2], s[3]), even(s[4], s[5]), even(s[6], s[7])],
            [odd(s[0], s[1]), odd(s[2], s[3]), odd(s[4], s[5]), odd(s[6], s[7])],
        ]
    }
}
