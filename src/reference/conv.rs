//! Convolutions as matrix products, candle's or exact ones, a few output rows at a time.

use candle_core::Tensor;
use rayon::prelude::*;

use super::device::device;
use super::{Map, Products, ReferenceError, ops};
use crate::kernels::f32 as exact;
use crate::math;
use crate::model::graph::{Activation, Conv, ConvShape, DynamicConv, Node, Op, RoutingKind, SqueezeExcite};
use crate::model::shapes::Shape;

/// Elements of one im2col matrix: it stays in the cache of a core.
const COLUMNS: usize = 1 << 17;

/// A node's weights in the layout that running takes.
pub(super) enum Prepared {
    Conv(ConvKernel),
    Dynamic(DynamicKernel),
    SqueezeExcite(SqueezeExcite),
    /// Operations without weights.
    Plain,
}

/// Reorders a node's weights.
pub(super) fn prepare(node: &Node, products: Products) -> Result<Prepared, ReferenceError> {
    let fits = |weight: &[f32], len: usize, bias: &[f32], channels: usize| {
        if weight.len() == len && bias.len() == channels {
            return Ok(());
        }
        Err(ReferenceError::NoWeights { node: node.name.clone() })
    };
    Ok(match &node.op {
        Op::Conv(conv) => {
            fits(&conv.weight, conv.shape.weight_len(), &conv.bias, conv.shape.c_out)?;
            Prepared::Conv(ConvKernel::new(conv, products)?)
        }
        Op::DynamicConv(dynamic) => {
            let len = dynamic.experts * dynamic.shape.weight_len();
            fits(&dynamic.weight, len, &dynamic.bias, dynamic.shape.c_out)?;
            Prepared::Dynamic(DynamicKernel::new(dynamic, products))
        }
        Op::SqueezeExcite(se) => {
            let len = se.reduced * node.channels;
            fits(&se.reduce_weight, len, &se.reduce_bias, se.reduced)?;
            fits(&se.expand_weight, len, &se.expand_bias, node.channels)?;
            Prepared::SqueezeExcite(se.clone())
        }
        _ => Prepared::Plain,
    })
}

/// A kernel, ready to multiply.
enum Weights {
    /// `[kernel² * c_in, c_out]`, rows by kernel row, kernel column, input channel; for candle.
    Matrix(Tensor),
    /// The same as panels of [`exact::pack`].
    Panels(Vec<f32>),
    /// Grouped: `[kernel², c_in / groups, c_out]`.
    Grouped(Vec<f32>),
}

/// A static convolution.
pub(super) struct ConvKernel {
    shape: ConvShape,
    activation: Activation,
    weights: Weights,
    bias: Vec<f32>,
}

impl ConvKernel {
    fn new(conv: &Conv, products: Products) -> Result<Self, ReferenceError> {
        let weights = weights(&conv.shape, by_tap(&conv.shape, &conv.weight), products)?;
        Ok(Self { shape: conv.shape, activation: conv.activation, weights, bias: conv.bias.clone() })
    }

    pub(super) fn run(
        &self,
        x: &Map,
        shape: Shape,
        residual: Option<&[f32]>,
    ) -> Result<Vec<f32>, ReferenceError> {
        let run = Run { shape: &self.shape, weights: &self.weights, bias: &self.bias, x };
        run.all(shape, self.activation, residual)
    }
}

/// A convolution with experts, each in the layout of [`Weights`].
pub(super) struct DynamicKernel {
    products: Products,
    shape: ConvShape,
    activation: Activation,
    routing: RoutingKind,
    /// `[experts, c_in]`
    routing_weight: Vec<f32>,
    routing_bias: Vec<f32>,
    experts: Vec<Vec<f32>>,
    expert_bias: Vec<f32>,
    bias: Vec<f32>,
}

impl DynamicKernel {
    fn new(dynamic: &DynamicConv, products: Products) -> Self {
        let shape = dynamic.shape;
        let kernels = dynamic.weight.chunks_exact(shape.weight_len());
        Self {
            products,
            shape,
            activation: dynamic.activation,
            routing: dynamic.routing,
            routing_weight: dynamic.routing_weight.clone(),
            routing_bias: dynamic.routing_bias.clone(),
            experts: kernels.map(|kernel| by_tap(&shape, kernel)).collect(),
            expert_bias: dynamic.expert_bias.clone(),
            bias: dynamic.bias.clone(),
        }
    }

    /// The output and the mixing weights.
    pub(super) fn run(
        &self,
        x: &Map,
        shape: Shape,
        residual: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f32>), ReferenceError> {
        let routing = self.route(x)?;
        let mut mixed = vec![0.0; self.shape.weight_len()];
        for (expert, &r) in self.experts.iter().zip(&routing) {
            for (m, w) in mixed.iter_mut().zip(expert) {
                *m += r * w;
            }
        }
        let mut bias = self.bias.clone();
        for (expert, &r) in self.expert_bias.chunks_exact(self.shape.c_out).zip(&routing) {
            for (b, e) in bias.iter_mut().zip(expert) {
                *b += r * e;
            }
        }
        let weights = weights(&self.shape, mixed, self.products)?;
        let run = Run { shape: &self.shape, weights: &weights, bias: &bias, x };
        Ok((run.all(shape, self.activation, residual)?, routing))
    }

    fn route(&self, x: &Map) -> Result<Vec<f32>, ReferenceError> {
        match self.products {
            Products::Candle => self.route_by_candle(ops::mean(x)),
            Products::Exact => Ok(self.route_exactly(&ops::mean(x))),
        }
    }

    fn route_by_candle(&self, mean: Vec<f32>) -> Result<Vec<f32>, ReferenceError> {
        let (experts, c_in) = (self.routing_bias.len(), self.shape.c_in);
        let weight = Tensor::from_slice(&self.routing_weight, (experts, c_in), device())?;
        let bias = Tensor::from_slice(&self.routing_bias, (1, experts), device())?;
        let mean = Tensor::from_vec(mean, (1, c_in), device())?;
        let logits = (mean.matmul(&weight.t()?)? + bias)?;
        let weights = match self.routing {
            RoutingKind::Sigmoid => candle_nn::ops::sigmoid(&logits)?,
            RoutingKind::Softmax => candle_nn::ops::softmax(&logits, 1)?,
        };
        Ok(weights.flatten_all()?.to_vec1()?)
    }

    fn route_exactly(&self, mean: &[f32]) -> Vec<f32> {
        let rows = self.routing_weight.chunks_exact(self.shape.c_in).zip(&self.routing_bias);
        let logit = |(row, &bias): (&[f32], &f32)| {
            row.iter().zip(mean).fold(f64::from(bias), |sum, (&w, &x)| sum + f64::from(w) * f64::from(x))
        };
        let mut weights: Vec<f64> = rows.map(logit).collect();
        match self.routing {
            RoutingKind::Sigmoid => weights.iter_mut().for_each(|z| *z = math::sigmoid(*z)),
            RoutingKind::Softmax => math::softmax(&mut weights),
        }
        weights.iter().map(|&w| w as f32).collect()
    }
}

fn weights(shape: &ConvShape, values: Vec<f32>, products: Products) -> Result<Weights, ReferenceError> {
    if shape.groups > 1 {
        return Ok(Weights::Grouped(values));
    }
    let rows = shape.kernel * shape.kernel * shape.c_in;
    Ok(match products {
        Products::Candle => Weights::Matrix(Tensor::from_vec(values, (rows, shape.c_out), device())?),
        Products::Exact => Weights::Panels(exact::pack(&values, shape.c_out)),
    })
}

/// `[c_out, c_in / groups, k, k]` to `[k, k, c_in / groups, c_out]`.
fn by_tap(shape: &ConvShape, weight: &[f32]) -> Vec<f32> {
    exact::by_tap(weight, shape.c_out, shape.kernel * shape.kernel)
}

/// One convolution of one map.
struct Run<'a> {
    shape: &'a ConvShape,
    weights: &'a Weights,
    bias: &'a [f32],
    x: &'a Map,
}

impl Run<'_> {
    /// The whole output: convolution, bias, activation, then the residual.
    fn all(
        &self,
        (h, w, c): Shape,
        activation: Activation,
        residual: Option<&[f32]>,
    ) -> Result<Vec<f32>, ReferenceError> {
        let depth = self.shape.kernel * self.shape.kernel * self.shape.c_in;
        let rows = (COLUMNS / (depth * w).max(1)).clamp(1, h);
        let mut out = vec![0.0f32; h * w * c];
        out.par_chunks_mut(rows * w * c)
            .enumerate()
            .try_for_each(|(i, out)| {
                match self.weights {
                    Weights::Matrix(matrix) => self.product(matrix, i * rows, w, out)?,
                    Weights::Panels(panels) => self.exact_product(panels, i * rows, w, out),
                    Weights::Grouped(kernel) => self.grouped(kernel, i * rows, w, out),
                }
                ops::activate(out, activation);
                if let Some(residual) = residual {
                    let from = &residual[i * rows * w * c..][..out.len()];
                    out.iter_mut().zip(from).for_each(|(o, r)| *o += r);
                }
                Ok(())
            })
            .map(|()| out)
    }

    /// Rows from `first` on, as im2col times the kernel.
    fn product(
        &self,
        matrix: &Tensor,
        first: usize,
        w: usize,
        out: &mut [f32],
    ) -> Result<(), ReferenceError> {
        let pixels = out.len() / self.shape.c_out;
        let columns = self.columns(first, w, pixels);
        let depth = columns.len() / pixels;
        let product = Tensor::from_vec(columns, (pixels, depth), device())?.matmul(matrix)?;
        let product = product.flatten_all()?.to_vec1::<f32>()?;
        let rows = out.chunks_exact_mut(self.bias.len()).zip(product.chunks_exact(self.bias.len()));
        for (out, row) in rows {
            for ((o, v), b) in out.iter_mut().zip(row).zip(self.bias) {
                *o = v + b;
            }
        }
        Ok(())
    }

    /// As [`Run::product`], each output's sum in the order of its row.
    fn exact_product(&self, panels: &[f32], first: usize, w: usize, out: &mut [f32]) {
        let c_out = self.shape.c_out;
        let pixels = out.len() / c_out;
        let columns = self.columns(first, w, pixels);
        let depth = columns.len() / pixels;
        for start in (0..pixels).step_by(exact::ROWS) {
            let count = exact::ROWS.min(pixels - start);
            // Past the last pixel the last one is computed again.
            let rows = std::array::from_fn(|m| &columns[(start + m.min(count - 1)) * depth..][..depth]);
            for (index, panel) in panels.chunks_exact(depth * exact::COLUMNS).enumerate() {
                let mut sums = [[0.0; exact::COLUMNS]; exact::ROWS];
                exact::accumulate(&rows, panel, &mut sums);
                let channel = index * exact::COLUMNS;
                let len = exact::COLUMNS.min(c_out - channel);
                let bias = &self.bias[channel..channel + len];
                for (m, sums) in sums.iter().take(count).enumerate() {
                    let out = &mut out[(start + m) * c_out + channel..][..len];
                    out.iter_mut().zip(sums).zip(bias).for_each(|((o, v), b)| *o = v + b);
                }
            }
        }
    }

    /// `[pixels, kernel² * c_in]` of output rows from `first` on; zeros outside the map.
    fn columns(&self, first: usize, w: usize, pixels: usize) -> Vec<f32> {
        let (x_h, x_w, c) = self.x.shape;
        let k = self.shape.kernel;
        if k == 1 && self.shape.stride == 1 && self.shape.place(x_w) == (0, x_w) {
            return self.x.data[first * x_w * c..][..pixels * c].to_vec();
        }
        let mut columns = vec![0.0; pixels * k * k * c];
        for (pixel, column) in columns.chunks_exact_mut(k * k * c).enumerate() {
            let (y, x) = (first + pixel / w, pixel % w);
            for (tap, to) in column.chunks_exact_mut(c).enumerate() {
                if let Some(from) = self.source(y, x, tap, (x_h, x_w)) {
                    to.copy_from_slice(&self.x.data[from * c..][..c]);
                }
            }
        }
        columns
    }

    /// Index of the input pixel under a tap, unless it lies in the padding.
    fn source(&self, y: usize, x: usize, tap: usize, (h, w): (usize, usize)) -> Option<usize> {
        let shape = self.shape;
        let at = |out: usize, tap: usize, n: usize| {
            let from = (out * shape.stride + tap * shape.dilation).checked_sub(shape.place(n).0)?;
            (from < n).then_some(from)
        };
        Some(at(y, tap / shape.kernel, h)? * w + at(x, tap % shape.kernel, w)?)
    }

    /// Rows from `first` on of a grouped convolution, `kernel` being `[kernel², c_in / groups, c_out]`.
    fn grouped(&self, kernel: &[f32], first: usize, w: usize, out: &mut [f32]) {
        let (x_h, x_w, c) = self.x.shape;
        let (c_out, groups) = (self.shape.c_out, self.shape.groups);
        let (inner, outer) = (c / groups, c_out / groups);
        for (pixel, out) in out.chunks_exact_mut(c_out).enumerate() {
            out.copy_from_slice(self.bias);
            for (tap, weights) in kernel.chunks_exact(inner * c_out).enumerate() {
                let Some(from) = self.source(first + pixel / w, pixel % w, tap, (x_h, x_w)) else { continue };
                let x = &self.x.data[from * c..][..c];
                if inner == 1 && outer == 1 {
                    exact::accumulate_depthwise(x, weights, out);
                    continue;
                }
                for group in 0..groups {
                    let out = &mut out[group * outer..(group + 1) * outer];
                    for (i, row) in weights.chunks_exact(c_out).enumerate() {
                        let v = x[group * inner + i];
                        let row = &row[group * outer..(group + 1) * outer];
                        out.iter_mut().zip(row).for_each(|(o, w)| *o += v * w);
                    }
                }
            }
        }
    }
}
