//! Layers in f32: what a model file asks for where int8 loses too much.
//!
//! Weights are used where they lie in the map; a dynamic convolution's kernel is mixed into the room that
//! int8 ones use. Means are f64, routing and gates those of `dynamic`.

use super::Step;
use super::dynamic::{Gates, Router};
use super::prepare::window;
use crate::kernels::Arena;
use crate::kernels::ops::{self, FloatAct, FloatConvJob, OpError};
use crate::model::graph::{Activation, ConvShape, NodeId};
use crate::weights::Model;
use crate::weights::graph::{QOp, float_kernel_len};

/// A model file's activation as the kernels take it.
pub(super) fn float_act(activation: Activation) -> FloatAct {
    match activation {
        Activation::Identity => FloatAct::Identity,
        Activation::Relu => FloatAct::Relu,
        Activation::Silu => FloatAct::Silu,
        Activation::Relu6 => FloatAct::Relu6,
        Activation::Hardswish => FloatAct::Hardswish,
        Activation::LeakyRelu { slope } => FloatAct::LeakyRelu(slope),
    }
}

/// Mean of each channel of the step's first input.
fn means<'a>(step: &Step<'_>, means: &'a mut [f64]) -> Result<&'a [f64], OpError> {
    let input = step.placement.views[step.model.graph.nodes[step.id].inputs[0]];
    ops::float_sums(step.crew, step.arena, input, means)?;
    let pixels = input.pixels().max(1) as f64;
    means.iter_mut().for_each(|mean| *mean /= pixels);
    Ok(means)
}

/// A convolution's constants and scratch.
#[derive(Debug)]
pub struct FloatConv {
    act: FloatAct,
    /// As many as input channels: what lies outside the picture.
    zeros: Vec<f32>,
    mixing: Option<Mixing>,
}

impl FloatConv {
    /// Prepares a convolution of a checked model.
    pub fn new(model: &Model, id: NodeId) -> Self {
        let node = &model.graph.nodes[id];
        let QOp::FloatConv { shape, activation, experts, routing } = &node.op else {
            unreachable!("called for convolutions in f32 alone")
        };
        let mixing = routing.map(|kind| Mixing {
            means: vec![0.0; shape.c_in],
            router: Router::new(kind, *experts),
            bias: vec![0.0; shape.c_out],
            kernel_len: float_kernel_len(shape),
        });
        Self { act: float_act(*activation), zeros: vec![0.0; shape.c_in], mixing }
    }

    /// Bytes of the mixed kernel.
    pub fn mixed_len(&self) -> usize {
        self.mixing.as_ref().map_or(0, |mixing| 4 * mixing.kernel_len)
    }

    /// Routing weights of the last run, for a dynamic convolution.
    pub fn routing(&self) -> Option<&[f32]> {
        self.mixing.as_ref().map(|mixing| &mixing.router.weights[..])
    }

    /// Mixes, where there is something to mix, and convolves the step's node.
    pub(super) fn run(
        &mut self,
        step: &mut Step<'_>,
        shape: &ConvShape,
        mixed: &mut Arena,
    ) -> Result<(), OpError> {
        let node = &step.model.graph.nodes[step.id];
        let (weights, bias) = match &mut self.mixing {
            None => (step.model.f32s(node, "weight"), step.model.f32s(node, "bias")),
            Some(mixing) => mixing.mix(step, mixed)?,
        };
        let views = &step.placement.views;
        let input = views[node.inputs[0]];
        let job = FloatConvJob {
            input,
            output: views[step.id],
            window: window(shape, &input),
            depthwise: shape.is_depthwise(),
            weights,
            bias,
            zeros: &self.zeros,
            act: self.act,
            residual: node.inputs.get(1).map(|&i| views[i]),
        };
        ops::float_conv(step.crew, step.arena, &job)
    }
}

/// What a dynamic convolution mixes with.
#[derive(Debug)]
struct Mixing {
    means: Vec<f64>,
    router: Router,
    bias: Vec<f32>,
    kernel_len: usize,
}

impl Mixing {
    /// Kernel and bias for the step's input.
    fn mix<'a>(
        &'a mut self,
        step: &Step<'_>,
        mixed: &'a mut Arena,
    ) -> Result<(&'a [f32], &'a [f32]), OpError> {
        let (model, node) = (step.model, &step.model.graph.nodes[step.id]);
        self.router.route(model, node, means(step, &mut self.means)?);
        let kernel: &mut [f32] = bytemuck::cast_slice_mut(&mut mixed.bytes_mut()[..4 * self.kernel_len]);
        ops::float_mix(step.crew, model.f32s(node, "weight"), &self.router.weights, kernel)?;
        let (bias, expert_bias) = (model.f32s(node, "bias"), model.f32s(node, "expert_bias"));
        let padded = expert_bias.len() / self.router.weights.len();
        for (c, to) in self.bias.iter_mut().enumerate() {
            *to = self.router.bias(c, bias, expert_bias, padded);
        }
        Ok((kernel, &self.bias))
    }
}

/// Squeeze-and-excite: scratch.
#[derive(Debug)]
pub struct FloatSqueezeExcite {
    means: Vec<f64>,
    gates: Gates,
    factors: Vec<f32>,
}

impl FloatSqueezeExcite {
    /// Prepares a node.
    pub fn new(reduced: usize, channels: usize) -> Self {
        Self {
            means: vec![0.0; channels],
            gates: Gates::new(reduced, channels),
            factors: vec![0.0; channels],
        }
    }

    /// Multiplies each channel by its gate.
    pub(super) fn run(&mut self, step: &mut Step<'_>) -> Result<(), OpError> {
        let node = &step.model.graph.nodes[step.id];
        let gates = self.gates.compute(step.model, node, means(step, &mut self.means)?);
        self.factors.iter_mut().zip(gates).for_each(|(factor, &gate)| *factor = gate as f32);
        let views = &step.placement.views;
        let views = (views[node.inputs[0]], views[step.id]);
        ops::float_scale(step.crew, step.arena, views, &self.factors)
    }
}
