//! int8 against the f32 reference at the raw outputs, on networks with random weights.
//!
//! Needs the project's shared data beside the checkout; says so and passes where it is absent.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostlight::detector::without_fourth;
use ghostlight::engine::Engine;
use ghostlight::kernels::{self, store};
use ghostlight::math;
use ghostlight::model::checkpoint;
use ghostlight::quant::{Request, convert};
use ghostlight::reference::Reference;
use ghostlight::vision::{Letterbox, Pixels, Size, decode_image};
use ghostlight::weights::Model;

/// Signal and noise power.
#[derive(Default)]
struct Noise(f64, f64);

impl Noise {
    fn add(&mut self, wanted: &[f32], found: &[f32]) {
        for (&w, &f) in wanted.iter().zip(found) {
            self.0 += f64::from(w).powi(2);
            self.1 += f64::from(w - f).powi(2);
        }
    }

    fn db(&self) -> f64 {
        10.0 * (self.0 / self.1).log10()
    }
}

/// Distances in cells to the four sides of each box: the mean of each distribution over 16 bins.
fn distances(logits: &[f32]) -> Vec<f32> {
    logits
        .chunks_exact(16)
        .map(|bins| {
            let largest = bins.iter().fold(f32::MIN, |m, v| m.max(*v));
            let powers: Vec<f32> = bins.iter().map(|v| (v - largest).exp()).collect();
            let mean: f32 = powers.iter().enumerate().map(|(i, p)| i as f32 * p).sum();
            mean / powers.iter().sum::<f32>()
        })
        .collect()
}

fn scores(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|&v| math::sigmoid(f64::from(v)) as f32).collect()
}

/// A picture as the network's input, `[height, width, 3]` bytes.
fn letterboxed(path: &Path, [height, width]: [usize; 2]) -> Vec<u8> {
    let picture = decode_image(path).unwrap();
    let pixels = Pixels::from(&picture);
    let mut bytes = vec![0; height * width * 4];
    Letterbox::new().run(pixels, Size { width, height }, 0, &mut bytes).unwrap();
    without_fourth(&bytes)
}

fn files(folder: &Path, prefix: &str, count: usize) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> =
        all.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect();
    all.sort();
    (0..count).map(|i| all[i * all.len() / count].clone()).collect()
}

#[test]
fn random_dynamic_models_keep_their_raw_outputs() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if !data.exists() {
        eprintln!("skipped: {} is absent", data.display());
        return;
    }
    let calibrate = files(&data.join("unlabeled"), "site_", 32);
    let evaluate = files(&data.join("coco128/images/train2017"), "", 4);
    for name in ["yolov8n-dynamicconv-random", "yolov8n-c2f-dynamicconv-random"] {
        measure(&data.join("golden").join(format!("{name}.pt")), &calibrate, &evaluate, [320, 320]);
    }
}

fn measure(checkpoint: &Path, calibrate: &[PathBuf], evaluate: &[PathBuf], size: [usize; 2]) {
    let graph = checkpoint::load(checkpoint).unwrap();
    let request = Request {
        pictures: calibrate,
        size,
        source_sha256: String::new(),
        license: String::new(),
        threads: 2,
        target_drop: Some(0.5),
    };
    let reference = Reference::new(&graph).unwrap();
    let converted = convert(graph, &request, &mut |_| {}).unwrap();
    let model = Arc::new(Model::from_bytes(&converted.parts.to_bytes().unwrap()).unwrap());
    let mut engine = Engine::new(model, kernels::detect::best(), 2).unwrap();
    let classes = engine.detect().classes;
    let share = converted.report.f32_share;
    let [mut box_logits, mut class_logits, mut boxes, mut class_scores] = [(); 4].map(|()| Noise::default());
    for path in evaluate {
        let rgb = letterboxed(path, size);
        for (to, from) in engine.input_mut().chunks_exact_mut(4).zip(rgb.chunks_exact(3)) {
            to[..3].iter_mut().zip(from).for_each(|(t, &f)| *t = store(f));
        }
        engine.run().unwrap();
        let wanted = reference.run_u8(&rgb, size[0], size[1]).unwrap();
        for (level, wanted) in wanted.levels.iter().enumerate() {
            let head = engine.head(level);
            let rows = |from: &[f32], row: usize, len: usize| -> Vec<f32> {
                from.chunks_exact(row).flat_map(|r| &r[..len]).copied().collect()
            };
            let found_boxes = rows(head.boxes, head.boxes.len() / (head.height * head.width), 64);
            let found_classes = rows(head.classes, head.classes.len() / (head.height * head.width), classes);
            box_logits.add(&wanted.boxes, &found_boxes);
            class_logits.add(&wanted.classes, &found_classes);
            boxes.add(&distances(&wanted.boxes), &distances(&found_boxes));
            class_scores.add(&scores(&wanted.classes), &scores(&found_classes));
        }
    }
    let [box_logits, class_logits, boxes, class_scores] =
        [box_logits, class_logits, boxes, class_scores].map(|noise| noise.db());
    eprintln!(
        "{} at {size:?}: box logits {box_logits:.1} dB, class logits {class_logits:.1}, box sides {boxes:.1}, \
         scores {class_scores:.1}, {share} of the work in f32",
        checkpoint.display()
    );
    assert!([box_logits, class_logits, boxes, class_scores].iter().all(|&db| db >= 25.0));
}
