//! How far each layer of the int8 engine is from the f32 reference.

use serde::{Deserialize, Serialize};

use super::ranges::Spread;
use crate::math;

/// Error of a conversion, layer by layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Points of mAP50-95 that the conversion was allowed to lose; `None` where it was only to measure.
    #[serde(default)]
    pub target_drop: Option<f64>,
    /// Points of mAP50-95 that it loses, estimated by [`super::worlds`]; `None` where the held-out pictures
    /// show too little.
    #[serde(default)]
    pub estimated_drop: Option<f64>,
    /// Pictures that drop and raw outputs were measured on, by a model whose ranges had not seen them, if there
    /// were enough.
    #[serde(default)]
    pub held_out_pictures: usize,
    /// Signal to noise of the raw outputs.
    #[serde(default)]
    pub outputs: OutputReport,
    /// How ranges were chosen.
    #[serde(default)]
    pub spread: Spread,
    /// Share of the multiply-accumulates that are done in f32.
    #[serde(default)]
    pub f32_share: f64,
    /// Pictures that the ranges were taken from.
    pub calibration_pictures: usize,
    /// Pictures that the errors were measured on (of the calibration pictures).
    pub measured_pictures: usize,
    /// Input height and width of both.
    pub input_size: [usize; 2],
    /// Layers in execution order.
    pub layers: Vec<LayerReport>,
}

/// One layer's error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Name of the layer.
    pub name: String,
    /// What it computes, in a few words.
    pub op: String,
    /// Whether it is computed in f32.
    #[serde(default)]
    pub f32: bool,
    /// Signal to quantisation noise of its output, all noise of earlier layers included, in dB.
    pub sqnr_db: f32,
}

/// Signal to noise of the raw outputs, boxes and classes apart, in dB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputReport {
    /// Logits of the box distributions.
    pub box_logits_db: f32,
    /// Distances to the box sides.
    pub box_sides_db: f32,
    /// Class logits.
    pub class_logits_db: f32,
    /// Class scores.
    pub scores_db: f32,
}

/// Signal and noise power of the raw outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RawNoise {
    /// Logits of the box distributions.
    pub box_logits: Noise,
    /// Distances to the box sides.
    pub box_sides: Noise,
    /// Class logits.
    pub class_logits: Noise,
    /// Class scores.
    pub scores: Noise,
}

impl RawNoise {
    /// In dB, rounded to hundredths.
    pub fn report(&self) -> OutputReport {
        OutputReport {
            box_logits_db: self.box_logits.sqnr_db(),
            box_sides_db: self.box_sides.sqnr_db(),
            class_logits_db: self.class_logits.sqnr_db(),
            scores_db: self.scores.sqnr_db(),
        }
    }
}

/// Signal and noise power of one layer's output.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Noise {
    signal: f64,
    noise: f64,
}

impl Noise {
    /// Adds one output, f32 and dequantised int8.
    pub fn add(&mut self, reference: &[f32], int8: &[f32]) {
        for (&r, &q) in reference.iter().zip(int8) {
            self.signal += f64::from(r) * f64::from(r);
            self.noise += f64::from(r - q) * f64::from(r - q);
        }
    }

    /// Signal to noise, as a ratio of powers; at most 1e12.
    pub fn ratio(&self) -> f64 {
        if self.noise <= self.signal * 1e-12 { 1e12 } else { self.signal.max(1e-30) / self.noise }
    }

    /// The ratio in dB, rounded to hundredths; at most 120.
    pub fn sqnr_db(&self) -> f32 {
        ((1000.0 * math::log10(self.ratio())).round() / 100.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_db_is_a_tenth() {
        let mut noise = Noise::default();
        noise.add(&[10.0, -10.0], &[11.0, -9.0]);
        assert!((noise.sqnr_db() - 20.0).abs() < 1e-4);
        assert_eq!(Noise::default().sqnr_db(), 120.0);
    }
}
