//! `ghostlight inspect`: what a checkpoint or model holds.

use std::io::Write;
use std::path::PathBuf;

use super::error::CliError;
use super::{Outcome, backend};

/// Show what a checkpoint or model holds: layers, sizes, classes, how it was quantised
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ghostlight inspect models/default.safetensors")]
pub struct Args {
    /// Checkpoint (.pt) or model (.safetensors)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Opens the file and describes it.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    std::fs::File::open(&args.file).map_err(|e| CliError::reading(&args.file, &e))?;
    backend::inspect(args, out)?;
    Ok(Outcome::Done)
}
