//! The real binary: what it prints where, and how it ends.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[path = "support/schema.rs"]
mod schema;

const SCHEMA: &str = include_str!("../src/sink/detections.schema.json");
const COMMANDS: [&str; 8] = ["detect", "run", "convert", "inspect", "models", "eval", "bench", "doctor"];

/// The binary, in a folder of its own, without the caller's settings.
fn ghostlight(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
    command.current_dir(folder).env_remove("GHOSTLIGHT_MODEL").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

/// Standard output, standard error and exit code of `words` in an empty folder.
fn run(words: &[&str]) -> (String, String, i32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = output(ghostlight(folder.path()).args(words));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code().expect("it exits"))
}

/// The repository's own model; `None` (with a message) where it is absent.
fn model() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/default.safetensors");
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn picture(folder: &Path, name: &str) {
    let image = image::RgbImage::from_fn(80, 60, |x, y| image::Rgb([x as u8 * 3, y as u8 * 4, 90]));
    image.save(folder.join(name)).expect("saved");
}

#[test]
fn help_goes_to_stdout_with_an_example() {
    for command in COMMANDS {
        let (out, err, code) = run(&[command, "--help"]);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        assert!(out.contains("Example") && out.contains(&format!("ghostlight {command}")), "{out}");
    }
    let (out, _, code) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(COMMANDS.iter().all(|command| out.contains(command)), "{out}");
    let (out, _, code) = run(&["--version"]);
    assert_eq!((code, out.trim()), (0, concat!("ghostlight ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_64_and_says_what_is_right() {
    for (words, hint) in [
        (&[][..], "Usage"),
        (&["detct", "a.jpg"][..], "detect"),
        (&["detect"], "INPUT"),
        (&["detect", "a.jpg", "--conf", "1.5"], "from 0 to 1"),
        (&["detect", "a.jpg", "--iou", "x"], "from 0 to 1"),
        (&["detect", "a.jpg", "--imgsz", "600"], "try 608"),
        (&["detect", "a.jpg", "--imgsz", "360x640"], "try 384x640"),
        (&["detect", "a.jpg", "--format", "xml"], "jsonl"),
        (&["detect", "a.jpg", "--engine", "tpu"], "reference"),
        (&["detect", "a.jpg", "--threads", "0"], "--threads"),
        (&["detect", "a.jpg", "-q", "-v"], "cannot be used with"),
        (&["bench", "--iters", "0"], "--iters"),
        (&["convert", "a.pt"], "--output"),
        (
            &["convert", "a.pt", "-o", "b", "--calibrate", "c", "--card", "acuracy=1"],
            "did you mean 'accuracy'",
        ),
        (&["convert", "a.pt", "-o", "b", "--calibrate", "c", "--card", "author=x"], "accuracy, data, origin"),
        (&["convert", "a.pt", "-o", "b", "--calibrate", "c", "--card", "data"], "KEY=TEXT"),
        (&["convert", "a.pt", "-o", "b", "--calibrate", "c", "--card", "data=\n"], "empty"),
        (
            &["convert", "a.pt", "-o", "b", "--calibrate", "c", "--card", "data=a", "--card", "data=b"],
            "twice",
        ),
        (&["inspect"], "FILE"),
        (&["eval"], "--data"),
        (&["eval", "--data", "d.yaml", "--split", "all"], "val"),
        (&["eval", "--data", "d.yaml", "--compare", "reference"], "--checkpoint"),
    ] {
        let (out, err, code) = run(words);
        assert_eq!((code, out.as_str()), (64, ""), "{words:?}: {err}");
        assert!(err.contains(hint), "{words:?}: {err}");
    }
}

#[test]
fn a_missing_model_lists_where_it_was_looked_for() {
    let (out, err, code) = run(&["detect", "a.jpg"]);
    if code == 66 && err.contains("model: none found") {
        for place in ["--model", "$GHOSTLIGHT_MODEL", "models/default.safetensors", "/usr/share/ghostlight"] {
            assert!(err.contains(place), "{err}");
        }
        assert!(err.starts_with("ghostlight: error: ") && out.is_empty(), "{err}");
    } else {
        eprintln!("skipped: a model is installed on this machine");
    }
    let (_, err, code) = run(&["detect", "a.jpg", "--model", "absent.safetensors"]);
    assert_eq!(code, 66);
    assert_eq!(err, "ghostlight: error: absent.safetensors: no such model; check --model\n");
}

#[test]
fn a_model_named_by_the_environment_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(ghostlight(folder.path()).args(["bench"]).env("GHOSTLIGHT_MODEL", "absent"));
    assert_eq!(output.status.code(), Some(66));
    assert!(String::from_utf8_lossy(&output.stderr).contains("$GHOSTLIGHT_MODEL"));
}

#[test]
fn absent_files_are_66() {
    for words in
        [&["inspect", "absent.pt"][..], &["convert", "absent.pt", "-o", "x.safetensors", "--calibrate", "."]]
    {
        let (_, err, code) = run(words);
        assert_eq!(code, 66, "{words:?}");
        assert_eq!(err, "ghostlight: error: absent.pt: no such file; check the path\n");
    }
}

#[test]
fn eval_without_its_dataset_is_66() {
    let (_, err, code) = run(&["eval", "--data", "absent.yaml"]);
    assert_eq!(code, 66);
    assert_eq!(err, "ghostlight: error: absent.yaml: no such file; check the path\n");
}

#[test]
fn eval_measures_the_repository_s_model() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("images")).unwrap();
    picture(&folder.path().join("images"), "a.png");
    std::fs::write(folder.path().join("data.yaml"), "val: images\nnames: [empty, occupied]\n").unwrap();
    let words = ["eval", "--data", "data.yaml", "--imgsz", "64", "--json", "--model"];
    let output = output(ghostlight(folder.path()).args(words).arg(&model));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["metrics"]["pictures"], &value["fit"]), (&1.into(), &"square".into()));
    assert_eq!(value["metrics"]["map50_95"], serde_json::Value::Null);
}

#[test]
fn doctor_has_a_line_for_each_thing() {
    let (out, _, code) = run(&["doctor"]);
    assert_eq!(code, 0);
    for thing in ["cpu: ", "kernel: ", "model: ", "camera: "] {
        assert!(out.contains(thing), "{out}");
    }
    assert!(out.lines().all(|line| line.starts_with("ok       ") || line.starts_with("warning  ")), "{out}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = ghostlight(folder.path())
        .arg("doctor")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_model_that_is_none_is_broken_data() {
    if model().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.safetensors"), b"hello").unwrap();
    let output = output(ghostlight(folder.path()).args(["detect", "a.jpg", "--model", "bad.safetensors"]));
    assert_eq!(output.status.code(), Some(65), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn detect_prints_lines_that_keep_to_the_schema() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    picture(folder.path(), "a.png");
    picture(folder.path(), "b.jpg");
    std::fs::write(folder.path().join("c.jpg"), b"\xff\xd8\xff\xe0").unwrap();
    let output = output(ghostlight(folder.path()).args(["detect", ".", "absent.png", "--model"]).arg(&model));
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let sources: Vec<String> = out
        .lines()
        .map(|line| {
            schema::check(SCHEMA, line).unwrap();
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["source"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(sources, ["./a.png", "./b.jpg", "./c.jpg", "absent.png"]);
}

#[test]
fn detect_reads_standard_input_and_saves() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    picture(folder.path(), "a.png");
    let mut child = ghostlight(folder.path())
        .args(["detect", "-", "--save", "drawn", "--format", "table", "--model"])
        .arg(&model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = std::fs::read(folder.path().join("a.png")).unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("-  80x60  "));
    assert!(folder.path().join("drawn/stdin.jpg").exists());
}

#[test]
fn bench_ends_with_the_promised_keys() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let output =
        output(ghostlight(folder.path()).args(["bench", "--iters", "2", "--json", "--model"]).arg(&model));
    let out = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    for key in ["median_ms", "min_ms", "kernel", "threads", "peak_rss_mb"] {
        assert!(last.get(key).is_some(), "{last}");
    }
}
