//! The quantised graph: the same operations as [`crate::model::graph`], with integers for tensors.

use serde::{Deserialize, Serialize};

use crate::kernels::Layout;
use crate::model::graph::{ConvShape, Detect, NodeId, RoutingKind};

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
            QOp::Detect(detect) => format!("detect, {} classes", detect.classes),
        }
    }

    /// Shape of a convolution, static or dynamic.
    pub fn conv_shape(&self) -> Option<&ConvShape> {
        match self {
            QOp::Conv { shape, .. } | QOp::DynamicConv { shape, .. } => Some(shape),
            _ => None,
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

/// The quantisation that a node takes over from its inputs (empty for f32); `None` if it has its own.
pub fn inherited(node: &QNode, quants: &[ActQuant]) -> Option<ActQuant> {
    match &node.op {
        QOp::Input => Some(ActQuant { step: vec![1.0 / 255.0; 3], zero: vec![0; 3] }),
        QOp::Conv { output: QOutput::Float, .. }
        | QOp::DynamicConv { output: QOutput::Float, .. }
        | QOp::Detect(_) => Some(ActQuant::default()),
        QOp::Conv { .. } | QOp::DynamicConv { .. } | QOp::Add | QOp::SqueezeExcite { .. } => None,
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

/// Most experts of a dynamic convolution: as many as can be mixed.
pub const MAX_EXPERTS: usize = crate::kernels::ops::MAX_EXPERTS;

const fn pad16(n: usize) -> usize {
    n.next_multiple_of(16)
}

impl QNode {
    /// Whether the output is f32: a convolution right before the detection head.
    pub fn is_float(&self) -> bool {
        matches!(
            self.op,
            QOp::Conv { output: QOutput::Float, .. } | QOp::DynamicConv { output: QOutput::Float, .. }
        )
    }

    /// The tensors that this node owns; an activation's `step` and `zero` are among them.
    ///
    /// Vectors per channel are padded to a multiple of 16 elements.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let f32s = |suffix, len| TensorSpec { suffix, element: Element::F32, len: pad16(len) };
        let zero = |len| TensorSpec { suffix: "zero", element: Element::I32, len: pad16(len) };
        let mut list = Vec::new();
        let quantised = |list: &mut Vec<TensorSpec>| {
            list.push(f32s("step", self.channels));
            list.push(zero(self.channels));
        };
        match &self.op {
            QOp::Conv { shape, output, .. } => {
                list.push(TensorSpec { suffix: "weight", element: Element::I8, len: weight_len(shape, 1) });
                list.push(f32s("weight_scale", shape.c_out));
                list.push(f32s("bias", shape.c_out));
                if *output != QOutput::Float {
                    quantised(&mut list);
                }
            }
            QOp::DynamicConv { shape, output, experts, .. } => {
                list.push(TensorSpec {
                    suffix: "weight",
                    element: Element::I8,
                    len: weight_len(shape, *experts),
                });
                let per_expert = experts * pad16(shape.c_out);
                list.push(f32s("weight_scale", per_expert));
                list.push(f32s("expert_bias", per_expert));
                list.push(f32s("bias", shape.c_out));
                list.push(f32s("routing_weight", experts * shape.c_in));
                list.push(f32s("routing_bias", *experts));
                if *output != QOutput::Float {
                    quantised(&mut list);
                }
            }
            QOp::SqueezeExcite { reduced } => {
                list.push(f32s("reduce_weight", reduced * self.channels));
                list.push(f32s("reduce_bias", *reduced));
                list.push(f32s("expand_weight", reduced * self.channels));
                list.push(f32s("expand_bias", self.channels));
                quantised(&mut list);
            }
            QOp::Add => quantised(&mut list),
            QOp::Input
            | QOp::Concat
            | QOp::Slice { .. }
            | QOp::MaxPool { .. }
            | QOp::Upsample { .. }
            | QOp::Detect(_) => {}
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
