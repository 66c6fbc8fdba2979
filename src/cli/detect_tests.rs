//! `detect` on a runner that needs no model: it finds one object as large as the picture.

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::cli::error::Exit;
use crate::sink::jsonl::schema;
use crate::vision::{Detection, Size};

struct Fake {
    classes: Vec<String>,
    seen: Vec<NmsOptions>,
}

impl Runner for Fake {
    fn model(&self) -> &str {
        "fake@00000000"
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn input(&self) -> Size {
        Size { width: 64, height: 64 }
    }

    fn kernel(&self) -> &str {
        "none"
    }

    fn threads(&self) -> usize {
        1
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError> {
        self.seen.push(options.clone());
        let whole = Detection {
            class_id: 1,
            confidence: 0.87654,
            x1: 0.0,
            y1: 0.0,
            x2: picture.size.width as f32,
            y2: picture.size.height as f32,
        };
        Ok(Answer { detections: vec![whole], inference_ms: 1.5, ..Answer::default() })
    }

    fn profile(&mut self, _: Pixels<'_>) -> Result<Vec<backend::LayerTime>, CliError> {
        Ok(Vec::new())
    }
}

fn fake() -> Fake {
    Fake { classes: vec!["person".into(), "car".into()], seen: Vec::new() }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &[&str]) -> Args {
    Line::try_parse_from([&["detect"], words].concat()).unwrap_or_else(|e| panic!("{e}")).args
}

fn detect(words: &[&str]) -> (Result<Outcome, CliError>, String) {
    let mut out = Vec::new();
    let result = detect_all(&args(words), true, &mut fake(), &mut out);
    (result, String::from_utf8(out).unwrap())
}

/// A folder with pictures a.png (30x20), b.jpg (16x16), broken c.jpg and a note.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    vision::save_image(&RgbImage::new(30, 20), &folder.path().join("a.png")).unwrap();
    vision::save_image(&RgbImage::new(16, 16), &folder.path().join("b.jpg")).unwrap();
    std::fs::write(folder.path().join("c.jpg"), b"\xff\xd8\xff\xe0 no more").unwrap();
    std::fs::write(folder.path().join("note.txt"), b"hello").unwrap();
    folder
}

#[test]
fn one_line_each_in_the_order_given_and_bad_ones_do_not_stop_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let all = folder.path().display().to_string();
    let (result, text) = detect(&[&path("b.jpg"), &path("absent.png"), &all, &path("note.txt")]);
    assert_eq!(result.unwrap(), Outcome::SomeFailed);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["source"].as_str().unwrap().to_owned(), line.get("error").is_some()))
        .collect();
    let expected = [
        ("b.jpg", false),
        ("absent.png", true),
        ("a.png", false),
        ("b.jpg", false),
        ("c.jpg", true),
        ("note.txt", true),
    ];
    assert_eq!(told, expected.map(|(name, failed)| (path(name), failed)));
    for (seq, line) in text.lines().enumerate() {
        schema::check(crate::sink::jsonl::JSON_SCHEMA, line).unwrap();
        assert_eq!(lines[seq]["seq"], seq);
        assert_eq!(lines[seq]["model"], "fake@00000000");
    }
    assert_eq!(lines[2]["image"]["width"], 30);
    assert_eq!(lines[2]["detections"][0]["class"], "car");
    assert_eq!(lines[2]["detections"][0]["confidence"], 0.8765);
    assert_eq!(lines[2]["detections"][0]["box"]["y2"], 20.0);
}

#[test]
fn the_exit_tells_some_from_all() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(detect(&[&path("a.png")]).0.unwrap(), Outcome::Done);
    assert_eq!(detect(&[&path("absent")]).0.unwrap(), Outcome::AllFailed(Exit::NoInput));
    assert_eq!(detect(&[&path("c.jpg")]).0.unwrap(), Outcome::AllFailed(Exit::Data));
    assert_eq!(detect(&[&path("c.jpg"), &path("a.png")]).0.unwrap(), Outcome::SomeFailed);
    let empty = tempfile::tempdir().unwrap();
    let (result, text) = detect(&[&empty.path().display().to_string()]);
    assert_eq!(result.unwrap(), Outcome::AllFailed(Exit::NoInput));
    assert!(text.contains("no picture in this folder"), "{text}");
}

#[test]
fn options_reach_the_runner() {
    let folder = folder();
    let picture = folder.path().join("a.png").display().to_string();
    let mut runner = fake();
    let words = [&picture, "--conf", "0.5", "--iou", "0.6", "--max-det", "7", "--classes", "car,person"];
    detect_all(&args(&words), true, &mut runner, &mut Vec::new()).unwrap();
    let expected = NmsOptions {
        confidence: 0.5,
        iou: 0.6,
        max_detections: 7,
        classes: Some(vec![1, 0]),
        ..NmsOptions::default()
    };
    assert_eq!(runner.seen, [expected]);
    let (result, text) = detect(&[&picture, "--classes", "cat"]);
    assert_eq!(
        result.unwrap_err().to_string(),
        "--classes: this model has no class 'cat'; did you mean 'car'?"
    );
    assert!(text.is_empty());
}

#[test]
fn a_table_for_people() {
    let folder = folder();
    let picture = folder.path().join("a.png").display().to_string();
    let (_, text) = detect(&[&picture, "--format", "table"]);
    let expected =
        format!("{picture}  30x20  1 detection  1.5 ms\n  car  0.88      0.0     0.0    30.0    20.0\n");
    assert_eq!(text, expected);
}

#[test]
fn saved_pictures_keep_their_names_apart_and_their_sources() {
    let (first, second) = (folder(), folder());
    let album = first.path().join("new/album");
    let of = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).display().to_string();
    let save = album.display().to_string();
    let (a, b) = (of(&first, "a.png"), of(&second, "a.png"));
    assert_eq!(detect(&[&a, &b, "--save", &save]).0.unwrap(), Outcome::Done);
    for name in ["a.png", "a-2.png"] {
        let drawn = vision::decode_image(&album.join(name)).unwrap();
        assert!(drawn.pixels().any(|pixel| pixel.0 != [0; 3]), "{name}");
    }
    let before = std::fs::read(&a).unwrap();
    let (result, _) = detect(&[&a, "--save", &first.path().display().to_string()]);
    assert!(matches!(result, Err(CliError::Usage(text)) if text.contains("overwrite")));
    assert_eq!(std::fs::read(&a).unwrap(), before);
    let (result, _) = detect(&[&a, "--save", &of(&first, "note.txt")]);
    assert_eq!(result.unwrap_err().exit(), Exit::Io);
}

#[test]
fn a_closed_pipe_ends_it_in_peace() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = folder();
    let words = [&*folder.path().join("a.png").display().to_string()];
    let error = detect_all(&args(&words), true, &mut fake(), &mut Closed).unwrap_err();
    assert_eq!(error.exit(), Exit::Done);
}
