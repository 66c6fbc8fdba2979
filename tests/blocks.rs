//! Each block against PyTorch: vectors by `tests/golden/make.py` and `make_stock.py`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use ghostlight::model::blocks::{BuildOptions, build_block};
use ghostlight::model::fuse::fuse;
use ghostlight::model::graph::{Graph, RoutingKind};
use ghostlight::model::params::StateDict;
use ghostlight::model::yaml::Value;
use ghostlight::reference::Reference;
use safetensors::SafeTensors;
use serde::Deserialize;

/// Largest difference that another order of summation explains.
const TOLERANCE: f32 = 2e-5;

#[derive(Deserialize)]
struct Case {
    block: String,
    args: Vec<serde_json::Value>,
    softmax: bool,
    classes: HashMap<String, String>,
    eps: HashMap<String, f64>,
    #[serde(default)]
    slopes: HashMap<String, f64>,
    /// Whether the keys must do, without the classes.
    #[serde(default)]
    keys_alone: bool,
}

fn argument(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Array(items) => Value::List(items.iter().map(argument).collect()),
        serde_json::Value::String(s) => Value::Str(s.clone()),
        other => other.as_i64().map_or_else(|| Value::Float(other.as_f64().unwrap()), Value::Int),
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// `[1, c, h, w]` to `[h, w, c]`.
fn nhwc(shape: &[usize], data: &[f32]) -> Vec<f32> {
    let (c, pixels) = (shape[1], shape[2] * shape[3]);
    (0..pixels).flat_map(|p| (0..c).map(move |ch| data[ch * pixels + p])).collect()
}

fn params(name: &str, file: &SafeTensors, case: &Case) -> StateDict {
    let mut params = StateDict::default();
    let prefix = format!("{name}/state/");
    for (key, tensor) in file.iter().filter_map(|(k, t)| Some((k.strip_prefix(&prefix)?, t))) {
        params.tensors.insert(format!("block.{key}"), (tensor.shape().to_vec(), floats(tensor.data())));
    }
    params.classes = case.classes.iter().map(|(k, v)| (format!("block.{k}"), v.clone())).collect();
    params.numbers = case.eps.iter().map(|(k, &v)| ((format!("block.{k}"), "eps".into()), v)).collect();
    let slopes = case.slopes.iter();
    params.numbers.extend(slopes.map(|(k, &v)| ((format!("block.{k}"), "negative_slope".into()), v)));
    params
}

/// The last node's output.
fn run(graph: &Graph, input: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut last = Vec::new();
    let reference = Reference::new(graph).unwrap();
    reference.observe(input, shape[2], shape[3], |_, data, _| last = data.to_vec()).unwrap();
    last
}

#[test]
fn every_dynamic_block_answers_as_pytorch() {
    each_case(include_bytes!("golden/blocks.safetensors"), 35);
}

#[test]
fn every_stock_block_answers_as_ultralytics() {
    each_case(include_bytes!("golden/stock.safetensors"), 39);
}

fn each_case(bytes: &[u8], count: usize) {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let cases = header.metadata().as_ref().unwrap();
    assert_eq!(cases.len(), count);
    for (name, text) in cases {
        let case: Case = serde_json::from_str(text).unwrap();
        let mut params = params(name, &file, &case);
        let input = file.tensor(&format!("{name}/input")).unwrap();
        let args: Vec<Value> = case.args.iter().map(argument).collect();
        let options = BuildOptions { routing: case.softmax.then_some(RoutingKind::Softmax) };
        let graph = build_block(&case.block, &args, input.shape()[1], "block", &mut params, options).unwrap();
        let stored: usize =
            params.tensors.iter().filter(|(k, _)| !k.contains("running_")).map(|(_, t)| t.1.len()).sum();
        assert_eq!(graph.info.parameters, stored as u64, "{name}: every tensor is used");

        let expected = file.tensor(&format!("{name}/output")).unwrap();
        let expected = nhwc(expected.shape(), &floats(expected.data()));
        let picture = nhwc(input.shape(), &floats(input.data()));
        let mut graphs = vec![graph.clone(), fuse(graph)];
        if case.keys_alone {
            params.classes.clear();
            params.numbers.clear();
            let c_in = input.shape()[1];
            graphs.push(build_block(&case.block, &args, c_in, "block", &mut params, options).unwrap());
        }
        for graph in graphs {
            let found = run(&graph, &picture, input.shape());
            assert_eq!(found.len(), expected.len(), "{name}");
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{name}: {worst}");
            eprintln!("{name}: {worst:.1e}");
        }
    }
}
