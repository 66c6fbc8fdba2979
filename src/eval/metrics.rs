//! COCO's average precision, and Ultralytics' precision and recall.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Picture;
use super::curves::{self, POINTS, Ranking};
use super::matching::{Range, THRESHOLDS, matched};

/// One class's numbers, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScores {
    /// Class id.
    pub class_id: usize,
    /// Pictures with a label of it.
    pub pictures: usize,
    /// Its labels.
    pub instances: usize,
    /// Precision at [`Metrics::confidence`] and IoU .50.
    pub precision: f64,
    /// Recall there.
    pub recall: f64,
    /// Average precision, mean of IoU .50 to .95.
    pub map50_95: f64,
    /// Average precision at IoU .50.
    pub map50: f64,
    /// Average precision at IoU .75.
    pub map75: f64,
}

/// A model's numbers on a dataset, 0 to 1; `None` where no label could give them. Means are over the
/// classes that have labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Pictures.
    pub pictures: usize,
    /// Labels.
    pub instances: usize,
    /// Mean average precision, IoU .50 to .95, as pycocotools has it.
    pub map50_95: Option<f64>,
    /// The same at IoU .50.
    pub map50: Option<f64>,
    /// The same at IoU .75.
    pub map75: Option<f64>,
    /// mAP50-95 of labels up to 32² pixels.
    pub map_small: Option<f64>,
    /// mAP50-95 of labels from 32² to 96² pixels.
    pub map_medium: Option<f64>,
    /// mAP50-95 of labels from 96² pixels.
    pub map_large: Option<f64>,
    /// mAP50-95 by Ultralytics' interpolation, which gives a little more.
    pub ultralytics_map50_95: Option<f64>,
    /// The same at IoU .50.
    pub ultralytics_map50: Option<f64>,
    /// Mean precision at `confidence` and IoU .50.
    pub precision: Option<f64>,
    /// Mean recall there.
    pub recall: Option<f64>,
    /// The confidence at which the mean F1 is best.
    pub confidence: Option<f64>,
    /// The classes that have labels.
    pub classes: Vec<ClassScores>,
}

/// Scores the detections of all pictures.
///
/// Detections should reach down to a confidence of 0.001: curves end where they end.
pub fn evaluate(pictures: &[Picture]) -> Metrics {
    let mut labels: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for picture in pictures {
        let mut here: Vec<usize> = picture.truths.iter().map(|t| t.class_id).collect();
        here.sort_unstable();
        for group in here.chunk_by(|a, b| a == b) {
            let (pictures, instances) = labels.entry(group[0]).or_default();
            *pictures += 1;
            *instances += group.len();
        }
    }
    let ranking = |class: usize, range: Range| {
        Ranking::new(pictures.iter().map(|p| matched(&p.detections, &p.truths, class, range)).collect())
    };
    let rankings: Vec<Ranking> = labels.keys().map(|&class| ranking(class, Range::ALL)).collect();
    let over: Vec<_> = rankings.iter().map(Ranking::over_confidence).collect();
    let f1: Vec<Vec<f64>> = over.iter().map(|(p, r)| curves::f1(p, r)).collect();
    let mean_f1: Vec<f64> = (0..POINTS).map(|i| f1.iter().map(|curve| curve[i]).sum()).collect();
    let best = curves::highest(&mean_f1);
    let classes: Vec<ClassScores> = labels
        .iter()
        .zip(rankings.iter().zip(&over))
        .map(|((&class_id, &(pictures, instances)), (ranking, (precision, recall)))| ClassScores {
            class_id,
            pictures,
            instances,
            precision: precision[best],
            recall: recall[best],
            map50_95: over_thresholds(|t| ranking.average_precision(t)).unwrap_or(0.0),
            map50: ranking.average_precision(0).unwrap_or(0.0),
            map75: ranking.average_precision(5).unwrap_or(0.0),
        })
        .collect();
    let of_size = |range: Range| {
        mean(labels.keys().filter_map(|&class| {
            let ranking = ranking(class, range);
            over_thresholds(|t| ranking.average_precision(t))
        }))
    };
    let [map_small, map_medium, map_large] = Range::SIZES.map(of_size);
    let ultralytics = |ranking: &Ranking| over_thresholds(|t| ranking.ultralytics_precision(t));
    let of_classes = |score: fn(&ClassScores) -> f64| mean(classes.iter().map(score));
    Metrics {
        pictures: pictures.len(),
        instances: rankings.iter().map(Ranking::truths).sum(),
        map50_95: of_classes(|c| c.map50_95),
        map50: of_classes(|c| c.map50),
        map75: of_classes(|c| c.map75),
        map_small,
        map_medium,
        map_large,
        ultralytics_map50_95: mean(rankings.iter().filter_map(ultralytics)),
        ultralytics_map50: mean(rankings.iter().filter_map(|r| r.ultralytics_precision(0))),
        precision: of_classes(|c| c.precision),
        recall: of_classes(|c| c.recall),
        confidence: (!classes.is_empty()).then(|| curves::confidence(best)),
        classes,
    }
}

fn over_thresholds(precision: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    mean((0..THRESHOLDS).filter_map(precision))
}

/// The mean; `None` of nothing.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Truth;
    use crate::vision::Detection;

    fn found(class_id: usize, confidence: f32) -> Detection {
        Detection { class_id, confidence, x1: 0.0, y1: 0.0, x2: 10.0, y2: 10.0 }
    }

    fn label(class_id: usize) -> Truth {
        Truth { class_id, corners: [0.0, 0.0, 10.0, 10.0] }
    }

    #[test]
    fn all_right_is_one() {
        let picture = Picture { truths: vec![label(1)], detections: vec![found(1, 0.9)] };
        let metrics = evaluate(&[picture.clone(), picture]);
        assert!((metrics.map50_95.unwrap() - 1.0).abs() < 1e-12);
        assert!((metrics.map_small.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((metrics.map_medium, metrics.map_large), (None, None));
        assert_eq!((metrics.pictures, metrics.instances, metrics.classes.len()), (2, 2, 1));
        assert_eq!((metrics.precision, metrics.recall), (Some(1.0), Some(1.0)));
        assert_eq!((metrics.classes[0].pictures, metrics.classes[0].class_id), (2, 1));
    }

    #[test]
    fn a_class_without_labels_lowers_nothing_and_one_without_detections_is_zero() {
        let false_class = Picture { truths: vec![label(0)], detections: vec![found(0, 0.9), found(2, 0.95)] };
        assert!((evaluate(&[false_class]).map50.unwrap() - 1.0).abs() < 1e-12);
        let unseen = Picture { truths: vec![label(0), label(1)], detections: vec![found(0, 0.9)] };
        assert!((evaluate(&[unseen]).map50.unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn without_labels_there_is_no_number() {
        for pictures in [vec![], vec![Picture { truths: vec![], detections: vec![found(0, 0.9)] }]] {
            let metrics = evaluate(&pictures);
            assert_eq!((metrics.map50_95, metrics.precision, metrics.confidence), (None, None, None));
            assert!(metrics.classes.is_empty());
        }
    }
}
