//! Why a GPU is not used.

use thiserror::Error;

use crate::engine::EngineError;

/// The CUDA engine cannot be used, or stopped.
#[derive(Debug, Error)]
pub enum CudaError {
    /// The driver's library is not there.
    #[error("no NVIDIA driver: none of {tried} can be loaded ({cause})")]
    NoDriver {
        /// File names.
        tried: String,
        /// What the loader says of the last.
        cause: String,
    },
    /// The driver is older than what the engine calls.
    #[error("the NVIDIA driver is too old: it has CUDA {found}, at least {wanted} is needed")]
    OldDriver {
        /// Its version.
        found: String,
        /// The oldest that serves.
        wanted: String,
    },
    /// A library lacks a function.
    #[error("{library} has no {symbol}: it is too old, or not NVIDIA's")]
    Symbol {
        /// File name.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// The driver sees no GPU.
    #[error("the NVIDIA driver finds no GPU ({cause})")]
    NoDevice {
        /// The driver's word.
        cause: String,
    },
    /// The GPU has no 8-bit dot product.
    #[error("{name} has compute capability {found}, at least {wanted} is needed")]
    Capability {
        /// The GPU.
        name: String,
        /// What it has.
        found: String,
        /// The least that serves.
        wanted: String,
    },
    /// There is neither a compiler nor a cache of what it made.
    #[error(
        "the kernels are not compiled yet and NVRTC is not there: none of {tried} can be loaded ({cause}); install \
         CUDA's nvrtc library"
    )]
    NoCompiler {
        /// File names.
        tried: String,
        /// What the loader says of the last.
        cause: String,
    },
    /// NVRTC refuses the kernels.
    #[error("NVRTC {version} does not compile the kernels for {architecture}: {log}")]
    Compile {
        /// Its version.
        version: String,
        /// What was asked for.
        architecture: String,
        /// Its words.
        log: String,
    },
    /// Memory is out.
    #[error("the GPU has no {bytes} bytes of memory left for {what}")]
    Memory {
        /// What for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// More memory than references can address.
    #[error("{what} need {bytes} bytes on the GPU, at most {limit} are taken; use --engine cpu")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The driver refuses a call.
    #[error("{call}: {cause}")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// Its error.
        cause: String,
    },
    /// The graph does not fit the input's size.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
