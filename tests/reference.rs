//! The reference against PyTorch: whole models (where the golden files lie beside the checkout).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use ghostlight::model::blocks::build;
use ghostlight::model::checkpoint;
use ghostlight::model::fuse::fuse;
use ghostlight::model::graph::Graph;
use ghostlight::model::params::{Seeded, Shapes};
use ghostlight::model::spec::ModelSpec;
use ghostlight::reference::{Outputs, Reference, ReferenceError, to_unit};
use safetensors::SafeTensors;

fn golden(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/golden").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// `[3, h, w]` to `[h, w, 3]`.
fn to_nhwc(planes: &[u8]) -> Vec<u8> {
    let pixels = planes.len() / 3;
    (0..pixels).flat_map(|p| (0..3).map(move |c| planes[c * pixels + p])).collect()
}

/// Boxes as centre and size in input pixels, then class scores: `[4 + classes, positions]`.
fn decode(outputs: &Outputs, reg_max: usize, classes: usize) -> Vec<f32> {
    let total: usize = outputs.levels.iter().map(|l| l.height * l.width).sum();
    let mut out = vec![0.0; (4 + classes) * total];
    let mut position = 0;
    for level in &outputs.levels {
        for cell in 0..level.height * level.width {
            let sides = &level.boxes[cell * 4 * reg_max..][..4 * reg_max];
            let d: Vec<f32> = sides.chunks(reg_max).map(expectation).collect();
            let (x, y) = ((cell % level.width) as f32 + 0.5, (cell / level.width) as f32 + 0.5);
            let s = level.stride as f32;
            let xywh = [x + (d[2] - d[0]) / 2.0, y + (d[3] - d[1]) / 2.0, d[0] + d[2], d[1] + d[3]];
            for (i, v) in xywh.iter().enumerate() {
                out[i * total + position] = v * s;
            }
            for (i, logit) in level.classes[cell * classes..][..classes].iter().enumerate() {
                out[(4 + i) * total + position] = 1.0 / (1.0 + (-logit).exp());
            }
            position += 1;
        }
    }
    out
}

fn expectation(logits: &[f32]) -> f32 {
    let most = logits.iter().fold(f32::MIN, |m, &v| m.max(v));
    let e: Vec<f32> = logits.iter().map(|v| (v - most).exp()).collect();
    e.iter().enumerate().map(|(i, v)| i as f32 * v).sum::<f32>() / e.iter().sum::<f32>()
}

fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Mean and standard deviation per channel: `[2, channels]`.
fn mean_std(data: &[f32], c: usize) -> Vec<f32> {
    let n = (data.len() / c) as f64;
    let sums = |f: &dyn Fn(f64, usize) -> f64| {
        let mut sums = vec![0f64; c];
        for (i, &v) in data.iter().enumerate() {
            sums[i % c] += f(f64::from(v), i % c);
        }
        sums
    };
    let mean: Vec<f64> = sums(&|v, _| v).iter().map(|s| s / n).collect();
    let squares = sums(&|v, ch| (v - mean[ch]).powi(2));
    let std = squares.iter().map(|s| (s / (n - 1.0)).sqrt());
    mean.iter().copied().chain(std).map(|v| v as f32).collect()
}

/// The last node of a layer.
fn layer_output(graph: &Graph, layer: &str) -> usize {
    let below = format!("{layer}.");
    graph.nodes.iter().rposition(|n| n.name == layer || n.name.starts_with(&below)).unwrap()
}

fn check_model(name: &str) {
    let (Some(model), Some(answers)) =
        (golden(&format!("{name}.pt")), golden(&format!("{name}.golden.safetensors")))
    else {
        return;
    };
    let graph = checkpoint::load(model).unwrap();
    let bytes = std::fs::read(answers).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let reference = Reference::new(&graph).unwrap();
    let inputs: Vec<String> =
        file.names().iter().filter_map(|n| n.strip_suffix(".input_u8")).map(Into::into).collect();
    assert!(!inputs.is_empty());
    for image in inputs {
        let input = to_unit(&to_nhwc(file.tensor(&format!("{image}.input_u8")).unwrap().data()));
        let mut worst_feature = 0f32;
        let stats: Vec<(usize, Vec<f32>)> = file
            .names()
            .iter()
            .filter_map(|n| Some((n, n.strip_prefix(&format!("{image}.feature_mean_std."))?)))
            .map(|(n, layer)| (layer_output(&graph, &format!("model.{layer}")), floats(&file, n)))
            .collect();
        let mut compared = 0;
        let outputs = reference
            .observe(&input, 640, 640, |id, data, (_, _, c)| {
                for (_, expected) in stats.iter().filter(|(node, _)| *node == id) {
                    worst_feature = worst_feature.max(max_diff(&mean_std(data, c), expected));
                    compared += 1;
                }
            })
            .unwrap();
        assert_eq!(compared, stats.len());
        let mut worst_routing = 0f32;
        for routing in &outputs.routing {
            let key = format!("{image}.routing.{}", graph.nodes[routing.node].name);
            worst_routing = worst_routing.max(max_diff(&routing.weights, &floats(&file, &key)));
        }
        let expected = floats(&file, &format!("{image}.output"));
        let found = decode(&outputs, 16, 80);
        let positions = 8400;
        let boxes = max_diff(&found[..4 * positions], &expected[..4 * positions]);
        let scores = max_diff(&found[4 * positions..], &expected[4 * positions..]);
        eprintln!(
            "{name} {image}: boxes {boxes:.2e} px, scores {scores:.2e}, features {worst_feature:.2e}, \
             routing of {} layers {worst_routing:.2e}",
            outputs.routing.len()
        );
        assert!(boxes <= 0.5 && scores <= 2e-3 && worst_routing <= 1e-4 && worst_feature <= 1e-3);
        let fused = Reference::new(&fuse(graph.clone())).unwrap().run(&input, 640, 640).unwrap();
        assert_eq!(fused.levels, outputs.levels, "fusing changes nothing");
    }
}

#[test]
fn yolov8n_answers_as_pytorch() {
    check_model("yolov8n-coco");
}

#[test]
fn dynamicconv_answers_as_pytorch() {
    check_model("yolov8n-dynamicconv-random");
}

#[test]
fn c2f_dynamicconv_answers_as_pytorch() {
    check_model("yolov8n-c2f-dynamicconv-random");
}

#[test]
#[ignore = "a timing, run by hand with --ignored --nocapture"]
fn milliseconds_per_picture() {
    let Some(model) = golden("yolov8n-coco.pt") else { return };
    let reference = Reference::new(&fuse(checkpoint::load(model).unwrap())).unwrap();
    let input = vec![0.5; 640 * 640 * 3];
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            reference.run(&input, 640, 640).unwrap();
            let start = std::time::Instant::now();
            for _ in 0..5 {
                reference.run(&input, 640, 640).unwrap();
            }
            eprintln!("{threads} threads: {:.1} ms", start.elapsed().as_secs_f64() * 200.0);
        });
    }
}

fn seeded(name: &str) -> Graph {
    build(&ModelSpec::builtin(name).unwrap().with_classes(3), &mut Seeded(1)).unwrap()
}

#[test]
fn levels_are_row_major_and_fusing_changes_nothing() {
    for name in ["yolov8n", "yolov8n-dynamicconv", "yolov8n-c2f-dynamicconv"] {
        let graph = seeded(name);
        let input: Vec<u8> = (0..64 * 96 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let outputs = Reference::new(&graph).unwrap().run_u8(&input, 64, 96).unwrap();
        let sizes: Vec<_> = outputs.levels.iter().map(|l| (l.height, l.width, l.stride)).collect();
        assert_eq!(sizes, [(8, 12, 8), (4, 6, 16), (2, 3, 32)]);
        assert_eq!((outputs.levels[0].boxes.len(), outputs.levels[0].classes.len()), (96 * 64, 96 * 3));
        assert!(outputs.levels.iter().flat_map(|l| &l.boxes).all(|v| v.is_finite()));
        let fused = Reference::new(&fuse(graph)).unwrap().run_u8(&input, 64, 96).unwrap();
        assert_eq!(fused.levels, outputs.levels);
        assert!(outputs.routing.iter().all(|r| r.weights.len() == 4));
    }
}

#[test]
fn each_fault_has_its_error() {
    let shapes = build(&ModelSpec::builtin("yolov8n").unwrap(), &mut Shapes).unwrap();
    assert!(matches!(Reference::new(&shapes), Err(ReferenceError::NoWeights { node }) if node == "model.0"));
    let mut graph = seeded("yolov8n");
    let reference = Reference::new(&graph).unwrap();
    assert!(matches!(reference.run(&[0.0; 3], 33, 32), Err(ReferenceError::Shape(_))));
    let fault = reference.run(&[0.0; 3], 32, 32);
    assert!(matches!(fault, Err(ReferenceError::Input { found: 3, expected: 3072 })));
    graph.nodes.pop();
    let fault = Reference::new(&graph).unwrap().run(&[0.0; 3072], 32, 32);
    assert!(matches!(fault, Err(ReferenceError::NoDetect { .. })));
}
