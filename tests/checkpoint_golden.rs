//! Real checkpoints, where they lie beside the checkout.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use ghostlight::model::checkpoint;
use ghostlight::model::graph::{Activation, Op};

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn golden_checkpoints_load() {
    for (file, name, params, size, dialect) in [
        ("golden/yolov8n-coco.pt", "yolov8n", 3_157_200, 640, ""),
        ("golden/yolov8n-dynamicconv-random.pt", "yolov8n-dynamicconv", 4_885_608, 640, "bare"),
        ("golden/yolov8n-c2f-dynamicconv-random.pt", "yolov8n-c2f-dynamicconv", 2_331_328, 640, "ghost"),
        ("trained/parking-yolov8n-dynamicconv.pt", "yolov8n-dynamicconv", 4_739_646, 416, "bare"),
    ] {
        let Some(path) = shared(file) else { continue };
        let start = std::time::Instant::now();
        let graph = checkpoint::load(&path).unwrap();
        eprintln!("{file}: {:?} {:?}", start.elapsed(), graph.info);
        assert_eq!(graph.info.name, name);
        assert_eq!(graph.info.parameters, params, "{file}");
        assert_eq!(graph.info.input_size, [size; 2]);
        assert!(graph.info.dialect.contains(dialect), "{}", graph.info.dialect);
        assert_eq!(graph.info.classes.len(), graph.detect().unwrap().classes);
        let sppf = graph.nodes.iter().find(|n| n.name == "model.9.cv1").unwrap();
        let Op::Conv(conv) = &sppf.op else { panic!("{:?}", sppf.op.describe()) };
        assert!(matches!(conv.activation, Activation::Silu | Activation::Identity));
    }
}
