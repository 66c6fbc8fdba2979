//! The real binary on files that are broken or lie: one clear line, the right code, little time and memory.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::models;

/// Address space that a run may take, in KiB. Code and thread stacks are in it, so it is above the
/// 200 MB that are allowed.
const MEMORY_KIB: usize = 600_000;

struct Run {
    out: String,
    err: String,
    code: i32,
}

/// Runs the binary in `folder` under a memory limit; fails if it computes for a second.
///
/// Processor time, not the clock's: tests run beside others on busy machines.
fn run(folder: &Path, words: &[&str]) -> Run {
    let script = format!("ulimit -v {MEMORY_KIB}; \"$0\" \"$@\"; code=$?; times > times; exit $code");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_ghostlight")])
        .args(words)
        .current_dir(folder)
        .env_remove("GHOSTLIGHT_MODEL")
        .env_remove("RUST_LOG")
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let times = std::fs::read_to_string(folder.join("times")).unwrap();
    std::fs::remove_file(folder.join("times")).unwrap();
    let seconds: f64 = times.lines().last().unwrap().split_whitespace().map(seconds).sum();
    assert!(seconds < 1.0, "{words:?} took {seconds} s");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap() }
}

/// `1m2.5s` in seconds.
fn seconds(text: &str) -> f64 {
    let (minutes, rest) = text.split_once('m').unwrap();
    60.0 * minutes.parse::<f64>().unwrap() + rest.trim_end_matches('s').parse::<f64>().unwrap()
}

/// Asserts that a run ended with `code` and one line that names `file` and says `hint`.
fn assert_one_line(words: &[&str], run: &Run, code: i32, file: &str, hint: &str) {
    assert_eq!(run.code, code, "{words:?}: {}", run.err);
    assert_eq!(run.out, "", "{words:?}");
    assert_eq!(run.err.lines().count(), 1, "{words:?}: {}", run.err);
    assert!(run.err.starts_with(&format!("ghostlight: error: {file}: ")), "{words:?}: {}", run.err);
    assert!(run.err.contains(hint), "{words:?}: {}", run.err);
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 * 3, y as u8 * 4, 90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// A whole model, `m.safetensors`.
fn with_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.safetensors"), models::tiny_bytes()).unwrap();
    folder
}

#[test]
fn broken_models_are_65() {
    let folder = tempfile::tempdir().unwrap();
    let whole = models::tiny_bytes();
    let mut lies = whole.clone();
    lies[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    let garbage: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes, hint) in [
        ("empty.safetensors", &b""[..], ""),
        ("short.safetensors", &whole[..5], "5 bytes"),
        ("header.safetensors", &whole[..1000], "copy it again"),
        ("cut.safetensors", &whole[..whole.len() - 1], "copy it again"),
        ("garbage.safetensors", &garbage, "copy it again"),
        ("lies.safetensors", &lies, "copy it again"),
        ("other.safetensors", b"\x02\0\0\0\0\0\0\0{}", "ghostlight convert"),
        ("checkpoint.safetensors", b"PK\x03\x04aaaaaaaaaaaaaaaaaaaa", "copy it again"),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        std::fs::write(folder.path().join("a.jpg"), jpeg(8, 8)).unwrap();
        for words in [
            &["detect", "--model", name, "a.jpg"][..],
            &["bench", "--model", name, "--iters", "1"],
            &["inspect", name],
        ] {
            assert_one_line(words, &run(folder.path(), words), 65, name, hint);
        }
    }
    std::fs::create_dir(folder.path().join("folder.safetensors")).unwrap();
    let words = ["inspect", "folder.safetensors"];
    let ended = run(folder.path(), &words);
    assert!([65, 74].contains(&ended.code) && ended.err.lines().count() == 1, "{}", ended.err);
}

#[test]
fn a_checkpoint_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("best.pt"), common::Checkpoint::default().write()).unwrap();
    std::fs::write(folder.path().join("renamed.safetensors"), common::Checkpoint::default().write()).unwrap();
    std::fs::write(folder.path().join("a.jpg"), jpeg(8, 8)).unwrap();
    let words = ["detect", "--model", "best.pt", "a.jpg"];
    let ended = run(folder.path(), &words);
    assert_eq!((ended.code, ended.out.as_str()), (64, ""), "{}", ended.err);
    assert!(ended.err.contains("best.pt") && ended.err.contains("ghostlight convert"), "{}", ended.err);
    let words = ["detect", "--model", "renamed.safetensors", "a.jpg"];
    assert_one_line(&words, &run(folder.path(), &words), 65, "renamed.safetensors", "");
}

#[test]
fn broken_pictures_among_good_ones_are_passed_over() {
    let folder = with_model();
    let good = jpeg(80, 60);
    let mut flipped = good.clone();
    let middle = good.len() / 2;
    flipped[middle..middle + 8].copy_from_slice(&[0xff, 0xd8, 0xff, 0xc0, 0xff, 0xda, 0, 0]);
    // A PNG of 60000x60000 pixels, as its header says.
    let mut huge = Vec::from(*b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0");
    huge.extend(crc32(&huge[12..]).to_be_bytes());
    huge.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    // A JPEG whose frame says 65500x65500.
    let mut wide = good.clone();
    let frame = wide.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    wide[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    let files: [(&str, &[u8], Option<&str>); 9] = [
        ("a.jpg", &good, None),
        ("b-cut.jpg", &good[..good.len() / 2], Some("broken JPEG")),
        ("c-empty.jpg", b"", Some("empty")),
        ("d-garbage.png", b"no picture at all", Some("not a JPEG")),
        ("e-huge.png", &huge, Some("60000x60000")),
        ("f-wide.jpg", &wide, Some("65500x65500")),
        ("g-flipped.jpg", &flipped, Some("broken JPEG")),
        ("h-text.jpg", b"<html>", Some("not a JPEG")),
        ("i.jpg", &good, None),
    ];
    for (name, bytes, _) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let mut words = vec!["detect", "--model", "m.safetensors", "--threads", "1", "--format", "jsonl"];
    words.extend(files.iter().map(|f| f.0));
    words.push("absent.jpg");
    let ended = run(folder.path(), &words);
    assert_eq!(ended.code, 1, "{}", ended.err);
    let lines: Vec<serde_json::Value> = ended.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), files.len() + 1);
    for (line, (name, _, fault)) in lines.iter().zip(files) {
        assert_eq!(line["source"], name);
        match fault {
            None => assert!(line["detections"].is_array(), "{line}"),
            Some(hint) => {
                assert!(line["error"].as_str().unwrap().contains(hint), "{line}");
                assert!(ended.err.lines().any(|l| l.contains(name) && l.contains(hint)), "{}", ended.err);
            }
        }
    }
    assert_eq!(lines[files.len()]["source"], "absent.jpg");
    assert!(ended.err.lines().all(|l| l.starts_with("ghostlight: ")), "{}", ended.err);
}

#[test]
fn a_folder_without_pictures_is_refused() {
    let folder = with_model();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let ended = run(folder.path(), &["detect", "--model", "m.safetensors", "--format", "jsonl", "empty"]);
    assert!(ended.code != 0 && ended.err.contains("empty: no picture"), "{}: {}", ended.code, ended.err);
}

#[test]
fn broken_checkpoints_are_65() {
    let folder = tempfile::tempdir().unwrap();
    let whole = common::Checkpoint::default().write();
    let garbage: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::create_dir(folder.path().join("photos")).unwrap();
    std::fs::create_dir(folder.path().join("none")).unwrap();
    std::fs::write(folder.path().join("photos/a.jpg"), jpeg(64, 48)).unwrap();
    for (name, bytes) in [
        ("empty.pt", &b""[..]),
        ("cut.pt", &whole[..whole.len() / 2]),
        ("last.pt", &whole[..whole.len() - 1]),
        ("garbage.pt", &garbage),
        ("zip.pt", b"PK\x03\x04"),
        ("old.pt", b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        for words in
            [&["convert", name, "-o", "out.safetensors", "--calibrate", "photos"][..], &["inspect", name]]
        {
            assert_one_line(words, &run(folder.path(), words), 65, name, "");
        }
        assert!(!folder.path().join("out.safetensors").exists(), "{name}");
    }
    std::fs::write(folder.path().join("whole.pt"), &whole).unwrap();
    let words = ["convert", "whole.pt", "-o", "out.safetensors", "--calibrate", "none"];
    assert_one_line(&words, &run(folder.path(), &words), 65, "none", "no picture");
    let words = ["convert", "/dev/zero", "-o", "out.safetensors", "--calibrate", "photos"];
    assert_one_line(&words, &run(folder.path(), &words), 65, "/dev/zero", "");
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}
