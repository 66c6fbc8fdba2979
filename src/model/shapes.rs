//! Output sizes and costs of a graph's nodes for one input size.

use serde::Serialize;
use thiserror::Error;

use super::graph::{Graph, Node, NodeId, Op};

/// Height, width and channels of a node's output.
pub type Shape = (usize, usize, usize);

/// Largest side of any layer's output.
const MAX_SIDE: usize = 1 << 20;

/// Why a graph does not take an input size, or is no graph at all.
#[derive(Debug, Error, PartialEq)]
pub enum ShapeError {
    /// The input is no multiple of the coarsest level's stride.
    #[error("input {height}x{width} is no multiple of {stride}; use {}x{}", height.div_ceil(*stride).max(1) * stride, width.div_ceil(*stride).max(1) * stride)]
    NotMultiple {
        /// Height asked for.
        height: usize,
        /// Width asked for.
        width: usize,
        /// The coarsest stride.
        stride: usize,
    },
    /// A node's window does not fit its input.
    #[error("input is too small: nothing is left at `{node}`")]
    Empty {
        /// The node.
        node: String,
    },
    /// A node's inputs do not fit together, or not the node.
    #[error("`{node}` takes {expected}, found {found}")]
    Mismatch {
        /// The node.
        node: String,
        /// What it takes.
        expected: String,
        /// What it gets.
        found: String,
    },
}

/// One line of the table that `inspect` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeCost {
    /// Node's name.
    pub name: String,
    /// Operation in words, for example `conv 3x3/2 silu`.
    pub op: String,
    /// Output: height, width, channels.
    pub shape: Shape,
    /// Numbers held, batch norm folded (so fewer than the trained parameters).
    pub params: u64,
    /// Multiply-accumulates of the operation itself.
    pub macs: u64,
    /// Multiply-accumulates of routing and mixing experts, once per image.
    pub mixing_macs: u64,
}

impl Graph {
    /// Pixels per cell of the head's coarsest level, of which input sizes are multiples; 1 without a head.
    pub fn coarsest_stride(&self) -> usize {
        self.detect().and_then(|d| d.strides.iter().max().copied()).unwrap_or(1).max(1)
    }

    /// Output size of every node for an input of `h x w` pixels; the detection node gives (0, 0, 0).
    pub fn shapes(&self, h: usize, w: usize) -> Result<Vec<Shape>, ShapeError> {
        let stride = self.coarsest_stride();
        if h == 0 || w == 0 || !h.is_multiple_of(stride) || !w.is_multiple_of(stride) {
            return Err(ShapeError::NotMultiple { height: h, width: w, stride });
        }
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.nodes.iter().enumerate() {
            let inputs = self.input_shapes(id, &shapes)?;
            shapes.push(output_shape(node, &inputs, (h, w))?);
        }
        Ok(shapes)
    }

    /// The detection node's constants, where the last node is one.
    pub fn detect(&self) -> Option<&super::graph::Detect> {
        match self.nodes.last().map(|n| &n.op) {
            Some(Op::Detect(detect)) => Some(detect),
            _ => None,
        }
    }

    /// One row per node for an input of `h x w` pixels.
    pub fn costs(&self, h: usize, w: usize) -> Result<Vec<NodeCost>, ShapeError> {
        let shapes = self.shapes(h, w)?;
        Ok(self.nodes.iter().zip(shapes).map(|(node, shape)| cost(node, shape)).collect())
    }

    fn input_shapes(&self, id: NodeId, shapes: &[Shape]) -> Result<Vec<Shape>, ShapeError> {
        let node = &self.nodes[id];
        let fault = |found: usize| mismatch(node, "earlier nodes as inputs", format!("node {found}"));
        node.inputs.iter().map(|&i| shapes.get(i).copied().ok_or_else(|| fault(i))).collect()
    }
}

fn mismatch(node: &Node, expected: impl Into<String>, found: impl Into<String>) -> ShapeError {
    ShapeError::Mismatch { node: node.name.clone(), expected: expected.into(), found: found.into() }
}

fn output_shape(node: &Node, inputs: &[Shape], input: (usize, usize)) -> Result<Shape, ShapeError> {
    let arity = match &node.op {
        Op::Input => 0..=0,
        Op::Conv(_) | Op::DynamicConv(_) => 1..=2,
        Op::Add => 2..=2,
        Op::Concat => 1..=usize::MAX,
        Op::Detect(d) => 2 * d.strides.len()..=2 * d.strides.len(),
        Op::Slice { .. } | Op::MaxPool { .. } | Op::Upsample { .. } | Op::SqueezeExcite(_) => 1..=1,
    };
    if !arity.contains(&inputs.len()) {
        return Err(mismatch(node, format!("{arity:?} inputs"), inputs.len().to_string()));
    }
    let out = match &node.op {
        Op::Input => (input.0, input.1, node.channels),
        Op::Conv(conv) => convolved(node, &conv.shape, inputs)?,
        Op::DynamicConv(conv) => convolved(node, &conv.shape, inputs)?,
        Op::Add => same(node, inputs)?,
        Op::Concat => {
            let pixels: Vec<Shape> = inputs.iter().map(|&(h, w, _)| (h, w, 0)).collect();
            let (h, w, _) = same(node, &pixels)?;
            (h, w, inputs.iter().map(|s| s.2).sum())
        }
        Op::Slice { start } => sliced(node, *start, inputs[0])?,
        Op::MaxPool { .. } | Op::SqueezeExcite(_) => inputs[0],
        Op::Upsample { factor } => enlarged(node, *factor, inputs[0])?,
        Op::Detect(detect) => {
            for pair in inputs.chunks(2) {
                let expected = [4 * detect.reg_max, detect.classes];
                same(node, &[(pair[0].0, pair[0].1, 0), (pair[1].0, pair[1].1, 0)])?;
                if [pair[0].2, pair[1].2] != expected {
                    return Err(mismatch(node, format!("channels {expected:?}"), format!("{pair:?}")));
                }
            }
            return Ok((0, 0, 0));
        }
    };
    if out.0 == 0 || out.1 == 0 {
        return Err(ShapeError::Empty { node: node.name.clone() });
    }
    if out.2 != node.channels {
        return Err(mismatch(node, format!("{} channels", node.channels), out.2.to_string()));
    }
    Ok(out)
}

fn convolved(node: &Node, shape: &super::graph::ConvShape, inputs: &[Shape]) -> Result<Shape, ShapeError> {
    let (h, w, c) = inputs[0];
    if c != shape.c_in {
        return Err(mismatch(node, format!("{} channels", shape.c_in), c.to_string()));
    }
    let out = (shape.place(h).1, shape.place(w).1, shape.c_out);
    match inputs.get(1) {
        Some(&residual) => same(node, &[out, residual]),
        None => Ok(out),
    }
}

fn enlarged(node: &Node, factor: usize, (h, w, c): Shape) -> Result<Shape, ShapeError> {
    let side = |n: usize| n.checked_mul(factor).filter(|&n| n <= MAX_SIDE);
    match (side(h), side(w)) {
        (Some(h), Some(w)) => Ok((h, w, c)),
        _ => Err(mismatch(node, format!("at most {MAX_SIDE} pixels a side"), format!("{factor} x {h}x{w}"))),
    }
}

fn sliced(node: &Node, start: usize, input: Shape) -> Result<Shape, ShapeError> {
    if start.checked_add(node.channels).is_none_or(|end| end > input.2) {
        let expected = format!("channels {start} to {}", start.saturating_add(node.channels));
        return Err(mismatch(node, expected, format!("{} channels", input.2)));
    }
    Ok((input.0, input.1, node.channels))
}

fn same(node: &Node, inputs: &[Shape]) -> Result<Shape, ShapeError> {
    if inputs.iter().any(|s| *s != inputs[0]) {
        return Err(mismatch(node, "inputs of one size", format!("{inputs:?}")));
    }
    Ok(inputs[0])
}

fn cost(node: &Node, shape: Shape) -> NodeCost {
    let (h, w, _) = shape;
    let (params, macs, mixing_macs) = match &node.op {
        Op::Conv(conv) => (conv.shape.weight_len() + conv.shape.c_out, conv.shape.macs(h, w), 0),
        Op::DynamicConv(conv) => {
            let expert =
                conv.shape.weight_len() + if conv.expert_bias.is_empty() { 0 } else { conv.shape.c_out };
            let mixing = conv.experts * (expert + conv.shape.c_in);
            (mixing + conv.experts + conv.shape.c_out, conv.shape.macs(h, w), mixing as u64)
        }
        Op::SqueezeExcite(se) => {
            let weights = 2 * se.reduced * node.channels;
            (weights + se.reduced + node.channels, weights as u64, 0)
        }
        _ => (0, 0, 0),
    };
    let op = node.op.describe();
    NodeCost { name: node.name.clone(), op, shape, params: params as u64, macs, mixing_macs }
}
