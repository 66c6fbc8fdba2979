//! What stays f32, and its weights.

use super::QuantError;
use super::quantise::dense_if_grouped;
use crate::kernels::f32::{by_tap, pack};
use crate::model::graph::{Activation, Conv, ConvShape, DynamicConv, Graph, NodeId, Op};
use crate::vision::REG_MAX;

/// Whether the engine has an operation for each node, in int8 or f32; before any picture is looked at.
///
/// # Errors
/// [`QuantError::Unsupported`] for the first node that it has none for.
pub fn check(graph: &Graph) -> Result<(), QuantError> {
    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::Detect(detect) = &node.op
            && detect.reg_max != REG_MAX
        {
            let what = format!("reg_max {}; boxes are read from {REG_MAX} bins a side", detect.reg_max);
            return Err(QuantError::Unsupported { node: node.name.clone(), what });
        }
        if feeds_detect(graph, id) && matches!(node.op, Op::Slice { .. } | Op::Input) {
            let what = "channels that go to the detection head as they are".into();
            return Err(QuantError::Unsupported { node: node.name.clone(), what });
        }
    }
    Ok(())
}

/// Which nodes are computed in f32 whatever a caller asks for, because int8 has no operation for them.
pub fn forced_float(graph: &Graph) -> Vec<bool> {
    (0..graph.nodes.len()).map(|id| is_forced(graph, id)).collect()
}

fn is_forced(graph: &Graph, id: NodeId) -> bool {
    let node = &graph.nodes[id];
    let residual = node.inputs.len() > 1;
    let (Op::Conv(Conv { activation, shape, .. }) | Op::DynamicConv(DynamicConv { activation, shape, .. })) =
        &node.op
    else {
        return feeds_detect(graph, id);
    };
    match activation {
        // The head takes f32, which int8 convolutions give only without an epilogue.
        _ if feeds_detect(graph, id) => {
            *activation != Activation::Identity || residual || shape.is_depthwise()
        }
        // What it lacks to ReLU is no even function, so `Act::Gated` cannot say it.
        Activation::LeakyRelu { .. } => true,
        // It clips where 16 bits end, and a sum would have to reach further.
        Activation::Relu6 => residual,
        _ => residual && shape.is_depthwise(),
    }
}

/// Whether a node feeds the detection head, which takes f32.
pub(super) fn feeds_detect(graph: &Graph, id: NodeId) -> bool {
    graph.nodes.last().is_some_and(|last| last.inputs.contains(&id))
}

/// One kernel `[c_out, c_in / groups, k, k]` as the file has it
/// ([`crate::weights::graph::float_kernel_len`]), with its shape there.
pub(super) fn float_kernel(weight: &[f32], shape: &ConvShape) -> (Vec<f32>, ConvShape) {
    let (weight, shape) = dense_if_grouped(weight, shape);
    let rows = by_tap(&weight, shape.c_out, shape.kernel * shape.kernel);
    if shape.is_depthwise() { (rows, shape) } else { (pack(&rows, shape.c_out), shape) }
}
