//! The CUDA engine against the CPU's, bit for bit.
//!
//! No GPU is needed: `shim.h` runs the kernels' own source on a CPU, and `driver.cpp` stands for CUDA's driver and
//! compiler, so that the engine's calls run too. `cargo test --release --test cuda -- --ignored` runs on a real one.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

#[path = "../common/mod.rs"]
mod common;
mod float;
mod kernels;
mod messages;
mod real;
mod shim;

use std::path::Path;
use std::sync::Arc;

use common::models::{self, GHOST, TINY};
use ghostlight::engine::Engine;
use ghostlight::engine::cuda::CudaEngine;
use ghostlight::kernels::scalar::Scalar;
use ghostlight::model::blocks::build;
use ghostlight::model::fuse::fuse;
use ghostlight::model::graph::Graph;
use ghostlight::model::params::Seeded;
use ghostlight::model::spec::ModelSpec;
use ghostlight::weights::Model;
use ghostlight::weights::graph::QOp;
use shim::shim;

/// Odd channel counts, slices at odd places, dilation, depthwise, an even window.
const ODD: &str = "nc: 2
backbone:
- [-1, 1, Conv, [20, 6, 2, 2]]
- [-1, 1, Conv, [44, 3, 2]]
- [-1, 2, C2f, [36, True]]
- [-1, 1, Conv, [36, 3, 1, null, 1, 2]]
- [-1, 1, DWConv, [36, 3, 2]]
- [-1, 1, DynamicConv, [33, 1, 1]]
head:
- [-1, 1, nn.Upsample, [None, 2, nearest]]
- [[-1, 3], 1, Concat, [1]]
- [-1, 1, C3, [24, True]]
- [[8, 5], 1, Detect, [nc]]
";

/// Height and width: odd maps from the stride of 32 on.
const SIZE: [usize; 2] = [96, 160];

pub fn model_of(graph: &Graph) -> Arc<Model> {
    let parts = models::parts(graph, &models::fixed_ranges(graph));
    Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap())
}

/// A built-in model as wide as it is.
fn whole(name: &str) -> Graph {
    let spec = ModelSpec::builtin(name).unwrap();
    let mut graph = fuse(build(&spec, &mut Seeded(3)).unwrap());
    graph.info.input_size = [64, 64];
    graph
}

fn fill(engine: &mut CudaEngine, rgb: &[u8]) {
    for (to, from) in engine.input_mut().chunks_exact_mut(4).zip(rgb.chunks_exact(3)) {
        to[..3].copy_from_slice(from);
        to[3] = 0;
    }
}

/// Compares every node of a graph after a run on a picture of this size.
fn compare(name: &str, model: &Arc<Model>, size: [usize; 2]) {
    let mut cpu = Engine::keeping_all(Arc::clone(model), &Scalar, 2).unwrap();
    let mut gpu = CudaEngine::keeping_all(Arc::clone(model)).unwrap();
    cpu.resize(size[0], size[1]).unwrap();
    gpu.resize(size[0], size[1]).unwrap();
    let picture = models::picture(5, size);
    models::fill(&mut cpu, &picture);
    fill(&mut gpu, &picture);
    cpu.run().unwrap();
    gpu.run(f32::NEG_INFINITY).unwrap();
    let found = gpu.activations().unwrap();
    let mut compared = 0;
    for (id, node) in model.graph.nodes.iter().enumerate() {
        let Some(wanted) = cpu.activation(id) else { continue };
        let found: Vec<f32> = if model.is_float(id) {
            found[id].chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
        } else {
            let quant = model.quant(id);
            let channels = node.channels;
            let real = |(i, &q): (usize, &u8)| {
                (f32::from(q) - f32::from(quant.zero[i % channels])) * quant.step[i % channels]
            };
            found[id].iter().enumerate().map(real).collect()
        };
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        let differ = found.iter().zip(&wanted).filter(|pair| !same(*pair)).count();
        assert_eq!((found.len(), differ), (wanted.len(), 0), "{name}: {} ({:?})", node.name, node.op);
        compared += 1;
    }
    assert!(compared + 1 >= model.graph.nodes.len(), "{name}: {compared}");
    compare_heads(name, &cpu, &gpu, f32::NEG_INFINITY);
}

/// Compares the heads' rows above `floor` after a run of both; gives how many there are.
pub fn compare_heads(name: &str, cpu: &Engine, gpu: &CudaEngine, floor: f32) -> usize {
    let classes = cpu.detect().classes;
    let mut rows = 0;
    for (level, found) in gpu.survivors().iter().enumerate() {
        let head = cpu.head(level);
        assert_eq!((found.height, found.width, found.stride), (head.height, head.width, head.stride));
        let above = |p: &usize| head.classes[p * classes..][..classes].iter().any(|&logit| logit > floor);
        let positions: Vec<usize> = (0..head.height * head.width).filter(above).collect();
        let own: Vec<usize> = found.positions.iter().map(|&p| p as usize).collect();
        assert_eq!(own, positions, "{name}: level {level}");
        for (row, &p) in positions.iter().enumerate() {
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found.boxes[row * 64..][..64]), bits(&head.boxes[p * 64..][..64]), "{name}");
            let logits = &found.classes[row * classes..][..classes];
            assert_eq!(bits(logits), bits(&head.classes[p * classes..][..classes]), "{name}");
        }
        rows += positions.len();
    }
    rows
}

#[test]
fn small_networks_equal_the_cpu_layer_by_layer() {
    let Some((shim, _turn)) = shim() else { return };
    let mut ran: Vec<&str> = Vec::new();
    for (name, graph) in [("tiny", models::graph(TINY)), ("ghost", models::graph(GHOST))] {
        compare(name, &model_of(&graph), SIZE);
        ran.push(name);
    }
    for activation in ["nn.SiLU()", "nn.ReLU()", "nn.Hardswish()", "nn.Identity()"] {
        compare(activation, &model_of(&models::graph(&format!("activation: {activation}\n{ODD}"))), SIZE);
        ran.push(activation);
    }
    println!("{ran:?} equal the CPU");
    assert_eq!(shim.held(), [0; 4], "all is given back");
}

/// Layer shapes of the three models, at scale n, on dot products and on both kinds of tensor cores.
#[test]
fn whole_networks_equal_the_cpu_layer_by_layer() {
    let Some((shim, _turn)) = shim() else { return };
    for name in ["yolov8n", "yolov8n-dynamicconv", "yolov8n-c2f-dynamicconv"] {
        let model = model_of(&whole(name));
        for capability in [61, 72, 87] {
            shim.with_capability(capability, || compare(name, &model, [64, 96]));
        }
    }
}

/// Models that people use, on their own input's size.
#[test]
fn trained_models_equal_the_cpu() {
    let Some((_, _turn)) = shim() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for (name, size) in [
        ("coco-yolov8n-dynamicconv.safetensors", [160, 256]),
        ("parking-yolov8n-dynamicconv.safetensors", [160, 256]),
    ] {
        let model = Arc::new(Model::open(&folder.join(name)).unwrap());
        let mut cpu = Engine::new(Arc::clone(&model), ghostlight::kernels::detect::best(), 2).unwrap();
        let mut gpu = CudaEngine::new(model).unwrap();
        let mut found = Vec::new();
        // Sizes, pictures and thresholds change from run to run, as they may in a daemon.
        for (seed, size, floor) in
            [(1, size, -2.0), (2, [64, 96], f32::NEG_INFINITY), (3, size, -5.0), (3, size, 9e9)]
        {
            cpu.resize(size[0], size[1]).unwrap();
            gpu.resize(size[0], size[1]).unwrap();
            let picture = models::picture(seed, size);
            models::fill(&mut cpu, &picture);
            fill(&mut gpu, &picture);
            cpu.run().unwrap();
            gpu.run(floor).unwrap();
            found.push(compare_heads(name, &cpu, &gpu, floor));
        }
        println!("{name}: {found:?} positions above the thresholds, {} launches", gpu.launches());
        assert!(found[1] == 126 && found[2] > 0 && found[3] == 0, "{name}: {found:?}");
    }
}

/// Layers in f32 alone, and between those in int8; with activations that int8 has none for.
#[test]
fn layers_in_f32_equal_the_cpu_bit_for_bit() {
    let Some((shim, _turn)) = shim() else { return };
    let mut ran = 0;
    let networks = [TINY.to_owned(), GHOST.to_owned()];
    let activations = ["SiLU()", "ReLU()", "ReLU6()", "LeakyReLU(0.1)", "Hardswish()", "Identity()"];
    let odd = activations.map(|activation| format!("activation: nn.{activation}\n{ODD}"));
    for network in networks.iter().chain(&odd) {
        let graph = models::graph(network);
        let all = vec![true; graph.nodes.len()];
        for float in [models::every_second(&graph), all] {
            let parts = models::mixed_parts(&graph, &models::fixed_ranges(&graph), &float);
            let model = Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap());
            ran += model.graph.nodes.iter().filter(|n| matches!(n.op, QOp::FloatConv { .. })).count();
            compare(network, &model, SIZE);
        }
    }
    assert!(ran > 100, "{ran} convolutions in f32");
    assert_eq!(shim.held(), [0; 4], "all is given back");
}

#[test]
fn a_size_that_does_not_fit_leaves_the_engine_usable() {
    let Some((_, _turn)) = shim() else { return };
    let model = model_of(&models::graph(TINY));
    let mut gpu = CudaEngine::new(Arc::clone(&model)).unwrap();
    assert!(gpu.resize(33, 17).is_err());
    let mut cpu = Engine::new(model, &Scalar, 1).unwrap();
    let picture = models::picture(5, [64, 64]);
    models::fill(&mut cpu, &picture);
    fill(&mut gpu, &picture);
    cpu.run().unwrap();
    gpu.run(f32::NEG_INFINITY).unwrap();
    assert!(compare_heads("tiny", &cpu, &gpu, f32::NEG_INFINITY) > 0);
}

/// The script compiles the same text in the same way.
#[test]
fn the_script_for_nvrtc_has_the_same_sources_and_options() {
    use ghostlight::kernels::cuda::{OPTIONS, SOURCES};
    let script = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/nvrtc.py"));
    let quoted = |names: &[&str]| names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    let script = script.unwrap();
    assert!(script.contains(&format!("FILES = [{}]", quoted(&SOURCES.map(|(name, _)| name)))));
    assert!(script.contains(&format!("OPTIONS = [{}]", quoted(&OPTIONS))));
}
