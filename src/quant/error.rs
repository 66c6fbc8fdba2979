//! What can go wrong in a conversion.

use thiserror::Error;

/// A conversion that cannot be done. The caller adds the checkpoint's name.
#[derive(Debug, Error)]
pub enum QuantError {
    /// The int8 engine has no operation for it.
    #[error("layer `{node}` has {what}, which the int8 engine cannot run")]
    Unsupported {
        /// The layer.
        node: String,
        /// What it has.
        what: String,
    },
}
