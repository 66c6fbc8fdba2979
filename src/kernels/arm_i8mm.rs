//! int8 convolution with SMMLA (Cortex-A510, A710, A720, Neoverse N2, V1): `neon-i8mm`.
//!
//! Tile: 6 pixels x 8 blocks of 16 channels, one block at a time, depth step 64.
//! Registers of a block: v0-v23 sums (pixels 2r and 2r + 1 x channels 2c and 2c + 1: `v(8r + c)`), v24-v26
//! pairs of pixels (8 bytes each), v27 free, v28-v31 half a cell; no spill.
//! Layout: pointer table `[tap][12]`, two tiles, weights `N16K8` (a register is two channels, 8 deep), output pixels
//! `out_stride` apart. SMMLA multiplies a pair of pixels by a pair of channels, 2x2 sums; rows are sorted
//! out once at the end. It is written as assembly, since its intrinsics are not stable.
//! Pairing pixels takes six loads a step. The first of several blocks keeps what it paired, `[tap][depth/8][3][16]`, and
//! the others read that: one load a step, and no pointers.
//! Figures: 192 of 258 instructions of a depth step of 64 are SMMLA, 32 MAC each, 192 of 218 in the later blocks;
//! llvm-mca models 55 and 64 MAC/cycle on Neoverse N2 (peak 64), 50 where pairs are kept (`.ci/loops.py`).
//! Test: `kernels::arm_tests` and the suite of all kernels.

use std::arch::aarch64::*;
use std::arch::asm;
use std::mem::MaybeUninit;

use super::arm_epilogue::{Block, Sums, store_float};
use super::{DenseTile, DepthwiseTile, Kernels, Layout, Tile, arm_common};

const ROWS: usize = 6;
const BLOCKS: usize = 8;
const BATCH: usize = 2;
/// Bytes of a tile's pixels, paired, that are kept for its later blocks: what fits a small core's L1.
const PAIRED: usize = 32 << 10;
/// Bytes of one depth step of them.
const STEP: usize = ROWS * 8;

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
    let mut paired = MaybeUninit::<[u8; PAIRED]>::uninit();
    for first in (0..tile.rows).step_by(ROWS) {
        // SAFETY: a tile of the batch: pixel `first`, below its rows, is where `out` and `residual` have it.
        unsafe { dense_tile(&arm_common::tile_of(tile, first, ROWS), &mut paired) }
    }
}

/// One tile of the batch; `paired` is room for its pixels.
///
/// # Safety
/// - the duties of [`dense`], of at most `ROWS` rows.
#[inline]
#[target_feature(enable = "i8mm")]
unsafe fn dense_tile(tile: &DenseTile<'_>, paired: &mut MaybeUninit<[u8; PAIRED]>) {
    let block_len = Layout::N16K8.packed_len(16, tile.taps, tile.depth);
    let blocks = tile.channels.div_ceil(16);
    let steps = tile.taps * tile.depth.div_ceil(8);
    let keeps = blocks > 1 && steps * STEP <= PAIRED;
    let paired = paired.as_mut_ptr().cast::<u8>();
    for index in 0..blocks {
        // SAFETY: the caller keeps the duties of `dense`, and `index` is one of the tile's blocks; `paired` takes
        // all steps where it is written, which is before it is read.
        unsafe {
            let block = Block::of_dense(tile, index);
            let (weights, bias) = (tile.weights.add(index * block_len), block.bias());
            let sums = sort(match index {
                _ if !keeps => sums(tile, weights, bias),
                0 => sums_keeping(tile, paired, weights, bias),
                _ => sums_of_kept(paired, steps, weights, bias),
            });
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

/// Depth step of 8 with the pixels behind `a0`-`a5`; `$keep` does more with the pairs.
#[rustfmt::skip]
macro_rules! step8 {
    ($keep:literal) => {
        concat!(
            "ldr d24, [{a0}], #8\n",
            "ldr d25, [{a2}], #8\n",
            "ldr d26, [{a4}], #8\n",
            "ld1 {{v24.d}}[1], [{a1}], #8\n",
            "ld1 {{v25.d}}[1], [{a3}], #8\n",
            "ld1 {{v26.d}}[1], [{a5}], #8\n",
            $keep,
            cell!(),
        )
    };
}

/// Depth step of 32 of the same.
#[rustfmt::skip]
macro_rules! step32 {
    ($keep:literal) => {
        concat!(step8!($keep), step8!($keep), step8!($keep), step8!($keep))
    };
}

/// Depth step of 8 with kept pairs.
#[rustfmt::skip]
macro_rules! kept8 {
    () => {
        concat!("ld1 {{v24.16b, v25.16b, v26.16b}}, [{paired}], #48\n", cell!())
    };
}

/// Depth step of 16 of the same.
#[rustfmt::skip]
macro_rules! kept16 {
    () => {
        concat!(kept8!(), kept8!())
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

/// Sums of pixels 2r and 2r + 1 with channels 2c and 2c + 1, at `8r + c`: row by row.
type Pairs = [int32x4_t; 24];

/// A function that gives the sums of 6 pixels x 16 channels, of which `$template` is the main loop.
macro_rules! sums_function {
    (
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty),*), $template:expr, options($($option:ident),*), $($operands:tt)*
    ) => {
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "i8mm")]
        unsafe fn $name($($argument: $type,)* weights: *const i8, bias: *const i32) -> Pairs {
            let (s0, s1, s2, s3, s4, s5, s6, s7);
            let (s8, s9, s10, s11, s12, s13, s14, s15);
            let (s16, s17, s18, s19, s20, s21, s22, s23);
            // SAFETY: reads a cell of weights a step, 16 of `bias`, and the pixels; writes what it keeps of them.
            // This function's duties say that all of it is there.
            unsafe {
                asm!(
                    start!("0", "1", "2", "3", "4", "5", "6", "7"),
                    start!("8", "9", "10", "11", "12", "13", "14", "15"),
                    start!("16", "17", "18", "19", "20", "21", "22", "23"),
                    $template,
                    w = inout(reg) weights => _,
                    bias = in(reg) bias,
                    bias_high = in(reg) bias.add(8),
                    n = out(reg) _,
                    $($operands)*
                    out("v0") s0, out("v1") s1, out("v2") s2, out("v3") s3,
                    out("v4") s4, out("v5") s5, out("v6") s6, out("v7") s7,
                    out("v8") s8, out("v9") s9, out("v10") s10, out("v11") s11,
                    out("v12") s12, out("v13") s13, out("v14") s14, out("v15") s15,
                    out("v16") s16, out("v17") s17, out("v18") s18, out("v19") s19,
                    out("v20") s20, out("v21") s21, out("v22") s22, out("v23") s23,
                    out("v24") _, out("v25") _, out("v26") _,
                    out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nostack $(, $option)*),
                );
            }
            [
                s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16, s17, s18, s19, s20, s21,
                s22, s23,
            ]
        }
    };
}

/// Taps and depth with pointers; `$keep` follows each load of pairs.
#[rustfmt::skip]
macro_rules! taps {
    ($keep:literal) => {
        concat!(
            "2:\n",
            "ldp {a0}, {a1}, [{table}], #16\n",
            "ldp {a2}, {a3}, [{table}], #16\n",
            "ldp {a4}, {a5}, [{table}], #{rest_of_row}\n",
            "cbz {deep}, 4f\n",
            "mov {n}, {deep}\n",
            "3:\n",
            step32!($keep),
            "subs {n}, {n}, #1\n",
            step32!($keep),
            "b.ne 3b\n",
            "4:\n",
            "tbz {depth}, #5, 5f\n",
            step32!($keep),
            "5:\n",
            "tbz {depth}, #4, 6f\n",
            step8!($keep),
            step8!($keep),
            "6:\n",
            "tbz {depth}, #3, 7f\n",
            step8!($keep),
            "7:\n",
            "tbz {depth}, #2, 8f\n",
            "ldr s24, [{a0}]\n",
            "ldr s25, [{a2}]\n",
            "ldr s26, [{a4}]\n",
            "ld1 {{v24.s}}[2], [{a1}]\n",
            "ld1 {{v25.s}}[2], [{a3}]\n",
            "ld1 {{v26.s}}[2], [{a5}]\n",
            $keep,
            cell!(),
            "8:\n",
            "subs {taps}, {taps}, #1\n",
            "b.ne 2b\n",
        )
    };
}

/// A function that reads pixels behind the tile's pointers; `$keep` as in [`taps`].
macro_rules! pixels_function {
    (
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $type:ty),*), $keep:literal, options($($option:ident),*), $($operands:tt)*
    ) => {
        sums_function! {
            $(#[$doc])*
            $name(tile: &DenseTile<'_> $(, $argument: $type)*),
            taps!($keep),
            options($($option),*),
            $($operands)*
            table = inout(reg) tile.pixels.as_ptr() => _,
            rest_of_row = const (BATCH * ROWS - 4) * 8,
            taps = inout(reg) tile.taps => _,
            depth = in(reg) tile.depth,
            deep = in(reg) tile.depth / 64,
            a0 = out(reg) _, a1 = out(reg) _, a2 = out(reg) _,
            a3 = out(reg) _, a4 = out(reg) _, a5 = out(reg) _,
        }
    };
}

pixels_function! {
    /// Sums of the tile's pixels.
    ///
    /// # Safety
    /// - `tile` keeps the duties of [`Kernels::dense`]; the CPU has SMMLA.
    /// - `weights` is one `N16K8` block of the tile's taps and depth; `bias` has 16 elements.
    sums(),
    "",
    options(readonly),
}

pixels_function! {
    /// The same, and keeps the pixels in pairs.
    ///
    /// # Safety
    /// - the duties of [`sums`]; `paired` takes a [`STEP`] for each 8, or last 4, of each tap's depth.
    sums_keeping(paired: *mut u8),
    "st1 {{v24.16b, v25.16b, v26.16b}}, [{paired}], #48\n",
    options(),
    paired = inout(reg) paired => _,
}

sums_function! {
    /// Sums of the pixels that were kept.
    ///
    /// # Safety
    /// - `paired` holds `steps` times [`STEP`] bytes, as [`sums_keeping`] wrote them; the CPU has SMMLA.
    /// - `weights` is one `N16K8` block of as many steps; `bias` has 16 elements.
    sums_of_kept(paired: *const u8, steps: usize),
    concat!(
        "cbz {deep}, 4f\n",
        "mov {n}, {deep}\n",
        "3:\n",
        kept16!(),
        "subs {n}, {n}, #1\n",
        kept16!(),
        kept16!(),
        kept16!(),
        "b.ne 3b\n",
        "4:\n",
        "tbz {steps}, #2, 5f\n",
        kept16!(),
        kept16!(),
        "5:\n",
        "tbz {steps}, #1, 6f\n",
        kept16!(),
        "6:\n",
        "tbz {steps}, #0, 7f\n",
        kept8!(),
        "7:\n",
    ),
    options(readonly),
    paired = inout(reg) paired => _,
    steps = in(reg) steps,
    deep = in(reg) steps / 8,
}

/// 2x2 sums of pairs of pixels to the sums of each pixel.
#[inline(always)]
fn sort(s: Pairs) -> [Sums; ROWS] {
    // SAFETY: NEON is part of every aarch64 target that this file is built for.
    unsafe {
        let even =
            |a, b| vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
        let odd =
            |a, b| vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
        std::array::from_fn(|r| {
            let s = &s[r / 2 * 8..];
            let sorted = |i| if r % 2 == 0 { even(s[i], s[i + 1]) } else { odd(s[i], s[i + 1]) };
            [sorted(0), sorted(2), sorted(4), sorted(6)]
        })
    }
}
