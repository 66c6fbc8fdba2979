//! `ghostlight convert`: a PyTorch checkpoint becomes an int8 model.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;

use super::error::CliError;
use super::{Outcome, backend};
use crate::vision::Size;

/// How a DynamicConv's routing logits become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Routing {
    /// Each expert alone (CondConv).
    Sigmoid,
    /// Experts compete (ParameterNet's text).
    Softmax,
}

/// Convert a YOLOv8 checkpoint to an int8 model, with an error report for each layer
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ghostlight convert best.pt -o best.safetensors --calibrate photos/")]
pub struct Args {
    /// Checkpoint as Ultralytics saves it
    #[arg(value_name = "CKPT.pt")]
    pub checkpoint: PathBuf,
    /// Model file to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Folder of pictures like those the model will see; 100 to 300 are enough
    #[arg(long, value_name = "DIR")]
    pub calibrate: PathBuf,
    /// Size of the network's input in pixels, multiples of 32: N for a square, or HEIGHTxWIDTH
    /// [default: the checkpoint's]
    #[arg(long, value_name = "N|HxW", value_parser = super::args::parse_size)]
    pub imgsz: Option<Size>,
    /// Routing of DynamicConv layers [default: as found in the checkpoint]
    #[arg(long, value_enum)]
    pub routing: Option<Routing>,
}

/// Checks the inputs, converts, prints the report.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    std::fs::File::open(&args.checkpoint).map_err(|e| CliError::reading(&args.checkpoint, &e))?;
    if !args.calibrate.is_dir() {
        return Err(CliError::NoInput {
            subject: args.calibrate.display().to_string(),
            cause: "no such folder; --calibrate needs a folder of pictures".into(),
        });
    }
    backend::convert(args, out)?;
    Ok(Outcome::Done)
}
