//! `ghostlight eval`: how good a model is on labelled pictures.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{EngineKind, ModelArgs};
use super::backend::{self, Runner};
use super::error::CliError;
use super::eval_report::{Comparison, Outcomes, Report};
use super::{Outcome, model_path, tell};
use crate::detector::Fit;
use crate::eval::dataset::truths;
use crate::eval::{Agreements, Confusion, Dataset, DatasetError, Picture, evaluate};
use crate::vision::{self, NmsOptions, Pixels, Size};

/// Least confidence that counts.
const CONFIDENCE: f32 = 0.001;

/// What else runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compare {
    /// The checkpoint in f32.
    Reference,
}

/// Measure a model's accuracy (COCO mAP) on labelled pictures
///
/// Conditions are those of Ultralytics' `val` with rect=False: confidence from 0.001, suppression at IoU 0.7,
/// at most 300 detections per picture, several classes per position, and pictures letterboxed into the whole
/// square of the model's size. mAP is that of pycocotools with 300 detections; Ultralytics' own
/// interpolation differs a little and is given as well. Precision and recall are those at the confidence
/// with the best mean F1.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight eval --data data.yaml\n  ghostlight eval --data data.yaml --imgsz 416 --json\n  ghostlight eval --data data.yaml --model best.safetensors --compare reference --checkpoint best.pt"
)]
pub struct Args {
    /// The dataset as Ultralytics describes it: path, train, val, test, names
    #[arg(long, value_name = "DATA.yaml")]
    pub data: PathBuf,
    /// Which part of the dataset
    #[arg(long, default_value = "val", value_parser = crate::eval::dataset::SPLITS)]
    pub split: String,
    /// Print one JSON object, with all confusions; numbers are 0 to 1
    #[arg(long)]
    pub json: bool,
    /// Letterbox each picture into the smallest rectangle, as `detect` does, instead of the square
    #[arg(long)]
    pub rect: bool,
    /// Also run the checkpoint in f32, and show how the two differ
    #[arg(long, value_enum, value_name = "ENGINE", requires = "checkpoint")]
    pub compare: Option<Compare>,
    /// The checkpoint for --compare reference
    #[arg(long, value_name = "CKPT.pt", requires = "compare")]
    pub checkpoint: Option<PathBuf>,
    /// Which model, and what runs it.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Opens dataset and model, looks at every picture, prints the numbers.
pub fn run(args: &Args, quiet: bool, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let dataset = Dataset::open(&args.data, &args.split).map_err(|e| fault(&e))?;
    let path = model_path::find(args.model.model.as_deref())?;
    let mut runner = backend::open_fitting(&path, &args.model, |input| fit(args, input))?;
    let mut reference = match (&args.compare, &args.checkpoint) {
        (Some(Compare::Reference), Some(checkpoint)) => {
            let path = model_path::find(Some(checkpoint))?;
            let own = ModelArgs {
                model: Some(path.clone()),
                imgsz: Some(runner.input()),
                threads: args.model.threads,
                engine: EngineKind::Reference,
                kernel: None,
            };
            Some(backend::open_fitting(&path, &own, |input| fit(args, input))?)
        }
        _ => None,
    };
    match &mut reference {
        Some(reference) => measure(args, quiet, &dataset, runner.as_mut(), Some(reference.as_mut()), out),
        None => measure(args, quiet, &dataset, runner.as_mut(), None, out),
    }
}

fn fit(args: &Args, input: Size) -> Fit {
    if args.rect { Fit::Rectangle(input) } else { Fit::Exact(input) }
}

fn fault(error: &DatasetError) -> CliError {
    let path = error.path();
    match error {
        DatasetError::Read { error, .. } => CliError::reading(path, error),
        DatasetError::Absent { .. } | DatasetError::NoPictures { .. } => {
            CliError::NoInput { subject: path.display().to_string(), cause: error.to_string() }
        }
        DatasetError::NotText { .. }
        | DatasetError::Yaml { .. }
        | DatasetError::Key { .. }
        | DatasetError::NoSplit { .. }
        | DatasetError::Label { .. }
        | DatasetError::Classes { .. } => CliError::data(path, error),
    }
}

/// How evaluation looks at a picture, as Ultralytics' `val`.
fn options() -> NmsOptions {
    NmsOptions { confidence: CONFIDENCE, multi_label: true, ..NmsOptions::default() }
}

fn measure(
    args: &Args,
    quiet: bool,
    dataset: &Dataset,
    runner: &mut dyn Runner,
    mut reference: Option<&mut dyn Runner>,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    for known in [Some(runner.classes()), reference.as_deref().map(Runner::classes)].into_iter().flatten() {
        dataset.check_classes(known.len()).map_err(|e| fault(&e))?;
    }
    if dataset.classes != runner.classes() {
        log::warn!("{}: other class names than the model's; ids are compared", args.data.display());
    }
    // All labels before any picture: a broken line should not cost an hour.
    let labels = dataset.samples.iter().map(|sample| dataset.labels(sample)).collect::<Result<Vec<_>, _>>();
    let labels = labels.map_err(|e| fault(&e))?;
    let options = options();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut agreements = Agreements::default();
    let mut failures = Vec::new();
    let bar = progress(dataset.samples.len(), quiet);
    for (sample, labels) in dataset.samples.iter().zip(&labels) {
        bar.inc(1);
        let image = match vision::decode_image(&sample.picture) {
            Ok(image) => image,
            Err(error) => {
                let error = CliError::picture(&sample.picture, &error);
                bar.suspend(|| tell(&error));
                failures.push(error.exit());
                continue;
            }
        };
        let pixels = Pixels::from(&image);
        let truths = truths(labels, pixels.size);
        if truths.len() > options.max_detections {
            let (path, most) = (sample.picture.display(), options.max_detections);
            log::warn!("{path}: {} labels, but at most {most} detections count", truths.len());
        }
        let detections = runner.detect(pixels, &options)?.detections;
        if let Some(reference) = &mut reference {
            let other = reference.detect(pixels, &options)?.detections;
            agreements.add(&detections, &other);
            second.push(Picture { truths: truths.clone(), detections: other });
        }
        first.push(Picture { truths, detections });
    }
    bar.finish_and_clear();
    if let (true, Some(&exit)) = (first.is_empty(), failures.first()) {
        return Ok(Outcome::AllFailed(exit));
    }
    let outcomes = |pictures: &[Picture], runner: &dyn Runner| Outcomes {
        model: runner.model().to_owned(),
        kernel: runner.kernel().to_owned(),
        metrics: evaluate(pictures),
        confusion: Confusion::new(pictures, dataset.classes.len()),
    };
    let report = Report {
        data: args.data.display().to_string(),
        split: &args.split,
        input: runner.input(),
        rectangle: args.rect,
        options: &options,
        failed: failures.len(),
        classes: runner.classes(),
        own: outcomes(&first, runner),
        comparison: reference.as_deref().map(|reference| Comparison {
            other: outcomes(&second, reference),
            agreement: agreements.result(),
        }),
    };
    if args.json {
        report.write_json(out)?
    } else {
        report.write_text(out)?
    }
    Ok(if failures.is_empty() { Outcome::Done } else { Outcome::SomeFailed })
}

/// A bar on standard error, at a terminal only.
fn progress(pictures: usize, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {eta} left");
    ProgressBar::new(pictures as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;
