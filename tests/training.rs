//! From pictures to a running model: `models/train/train.py`, `convert`, `detect`; what `distill.py` teaches.
//!
//! Needs a Python with PyTorch and Ultralytics (`models/train/requirements.txt`): `$GHOSTLIGHT_PYTHON`, else
//! `venv/bin/python` here, else `python3`. Without them it says so and passes.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::models;

fn python() -> Option<String> {
    let named = std::env::var("GHOSTLIGHT_PYTHON").ok();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("venv/bin/python");
    let found = named.unwrap_or_else(|| match here.exists() {
        true => here.display().to_string(),
        false => "python3".into(),
    });
    let able = Command::new(&found).args(["-c", "import torch, ultralytics, timm, cv2"]).output();
    able.is_ok_and(|output| output.status.success()).then_some(found)
}

/// Python in a folder, where Ultralytics keeps its settings, too.
fn in_folder(python: &str, folder: &Path) -> Command {
    let mut command = Command::new(python);
    command.current_dir(folder).env("YOLO_OFFLINE", "true").env("YOLO_CONFIG_DIR", folder);
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

#[test]
fn one_epoch_on_eight_pictures_converts_and_detects() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with torch and ultralytics; set GHOSTLIGHT_PYTHON");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["images/train", "images/val", "labels/train", "labels/val"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for seed in 0..8 {
        for part in ["train", "val"] {
            models::save_picture(&path(&format!("images/{part}/{seed}.jpg")), seed, [64, 64]);
            fs::write(path(&format!("labels/{part}/{seed}.txt")), "1 0.5 0.5 0.4 0.4\n").unwrap();
        }
    }
    fs::write(path("data.yaml"), "path: .\ntrain: images/train\nval: images/val\nnames: [empty, occupied]\n")
        .unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    run(in_folder(&python, folder.path())
        .arg(scripts.join("train/train.py"))
        .arg(scripts.join("yolov8-c2f-dynamicconv.yaml"))
        .args(["--data", "data.yaml", "--out", "run", "--size", "64", "--epochs", "1", "--batch", "4"])
        .args(["--workers", "0", "--threads", "1", "--device", "cpu"]));
    let ghostlight = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
        command
            .current_dir(folder.path())
            .env_remove("GHOSTLIGHT_MODEL")
            .env("GHOSTLIGHT_CONFIG", concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ghostlight.toml"));
        run(command.args(words))
    };
    let told = ghostlight(&[
        "convert",
        "run/weights/best.pt",
        "-o",
        "best.safetensors",
        "--calibrate",
        "images/train",
        "--target-drop",
        "off",
    ]);
    assert!(told.contains("wrote best.safetensors"), "{told}");
    let line =
        ghostlight(&["detect", "--model", "best.safetensors", "--format", "jsonl", "images/val/0.jpg"]);
    assert!(line.contains("\"schema\":\"ghostlight.detections/1\"") && !line.contains("\"error\""), "{line}");
    let what = ghostlight(&["inspect", "best.safetensors"]);
    assert!(what.contains("2: empty, occupied") && what.contains("AGPL-3.0"), "{what}");
}

/// What `distill.py --degrade` shows the student: other pictures than the teacher's, the same at every run.
#[test]
fn bad_conditions_are_the_same_at_every_run() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with torch and ultralytics; set GHOSTLIGHT_PYTHON");
        return;
    };
    let check = r"
import numpy as np, torch, degrade
made = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 3, 240, 321), np.uint8))
before = made.clone()
seen, again = (degrade.degraded(made, 1, np.random.default_rng(1)) for _ in range(2))
assert seen.shape == made.shape and seen.dtype == torch.uint8
assert torch.equal(seen, again) and torch.equal(made, before)
assert all(not torch.equal(a, b) for a, b in zip(seen, made))
some = degrade.degraded(made, 0.5, np.random.default_rng(2))
assert 4 < sum(torch.equal(a, b) for a, b in zip(some, made)) < 20
assert torch.equal(degrade.degraded(made, 0, np.random.default_rng(3)), made)
";
    let folder = tempfile::tempdir().unwrap();
    run(in_folder(&python, folder.path())
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("models/train"))
        .args(["-c", check]));
}
