//! From the f32 graph and the observed ranges to the tensors of a model file.

use std::collections::HashMap;

use super::QuantError;
use super::float::{check, feeds_detect, float_kernel, forced_float};
use super::gate;
use super::ranges::Ranges;
use super::weights::{
    LEAST_SCALE, QuantisedKernel, bias_floor, correct_bias, dense_from_grouped, quantise as quantise_kernel,
};
use crate::kernels::{Act, Layout, pack};
use crate::model::graph::{Activation, Conv, ConvShape, DynamicConv, Graph, NodeId, Op};
use crate::weights::Card;
use crate::weights::graph::{ActQuant, QAct, QGraph, QNode, QOp, QOutput, inherited};
use crate::weights::write::{ModelParts, TensorData};

/// The quantised graph with its tensors by full name.
#[derive(Debug)]
pub struct Quantised {
    /// Graph.
    pub graph: QGraph,
    /// Tensors, padded as the file wants them.
    pub tensors: HashMap<String, TensorData>,
    /// For each node of the f32 graph, the node of [`Self::graph`] whose output stands for it.
    pub node_of: Vec<NodeId>,
}

impl Quantised {
    /// The model of `graph`, without report and origin, and [`Self::node_of`].
    pub fn into_parts(self, graph: &Graph) -> (ModelParts, Vec<NodeId>) {
        let parts = ModelParts {
            graph: self.graph,
            tensors: self.tensors,
            info: graph.info.clone(),
            report: String::new(),
            source_sha256: String::new(),
            license: String::new(),
            card: Card::default(),
        };
        (parts, self.node_of)
    }
}

/// Quantises a fused graph. Nodes whose `float` is set are computed in f32, and so are those of
/// [`forced_float`]; nodes past its end are not set.
///
/// # Errors
/// [`QuantError::Unsupported`] for what the engine has no operation for.
pub fn quantise(graph: &Graph, ranges: &Ranges, float: &[bool]) -> Result<Quantised, QuantError> {
    check(graph)?;
    let mut is_float = forced_float(graph);
    is_float.iter_mut().zip(float).for_each(|(is, &wanted)| *is |= wanted);
    let mut builder = Builder {
        graph,
        ranges,
        is_float,
        node_of: Vec::new(),
        converted: vec![None; graph.nodes.len()],
        floats: Vec::new(),
        quants: Vec::new(),
        nodes: Vec::new(),
        tensors: HashMap::new(),
    };
    for id in 0..graph.nodes.len() {
        builder.node(id);
    }
    let Builder { nodes, tensors, node_of, .. } = builder;
    Ok(Quantised { graph: QGraph { nodes }, tensors, node_of })
}

struct Builder<'a> {
    graph: &'a Graph,
    ranges: &'a Ranges,
    /// Which nodes of `graph` are to be computed in f32.
    is_float: Vec<bool>,
    /// The new node that stands for each node of `graph` so far.
    node_of: Vec<NodeId>,
    /// The new node that is its conversion to the other kind, for each node of `graph`.
    converted: Vec<Option<NodeId>>,
    /// Of the new nodes.
    floats: Vec<bool>,
    /// Of the new nodes.
    quants: Vec<ActQuant>,
    nodes: Vec<QNode>,
    tensors: HashMap<String, TensorData>,
}

impl Builder<'_> {
    fn node(&mut self, id: NodeId) {
        let node = &self.graph.nodes[id];
        // An int8 convolution before the head has an f32 output, but takes int8.
        let float = self.is_float[id] && !matches!(node.op, Op::Input) || matches!(node.op, Op::Detect(_));
        let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| self.of_kind(i, float)).collect();
        let (op, own) = match &node.op {
            Op::Conv(conv) if float => (self.float_conv(id, conv), None),
            Op::DynamicConv(conv) if float => (self.float_dynamic(id, conv), None),
            Op::Conv(conv) => self.conv(id, &inputs, conv),
            Op::DynamicConv(conv) => self.dynamic(id, &inputs, conv),
            Op::Input => (QOp::Input, None),
            Op::Add => (QOp::Add, (!float).then(|| self.own_quant(id, 0.0))),
            Op::Concat => (QOp::Concat, None),
            Op::Slice { start } => (QOp::Slice { start: *start }, None),
            Op::MaxPool { kernel } => (QOp::MaxPool { kernel: *kernel }, None),
            Op::Upsample { factor } => (QOp::Upsample { factor: *factor }, None),
            Op::SqueezeExcite(se) => {
                self.floats(id, "reduce_weight", &se.reduce_weight, 0.0);
                self.floats(id, "reduce_bias", &se.reduce_bias, 0.0);
                self.floats(id, "expand_weight", &se.expand_weight, 0.0);
                self.floats(id, "expand_bias", &se.expand_bias, 0.0);
                let own = (!float).then(|| self.own_quant(id, 0.0));
                (QOp::SqueezeExcite { reduced: se.reduced }, own)
            }
            Op::Detect(detect) => (QOp::Detect(detect.clone()), None),
        };
        let new = self.push(QNode { name: node.name.clone(), op, inputs, channels: node.channels }, own);
        self.node_of.push(new);
    }

    /// Appends a node; `own` is its quantisation where it does not take over its inputs'.
    fn push(&mut self, node: QNode, own: Option<ActQuant>) -> NodeId {
        let first = node.inputs.first().is_some_and(|&i| self.floats[i]);
        let float = node.op.gives_float(first);
        if let Some(own) = &own {
            let padded = own.zero.len().next_multiple_of(16);
            let mut step = own.step.clone();
            step.resize(padded, 1.0);
            let mut zero: Vec<i32> = own.zero.iter().map(|&z| i32::from(z)).collect();
            zero.resize(padded, 0);
            self.tensors.insert(format!("{}.step", node.name), TensorData::F32(step));
            self.tensors.insert(format!("{}.zero", node.name), TensorData::I32(zero));
        }
        let quant = own.or_else(|| inherited(&node, float, &self.quants)).unwrap_or_default();
        self.quants.push(quant);
        self.floats.push(float);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The new node that gives what `id` gives, in f32 or int8. All readers share one conversion.
    fn of_kind(&mut self, id: NodeId, float: bool) -> NodeId {
        let own = self.node_of[id];
        if self.floats[own] == float {
            return own;
        }
        if let Some(converted) = self.converted[id] {
            return converted;
        }
        let node = &self.graph.nodes[id];
        let (op, suffix, quant) = if float {
            (QOp::Dequantise, "f32", None)
        } else {
            (QOp::Quantise, "int8", Some(self.own_quant(id, 0.0)))
        };
        let name = self.free_name(&node.name, suffix);
        let new = self.push(QNode { name, op, inputs: vec![own], channels: node.channels }, quant);
        self.converted[id] = Some(new);
        new
    }

    /// `NAME.SUFFIX`, or more of the suffix where a node has that name.
    fn free_name(&self, name: &str, suffix: &str) -> String {
        let mut free = format!("{name}.{suffix}");
        while self.graph.nodes.iter().any(|node| node.name == free) {
            free = format!("{free}.{suffix}");
        }
        free
    }

    fn conv(&mut self, id: NodeId, inputs: &[NodeId], conv: &Conv) -> (QOp, Option<ActQuant>) {
        let (act, output, own) = self.output(id, inputs, conv.activation);
        let (weight, shape) = dense_if_grouped(&conv.weight, &conv.shape);
        let steps = &self.quants[inputs[0]].step;
        let kernel = quantise_kernel(&weight, &shape, steps, &bias_floor(&conv.bias));
        let mut bias = conv.bias.clone();
        let means = self.ranges.means(self.graph.nodes[id].inputs[0]);
        correct_bias(&mut bias, (&weight, &kernel), &shape, (steps, &means));
        self.floats(id, "weight_scale", &kernel.scale, 1.0);
        self.floats(id, "bias", &bias, 0.0);
        self.tensors.insert(self.name(id, "weight"), TensorData::I8(pack_static(&kernel, &shape)));
        (QOp::Conv { shape, act, output }, own)
    }

    fn dynamic(&mut self, id: NodeId, inputs: &[NodeId], conv: &DynamicConv) -> (QOp, Option<ActQuant>) {
        let (act, output, own) = self.output(id, inputs, conv.activation);
        let shape = self.experts(id, inputs[0], conv);
        self.routing(id, conv);
        (QOp::DynamicConv { shape, act, output, experts: conv.experts, routing: conv.routing }, own)
    }

    fn float_conv(&mut self, id: NodeId, conv: &Conv) -> QOp {
        let (kernel, shape) = float_kernel(&conv.weight, &conv.shape);
        self.floats(id, "weight", &kernel, 0.0);
        self.floats(id, "bias", &conv.bias, 0.0);
        QOp::FloatConv { shape, activation: conv.activation, experts: 1, routing: None }
    }

    fn float_dynamic(&mut self, id: NodeId, conv: &DynamicConv) -> QOp {
        let (mut kernels, mut shape) = (Vec::new(), conv.shape);
        for weight in conv.weight.chunks_exact(conv.shape.weight_len()) {
            let (kernel, new) = float_kernel(weight, &conv.shape);
            kernels.extend(kernel);
            shape = new;
        }
        self.floats(id, "weight", &kernels, 0.0);
        self.routing(id, conv);
        let (activation, experts) = (conv.activation, conv.experts);
        QOp::FloatConv { shape, activation, experts, routing: Some(conv.routing) }
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
    fn output(
        &self,
        id: NodeId,
        inputs: &[NodeId],
        activation: Activation,
    ) -> (QAct, QOutput, Option<ActQuant>) {
        if feeds_detect(self.graph, id) {
            return (QAct::Identity, QOutput::Float, None);
        }
        let full_scale = self.full_scale(id, inputs, activation);
        let act = match activation {
            Activation::Identity => QAct::Identity,
            // `forced_float` lets no LeakyReLU through.
            Activation::Relu | Activation::Relu6 | Activation::LeakyRelu { .. } => QAct::Relu,
            Activation::Silu => gated(gate::silu_gap, full_scale, gate::SILU_REACH),
            Activation::Hardswish => gated(gate::hardswish_gap, full_scale, gate::HARDSWISH_REACH),
        };
        let unit = (full_scale / 32768.0) as f32;
        (act, QOutput::Int8 { unit }, Some(self.own_quant(id, full_scale as f32)))
    }

    /// Real value that the 16-bit pre-activation's full scale stands for.
    fn full_scale(&self, id: NodeId, inputs: &[NodeId], activation: Activation) -> f64 {
        let largest = |ranges: &[(f32, f32)]| {
            ranges.iter().map(|(low, high)| f64::from(high.max(-low))).fold(0.0, f64::max)
        };
        let mut least = largest(&self.ranges.channels(id)) * 1.05;
        if let Some(&residual) = inputs.get(1) {
            // The sum may hide a larger term before it, and the residual's multiplier must fit Q15.
            let step = self.quants[residual].step.iter().copied().fold(0.0, f32::max);
            least = (least * 1.5).max(f64::from(step) * 260.0);
        }
        match activation {
            Activation::Identity | Activation::Relu | Activation::LeakyRelu { .. } => least,
            // Saturation to 16 bits is its upper end.
            Activation::Relu6 => f64::from(activation.bounds().1),
            Activation::Silu => beyond(gate::SILU_REACH, least),
            Activation::Hardswish => beyond(gate::HARDSWISH_REACH, least),
        }
    }

    /// Step and zero point per channel from the observed ranges. With a `full_scale`, steps are
    /// whole fractions of it, so that the epilogue's multipliers are exact.
    fn own_quant(&self, id: NodeId, full_scale: f32) -> ActQuant {
        let mut quant = ActQuant::default();
        let (bottom, top) = self.bounds(id);
        for (low, high) in self.ranges.channels(id) {
            let (low, high) = (low.max(bottom), high.min(top));
            let mut step = ((high - low) / 255.0).max(1e-9);
            if full_scale > 0.0 {
                step = full_scale / (full_scale / step).floor().clamp(1.0, 32767.0);
            }
            quant.step.push(step);
            quant.zero.push((-low / step).round_ties_even().clamp(0.0, 255.0) as u8);
        }
        quant
    }

    /// What a node's output is never less and never more than, whatever was observed and made of it.
    fn bounds(&self, id: NodeId) -> (f32, f32) {
        let node = &self.graph.nodes[id];
        match &node.op {
            // A residual is added after the activation.
            Op::Conv(Conv { activation, .. }) | Op::DynamicConv(DynamicConv { activation, .. })
                if node.inputs.len() == 1 =>
            {
                activation.bounds()
            }
            _ => Activation::Identity.bounds(),
        }
    }

    /// Quantises and packs a dynamic convolution's experts.
    fn experts(&mut self, id: NodeId, input: NodeId, conv: &DynamicConv) -> ConvShape {
        let steps = self.quants[input].step.clone();
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
        self.tensors.insert(self.name(id, "weight"), TensorData::I8(bytes));
        self.floats(id, "weight_scale", &scales, 1.0);
        shape
    }

    /// Writes a dynamic convolution's routing and biases.
    fn routing(&mut self, id: NodeId, conv: &DynamicConv) {
        let padded = conv.shape.c_out.next_multiple_of(16);
        let mut expert_bias = vec![0.0; conv.experts * padded];
        for (to, from) in
            expert_bias.chunks_exact_mut(padded).zip(conv.expert_bias.chunks_exact(conv.shape.c_out))
        {
            to[..from.len()].copy_from_slice(from);
        }
        self.floats(id, "expert_bias", &expert_bias, 0.0);
        self.floats(id, "bias", &conv.bias, 0.0);
        self.floats(id, "routing_weight", &conv.routing_weight, 0.0);
        self.floats(id, "routing_bias", &conv.routing_bias, 0.0);
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

pub(super) fn dense_if_grouped(weight: &[f32], shape: &ConvShape) -> (Vec<f32>, ConvShape) {
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
