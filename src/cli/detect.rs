//! `ghostlight detect`: pictures in, detections out.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{DetectionArgs, ModelArgs};
use super::backend::{self, Answer, Runner};
use super::error::CliError;
use super::{Outcome, model_path, table, tell};
use crate::sink::{Found, Record, Timing, write_record};
use crate::source::files::{self, Input, ListError};
use crate::vision::decode::MAX_FILE_BYTES;
use crate::vision::{self, NmsOptions, Pixels};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line, for programs.
    Jsonl,
    /// For people.
    Table,
}

/// Find objects in picture files and folders
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight detect photo.jpg\n  ghostlight detect photos/ --save annotated --conf 0.4\n  ghostlight detect photos/ --classes person,car > found.jsonl"
)]
pub struct Args {
    /// Picture files, folders of them, or - for one picture on standard input
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Also write the pictures with boxes drawn into this folder
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// How results are printed [default: table at a terminal, else jsonl]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Which detections are kept.
    #[command(flatten)]
    pub detection: DetectionArgs,
    /// Which model, and what runs it.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Opens the model and looks at every input.
pub fn run(args: &Args, quiet: bool, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let path = model_path::find(args.model.model.as_deref())?;
    let mut runner = backend::open(&path, &args.model)?;
    detect_all(args, quiet, runner.as_mut(), out)
}

/// Looks at every input in the order given. One that fails is told and passed over.
fn detect_all(
    args: &Args,
    quiet: bool,
    runner: &mut dyn Runner,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let options = args.detection.options(runner.classes())?;
    let format = args.format.unwrap_or(match io::stdout().is_terminal() {
        true => Format::Table,
        false => Format::Jsonl,
    });
    let inputs = list(&args.inputs);
    let mut album = args.save.as_deref().map(Album::open).transpose()?;
    let bar = progress(inputs.len(), quiet);
    let device = device_name();
    let mut codes = Vec::new();
    for (seq, input) in inputs.iter().enumerate() {
        let started = Started { at: Instant::now(), wall: SystemTime::now() };
        let result = match input {
            Ok(input) => look(input, runner, &options),
            Err(refused) => Err(refused.error()),
        };
        let source = match input {
            Ok(input) => input.name(),
            Err(refused) => refused.argument.display().to_string(),
        };
        let print = |outcome: Result<Found<'_>, &str>, out: &mut dyn Write| {
            let record = Record {
                device: &device,
                source: &source,
                seq: seq as u64,
                captured_at: started.wall,
                // Not the wall clock again: it may be set while a picture is computed.
                published_at: started.wall + started.at.elapsed(),
                model: runner.model(),
                classes: runner.classes(),
                outcome,
                dropped_frames: 0,
            };
            bar.suspend(|| match format {
                Format::Jsonl => write_record(out, &record),
                Format::Table => table::write(out, &record),
            })
        };
        match result {
            Ok(look) => {
                let timing = look.timing(started.at.elapsed());
                let image = Pixels::from(&look.image).size;
                print(Ok(Found { image, detections: &look.answer.detections, timing }), out)?;
                if let (Some(album), Ok(input)) = (&mut album, input) {
                    album.add(input, look, runner.classes())?;
                }
            }
            Err(error) => {
                codes.push(error.exit());
                print(Err(&error.cause()), out)?;
                bar.suspend(|| tell(&error));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(match codes.first() {
        None => Outcome::Done,
        Some(&first) if codes.len() == inputs.len() => Outcome::AllFailed(first),
        Some(_) => Outcome::SomeFailed,
    })
}

/// When a picture was begun, by both clocks.
struct Started {
    at: Instant,
    wall: SystemTime,
}

/// A picture that was looked at.
struct Look {
    image: RgbImage,
    decode: Duration,
    answer: Answer,
}

impl Look {
    fn timing(&self, total: Duration) -> Timing {
        Timing {
            decode: ms(self.decode),
            preprocess: self.answer.preprocess_ms,
            inference: self.answer.inference_ms,
            postprocess: self.answer.postprocess_ms,
            total: ms(total),
        }
    }
}

/// An argument that means no picture at all.
struct Refused {
    argument: PathBuf,
    cause: ListError,
}

impl Refused {
    fn error(&self) -> CliError {
        match &self.cause {
            ListError::Read(error) => CliError::reading(&self.argument, error),
            cause @ ListError::NoPicture => {
                CliError::NoInput { subject: self.argument.display().to_string(), cause: cause.to_string() }
            }
        }
    }
}

fn list(arguments: &[PathBuf]) -> Vec<Result<Input, Refused>> {
    let mut inputs = Vec::new();
    for argument in arguments {
        match files::list(argument) {
            Ok(found) => inputs.extend(found.into_iter().map(Ok)),
            Err(cause) => inputs.push(Err(Refused { argument: argument.clone(), cause })),
        }
    }
    inputs
}

fn look(input: &Input, runner: &mut dyn Runner, options: &NmsOptions) -> Result<Look, CliError> {
    let started = Instant::now();
    let image = match input {
        Input::File(path) => vision::decode_image(path),
        Input::Stdin => {
            let mut bytes = Vec::new();
            io::stdin()
                .lock()
                .take(MAX_FILE_BYTES)
                .read_to_end(&mut bytes)
                .map_err(vision::DecodeError::Read)
                .and_then(|_| vision::decode_bytes(&bytes))
        }
    }
    .map_err(|error| CliError::picture(input.path(), &error))?;
    let decode = started.elapsed();
    let answer = runner.detect(Pixels::from(&image), options)?;
    Ok(Look { image, decode, answer })
}

/// The folder of annotated pictures.
struct Album {
    folder: PathBuf,
    taken: HashSet<String>,
}

impl Album {
    fn open(folder: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(folder).map_err(|error| CliError::writing(folder, &error))?;
        Ok(Self { folder: folder.to_path_buf(), taken: HashSet::new() })
    }

    /// Draws on the picture and saves it; never over its source.
    fn add(&mut self, input: &Input, mut look: Look, classes: &[String]) -> Result<(), CliError> {
        let name = self.name(input);
        let target = self.folder.join(name);
        let same =
            |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if same(&target, input.path()) {
            return Err(CliError::Usage(format!(
                "--save {}: this would overwrite {}; choose another folder",
                self.folder.display(),
                input.name()
            )));
        }
        vision::draw_detections(&mut look.image, &look.answer.detections, classes);
        vision::save_image(&look.image, &target).map_err(|error| CliError::saving(&target, &error))
    }

    /// The source's file name; one that was used already (from another folder) gets `-2`, `-3`, ….
    fn name(&mut self, input: &Input) -> String {
        let path = match input {
            Input::File(path) => path.as_path(),
            Input::Stdin => Path::new("stdin.jpg"),
        };
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let stem = part(path.file_stem());
        let extension = match part(path.extension()) {
            known if matches!(known.to_lowercase().as_str(), "jpg" | "jpeg" | "png" | "webp" | "bmp") => {
                known
            }
            _ => "jpg".into(),
        };
        let mut name = format!("{stem}.{extension}");
        let mut count = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{stem}-{count}.{extension}");
            count += 1;
        }
        name
    }
}

/// A bar on standard error, if somebody watches and the results do not fill the same terminal.
fn progress(inputs: usize, quiet: bool) -> ProgressBar {
    if inputs < 2 || quiet || !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {eta} left");
    ProgressBar::new(inputs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The host's name.
fn device_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
