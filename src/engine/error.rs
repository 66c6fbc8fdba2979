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
