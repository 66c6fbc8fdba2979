//! `ghostlight convert`: a PyTorch checkpoint becomes an int8 model.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::error::CliError;
use super::{Outcome, backend, convert_report};
use crate::model::blocks::BuildOptions;
use crate::model::checkpoint;
use crate::model::graph::RoutingKind;
use crate::nearest::nearest;
use crate::quant::{self, Progress, QuantError, Request};
use crate::source::files;
use crate::vision::Size;
use crate::weights::{Card, WeightsError, card};

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
#[command(after_help = "Examples:\n  ghostlight convert best.pt -o best.safetensors --calibrate photos/
  \
ghostlight convert state.safetensors --yaml yolov8n.yaml -o best.safetensors --calibrate photos/
  \
ghostlight convert best.pt -o best.safetensors --calibrate photos/ --card 'accuracy=mAP50-95 77'")]
pub struct Args {
    /// Checkpoint as Ultralytics saves it; with --yaml, a state dict as safetensors
    #[arg(value_name = "CKPT.pt")]
    pub checkpoint: PathBuf,
    /// Model file of Ultralytics that describes a state dict; the letter in its name picks the scale
    #[arg(long, value_name = "MODEL.yaml")]
    pub yaml: Option<PathBuf>,
    /// Model file to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Folder of pictures like those the model will see; 100 to 300 are enough
    #[arg(long, value_name = "DIR")]
    pub calibrate: PathBuf,
    /// Size of the network's input in pixels, multiples of 32: N for a square, or HEIGHTxWIDTH
    /// [default: the checkpoint's]
    #[arg(long, value_name = "N|HxW", value_parser = crate::config::parse_size)]
    pub imgsz: Option<Size>,
    /// Routing of DynamicConv layers [default: as found in the checkpoint]
    #[arg(long, value_enum)]
    pub routing: Option<Routing>,
    /// Points of mAP50-95 that int8 may lose, estimated on calibration pictures held back; where it loses
    /// more, parts of the network are kept in f32. `off` only measures
    #[arg(long, value_name = "POINTS|off", default_value = "0.5", value_parser = parse_target)]
    pub target_drop: Target,
    /// Licence of the weights, kept in the model file [default: what the checkpoint says, in Ultralytics' AGPL-3.0]
    #[arg(long, value_name = "TEXT")]
    pub license: Option<String>,
    /// What to say of the model, kept in its file and shown by `models` and `inspect`; may be repeated. Keys:
    /// accuracy, data, origin
    #[arg(long, value_name = "KEY=TEXT", value_parser = parse_entry)]
    pub card: Vec<(String, String)>,
}

/// `--target-drop`: `None` is `off`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target(pub Option<f64>);

fn parse_target(text: &str) -> Result<Target, String> {
    if text == "off" {
        return Ok(Target(None));
    }
    match text.parse::<f64>() {
        Ok(points) if (0.0..=100.0).contains(&points) => Ok(Target(Some(points))),
        _ => Err("give points of mAP50-95 like 0.5, or off".into()),
    }
}

fn parse_entry(text: &str) -> Result<(String, String), String> {
    let keys = || Card::KEYS.join(", ");
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("give KEY=TEXT; the keys are {}", keys()))?;
    if !Card::KEYS.contains(&key) {
        return Err(match nearest(key, Card::KEYS.into_iter()) {
            Some(near) => format!("no key '{key}'; did you mean '{near}'?"),
            None => format!("no key '{key}'; the keys are {}", keys()),
        });
    }
    card::check_text(value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The entries as a card; a key given twice is an error.
fn card(entries: &[(String, String)]) -> Result<Card, CliError> {
    let mut card = Card::default();
    for (key, text) in entries {
        let entry = card.entry(key).ok_or_else(|| CliError::Internal(format!("--card {key} is no entry")))?;
        if entry.replace(text.clone()).is_some() {
            return Err(CliError::Usage(format!("--card: '{key}' is given twice; give it once")));
        }
    }
    Ok(card)
}

impl From<Routing> for RoutingKind {
    fn from(routing: Routing) -> Self {
        match routing {
            Routing::Sigmoid => RoutingKind::Sigmoid,
            Routing::Softmax => RoutingKind::Softmax,
        }
    }
}

/// Most calibration pictures used; more of a folder are thinned out evenly.
const MOST_PICTURES: usize = 256;

/// Converts, writes the model, prints the report.
pub fn run(args: &Args, quiet: bool, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let card = card(&args.card)?;
    let (file, hash) = open_hashed(&args.checkpoint)?;
    let options = BuildOptions { routing: args.routing.map(RoutingKind::from) };
    let graph = match &args.yaml {
        None => checkpoint::read(BufReader::new(file), options),
        Some(yaml) => {
            let text = std::fs::read_to_string(yaml).map_err(|e| CliError::reading(yaml, &e))?;
            checkpoint::read_state(file, &text, &yaml.to_string_lossy(), options)
        }
    };
    let graph = graph.map_err(|e| CliError::data(&args.checkpoint, &e))?;
    let pictures = pictures(&args.calibrate)?;
    let size = args.imgsz.map_or(graph.info.input_size, |s| [s.height, s.width]);
    let request = Request {
        pictures: &pictures,
        size,
        source_sha256: hash,
        license: args.license.clone().unwrap_or_else(|| stated(&graph.info.license)),
        threads: backend::default_threads(),
        target_drop: args.target_drop.0,
    };
    let bar = progress(pictures.len(), quiet);
    let mut converted =
        quant::convert(graph, &request, &mut |state| show(&bar, state)).map_err(|e| fault(args, &e))?;
    bar.finish_and_clear();
    converted.parts.card = card;
    converted.parts.write(&args.output).map_err(|e| match e {
        WeightsError::Io(e) => CliError::writing(&args.output, &e),
        e => CliError::Internal(e.to_string()),
    })?;
    convert_report::write(&converted, &args.output, out)?;
    Ok(Outcome::Done)
}

fn show(bar: &ProgressBar, state: Progress<'_>) {
    match state {
        Progress::Calibrating(done, _) => bar.set_position(done as u64),
        Progress::Trying(what) => {
            bar.set_style(ProgressStyle::default_spinner());
            bar.set_message(what.to_owned());
            bar.tick();
        }
    }
}

fn fault(args: &Args, error: &QuantError) -> CliError {
    match error {
        QuantError::NoPictures { .. } => CliError::data(&args.calibrate, error),
        _ => CliError::data(&args.checkpoint, error),
    }
}

/// An opened checkpoint and its sha256 in hexadecimal. A device or a pipe is refused: it may never end.
fn open_hashed(path: &Path) -> Result<(File, String), CliError> {
    let reading = |e: std::io::Error| CliError::reading(path, &e);
    if !std::fs::metadata(path).map_err(reading)?.is_file() {
        return Err(CliError::data(path, &"not a file; give the .pt file that training wrote"));
    }
    let mut file = File::open(path).map_err(reading)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk).map_err(reading)? {
            0 => break,
            n => hasher.update(&chunk[..n]),
        }
    }
    file.rewind().map_err(reading)?;
    Ok((file, hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !folder.is_dir() {
        return Err(CliError::NoInput {
            subject: folder.display().to_string(),
            cause: "no such folder; --calibrate needs a folder of pictures".into(),
        });
    }
    let inputs = files::list(folder).map_err(|e| CliError::data(folder, &e))?;
    let all: Vec<PathBuf> = inputs.iter().map(|input| input.path().to_path_buf()).collect();
    let count = all.len().min(MOST_PICTURES);
    Ok((0..count).map(|i| all[i * all.len() / count].clone()).collect())
}

/// What is written where a checkpoint says nothing of its licence.
fn stated(license: &str) -> String {
    if license.is_empty() { "not stated".into() } else { license.to_owned() }
}

/// A bar on standard error, at a terminal only.
fn progress(length: usize, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("calibrating {bar:32} {pos}/{len}  {eta} left") {
        bar.set_style(style);
    }
    bar
}
