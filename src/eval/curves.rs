//! Precision over recall, and both over confidence.

use super::matching::{Fate, Matched, THRESHOLDS};

/// Points of the curves over confidence.
pub const POINTS: usize = 1000;
/// Least difference that keeps a quotient finite.
const EPSILON: f64 = 1e-16;

/// All detections of one class, in falling order of confidence.
#[derive(Debug)]
pub struct Ranking {
    detections: Vec<(f32, [Fate; THRESHOLDS])>,
    truths: usize,
}

impl Ranking {
    /// Merges a class's pictures, in their order.
    pub fn new(pictures: Vec<Matched>) -> Self {
        let truths = pictures.iter().map(|p| p.truths).sum();
        let mut detections: Vec<_> = pictures.into_iter().flat_map(|p| p.detections).collect();
        detections.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { detections, truths }
    }

    /// Labels that count.
    pub fn truths(&self) -> usize {
        self.truths
    }

    /// Recall and precision after each detection that counts, at one IoU threshold.
    fn recall_precision(&self, threshold: usize) -> (Vec<f64>, Vec<f64>) {
        let (mut hits, mut seen) = (0usize, 0usize);
        let counted =
            self.detections.iter().map(|(_, fates)| fates[threshold]).filter(|&f| f != Fate::Ignored);
        counted
            .map(|fate| {
                seen += 1;
                hits += usize::from(fate == Fate::Hit);
                (hits as f64 / self.truths as f64, hits as f64 / seen as f64)
            })
            .unzip()
    }

    /// Average precision at one IoU threshold as pycocotools has it (`COCOeval.accumulate`): the mean, over
    /// the recalls 0, .01, …, 1, of the best precision at that recall or a higher one; 0 where none is
    /// reached. `None` without labels.
    pub fn average_precision(&self, threshold: usize) -> Option<f64> {
        if self.truths == 0 {
            return None;
        }
        let (recall, mut precision) = self.recall_precision(threshold);
        envelope(&mut precision);
        let at = |wanted: f64| precision.get(recall.partition_point(|&r| r < wanted)).copied();
        Some((0..=100).map(|i| at(recall_point(i)).unwrap_or(0.0)).sum::<f64>() / 101.0)
    }

    /// Average precision as Ultralytics has it (`compute_ap`): the area under the same envelope, drawn from
    /// precision 1 at recall 0, linear between detections, by trapezoids of width .01.
    pub fn ultralytics_precision(&self, threshold: usize) -> Option<f64> {
        if self.truths == 0 {
            return None;
        }
        let (mut recall, mut precision) = self.recall_precision(threshold);
        let Some(&last) = recall.last() else { return Some(0.0) };
        recall.insert(0, 0.0);
        recall.extend([last, 1.0]);
        precision.insert(0, 1.0);
        precision.extend([0.0, 0.0]);
        envelope(&mut precision);
        let at: Vec<f64> = (0..=100).map(|i| interpolate(&recall, &precision, recall_point(i))).collect();
        Some(at.windows(2).map(|pair| (pair[0] + pair[1]) / 200.0).sum())
    }

    /// Precision and recall at IoU .50 for the confidences 0 to 1 in [`POINTS`] steps, as Ultralytics
    /// (`ap_per_class`): linear between detections; above the highest confidence precision 1 and recall 0.
    /// Without detections both are 0.
    pub fn over_confidence(&self) -> (Vec<f64>, Vec<f64>) {
        let (recall, precision) = self.recall_precision(0);
        if recall.is_empty() {
            return (vec![0.0; POINTS], vec![0.0; POINTS]);
        }
        let falling: Vec<f64> =
            self.detections.iter().map(|(confidence, _)| -f64::from(*confidence)).collect();
        (0..POINTS)
            .map(|i| -confidence(i))
            .map(|x| match falling[0] <= x {
                true => (interpolate(&falling, &precision, x), interpolate(&falling, &recall, x)),
                false => (1.0, 0.0),
            })
            .unzip()
    }
}

/// The recall 0, .01, …, 1 at `index`, to the last bit `numpy.linspace(0, 1, 101)`: a recall of just .07 lies
/// below the seventh.
fn recall_point(index: u32) -> f64 {
    f64::from(index) * 0.01
}

/// The confidence at point `index` of the curves.
pub fn confidence(index: usize) -> f64 {
    index as f64 / (POINTS - 1) as f64
}

/// Harmonic mean of precision and recall at each point.
pub fn f1(precision: &[f64], recall: &[f64]) -> Vec<f64> {
    precision.iter().zip(recall).map(|(p, r)| 2.0 * p * r / (p + r + EPSILON)).collect()
}

/// The first point at which a curve, smoothed, is highest: Ultralytics' `smooth(…, 0.1).argmax()`, a mean
/// over 101 of 1000 points, the ends repeated outward.
pub fn highest(curve: &[f64]) -> usize {
    let half = curve.len() / 20;
    let at = |i: usize, offset: usize| curve[(i + offset).saturating_sub(half).min(curve.len() - 1)];
    let smoothed = (0..curve.len()).map(|i| (0..=2 * half).map(|o| at(i, o)).sum::<f64>());
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in smoothed.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// Makes values fall from left to right: each becomes the greatest from it on.
fn envelope(values: &mut [f64]) {
    let mut most = f64::NEG_INFINITY;
    for value in values.iter_mut().rev() {
        most = most.max(*value);
        *value = most;
    }
}

/// `numpy.interp`: the line through points with rising `xs`; of equal ones the last counts; flat outside.
fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let after = xs.partition_point(|&known| known <= x);
    match (after.checked_sub(1), xs.get(after)) {
        (None, _) => ys[0],
        (Some(before), None) => ys[before],
        (Some(before), Some(next)) => {
            let slope = (ys[after] - ys[before]) / (next - xs[before]);
            ys[before] + slope * (x - xs[before])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(truths: usize, fates: &[(f32, Fate)]) -> Ranking {
        let detections = fates.iter().map(|&(c, f)| (c, [f; THRESHOLDS])).collect();
        Ranking::new(vec![Matched { detections, truths }])
    }

    #[test]
    fn precision_by_hand() {
        // Two labels; found, false, found: precision 1 up to recall .5, then 2/3.
        let some = ranking(2, &[(0.9, Fate::Hit), (0.8, Fate::Miss), (0.7, Fate::Hit)]);
        let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
        assert!((some.average_precision(0).unwrap() - expected).abs() < 1e-12);
        // What is ignored changes nothing.
        let ignored =
            ranking(2, &[(0.95, Fate::Ignored), (0.9, Fate::Hit), (0.8, Fate::Miss), (0.7, Fate::Hit)]);
        assert_eq!(ignored.average_precision(0), some.average_precision(0));
        // Half of the labels found: recalls above .5 give nothing.
        let half = ranking(2, &[(0.9, Fate::Hit)]);
        assert!((half.average_precision(0).unwrap() - 51.0 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_found_is_zero_and_nothing_to_find_is_none() {
        assert_eq!(ranking(3, &[]).average_precision(0), Some(0.0));
        assert_eq!(ranking(3, &[]).ultralytics_precision(0), Some(0.0));
        assert_eq!(ranking(0, &[(0.5, Fate::Miss)]).average_precision(0), None);
        assert_eq!(ranking(0, &[(0.5, Fate::Miss)]).ultralytics_precision(0), None);
        assert_eq!(ranking(3, &[]).over_confidence(), (vec![0.0; POINTS], vec![0.0; POINTS]));
    }

    #[test]
    fn curves_over_confidence() {
        let (precision, recall) = ranking(2, &[(0.75, Fate::Hit), (0.25, Fate::Miss)]).over_confidence();
        assert_eq!((precision[999], recall[999]), (1.0, 0.0));
        assert_eq!((precision[0], recall[0]), (0.5, 0.5));
        assert!((precision[500] - 0.75).abs() < 1e-3 && recall[500] == 0.5);
    }

    #[test]
    fn interpolation_is_numpys() {
        let (xs, ys) = ([0.0, 1.0, 1.0, 3.0], [0.0, 1.0, 5.0, 9.0]);
        for (x, y) in [(-1.0, 0.0), (0.5, 0.5), (1.0, 5.0), (2.0, 7.0), (3.0, 9.0), (4.0, 9.0)] {
            assert_eq!(interpolate(&xs, &ys, x), y, "{x}");
        }
    }

    #[test]
    fn the_highest_point_is_smoothed() {
        let mut curve = vec![0.0; POINTS];
        curve[10] = 3.0;
        curve[500..600].fill(1.0);
        let at = highest(&curve);
        assert!((540..=550).contains(&at), "{at}");
        assert_eq!(highest(&[0.5; POINTS]), 0);
    }
}
