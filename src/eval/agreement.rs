//! How two engines differ on the same pictures: class error and box error apart.

use serde::Serialize;

use super::{corners, iou};
use crate::vision::Detection;

/// An engine is sure of what is more confident than this; what neither is sure of is not compared.
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
    /// First those that both engines are sure of ([`CONFIDENCE`]): in falling order of the first's confidence,
    /// each takes the free one that it overlaps most, of equal ones that of its own class. What is left takes
    /// an unsure one of its own class: at the threshold, a small error must not look like a lost object.
    pub fn add(&mut self, first: &[Detection], second: &[Detection]) {
        let (mut own, mut unsure) = split(first);
        let (mut other, mut unsure_other) = split(second);
        own.retain(|detection| !self.pair(detection, &mut other, false));
        own.retain(|detection| !self.pair(detection, &mut unsure_other, true));
        other.retain(|detection| !self.pair(detection, &mut unsure, true));
        self.only_first += own.len();
        self.only_second += other.len();
    }

    /// Counts `own` and the one of `free` that it overlaps most, and takes that one out; whether there was one.
    fn pair(&mut self, own: &Detection, free: &mut Vec<Detection>, same_class: bool) -> bool {
        let mut best: Option<(usize, (f64, bool))> = None;
        for (index, other) in free.iter().enumerate() {
            let same = own.class_id == other.class_id;
            let key = (iou(corners(own), corners(other)), same);
            let fits = key.0 >= IOU && (same || !same_class);
            if fits && best.is_none_or(|(_, most)| key > most) {
                best = Some((index, key));
            }
        }
        let Some((index, (overlap, same))) = best else { return false };
        let other = free.remove(index);
        self.pairs += 1;
        self.confidence_error += f64::from((own.confidence - other.confidence).abs());
        self.other_class += usize::from(!same);
        self.iou += overlap;
        true
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

/// The sure ones and the others, each in falling order of confidence.
fn split(detections: &[Detection]) -> (Vec<Detection>, Vec<Detection>) {
    let mut all = detections.to_vec();
    all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let unsure = all.split_off(all.partition_point(|d| d.confidence > CONFIDENCE));
    (all, unsure)
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
    fn an_unsure_one_of_another_class_is_no_partner() {
        let mut all = Agreements::default();
        all.add(&[at(0, 0.9, 0.0)], &[at(1, 0.01, 0.0), at(0, 0.8, 1.0)]);
        assert_eq!((all.result().pairs, all.result().other_class), (1, Some(0.0)));
        let mut alone = Agreements::default();
        alone.add(&[at(0, 0.9, 0.0)], &[at(1, 0.01, 0.0)]);
        assert_eq!((alone.result().pairs, alone.result().only_first), (0, 1));
    }

    #[test]
    fn two_classes_of_one_box_find_their_own() {
        let mut all = Agreements::default();
        all.add(&[at(0, 0.6, 0.0), at(1, 0.5, 0.0)], &[at(1, 0.6, 0.0), at(0, 0.5, 0.0)]);
        assert_eq!((all.result().pairs, all.result().other_class), (2, Some(0.0)));
    }
}
