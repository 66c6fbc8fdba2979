//! Which detections hit a label: `COCOeval.evaluateImg` of pycocotools, without crowds.

use super::{Truth, area, corners, iou};
use crate::vision::Detection;

/// IoU thresholds .50, .55, …, .95.
pub const THRESHOLDS: usize = 10;

/// The IoU threshold at `index`, to the last bit that of pycocotools: `numpy.linspace(.5, .95, 10)`.
pub fn threshold(index: usize) -> f64 {
    index as f64 * ((0.95 - 0.5) / (THRESHOLDS - 1) as f64) + 0.5
}

/// Areas that count, in square pixels of the original picture, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Range {
    /// Every area.
    pub const ALL: Range = Range { least: 0.0, most: 1e10 };
    /// COCO's small, medium and large objects.
    pub const SIZES: [Range; 3] = [
        Range { least: 0.0, most: 1024.0 },
        Range { least: 1024.0, most: 9216.0 },
        Range { least: 9216.0, most: 1e10 },
    ];

    fn holds(self, area: f64) -> bool {
        (self.least..=self.most).contains(&area)
    }
}

/// What a detection is at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It found a label.
    Hit,
    /// It found none.
    Miss,
    /// It does not count: it found a label outside the range, or none and lies outside itself.
    Ignored,
}

/// One class in one picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matched {
    /// Per detection, in falling order of confidence: confidence and fate at each threshold.
    pub detections: Vec<(f32, [Fate; THRESHOLDS])>,
    /// Labels within the range.
    pub truths: usize,
}

/// Matches the detections of class `class`.
///
/// In falling order of confidence, each takes the label with which it overlaps most among those still
/// free, if by the threshold or more; of equal ones the later (as pycocotools). Labels outside the range
/// are taken only where none inside can be.
pub fn matched(detections: &[Detection], truths: &[Truth], class: usize, range: Range) -> Matched {
    let mut found: Vec<&Detection> = detections.iter().filter(|d| d.class_id == class).collect();
    found.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let of_class = || truths.iter().filter(|t| t.class_id == class).map(|t| t.corners);
    let mut labels: Vec<[f64; 4]> = of_class().filter(|&c| range.holds(area(c))).collect();
    let inside = labels.len();
    labels.extend(of_class().filter(|&c| !range.holds(area(c))));
    let mut taken = vec![[false; THRESHOLDS]; labels.len()];
    let fates = found.iter().map(|detection| {
        let own = corners(detection);
        let overlaps: Vec<f64> = labels.iter().map(|&label| iou(own, label)).collect();
        let fates = std::array::from_fn(|t| {
            let best = |from: usize, to: usize| {
                let free = (from..to).filter(|&l| !taken[l][t] && overlaps[l] >= threshold(t));
                free.max_by(|&a, &b| overlaps[a].total_cmp(&overlaps[b]))
            };
            let (label, fate) = match best(0, inside) {
                Some(label) => (label, Fate::Hit),
                None => match best(inside, labels.len()) {
                    Some(label) => (label, Fate::Ignored),
                    None if range.holds(area(own)) => return Fate::Miss,
                    None => return Fate::Ignored,
                },
            };
            taken[label][t] = true;
            fate
        });
        (detection.confidence, fates)
    });
    let detections = fates.collect();
    Matched { detections, truths: inside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(class_id: usize, confidence: f32, [x1, y1, x2, y2]: [f32; 4]) -> Detection {
        Detection { class_id, confidence, x1, y1, x2, y2 }
    }

    fn truth(corners: [f64; 4]) -> Truth {
        Truth { class_id: 0, corners }
    }

    fn hits(matched: &Matched) -> Vec<usize> {
        matched.detections.iter().map(|(_, f)| f.iter().filter(|&&f| f == Fate::Hit).count()).collect()
    }

    #[test]
    fn a_label_is_taken_once_and_by_the_most_confident() {
        let truths = [truth([0.0, 0.0, 10.0, 10.0])];
        // IoU 1 and 0.8: the less exact one is more confident, and takes the label up to .80.
        let found = [detection(0, 0.5, [0.0, 0.0, 10.0, 10.0]), detection(0, 0.9, [0.0, 0.0, 10.0, 8.0])];
        let matched = matched(&found, &truths, 0, Range::ALL);
        assert_eq!((matched.detections[0].0, matched.truths), (0.9, 1));
        assert_eq!(hits(&matched), [7, 3]);
    }

    #[test]
    fn thresholds_include_themselves() {
        let truths = [truth([0.0, 0.0, 10.0, 10.0])];
        let half = matched(&[detection(0, 0.5, [0.0, 0.0, 10.0, 5.0])], &truths, 0, Range::ALL);
        assert_eq!(hits(&half), [1]);
        let less = matched(&[detection(0, 0.5, [0.0, 0.0, 10.0, 4.9])], &truths, 0, Range::ALL);
        assert_eq!(hits(&less), [0]);
    }

    #[test]
    fn each_takes_the_nearest_free_label() {
        let truths = [truth([0.0, 0.0, 10.0, 10.0]), truth([2.0, 0.0, 12.0, 10.0])];
        let same = detection(0, 0.9, [2.0, 0.0, 12.0, 10.0]);
        // The second overlaps the first label by 8 / 12.
        let matched = matched(&[same, detection(0, 0.8, [2.0, 0.0, 12.0, 10.0])], &truths, 0, Range::ALL);
        assert_eq!(hits(&matched), [10, 4]);
    }

    #[test]
    fn other_classes_are_not_seen() {
        let truths = [truth([0.0, 0.0, 10.0, 10.0])];
        let other = [detection(1, 0.9, [0.0, 0.0, 10.0, 10.0])];
        assert_eq!(matched(&other, &truths, 0, Range::ALL), Matched { detections: vec![], truths: 1 });
        assert_eq!(hits(&matched(&other, &truths, 1, Range::ALL)), [0]);
    }

    #[test]
    fn what_lies_outside_the_range_does_not_count() {
        let [small, _, large] = Range::SIZES;
        let truths = [truth([0.0, 0.0, 100.0, 100.0])];
        let found = [
            detection(0, 0.9, [0.0, 0.0, 100.0, 100.0]),
            detection(0, 0.8, [500.0, 0.0, 700.0, 100.0]),
            detection(0, 0.7, [500.0, 0.0, 510.0, 10.0]),
        ];
        let fates = |range| {
            let matched = matched(&found, &truths, 0, range);
            (matched.truths, matched.detections.iter().map(|(_, f)| f[0]).collect::<Vec<_>>())
        };
        assert_eq!(fates(small), (0, vec![Fate::Ignored, Fate::Ignored, Fate::Miss]));
        assert_eq!(fates(large), (1, vec![Fate::Hit, Fate::Miss, Fate::Ignored]));
        assert_eq!(fates(Range::ALL), (1, vec![Fate::Hit, Fate::Miss, Fate::Miss]));
    }

    #[test]
    fn empty_boxes_match_nothing() {
        let truths = [truth([5.0, 5.0, 5.0, 5.0])];
        let matched = matched(&[detection(0, 0.9, [5.0, 5.0, 5.0, 5.0])], &truths, 0, Range::ALL);
        assert_eq!(hits(&matched), [0]);
    }
}
