//! The real binary: what it prints where, and how it ends.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[path = "support/schema.rs"]
mod schema;

const SCHEMA: &str = include_str!("../src/sink/detections.schema.json");
const COMMANDS: [&str; 9] =
    ["detect", "run", "convert", "inspect", "models", "eval", "bench", "doctor", "init"];

/// The binary, in a folder of its own, without the caller's settings.
fn ghostlight(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
    command.current_dir(folder).stdin(Stdio::null());
    for name in ["GHOSTLIGHT_MODEL", "GHOSTLIGHT_CONFIG", "RUST_LOG"] {
        command.env_remove(name);
    }
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/parking-yolov8n-dynamicconv.safetensors");
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
        (&["detect", "a.jpg", "--threads", "1025"], "from 1 to 1024"),
        (&["bench", "--iters", "0"], "--iters"),
        (&["bench", "--simulate", "2,1000000000000"], "from 1 to 1024"),
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
    for thing in ["cpu: ", "kernel: ", "model: ", "camera: ", "configuration: ", "service: "] {
        assert!(out.contains(thing), "{out}");
    }
    let (last, checks) = out.lines().collect::<Vec<_>>().split_last().map(|(l, c)| (*l, c.to_vec())).unwrap();
    assert!(checks.iter().all(|l| l.starts_with("ok       ") || l.starts_with("warning  ")), "{out}");
    assert!(last.starts_with("next     ") && last.contains("  # "), "{out}");
}

#[test]
fn doctor_as_json() {
    let (out, err, code) = run(&["doctor", "--json", "--model", "absent.safetensors"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let checks = value["checks"].as_array().unwrap();
    let of = |check: &str| checks.iter().find(|line| line["check"] == check).unwrap();
    assert_eq!(of("model")["status"], "warning");
    assert!(of("model")["text"].as_str().unwrap().contains("absent.safetensors: no such model"), "{out}");
    assert!(checks.iter().all(|line| line["status"] == "ok" || line["status"] == "warning"), "{out}");
    assert_eq!(value["next"], "ghostlight doctor --model FILE");
}

/// What doctor says of one thing, and the command that comes next.
fn doctor(folder: &Path, words: &[&str], check: &str) -> (String, String) {
    let output = output(ghostlight(folder).args(["doctor", "--config", "g.toml"]).args(words));
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}");
    let line =
        out.lines().find(|line| line.contains(&format!("  {check}: "))).unwrap_or_else(|| panic!("{out}"));
    let next = out.lines().last().and_then(|line| line.strip_prefix("next     ")).unwrap();
    (line.to_owned(), next.split("  # ").next().unwrap().to_owned())
}

#[test]
fn doctor_opens_the_model_and_takes_a_picture() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = model.to_str().unwrap();
    std::fs::create_dir(folder.path().join("pictures")).unwrap();
    picture(&folder.path().join("pictures"), "a.png");
    std::fs::write(folder.path().join("g.toml"), "[source]\nurl = 'pictures'\n[model]\nimgsz = 64\n")
        .unwrap();
    let (line, next) = doctor(folder.path(), &["--model", path], "model");
    assert!(line.starts_with(&format!("ok       model: {path}: ")), "{line}");
    assert!(line.contains(", 2 classes, 64x64, ") && line.ends_with(" ms a picture here"), "{line}");
    assert_eq!(next, "ghostlight run --config g.toml");
    let (line, _) = doctor(folder.path(), &["--model", path], "source");
    assert!(line.starts_with("ok ") && line.contains("a picture of 80x60"), "{line}");
    let (line, _) = doctor(folder.path(), &["--model", path], "configuration");
    assert_eq!(line, "ok       configuration: g.toml is sound");

    // Half a model is no model.
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(folder.path().join("half.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let (line, next) = doctor(folder.path(), &["--model", "half.safetensors"], "model");
    assert!(line.starts_with("warning  model: half.safetensors: "), "{line}");
    assert_eq!(next, "ghostlight doctor --model FILE");

    // A class that the model lacks is a fault of the configuration.
    std::fs::write(folder.path().join("g.toml"), "[model]\nclasses = ['zebra']\nimgsz = 64\n").unwrap();
    let (line, next) = doctor(folder.path(), &["--model", path], "configuration");
    assert!(line.starts_with("warning  configuration: g.toml:2: [model] classes: "), "{line}");
    assert_eq!(next, "ghostlight run --config g.toml --check");
}

#[test]
fn init_writes_what_run_takes() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let init = |words: &[&str]| {
        let output = output(
            ghostlight(folder.path()).args(["init", "-o", "g.toml", "--model"]).arg(&model).args(words),
        );
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    // Without a terminal nothing is asked.
    let (out, err, code) = init(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("wrote    g.toml\n"), "{out}");
    assert!(out.ends_with("next     ghostlight doctor --config g.toml  # tries all of it\n"), "{out}");
    let check = output(ghostlight(folder.path()).args(["run", "--config", "g.toml", "--check"]));
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stderr));

    let (out, err, code) = init(&["--yes"]);
    assert_eq!((code, out.as_str()), (Some(74), ""));
    assert_eq!(
        err,
        "ghostlight: error: g.toml: it is there already; give --force to replace it, or another name with -o\n"
    );
    assert_eq!(init(&["--yes", "--force"]).2, Some(0));
    // As a package brings it, it is nobody's work.
    std::fs::write(folder.path().join("g.toml"), include_str!("../systemd/ghostlight.toml")).unwrap();
    assert_eq!(init(&["--yes"]).2, Some(0));

    let (_, err, code) = run(&["init", "-o", "g.toml", "--model", "absent.safetensors"]);
    assert_eq!((code, err.contains("absent.safetensors: no such model")), (66, true), "{err}");
    // Without any model the rest is written all the same.
    let empty = tempfile::tempdir().unwrap();
    let output = output(ghostlight(empty.path()).args(["init", "-o", "g.toml"]));
    assert_eq!(output.status.code(), Some(0));
    assert!(std::fs::read_to_string(empty.path().join("g.toml")).unwrap().contains("\n[source]\n"));
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
    let args = ["bench", "--iters", "2", "--json", "--simulate", "1,6", "--engine", "cpu", "--model"];
    let output = output(ghostlight(folder.path()).args(args).arg(&model));
    let out = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    for key in ["median_ms", "min_ms", "kernel", "threads", "peak_rss_mb"] {
        assert!(last.get(key).is_some(), "{last}");
    }
    for (index, threads) in [1, 6].into_iter().enumerate() {
        let simulated = &last["simulated"][index];
        assert_eq!(simulated["threads"], threads, "{last}");
        assert!(simulated["median_ms"].as_f64().unwrap() > 0.0, "{last}");
    }
    assert!(last.get("picture").is_none(), "{last}");
}

#[test]
fn bench_times_a_picture() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    picture(folder.path(), "a.png");
    let bench = |picture: &str| {
        let args = ["bench", "--iters", "1", "--json", "--picture", picture, "--engine", "cpu", "--model"];
        output(ghostlight(folder.path()).args(args).arg(&model))
    };
    let out = String::from_utf8(bench("a.png").stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["picture"], "a.png");
    // The smallest rectangle around 80x60.
    let [height, width] = [0, 1].map(|side| last["imgsz"][side].as_u64().unwrap());
    assert_eq!(height, (width * 60 / 80).next_multiple_of(32), "{last}");
    let absent = bench("absent.png");
    assert_eq!(absent.status.code(), Some(66));
    assert!(String::from_utf8(absent.stderr).unwrap().contains("absent.png"));
}
