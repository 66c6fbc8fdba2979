//! Weights from the order of a checkpoint to the order that kernels read: plain, slow, once.
//!
//! Unpacked weights are `[c_out][c_in][taps]` (dense) and `[channels][taps]` (depthwise), `taps` being
//! `kernel²` in row order. Packed dense weights are described by [`Layout`]. Those of a dynamic
//! convolution have the cells of its `E` experts side by side, so that mixing reads memory once, in order:
//!
//! ```text
//! dense             [c_out / 16][tap][depth / D][16][D]        D = Layout::depth()
//! dense experts     [c_out / 16][tap][depth / D][E][16][D]
//! depthwise         [tap][channels / 16][16]
//! depthwise experts [tap][channels / 16][E][16]
//! ```
//!
//! Test: `kernels::tests::pack`.

use super::{CELL_CHANNELS, Layout, operand};

/// Shape of a dense weight.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Output channels.
    pub c_out: usize,
    /// Input channels of the unpacked weight.
    pub c_in: usize,
    /// `kernel²`
    pub taps: usize,
    /// Input channels of the picture that it will be applied to; at least `c_in`.
    pub depth: usize,
    /// Picture channel of each of the `c_in` channels; `None`: the same number. Channels of the picture
    /// that are nobody's get weight zero.
    pub k_map: Option<&'a [usize]>,
}

impl Shape<'_> {
    /// A plain one: the picture has just the weight's channels.
    pub fn plain(c_out: usize, c_in: usize, taps: usize) -> Self {
        Self { c_out, c_in, taps, depth: c_in, k_map: None }
    }
}

/// Where dense weight (`c`, `k`, `tap`) lies, of `experts` experts side by side.
fn dense_index(
    layout: Layout,
    (taps, depth, experts): (usize, usize, usize),
    (expert, c, k, tap): (usize, usize, usize, usize),
) -> usize {
    let d = layout.depth();
    let cell = (c / CELL_CHANNELS * taps + tap) * depth.div_ceil(d) + k / d;
    (cell * experts + expert) * CELL_CHANNELS * d + c % CELL_CHANNELS * d + k % d
}

/// Packs `[c_out][c_in][taps]` weights.
///
/// # Panics
/// If `w` or the map has another length than `shape` says, or the map leads outside `depth`.
pub fn dense(layout: Layout, shape: Shape<'_>, w: &[i8]) -> Vec<i8> {
    dense_experts(layout, shape, &[w])
}

/// Packs experts of `[c_out][c_in][taps]` weights each, side by side.
///
/// # Panics
/// As [`dense`].
pub fn dense_experts<W: AsRef<[i8]>>(layout: Layout, shape: Shape<'_>, experts: &[W]) -> Vec<i8> {
    let Shape { c_out, c_in, taps, depth, k_map } = shape;
    assert!(k_map.is_none_or(|map| map.len() == c_in), "k_map has one entry for each of {c_in} channels");
    let mut out = vec![0; layout.packed_len(c_out, taps, depth) * experts.len()];
    for (expert, w) in experts.iter().enumerate() {
        let w = w.as_ref();
        assert_eq!(w.len(), c_out * c_in * taps, "weights of {c_out} x {c_in} x {taps}");
        for c in 0..c_out {
            for k in 0..c_in {
                let to = k_map.map_or(k, |map| map[k]);
                assert!(to < depth, "channel {k} goes to {to}, the picture has {depth}");
                for tap in 0..taps {
                    let at = dense_index(layout, (taps, depth, experts.len()), (expert, c, to, tap));
                    out[at] = w[(c * c_in + k) * taps + tap];
                }
            }
        }
    }
    out
}

/// Packs `[channels][taps]` weights.
///
/// # Panics
/// If `w` has another length.
pub fn depthwise(channels: usize, taps: usize, w: &[i8]) -> Vec<i8> {
    depthwise_experts(channels, taps, &[w])
}

/// Packs experts of `[channels][taps]` weights each, side by side.
///
/// # Panics
/// As [`depthwise`].
pub fn depthwise_experts<W: AsRef<[i8]>>(channels: usize, taps: usize, experts: &[W]) -> Vec<i8> {
    let blocks = channels.div_ceil(CELL_CHANNELS);
    let mut out = vec![0; blocks * CELL_CHANNELS * taps * experts.len()];
    for (expert, w) in experts.iter().enumerate() {
        let w = w.as_ref();
        assert_eq!(w.len(), channels * taps, "weights of {channels} x {taps}");
        for (c, w) in w.chunks_exact(taps.max(1)).enumerate() {
            for (tap, &w) in w.iter().enumerate() {
                let cell = (tap * blocks + c / CELL_CHANNELS) * experts.len() + expert;
                out[cell * CELL_CHANNELS + c % CELL_CHANNELS] = w;
            }
        }
    }
    out
}

/// Repacks dense weights of `experts` experts (1: no dynamic convolution) from [`Layout::N16K4`] to `layout`.
///
/// # Panics
/// If `packed` has another length than the numbers say.
pub fn repack(
    layout: Layout,
    packed: &[i8],
    experts: usize,
    (c_out, taps, depth): (usize, usize, usize),
) -> Vec<i8> {
    let file = Layout::N16K4;
    assert_eq!(packed.len(), file.packed_len(c_out, taps, depth) * experts, "packed weights");
    let mut out = vec![0; layout.packed_len(c_out, taps, depth) * experts];
    for c in 0..c_out.next_multiple_of(CELL_CHANNELS) {
        for tap in 0..taps {
            for k in 0..depth {
                for expert in 0..experts {
                    let sizes = (taps, depth, experts);
                    let at = (expert, c, k, tap);
                    out[dense_index(layout, sizes, at)] = packed[dense_index(file, sizes, at)];
                }
            }
        }
    }
    out
}

/// `Σ_tap Σ_k w[c][tap][k] * operand(pad_row[k])` for each output channel, rounded up to 16: what zero
/// points add to an accumulator, and the bias must take away.
///
/// # Panics
/// If `packed` has another length than the numbers say, or `pad_row` has not `depth` bytes.
pub fn zero_sums(
    layout: Layout,
    packed: &[i8],
    (c_out, taps, depth): (usize, usize, usize),
    pad_row: &[u8],
) -> Vec<i32> {
    assert_eq!(packed.len(), layout.packed_len(c_out, taps, depth), "packed weights");
    let mut out = vec![0i32; c_out.next_multiple_of(CELL_CHANNELS)];
    for (c, sum) in out.iter_mut().enumerate() {
        for tap in 0..taps {
            for (k, &zero) in pad_row[..depth].iter().enumerate() {
                let w = packed[dense_index(layout, (taps, depth, 1), (0, c, k, tap))];
                *sum = sum.wrapping_add(i32::from(w) * operand(zero));
            }
        }
    }
    out
}

/// [`zero_sums`] of a depthwise weight.
///
/// # Panics
/// If `pad_row` has not `channels` bytes, or `packed` is too short.
pub fn depthwise_zero_sums(packed: &[i8], channels: usize, taps: usize, pad_row: &[u8]) -> Vec<i32> {
    let width = channels.next_multiple_of(CELL_CHANNELS);
    let mut out = vec![0i32; width];
    for (c, &zero) in pad_row[..channels].iter().enumerate() {
        let sum: i32 = (0..taps).map(|tap| i32::from(packed[tap * width + c])).sum();
        out[c] = sum.wrapping_mul(operand(zero));
    }
    out
}
