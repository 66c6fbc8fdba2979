//! From a checkpoint to an int8 model: calibration, quantisation, error report.
//!
//! Ranges come from the candle reference over calibration pictures. Every activation channel gets a step
//! and a zero point of its own; the next convolution's weights take the steps in before they are
//! rounded, so that per-channel activations cost nothing at run time.

pub mod convert;
pub mod error;
pub mod gate;
mod quantise;
pub mod ranges;
pub mod report;
pub mod weights;

pub use convert::{Converted, Request, convert};
pub use error::QuantError;
pub use quantise::{Quantised, quantise};
