//! The sections of the file, key by key.

use std::path::PathBuf;

use super::network::{metrics, mqtt, must_exist};
use super::rules::events;
use super::scope::{Findings, Scope};
use super::{Config, Detection, EngineKind, Jsonl, MAX_THREADS, Model, Place, Source, parse_size};
use crate::frame::PixelFormat;

/// Longest name of a device.
const DEVICE_LENGTH: usize = 64;
/// Widest and highest picture that is asked of a camera.
const MAX_SIDE: usize = 16_384;

/// Reads the whole file.
pub fn read(mut root: Scope, findings: &mut Findings) -> Config {
    let device = device(&mut root, findings);
    let (model, detection) = model(root.section("model", findings), findings);
    let source = source(root.section("source", findings), findings);
    let jsonl = jsonl(root.section("jsonl", findings), findings);
    let mqtt = mqtt(root.section("mqtt", findings), findings);
    let metrics = metrics(root.section("metrics", findings), findings);
    let watchdog = daemon(root.section("daemon", findings), findings);
    let events = events(&mut root, findings);
    root.close(findings);
    Config { device, model, detection, source, jsonl, mqtt, metrics, watchdog, events }
}

fn device(root: &mut Scope, findings: &mut Findings) -> Option<String> {
    let device = root.text("device", "the host's name", findings);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let sound = |device: &String| device.len() <= DEVICE_LENGTH && device.chars().all(plain);
    if device.as_ref().is_some_and(|device| !sound(device)) {
        let cause = format!("it is part of topics: use up to {DEVICE_LENGTH} letters, digits, '_' and '-'");
        root.fault("device", cause, findings);
    }
    device
}

fn model(mut scope: Scope, findings: &mut Findings) -> (Model, Detection) {
    let path = scope.text("path", "$GHOSTLIGHT_MODEL, else the usual places", findings).map(PathBuf::from);
    // A file that a flag or the environment names is looked for as every command does.
    if let (Some(path), Place::File { .. }) = (&path, scope.place("path")) {
        must_exist(&scope, "path", path, "check the path", findings);
    }
    let detection = Detection {
        conf: scope.number_or("conf", 0.0..=1.0, 0.25, findings) as f32,
        iou: scope.number_or("iou", 0.0..=1.0, 0.7, findings) as f32,
        max_det: scope.whole_or("max_det", 1..=30_000, 300, findings) as usize,
        classes: scope.texts("classes", "all", findings),
    };
    let engines = [
        ("auto", EngineKind::Auto),
        ("cpu", EngineKind::Cpu),
        ("cuda", EngineKind::Cuda),
        ("reference", EngineKind::Reference),
    ];
    let model = Model {
        path,
        threads: scope.whole("threads", 1..=MAX_THREADS as i64, "one per core", findings).map(|n| n as usize),
        engine: scope.choice("engine", &engines, 0, findings),
        kernel: scope.text("kernel", "the fastest that this CPU runs", findings),
        imgsz: scope.parsed("imgsz", "the model's", parse_size, findings),
    };
    scope.close(findings);
    (model, detection)
}

fn source(mut scope: Scope, findings: &mut Findings) -> Source {
    let device = scope.text("device", "/dev/video0, where there is no url", findings);
    let url = scope.text("url", "", findings);
    // A flag goes before either.
    if device.is_some() && url.is_some() && matches!(scope.place("url"), Place::File { .. }) {
        scope.fault("url", "device and url are both given; leave out one".into(), findings);
    }
    let format = |text: &str| text.parse::<PixelFormat>().map_err(|e| e.to_string());
    let source = Source {
        address: url.or(device).unwrap_or_else(|| "/dev/video0".into()),
        format: scope.parsed("format", "the best that the camera has", format, findings),
        width: scope.whole("width", 1..=MAX_SIDE as i64, "the camera's", findings).map(|n| n as usize),
        height: scope.whole("height", 1..=MAX_SIDE as i64, "the camera's", findings).map(|n| n as usize),
        fps: scope.number("fps", 0.001..=1000.0, "as many as come", findings),
        repeat: scope.flag("loop", false, findings),
    };
    scope.close(findings);
    source
}

fn jsonl(mut scope: Scope, findings: &mut Findings) -> Jsonl {
    let jsonl = Jsonl {
        enabled: scope.flag("enabled", true, findings),
        path: scope.text_or("path", "-", findings).into(),
    };
    let folder = jsonl.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| jsonl.enabled && !folder.is_dir()) {
        scope.fault("path", format!("no folder {}; make it", folder.display()), findings);
    }
    if jsonl.enabled && jsonl.path.is_dir() {
        scope.fault("path", format!("{} is a folder; name a file", jsonl.path.display()), findings);
    }
    scope.close(findings);
    jsonl
}

fn daemon(mut scope: Scope, findings: &mut Findings) -> bool {
    let watchdog = scope.flag("watchdog", true, findings);
    scope.close(findings);
    watchdog
}
