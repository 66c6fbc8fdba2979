//! From a checkpoint to an int8 model: calibration, quantisation, error report.
//!
//! Ranges come from the f32 reference over calibration pictures. Every activation channel gets a step
//! and a zero point of its own; the next convolution's weights take the steps in before they are
//! rounded, so that per-channel activations cost nothing at run time.
//!
//! Nodes may stay f32: those that int8 has no operation for ([`forced_float`]), and those that a caller of
//! [`quantise()`] names.

mod calibrate;
pub mod convert;
pub mod error;
mod float;
pub mod gate;
mod held_out;
mod ladder;
mod quantise;
pub mod ranges;
pub mod report;
mod seen;
pub mod weights;
pub mod worlds;

pub use convert::{Converted, Progress, Request, convert};
pub use error::QuantError;
pub use float::{check, forced_float};
pub use quantise::{Quantised, quantise};
