//! What commands ask of the parts that compute: one trait, and the functions that open them.

use std::io::Write;
use std::path::Path;

use super::args::ModelArgs;
use super::error::CliError;
use super::{convert, inspect};
use crate::vision::{Detection, NmsOptions, Pixels, Size};

/// An opened model, ready to look at pictures.
pub trait Runner {
    /// `NAME@HASH`: the model's name and the start of its file's SHA-256.
    fn model(&self) -> &str;

    /// Class names, by class id.
    fn classes(&self) -> &[String];

    /// Size of the network's input.
    fn input(&self) -> Size;

    /// Name of the kernels in use, or of the reference.
    fn kernel(&self) -> &str;

    /// Threads in use.
    fn threads(&self) -> usize;

    /// Detections in a picture of any size, corners in its pixels.
    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError>;

    /// Time of each layer for one picture, in the order in which they run.
    fn profile(&mut self, picture: Pixels<'_>) -> Result<Vec<LayerTime>, CliError>;
}

/// What [`Runner::detect`] found and how long it took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Detections, the most confident first.
    pub detections: Vec<Detection>,
    /// Milliseconds from RGB to the network's input.
    pub preprocess_ms: f64,
    /// Milliseconds of the network.
    pub inference_ms: f64,
    /// Milliseconds from heads to boxes.
    pub postprocess_ms: f64,
}

/// One layer's share of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerTime {
    /// Its name.
    pub name: String,
    /// Milliseconds.
    pub ms: f64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Multiply-accumulates per second over the kernel's peak, 0 to 1; `None` where the peak is unknown.
    pub peak_share: Option<f64>,
}

/// A set of kernels, for `ghostlight doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelInfo {
    /// Name as `--kernel` takes it.
    pub name: String,
    /// Why it cannot run here; `None` if it can.
    pub obstacle: Option<String>,
    /// Whether it is the one that is chosen without `--kernel`.
    pub chosen: bool,
}

/// Opens a model file for the engine that `args` name.
pub fn open(path: &Path, _args: &ModelArgs) -> Result<Box<dyn Runner>, CliError> {
    Err(absent(&format!("no engine to run {}", path.display())))
}

/// Converts a checkpoint; see [`convert`].
pub fn convert(_args: &convert::Args, _out: &mut dyn Write) -> Result<(), CliError> {
    Err(absent("no converter"))
}

/// Describes a checkpoint or model; see [`inspect`].
pub fn inspect(_args: &inspect::Args, _out: &mut dyn Write) -> Result<(), CliError> {
    Err(absent("no inspector"))
}

/// All kernels of this build.
pub fn kernels() -> Vec<KernelInfo> {
    Vec::new()
}

fn absent(what: &str) -> CliError {
    CliError::Internal(format!("this build has {what}"))
}
