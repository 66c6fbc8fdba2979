//! `ghostlight run`: the daemon.

use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::{EngineKind, ModelArgs, parse_fraction};
use super::backend::{self, Runner};
use super::error::{CliError, Exit};
use super::{Outcome, model_path, tell};
use crate::config::value::Value;
use crate::config::{self, Loaded, Override, Place, Problem, parse_size};
use crate::daemon::{self, End, Host, Look, Network, Opened, Opener, StageTimes, StartError};
use crate::source::{self, SourceOptions};
use crate::vision::{NmsOptions, Pixels, Size};

/// Watch a camera or stream until SIGTERM: JSON lines, MQTT, metrics
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight run --source /dev/video0\n  ghostlight run --config ghostlight.toml --check\n  rpicam-vid -t 0 --codec mjpeg -o - | ghostlight run --source -\n\nSIGHUP reads the configuration again. 'ghostlight run --print-config' shows every key."
)]
pub struct Args {
    /// Configuration file [default: $GHOSTLIGHT_CONFIG, then /etc/ghostlight/ghostlight.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only check the configuration, the model and its classes
    #[arg(long, conflicts_with = "print_config")]
    pub check: bool,
    /// Print the effective configuration, and where each value comes from
    #[arg(long)]
    pub print_config: bool,
    /// Name of this device [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Camera, address, file, folder of pictures, or - for standard input [default: /dev/video0]
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// Most pictures a second [default: as many as come]
    #[arg(long, value_name = "N")]
    pub fps: Option<f64>,
    /// Model file [default: $GHOSTLIGHT_MODEL, then the configuration's, then the usual places]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Least confidence, 0 to 1 [default: 0.25]
    #[arg(long, value_name = "P", value_parser = parse_fraction)]
    pub conf: Option<f32>,
    /// Most overlap of two boxes of one class, 0 to 1 [default: 0.7]
    #[arg(long, value_name = "P", value_parser = parse_fraction)]
    pub iou: Option<f32>,
    /// Most detections per picture [default: 300]
    #[arg(long, value_name = "N")]
    pub max_det: Option<u32>,
    /// Keep only these classes, by name
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Size of the network's input in pixels: one number, or HEIGHTxWIDTH [default: the model's]
    #[arg(long, value_name = "N|HxW", value_parser = parse_size)]
    pub imgsz: Option<Size>,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// What computes [default: auto]
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub engine: Option<EngineKind>,
    /// Force one set of kernels
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

/// Size of most networks' input, until the model is open.
pub(super) const INPUT: Size = Size { width: 640, height: 640 };

/// Checks everything, then runs the daemon.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let mut command = Command { args: args.clone(), last: None, input: Arc::new(Mutex::new(INPUT)) };
    let loaded = match command.read() {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(tell_all(&problems)),
    };
    if args.print_config {
        config::print::write(&loaded.entries, out)?;
        return Ok(Outcome::Done);
    }
    let opened = match command.open(&loaded)? {
        Ok(opened) => opened,
        Err(problems) => return Ok(tell_all(&problems)),
    };
    if args.check {
        writeln!(out, "the configuration is sound")?;
        return Ok(Outcome::Done);
    }
    match daemon::run(loaded, opened, &mut command) {
        Ok(End::Done) => Ok(Outcome::Done),
        Ok(End::Unfit(cause)) => Err(CliError::Unavailable { subject: "source".into(), cause }),
        Ok(End::LinesLost(count)) => Err(CliError::Io {
            subject: "[jsonl] path".into(),
            cause: format!("{count} lines could not be written; make room and run it again"),
        }),
        Err(error) => Err(start_error(error)),
    }
}

fn tell_all(problems: &[Problem]) -> Outcome {
    for problem in problems {
        tell(problem);
    }
    Outcome::AllFailed(Exit::Config)
}

fn start_error(error: StartError) -> CliError {
    let subject = "configuration".to_owned();
    match error {
        StartError::Lines { path, error } => CliError::writing(&path, &error),
        StartError::Mqtt(cause) => CliError::Config { subject, cause: format!("[mqtt] {cause}") },
        StartError::Metrics(cause) => CliError::Config { subject, cause: format!("[metrics] {cause}") },
        StartError::Rules(cause) => CliError::Config { subject, cause: cause.to_string() },
        StartError::System(cause) => {
            CliError::Unavailable { subject: "system".into(), cause: cause.to_string() }
        }
    }
}

/// What a model was opened from: the same again needs no opening.
#[derive(Debug, Clone, PartialEq)]
struct Origin {
    model: config::Model,
    path: PathBuf,
    /// Device, inode, length and time of the last change.
    identity: (u64, u64, u64, i64, i64),
    classes: Vec<String>,
}

/// The command line, which every reading of the configuration uses anew.
struct Command {
    args: Args,
    last: Option<Origin>,
    /// Size of the network's input, which a camera's size is chosen for.
    input: Arc<Mutex<Size>>,
}

impl Command {
    fn read(&self) -> Result<Loaded, Vec<Problem>> {
        config::load(config::find(self.args.config.as_deref()).as_deref(), self.overrides())
    }

    /// Flags, and the environment where no flag stands.
    fn overrides(&self) -> Vec<Override> {
        let args = &self.args;
        let path = |path: &PathBuf| Value::Text(path.display().to_string());
        let text = |text: &String| Value::Text(text.clone());
        let size = |s: Size| Value::Text(format!("{}x{}", s.height, s.width));
        let engine = |kind: EngineKind| {
            let value = clap::ValueEnum::to_possible_value(&kind);
            Value::Text(value.map_or_else(String::new, |v| v.get_name().to_owned()))
        };
        let classes = (!args.classes.is_empty()).then(|| Value::texts(&args.classes));
        let flags = [
            ("", "device", "--device", args.device.as_ref().map(text)),
            ("source", "url", "--source", args.source.as_ref().map(text)),
            ("source", "fps", "--fps", args.fps.map(Value::Number)),
            ("model", "path", "--model", args.model.as_ref().map(path)),
            ("model", "conf", "--conf", args.conf.map(|n| Value::Number(shortest(n)))),
            ("model", "iou", "--iou", args.iou.map(|n| Value::Number(shortest(n)))),
            ("model", "max_det", "--max-det", args.max_det.map(|n| Value::Whole(n.into()))),
            ("model", "classes", "--classes", classes),
            ("model", "imgsz", "--imgsz", args.imgsz.map(size)),
            ("model", "threads", "--threads", args.threads.map(|n| Value::Whole(n.get() as i64))),
            ("model", "engine", "--engine", args.engine.map(engine)),
            ("model", "kernel", "--kernel", args.kernel.as_ref().map(text)),
        ];
        let mut overrides: Vec<Override> = flags
            .into_iter()
            .filter_map(|(section, key, flag, value)| {
                Some(Override { section, key, value: value?, place: Place::Flag(flag) })
            })
            .collect();
        overrides.extend(model_variable().filter(|_| args.model.is_none()));
        overrides
    }

    /// Opens the model, unless it is the one that was opened last, and looks its classes up.
    fn open(&mut self, loaded: &Loaded) -> Result<Result<Opened, Vec<Problem>>, CliError> {
        let model = &loaded.config.model;
        let path = find_model(loaded)?;
        let identity = identity(&path)?;
        let same = |last: &Origin| last.model == *model && last.path == path && last.identity == identity;
        if let Some(last) = self.last.as_ref().filter(|last| same(last)) {
            return Ok(loaded.watch(&last.classes).map(|watch| Opened { network: None, watch }));
        }
        let runner = open_model(&path, model)?;
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = runner.input();
        let classes = runner.classes().to_vec();
        Ok(loaded.watch(&classes).map(|watch| {
            self.last = Some(Origin { model: model.clone(), path, identity, classes });
            Opened { network: Some(Box::new(Adapter(runner))), watch }
        }))
    }
}

/// The environment's model, which goes before the file's.
pub(super) fn model_variable() -> Option<Override> {
    let path = std::env::var_os(model_path::VARIABLE).filter(|path| !path.is_empty())?;
    Some(Override {
        section: "model",
        key: "path",
        value: Value::Text(PathBuf::from(path).display().to_string()),
        place: Place::Environment(model_path::VARIABLE),
    })
}

/// The model's file.
pub(super) fn find_model(loaded: &Loaded) -> Result<PathBuf, CliError> {
    match &loaded.config.model.path {
        // The variable's own search says in its error that it is the variable's.
        Some(_) if loaded.place("[model]", "path") == Place::Environment(model_path::VARIABLE) => {
            model_path::find(None)
        }
        Some(path) => model_path::find(Some(path)),
        None => model_path::usual(),
    }
}

/// Opens the model as the configuration asks.
pub(super) fn open_model(path: &Path, model: &config::Model) -> Result<Box<dyn Runner>, CliError> {
    let args = ModelArgs {
        model: None,
        imgsz: model.imgsz,
        threads: model.threads.and_then(NonZeroUsize::new),
        engine: model.engine,
        kernel: model.kernel.clone(),
    };
    backend::open_copied(path, &args)
}

/// What the configuration asks of its source, for a network of this input.
pub(super) fn source_options(config: &config::Source, want: Size) -> SourceOptions {
    SourceOptions {
        from: config.address.clone(),
        format: config.format,
        width: config.width,
        height: config.height,
        fps: config.fps,
        want,
        repeat: config.repeat,
        player: None,
    }
}

/// The number that prints like this one: `0.1f32` is not `0.1` in f64.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn identity(path: &Path) -> Result<(u64, u64, u64, i64, i64), CliError> {
    let meta = std::fs::metadata(path).map_err(|error| CliError::reading(path, &error))?;
    Ok((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

impl Host for Command {
    fn load(&mut self) -> Result<Loaded, Vec<String>> {
        self.read().map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn open_model(&mut self, loaded: &Loaded) -> Result<Opened, Vec<String>> {
        match self.open(loaded) {
            Ok(opened) => opened.map_err(|problems| problems.iter().map(ToString::to_string).collect()),
            Err(error) => Err(vec![error.to_string()]),
        }
    }

    fn forget_model(&mut self) {
        self.last = None;
    }

    fn opener(&self) -> Opener {
        let input = Arc::clone(&self.input);
        Box::new(move |config| {
            let want = *input.lock().unwrap_or_else(PoisonError::into_inner);
            source::open(&source_options(config, want))
        })
    }
}

/// The command line's networks as the daemon's.
struct Adapter(Box<dyn Runner>);

impl Network for Adapter {
    fn id(&self) -> &str {
        self.0.model()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Look, String> {
        let answer = self.0.detect(picture, options).map_err(|error| error.to_string())?;
        let times = StageTimes {
            preprocess: ms(answer.preprocess_ms),
            inference: ms(answer.inference_ms),
            postprocess: ms(answer.postprocess_ms),
            ..StageTimes::default()
        };
        Ok(Look { detections: answer.detections, times })
    }
}

fn ms(milliseconds: f64) -> std::time::Duration {
    std::time::Duration::from_secs_f64(milliseconds / 1e3)
}
