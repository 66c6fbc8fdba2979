//! Files with layers in f32: what of them is refused.

use ghostlight::model::graph::{Activation, RoutingKind};
use ghostlight::weights::graph::{QGraph, QNode, QOp};
use ghostlight::weights::{Model, WeightsError};

use super::common::container::Container;
use super::{MIXED, find, look, refused};

fn bent(bend: impl FnOnce(&mut QGraph)) -> Vec<u8> {
    let mut file = Container::read(&MIXED);
    let mut graph = file.graph();
    bend(&mut graph);
    file.set_graph(&graph);
    file.write()
}

fn is_dynamic(op: &QOp) -> bool {
    matches!(op, QOp::FloatConv { routing: Some(_), .. })
}

fn is_static(op: &QOp) -> bool {
    matches!(op, QOp::FloatConv { routing: None, .. })
}

/// Changes an f32 convolution of a kind.
fn conv(
    wanted: fn(&QOp) -> bool,
    change: impl Fn(&mut Activation, &mut usize, &mut Option<RoutingKind>),
) -> Vec<u8> {
    bent(|graph| match &mut find(graph, wanted).op {
        QOp::FloatConv { activation, experts, routing, .. } => change(activation, experts, routing),
        _ => unreachable!("asked for"),
    })
}

#[test]
fn a_whole_file_loads_and_runs() {
    assert_eq!(Container::read(&MIXED).write(), *MIXED, "taking apart and joining changes nothing");
    let model = Model::from_bytes(&MIXED).unwrap();
    let floats = model.graph.floats();
    let has = |wanted: fn(&QOp) -> bool| model.graph.nodes.iter().any(|n| wanted(&n.op));
    assert!(has(is_static) && has(is_dynamic) && has(|op| *op == QOp::Quantise));
    assert!(has(|op| *op == QOp::Dequantise) && floats.iter().any(|f| !f));
    let conv = model.graph.nodes.iter().find(|n| is_static(&n.op)).unwrap();
    assert!(conv.describe(true).starts_with("conv ") && conv.describe(true).ends_with(" f32"));
    look(model).unwrap();
}

#[test]
fn kinds_that_do_not_fit_are_refused() {
    // The input is int8; a node that takes f32 reads it, and the other way round.
    let text = refused!(bent(|g| find(g, is_dynamic).inputs[0] = 0), WeightsError::Node { .. });
    assert!(text.contains("takes int8") && text.contains("expected f32"), "{text}");
    let text =
        refused!(bent(|g| find(g, |op| *op == QOp::Quantise).inputs[0] = 0), WeightsError::Node { .. });
    assert!(text.contains("takes int8"), "{text}");
    let text = refused!(
        bent(|g| {
            let float = g.nodes.iter().position(|n| is_static(&n.op)).unwrap();
            let later = g.nodes[float..].iter().position(|n| matches!(n.op, QOp::Dequantise)).unwrap();
            g.nodes[float + later].inputs[0] = float;
        }),
        WeightsError::Node { .. }
    );
    assert!(text.contains("takes f32") && text.contains("expected int8"), "{text}");
    // Two kinds in one concatenation.
    let text = refused!(
        bent(|g| {
            let floats = g.floats();
            let of = |id: usize| g.nodes[id].inputs[0];
            let concat = (0..g.nodes.len()).rfind(|&id| matches!(g.nodes[id].op, QOp::Concat)).unwrap();
            let other = (1..concat).find(|&id| floats[id] != floats[of(concat)]).unwrap();
            g.nodes[concat].inputs[1] = other;
        }),
        WeightsError::Node { .. }
    );
    assert!(text.contains("expected"), "{text}");
    // The head reads pixels without gaps.
    let text = refused!(
        bent(|g| {
            let head = g.nodes.len() - 1;
            let whole = g.nodes[head].inputs[0];
            let channels = g.nodes[whole].channels;
            let slice =
                QNode { name: "slice".into(), op: QOp::Slice { start: 0 }, inputs: vec![whole], channels };
            g.nodes.insert(head, slice);
            g.nodes[head + 1].inputs[0] = head;
        }),
        WeightsError::Node { .. }
    );
    assert!(text.contains("slice"), "{text}");
}

#[test]
fn convolutions_that_contradict_themselves_are_refused() {
    let cases: [(&str, Vec<u8>); 6] = [
        ("0 experts", conv(is_dynamic, |_, experts, _| *experts = 0)),
        ("33 experts", conv(is_dynamic, |_, experts, _| *experts = 33)),
        ("2 experts", conv(is_static, |_, experts, _| *experts = 2)),
        ("4 experts", conv(is_dynamic, |_, _, routing| *routing = None)),
        ("groups", bent(|g| groups(g, 3))),
        ("groups", bent(|g| groups(g, 0))),
    ];
    for (word, bytes) in cases {
        let text = refused!(bytes, WeightsError::Node { .. });
        assert!(text.contains(word), "{word}: {text}");
    }
    // JSON has no infinity, but numbers that round to it.
    let leaky = conv(is_static, |act, _, _| *act = Activation::LeakyRelu { slope: 0.125 });
    let mut file = Container::read(&leaky);
    let key = ghostlight::weights::file::key::GRAPH;
    let text = file.text(key).replacen("\"slope\":0.125", "\"slope\":1e300", 1);
    file.set_text(key, &text);
    assert!(refused!(file.write(), WeightsError::Node { .. }).contains("slope"));
}

fn groups(graph: &mut QGraph, count: usize) {
    if let QOp::FloatConv { shape, .. } = &mut find(graph, is_static).op {
        shape.groups = count;
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    // More experts, another kind of routing: other lengths, or tensors that are not there.
    refused!(conv(is_dynamic, |_, experts, _| *experts += 1), WeightsError::TensorShape { .. });
    let lost = conv(is_static, |_, _, routing| *routing = Some(RoutingKind::Softmax));
    assert!(refused!(lost, WeightsError::MissingTensor { .. }).contains("expert_bias"));
    let name = Model::from_bytes(&MIXED)
        .unwrap()
        .graph
        .nodes
        .iter()
        .find(|n| is_static(&n.op))
        .map(|n| format!("{}.weight", n.name))
        .unwrap();
    let file = Container::read(&MIXED);
    let range = file.range(&name);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [range.start, range.end - 4] {
            let mut file = file.clone();
            file.data[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(refused!(file.write(), WeightsError::TensorValue { .. }).contains(&name), "{value}");
        }
    }
    let mut file = file.clone();
    file.header[&name]["dtype"] = "I32".into();
    assert!(refused!(file.write(), WeightsError::TensorShape { .. }).contains(&name));
}
