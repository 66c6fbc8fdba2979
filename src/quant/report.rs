//! How far each layer of the int8 engine is from the f32 reference.

use serde::{Deserialize, Serialize};

/// Error of a conversion, layer by layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
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
    /// Signal to quantisation noise of its output, all noise of earlier layers included, in dB.
    pub sqnr_db: f32,
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

    /// Signal to noise ratio in dB; at most 120.
    pub fn sqnr_db(&self) -> f32 {
        if self.noise <= self.signal * 1e-12 {
            return 120.0;
        }
        (10.0 * (self.signal.max(1e-30) / self.noise).log10()) as f32
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
