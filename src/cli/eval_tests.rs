use super::*;
use crate::cli::Exit;
use crate::cli::backend::{Answer, LayerTime};
use crate::vision::Detection;

/// Finds one box in the middle of every picture, moved by `shift` pixels.
struct Fake {
    classes: Vec<String>,
    class: usize,
    shift: f32,
}

impl Runner for Fake {
    fn model(&self) -> &str {
        "fake@0"
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn input(&self) -> Size {
        Size { width: 64, height: 32 }
    }

    fn kernel(&self) -> &str {
        "scalar"
    }

    fn threads(&self) -> usize {
        1
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError> {
        assert_eq!((options.confidence, options.iou, options.max_detections), (0.001, 0.7, 300));
        assert!(options.multi_label && options.max_candidates == 30_000);
        let (w, h) = (picture.size.width as f32, picture.size.height as f32);
        let (x1, x2) = (w * 0.25 + self.shift, w * 0.75 + self.shift);
        let found = Detection { class_id: self.class, confidence: 0.75, x1, y1: h * 0.25, x2, y2: h * 0.75 };
        Ok(Answer { detections: vec![found], ..Answer::default() })
    }

    fn profile(&mut self, _: Pixels<'_>) -> Result<Vec<LayerTime>, CliError> {
        Ok(Vec::new())
    }
}

fn fake(classes: usize, class: usize, shift: f32) -> Fake {
    Fake { classes: (0..classes).map(|id| format!("class{id}")).collect(), class, shift }
}

/// Two pictures; the first has an object in its middle, the second has no label file.
fn folder(classes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("images")).unwrap();
    std::fs::create_dir_all(at("labels")).unwrap();
    let image = image::RgbImage::new(80, 40);
    image.save(at("images/1.png")).unwrap();
    image.save(at("images/2.png")).unwrap();
    std::fs::write(at("labels/1.txt"), "0 0.5 0.5 0.5 0.5\n").unwrap();
    std::fs::write(at("data.yaml"), format!("val: images\nnames: {classes}\n")).unwrap();
    folder
}

fn eval(
    folder: &tempfile::TempDir,
    json: bool,
    runner: &mut Fake,
    reference: Option<&mut dyn Runner>,
) -> (Result<Outcome, CliError>, String) {
    let model = ModelArgs { model: None, imgsz: None, threads: None, engine: EngineKind::Auto, kernel: None };
    let data = folder.path().join("data.yaml");
    let split = "val".to_owned();
    let args = Args { data, split, json, rect: false, compare: None, checkpoint: None, model };
    let mut out = Vec::new();
    let dataset = Dataset::open(&args.data, &args.split).unwrap();
    let result = measure(&args, true, &dataset, runner, reference, &mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn json_holds_the_numbers() {
    let folder = folder("[class0, class1]");
    let (result, out) = eval(&folder, true, &mut fake(2, 0, 0.0), None);
    assert_eq!(result.unwrap(), Outcome::Done);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["schema"], "ghostlight.eval/1");
    assert_eq!((&value["conf"], &value["iou"]), (&0.001.into(), &0.7.into()));
    // One hit and, in the second picture, one false detection of the same confidence.
    let m = &value["metrics"];
    assert_eq!((&m["pictures"], &m["instances"]), (&2.into(), &1.into()));
    assert!((m["map50"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{m}");
    assert_eq!((&m["classes"][0]["class"], &m["map_large"]), (&"class0".into(), &serde_json::Value::Null));
    assert_eq!(value["confusion"][0], serde_json::json!({"found": "class0", "actual": "class0", "count": 1}));
    assert_eq!(value["confusion"][1], serde_json::json!({"found": "class0", "actual": null, "count": 1}));
    assert!(value.get("reference").is_none());
}

#[test]
fn two_engines_are_compared() {
    let folder = folder("[class0, class1]");
    let mut other = fake(2, 1, 4.0);
    let (result, out) = eval(&folder, true, &mut fake(2, 0, 0.0), Some(&mut other));
    assert_eq!(result.unwrap(), Outcome::Done);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!((value["difference"]["map50"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{value}");
    let agreement = &value["agreement"];
    assert_eq!((&agreement["pairs"], &agreement["other_class"]), (&2.into(), &1.0.into()));
    assert!((agreement["mean_iou"].as_f64().unwrap() - 36.0 / 44.0).abs() < 1e-6);
    let (_, text) = eval(&folder, false, &mut fake(2, 0, 0.0), Some(&mut other));
    for part in ["difference", "+100.0", "100.0 % have another class", "mean IoU 0.8182", "0 of the model"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn people_get_tables() {
    let (_, text) = eval(&folder("[class0, class1]"), false, &mut fake(2, 0, 0.0), None);
    for part in ["2 pictures, 1 objects", "all", "square letterbox 64x32", "mAP medium", "found \\ true"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let names = (0..9).map(|id| format!("class{id}")).collect::<Vec<_>>().join(", ");
    let (_, text) = eval(&folder(&format!("[{names}]")), false, &mut fake(9, 3, 0.0), None);
    assert!(text.contains("0 right, 1 of another class, 1 found where nothing is, 0 not found"), "{text}");
    assert!(text.contains("1  class0 taken for class3"), "{text}");
}

#[test]
fn other_classes_and_broken_labels_end_it_before_any_picture() {
    let folder = folder("[a, b, c]");
    let (result, _) = eval(&folder, true, &mut fake(2, 0, 0.0), None);
    let error = result.unwrap_err();
    assert_eq!(error.exit(), Exit::Data);
    assert!(error.to_string().contains("data.yaml: the dataset has 3 classes, the model 2"), "{error}");
    std::fs::write(folder.path().join("labels/2.txt"), "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n").unwrap();
    let (result, _) = eval(&folder, true, &mut fake(3, 0, 0.0), None);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("labels/2.txt: line 2: class '7'"), "{error}");
}

#[test]
fn a_broken_picture_is_told_and_counted() {
    let folder = folder("[class0]");
    std::fs::write(folder.path().join("images/2.png"), "no picture").unwrap();
    let (result, out) = eval(&folder, true, &mut fake(1, 0, 0.0), None);
    assert_eq!(result.unwrap(), Outcome::SomeFailed);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&value["failed_pictures"], &value["metrics"]["pictures"]), (&1.into(), &1.into()));
    std::fs::write(folder.path().join("images/1.png"), "no picture").unwrap();
    let (result, out) = eval(&folder, true, &mut fake(1, 0, 0.0), None);
    assert_eq!((result.unwrap(), out.as_str()), (Outcome::AllFailed(Exit::Data), ""));
}
