//! From the f32 graph and the observed ranges to the tensors of a model file.

use std::collections::HashMap;

use super::QuantError;
use super::gate;
use super::ranges::Ranges;
use super::weights::{
    LEAST_SCALE, QuantisedKernel, bias_floor, dense_from_grouped, quantise as quantise_kernel,
};
use crate::kernels::{Act, Layout, pack};
use crate::model::graph::{Activation, Conv, ConvShape, DynamicConv, Graph, NodeId, Op};
use crate::weights::graph::{ActQuant, QAct, QGraph, QNode, QOp, QOutput, inherited};
use crate::weights::write::TensorData;

/// The quantised graph with its tensors by full name.
#[derive(Debug)]
pub struct Quantised {
    /// Graph.
    pub graph: QGraph,
    /// Tensors, padded as the file wants them.
    pub tensors: HashMap<String, TensorData>,
}

/// Quantises a fused graph.
///
/// # Errors
/// [`QuantError::Unsupported`] for what the int8 engine has no operation for.
pub fn quantise(graph: &Graph, ranges: &Ranges) -> Result<Quantised, QuantError> {
    check(graph)?;
    let mut builder =
        Builder { graph, ranges, quants: Vec::new(), nodes: Vec::new(), tensors: HashMap::new() };
    for id in 0..graph.nodes.len() {
        builder.node(id)?;
    }
    Ok(Quantised { graph: QGraph { nodes: builder.nodes }, tensors: builder.tensors })
}

/// Whether the int8 engine has an operation for each node; before any picture is looked at.
///
/// # Errors
/// [`QuantError::Unsupported`] for the first node that it has none for.
pub fn check(graph: &Graph) -> Result<(), QuantError> {
    for (id, node) in graph.nodes.iter().enumerate() {
        let (Op::Conv(Conv { activation, .. }) | Op::DynamicConv(DynamicConv { activation, .. })) = &node.op
        else {
            continue;
        };
        let residual = node.inputs.len() > 1;
        let what = match activation {
            _ if feeds_detect(graph, id) && (*activation != Activation::Identity || residual) => {
                "an activation or a sum right before the detection head"
            }
            // What it lacks to ReLU is no even function, so `Act::Gated` cannot say it.
            Activation::LeakyRelu { .. } => "the activation LeakyReLU",
            // It clips where 16 bits end, and a sum would have to reach further.
            Activation::Relu6 if residual => "a sum after the activation ReLU6",
            _ => continue,
        };
        return Err(QuantError::Unsupported { node: node.name.clone(), what: what.into() });
    }
    Ok(())
}

/// Whether a node feeds the detection head, which takes f32.
fn feeds_detect(graph: &Graph, id: NodeId) -> bool {
    graph.nodes.last().is_some_and(|last| last.inputs.contains(&id))
}

/// Where ReLU6 clips.
const RELU6_TOP: f32 = 6.0;

struct Builder<'a> {
    graph: &'a Graph,
    ranges: &'a Ranges,
    quants: Vec<ActQuant>,
    nodes: Vec<QNode>,
    tensors: HashMap<String, TensorData>,
}

impl Builder<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), QuantError> {
        let node = &self.graph.nodes[id];
        let mut own = None;
        let op = match &node.op {
            Op::Input => QOp::Input,
            Op::Add => {
                own = Some(self.own_quant(id, 0.0));
                QOp::Add
            }
            Op::Concat => QOp::Concat,
            Op::Slice { start } => QOp::Slice { start: *start },
            Op::MaxPool { kernel } => QOp::MaxPool { kernel: *kernel },
            Op::Upsample { factor } => QOp::Upsample { factor: *factor },
            Op::SqueezeExcite(se) => {
                own = Some(self.own_quant(id, 0.0));
                self.floats(id, "reduce_weight", &se.reduce_weight, 0.0);
                self.floats(id, "reduce_bias", &se.reduce_bias, 0.0);
                self.floats(id, "expand_weight", &se.expand_weight, 0.0);
                self.floats(id, "expand_bias", &se.expand_bias, 0.0);
                QOp::SqueezeExcite { reduced: se.reduced }
            }
            Op::Conv(conv) => {
                let (act, output, quant) = self.output(id, conv.activation);
                own = quant;
                let (weight, shape) = dense_if_grouped(&conv.weight, &conv.shape);
                let kernel = quantise_kernel(
                    &weight,
                    &shape,
                    &self.quants[node.inputs[0]].step,
                    &bias_floor(&conv.bias),
                );
                self.floats(id, "weight_scale", &kernel.scale, 1.0);
                self.floats(id, "bias", &conv.bias, 0.0);
                self.tensors.insert(self.name(id, "weight"), TensorData::I8(pack_static(&kernel, &shape)));
                QOp::Conv { shape, act, output }
            }
            Op::DynamicConv(conv) => {
                let (act, output, quant) = self.output(id, conv.activation);
                own = quant;
                let shape = self.experts(id, conv);
                QOp::DynamicConv { shape, act, output, experts: conv.experts, routing: conv.routing }
            }
            Op::Detect(detect) => QOp::Detect(detect.clone()),
        };
        let qnode =
            QNode { name: node.name.clone(), op, inputs: node.inputs.clone(), channels: node.channels };
        let quant = match (own, inherited(&qnode, &self.quants)) {
            (Some(own), _) => {
                self.floats(id, "step", &own.step, 1.0);
                let mut zero: Vec<i32> = own.zero.iter().map(|&z| i32::from(z)).collect();
                zero.resize(zero.len().next_multiple_of(16), 0);
                self.tensors.insert(self.name(id, "zero"), TensorData::I32(zero));
                own
            }
            (None, Some(inherited)) => inherited,
            (None, None) => ActQuant::default(),
        };
        self.quants.push(quant);
        self.nodes.push(qnode);
        Ok(())
    }

    fn name(&self, id: NodeId, suffix: &str) -> String {
        format!("{}.{suffix}", self.graph.nodes[id].name)
    }

    fn floats(&mut self, id: NodeId, suffix: &str, values: &[f32], filler: f32) {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(16), filler);
        self.tensors.insert(self.name(id, suffix), TensorData::F32(padded));
    }

    /// Activation, output kind and own quantisation of a convolution.
    fn output(&self, id: NodeId, activation: Activation) -> (QAct, QOutput, Option<ActQuant>) {
        if feeds_detect(self.graph, id) {
            return (QAct::Identity, QOutput::Float, None);
        }
        let full_scale = self.full_scale(id, activation);
        let act = match activation {
            Activation::Identity => QAct::Identity,
            // `check` lets no LeakyReLU through.
            Activation::Relu | Activation::Relu6 | Activation::LeakyRelu { .. } => QAct::Relu,
            Activation::Silu => gated(gate::silu_gap, full_scale, gate::SILU_REACH),
            Activation::Hardswish => gated(gate::hardswish_gap, full_scale, gate::HARDSWISH_REACH),
        };
        let unit = (full_scale / 32768.0) as f32;
        (act, QOutput::Int8 { unit }, Some(self.own_quant(id, full_scale as f32)))
    }

    /// Real value that the 16-bit pre-activation's full scale stands for.
    fn full_scale(&self, id: NodeId, activation: Activation) -> f64 {
        let node = &self.graph.nodes[id];
        let largest = |ranges: &[(f32, f32)]| {
            ranges.iter().map(|(low, high)| f64::from(high.max(-low))).fold(0.0, f64::max)
        };
        let mut least = largest(&self.ranges.channels(id)) * 1.05;
        if let Some(&residual) = node.inputs.get(1) {
            // The sum may hide a larger term before it, and the residual's multiplier must fit Q15.
            let step = self.quants[residual].step.iter().copied().fold(0.0, f32::max);
            least = (least * 1.5).max(f64::from(step) * 260.0);
        }
        match activation {
            Activation::Identity | Activation::Relu | Activation::LeakyRelu { .. } => least,
            // Saturation to 16 bits is its upper end.
            Activation::Relu6 => f64::from(RELU6_TOP),
            Activation::Silu => beyond(gate::SILU_REACH, least),
            Activation::Hardswish => beyond(gate::HARDSWISH_REACH, least),
        }
    }

    /// Step and zero point per channel from the observed ranges. With a `full_scale`, steps are
    /// whole fractions of it, so that the epilogue's multipliers are exact.
    fn own_quant(&self, id: NodeId, full_scale: f32) -> ActQuant {
        let mut quant = ActQuant::default();
        let top = match &self.graph.nodes[id].op {
            Op::Conv(Conv { activation: Activation::Relu6, .. })
            | Op::DynamicConv(DynamicConv { activation: Activation::Relu6, .. }) => RELU6_TOP,
            _ => f32::INFINITY,
        };
        for (low, high) in self.ranges.channels(id) {
            let high = high.min(top);
            let mut step = ((high - low) / 255.0).max(1e-9);
            if full_scale > 0.0 {
                step = full_scale / (full_scale / step).floor().clamp(1.0, 32767.0);
            }
            quant.step.push(step);
            quant.zero.push((-low / step).round_ties_even().clamp(0.0, 255.0) as u8);
        }
        quant
    }

    /// Quantises and packs a dynamic convolution's experts and writes its routing.
    fn experts(&mut self, id: NodeId, conv: &DynamicConv) -> ConvShape {
        let node = &self.graph.nodes[id];
        let steps = self.quants[node.inputs[0]].step.clone();
        let per_expert = conv.shape.weight_len();
        let padded = conv.shape.c_out.next_multiple_of(16);
        let (mut scales, mut packed, mut shape) = (Vec::new(), Vec::new(), conv.shape);
        for weight in conv.weight.chunks_exact(per_expert) {
            let (weight, expanded) = dense_if_grouped(weight, &conv.shape);
            shape = expanded;
            let kernel = quantise_kernel(&weight, &shape, &steps, &vec![LEAST_SCALE; shape.c_out]);
            scales.extend(&kernel.scale);
            scales.resize(scales.len().next_multiple_of(padded), 1.0);
            packed.push(kernel.weight);
        }
        let taps = shape.kernel * shape.kernel;
        let mut bytes = if shape.is_depthwise() {
            pack::depthwise_experts(shape.c_out, taps, &packed)
        } else {
            let plain = pack::Shape::plain(shape.c_out, shape.c_in, taps);
            pack::dense_experts(Layout::N16K4, plain, &packed)
        };
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        let mut expert_bias = vec![0.0; conv.experts * padded];
        for (to, from) in
            expert_bias.chunks_exact_mut(padded).zip(conv.expert_bias.chunks_exact(conv.shape.c_out))
        {
            to[..from.len()].copy_from_slice(from);
        }
        self.tensors.insert(self.name(id, "weight"), TensorData::I8(bytes));
        self.floats(id, "weight_scale", &scales, 1.0);
        self.floats(id, "expert_bias", &expert_bias, 0.0);
        self.floats(id, "bias", &conv.bias, 0.0);
        self.floats(id, "routing_weight", &conv.routing_weight, 0.0);
        self.floats(id, "routing_bias", &conv.routing_bias, 0.0);
        shape
    }
}

/// The activation that lacks `gap` to ReLU.
fn gated(gap: impl Fn(f64) -> f64, full_scale: f64, reach: f64) -> QAct {
    match gate::fit(gap, full_scale, gate::shift_for(full_scale, reach)) {
        Act::Gated { shift, poly } => QAct::Gated { shift, poly },
        Act::Identity | Act::Relu => QAct::Relu,
    }
}

/// The least power of two times a gap's reach from `least` on, so that the polynomial ends where the gap does.
fn beyond(reach: f64, least: f64) -> f64 {
    (0..16).map(|k| reach * f64::from(1u32 << k)).find(|&f| f >= least).unwrap_or(least)
}

fn dense_if_grouped(weight: &[f32], shape: &ConvShape) -> (Vec<f32>, ConvShape) {
    if shape.groups == 1 || shape.is_depthwise() {
        (weight.to_vec(), *shape)
    } else {
        dense_from_grouped(weight, shape)
    }
}

fn pack_static(kernel: &QuantisedKernel, shape: &ConvShape) -> Vec<i8> {
    let taps = shape.kernel * shape.kernel;
    let mut bytes = if shape.is_depthwise() {
        pack::depthwise(shape.c_out, taps, &kernel.weight)
    } else {
        pack::dense(Layout::N16K4, pack::Shape::plain(shape.c_out, shape.c_in, taps), &kernel.weight)
    };
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes
}
