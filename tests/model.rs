//! The built-in models: parameter counts, costs and structure, against what PyTorch says of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use ghostlight::model::blocks::{BuildError, build};
use ghostlight::model::graph::{Graph, Op};
use ghostlight::model::params::{Params, Seeded, Shapes};
use ghostlight::model::shapes::ShapeError;
use ghostlight::model::spec::ModelSpec;

fn graph(name: &str) -> Graph {
    build(&ModelSpec::builtin(name).unwrap(), &mut Shapes).unwrap()
}

#[test]
fn parameters_are_those_of_pytorch() {
    for (name, expected) in [
        ("yolov8n", 3_157_200),
        ("yolov8s", 11_166_560),
        ("yolov8m", 25_902_640),
        ("yolov8l", 43_691_520),
        ("yolov8x", 68_229_648),
        ("yolov8n-dynamicconv", 4_885_608),
        ("yolov8n-c2f-dynamicconv", 2_331_328),
    ] {
        assert_eq!(graph(name).info.parameters, expected, "{name}");
    }
}

#[test]
fn costs_are_those_of_the_design() {
    for (name, gmacs, mixing) in [
        ("yolov8n", 4.371, 0.0..1e-9),
        ("yolov8n-dynamicconv", 4.371, 2.2e6..2.4e6),
        ("yolov8n-c2f-dynamicconv", 3.231, 0.10e6..0.14e6),
    ] {
        let costs = graph(name).costs(640, 640).unwrap();
        let macs: u64 = costs.iter().map(|c| c.macs).sum();
        assert!((macs as f64 / 1e9 - gmacs).abs() < 1e-3, "{name}: {macs}");
        let mixed: u64 = costs.iter().map(|c| c.mixing_macs).sum();
        assert!(mixing.contains(&(mixed as f64)), "{name}: {mixed}");
    }
}

#[test]
fn every_scale_and_class_count_builds() {
    for base in ["yolov8", "yolov8-dynamicconv", "yolov8-c2f-dynamicconv"] {
        for scale in "nsmlx".chars() {
            let name = base.replacen("yolov8", &format!("yolov8{scale}"), 1);
            for classes in [1, 64, 80, 365] {
                let spec = ModelSpec::builtin(&name).unwrap().with_classes(classes);
                let graph = build(&spec, &mut Shapes).unwrap();
                let detect = graph.detect().unwrap();
                assert_eq!((detect.classes, detect.reg_max), (classes, 16));
                assert_eq!(detect.strides, [8, 16, 32]);
                assert_eq!(graph.info.classes.len(), classes);
            }
        }
    }
}

#[test]
fn nodes_are_in_topological_order_and_named_apart() {
    let graph = graph("yolov8n-c2f-dynamicconv");
    let mut names = std::collections::HashSet::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|&i| i < id), "{}", node.name);
        assert!(names.insert(&node.name), "{} twice", node.name);
    }
    assert!(matches!(graph.nodes[0].op, Op::Input));
    assert!(matches!(graph.nodes.last().unwrap().op, Op::Detect(_)));
}

#[test]
fn input_sizes_that_do_not_fit_are_refused() {
    let graph = graph("yolov8n");
    let fault = graph.shapes(640, 360).unwrap_err();
    assert_eq!(fault, ShapeError::NotMultiple { height: 640, width: 360, stride: 32 });
    assert!(fault.to_string().contains("use 640x384"), "{fault}");
    assert!(graph.shapes(0, 0).is_err());
    let shapes = graph.shapes(384, 640).unwrap();
    assert_eq!(shapes[1], (192, 320, 16));
}

fn built(rows: &str) -> Result<Graph, BuildError> {
    let text = format!("nc: 2\nbackbone: [{rows}]\nhead: [[[-1], 1, Detect, [nc]]]\n");
    build(&ModelSpec::parse(&text, "t").unwrap(), &mut Shapes)
}

#[test]
fn each_fault_of_a_description_has_its_error() {
    assert!(built("[-1, 1, Conv, [16, 3, 2]]").is_ok());
    for block in ["C3TR", "C3k2", "C2PSA", "Segment", "Classify", "Mystery"] {
        let fault = built(&format!("[-1, 1, {block}, [16]]")).unwrap_err();
        assert!(matches!(fault, BuildError::UnknownBlock { .. }), "{fault:?}");
        assert!(fault.to_string().contains("model.0") && fault.to_string().contains(block), "{fault}");
    }
    for row in ["[-1, 1, Conv, [x]]", "[-1, 1, Conv, [16, 99]]", "[-1, 1, nn.Upsample, [None, 2, bilinear]]"]
    {
        assert!(matches!(built(row), Err(BuildError::Argument { .. })), "{row}");
    }
    assert!(matches!(built("[3, 1, Conv, [16]]"), Err(BuildError::From { from: 3, .. })));
    assert!(matches!(built("[-2, 1, Conv, [16]]"), Err(BuildError::From { .. })));
    assert!(matches!(built("[-1, 1, Conv, [16, 3, 1, 1, 5]]"), Err(BuildError::Channels { .. })));
    let fault = built("[-1, 1, Detect, [nc]]").unwrap_err();
    assert!(matches!(fault, BuildError::NoDetect { .. }), "{fault:?}");
    let rows = "[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]], [[0, 1], 1, Concat, [1]]";
    assert!(matches!(built(rows), Err(BuildError::Shape(_))));
}

#[test]
fn a_seed_gives_the_same_numbers() {
    let weights = |seed| Seeded(seed).tensor("a.weight", &[4, 2, 3, 3]).unwrap();
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    assert!(weights(1).iter().all(|v| v.is_finite()));
}
