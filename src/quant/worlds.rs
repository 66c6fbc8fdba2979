//! How many points of mAP int8 costs, estimated without labels.
//!
//! Nobody labelled the calibration pictures, but the reference says with what probability it sees what
//! where. So labels are drawn from it: each of its detections is an object with the probability of its
//! confidence, its box moved and stretched as a labeller's box differs from a detector's. Both engines are
//! scored against several such draws.
//!
//! That leans to the reference's side, from which the labels come: where it errs in truth, int8 may as well be
//! right. So the estimate is the difference of the means times [`REAL`].

use crate::eval::{Picture, Truth, evaluate};
use crate::math::SplitMix64;
use crate::vision::Detection;

/// Which part of the difference real labels show. YOLOv8n with COCO's weights loses 0.9 to 1.3 against labels drawn
/// on coco128 (six conversions, at 640) and 0.2 to 0.3 against the real ones (means of fifteen, at three sizes). One
/// model on one set of pictures: an order of magnitude, not a law.
const REAL: f64 = 1.0 / 3.0;
/// Draws of labels per picture set.
const DRAWS: u64 = 8;
/// Standard deviation of a label's centre from the detection's, in sides of the box.
const SHIFT: f64 = 0.04;
/// Standard deviation of a label's sides, relative.
const STRETCH: f64 = 0.07;
/// Fewer expected objects than this say nothing.
const LEAST_OBJECTS: f64 = 5.0;
/// Confidence from which detections count as expected objects.
const SURE: f32 = 0.25;

/// Points of mAP50-95 (0 to 100) that `int8` loses to `reference`; `None` where the pictures show too
/// little. Both are detections per picture down to a confidence of 0.001.
pub fn drop(reference: &[Vec<Detection>], int8: &[Vec<Detection>]) -> Option<f64> {
    let sure = reference.iter().flatten().filter(|d| d.confidence >= SURE);
    if sure.map(|d| f64::from(d.confidence)).sum::<f64>() < LEAST_OBJECTS {
        return None;
    }
    let mut lost = 0.0;
    for seed in 0..DRAWS {
        let mut random = Random(SplitMix64(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let labels: Vec<Vec<Truth>> = reference.iter().map(|found| draw(found, &mut random)).collect();
        lost += score(&labels, reference) - score(&labels, int8);
    }
    Some(100.0 * REAL * lost / DRAWS as f64)
}

fn score(labels: &[Vec<Truth>], found: &[Vec<Detection>]) -> f64 {
    let pictures: Vec<Picture> = labels
        .iter()
        .zip(found)
        .map(|(truths, detections)| Picture { truths: truths.clone(), detections: detections.clone() })
        .collect();
    evaluate(&pictures).map50_95.unwrap_or(0.0)
}

/// Objects that the detections may be of.
fn draw(found: &[Detection], random: &mut Random) -> Vec<Truth> {
    let mut truths = Vec::new();
    for detection in found {
        // All numbers are drawn for each, so that one more detection changes no other's label.
        let [kept, x, y, w, h] =
            [random.uniform(), random.normal(), random.normal(), random.normal(), random.normal()];
        if kept >= f64::from(detection.confidence) {
            continue;
        }
        let [x1, y1, x2, y2] = [detection.x1, detection.y1, detection.x2, detection.y2].map(f64::from);
        let (width, height) = (x2 - x1, y2 - y1);
        let (centre_x, centre_y) =
            ((x1 + x2) / 2.0 + x * SHIFT * width, (y1 + y2) / 2.0 + y * SHIFT * height);
        let half_w = width / 2.0 * (1.0 + STRETCH * w).max(0.1);
        let half_h = height / 2.0 * (1.0 + STRETCH * h).max(0.1);
        truths.push(Truth {
            class_id: detection.class_id,
            corners: [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h],
        });
    }
    truths
}

/// Numbers by chance, the same ones everywhere.
struct Random(SplitMix64);

impl Random {
    /// In `[0, 1)`.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1: the sum of twelve uniform numbers, which needs no logarithm.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shift: f32) -> Vec<Vec<Detection>> {
        let detection = |i: usize| {
            let (x, y) = ((i % 8) as f32 * 70.0, (i / 8) as f32 * 70.0);
            let confidence = 0.3 + 0.01 * (i % 60) as f32;
            Detection {
                class_id: i % 3,
                confidence,
                x1: x + shift,
                y1: y,
                x2: x + shift + 50.0,
                y2: y + 60.0,
            }
        };
        (0..4).map(|_| (0..64).map(detection).collect()).collect()
    }

    #[test]
    fn the_same_detections_lose_nothing() {
        assert_eq!(drop(&found(0.0), &found(0.0)), Some(0.0));
    }

    #[test]
    fn the_loss_grows_with_the_error() {
        let lost = |shift| drop(&found(0.0), &found(shift)).unwrap();
        let (small, large) = (lost(1.0), lost(10.0));
        assert!(small < 0.7, "a hundredth of a side: {small}");
        assert!(large > 3.0 && large > small, "a fifth of a side: {large}");
        let nothing = vec![Vec::new(); 4];
        assert!(drop(&found(0.0), &nothing).unwrap() > 10.0);
    }

    #[test]
    fn empty_pictures_say_nothing() {
        assert_eq!(drop(&vec![Vec::new(); 4], &vec![Vec::new(); 4]), None);
    }
}
