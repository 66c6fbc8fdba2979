//! The quantised graph: the same operations as [`crate::model::graph`], with integers for tensors.
//!
//! Nodes may be computed in f32 instead, where int8 loses too much. [`QOp::Dequantise`] and
//! [`QOp::Quantise`] lead from one kind to the other; sums, concats, slices, pools, enlargements and
//! squeeze-and-excite are of their inputs' kind ([`QOp::gives_float`]).

use serde::{Deserialize, Serialize};

use crate::kernels::Layout;
use crate::kernels::f32::COLUMNS;
use crate::model::graph::{Activation, ConvShape, Detect, NodeId, RoutingKind};

/// A quantised model: nodes in topological order, node 0 is [`QOp::Input`], the last [`QOp::Detect`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QGraph {
    /// Operations in topological order.
    pub nodes: Vec<QNode>,
}

/// One operation; its tensors are named `NAME.SUFFIX`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QNode {
    /// Dotted name as in the checkpoint.
    pub name: String,
    /// What it computes.
    pub op: QOp,
    /// Producers of its inputs.
    pub inputs: Vec<NodeId>,
    /// Channels of its output.
    pub channels: usize,
}

/// Activation of a convolution in the fixed-point domain of [`crate::kernels::Requant`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QAct {
    /// `y = p`
    Identity,
    /// `y = max(p, 0)`
    Relu,
    /// `y = max(p, 0) - C(|p|)`
    Gated {
        /// See [`crate::kernels::Act::Gated`].
        shift: u32,
        /// See [`crate::kernels::Act::Gated`].
        poly: [i16; 6],
    },
}

/// What a convolution writes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QOutput {
    /// Activations of one byte; `unit` is the real value of one step of the 16-bit `p`.
    Int8 {
        /// Real value of `p = 1`.
        unit: f32,
    },
    /// f32: the heads' last convolutions.
    Float,
}

/// The closed set of operations; inputs as in [`crate::model::graph::Op`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QOp {
    /// The letterboxed picture: bytes, 3 channels in pixels of 4 bytes, step 1/255, zero point 0.
    Input,
    /// Convolution; a second input is its residual.
    Conv {
        /// Shape.
        shape: ConvShape,
        /// Activation.
        act: QAct,
        /// Output.
        output: QOutput,
    },
    /// Convolution with a kernel mixed per picture; a second input is its residual.
    DynamicConv {
        /// Shape.
        shape: ConvShape,
        /// Activation.
        act: QAct,
        /// Output.
        output: QOutput,
        /// Number of experts.
        experts: usize,
        /// How routing logits become weights.
        routing: RoutingKind,
    },
    /// Elementwise sum.
    Add,
    /// Channels one after the other.
    Concat,
    /// A range of channels.
    Slice {
        /// First channel taken.
        start: usize,
    },
    /// Max pooling, stride 1, same size.
    MaxPool {
        /// Window, odd.
        kernel: usize,
    },
    /// Nearest-neighbour enlargement.
    Upsample {
        /// Factor in both directions.
        factor: usize,
    },
    /// Channels weighted by a function of their means.
    SqueezeExcite {
        /// Channels of the squeezed vector.
        reduced: usize,
    },
    /// Convolution in f32, of f32 inputs; a second input is its residual, added after the activation.
    FloatConv {
        /// Shape.
        shape: ConvShape,
        /// Activation.
        activation: Activation,
        /// Number of experts; 1 where the kernel is static.
        experts: usize,
        /// How routing logits become weights; none where the kernel is static.
        routing: Option<RoutingKind>,
    },
    /// From int8 to f32.
    Dequantise,
    /// From f32 to int8, with a step and a zero point of its own per channel.
    Quantise,
    /// Raw outputs, one `(box, class)` pair of f32 inputs per level.
    Detect(Detect),
}

impl QOp {
    /// The operation in a few words, for example `conv 3x3/2`.
    pub fn describe(&self) -> String {
        match self {
            QOp::Input => "input".into(),
            QOp::Conv { shape, act, .. } => format!("conv {}{}", shape.describe(), act.suffix()),
            QOp::DynamicConv { shape, act, experts, .. } => {
                format!("dynamic conv {}{}, {experts} experts", shape.describe(), act.suffix())
            }
            QOp::Add => "add".into(),
            QOp::Concat => "concat".into(),
            QOp::Slice { start } => format!("slice from {start}"),
            QOp::MaxPool { kernel } => format!("max pool {kernel}x{kernel}"),
            QOp::Upsample { factor } => format!("upsample x{factor}"),
            QOp::SqueezeExcite { reduced } => format!("squeeze-excite to {reduced}"),
            QOp::FloatConv { shape, activation, routing: None, .. } => {
                format!("conv {} {}", shape.describe(), activation.name())
            }
            QOp::FloatConv { shape, activation, experts, routing: Some(_) } => {
                format!("dynamic conv {} {}, {experts} experts", shape.describe(), activation.name())
            }
            QOp::Dequantise => "int8 to".into(),
            QOp::Quantise => "f32 to int8".into(),
            QOp::Detect(detect) => format!("detect, {} classes", detect.classes),
        }
    }

    /// Shape of a convolution, static or dynamic.
    pub fn conv_shape(&self) -> Option<&ConvShape> {
        match self {
            QOp::Conv { shape, .. } | QOp::DynamicConv { shape, .. } | QOp::FloatConv { shape, .. } => {
                Some(shape)
            }
            _ => None,
        }
    }

    /// How a dynamic convolution's logits become weights.
    pub fn routing(&self) -> Option<RoutingKind> {
        match self {
            QOp::DynamicConv { routing, .. } => Some(*routing),
            QOp::FloatConv { routing, .. } => *routing,
            _ => None,
        }
    }

    /// Whether the output is f32, given whether the first input is.
    pub fn gives_float(&self, input: bool) -> bool {
        match self {
            QOp::Input | QOp::Quantise | QOp::Detect(_) => false,
            QOp::Conv { output, .. } | QOp::DynamicConv { output, .. } => *output == QOutput::Float,
            QOp::FloatConv { .. } | QOp::Dequantise => true,
            QOp::Add
            | QOp::Concat
            | QOp::Slice { .. }
            | QOp::MaxPool { .. }
            | QOp::Upsample { .. }
            | QOp::SqueezeExcite { .. } => input,
        }
    }
}

impl QAct {
    fn suffix(self) -> &'static str {
        match self {
            QAct::Identity => "",
            QAct::Relu => " relu",
            QAct::Gated { .. } => " gated",
        }
    }
}

/// Step and zero point of each channel of an activation: `real = (q - zero) * step`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ActQuant {
    /// Per channel.
    pub step: Vec<f32>,
    /// Per channel, in `0..=255`.
    pub zero: Vec<u8>,
}

/// The quantisation that a node takes over from its inputs; `None` if it has its own. Empty for f32, the
/// kind of a node's output where `float` is set.
pub fn inherited(node: &QNode, float: bool, quants: &[ActQuant]) -> Option<ActQuant> {
    if float {
        return Some(ActQuant::default());
    }
    match &node.op {
        QOp::Input => Some(ActQuant { step: vec![1.0 / 255.0; 3], zero: vec![0; 3] }),
        QOp::Detect(_) | QOp::FloatConv { .. } | QOp::Dequantise => Some(ActQuant::default()),
        QOp::Conv { .. } | QOp::DynamicConv { .. } | QOp::Add | QOp::SqueezeExcite { .. } | QOp::Quantise => {
            None
        }
        QOp::Concat => {
            let mut all = ActQuant::default();
            for &input in &node.inputs {
                all.step.extend(&quants[input].step);
                all.zero.extend(&quants[input].zero);
            }
            Some(all)
        }
        QOp::Slice { start } => {
            let from = &quants[node.inputs[0]];
            let range = *start..start + node.channels;
            Some(ActQuant { step: from.step[range.clone()].to_vec(), zero: from.zero[range].to_vec() })
        }
        QOp::MaxPool { .. } | QOp::Upsample { .. } => Some(quants[node.inputs[0]].clone()),
    }
}

/// Element type of a tensor in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// One byte.
    I8,
    /// Four bytes.
    F32,
    /// Four bytes.
    I32,
}

impl Element {
    /// Bytes.
    pub const fn size(self) -> usize {
        match self {
            Element::I8 => 1,
            Element::F32 | Element::I32 => 4,
        }
    }
}

/// A tensor that a node must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name behind the node's.
    pub suffix: &'static str,
    /// Element type.
    pub element: Element,
    /// Elements, padding included.
    pub len: usize,
}

/// Most levels of a detection head.
pub const MAX_LEVELS: usize = 8;
/// Most experts of a dynamic convolution: as many as can be mixed.
pub const MAX_EXPERTS: usize = crate::kernels::ops::MAX_EXPERTS;

const fn pad16(n: usize) -> usize {
    n.next_multiple_of(16)
}

impl QGraph {
    /// Which nodes' outputs are f32.
    pub fn floats(&self) -> Vec<bool> {
        let mut floats: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let first = node.inputs.first().and_then(|&i| floats.get(i)).copied();
            floats.push(node.op.gives_float(first.unwrap_or(false)));
        }
        floats
    }
}

impl QNode {
    /// The operation in a few words; `float` as [`QGraph::floats`] has it.
    pub fn describe(&self, float: bool) -> String {
        let text = self.op.describe();
        match self.op {
            QOp::Conv { .. } | QOp::DynamicConv { .. } => text,
            _ if float => text + " f32",
            _ => text,
        }
    }

    /// The tensors that this node owns; an activation's `step` and `zero` are among them. `float` as
    /// [`QGraph::floats`] has it: f32 outputs have neither.
    ///
    /// Vectors per channel are padded to a multiple of 16 elements.
    pub fn tensors(&self, float: bool) -> Vec<TensorSpec> {
        let f32s = |suffix, len| TensorSpec { suffix, element: Element::F32, len: pad16(len) };
        let i8s = |suffix, len| TensorSpec { suffix, element: Element::I8, len };
        let mut list = match &self.op {
            QOp::Conv { shape, .. } => vec![
                i8s("weight", weight_len(shape, 1)),
                f32s("weight_scale", shape.c_out),
                f32s("bias", shape.c_out),
            ],
            QOp::DynamicConv { shape, experts, .. } => vec![
                i8s("weight", weight_len(shape, *experts)),
                f32s("weight_scale", experts * pad16(shape.c_out)),
                f32s("expert_bias", experts * pad16(shape.c_out)),
                f32s("bias", shape.c_out),
                f32s("routing_weight", experts * shape.c_in),
                f32s("routing_bias", *experts),
            ],
            QOp::FloatConv { shape, experts, routing, .. } => {
                let mut list =
                    vec![f32s("weight", experts * float_kernel_len(shape)), f32s("bias", shape.c_out)];
                if routing.is_some() {
                    list.push(f32s("expert_bias", experts * pad16(shape.c_out)));
                    list.push(f32s("routing_weight", experts * shape.c_in));
                    list.push(f32s("routing_bias", *experts));
                }
                list
            }
            QOp::SqueezeExcite { reduced } => vec![
                f32s("reduce_weight", reduced * self.channels),
                f32s("reduce_bias", *reduced),
                f32s("expand_weight", reduced * self.channels),
                f32s("expand_bias", self.channels),
            ],
            QOp::Add
            | QOp::Quantise
            | QOp::Dequantise
            | QOp::Input
            | QOp::Concat
            | QOp::Slice { .. }
            | QOp::MaxPool { .. }
            | QOp::Upsample { .. }
            | QOp::Detect(_) => Vec::new(),
        };
        let has_own_quant = matches!(
            self.op,
            QOp::Conv { .. } | QOp::DynamicConv { .. } | QOp::Add | QOp::SqueezeExcite { .. } | QOp::Quantise
        );
        if !float && has_own_quant {
            list.push(f32s("step", self.channels));
            list.push(TensorSpec { suffix: "zero", element: Element::I32, len: pad16(self.channels) });
        }
        list
    }
}

/// Bytes of a convolution's packed weights with `experts` experts (1 where it is static).
pub fn weight_len(shape: &ConvShape, experts: usize) -> usize {
    let taps = shape.kernel * shape.kernel;
    if shape.is_depthwise() {
        (taps * experts * pad16(shape.c_out)).next_multiple_of(64)
    } else {
        Layout::N16K4.packed_len(shape.c_out, taps, shape.c_in) * experts
    }
}

/// Elements of one f32 kernel: panels `[c_out / 32][tap * c_in][32]` as [`crate::kernels::f32::pack`] makes
/// them, or `[tap][channels]` where it is depthwise. Experts follow one another without a gap.
pub fn float_kernel_len(shape: &ConvShape) -> usize {
    let taps = shape.kernel * shape.kernel;
    if shape.is_depthwise() {
        taps * shape.c_out
    } else {
        taps * shape.c_in * shape.c_out.next_multiple_of(COLUMNS)
    }
}
