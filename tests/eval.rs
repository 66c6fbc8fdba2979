//! Metrics are those of pycocotools and Ultralytics on stored detections (`tests/golden/eval.py`).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

use std::path::Path;

use ghostlight::eval::{Confusion, Metrics, Picture, Truth, evaluate};
use ghostlight::vision::Detection;
use serde_json::Value;

/// The stored numbers and the pictures that they are of.
fn golden(name: &str) -> (Value, Vec<Picture>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/eval-{name}.json"));
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let pictures = golden["pictures"].as_array().unwrap().iter().map(picture).collect();
    (golden, pictures)
}

fn numbers(row: &Value) -> Vec<f64> {
    row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn picture(value: &Value) -> Picture {
    let rows = |key: &str| value[key].as_array().unwrap().iter().map(numbers).collect::<Vec<_>>();
    let truth = |r: &Vec<f64>| Truth { class_id: r[0] as usize, corners: [r[1], r[2], r[3], r[4]] };
    let detection = |r: &Vec<f64>| Detection {
        class_id: r[0] as usize,
        confidence: r[1] as f32,
        x1: r[2] as f32,
        y1: r[3] as f32,
        x2: r[4] as f32,
        y2: r[5] as f32,
    };
    Picture {
        truths: rows("truths").iter().map(truth).collect(),
        detections: rows("detections").iter().map(detection).collect(),
    }
}

/// pycocotools' numbers: 0.001 of 100.
const COCO: f64 = 1e-5;
/// Ultralytics' numbers: its thresholds are f32, and its sort is not stable.
const ULTRALYTICS: f64 = 1e-4;

/// Both defined and no further apart than `most`, or both undefined.
fn same(what: &str, ours: Option<f64>, theirs: &Value, most: f64) {
    match (ours, theirs.as_f64()) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() < most => println!("{what}: {a:.6}, {:+.1e}", a - b),
        (a, b) => panic!("{what}: {a:?}, stored {b:?}"),
    }
}

fn check(name: &str) -> Metrics {
    let (golden, pictures) = golden(name);
    let metrics = evaluate(&pictures);
    let coco = &golden["pycocotools"]["summary"];
    for (key, value) in [
        ("map50_95", metrics.map50_95),
        ("map50", metrics.map50),
        ("map75", metrics.map75),
        ("map_small", metrics.map_small),
        ("map_medium", metrics.map_medium),
        ("map_large", metrics.map_large),
    ] {
        same(key, value, &coco[key], COCO);
    }
    let classes = golden["pycocotools"]["classes"].as_object().unwrap();
    assert_eq!(metrics.classes.len(), classes.len());
    for class in &metrics.classes {
        same("a class", Some(class.map50_95), &classes[&class.class_id.to_string()], COCO);
    }
    let ultralytics = &golden["ultralytics"]["summary"];
    same("Ultralytics map50_95", metrics.ultralytics_map50_95, &ultralytics["map50_95"], ULTRALYTICS);
    same("Ultralytics map50", metrics.ultralytics_map50, &ultralytics["map50"], ULTRALYTICS);
    same("precision", metrics.precision, &ultralytics["precision"], ULTRALYTICS);
    same("recall", metrics.recall, &ultralytics["recall"], ULTRALYTICS);

    let count = golden["classes"].as_u64().unwrap() as usize;
    let index = |class: Option<usize>| class.unwrap_or(count) as f64;
    let confusion: Vec<Vec<f64>> = Confusion::new(&pictures, count)
        .entries()
        .map(|(found, actual, n)| vec![index(found), index(actual), n as f64])
        .collect();
    let stored = golden["ultralytics"]["confusion"].as_array().unwrap();
    assert_eq!(confusion, stored.iter().map(numbers).collect::<Vec<_>>());
    metrics
}

#[test]
fn parking_is_as_pycocotools_and_ultralytics_say() {
    let metrics = check("parking");
    assert_eq!((metrics.pictures, metrics.classes.len()), (20, 2));
    assert_eq!(metrics.map_large, None);
}

#[test]
fn coco_is_as_pycocotools_and_ultralytics_say() {
    let metrics = check("coco");
    assert_eq!(metrics.pictures, 16);
    assert!(metrics.classes.len() > 15, "{} classes test little", metrics.classes.len());
}
