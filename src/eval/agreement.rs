//! How two engines differ on the same pictures: class error and box error apart.

use serde::Serialize;

use super::{corners, iou};
use crate::vision::Detection;

/// Detections less confident than this, in both engines' view, are not compared.
pub const CONFIDENCE: f32 = 0.25;
/// Least overlap of two detections of the same object.
pub const IOU: f64 = 0.5;

/// The differences of paired detections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs: detections of both engines that overlap.
    pub pairs: usize,
    /// Detections of the first engine without a partner.
    pub only_first: usize,
    /// Detections of the second engine without a partner.
    pub only_second: usize,
    /// Mean absolute difference of the confidences of a pair.
    pub mean_confidence_error: Option<f64>,
    /// Share of pairs with different classes.
    pub other_class: Option<f64>,
    /// Mean overlap of a pair's boxes.
    pub mean_iou: Option<f64>,
}

/// Collects pairs picture by picture.
#[derive(Debug, Clone, Default)]
pub struct Agreements {
    pairs: usize,
    only_first: usize,
    only_second: usize,
    confidence_error: f64,
    other_class: usize,
    iou: f64,
}

impl Agreements {
    /// Pairs one picture's detections.
    ///
    /// In falling order of the first engine's confidence, each takes the second's free detection that it
    /// overlaps most, of equal ones that of its own class. Only one of a pair has to pass
    /// [`CONFIDENCE`]: at the threshold, a small error must not look like a lost object.
    pub fn add(&mut self, first: &[Detection], second: &[Detection]) {
        let mut order: Vec<&Detection> = first.iter().collect();
        order.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut free = vec![true; second.len()];
        for own in order {
            let sure = own.confidence > CONFIDENCE;
            let candidates = second.iter().enumerate().filter(|&(index, other)| {
                free[index] && (sure || (other.confidence > CONFIDENCE && other.class_id == own.class_id))
            });
            let best = candidates
                .map(|(index, other)| (index, other, iou(corners(own), corners(other))))
                .filter(|&(.., overlap)| overlap >= IOU)
                .max_by(|a, b| {
                    let key = |pair: &(usize, &Detection, f64)| {
                        (pair.1.class_id == own.class_id, pair.1.confidence)
                    };
                    let (same_a, sure_a) = key(a);
                    let (same_b, sure_b) = key(b);
                    a.2.total_cmp(&b.2).then(same_a.cmp(&same_b)).then(sure_a.total_cmp(&sure_b))
                });
            match best {
                Some((index, other, overlap)) => {
                    free[index] = false;
                    self.pairs += 1;
                    self.confidence_error += f64::from((own.confidence - other.confidence).abs());
                    self.other_class += usize::from(own.class_id != other.class_id);
                    self.iou += overlap;
                }
                None => self.only_first += usize::from(sure),
            }
        }
        self.only_second +=
            second.iter().zip(free).filter(|(other, free)| *free && other.confidence > CONFIDENCE).count();
    }

    /// The means.
    pub fn result(&self) -> Agreement {
        let mean = |sum: f64| (self.pairs > 0).then(|| sum / self.pairs as f64);
        Agreement {
            pairs: self.pairs,
            only_first: self.only_first,
            only_second: self.only_second,
            mean_confidence_error: mean(self.confidence_error),
            other_class: mean(self.other_class as f64),
            mean_iou: mean(self.iou),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(class_id: usize, confidence: f32, x1: f32) -> Detection {
        Detection { class_id, confidence, x1, y1: 0.0, x2: x1 + 10.0, y2: 10.0 }
    }

    #[test]
    fn errors_of_class_and_box_are_apart() {
        let mut all = Agreements::default();
        // A box apart by a tenth; another class in the same place; one alone on each side.
        all.add(
            &[at(0, 0.75, 0.0), at(0, 0.5, 100.0), at(0, 0.5, 200.0)],
            &[at(0, 0.5, 1.0), at(1, 0.5, 100.0), at(0, 0.5, 300.0)],
        );
        let result = all.result();
        assert_eq!((result.pairs, result.only_first, result.only_second), (2, 1, 1));
        assert_eq!((result.mean_confidence_error, result.other_class), (Some(0.125), Some(0.5)));
        assert!((result.mean_iou.unwrap() - (9.0 / 11.0 + 1.0) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn near_the_threshold_a_pair_stays_a_pair() {
        let mut all = Agreements::default();
        all.add(&[at(0, 0.26, 0.0), at(0, 0.24, 100.0)], &[at(0, 0.24, 0.0), at(0, 0.26, 100.0)]);
        assert_eq!((all.result().pairs, all.result().only_first, all.result().only_second), (2, 0, 0));
        // Two that are both unsure are not compared.
        let mut unsure = Agreements::default();
        unsure.add(&[at(0, 0.1, 0.0)], &[at(0, 0.1, 0.0)]);
        assert_eq!(unsure.result(), Agreements::default().result());
        assert_eq!(unsure.result().mean_iou, None);
    }

    #[test]
    fn two_classes_of_one_box_find_their_own() {
        let mut all = Agreements::default();
        all.add(&[at(0, 0.6, 0.0), at(1, 0.5, 0.0)], &[at(1, 0.6, 0.0), at(0, 0.5, 0.0)]);
        assert_eq!((all.result().pairs, all.result().other_class), (2, Some(0.0)));
    }
}
