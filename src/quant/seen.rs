//! How far boxes and scores move where the reference sees something: quicker to find than an mAP, and smooth.
//!
//! Raw outputs as a whole say little, since nearly all cells see nothing.

use crate::math;
use crate::vision::{HeadLevel, REG_MAX};

/// Cells whose best score is less do not count.
const LEAST_SCORE: f64 = 0.05;

/// A cell in which the reference sees something.
#[derive(Debug, Clone)]
pub struct Cell {
    level: usize,
    index: usize,
    /// Its best score.
    score: f64,
    sides: [f64; 4],
    scores: Vec<f64>,
}

/// The cells of a picture in which the reference sees something.
pub fn cells(levels: &[HeadLevel<'_>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (level, head) in levels.iter().enumerate() {
        for index in 0..head.height * head.width {
            let scores = scores(head, index);
            let score = scores.iter().copied().fold(0.0, f64::max);
            if score >= LEAST_SCORE {
                cells.push(Cell { level, index, score, sides: sides(head, index), scores });
            }
        }
    }
    cells
}

/// Signal and noise in the cells of some pictures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Error {
    box_signal: f64,
    box_noise: f64,
    score_signal: f64,
    score_noise: f64,
}

impl Error {
    /// Adds an answer to one picture.
    pub fn add(&mut self, cells: &[Cell], answer: &[HeadLevel<'_>]) {
        for cell in cells {
            let Some(head) = answer.get(cell.level) else { continue };
            let sides = sides(head, cell.index);
            // A box counts as much as its score, and an error as much of its size as it is.
            let size: f64 = cell.sides.iter().sum::<f64>().max(0.1);
            let noise: f64 =
                cell.sides.iter().zip(sides).map(|(wanted, found)| (wanted - found).powi(2)).sum();
            self.box_signal += cell.score;
            self.box_noise += cell.score * noise / (size * size);
            for (wanted, found) in cell.scores.iter().zip(scores(head, cell.index)) {
                self.score_signal += wanted * wanted;
                self.score_noise += (wanted - found).powi(2);
            }
        }
    }

    /// Noise to signal of both together: the less the better. `None` where nothing was to be seen.
    pub fn value(&self) -> Option<f64> {
        let Self { box_signal, box_noise, score_signal, score_noise } = *self;
        (box_signal > 0.0).then(|| box_noise / box_signal + score_noise / score_signal)
    }
}

/// Distances of a cell to the four sides in cells: the mean of each distribution.
fn sides(head: &HeadLevel<'_>, cell: usize) -> [f64; 4] {
    let start = cell * head.box_row;
    std::array::from_fn(|side| mean_bin(&head.boxes[start + side * REG_MAX..][..REG_MAX]))
}

fn scores(head: &HeadLevel<'_>, cell: usize) -> Vec<f64> {
    head.classes[cell * head.class_row..][..head.class_row]
        .iter()
        .map(|&v| math::sigmoid(f64::from(v)))
        .collect()
}

/// Mean of a distribution over the bins, from its logits.
pub fn mean_bin(logits: &[f32]) -> f64 {
    let mut powers = [0.0; REG_MAX];
    powers.iter_mut().zip(logits).for_each(|(p, &b)| *p = f64::from(b));
    math::softmax(&mut powers);
    powers.iter().enumerate().fold(0.0, |sum, (i, p)| sum + i as f64 * p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::Cells;

    /// One level of two cells with two classes, the second cell empty.
    fn head<'a>(boxes: &'a [f32], classes: &'a [f32]) -> HeadLevel<'a> {
        HeadLevel {
            height: 1,
            width: 2,
            stride: 8,
            boxes,
            box_row: 64,
            classes,
            class_row: 2,
            cells: Cells::All,
        }
    }

    fn peaks(bin: usize) -> Vec<f32> {
        (0..128).map(|i| if i % REG_MAX == bin { 20.0 } else { 0.0 }).collect()
    }

    #[test]
    fn only_cells_that_see_something_count() {
        let (boxes, classes) = (peaks(4), [2.0, -9.0, -9.0, -9.0]);
        let cells = cells(&[head(&boxes, &classes)]);
        assert_eq!(cells.len(), 1);
        let mut error = Error::default();
        error.add(&cells, &[head(&boxes, &[2.0, -9.0, 5.0, 5.0])]);
        assert_eq!(error.value(), Some(0.0));
        assert_eq!(Error::default().value(), None);
    }

    #[test]
    fn boxes_and_scores_both_count() {
        let (boxes, classes) = (peaks(4), [2.0, -9.0, -9.0, -9.0]);
        let cells = cells(&[head(&boxes, &classes)]);
        let value = |boxes: &[f32], classes: &[f32]| {
            let mut error = Error::default();
            error.add(&cells, &[head(boxes, classes)]);
            error.value().unwrap()
        };
        // Each of four sides is off by one of sixteen cells.
        assert!((value(&peaks(5), &classes) - 4.0 / 256.0).abs() < 1e-6);
        assert!(value(&boxes, &[1.0, -9.0, -9.0, -9.0]) > 0.01);
    }
}
