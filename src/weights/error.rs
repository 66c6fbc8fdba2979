//! What can be wrong with a model file: one variant a fault.

use thiserror::Error;

/// A model file that cannot be used. The caller adds the file's name.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// Reading, mapping or writing failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Too short for a safetensors header.
    #[error("file has {actual} bytes, a model has thousands; copy it again")]
    TooShort {
        /// Bytes in the file.
        actual: usize,
    },
    /// Longer than any model.
    #[error("file has {actual} bytes, a model has at most {most}; give another file")]
    TooLong {
        /// Bytes in the file.
        actual: u64,
        /// Bytes that are read.
        most: u64,
    },
    /// The header's declared length is absurd or runs past the file.
    #[error("header claims {claimed} bytes, the file has {actual}; copy it again")]
    HeaderLength {
        /// Bytes that the header claims.
        claimed: u64,
        /// Bytes in the file.
        actual: usize,
    },
    /// The safetensors container is malformed.
    #[error("not a sound safetensors file ({0}); copy it again or convert the checkpoint anew")]
    Container(String),
    /// A safetensors file of another program.
    #[error("no `{key}` in its metadata: not a Ghostlight model; make one with `ghostlight convert`")]
    NotOurs {
        /// Metadata key looked for.
        key: &'static str,
    },
    /// Written by another version.
    #[error("model format `{found}`, this version reads `{expected}`; convert the checkpoint anew")]
    Format {
        /// What the file says.
        found: String,
        /// What this version reads.
        expected: &'static str,
    },
    /// Metadata that is not what it should be.
    #[error("metadata `{key}`: {cause}; convert the checkpoint anew")]
    Metadata {
        /// Metadata key.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// A node contradicts itself or its inputs.
    #[error("layer `{node}`: {cause}; convert the checkpoint anew")]
    Node {
        /// The node's name.
        node: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A tensor is absent.
    #[error("tensor `{name}` is missing; convert the checkpoint anew")]
    MissingTensor {
        /// Full name.
        name: String,
    },
    /// A tensor has another type or length than its node needs.
    #[error("tensor `{name}` is {found}, its layer needs {expected}; convert the checkpoint anew")]
    TensorShape {
        /// Full name.
        name: String,
        /// What the file has.
        found: String,
        /// What the graph asks for.
        expected: String,
    },
    /// A tensor does not lie at a multiple of 64.
    #[error("tensor `{name}` lies at byte {offset}, not at a multiple of 64; convert the checkpoint anew")]
    Misaligned {
        /// Full name.
        name: String,
        /// Byte in the file.
        offset: usize,
    },
    /// A tensor holds a number that no conversion writes.
    #[error("tensor `{name}` holds {value} at {index}, expected {expected}; convert the checkpoint anew")]
    TensorValue {
        /// Full name.
        name: String,
        /// The value.
        value: String,
        /// Its index.
        index: usize,
        /// What is allowed.
        expected: &'static str,
    },
    /// More tensors than the graph needs.
    #[error("tensor `{name}` belongs to no layer; convert the checkpoint anew")]
    UnknownTensor {
        /// Full name.
        name: String,
    },
}
