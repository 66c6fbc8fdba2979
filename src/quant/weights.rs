//! Weights to int8: symmetric, a scale per output channel (and expert), the input's steps folded in.

use crate::model::graph::ConvShape;

/// Scale of a channel without weights: positive, and far from where f32 loses precision.
pub const LEAST_SCALE: f32 = f32::MIN_POSITIVE * 1e6;

/// One kernel (static, or one expert) as integers.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedKernel {
    /// `[c_out, c_in / groups, kernel, kernel]`, in `-127..=127`.
    pub weight: Vec<i8>,
    /// Real value of one step per output channel.
    pub scale: Vec<f32>,
}

/// Quantises a kernel `[c_out, c_in / groups, kernel, kernel]` for an input of the given steps.
///
/// An accumulator adds `(q - zero) * w`; with `w = W * step_in / scale` it is the real sum over `scale`,
/// whatever step each input channel has. The scale per channel minimises the squared error over a grid
/// of clippings. `floor` is the least scale per channel that its bias allows.
pub fn quantise(weight: &[f32], shape: &ConvShape, steps: &[f32], floor: &[f32]) -> QuantisedKernel {
    let per_channel = shape.weight_len() / shape.c_out;
    let taps = shape.kernel * shape.kernel;
    let group_in = shape.c_in / shape.groups;
    let group_out = shape.c_out / shape.groups;
    let mut result =
        QuantisedKernel { weight: Vec::with_capacity(weight.len()), scale: Vec::with_capacity(shape.c_out) };
    let mut folded = vec![0.0f32; per_channel];
    for (channel, row) in weight.chunks_exact(per_channel).enumerate() {
        let first_input = channel / group_out * group_in;
        for (index, (to, &from)) in folded.iter_mut().zip(row).enumerate() {
            *to = from * steps[first_input + index / taps];
        }
        let scale = best_scale(&folded).max(floor[channel]);
        result.weight.extend(folded.iter().map(|&w| step(w, scale)));
        result.scale.push(scale);
    }
    result
}

/// Adds to each bias what rounding the kernel takes from the output's mean: `Σ (W - Ŵ) mean(x)`.
///
/// `means` are those of the input channels (Nagel et al. 2019, "Data-Free Quantization", section 4.2).
/// Pixels at the border see less of the kernel; they are few.
pub fn correct_bias(
    bias: &mut [f32],
    (weight, kernel): (&[f32], &QuantisedKernel),
    shape: &ConvShape,
    (steps, means): (&[f32], &[f64]),
) {
    let per_channel = shape.weight_len() / shape.c_out;
    let taps = shape.kernel * shape.kernel;
    let group_in = shape.c_in / shape.groups;
    let group_out = shape.c_out / shape.groups;
    let rows = weight.chunks_exact(per_channel).zip(kernel.weight.chunks_exact(per_channel));
    for (channel, (exact, rounded)) in rows.enumerate() {
        let first_input = channel / group_out * group_in;
        let lost = exact.iter().zip(rounded).enumerate().fold(0.0, |sum, (index, (&w, &q))| {
            let input = first_input + index / taps;
            let real = f64::from(q) * f64::from(kernel.scale[channel]) / f64::from(steps[input]);
            sum + (f64::from(w) - real) * means[input]
        });
        bias[channel] += lost as f32;
    }
}

/// The least scale for which a bias stays exact to a millionth of the accumulator's range.
pub fn bias_floor(bias: &[f32]) -> Vec<f32> {
    bias.iter().map(|b| (b.abs() / (1 << 26) as f32).max(LEAST_SCALE)).collect()
}

fn step(w: f32, scale: f32) -> i8 {
    (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// Scale of least squared error: from no clipping down to 70 % of the largest weight.
fn best_scale(weights: &[f32]) -> f32 {
    let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    if largest == 0.0 {
        return LEAST_SCALE;
    }
    let error = |scale: f32| -> f64 {
        weights.iter().map(|&w| f64::from(w - f32::from(step(w, scale)) * scale).powi(2)).sum()
    };
    let mut best = (largest / 127.0, error(largest / 127.0));
    for percent in (70..100).step_by(2) {
        let scale = largest * percent as f32 / 100.0 / 127.0;
        let e = error(scale);
        if e < best.1 {
            best = (scale, e);
        }
    }
    best.0
}

/// A grouped kernel that is not depthwise as a dense one: zeros between groups.
///
/// `weight` is `[c_out, c_in / groups, kernel, kernel]`; the result `[c_out, c_in, kernel, kernel]`.
pub fn dense_from_grouped(weight: &[f32], shape: &ConvShape) -> (Vec<f32>, ConvShape) {
    let taps = shape.kernel * shape.kernel;
    let (group_in, group_out) = (shape.c_in / shape.groups, shape.c_out / shape.groups);
    let mut dense = vec![0.0; shape.c_out * shape.c_in * taps];
    for (channel, row) in weight.chunks_exact(group_in * taps).enumerate() {
        let start = (channel * shape.c_in + channel / group_out * group_in) * taps;
        dense[start..start + row.len()].copy_from_slice(row);
    }
    (dense, ConvShape { groups: 1, ..*shape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::Padding;

    fn shape(c_in: usize, c_out: usize, kernel: usize, groups: usize) -> ConvShape {
        ConvShape { c_in, c_out, kernel, stride: 1, dilation: 1, groups, padding: Padding::Fixed(0) }
    }

    #[test]
    fn steps_fold_into_the_weights() {
        let q = quantise(&[1.0, 4.0], &shape(2, 1, 1, 1), &[0.5, 0.125], &[1e-20]);
        assert_eq!(q.weight, [127, 127]);
        assert!((q.scale[0] * 127.0 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn dead_channels_have_a_positive_scale() {
        let q = quantise(&[0.0; 4], &shape(4, 1, 1, 1), &[1.0; 4], &bias_floor(&[0.0]));
        assert!(q.scale[0] > 0.0 && q.weight == [0; 4]);
    }

    #[test]
    fn groups_become_a_block_diagonal() {
        let (dense, new) = dense_from_grouped(&[1.0, 2.0, 3.0, 4.0], &shape(4, 2, 1, 2));
        assert_eq!(dense, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 4.0]);
        assert_eq!(new.groups, 1);
    }

    #[test]
    fn depthwise_uses_its_own_step() {
        let q = quantise(&[1.0, 1.0], &shape(2, 2, 1, 2), &[1.0, 2.0], &[1e-20; 2]);
        assert!((q.scale[1] / q.scale[0] - 2.0).abs() < 1e-6);
    }
}
