//! Which class is taken for which.

use super::{Picture, corners, iou};

/// Detections less confident than this do not count.
pub const CONFIDENCE: f32 = 0.25;
/// A detection is at a label that it overlaps by more than this.
pub const IOU: f64 = 0.45;

/// Counts of (found class, true class); the last of each is background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<usize>,
}

impl Confusion {
    /// Counts as Ultralytics' `ConfusionMatrix.process_batch`: in falling order of confidence, each
    /// detection takes the free label, of any class, that it overlaps most.
    pub fn new(pictures: &[Picture], classes: usize) -> Self {
        let mut this = Self { classes, counts: vec![0; (classes + 1) * (classes + 1)] };
        for picture in pictures {
            this.add(picture);
        }
        this
    }

    /// How often an object of class `actual` was found as `found`; `None` is background.
    pub fn count(&self, found: Option<usize>, actual: Option<usize>) -> usize {
        self.counts[self.index(found, actual)]
    }

    /// All counts but the zeros: found, actual, count.
    pub fn entries(&self) -> impl Iterator<Item = (Option<usize>, Option<usize>, usize)> + '_ {
        let class = |index: usize| (index < self.classes).then_some(index);
        let side = self.classes + 1;
        let entry = move |(index, &count)| (class(index / side), class(index % side), count);
        self.counts.iter().enumerate().map(entry).filter(|entry| entry.2 > 0)
    }

    fn index(&self, found: Option<usize>, actual: Option<usize>) -> usize {
        let index = |class: Option<usize>| class.map_or(self.classes, |c| c.min(self.classes));
        index(found) * (self.classes + 1) + index(actual)
    }

    fn add(&mut self, picture: &Picture) {
        let mut sure: Vec<_> = picture.detections.iter().filter(|d| d.confidence > CONFIDENCE).collect();
        sure.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut free = vec![true; picture.truths.len()];
        for detection in sure {
            let mut best: Option<(usize, f64)> = None;
            for (index, truth) in picture.truths.iter().enumerate().filter(|&(index, _)| free[index]) {
                let overlap = iou(corners(detection), truth.corners);
                if overlap > best.map_or(IOU, |(_, most)| most) {
                    best = Some((index, overlap));
                }
            }
            let actual = best.map(|(index, _)| {
                free[index] = false;
                picture.truths[index].class_id
            });
            let index = self.index(Some(detection.class_id), actual);
            self.counts[index] += 1;
        }
        for (truth, _) in picture.truths.iter().zip(free).filter(|&(_, free)| free) {
            let index = self.index(None, Some(truth.class_id));
            self.counts[index] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Truth;
    use crate::vision::Detection;

    #[test]
    fn each_case_once() {
        let at = |class_id, confidence, x1: f32| Detection {
            class_id,
            confidence,
            x1,
            y1: 0.0,
            x2: x1 + 10.0,
            y2: 10.0,
        };
        let label = |class_id, x1: f64| Truth { class_id, corners: [x1, 0.0, x1 + 10.0, 10.0] };
        let picture = Picture {
            truths: vec![label(0, 0.0), label(1, 100.0), label(1, 200.0)],
            // Right; taken for class 0; a second one there; nowhere; too unsure.
            detections: vec![
                at(0, 0.9, 0.0),
                at(0, 0.8, 100.0),
                at(1, 0.7, 100.0),
                at(1, 0.6, 300.0),
                at(1, 0.2, 200.0),
            ],
        };
        let confusion = Confusion::new(&[picture], 2);
        let entries: Vec<_> = confusion.entries().collect();
        let expected = [(Some(0), Some(0), 1), (Some(0), Some(1), 1), (Some(1), None, 2), (None, Some(1), 1)];
        assert_eq!(entries, expected);
        assert_eq!(confusion.count(Some(1), None), 2);
    }
}
