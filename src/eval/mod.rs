//! How good a model is on labelled pictures: datasets, average precision, confusions, two engines compared.
//!
//! Nothing here runs a model: detections come in, numbers go out.

pub mod agreement;
pub mod confusion;
mod curves;
pub mod dataset;
pub mod labels;
pub mod matching;
pub mod metrics;

pub use agreement::{Agreement, Agreements};
pub use confusion::Confusion;
pub use dataset::{Dataset, DatasetError, Sample};
pub use metrics::{ClassScores, Metrics, evaluate};

use crate::vision::Detection;

/// A labelled object, corners in pixels of the original picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Class id.
    pub class_id: usize,
    /// `[x1, y1, x2, y2]`.
    pub corners: [f64; 4],
}

/// What a picture shows and what was found in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picture {
    /// The labels.
    pub truths: Vec<Truth>,
    /// The detections, the most confident first.
    pub detections: Vec<Detection>,
}

fn corners(detection: &Detection) -> [f64; 4] {
    [detection.x1, detection.y1, detection.x2, detection.y2].map(f64::from)
}

fn area(c: [f64; 4]) -> f64 {
    (c[2] - c[0]) * (c[3] - c[1])
}

/// Intersection over union of two boxes `[x1, y1, x2, y2]`; 0 where neither has an area.
fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    let all = area(a) + area(b) - shared;
    if all > 0.0 { shared / all } else { 0.0 }
}
