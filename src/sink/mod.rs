//! Where detections go.

pub mod file;
pub mod jsonl;
pub mod mqtt;
pub mod time;

pub use jsonl::{Found, Record, Timing, write_record};
