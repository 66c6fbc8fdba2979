//! Checks of a quantised graph and of its tensors' values, before anything relies on them.

use std::collections::HashSet;

use super::error::WeightsError;
use super::file::{Model, key};
use super::graph::{Element, MAX_EXPERTS, MAX_LEVELS, QAct, QGraph, QNode, QOp, QOutput};
use crate::model::graph::{ConvShape, Detect, ModelInfo, Padding};

/// Six times what the largest YOLOv8 with ghost modules has; the table of steps and zero points of the
/// largest graph allowed stays below 100 MB.
const MAX_NODES: usize = 2048;
const MAX_CHANNELS: usize = 1 << 13;
const MAX_CLASSES: usize = 4096;
/// Largest kernel side: [`crate::kernels::MAX_TAPS`] is its square.
const MAX_KERNEL: usize = 7;
/// Bins per box side that the boxes are read with: those of every YOLOv8.
const REG_MAX: usize = 16;

/// Checks the graph's shape: after this, channel counts, input indices and element types agree.
pub(super) fn graph(graph: &QGraph, info: &ModelInfo) -> Result<(), WeightsError> {
    let metadata = |cause: String| WeightsError::Metadata { key: key::GRAPH, cause };
    let nodes = &graph.nodes;
    if nodes.len() < 2 || nodes.len() > MAX_NODES {
        return Err(metadata(format!("{} nodes, expected 2 to {MAX_NODES}", nodes.len())));
    }
    let mut names = HashSet::new();
    let floats = graph.floats();
    for (index, node) in nodes.iter().enumerate() {
        let fault = |cause: String| WeightsError::Node { node: node.name.clone(), cause };
        if node.name.is_empty() || node.name.len() > 200 || !names.insert(node.name.as_str()) {
            return Err(metadata(format!("node {index} has an empty, overlong or repeated name")));
        }
        if (index == 0) != matches!(node.op, QOp::Input) {
            return Err(fault("the input must be the first node, and only that".into()));
        }
        if (index + 1 == nodes.len()) != matches!(node.op, QOp::Detect(_)) {
            return Err(fault("the detection head must be the last node, and only that".into()));
        }
        if let Some(&bad) = node.inputs.iter().find(|&&i| i >= index) {
            return Err(fault(format!("input {bad} does not come before it")));
        }
        let channels = if matches!(node.op, QOp::Detect(_)) { 0..=0 } else { 1..=MAX_CHANNELS };
        if !channels.contains(&node.channels) {
            return Err(fault(format!("{} channels, expected {channels:?}", node.channels)));
        }
        check_kinds(graph, &floats, node).map_err(fault)?;
        check_node(graph, node).map_err(fault)?;
    }
    let Some(QOp::Detect(detect)) = nodes.last().map(|n| &n.op) else { return Ok(()) };
    if info.classes.len() != detect.classes {
        return Err(WeightsError::Metadata {
            key: key::INFO,
            cause: format!("{} class names for {} classes", info.classes.len(), detect.classes),
        });
    }
    if info.input_size.iter().any(|&s| s == 0 || s % 32 != 0 || s > 8192) {
        return Err(WeightsError::Metadata {
            key: key::INFO,
            cause: format!("input size {:?}, expected multiples of 32", info.input_size),
        });
    }
    Ok(())
}

/// That a node's inputs are of the kind that it takes: int8, f32, or all the same.
fn check_kinds(graph: &QGraph, floats: &[bool], node: &QNode) -> Result<(), String> {
    let Some(&first) = node.inputs.first() else { return Ok(()) };
    let wanted = match node.op {
        QOp::Input | QOp::Conv { .. } | QOp::DynamicConv { .. } | QOp::Dequantise => false,
        QOp::FloatConv { .. } | QOp::Quantise | QOp::Detect(_) => true,
        QOp::Add
        | QOp::Concat
        | QOp::Slice { .. }
        | QOp::MaxPool { .. }
        | QOp::Upsample { .. }
        | QOp::SqueezeExcite { .. } => floats[first],
    };
    let kind = |float: bool| if float { "f32" } else { "int8" };
    match node.inputs.iter().find(|&&i| floats[i] != wanted) {
        Some(&i) => {
            Err(format!("takes {} from `{}`, expected {}", kind(!wanted), graph.nodes[i].name, kind(wanted)))
        }
        None => Ok(()),
    }
}

fn check_node(graph: &QGraph, node: &QNode) -> Result<(), String> {
    let inputs: Vec<&QNode> = node.inputs.iter().map(|&i| &graph.nodes[i]).collect();
    let count = |range: std::ops::RangeInclusive<usize>| {
        if range.contains(&inputs.len()) {
            Ok(())
        } else {
            Err(format!("{} inputs, expected {range:?}", inputs.len()))
        }
    };
    let same_channels = |input: &QNode| {
        if input.channels == node.channels {
            Ok(())
        } else {
            Err(format!("{} channels from `{}`, has {}", input.channels, input.name, node.channels))
        }
    };
    match &node.op {
        QOp::Input => {
            count(0..=0)?;
            if node.channels != 3 { Err(format!("{} channels, expected 3", node.channels)) } else { Ok(()) }
        }
        QOp::Conv { shape, act, output } => {
            count(1..=2)?;
            check_conv(node, &inputs, shape, act, output)
        }
        QOp::DynamicConv { shape, act, output, experts, .. } => {
            count(1..=2)?;
            check_experts(*experts, MAX_EXPERTS)?;
            check_conv(node, &inputs, shape, act, output)
        }
        QOp::FloatConv { shape, activation, experts, routing } => {
            count(1..=2)?;
            check_experts(*experts, if routing.is_some() { MAX_EXPERTS } else { 1 })?;
            if !activation.is_finite() {
                return Err("a slope that is no number".into());
            }
            check_shape(node, &inputs, shape)
        }
        QOp::Dequantise | QOp::Quantise => {
            count(1..=1)?;
            same_channels(inputs[0])
        }
        QOp::Add => {
            count(2..=2)?;
            inputs.iter().try_for_each(|i| same_channels(i))
        }
        QOp::Concat => {
            count(1..=64)?;
            let sum: usize = inputs.iter().map(|i| i.channels).sum();
            if sum == node.channels { Ok(()) } else { Err(format!("inputs have {sum} channels together")) }
        }
        QOp::Slice { start } => {
            count(1..=1)?;
            let fits = start.checked_add(node.channels).is_some_and(|end| end <= inputs[0].channels);
            if fits { Ok(()) } else { Err("slice runs past its input".into()) }
        }
        QOp::MaxPool { kernel } => {
            count(1..=1)?;
            if kernel % 2 == 0 || *kernel > MAX_KERNEL {
                return Err(format!("pooling window {kernel}, expected odd, up to {MAX_KERNEL}"));
            }
            same_channels(inputs[0])
        }
        QOp::Upsample { factor } => {
            count(1..=1)?;
            if !(1..=8).contains(factor) {
                return Err(format!("factor {factor}, expected 1 to 8"));
            }
            same_channels(inputs[0])
        }
        QOp::SqueezeExcite { reduced } => {
            count(1..=1)?;
            if !(1..=MAX_CHANNELS).contains(reduced) {
                return Err(format!("{reduced} reduced channels, expected 1 to {MAX_CHANNELS}"));
            }
            same_channels(inputs[0])
        }
        QOp::Detect(detect) => check_detect(detect, &inputs),
    }
}

fn check_experts(experts: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&experts) {
        Ok(())
    } else {
        Err(format!("{experts} experts, expected 1 to {most}"))
    }
}

/// A convolution's shape, and that of its residual.
fn check_shape(node: &QNode, inputs: &[&QNode], shape: &ConvShape) -> Result<(), String> {
    if shape.c_in != inputs[0].channels || shape.c_out != node.channels {
        return Err(format!(
            "convolves {} to {} channels, has {} to {}",
            shape.c_in, shape.c_out, inputs[0].channels, node.channels
        ));
    }
    if !(1..=MAX_KERNEL).contains(&shape.kernel)
        || !(1..=8).contains(&shape.stride)
        || !(1..=16).contains(&shape.dilation)
    {
        return Err(format!(
            "kernel {}, stride {}, dilation {}: expected 1 to {MAX_KERNEL}, 1 to 8, 1 to 16",
            shape.kernel, shape.stride, shape.dilation
        ));
    }
    if matches!(shape.padding, Padding::Fixed(p) if p > 64) {
        return Err("padding over 64".into());
    }
    if shape.groups != 1 && !shape.is_depthwise() {
        return Err(format!("{} groups: neither dense nor depthwise", shape.groups));
    }
    match inputs.get(1) {
        Some(residual) if residual.channels != node.channels => {
            Err(format!("residual has {} channels, output {}", residual.channels, node.channels))
        }
        _ => Ok(()),
    }
}

fn check_conv(
    node: &QNode,
    inputs: &[&QNode],
    shape: &ConvShape,
    act: &QAct,
    output: &QOutput,
) -> Result<(), String> {
    check_shape(node, inputs, shape)?;
    if matches!(act, QAct::Gated { shift, .. } if *shift > 8) {
        return Err("activation shift over 8".into());
    }
    // Keeps every step of Horner's scheme inside i16, where all instruction sets round alike.
    if matches!(act, QAct::Gated { poly, .. } if poly.iter().map(|k| u32::from(k.unsigned_abs())).sum::<u32>() > 32767)
    {
        return Err("activation polynomial whose coefficients' sizes add up to more than 32767".into());
    }
    match output {
        QOutput::Int8 { unit } if !(unit.is_finite() && *unit > 0.0) => {
            return Err(format!("unit {unit} is not a positive number"));
        }
        QOutput::Float if inputs.len() > 1 || *act != QAct::Identity || shape.is_depthwise() => {
            return Err("an f32 output has neither activation nor residual, and is dense".into());
        }
        _ => {}
    }
    if inputs.len() > 1 && shape.is_depthwise() {
        return Err("a depthwise convolution takes no residual".into());
    }
    Ok(())
}

fn check_detect(detect: &Detect, inputs: &[&QNode]) -> Result<(), String> {
    if detect.strides.is_empty()
        || detect.strides.len() > MAX_LEVELS
        || inputs.len() != 2 * detect.strides.len()
    {
        return Err(format!("{} inputs for {} levels", inputs.len(), detect.strides.len()));
    }
    if detect.strides.iter().any(|s| !s.is_power_of_two() || *s > 256) {
        return Err(format!("strides {:?}, expected powers of two up to 256", detect.strides));
    }
    if !(1..=MAX_CLASSES).contains(&detect.classes) {
        return Err(format!("{} classes, expected 1 to {MAX_CLASSES}", detect.classes));
    }
    if detect.reg_max != REG_MAX {
        return Err(format!("{} bins per box side, expected {REG_MAX}", detect.reg_max));
    }
    for pair in inputs.chunks(2) {
        // Its reader takes pixels without gaps.
        if pair.iter().any(|input| matches!(input.op, QOp::Slice { .. })) {
            return Err("takes a slice".into());
        }
        if pair[0].channels != 4 * detect.reg_max || pair[1].channels != detect.classes {
            return Err(format!("level with {} and {} channels", pair[0].channels, pair[1].channels));
        }
    }
    Ok(())
}

/// Checks tensors' values: scales are positive numbers, zero points bytes, weights not -128.
pub(super) fn values(model: &Model) -> Result<(), WeightsError> {
    for (id, node) in model.graph.nodes.iter().enumerate() {
        for spec in model.tensors(id) {
            let bad = |index: usize, value: String, expected| WeightsError::TensorValue {
                name: format!("{}.{}", node.name, spec.suffix),
                value,
                index,
                expected,
            };
            match spec.suffix {
                "weight" if spec.element == Element::I8 => {
                    // Products of -128 by -128 overflow the i16 pair sums of the kernels for old ARM cores.
                    if let Some(i) = model.i8s(node, spec.suffix).iter().position(|&w| w == i8::MIN) {
                        return Err(bad(i, "-128".into(), "-127 to 127"));
                    }
                }
                "zero" => {
                    let zeros = model.i32s(node, spec.suffix);
                    if let Some(i) = zeros.iter().position(|z| !(0..=255).contains(z)) {
                        return Err(bad(i, zeros[i].to_string(), "0 to 255"));
                    }
                }
                "step" | "weight_scale" => {
                    let scales = model.f32s(node, spec.suffix);
                    if let Some(i) = scales.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
                        return Err(bad(i, scales[i].to_string(), "a positive number"));
                    }
                }
                _ => {
                    let numbers = model.f32s(node, spec.suffix);
                    if let Some(i) = numbers.iter().position(|s| !s.is_finite()) {
                        return Err(bad(i, numbers[i].to_string(), "a finite number"));
                    }
                }
            }
        }
    }
    Ok(())
}
