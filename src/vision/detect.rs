//! From the heads' raw outputs to boxes: threshold, distribution focal loss, non-maximum suppression.
//!
//! Follows Ultralytics 8.4 (`Detect`, `non_max_suppression`): the best class of each position (or all
//! classes, for evaluation), strict thresholds, greedy suppression within a class in falling order of
//! confidence, equal ones in order of position. One difference: classes are compared as such, not by
//! moving boxes 7680 pixels apart per class, which costs coordinates their last bits.

use super::letterbox::Placement;
use super::math::{exp, logit_floor, sigmoid};

/// Bins per box side of YOLOv8.
pub const REG_MAX: usize = 16;
/// Sides of a box: left, top, right, bottom.
const SIDES: usize = 4;

/// One level's raw outputs. Positions are `y * width + x`.
#[derive(Debug, Clone, Copy)]
pub struct HeadLevel<'a> {
    /// Cells in a column.
    pub height: usize,
    /// Cells in a row.
    pub width: usize,
    /// Input pixels per cell.
    pub stride: usize,
    /// `[height * width]` rows of `4 * 16` values: per side the 16 bins' logits.
    pub boxes: &'a [f32],
    /// Values from one row of `boxes` to the next, at least 64.
    pub box_row: usize,
    /// `[height * width]` rows of one logit per class.
    pub classes: &'a [f32],
    /// Values from one row of `classes` to the next, at least the number of classes.
    pub class_row: usize,
    /// Which positions the rows are of.
    pub cells: Cells<'a>,
}

/// Which positions a level has rows of. Lists are in rising order.
#[derive(Debug, Clone, Copy)]
pub enum Cells<'a> {
    /// All.
    All,
    /// These, one row for each.
    Listed(&'a [u32]),
    /// All, but no class passes the threshold at others than these.
    Passing(&'a [u32]),
}

impl HeadLevel<'_> {
    /// Rows that there must be.
    fn rows(&self) -> usize {
        let all = self.height * self.width;
        match self.cells {
            Cells::All => all,
            Cells::Listed(cells) => cells.len(),
            Cells::Passing(cells) => all.max(cells.last().map_or(0, |&last| last as usize + 1)),
        }
    }

    /// Rows in which a class may pass, each with its position.
    fn rows_to_read(&self) -> impl Iterator<Item = (usize, usize)> {
        let (all, listed, passing) = match self.cells {
            Cells::All => (0..self.rows(), &[][..], &[][..]),
            Cells::Listed(cells) => (0..0, cells, &[][..]),
            Cells::Passing(cells) => (0..0, &[][..], cells),
        };
        let listed = listed.iter().map(|&cell| cell as usize).enumerate();
        let passing = passing.iter().map(|&cell| (cell as usize, cell as usize));
        all.map(|row| (row, row)).chain(listed).chain(passing)
    }
}

/// A level whose buffers do not fit its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("level {level}: {what} hold {actual} values, {needed} are needed")]
pub struct HeadsError {
    /// Which level.
    pub level: usize,
    /// `boxes` or `classes`.
    pub what: &'static str,
    /// Values needed.
    pub needed: usize,
    /// Values given.
    pub actual: usize,
}

/// Thresholds and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct NmsOptions {
    /// Detections must be more confident than this.
    pub confidence: f32,
    /// A box that overlaps a better one of its class by more than this (IoU) is dropped.
    pub iou: f32,
    /// Most detections per picture.
    pub max_detections: usize,
    /// Most candidates that enter suppression (the most confident ones).
    pub max_candidates: usize,
    /// Whether a position may give several classes (as Ultralytics evaluates); else only its best one.
    pub multi_label: bool,
    /// Class ids to keep; `None` keeps all.
    pub classes: Option<Vec<usize>>,
}

impl NmsOptions {
    /// A class logit that is not above this gives no detection.
    pub fn floor(&self) -> f32 {
        logit_floor(self.confidence)
    }
}

impl Default for NmsOptions {
    fn default() -> Self {
        Self {
            confidence: 0.25,
            iou: 0.7,
            max_detections: 300,
            max_candidates: 30_000,
            multi_label: false,
            classes: None,
        }
    }
}

/// A found object; corners in pixels of the original picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Class id.
    pub class_id: usize,
    /// Confidence in `0.0..=1.0`.
    pub confidence: f32,
    /// Left.
    pub x1: f32,
    /// Top.
    pub y1: f32,
    /// Right.
    pub x2: f32,
    /// Bottom.
    pub y2: f32,
}

/// A box `[x1, y1, x2, y2]` in input pixels before suppression.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// Order of appearance: level, row, column, class.
    order: usize,
    class: usize,
    confidence: f32,
    corners: [f32; 4],
}

/// Reads heads; keeps its buffers from frame to frame.
#[derive(Debug, Default)]
pub struct Detector {
    candidates: Vec<Candidate>,
    kept: Vec<Candidate>,
    detections: Vec<Detection>,
}

impl Detector {
    /// A detector without buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Detections of one picture, the most confident first.
    ///
    /// `classes` is the number of classes; `placement` says where the picture lies in the input.
    pub fn run(
        &mut self,
        levels: &[HeadLevel<'_>],
        classes: usize,
        placement: &Placement,
        options: &NmsOptions,
    ) -> Result<&[Detection], HeadsError> {
        for (index, level) in levels.iter().enumerate() {
            check(index, "boxes", level, level.boxes.len(), level.box_row, SIDES * REG_MAX)?;
            check(index, "classes", level, level.classes.len(), level.class_row, classes)?;
        }
        self.candidates.clear();
        for level in levels {
            self.collect(level, classes, options);
        }
        self.suppress(options);
        self.detections.clear();
        self.detections.extend(self.kept.iter().map(|kept| {
            let [x1, y1, x2, y2] = placement.to_source(kept.corners);
            Detection { class_id: kept.class, confidence: kept.confidence, x1, y1, x2, y2 }
        }));
        Ok(&self.detections)
    }

    /// Candidates of one level. Only logits are compared until one passes: most positions show nothing.
    fn collect(&mut self, level: &HeadLevel<'_>, classes: usize, options: &NmsOptions) {
        let floor = options.floor();
        let wanted = |class: usize| options.classes.as_ref().is_none_or(|list| list.contains(&class));
        if classes == 0 {
            return;
        }
        for (row, position) in level.rows_to_read() {
            let logits = &level.classes[row * level.class_row..][..classes];
            if !logits.iter().fold(false, |any, &logit| any | (logit > floor)) {
                continue;
            }
            let mut corners = None;
            let mut push = |this: &mut Self, class: usize| {
                let confidence = sigmoid(logits[class]);
                let passes = confidence > options.confidence;
                if !passes || !wanted(class) {
                    return;
                }
                let corners = *corners.get_or_insert_with(|| read_box(level, row, position));
                if corners.iter().all(|corner| corner.is_finite()) {
                    let order = this.candidates.len();
                    this.candidates.push(Candidate { order, class, confidence, corners });
                }
            };
            if options.multi_label {
                for class in 0..classes {
                    push(self, class);
                }
            } else {
                let mut best = 0;
                for class in 1..classes {
                    if logits[class] > logits[best] || logits[best].is_nan() {
                        best = class;
                    }
                }
                push(self, best);
            }
        }
    }

    /// Greedy suppression: `candidates` → `kept`.
    fn suppress(&mut self, options: &NmsOptions) {
        // `order` makes the key unique, so the unstable sort (which needs no memory) is stable.
        self.candidates
            .sort_unstable_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.order.cmp(&b.order)));
        self.candidates.truncate(options.max_candidates);
        self.kept.clear();
        for candidate in &self.candidates {
            if self.kept.len() >= options.max_detections {
                break;
            }
            let covered = |kept: &Candidate| {
                kept.class == candidate.class && iou(kept.corners, candidate.corners) > options.iou
            };
            if !self.kept.iter().any(covered) {
                self.kept.push(*candidate);
            }
        }
    }
}

/// Checks that `rows` of a level fit into `actual` values.
fn check(
    index: usize,
    what: &'static str,
    level: &HeadLevel<'_>,
    actual: usize,
    row: usize,
    values: usize,
) -> Result<(), HeadsError> {
    let rows = level.rows();
    let needed = match rows {
        0 => 0,
        rows => (rows - 1) * row.max(values) + values,
    };
    if actual < needed || row < values {
        return Err(HeadsError { level: index, what, needed, actual });
    }
    Ok(())
}

/// The box in a row, of a position, `[x1, y1, x2, y2]` in input pixels.
///
/// Each side's distance is the expectation over 16 bins (Li et al., 2020), counted from the cell's middle.
fn read_box(level: &HeadLevel<'_>, row: usize, position: usize) -> [f32; 4] {
    let bins = &level.boxes[row * level.box_row..][..SIDES * REG_MAX];
    let mut distances = [0f32; SIDES];
    for (distance, side) in distances.iter_mut().zip(bins.chunks_exact(REG_MAX)) {
        *distance = expectation(side);
    }
    let [left, top, right, bottom] = distances;
    let x = (position % level.width) as f32 + 0.5;
    let y = (position / level.width) as f32 + 0.5;
    [x - left, y - top, x + right, y + bottom].map(|cells| cells * level.stride as f32)
}

/// `Σ i softmax(logits)_i`
fn expectation(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut total, mut weighted) = (0f32, 0f32);
    for (bin, &logit) in logits.iter().enumerate() {
        let weight = exp(logit - most);
        total += weight;
        weighted += weight * bin as f32;
    }
    weighted / total
}

/// Intersection over union of two boxes `[x1, y1, x2, y2]`; NaN for two empty ones.
pub fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let area = |c: [f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
