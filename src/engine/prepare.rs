//! Nodes made ready to run: weights in the kernels' layout, constants derived.

use super::dynamic::{Dynamic, SqueezeExcite};
use super::float::{FloatConv, FloatSqueezeExcite};
use super::{Step, constants};
use crate::kernels::ops::{self, Affine, ConvJob, DepthwiseJob, OpError, Runs, Window};
use crate::kernels::{Arena, Layout, Requant, View, pack};
use crate::model::graph::{ConvShape, NodeId};
use crate::weights::Model;
use crate::weights::graph::{QNode, QOp, QOutput};

/// A node with what its operation needs beside the views.
#[derive(Debug)]
pub enum Prepared {
    /// Nothing: slices, concats, pools.
    Plain,
    /// Dense convolution.
    Dense(Dense),
    /// Depthwise convolution.
    Depthwise(Depthwise),
    /// Dynamic convolution, dense or depthwise.
    Dynamic(Box<Dynamic>),
    /// Sum of two tensors.
    Add(Vec<Affine<2>>),
    /// Squeeze-and-excite.
    SqueezeExcite(Box<SqueezeExcite>),
    /// Convolution in f32, static or dynamic, dense or depthwise.
    FloatConv(Box<FloatConv>),
    /// Squeeze-and-excite in f32.
    FloatSqueezeExcite(Box<FloatSqueezeExcite>),
}

impl Prepared {
    /// Bytes that the node's mixed kernel needs.
    pub fn mixed_len(&self) -> usize {
        match self {
            Prepared::Dynamic(dynamic) => dynamic.mixed_len(),
            Prepared::FloatConv(conv) => conv.mixed_len(),
            _ => 0,
        }
    }

    /// Routing weights of the last run, for a dynamic convolution.
    pub fn routing(&self) -> Option<&[f32]> {
        match self {
            Prepared::Dynamic(dynamic) => Some(dynamic.routing()),
            Prepared::FloatConv(conv) => conv.routing(),
            _ => None,
        }
    }
}

/// Dense weights: where they lie in the map, or repacked for a kernel with another layout.
#[derive(Debug)]
pub enum Weights {
    /// In the file.
    Mapped,
    /// In memory of our own.
    Repacked(Arena),
}

impl Weights {
    /// A node's weights in `layout`; `experts` is 1 where there is no routing.
    pub fn new(model: &Model, node: &QNode, shape: &ConvShape, experts: usize, layout: Layout) -> Self {
        if layout == Layout::N16K4 || shape.is_depthwise() {
            return Weights::Mapped;
        }
        let taps = shape.kernel * shape.kernel;
        let packed =
            pack::repack(layout, model.i8s(node, "weight"), experts, (shape.c_out, taps, shape.c_in));
        Weights::Repacked(Arena::of_weights(&packed))
    }

    /// The weights.
    pub fn get<'a>(&'a self, model: &'a Model, node: &QNode) -> &'a [i8] {
        match self {
            Weights::Mapped => model.i8s(node, "weight"),
            Weights::Repacked(arena) => arena.signed(),
        }
    }
}

/// A dense convolution's constants.
#[derive(Debug)]
pub struct Dense {
    /// Its weights.
    pub weights: Weights,
    /// Its epilogue.
    pub requant: Requant,
    /// Stored zero points of the input, padded to whole cells.
    pub pad_row: Vec<u8>,
}

/// The window of a convolution over `input`.
pub(super) fn window(shape: &ConvShape, input: &View) -> Window {
    Window {
        kernel: shape.kernel,
        stride: shape.stride,
        dilation: shape.dilation,
        pad_top: shape.place(input.height).0,
        pad_left: shape.place(input.width).0,
    }
}

/// Runs a dense convolution of the step's node, all of it or what is `wanted`.
pub(super) fn dense(
    step: &mut Step<'_>,
    shape: &ConvShape,
    (weights, pad_row, requant): (&[i8], &[u8], &Requant),
    wanted: Option<&Runs>,
) -> Result<(), OpError> {
    let node = &step.model.graph.nodes[step.id];
    let views = &step.placement.views;
    let input = views[node.inputs[0]];
    let job = ConvJob {
        input,
        output: views[step.id],
        window: window(shape, &input),
        weights,
        pad_row,
        requant,
        residual: node.inputs.get(1).map(|&i| views[i]),
    };
    match wanted {
        Some(runs) => ops::conv_runs(step.kernels, step.crew, step.arena, &job, runs),
        None => ops::conv(step.kernels, step.crew, step.arena, &job),
    }
}

/// A depthwise convolution's constants.
#[derive(Debug)]
pub struct Depthwise {
    /// Its epilogue.
    pub requant: Requant,
    /// Stored zero points of the input.
    pub pad_row: Vec<u8>,
}

/// Runs a depthwise convolution of the step's node.
pub(super) fn depthwise(
    step: &mut Step<'_>,
    shape: &ConvShape,
    weights: &[i8],
    pad_row: &[u8],
    requant: &Requant,
) -> Result<(), OpError> {
    let node = &step.model.graph.nodes[step.id];
    let input = step.placement.views[node.inputs[0]];
    let job = DepthwiseJob {
        input,
        output: step.placement.views[step.id],
        window: window(shape, &input),
        weights,
        pad_row,
        requant,
    };
    ops::depthwise(step.kernels, step.crew, step.arena, &job)
}

/// Bytes of the stored zero points that a convolution of a layout reads.
pub fn pad_len(shape: &ConvShape, layout: Layout) -> usize {
    if shape.is_depthwise() { shape.c_in } else { shape.c_in.next_multiple_of(layout.depth()) }
}

/// Prepares one node of a checked model.
pub fn prepare(model: &Model, id: NodeId, layout: Layout) -> Prepared {
    let node = &model.graph.nodes[id];
    match &node.op {
        QOp::Conv { shape, act, output } => {
            let mut requant = constants::requant(model, id, act, output);
            let weights = Weights::new(model, node, shape, 1, layout);
            let pad_row = constants::pad_row(model, node, pad_len(shape, layout));
            set_static(model, node, shape, output, &pad_row, &mut requant);
            if shape.is_depthwise() {
                Prepared::Depthwise(Depthwise { requant, pad_row })
            } else {
                Prepared::Dense(Dense { weights, requant, pad_row })
            }
        }
        QOp::DynamicConv { .. } => Prepared::Dynamic(Box::new(Dynamic::new(model, id, layout))),
        QOp::FloatConv { .. } => Prepared::FloatConv(Box::new(FloatConv::new(model, id))),
        QOp::SqueezeExcite { reduced } if model.is_float(id) => {
            Prepared::FloatSqueezeExcite(Box::new(FloatSqueezeExcite::new(*reduced, node.channels)))
        }
        QOp::Add if !model.is_float(id) => Prepared::Add(sum(model, id)),
        QOp::SqueezeExcite { .. } => Prepared::SqueezeExcite(Box::new(SqueezeExcite::new(model, id))),
        QOp::Input
        | QOp::Add
        | QOp::Concat
        | QOp::Dequantise
        | QOp::Quantise
        | QOp::Slice { .. }
        | QOp::MaxPool { .. }
        | QOp::Upsample { .. }
        | QOp::Detect(_) => Prepared::Plain,
    }
}

fn set_static(
    model: &Model,
    node: &QNode,
    shape: &ConvShape,
    output: &QOutput,
    pad_row: &[u8],
    requant: &mut Requant,
) {
    let taps = shape.kernel * shape.kernel;
    let weights = model.i8s(node, "weight");
    let (zero_sums, depth) = if shape.is_depthwise() {
        let len = taps * shape.c_out.next_multiple_of(16);
        (pack::depthwise_zero_sums(&weights[..len], shape.c_out, taps, pad_row), taps)
    } else {
        let depth = shape.c_in.next_multiple_of(Layout::N16K4.depth());
        let row = &pad_row[..depth];
        (pack::zero_sums(Layout::N16K4, weights, (shape.c_out, taps, shape.c_in), row), taps * shape.c_in)
    };
    let (scales, biases) = (model.f32s(node, "weight_scale"), model.f32s(node, "bias"));
    for c in 0..shape.c_out {
        let unit = constants::unit(output);
        constants::set_channel(requant, c, (biases[c], scales[c], unit), zero_sums[c], depth);
    }
}

/// Maps of an elementwise sum: `q = zero + Σ (q_i - zero_i) * step_i / step`.
fn sum(model: &Model, id: NodeId) -> Vec<Affine<2>> {
    let node = &model.graph.nodes[id];
    let own = model.quant(id);
    let inputs = [model.quant(node.inputs[0]), model.quant(node.inputs[1])];
    (0..node.channels)
        .map(|c| Affine::new(inputs.map(|q| (q.step[c] / own.step[c], q.zero[c])), own.zero[c]))
        .collect()
}
