//! Mixing a dynamic convolution's experts into one int8 kernel, for each frame anew.
//!
//! For output channel `c`, with coefficients `alpha` (Q12, the experts' scales in them):
//!
//! ```text
//! mixed = Σ_e alpha[e][c] * w_e                  i32, exact
//! most  = max |mixed| over the channel
//! w     = round_half_even(mixed as f32 * (127.0 / most as f32))      0 where most = 0
//! ```
//!
//! Two passes over the experts, which lie side by side (`super::super::pack`): one for `most`, one for `w`.
//! Mixing again is cheaper than keeping 32-bit sums, and the second pass reads from cache. `|mixed|` is below
//! 2^24, so its conversion is exact, and no step depends on the machine.
//!
//! Loops are over arrays of one cell's 64 or 128 lanes and left to the compiler's vectoriser, once for
//! each x86 level. Test: `kernels::tests::mixing_equals_its_definition`.

use super::super::{CELL_CHANNELS, Crew, Layout, operand};
use super::{Base, OpError, check_len, check_sizes};

/// Most experts: `4096 * 127 * 32` is below 2^24.
pub const MAX_EXPERTS: usize = 32;

/// Experts of a dense dynamic convolution.
#[derive(Debug, Clone, Copy)]
pub struct MixJob<'a> {
    /// Layout of experts and result.
    pub layout: Layout,
    /// Output channels.
    pub c_out: usize,
    /// `kernel²`
    pub taps: usize,
    /// Input channels.
    pub depth: usize,
    /// Experts.
    pub count: usize,
    /// As [`super::super::pack::dense_experts`] packs them.
    pub experts: &'a [i8],
    /// Coefficients in Q12, `-4096..=4096`: `[expert][c_out rounded up to 16]`.
    pub alpha: &'a [i32],
    /// Stored zero point of each input channel; as long as `depth` rounded up to the layout's cell.
    pub pad_row: &'a [u8],
}

/// Experts of a depthwise dynamic convolution.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseMixJob<'a> {
    /// Channels.
    pub channels: usize,
    /// `kernel²`
    pub taps: usize,
    /// Experts.
    pub count: usize,
    /// As [`super::super::pack::depthwise_experts`] packs them.
    pub experts: &'a [i8],
    /// Coefficients in Q12, `-4096..=4096`: `[expert][channels rounded up to 16]`.
    pub alpha: &'a [i32],
    /// Stored zero point of each channel.
    pub pad_row: &'a [u8],
}

/// Where a mixed kernel goes.
#[derive(Debug)]
pub struct Mixed<'a> {
    /// Packed weights.
    pub weights: &'a mut [i8],
    /// Each output channel's greatest `|mixed|`: one step of a weight is `maxima / (127 * 4096)`.
    pub maxima: &'a mut [i32],
    /// `Σ w * operand(zero point)` of each output channel, to take from the bias.
    pub zero_sums: &'a mut [i32],
}

impl Mixed<'_> {
    fn check(&self, weights: usize, channels: usize) -> Result<(), OpError> {
        check_len("mixed weights", self.weights.len(), weights)?;
        check_len("maxima", self.maxima.len(), channels)?;
        check_len("zero_sums", self.zero_sums.len(), channels)
    }
}

fn check_count(count: usize) -> Result<(), OpError> {
    if (1..=MAX_EXPERTS).contains(&count) { Ok(()) } else { Err(OpError::Experts { count }) }
}

/// Mixes the experts of a dense dynamic convolution.
pub fn mix(crew: &Crew<'_>, job: &MixJob<'_>, out: Mixed<'_>) -> Result<(), OpError> {
    check_sizes(job.taps, [job.c_out, job.depth])?;
    let channels = job.c_out.next_multiple_of(CELL_CHANNELS);
    let block = job.layout.packed_len(CELL_CHANNELS, job.taps, job.depth);
    check_count(job.count)?;
    check_len("experts", job.experts.len(), channels / CELL_CHANNELS * block * job.count)?;
    check_len("alpha", job.alpha.len(), channels * job.count)?;
    check_len("pad_row", job.pad_row.len(), job.depth.next_multiple_of(job.layout.depth()))?;
    out.check(channels / CELL_CHANNELS * block, channels)?;
    let pad_row = &job.pad_row[..job.depth.next_multiple_of(job.layout.depth())];
    let (weights, maxima) = (Base(out.weights.as_mut_ptr()), Base(out.maxima.as_mut_ptr()));
    let zero_sums = Base(out.zero_sums.as_mut_ptr());
    crew.for_each(channels / CELL_CHANNELS, &|index, _| {
        // SAFETY: lengths were checked; each task has its own block of weights and its own 16 channels.
        let (weights, maxima, zero_sums) = unsafe {
            (
                std::slice::from_raw_parts_mut(weights.at(index * block), block),
                std::slice::from_raw_parts_mut(maxima.at(index * CELL_CHANNELS), CELL_CHANNELS),
                std::slice::from_raw_parts_mut(zero_sums.at(index * CELL_CHANNELS), CELL_CHANNELS),
            )
        };
        let block = Block {
            experts: &job.experts[index * block * job.count..][..block * job.count],
            count: job.count,
            group: 1,
            alpha: &job.alpha[index * CELL_CHANNELS..],
            alpha_stride: channels,
            pad_row,
        };
        let sums = match job.layout {
            Layout::N16K4 => mix_block::<64, 4>(&block, weights),
            Layout::N16K8 => mix_block::<128, 8>(&block, weights),
        };
        maxima.copy_from_slice(&sums.0);
        zero_sums.copy_from_slice(&sums.1);
    });
    Ok(())
}

/// Mixes the experts of a depthwise dynamic convolution; weights go to `[tap][channels rounded up to 16]`.
pub fn mix_depthwise(job: &DepthwiseMixJob<'_>, out: Mixed<'_>) -> Result<(), OpError> {
    check_sizes(job.taps, [job.channels, 1])?;
    let width = job.channels.next_multiple_of(CELL_CHANNELS);
    check_count(job.count)?;
    check_len("experts", job.experts.len(), width * job.taps * job.count)?;
    check_len("alpha", job.alpha.len(), width * job.count)?;
    check_len("pad_row", job.pad_row.len(), job.channels)?;
    out.check(width * job.taps, width)?;
    let blocks = width / CELL_CHANNELS;
    for index in 0..blocks {
        let first = index * CELL_CHANNELS;
        let block = Block {
            experts: &job.experts[first * job.count..width * job.taps * job.count],
            count: job.count,
            group: blocks,
            alpha: &job.alpha[first..],
            alpha_stride: width,
            pad_row: &[],
        };
        let sums = mix_block::<16, 1>(&block, &mut out.weights[first..width * job.taps]);
        out.maxima[first..first + CELL_CHANNELS].copy_from_slice(&sums.0);
        for (c, sum) in sums.1.into_iter().enumerate() {
            let zero = job.pad_row.get(first + c).map_or(0, |&zero| operand(zero));
            out.zero_sums[first + c] = sum.wrapping_mul(zero);
        }
    }
    Ok(())
}

/// One block of 16 output channels.
struct Block<'a> {
    /// Cells `[cell][expert][lane]`; every `group`th cell is this block's.
    experts: &'a [i8],
    count: usize,
    group: usize,
    /// This block's first coefficient; experts lie `alpha_stride` apart.
    alpha: &'a [i32],
    alpha_stride: usize,
    /// A zero point for each input channel; empty: count each as 1.
    pad_row: &'a [u8],
}

/// Maxima and zero sums of a block's channels.
type Sums = ([i32; CELL_CHANNELS], [i32; CELL_CHANNELS]);

/// Mixes a block with the widest vectors that the CPU has.
fn mix_block<const L: usize, const D: usize>(block: &Block<'_>, out: &mut [i8]) -> Sums {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn avx512<const L: usize, const D: usize>(block: &Block<'_>, out: &mut [i8]) -> Sums {
            mix_lanes::<L, D>(block, out)
        }
        #[target_feature(enable = "avx2")]
        fn avx2<const L: usize, const D: usize>(block: &Block<'_>, out: &mut [i8]) -> Sums {
            mix_lanes::<L, D>(block, out)
        }
        if std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512dq")
        {
            // SAFETY: the CPU has what the function is compiled for.
            return unsafe { avx512::<L, D>(block, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has what the function is compiled for.
            return unsafe { avx2::<L, D>(block, out) };
        }
    }
    mix_lanes::<L, D>(block, out)
}

/// Lanes that are handled at a time: one or two vectors of any machine.
const LANES: usize = 16;
type Lanes = [i32; LANES];

/// The loops: `L = 16 * D` lanes, `[16][D]`, of one cell at a time.
#[inline(always)]
fn mix_lanes<const L: usize, const D: usize>(block: &Block<'_>, out: &mut [i8]) -> Sums {
    // In 16 bits, so that a product is one widening multiplication.
    let mut alpha = [[0i16; L]; MAX_EXPERTS];
    for (e, alpha) in alpha[..block.count].iter_mut().enumerate() {
        for (lane, alpha) in alpha.iter_mut().enumerate() {
            *alpha = block.alpha[e * block.alpha_stride + lane / D] as i16;
        }
    }
    let alpha = &alpha[..block.count];
    let cells = || block.experts.chunks(L * block.count * block.group).map(|c| &c[..L * block.count]);

    let mut most = [0i32; L];
    for cell in cells() {
        for (part, most) in most.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mixed = mixed(alpha, cell, part);
            for i in 0..LANES {
                most[i] = most[i].max(mixed[i].wrapping_abs());
            }
        }
    }
    let maxima: [i32; CELL_CHANNELS] =
        std::array::from_fn(|c| most[c * D..][..D].iter().copied().fold(0, i32::max));
    let mut ratio = [0f32; L];
    for (lane, ratio) in ratio.iter_mut().enumerate() {
        let most = maxima[lane / D];
        *ratio = if most == 0 { 0.0 } else { 127.0 / most as f32 };
    }

    // Adding 1.5 * 2^23 leaves the rounded number in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let mut zero_sums = [0i32; L];
    let mut zeros = block.pad_row.chunks_exact(D).cycle();
    for (cell, out) in cells().zip(out.chunks_mut(L * block.group)) {
        let mut zero = [1i32; LANES];
        if let Some(bytes) = zeros.next() {
            zero = std::array::from_fn(|i| operand(bytes[i % D]));
        }
        let sums = zero_sums.as_chunks_mut::<LANES>().0.iter_mut();
        let ratios = ratio.as_chunks::<LANES>().0;
        let outs = out[..L].as_chunks_mut::<LANES>().0;
        for (part, ((sums, ratio), out)) in sums.zip(ratios).zip(outs).enumerate() {
            let mixed = mixed(alpha, cell, part);
            for i in 0..LANES {
                let bits = (mixed[i] as f32 * ratio[i] + MAGIC).to_bits() as i32;
                // `|mixed| <= most`, so that no clamp is needed.
                let w = bits.wrapping_sub(MAGIC.to_bits() as i32);
                out[i] = w as i8;
                sums[i] = sums[i].wrapping_add(w.wrapping_mul(zero[i]));
            }
        }
    }
    let total = |c: usize| zero_sums[c * D..][..D].iter().fold(0i32, |sum, &z| sum.wrapping_add(z));
    (maxima, std::array::from_fn(total))
}

/// `Σ_e alpha[e] * w_e` of the `part`th 16 lanes of one cell.
#[inline(always)]
fn mixed<const L: usize>(alpha: &[[i16; L]], cell: &[i8], part: usize) -> Lanes {
    let mut sum = [0i32; LANES];
    for (alpha, w) in alpha.iter().zip(cell.as_chunks::<L>().0) {
        let (alpha, w) = (&alpha.as_chunks::<LANES>().0[part], &w.as_chunks::<LANES>().0[part]);
        for i in 0..LANES {
            sum[i] = sum[i].wrapping_add(i32::from(alpha[i]) * i32::from(w[i]));
        }
    }
    sum
}
