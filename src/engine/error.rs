//! What can go wrong between a sound model file and its detections.

use thiserror::Error;

/// The engine cannot do what was asked.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The graph does not work for an input size.
    #[error("input {height}x{width} does not fit layer `{node}`; use multiples of 32 for both sides")]
    Size {
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
        /// Layer that cannot take it.
        node: String,
    },
    /// The graph asks for more memory than any detector needs.
    #[error(
        "input {height}x{width} needs {needed} bytes of memory, at most {limit} are taken; use a smaller input"
    )]
    Memory {
        /// Rows asked for.
        height: usize,
        /// Columns asked for.
        width: usize,
        /// Bytes needed; more than can be counted are `usize::MAX`.
        needed: usize,
        /// Most bytes taken.
        limit: usize,
    },
    /// An operation refuses its plan.
    #[error("layer `{node}`: {source}; this is a bug of Ghostlight, please report it")]
    Op {
        /// The layer.
        node: String,
        /// What the operation says.
        source: crate::kernels::ops::OpError,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {cause}; try fewer with --threads")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why.
        cause: String,
    },
}
