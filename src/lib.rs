//! Ghostlight: a YOLOv8 detector for small ARM boards, on memory-mapped int8 weights.
//!
//! # Architecture
//!
//! Modules depend downward only (`tests/structure.rs` checks it):
//!
//! ```text
//! main → cli → { source, vision, engine, quant, reference, sink }
//! quant → { reference, vision, weights, model }        calibration, conversion, error report
//! engine → { weights, kernels, model }                 fuse → plan → arena → execute, int8
//! reference → model                                    the same graph on candle, in f32
//! weights → model                                      the model file: write, validate, map
//! vision → frame                                       decode, letterbox, DFL + NMS, drawing
//! kernels → nothing above them                         one table of SIMD kernels, chosen at run time
//! ```
//!
//! A picture's way: `vision::decode` → `vision::letterbox` into the arena's input →
//! `engine::Engine::run` (steps over one arena, no allocation) → `vision::detect` (DFL, NMS) → `sink`.

pub mod cli;
pub mod detector;
pub mod engine;
pub mod kernels;
pub mod math;
pub mod model;
pub mod quant;
pub mod reference;
pub mod sink;
pub mod source;
pub mod vision;
pub mod weights;
