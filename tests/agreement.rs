//! The int8 engine against the f32 reference on real pictures: they must find the same things.
//!
//! Needs the project's shared data beside the checkout; says so and passes where it is absent.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostlight::detector::{Detector, Fit, ReferenceDetector};
use ghostlight::engine::Engine;
use ghostlight::kernels;
use ghostlight::model::checkpoint;
use ghostlight::quant::{Request, convert};
use ghostlight::vision::detect::iou;
use ghostlight::vision::{Detection, NmsOptions, Pixels, Size, decode_image};
use ghostlight::weights::Model;

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn pictures(folder: &Path, count: usize) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    let count = count.min(all.len());
    (0..count).map(|i| all[i * all.len() / count].clone()).collect()
}

fn corners(d: &Detection) -> [f32; 4] {
    [d.x1, d.y1, d.x2, d.y2]
}

/// Of `wanted` with confidence at least 0.3: how many there are, and how many `found` (0.2) has.
fn matched(wanted: &[Detection], found: &[Detection], least: f32) -> (usize, usize) {
    let sure: Vec<&Detection> = wanted.iter().filter(|d| d.confidence >= 0.3).collect();
    let hit = |d: &Detection| {
        found.iter().any(|f| f.class_id == d.class_id && iou(corners(d), corners(f)) >= least)
    };
    (sure.len(), sure.iter().filter(|d| hit(d)).count())
}

/// Shares of the reference's detections that int8 has, and of int8's that the reference has.
fn agreement(
    checkpoint_path: &Path,
    calibrate: &[PathBuf],
    evaluate: &[PathBuf],
    size: usize,
    least: f32,
) -> [f32; 2] {
    let graph = checkpoint::load(checkpoint_path).unwrap();
    let request = Request {
        pictures: calibrate,
        size: [size, size],
        source_sha256: String::new(),
        license: String::new(),
        threads: 2,
        target_drop: None,
    };
    let fit = Fit::Rectangle(Size { width: size, height: size });
    let mut reference = ReferenceDetector::new(&graph, fit).unwrap();
    let converted = convert(graph, &request, &mut |_| {}).unwrap();
    let model = Arc::new(Model::from_bytes(&converted.parts.to_bytes().unwrap()).unwrap());
    let engine = Engine::new(model, kernels::detect::best(), 2).unwrap();
    let mut int8 = Detector::new(engine, fit);
    let options = NmsOptions { confidence: 0.2, ..NmsOptions::default() };
    let (mut forth, mut back) = ((0, 0), (0, 0));
    for path in evaluate {
        let picture = decode_image(path).unwrap();
        let pixels = Pixels::from(&picture);
        let (wanted, _) = reference.detect(pixels, &options).unwrap();
        let (found, _) = int8.detect(pixels, &options).unwrap();
        let (all, hit) = matched(wanted, found, least);
        forth = (forth.0 + all, forth.1 + hit);
        let (all, hit) = matched(found, wanted, least);
        back = (back.0 + all, back.1 + hit);
    }
    assert!(forth.0 > 50, "only {} detections to compare", forth.0);
    let shares = [forth.1 as f32 / forth.0 as f32, back.1 as f32 / back.0 as f32];
    eprintln!("{}: {forth:?} {back:?} {shares:?}", checkpoint_path.display());
    shares
}

#[test]
fn parking_detections_survive_int8() {
    let Some(checkpoint) = shared("trained/parking-yolov8n-dynamicconv.pt") else { return };
    let (Some(train), Some(val)) = (shared("pklot/images/train"), shared("pklot/images/val")) else { return };
    let shares = agreement(&checkpoint, &pictures(&train, 32), &pictures(&val, 142), 416, 0.85);
    assert!(shares.iter().all(|&s| s >= 0.97), "{shares:?}");
}

#[test]
fn coco_detections_survive_int8() {
    let Some(checkpoint) = shared("golden/yolov8n-coco.pt") else { return };
    let (Some(calibrate), Some(val)) = (shared("unlabeled"), shared("coco128/images")) else { return };
    let calibrate = if calibrate.join("images").is_dir() { calibrate.join("images") } else { calibrate };
    let val = if val.join("train2017").is_dir() { val.join("train2017") } else { val };
    let shares = agreement(&checkpoint, &pictures(&calibrate, 32), &pictures(&val, 128), 640, 0.8);
    assert!(shares.iter().all(|&s| s >= 0.93), "{shares:?}");
}
