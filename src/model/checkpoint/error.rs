//! Why a file is no checkpoint that can be converted.

use thiserror::Error;

use crate::model::blocks::BuildError;
use crate::model::pickle::PickleError;
use crate::model::spec::SpecError;

/// One variant a fault; the caller adds the file's name.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The system refuses to read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Larger than any checkpoint of a detector.
    #[error(
        "{found} bytes, a checkpoint of YOLOv8x with its optimizer has a quarter of {limit}; is it the right file?"
    )]
    TooLarge {
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// No zip archive.
    #[error(
        "not a PyTorch checkpoint (no zip archive): {found}; save the model with torch.save of PyTorch 1.6 or later"
    )]
    NotZip {
        /// What it looks like.
        found: &'static str,
    },
    /// A zip archive that is broken.
    #[error("the zip archive is damaged ({reason}); copy the file again")]
    Zip {
        /// What the zip reader says.
        reason: String,
    },
    /// More entries than any checkpoint.
    #[error("the archive claims {found} entries, at most {limit} are read; is it the right file?")]
    TooManyEntries {
        /// Entries claimed.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An entry that is compressed.
    #[error(
        "entry `{entry}` is compressed, PyTorch stores entries as they are; save the model again with torch.save"
    )]
    Compressed {
        /// The entry.
        entry: String,
    },
    /// An entry that claims more than it may have.
    #[error("entry `{entry}` claims {found} bytes, at most {limit} are possible; the file is damaged")]
    EntryTooLarge {
        /// The entry.
        entry: String,
        /// Bytes claimed.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An archive without what every checkpoint has.
    #[error("the archive has no `data.pkl`: {found}; give the .pt file that training wrote")]
    NoPickle {
        /// What it looks like.
        found: &'static str,
    },
    /// Saved on a big-endian machine.
    #[error("saved on a {found}-endian machine; save it again on a little-endian one")]
    ByteOrder {
        /// What the file says.
        found: String,
    },
    /// The pickle cannot be read.
    #[error("data.pkl: {0}")]
    Pickle(#[from] PickleError),
    /// Tensors without a model.
    #[error(
        "holds tensors alone (a state dict), without the module tree, yaml and names; save the whole checkpoint as Ultralytics does, torch.save({{'model': model}}, …), or the tensors as safetensors and give the model file with --yaml"
    )]
    StateDictOnly,
    /// A safetensors file that is broken, or none.
    #[error("not a sound safetensors file ({reason}); save the state dict with safetensors.torch.save_file")]
    Safetensors {
        /// What its reader says.
        reason: String,
    },
    /// Neither `ema` nor `model`.
    #[error(
        "no model in it: `ema` and `model` are missing or empty, found {found}; give the .pt file that training wrote"
    )]
    NoModel {
        /// The keys that are there.
        found: String,
    },
    /// More modules, or deeper ones, than any detector.
    #[error("the module tree has more than {limit} {what}; is it the right file?")]
    TooManyModules {
        /// Modules, tensors or levels.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A model of another task.
    #[error("a {found}, only detectors (DetectionModel) can be converted")]
    Task {
        /// The model's class.
        found: String,
    },
    /// No description of the model.
    #[error("the model (a {class}) carries no `yaml` description; save it with Ultralytics 8.0 or later")]
    NoDescription {
        /// The model's class.
        class: String,
    },
    /// The description makes no sense.
    #[error("the model's yaml: {0}")]
    Spec(#[from] SpecError),
    /// As many names as classes there must be.
    #[error("{found} class names for {expected} classes; correct `names` in the checkpoint")]
    Names {
        /// Names there are.
        found: usize,
        /// Classes of the head.
        expected: usize,
    },
    /// The model makes no graph.
    #[error(transparent)]
    Build(#[from] BuildError),
}
