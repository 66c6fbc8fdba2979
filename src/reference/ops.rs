//! Operations without weights of a convolution, on NHWC maps.

use rayon::prelude::*;

use super::Map;
use crate::model::graph::{Activation, SqueezeExcite};
use crate::model::shapes::Shape;

/// Applies an activation in place.
pub(super) fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Silu => crate::kernels::f32::silu(values),
        Activation::Relu6 => values.iter_mut().for_each(|v| *v = v.clamp(0.0, 6.0)),
        Activation::Hardswish => values.iter_mut().for_each(|v| *v *= (*v + 3.0).clamp(0.0, 6.0) / 6.0),
        Activation::LeakyRelu { slope } => {
            values.iter_mut().for_each(|v| *v = if *v < 0.0 { *v * slope } else { *v });
        }
    }
}

/// Mean over all pixels, per channel, summed in f64.
pub(super) fn mean(x: &Map) -> Vec<f32> {
    let (h, w, c) = x.shape;
    let mut sums = vec![0f64; c];
    for pixel in x.data.chunks_exact(c) {
        for (sum, &v) in sums.iter_mut().zip(pixel) {
            *sum += f64::from(v);
        }
    }
    sums.iter().map(|sum| (sum / (h * w) as f64) as f32).collect()
}

pub(super) fn add(a: &Map, b: &Map) -> Vec<f32> {
    a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect()
}

pub(super) fn concat(inputs: &[&Map], (h, w, c): Shape) -> Vec<f32> {
    let mut out = vec![0.0; h * w * c];
    let mut start = 0;
    for map in inputs {
        let channels = map.shape.2;
        for (to, from) in out.chunks_exact_mut(c).zip(map.data.chunks_exact(channels)) {
            to[start..start + channels].copy_from_slice(from);
        }
        start += channels;
    }
    out
}

pub(super) fn slice(x: &Map, start: usize, channels: usize) -> Vec<f32> {
    x.data.chunks_exact(x.shape.2).flat_map(|pixel| &pixel[start..start + channels]).copied().collect()
}

/// Square maximum, stride 1, separable: first along rows, then along columns.
pub(super) fn max_pool(x: &Map, kernel: usize) -> Vec<f32> {
    let (h, w, c) = x.shape;
    let half = kernel / 2;
    let mut rows = vec![f32::NEG_INFINITY; h * w * c];
    for y in 0..h {
        for column in 0..w {
            let to = (y * w + column) * c;
            for from in column.saturating_sub(half)..(column + half + 1).min(w) {
                maximum(&mut rows[to..to + c], &x.data[(y * w + from) * c..][..c]);
            }
        }
    }
    let mut out = vec![f32::NEG_INFINITY; h * w * c];
    let row = w * c;
    for y in 0..h {
        for from in y.saturating_sub(half)..(y + half + 1).min(h) {
            maximum(&mut out[y * row..(y + 1) * row], &rows[from * row..(from + 1) * row]);
        }
    }
    out
}

fn maximum(to: &mut [f32], from: &[f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = to.max(from);
    }
}

pub(super) fn upsample(x: &Map, factor: usize) -> Vec<f32> {
    let (h, w, c) = x.shape;
    let row = w * factor * c;
    let mut out = vec![0.0; h * factor * row];
    out.par_chunks_mut(row.max(1)).enumerate().for_each(|(y, out)| {
        let from = &x.data[(y / factor) * w * c..][..w * c];
        for (column, to) in out.chunks_exact_mut(c).enumerate() {
            to.copy_from_slice(&from[(column / factor) * c..][..c]);
        }
    });
    out
}

/// `x * hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2)`, `hard_sigmoid(v) = clamp(v + 3, 0, 6) / 6`.
pub(super) fn squeeze_excite(x: &Map, se: &SqueezeExcite) -> Vec<f32> {
    let mut hidden = affine(&se.reduce_weight, &se.reduce_bias, &mean(x));
    activate(&mut hidden, Activation::Relu);
    let gate = affine(&se.expand_weight, &se.expand_bias, &hidden);
    let gate: Vec<f32> = gate.iter().map(|v| (v + 3.0).clamp(0.0, 6.0) / 6.0).collect();
    x.data.chunks_exact(gate.len()).flat_map(|p| p.iter().zip(&gate).map(|(v, g)| v * g)).collect()
}

/// `W x + b`, `W` being `[bias.len(), x.len()]`.
fn affine(weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f32> {
    let row = |row: &[f32]| row.iter().zip(x).map(|(w, v)| w * v).sum::<f32>();
    weight.chunks_exact(x.len()).zip(bias).map(|(weights, b)| row(weights) + b).collect()
}
