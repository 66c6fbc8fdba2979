//! How good an int8 model is on pictures that it was not calibrated on, by the reference's answers.

use std::sync::Arc;

use super::QuantError;
use super::report::{Noise, RawNoise};
use super::seen::{Cell, Error, cells, mean_bin};
use super::worlds;
use crate::detector::{levels, reference_level};
use crate::engine::Engine;
use crate::kernels::{self, store};
use crate::math;
use crate::reference::{Level, Reference};
use crate::vision::{Detection, Detector, HeadLevel, NmsOptions, Placement, REG_MAX, Size};
use crate::weights::Model;
use crate::weights::write::ModelParts;

/// What counts as the reference's equal where the pictures show no objects: 28 dB as a power ratio, so that other
/// pictures have 25.
const CLEAR: f64 = 630.957_344;

/// Pictures with the reference's answers to them.
#[derive(Debug)]
pub struct HeldOut {
    size: [usize; 2],
    classes: usize,
    threads: usize,
    /// `[height, width, 3]` bytes each.
    inputs: Vec<Vec<u8>>,
    answers: Vec<Vec<Answer>>,
    detections: Vec<Vec<Detection>>,
    cells: Vec<Vec<Cell>>,
}

/// The reference's answer at one level of the head, with what is read from its logits.
#[derive(Debug)]
struct Answer {
    level: Level,
    sides: Vec<f32>,
    scores: Vec<f32>,
}

/// How far a model is from the reference.
#[derive(Debug, Clone, Copy)]
pub struct Quality {
    /// Points of mAP50-95 that it loses, estimated; `None` where the pictures show too little.
    pub drop: Option<f64>,
    /// Noise of the raw outputs.
    pub raw: RawNoise,
    /// Noise to signal where the reference sees something, or of all raw outputs where it sees nothing: the less
    /// the better.
    pub error: f64,
}

impl Quality {
    /// Whether it loses at most `points`; without objects, whether all raw outputs are clear.
    pub fn meets(&self, points: f64) -> bool {
        match self.drop {
            Some(drop) => drop <= points,
            None => self.raw.parts().iter().all(|noise| noise.ratio() >= CLEAR),
        }
    }
}

impl HeldOut {
    /// Asks the reference about pictures, `[height, width, 3]` bytes each.
    ///
    /// # Errors
    /// [`QuantError`] where it cannot run.
    pub fn new(
        reference: &Reference,
        inputs: Vec<Vec<u8>>,
        size: [usize; 2],
        classes: usize,
        threads: usize,
    ) -> Result<Self, QuantError> {
        let mut held = Self {
            size,
            classes,
            threads,
            inputs,
            answers: Vec::new(),
            detections: Vec::new(),
            cells: Vec::new(),
        };
        for input in &held.inputs {
            let levels = reference.run_u8(input, size[0], size[1])?.levels;
            let heads: Vec<HeadLevel<'_>> = levels.iter().map(reference_level).collect();
            held.detections.push(held.detect(&heads)?);
            held.cells.push(cells(&heads));
            let answer =
                |level: Level| Answer { sides: sides(&level.boxes), scores: scores(&level.classes), level };
            held.answers.push(levels.into_iter().map(answer).collect());
        }
        Ok(held)
    }

    /// The pictures, `[height, width, 3]` bytes each.
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Runs a model over the pictures.
    ///
    /// # Errors
    /// [`QuantError`] where it cannot run.
    pub fn measure(&self, parts: &ModelParts) -> Result<Quality, QuantError> {
        let model = Arc::new(Model::from_bytes(&parts.to_bytes()?)?);
        let mut engine = Engine::new(model, kernels::detect::best(), self.threads)?;
        let (mut raw, mut error, mut found) = (RawNoise::default(), Error::default(), Vec::new());
        for ((input, answer), cells) in self.inputs.iter().zip(&self.answers).zip(&self.cells) {
            fill(&mut engine, input);
            engine.run()?;
            let (heads, count) = levels(&engine);
            let heads = &heads[..count];
            heads.iter().zip(answer).for_each(|(head, answer)| compare(head, answer, &mut raw));
            error.add(cells, heads);
            found.push(self.detect(heads)?);
        }
        let error = error.value().unwrap_or_else(|| raw.error());
        Ok(Quality { drop: worlds::drop(&self.detections, &found), raw, error })
    }

    fn detect(&self, levels: &[HeadLevel<'_>]) -> Result<Vec<Detection>, QuantError> {
        let size = Size { width: self.size[1], height: self.size[0] };
        let options = NmsOptions { confidence: 0.001, multi_label: true, ..NmsOptions::default() };
        Ok(Detector::new().run(levels, self.classes, &Placement::new(size, size), &options)?.to_vec())
    }
}

fn compare(head: &HeadLevel<'_>, answer: &Answer, raw: &mut RawNoise) {
    raw.box_logits.add(&answer.level.boxes, head.boxes);
    raw.class_logits.add(&answer.level.classes, head.classes);
    raw.box_sides.add(&answer.sides, &sides(head.boxes));
    raw.scores.add(&answer.scores, &scores(head.classes));
}

/// Puts a picture, `[height, width, 3]` bytes, into an engine's input.
pub fn fill(engine: &mut Engine, input: &[u8]) {
    for (to, from) in engine.input_mut().chunks_exact_mut(4).zip(input.chunks_exact(3)) {
        to[..3].iter_mut().zip(from).for_each(|(t, &f)| *t = store(f));
    }
}

/// Distances to the four sides in cells: the mean of each distribution.
fn sides(logits: &[f32]) -> Vec<f32> {
    logits.chunks_exact(REG_MAX).map(|bins| mean_bin(bins) as f32).collect()
}

fn scores(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|&v| math::sigmoid(f64::from(v)) as f32).collect()
}

impl RawNoise {
    fn parts(&self) -> [&Noise; 4] {
        [&self.box_logits, &self.class_logits, &self.box_sides, &self.scores]
    }

    /// Noise to signal of boxes and classes together: the less the better.
    fn error(&self) -> f64 {
        1.0 / self.box_logits.ratio() + 1.0 / self.class_logits.ratio()
    }
}
