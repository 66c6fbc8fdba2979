//! What depends on the picture: routing and mixing of dynamic convolutions, gates of squeeze-and-excite.
//!
//! `r = sigmoid(W mean(x) + b)` (or softmax) from exact integer sums, in f64 with [`crate::math`]'s own
//! `exp`: the same bits everywhere. Mixing is in integers (`alpha` in Q12 per expert and channel); the
//! mixed kernel is requantised to the exact maximum of each channel, in two passes.

use super::prepare::{Weights, dense, depthwise, pad_len};
use super::{Step, constants};
use crate::kernels::ops::{self, Affine, DepthwiseMixJob, MixJob, Mixed, OpError};
use crate::kernels::{Arena, CELL_CHANNELS, Layout, Requant};
use crate::math;
use crate::model::graph::{ConvShape, NodeId, RoutingKind};
use crate::weights::Model;
use crate::weights::graph::{ActQuant, QNode, QOp, QOutput};

/// One in Q12, the fixed point of mixing coefficients.
const ONE_Q12: f32 = 4096.0;

/// Means per channel, from exact sums.
#[derive(Debug)]
struct Means {
    sums: Vec<u32>,
    means: Vec<f64>,
    quant: ActQuant,
}

impl Means {
    fn new(quant: &ActQuant) -> Self {
        let channels = quant.step.len();
        Self { sums: vec![0; channels], means: vec![0.0; channels], quant: quant.clone() }
    }

    /// Real mean of each channel of the step's first input.
    fn compute(&mut self, step: &mut Step<'_>) -> Result<&[f64], OpError> {
        let input = step.placement.views[step.model.graph.nodes[step.id].inputs[0]];
        ops::channel_sums(step.kernels, step.crew, step.arena, input, &mut self.sums)?;
        let pixels = input.pixels().max(1) as f64;
        for (c, mean) in self.means.iter_mut().enumerate() {
            let (step, zero) = (f64::from(self.quant.step[c]), f64::from(self.quant.zero[c]));
            *mean = (f64::from(self.sums[c]) / pixels - zero) * step;
        }
        Ok(&self.means)
    }
}

/// Mixing weights of a dynamic convolution, from the means of its input.
#[derive(Debug)]
pub(super) struct Router {
    kind: RoutingKind,
    logits: Vec<f64>,
    /// One per expert, of the last run.
    pub weights: Vec<f32>,
}

impl Router {
    pub(super) fn new(kind: RoutingKind, experts: usize) -> Self {
        Self { kind, logits: vec![0.0; experts], weights: vec![0.0; experts] }
    }

    /// Sets the weights for a node whose input has these means.
    pub(super) fn route(&mut self, model: &Model, node: &QNode, means: &[f64]) {
        let (weight, bias) = (model.f32s(node, "routing_weight"), model.f32s(node, "routing_bias"));
        linear(weight, bias, means, &mut self.logits);
        match self.kind {
            RoutingKind::Softmax => math::softmax(&mut self.logits),
            RoutingKind::Sigmoid => self.logits.iter_mut().for_each(|z| *z = math::sigmoid(*z)),
        }
        self.weights.iter_mut().zip(&self.logits).for_each(|(r, &z)| *r = z as f32);
    }

    /// Bias of channel `c`: the static one, and those of the experts (`padded` each) in their shares.
    pub(super) fn bias(&self, c: usize, bias: &[f32], expert_bias: &[f32], padded: usize) -> f32 {
        let experts = self.weights.iter().enumerate();
        experts.fold(bias[c], |sum, (e, &r)| sum + r * expert_bias[e * padded + c])
    }
}

/// `out[i] = bias[i] + Σ_j weight[i][j] * x[j]`, in order.
fn linear(weight: &[f32], bias: &[f32], x: &[f64], out: &mut [f64]) {
    for (i, out) in out.iter_mut().enumerate() {
        let row = &weight[i * x.len()..(i + 1) * x.len()];
        *out = row.iter().zip(x).fold(f64::from(bias[i]), |sum, (&w, &x)| sum + f64::from(w) * x);
    }
}

/// A dynamic convolution's constants and its scratch.
#[derive(Debug)]
pub struct Dynamic {
    weights: Weights,
    layout: Layout,
    means: Means,
    router: Router,
    /// `[expert][c_out rounded up to 16]`, Q12.
    alpha: Vec<i32>,
    maxima: Vec<i32>,
    zero_sums: Vec<i32>,
    /// Real value of `alpha = 1` per channel.
    alpha_step: Vec<f32>,
    requant: Requant,
    pad_row: Vec<u8>,
    mixed_len: usize,
}

impl Dynamic {
    /// Prepares a dynamic convolution of a checked model.
    pub fn new(model: &Model, id: NodeId, layout: Layout) -> Self {
        let node = &model.graph.nodes[id];
        let QOp::DynamicConv { shape, act, output, experts, routing } = &node.op else {
            unreachable!("called for dynamic convolutions alone")
        };
        let padded = shape.c_out.next_multiple_of(CELL_CHANNELS);
        let taps = shape.kernel * shape.kernel;
        let mixed_len = if shape.is_depthwise() {
            taps * padded
        } else {
            layout.packed_len(shape.c_out, taps, shape.c_in)
        };
        Self {
            weights: Weights::new(model, node, shape, *experts, layout),
            layout,
            means: Means::new(model.quant(node.inputs[0])),
            router: Router::new(*routing, *experts),
            alpha: vec![0; experts * padded],
            maxima: vec![0; padded],
            zero_sums: vec![0; padded],
            alpha_step: vec![0.0; padded],
            requant: constants::requant(model, id, act, output),
            pad_row: constants::pad_row(model, node, pad_len(shape, layout)),
            mixed_len,
        }
    }

    /// Bytes of the mixed kernel.
    pub fn mixed_len(&self) -> usize {
        self.mixed_len
    }

    /// Routing weights of the last run.
    pub fn routing(&self) -> &[f32] {
        &self.router.weights
    }

    /// Routes, mixes and convolves the step's node.
    pub(super) fn run(
        &mut self,
        step: &mut Step<'_>,
        shape: &ConvShape,
        mixed: &mut Arena,
    ) -> Result<(), OpError> {
        let node = &step.model.graph.nodes[step.id];
        self.router.route(step.model, node, self.means.compute(step)?);
        self.set_coefficients(step);
        self.mix(step, shape, mixed)?;
        self.set_epilogue(step, shape);
        let weights = &mixed.signed()[..self.mixed_len];
        if shape.is_depthwise() {
            depthwise(step, shape, weights, &self.pad_row, &self.requant)
        } else {
            dense(step, shape, (weights, &self.pad_row, &self.requant), None)
        }
    }

    /// `alpha[e][c] = r_e * scale[e][c]`, in Q12 of the channel's largest.
    fn set_coefficients(&mut self, step: &Step<'_>) {
        let node = &step.model.graph.nodes[step.id];
        let scales = step.model.f32s(node, "weight_scale");
        let (padded, routing) = (self.alpha_step.len(), &self.router.weights);
        for c in 0..padded {
            let factor = |e: usize| routing[e] * scales[e * padded + c];
            let largest = (0..routing.len()).map(factor).fold(f32::MIN_POSITIVE * 1e6, f32::max);
            for e in 0..routing.len() {
                self.alpha[e * padded + c] = (factor(e) / largest * ONE_Q12).round_ties_even() as i32;
            }
            self.alpha_step[c] = largest / ONE_Q12;
        }
    }

    fn mix(&mut self, step: &Step<'_>, shape: &ConvShape, mixed: &mut Arena) -> Result<(), OpError> {
        let node = &step.model.graph.nodes[step.id];
        let experts = self.weights.get(step.model, node);
        let taps = shape.kernel * shape.kernel;
        let out = Mixed {
            weights: &mut mixed.signed_mut()[..self.mixed_len],
            maxima: &mut self.maxima,
            zero_sums: &mut self.zero_sums,
        };
        let (count, alpha, pad_row) = (self.router.weights.len(), &self.alpha[..], &self.pad_row[..]);
        if shape.is_depthwise() {
            let len = self.mixed_len * count;
            let job = DepthwiseMixJob {
                channels: shape.c_out,
                taps,
                count,
                experts: &experts[..len],
                alpha,
                pad_row,
            };
            ops::mix_depthwise(&job, out)
        } else {
            let job = MixJob {
                layout: self.layout,
                c_out: shape.c_out,
                taps,
                depth: shape.c_in,
                count,
                experts,
                alpha,
                pad_row,
            };
            ops::mix(step.crew, &job, out)
        }
    }

    /// Scales and start values for the kernel just mixed.
    fn set_epilogue(&mut self, step: &Step<'_>, shape: &ConvShape) {
        let node = &step.model.graph.nodes[step.id];
        let QOp::DynamicConv { output, .. } = &node.op else { return };
        let unit = constants::unit(output);
        let (bias, expert_bias) = (step.model.f32s(node, "bias"), step.model.f32s(node, "expert_bias"));
        let padded = self.alpha_step.len();
        let depth = shape.weight_len() / shape.c_out;
        let least = smallest_scale(output);
        for c in 0..shape.c_out {
            let mixed_bias = self.router.bias(c, bias, expert_bias, padded);
            let scale = (self.maxima[c] as f32 / 127.0 * self.alpha_step[c]).max(least);
            constants::set_channel(&mut self.requant, c, (mixed_bias, scale, unit), self.zero_sums[c], depth);
        }
    }
}

/// A weight step that is positive even where all mixed weights are zero, and keeps the bias in range.
fn smallest_scale(output: &QOutput) -> f32 {
    constants::unit(output) * 1e-6
}

/// Gates of squeeze-and-excite, from the means of its input.
#[derive(Debug)]
pub(super) struct Gates {
    squeezed: Vec<f64>,
    gates: Vec<f64>,
}

impl Gates {
    pub(super) fn new(reduced: usize, channels: usize) -> Self {
        Self { squeezed: vec![0.0; reduced], gates: vec![0.0; channels] }
    }

    /// `hard_sigmoid(W2 relu(W1 means + b1) + b2)`, `hard_sigmoid(z) = clamp(z + 3, 0, 6) / 6`.
    pub(super) fn compute(&mut self, model: &Model, node: &QNode, means: &[f64]) -> &[f64] {
        let floats = |suffix| model.f32s(node, suffix);
        linear(floats("reduce_weight"), floats("reduce_bias"), means, &mut self.squeezed);
        self.squeezed.iter_mut().for_each(|v| *v = v.max(0.0));
        linear(floats("expand_weight"), floats("expand_bias"), &self.squeezed, &mut self.gates);
        self.gates.iter_mut().for_each(|z| *z = (*z + 3.0).clamp(0.0, 6.0) / 6.0);
        &self.gates
    }
}

/// Squeeze-and-excite: constants and scratch.
#[derive(Debug)]
pub struct SqueezeExcite {
    means: Means,
    gates: Gates,
    affine: Vec<Affine<1>>,
}

impl SqueezeExcite {
    /// Prepares a node of a checked model.
    pub fn new(model: &Model, id: NodeId) -> Self {
        let node = &model.graph.nodes[id];
        let QOp::SqueezeExcite { reduced } = node.op else {
            unreachable!("called for squeeze-and-excite alone")
        };
        Self {
            means: Means::new(model.quant(node.inputs[0])),
            gates: Gates::new(reduced, node.channels),
            affine: vec![Affine::new([(0.0, 0)], 0); node.channels],
        }
    }

    /// Multiplies each channel by its gate.
    pub(super) fn run(&mut self, step: &mut Step<'_>) -> Result<(), OpError> {
        let node = &step.model.graph.nodes[step.id];
        let gates = self.gates.compute(step.model, node, self.means.compute(step)?);
        let own = step.model.quant(step.id);
        for (c, affine) in self.affine.iter_mut().enumerate() {
            let factor = gates[c] as f32 * self.means.quant.step[c] / own.step[c];
            *affine = Affine::new([(factor, self.means.quant.zero[c])], own.zero[c]);
        }
        let views = &step.placement.views;
        let job =
            ops::ScaleJob { input: views[node.inputs[0]], output: views[step.id], affine: &self.affine };
        ops::scale_channels(step.crew, step.arena, &job)
    }
}
