//! Ghostlight: a YOLOv8 detector for small ARM boards, on memory-mapped int8 weights.
//!
//! # Architecture
//!
//! Modules depend downward only (`tests/structure.rs` checks it):
//!
//! ```text
//! main → cli → everything below
//! daemon → { config, events, metrics, sink, source }   capture → newest frame → detections → sinks; systemd
//! config → { detector, events, sink, vision }   TOML, environment and flags, checked at once
//! quant → { detector, reference, engine, eval } calibration, conversion, ladder, error report
//! eval → { model, source, vision }               datasets, average precision, two engines compared
//! detector → { engine, reference, vision }      a picture in, boxes out: the path of every command
//! engine → { weights, kernels }                 plan → arena → execute, int8; engine::cuda: the same on a GPU
//! reference → model                             the same graph on candle, in f32
//! weights → { model, kernels }                  the model file: write, validate, map
//! metrics → { sink, vision }                    counters, health, last picture, over HTTP on loopback
//! events → vision                               zones, thresholds, presence: from detections to events
//! source, sink → { frame, vision }              where pictures come from, where detections go
//! vision → { kernels, frame }                   decode, letterbox, DFL + NMS, drawing
//! model → math                                  YAML and checkpoints → graph of about ten operations
//! nearest, backoff → nothing                    "did you mean …?", delays between attempts
//! frame → nothing                               one picture of a live source
//! kernels → nothing above them                  one table of SIMD kernels, chosen at run time
//! ```
//!
//! A picture's way: `vision::Pixels` (a camera's layout, or what `vision::decode` gives) → `vision::letterbox`, row by
//! row through `kernels::rows`, into the arena's input →
//! `engine::Engine::run` (steps over one arena, no allocation) → `vision::detect` (DFL, NMS) → `sink`.
//! On a GPU `engine::cuda::CudaEngine::run` stands in its place: one CUDA graph, of which only positions above the
//! threshold come back.
//! [`detector::Detector`] holds these together.

pub mod backoff;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod detector;
pub mod engine;
pub mod eval;
pub mod events;
pub mod frame;
pub mod kernels;
pub mod math;
pub mod metrics;
pub mod model;
pub mod nearest;
pub mod quant;
pub mod reference;
pub mod sink;
pub mod source;
pub mod vision;
pub mod weights;
