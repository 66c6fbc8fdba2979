//! `ghostlight models` and what a model's file says of it: the real binary.

#![allow(clippy::unwrap_used, missing_docs)] // a test may stop at what it did not expect

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::container::Container;
use common::models;
use ghostlight::weights::Card;
use ghostlight::weights::file::key;
use serde_json::Value;

/// Runs the binary in `folder` with a configuration and a variable, or without.
fn ghostlight(folder: &Path, settings: &[(&str, &str)], words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
    for name in ["GHOSTLIGHT_MODEL", "GHOSTLIGHT_CONFIG", "RUST_LOG"] {
        command.env_remove(name);
    }
    // What is installed on this machine has no say.
    command.env("GHOSTLIGHT_CONFIG", concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ghostlight.toml"));
    command.current_dir(folder).args(words).stdin(Stdio::null()).envs(settings.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Rows of `--json` that lie in the test's own folder: a model may be installed on this machine.
fn rows(output: &Output) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    all.into_iter().filter(|row| !row["file"].as_str().unwrap().starts_with("/usr/share")).collect()
}

/// A small model with this card and licence.
fn model(card: Card, license: &str) -> Vec<u8> {
    let graph = models::graph(models::TINY);
    let mut parts = models::parts(&graph, &models::fixed_ranges(&graph));
    (parts.card, parts.license) = (card, license.into());
    parts.to_bytes().unwrap()
}

/// `models/default.safetensors`, another beside it and a third elsewhere.
fn with_models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let accuracy = Some("mAP50-95 77.0 on 142 frames".into());
    let stated = model(Card { accuracy, ..Card::default() }, "CC BY 4.0");
    fs::create_dir(folder.path().join("models")).unwrap();
    fs::create_dir(folder.path().join("more")).unwrap();
    fs::write(folder.path().join("models/default.safetensors"), stated).unwrap();
    fs::write(folder.path().join("models/other.safetensors"), models::tiny_bytes()).unwrap();
    fs::write(folder.path().join("more/third.safetensors"), model(Card::default(), "AGPL-3.0")).unwrap();
    folder
}

#[test]
fn models_are_listed_with_what_they_say() {
    let folder = with_models();
    let output = ghostlight(folder.path(), &[], &["models", "more", "--json"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let rows = rows(&output);
    let files: Vec<_> = rows.iter().map(|row| row["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["models/default.safetensors", "models/other.safetensors", "more/third.safetensors"]);
    assert_eq!(rows[0]["classes"], serde_json::json!(["class0", "class1"]));
    assert_eq!(rows[0]["input_size"], serde_json::json!([64, 64]));
    assert_eq!(rows[0]["model"], "tiny@01234567");
    let size = fs::metadata(folder.path().join("models/default.safetensors")).unwrap().len();
    assert_eq!(rows[0]["bytes"], size);
    assert_eq!(rows[0]["card"], serde_json::json!({"accuracy": "mAP50-95 77.0 on 142 frames"}));
    assert_eq!(rows[1]["card"], serde_json::json!({}));
    assert_eq!(rows[2]["license"], "AGPL-3.0");

    let output = ghostlight(folder.path(), &[], &["models"]);
    let out = text(&output.stdout);
    let line = out.lines().find(|line| line.contains("models/default.safetensors")).unwrap();
    assert!(line.starts_with("*  ") && line.contains("2: class0, class1") && line.contains("64x64"), "{out}");
    assert!(line.ends_with("mAP50-95 77.0 on 142 frames  CC BY 4.0"), "{out}");
    let line = out.lines().find(|line| line.contains("models/other.safetensors")).unwrap();
    assert!(line.starts_with("   ") && line.contains("  -  "), "{out}");
}

#[test]
fn the_model_in_use_is_marked() {
    let folder = with_models();
    let used = |settings: &[(&str, &str)]| {
        let output = ghostlight(folder.path(), settings, &["models", "more", "--json"]);
        let used =
            rows(&output).iter().filter(|row| row["used"] == true).map(|row| row["file"].clone()).collect();
        (output.status.code(), used, text(&output.stderr))
    };
    let file = |name: &str| vec![Value::from(name)];
    assert_eq!(used(&[]), (Some(0), file("models/default.safetensors"), String::new()));
    let variable = ("GHOSTLIGHT_MODEL", "more/third.safetensors");
    assert_eq!(used(&[variable]), (Some(0), file("more/third.safetensors"), String::new()));
    fs::write(folder.path().join("g.toml"), "[model]\npath = \"models/other.safetensors\"\n").unwrap();
    let config = ("GHOSTLIGHT_CONFIG", "g.toml");
    assert_eq!(used(&[config]), (Some(0), file("models/other.safetensors"), String::new()));
    // A model that was asked for is not replaced by another.
    let (code, used, said) = used(&[("GHOSTLIGHT_MODEL", "absent.safetensors")]);
    assert_eq!((code, used), (Some(1), Vec::new()));
    assert_eq!(said, "ghostlight: error: absent.safetensors: no such model; check $GHOSTLIGHT_MODEL\n");
}

#[test]
fn no_model_at_all_is_an_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    let output = ghostlight(folder.path(), &[], &["models", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(rows(&output).is_empty());
    let output = ghostlight(folder.path(), &[], &["models", "absent", "best.pt"]);
    assert!([Some(1), Some(66)].contains(&output.status.code()));
    let said = text(&output.stderr);
    assert!(said.contains("absent: no such file") && said.contains("best.pt: a checkpoint"), "{said}");
}

#[test]
fn broken_models_are_told_and_passed_over() {
    let folder = with_models();
    let whole = models::tiny_bytes();
    let bent = |bend: &dyn Fn(&mut Container)| {
        let mut file = Container::read(&whole);
        bend(&mut file);
        file.write()
    };
    let info = |file: &mut Container| {
        let steers = file.text(key::INFO).replace("tiny", "a\\u001b[2Jb").replace("class0", "c\\nd");
        file.set_text(key::INFO, &steers);
        file.set_text(key::LICENSE, "e\u{9b}f\rg");
    };
    let long = format!("{{\"data\":\"{}\"}}", "x".repeat(401));
    let broken: [(&str, Vec<u8>, &str); 7] = [
        ("cut", whole[..whole.len() - 1].to_vec(), "copy it again"),
        ("empty", Vec::new(), "0 bytes"),
        ("other", b"\x02\0\0\0\0\0\0\0{}".to_vec(), "ghostlight convert"),
        ("card-list", bent(&|f| f.set_text(key::CARD, "[1]")), "metadata `ghostlight.card`"),
        ("card-number", bent(&|f| f.set_text(key::CARD, "{\"data\":1}")), "metadata `ghostlight.card`"),
        ("card-lines", bent(&|f| f.set_text(key::CARD, "{\"data\":\"a\\nb\"}")), "data: holds a line break"),
        ("card-long", bent(&|f| f.set_text(key::CARD, &long)), "data: 401 characters"),
    ];
    for (name, bytes, _) in &broken {
        fs::write(folder.path().join(format!("more/{name}.safetensors")), bytes).unwrap();
    }
    fs::write(folder.path().join("more/steers.safetensors"), bent(&info)).unwrap();
    let later = |f: &mut Container| f.set_text(key::CARD, "{\"data\":\"a\",\"later\":[2]}");
    fs::write(folder.path().join("more/later.safetensors"), bent(&later)).unwrap();
    for words in [&["models", "more", "--json"][..], &["models", "more"]] {
        let output = ghostlight(folder.path(), &[], words);
        let (out, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), broken.len(), "{said}");
        for (name, _, hint) in &broken {
            let start = format!("ghostlight: error: more/{name}.safetensors: ");
            assert!(said.lines().any(|l| l.starts_with(&start) && l.contains(hint)), "{name}: {said}");
        }
        for name in ["default", "other", "third", "steers", "later"] {
            assert!(out.contains(&format!("/{name}.safetensors")), "{out}");
        }
        match words.contains(&"--json") {
            true => assert_eq!(out.lines().count(), 1, "{out}"),
            false => assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}"),
        }
    }
    let output = ghostlight(folder.path(), &[("GHOSTLIGHT_MODEL", "more/steers.safetensors")], &["models"]);
    assert!(text(&output.stdout).contains(r"a\u{1b}[2Jb@01234567"), "{}", text(&output.stdout));
    let output = ghostlight(folder.path(), &[], &["inspect", "more/steers.safetensors"]);
    assert!(!text(&output.stdout).chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn only_the_header_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Container::read(&models::tiny_bytes());
    let range = file.range(&file.tensor(".step"));
    file.data[range][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.path().join("m.safetensors"), file.write()).unwrap();
    // Who reads the values finds the fault.
    assert_eq!(ghostlight(folder.path(), &[], &["inspect", "m.safetensors"]).status.code(), Some(65));
    let output = ghostlight(folder.path(), &[], &["models", "m.safetensors", "--json"]);
    assert_eq!((output.status.code(), rows(&output).len()), (Some(0), 1), "{}", text(&output.stderr));
}

#[test]
fn inspect_shows_the_card() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Some("trained from scratch".into());
    fs::write(folder.path().join("m.safetensors"), model(Card { origin, ..Card::default() }, "MIT")).unwrap();
    let out = text(&ghostlight(folder.path(), &[], &["inspect", "m.safetensors"]).stdout);
    assert!(out.contains("\norigin      trained from scratch\n"), "{out}");
    let output = ghostlight(folder.path(), &[], &["inspect", "m.safetensors", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["card"], serde_json::json!({"origin": "trained from scratch"}));
}

#[test]
fn convert_keeps_the_card() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();
    for seed in 0..2 {
        models::save_picture(&folder.path().join(format!("photos/{seed}.png")), seed, [64, 64]);
    }
    let yaml = "nc: 2\nbackbone:\n- [-1, 1, Conv, [8, 3, 2]]\n- [-1, 1, Conv, [8, 3, 2]]\nhead:\n- [[0, 1], 1, Detect, [nc]]\n";
    let checkpoint = common::Checkpoint { yaml, names: vec!["a", "b"], ..common::Checkpoint::default() };
    fs::write(folder.path().join("best.pt"), checkpoint.write()).unwrap();
    let words = "convert best.pt -o m.safetensors --calibrate photos --imgsz 64 --target-drop off --card";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["accuracy=mAP50-95 = 12.5", "--card", "data=two pictures"]);
    let output = ghostlight(folder.path(), &[], &words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rows = rows(&ghostlight(folder.path(), &[], &["models", "m.safetensors", "--json"]));
    let card = serde_json::json!({"accuracy": "mAP50-95 = 12.5", "data": "two pictures"});
    assert_eq!((&rows[0]["card"], &rows[0]["license"]), (&card, &"not stated".into()));
}

#[test]
fn the_licence_is_told_with_v() {
    let folder = with_models();
    models::save_picture(&folder.path().join("a.png"), 1, [64, 64]);
    let said = |words: &[&str]| {
        let variable = ("GHOSTLIGHT_MODEL", "more/third.safetensors");
        let output = ghostlight(folder.path(), &[variable], words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let line = "ghostlight: info: more/third.safetensors: licence of the weights: AGPL-3.0\n";
    assert_eq!(said(&["-v", "detect", "a.png"]).matches(line).count(), 1);
    assert_eq!(said(&["detect", "a.png"]), "");
}
