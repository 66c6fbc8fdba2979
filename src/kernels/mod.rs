//! SIMD kernels behind one table, chosen at run time.
//!
//! Layers of this module, top to bottom:
//! - [`ops`]: safe operations on views of one [`Arena`] (convolution, depthwise, pooling, …). They check
//!   every bound and overlap, split the work into tiles, and hand the tiles to a [`Team`]'s threads.
//! - [`Kernels`]: what one instruction set owes, tile by tile (`unsafe`, with its duties listed).
//! - one file per instruction set (`scalar`, `x86_avx2`, `x86_vnni`, `arm_neon`, `arm_dotprod`,
//!   `arm_i8mm`), all bit-exact with `scalar`.
//!
//! [`rows`] stands beside them: what makes the network's input of a picture's rows.
//!
//! # Activations in memory
//!
//! An activation `q` is a number in `0..=255` with a zero point per channel. x86 stores it as `u8`
//! (`vpdpbusd` takes u8 x s8), ARM as `i8`, `q - 128` (`sdot` takes s8 x s8): see [`STORED_OFFSET`].
//! Everything in this module handles stored bytes; results are the same numbers on both.
//!
//! # Weights in memory
//!
//! int8 in `-127..=127`, in 64-byte cells of 16 output channels x 4 input channels ([`Layout::N16K4`]):
//! `[c_out / 16][tap][depth / 4][16][4]`, `depth` being `c_in` rounded up to 4, padding zero. A kernel
//! may ask for another [`Layout`]; weights are then repacked once at load.

pub mod arena;
#[cfg(target_arch = "aarch64")]
mod arm_common;
#[cfg(target_arch = "aarch64")]
mod arm_dotprod;
#[cfg(target_arch = "aarch64")]
mod arm_epilogue;
#[cfg(target_arch = "aarch64")]
mod arm_i8mm;
#[cfg(target_arch = "aarch64")]
mod arm_neon;
#[cfg(all(test, target_arch = "aarch64"))]
mod arm_tests;
pub mod cuda;
pub mod detect;
pub mod f32;
pub mod ops;
pub mod pack;
pub mod peak;
pub mod requant;
pub mod rows;
pub mod scalar;
mod schedule;
pub mod team;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_madd;
#[cfg(target_arch = "x86_64")]
mod x86_vnni;

#[cfg(test)]
mod tests;

pub use team::{Crew, Team};

pub use arena::{Arena, View};
pub use requant::{Act, Requant, Residual};

/// What is subtracted from an activation `q` to store it: 0 on x86 (bytes are `u8`), 128 on ARM (`i8`).
pub const STORED_OFFSET: i32 = if cfg!(target_arch = "aarch64") { 128 } else { 0 };

/// Stored byte of activation `q`.
#[inline(always)]
pub const fn store(q: u8) -> u8 {
    q.wrapping_sub(STORED_OFFSET as u8)
}

/// Activation of a stored byte.
#[inline(always)]
pub const fn load(byte: u8) -> u8 {
    byte.wrapping_add(STORED_OFFSET as u8)
}

/// A stored byte as the number that the multiply instruction sees: `u8` on x86, `i8` on ARM.
#[inline(always)]
pub const fn operand(byte: u8) -> i32 {
    if STORED_OFFSET == 0 { byte as i32 } else { byte as i8 as i32 }
}

/// Output channels of one weight cell.
pub const CELL_CHANNELS: usize = 16;
/// Input channels of one weight cell.
pub const CELL_DEPTH: usize = 4;
/// Most taps (`kernel²`) of a convolution: a stack array of pointers bounds it.
pub const MAX_TAPS: usize = 49;
/// Most rows (output pixels) of a tile, over all kernels.
pub const MAX_ROWS: usize = 16;

/// How a kernel wants dense weights to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[c_out/16][tap][depth/4][16][4]`: the file's layout; SDOT and VPDPBUSD use it as it is.
    N16K4,
    /// `[c_out/16][tap][depth/8][16][8]`, depth rounded up to 8 with zeros: SMULL/SADALP and SMMLA.
    N16K8,
}

impl Layout {
    /// Input channels that one cell covers.
    pub const fn depth(self) -> usize {
        match self {
            Layout::N16K4 => 4,
            Layout::N16K8 => 8,
        }
    }

    /// Bytes of a packed weight of `taps` taps: channels rounded up to 16, depth to this layout's cell.
    pub const fn packed_len(self, c_out: usize, taps: usize, c_in: usize) -> usize {
        c_out.next_multiple_of(CELL_CHANNELS) * taps * c_in.next_multiple_of(self.depth())
    }
}

/// The largest tile that a kernel computes in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Output pixels.
    pub rows: usize,
    /// Blocks of 16 output channels.
    pub blocks: usize,
}

/// A tile of a dense convolution, or a batch of them: `rows` output pixels x up to `tile().blocks` blocks of 16
/// channels.
///
/// Accumulator: `acc[r][c] = bias[c] + Σ_tap Σ_k operand(a[tap][r][k]) * w[c][tap][k]`, wrapping i32;
/// then [`Requant::apply`]'s rule, or `acc as f32 * scale[c]` where the output is f32.
#[derive(Debug)]
pub struct DenseTile<'a> {
    /// Pixel pointers `[tap][tile().rows * batch()]`. Those of rows past `rows` are valid up to a whole tile.
    pub pixels: &'a [*const u8],
    /// Taps (`kernel²`).
    pub taps: usize,
    /// Readable bytes behind each pointer, a multiple of the layout's depth: input channels, padded.
    pub depth: usize,
    /// First block's cells; blocks lie `Layout::packed_len(16, taps, depth)` bytes apart.
    pub weights: *const i8,
    /// Output pixels wanted, `1..=tile().rows * batch()`.
    pub rows: usize,
    /// Output channels wanted, `1..=tile().blocks * 16`; nothing is stored past them.
    pub channels: usize,
    /// Requantisation of the whole convolution; this tile's first channel is `first_channel`.
    pub requant: &'a Requant,
    /// First output channel of this tile, a multiple of 16.
    pub first_channel: usize,
    /// First output pixel's first channel of this tile.
    pub out: *mut u8,
    /// Bytes from one output pixel to the next.
    pub out_stride: usize,
    /// First output pixel's residual at this tile's first channel; null where there is none.
    pub residual: *const u8,
    /// Bytes from one residual pixel to the next.
    pub residual_stride: usize,
}

/// One run of a depthwise convolution: `pixels.len() / taps` output pixels x `channels` channels.
#[derive(Debug)]
pub struct DepthwiseTile<'a> {
    /// Pixel pointers `[pixel][tap]`, each to `channels` readable bytes.
    pub pixels: &'a [*const u8],
    /// Taps (`kernel²`).
    pub taps: usize,
    /// Channels.
    pub channels: usize,
    /// `[tap][channels rounded up to 16]`
    pub weights: *const i8,
    /// Requantisation.
    pub requant: &'a Requant,
    /// First output pixel.
    pub out: *mut u8,
    /// Bytes from one output pixel to the next.
    pub out_stride: usize,
}

/// What an instruction set's kernels owe. Values exist only where the CPU can run them.
pub trait Kernels: Send + Sync + std::fmt::Debug {
    /// Name for `--kernel` and logs, for example `avx512-vnni`.
    fn name(&self) -> &'static str;

    /// Layout that [`Kernels::dense`] reads.
    fn layout(&self) -> Layout;

    /// Largest tile of [`Kernels::dense`].
    fn tile(&self) -> Tile;

    /// Tile to cut a convolution of `channels` output channels into, at most [`Kernels::tile`] both ways.
    /// Pixel pointers lie `tile().rows * batch()` apart all the same.
    fn tile_for(&self, channels: usize) -> Tile {
        let tile = self.tile();
        Tile { blocks: tile.blocks.min(channels.div_ceil(CELL_CHANNELS)).max(1), ..tile }
    }

    /// Tiles, one after another, that one call of [`Kernels::dense`] takes: what a call costs is then shared.
    fn batch(&self) -> usize {
        1
    }

    /// Computes a batch of tiles of a dense convolution.
    ///
    /// # Safety
    /// - `pixels` has `taps * tile().rows * batch()` pointers; those of the first `rows` pixels, rounded up to whole
    ///   tiles of `tile_for` this many channels, are readable for `depth` bytes.
    /// - `weights` has all cells of `channels.div_ceil(16)` blocks in [`Kernels::layout`], 64-byte aligned.
    /// - `requant`'s vectors reach `first_channel + channels` rounded up to 16.
    /// - `out` takes `rows` pixels of `channels` elements (1 byte; 4 where `requant.is_float()`),
    ///   `out_stride` apart; no one else touches them now, and they overlap no input.
    /// - `residual`, if not null, is readable likewise, and `requant.residual` is some.
    unsafe fn dense(&self, tile: &DenseTile<'_>);

    /// Computes one run of a depthwise convolution.
    ///
    /// # Safety
    /// - each pointer of `pixels` is readable for `channels` bytes; `taps` divides their count.
    /// - `weights` has `taps` rows of `channels` rounded up to 16.
    /// - `requant`'s vectors reach `channels` rounded up to 16; it is neither float nor with residual.
    /// - `out` takes the pixels, `out_stride` apart; no one else touches them now.
    unsafe fn depthwise(&self, tile: &DepthwiseTile<'_>);

    /// `out[i] = max over s of operand(sources[s][i])`, for `len` stored bytes.
    ///
    /// # Safety
    /// - `sources` is not empty; each is readable for `len` bytes; `out` takes `len` bytes.
    unsafe fn max(&self, sources: &[*const u8], len: usize, out: *mut u8);

    /// Adds each of `channels` stored bytes, as activations `q` in `0..=255`, of `pixels` pixels to `sums`.
    ///
    /// # Safety
    /// - `input` is readable for `pixels` runs of `channels` bytes, `stride` apart.
    /// - `sums` has `channels` elements.
    unsafe fn channel_sums(
        &self,
        input: *const u8,
        pixels: usize,
        stride: usize,
        channels: usize,
        sums: &mut [u32],
    );
}
