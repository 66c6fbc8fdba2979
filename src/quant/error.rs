//! What can go wrong in a conversion.

use thiserror::Error;

/// A conversion that cannot be done. The caller adds the checkpoint's name.
#[derive(Debug, Error)]
pub enum QuantError {
    /// The engine has no operation for it.
    #[error(
        "layer `{node}` has {what}, which the engine cannot run; detect with `--engine reference` runs the checkpoint"
    )]
    Unsupported {
        /// The layer.
        node: String,
        /// What it has.
        what: String,
    },
    /// Nothing to calibrate on.
    #[error("none of {tried} calibration pictures could be read; give a folder of JPEG or PNG photographs")]
    NoPictures {
        /// Pictures tried.
        tried: usize,
    },
    /// The reference cannot run it.
    #[error(transparent)]
    Reference(#[from] crate::reference::ReferenceError),
    /// The quantised model does not hold.
    #[error("the converted model: {0}; please report this")]
    Weights(#[from] crate::weights::WeightsError),
    /// The heads cannot be read.
    #[error(transparent)]
    Heads(#[from] crate::vision::HeadsError),
    /// The engine cannot run it.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
}
