//! The model as a directed graph of about ten operations, in f32, batch norm already folded.
//!
//! One graph serves the candle reference, the quantiser and (after quantisation) the int8 engine.
//! Nodes are in topological order: a node's inputs have smaller indices.

use serde::{Deserialize, Serialize};

/// Index of a [`Node`] in [`Graph::nodes`].
pub type NodeId = usize;

/// Names and numbers that travel with a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Short name, for example `yolov8n-dynamicconv`.
    pub name: String,
    /// Class names; the index is the class id.
    pub classes: Vec<String>,
    /// Input size that the model was trained for: height and width in pixels.
    pub input_size: [usize; 2],
    /// Count of trained parameters, batch norm and DFL included, as Ultralytics counts them.
    pub parameters: u64,
    /// How the checkpoint's DynamicConv was recognised, for people (empty for plain models).
    pub dialect: String,
    /// What the checkpoint says of its licence, empty where it says nothing. A model file has it in an entry of its own.
    #[serde(skip)]
    pub license: String,
}

/// A model: nodes in topological order; the last one is [`Op::Detect`].
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Operations in topological order; node 0 is [`Op::Input`].
    pub nodes: Vec<Node>,
    /// Names and numbers.
    pub info: ModelInfo,
}

/// One operation with its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Dotted name as in the checkpoint, for example `model.2.m.0.cv1`.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Producers of its inputs, in the order that [`Op`] states.
    pub inputs: Vec<NodeId>,
    /// Channels of its output (0 for [`Op::Detect`]).
    pub channels: usize,
}

/// The closed set of operations. Tensors are NHWC.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The letterboxed picture: 3 channels, RGB, values in [0, 1].
    Input,
    /// Convolution + bias + activation. Inputs: `[x]`, or `[x, residual]` after [`crate::model::fuse`]:
    /// the residual is added after the activation.
    Conv(Conv),
    /// Convolution with a kernel mixed per image from experts. Inputs as [`Op::Conv`].
    DynamicConv(DynamicConv),
    /// Elementwise sum. Inputs: `[a, b]`.
    Add,
    /// Channels of all inputs, one after the other.
    Concat,
    /// Channels `start .. start + node.channels` of its input.
    Slice {
        /// First channel taken.
        start: usize,
    },
    /// Square max pooling, stride 1, "same" size: padding `kernel / 2`, outside is minus infinity.
    MaxPool {
        /// Window, odd.
        kernel: usize,
    },
    /// Nearest-neighbour enlargement by a whole factor.
    Upsample {
        /// Factor in both directions.
        factor: usize,
    },
    /// `x * gate(mean(x))` per channel (Hu et al., 2018).
    SqueezeExcite(SqueezeExcite),
    /// The heads' raw outputs. Inputs: `[box_0, class_0, box_1, class_1, …]`, one pair per level.
    Detect(Detect),
}

impl Op {
    /// The operation in a few words, for example `conv 3x3/2 silu`.
    pub fn describe(&self) -> String {
        match self {
            Op::Input => "input".to_string(),
            Op::Conv(conv) => format!("conv {} {}", conv.shape.describe(), conv.activation.name()),
            Op::DynamicConv(conv) => format!(
                "dynamic conv {} {}, {} experts, {}",
                conv.shape.describe(),
                conv.activation.name(),
                conv.experts,
                conv.routing.name()
            ),
            Op::Add => "add".to_string(),
            Op::Concat => "concat".to_string(),
            Op::Slice { start } => format!("slice from {start}"),
            Op::MaxPool { kernel } => format!("max pool {kernel}x{kernel}"),
            Op::Upsample { factor } => format!("upsample x{factor}"),
            Op::SqueezeExcite(se) => format!("squeeze-excite to {}", se.reduced),
            Op::Detect(detect) => format!("detect, {} classes", detect.classes),
        }
    }
}

/// Shape of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvShape {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Square kernel's side.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Dilation in both directions.
    pub dilation: usize,
    /// Groups; `c_in == c_out == groups` is depthwise.
    pub groups: usize,
    /// Padding.
    pub padding: Padding,
}

/// Padding of a convolution with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// The same count of pixels on every side.
    Fixed(usize),
    /// TensorFlow's `SAME`: output is `ceil(input / stride)`, an odd pixel goes below and to the right.
    Same,
}

impl ConvShape {
    /// Kernel extent with dilation: `dilation * (kernel - 1) + 1`.
    pub fn extent(&self) -> usize {
        self.dilation * (self.kernel - 1) + 1
    }

    /// Padding before the first pixel and output length, for an input of `n` pixels in one direction.
    ///
    /// A window that does not fit gives length 0.
    pub fn place(&self, n: usize) -> (usize, usize) {
        match self.padding {
            Padding::Fixed(p) => {
                let padded = n + 2 * p;
                let out = if padded < self.extent() { 0 } else { (padded - self.extent()) / self.stride + 1 };
                (p, out)
            }
            Padding::Same => {
                let out = n.div_ceil(self.stride);
                let need = (out.saturating_sub(1) * self.stride + self.extent()).saturating_sub(n);
                (need / 2, out)
            }
        }
    }

    /// Whether each channel is filtered alone.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.c_in && self.groups == self.c_out
    }

    /// Elements of one kernel: `c_out * c_in / groups * kernel²`.
    pub fn weight_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.kernel * self.kernel
    }

    /// Kernel, stride and groups in a few words, for example `3x3/2 depthwise`.
    pub fn describe(&self) -> String {
        let mut text = format!("{0}x{0}", self.kernel);
        if self.stride > 1 {
            text += &format!("/{}", self.stride);
        }
        if self.is_depthwise() {
            text += " depthwise";
        } else if self.groups > 1 {
            text += &format!(" in {} groups", self.groups);
        }
        if self.dilation > 1 {
            text += &format!(" dilated by {}", self.dilation);
        }
        text
    }

    /// Multiply-accumulates for an output of `h x w` pixels.
    pub fn macs(&self, h: usize, w: usize) -> u64 {
        (self.weight_len() as u64).saturating_mul(h as u64 * w as u64)
    }
}

/// What follows a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`
    Silu,
    /// `clamp(x, 0, 6)`
    Relu6,
    /// `x * clamp(x + 3, 0, 6) / 6`
    Hardswish,
    /// `x` above zero, `slope * x` below.
    LeakyRelu {
        /// Factor below zero.
        slope: f32,
    },
}

impl Activation {
    /// Name in one word.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
            Activation::Relu6 => "relu6",
            Activation::Hardswish => "hardswish",
            Activation::LeakyRelu { .. } => "leakyrelu",
        }
    }

    /// What it gives no less and no more than.
    pub fn bounds(self) -> (f32, f32) {
        let (least, most) = (f32::NEG_INFINITY, f32::INFINITY);
        match self {
            Activation::Identity | Activation::LeakyRelu { .. } => (least, most),
            Activation::Relu => (0.0, most),
            Activation::Relu6 => (0.0, 6.0),
            // At -1.2785 it is -0.278465.
            Activation::Silu => (-0.2785, most),
            // At -1.5.
            Activation::Hardswish => (-0.375, most),
        }
    }

    /// Whether its numbers are numbers.
    pub fn is_finite(&self) -> bool {
        !matches!(self, Activation::LeakyRelu { slope } if !slope.is_finite())
    }
}

/// A static convolution with its bias and activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv {
    /// Shape.
    pub shape: ConvShape,
    /// Activation.
    pub activation: Activation,
    /// `[c_out, c_in / groups, kernel, kernel]`, batch norm folded; empty for a graph without weights.
    pub weight: Vec<f32>,
    /// `[c_out]`; empty for a graph without weights.
    pub bias: Vec<f32>,
}

/// How routing logits become mixing weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutingKind {
    /// Each expert alone: `sigmoid(z)` (CondConv, Yang et al., 2019).
    Sigmoid,
    /// Experts compete: `softmax(z)` (ParameterNet's text).
    Softmax,
}

impl RoutingKind {
    /// Name in one word.
    pub fn name(self) -> &'static str {
        match self {
            RoutingKind::Sigmoid => "sigmoid",
            RoutingKind::Softmax => "softmax",
        }
    }
}

/// A convolution whose kernel is `Σ r_e W_e`, `r = routing(mean(x))`, per image (CondConv; ParameterNet).
#[derive(Debug, Clone, PartialEq)]
pub struct DynamicConv {
    /// Shape of the mixed convolution.
    pub shape: ConvShape,
    /// Activation.
    pub activation: Activation,
    /// Number of experts.
    pub experts: usize,
    /// How logits become weights.
    pub routing: RoutingKind,
    /// `[experts, c_in]`
    pub routing_weight: Vec<f32>,
    /// `[experts]`
    pub routing_bias: Vec<f32>,
    /// `[experts, c_out, c_in / groups, kernel, kernel]`, batch norm's scale folded into each expert.
    pub weight: Vec<f32>,
    /// `[experts, c_out]`, mixed like the kernels; empty where the experts have no bias.
    pub expert_bias: Vec<f32>,
    /// `[c_out]`, added after mixing (batch norm's shift); zeros where there is none.
    pub bias: Vec<f32>,
}

/// Squeeze-and-excite: `gate = hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2)`.
#[derive(Debug, Clone, PartialEq)]
pub struct SqueezeExcite {
    /// Channels of the squeezed vector.
    pub reduced: usize,
    /// `[reduced, channels]`
    pub reduce_weight: Vec<f32>,
    /// `[reduced]`
    pub reduce_bias: Vec<f32>,
    /// `[channels, reduced]`
    pub expand_weight: Vec<f32>,
    /// `[channels]`
    pub expand_bias: Vec<f32>,
}

/// The detection head's constants. Boxes use distribution focal loss (Li et al., 2020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detect {
    /// Classes.
    pub classes: usize,
    /// Bins per box side (16).
    pub reg_max: usize,
    /// Pixels per cell, one per level.
    pub strides: Vec<usize>,
}
