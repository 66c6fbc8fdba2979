//! The model file: a safetensors container whose int8 tensors are used where they lie in the map.
//!
//! - [`graph`]: the quantised graph and the tensors that each node owns;
//! - [`mod@header`]: what a file says of itself, checked, its tensors unread;
//! - [`mod@file`]: opening, with every number checked before use;
//! - [`card`]: what people say of a model;
//! - [`mod@write`]: writing, by way of a temporary file, fsync and rename.
//!
//! # Format 1
//!
//! Metadata (`__metadata__`): `ghostlight.format` = `1`, `ghostlight.layout` = `n16k4`,
//! `ghostlight.graph` ([`graph::QGraph`] as JSON), `ghostlight.info`
//! ([`crate::model::graph::ModelInfo`] as JSON), `ghostlight.report` (the conversion's error report),
//! `ghostlight.source_sha256`, `ghostlight.weights_license`, and where there is one `ghostlight.card`
//! ([`card::Card`] as JSON, which older programs pass over). Tensor data start at a multiple of 64 and
//! each tensor is a multiple of 64 bytes long, so that each lies aligned in the map.
//!
//! Layers may be f32 ([`graph::QOp::FloatConv`] and what follows from it). Files without them are as they
//! were before there were any; a program from then refuses a file with them by the operation's name.

pub mod card;
mod check;
pub mod error;
pub mod file;
pub mod graph;
pub mod header;
pub mod write;

pub use card::Card;
pub use error::WeightsError;
pub use file::Model;
pub use header::Header;
