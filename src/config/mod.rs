//! The daemon's configuration: TOML, environment and flags → one checked [`Config`].
//!
//! Everything is checked before anything starts, and all faults are told at once. A flag goes before the
//! environment, that before the file, that before the default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

mod network;
pub mod print;
pub mod problem;
mod resolve;
mod rules;
mod scope;
mod sections;
mod size;
pub mod value;

pub use problem::{Place, Problem};
pub use resolve::Watch;
pub use scope::{Entry, Override};
pub use size::parse_size;

/// Threads that may be asked for, in the configuration and by flags.
pub const MAX_THREADS: usize = 1024;

use scope::{Findings, Scope};

use crate::events;
use crate::frame::PixelFormat;
use crate::sink::mqtt;
use crate::vision::Size;

/// Environment variable that names the file.
pub const VARIABLE: &str = "GHOSTLIGHT_CONFIG";
/// Where the file lies when nobody says so.
pub const USUAL: &str = "/etc/ghostlight/ghostlight.toml";
/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// The fastest that works here.
    Auto,
    /// int8 on the CPU.
    Cpu,
    /// int8 on an NVIDIA GPU.
    Cuda,
    /// f32 on the CPU, slow: the yardstick for the others.
    Reference,
}

/// All that the daemon is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of this device; `None` is the host's.
    pub device: Option<String>,
    /// The network.
    pub model: Model,
    /// Which detections are kept.
    pub detection: Detection,
    /// Where pictures come from.
    pub source: Source,
    /// JSON lines.
    pub jsonl: Jsonl,
    /// The broker; `None` without one. The device's name and its classes are added later.
    pub mqtt: Option<mqtt::Options>,
    /// Address of the metrics' server; `None` without one.
    pub metrics: Option<std::net::SocketAddr>,
    /// Whether systemd's watchdog is fed.
    pub watchdog: bool,
    /// When a detection is an event.
    pub events: Events,
}

/// `[model]`, but for what is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The file; `None` searches the usual places.
    pub path: Option<PathBuf>,
    /// Threads that compute; `None` is one per core.
    pub threads: Option<usize>,
    /// What computes.
    pub engine: EngineKind,
    /// Name of the kernels; `None` is the fastest.
    pub kernel: Option<String>,
    /// Size of the network's input; `None` is the model's.
    pub imgsz: Option<Size>,
}

/// Which detections are kept, of `[model]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Least confidence.
    pub conf: f32,
    /// Most overlap of two boxes of a class.
    pub iou: f32,
    /// Most detections per picture.
    pub max_det: usize,
    /// Classes to keep, by name; empty keeps all.
    pub classes: Vec<String>,
}

/// `[jsonl]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jsonl {
    /// Whether lines are written.
    pub enabled: bool,
    /// The file; `-` is standard output.
    pub path: PathBuf,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Device, address, file, folder, or `-`.
    pub address: String,
    /// Layout of pixels to ask for.
    pub format: Option<PixelFormat>,
    /// Pixels in a row to ask for.
    pub width: Option<usize>,
    /// Rows to ask for.
    pub height: Option<usize>,
    /// Most frames a second.
    pub fps: Option<f64>,
    /// Whether files begin anew at their end.
    pub repeat: bool,
}

/// When a detection is an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Frames in a row that make an object present.
    pub min_frames: u32,
    /// Least time between two events of a class.
    pub cooldown: Duration,
    /// Whether a picture is published when a class appears.
    pub snapshot: bool,
    /// Least confidence of classes by name, where it is not the common one.
    pub confidence: Vec<(String, f32)>,
    /// Parts of the picture.
    pub zones: Vec<Zone>,
}

/// A part of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: events::Kind,
    /// Its corners.
    pub points: Vec<events::Point>,
    /// Classes for which it holds, by name; empty is all.
    pub classes: Vec<String>,
}

/// A checked configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Each value with its origin.
    pub entries: Vec<Entry>,
}

/// Reads a configuration: the file at `path` (if any) under the `overrides`.
///
/// # Errors
/// Every fault found.
pub fn load(path: Option<&Path>, overrides: Vec<Override>) -> Result<Loaded, Vec<Problem>> {
    let file = path.map(|path| path.display().to_string());
    let table = match (path, &file) {
        (Some(path), Some(name)) => value::parse(&read(path, name)?, name)?,
        _ => value::Table::new(),
    };
    let mut findings = Findings { file, overrides, ..Findings::default() };
    let config = sections::read(Scope::root(table), &mut findings);
    match findings.problems.is_empty() {
        true => Ok(Loaded { config, entries: findings.entries }),
        false => {
            findings.problems.sort_by_key(|problem| problem.place.line());
            Err(findings.problems)
        }
    }
}

/// The file's path: the flag's, else the variable's, else the usual one where there is one.
pub fn find(flag: Option<&Path>) -> Option<PathBuf> {
    let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from(USUAL)).filter(|path| path.exists());
    flag.map(Path::to_path_buf).or(variable).or_else(usual)
}

/// `[model] path` of a file, without a look at the rest of it.
///
/// # Errors
/// The file cannot be read, or is not TOML.
pub fn model_path(path: &Path) -> Result<Option<PathBuf>, Vec<Problem>> {
    let name = path.display().to_string();
    let table = value::parse(&read(path, &name)?, &name)?;
    let mut findings = Findings { file: Some(name), ..Findings::default() };
    let path = Scope::root(table).section("model", &mut findings).text("path", "", &mut findings);
    match findings.problems.is_empty() {
        true => Ok(path.map(PathBuf::from)),
        false => Err(findings.problems),
    }
}

fn read(path: &Path, name: &str) -> Result<String, Vec<Problem>> {
    let problem = |cause: String| {
        let place = Place::File { file: name.to_owned(), line: 1 };
        vec![Problem { place, key: String::new(), cause }]
    };
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => problem("no such file; check --config".into()),
        std::io::ErrorKind::InvalidData => problem("not UTF-8 text; save it as such".into()),
        _ => problem(format!("cannot be read: {error}")),
    };
    // Asked before opening: to open a pipe is to wait for its other end.
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(problem("not a configuration file; check --config".into()));
    }
    std::fs::read_to_string(path).map_err(io)
}

#[cfg(test)]
mod tests;
