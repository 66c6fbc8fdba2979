//! What commands ask of the parts that compute: one trait, and the functions that open them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::{EngineKind, ModelArgs};
use super::error::CliError;
use super::table::printable;
use crate::detector::{Detector, Fit, ReferenceDetector, Timing};
use crate::engine::Engine;
use crate::engine::cuda::CudaEngine;
use crate::kernels::peak::macs_per_second;
use crate::kernels::{Kernels, Team, detect};
use crate::model::checkpoint;
use crate::vision::{Detection, NmsOptions, Pixels, Size};
use crate::weights::{Header, Model, WeightsError};

/// An opened model, ready to look at pictures.
pub trait Runner: Send {
    /// `NAME@HASH`: the model's name and the start of its content's hash.
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

    /// Whether boxes are computed where no class passes, too. Only the CPU's int8 engine ever leaves them out.
    fn compute_every_box(&mut self, _: bool) {}

    /// Time of each layer for one picture, every box computed, in the order in which they run.
    fn profile(&mut self, picture: Pixels<'_>) -> Result<Vec<LayerTime>, CliError>;

    /// Milliseconds of the network on `threads`, reckoned from one thread's tiles, for each of `frames` runs.
    fn reckon(&mut self, _: Pixels<'_>, threads: usize, _: usize) -> Result<Vec<f64>, CliError> {
        let kernel = self.kernel();
        Err(CliError::Usage(format!(
            "--simulate {threads} reckons with the CPU engine's threads, not with {kernel}; use --engine cpu"
        )))
    }

    /// Multiply-accumulates per second that its kernels reach at best here; `None` where nothing measures it.
    fn peak(&mut self) -> Result<Option<f64>, CliError> {
        Ok(None)
    }
}

/// What [`Runner::detect`] found and how long it took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Detections, the most confident first.
    pub detections: Vec<Detection>,
    /// The network's input for this picture, in pixels.
    pub input: Size,
    /// Milliseconds from the picture's pixels, in whatever layout, to the network's input.
    pub preprocess_ms: f64,
    /// Milliseconds of the network.
    pub inference_ms: f64,
    /// Milliseconds from heads to boxes.
    pub postprocess_ms: f64,
}

impl Answer {
    fn new(detections: &[Detection], timing: Timing) -> Self {
        Self {
            detections: detections.to_vec(),
            input: timing.input,
            preprocess_ms: ms(timing.preprocess),
            inference_ms: ms(timing.inference),
            postprocess_ms: ms(timing.postprocess),
        }
    }
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

/// Threads to use where none are asked for: one per core that this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Opens a model file for the engine that `args` name; a square input is a limit for the rectangle.
pub fn open(path: &Path, args: &ModelArgs) -> Result<Box<dyn Runner>, CliError> {
    open_fitting(path, args, |input| fit(args, input))
}

/// As [`open`], with nothing left of the file but its copy in memory: for a process that runs for long.
pub fn open_copied(path: &Path, args: &ModelArgs) -> Result<Box<dyn Runner>, CliError> {
    open_with(path, args, |input| fit(args, input), Model::read)
}

/// Opens a model file for the engine that `args` name; `fit` says how pictures fill the input of this size.
pub fn open_fitting(
    path: &Path,
    args: &ModelArgs,
    fit: impl Fn(Size) -> Fit,
) -> Result<Box<dyn Runner>, CliError> {
    open_with(path, args, fit, Model::open)
}

fn open_with(
    path: &Path,
    args: &ModelArgs,
    fit: impl Fn(Size) -> Fit,
    load: impl Fn(&Path) -> Result<Model, WeightsError>,
) -> Result<Box<dyn Runner>, CliError> {
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let checkpoint = path.extension().is_some_and(|e| e == "pt" || e == "pth");
    match (args.engine, checkpoint) {
        (EngineKind::Reference, true) => open_reference(path, args, fit),
        (EngineKind::Reference, false) => Err(CliError::Usage(format!(
            "--engine reference runs checkpoints in f32; {} is an int8 model, give --model CKPT.pt",
            path.display()
        ))),
        (EngineKind::Auto | EngineKind::Cpu | EngineKind::Cuda, true) => Err(CliError::Usage(format!(
            "{} is a checkpoint; make an int8 model of it with `ghostlight convert`, or run it in f32 with \
             --engine reference",
            path.display()
        ))),
        (engine, false) => {
            let kernels = kernel(args.kernel.as_deref())?;
            let model = Arc::new(load(path).map_err(|e| unopened(path, e))?);
            let input = input_size(args, model.info.input_size);
            let license = printable(&model.license).into_owned();
            if !license.is_empty() {
                log::info!("{}: licence of the weights: {license}", path.display());
            }
            // Kernels and threads are the CPU's: whoever asks for them means it.
            let gpu = match engine {
                EngineKind::Auto => args.kernel.is_none() && args.threads.is_none(),
                engine => engine == EngineKind::Cuda,
            };
            if gpu {
                match open_cuda(path, Arc::clone(&model), input, fit(input)) {
                    Ok(runner) => return Ok(runner),
                    Err(e) if engine == EngineKind::Cuda => return Err(e),
                    Err(e) => log::info!("stays on the CPU: {e}"),
                }
            }
            open_int8(path, model, (kernels, threads), (input, fit(input)))
        }
    }
}

fn open_cuda(path: &Path, model: Arc<Model>, input: Size, fit: Fit) -> Result<Box<dyn Runner>, CliError> {
    let id = model.id();
    let engine = CudaEngine::new(model)
        .map_err(|e| CliError::Unavailable { subject: "--engine cuda".into(), cause: e.to_string() })?;
    log::info!("{}: {id}, {}", path.display(), engine.gpu());
    Ok(Box::new(Cuda { detector: Detector::new(engine, fit), input, id }))
}

fn open_int8(
    path: &Path,
    model: Arc<Model>,
    (kernels, threads): (&'static dyn Kernels, usize),
    (input, fit): (Size, Fit),
) -> Result<Box<dyn Runner>, CliError> {
    let id = model.id();
    let engine = Engine::new(model, kernels, threads).map_err(|e| CliError::data(path, &e))?;
    log::info!("{}: {id}, kernel {}, {threads} threads", path.display(), kernels.name());
    Ok(Box::new(Int8 { detector: Detector::new(engine, fit), input, id }))
}

/// Maps and checks a model file.
pub(super) fn open_model(path: &Path) -> Result<Model, CliError> {
    Model::open(path).map_err(|e| unopened(path, e))
}

/// Maps a model file and checks its header only.
pub(super) fn open_header(path: &Path) -> Result<Header, CliError> {
    Header::open(path).map_err(|e| unopened(path, e))
}

fn unopened(path: &Path, error: WeightsError) -> CliError {
    match error {
        WeightsError::Io(e) => CliError::reading(path, &e),
        e => CliError::data(path, &e),
    }
}

fn open_reference(
    path: &Path,
    args: &ModelArgs,
    fit: impl Fn(Size) -> Fit,
) -> Result<Box<dyn Runner>, CliError> {
    let graph = checkpoint::load(path).map_err(|e| CliError::data(path, &e))?;
    let input = input_size(args, graph.info.input_size);
    let detector = ReferenceDetector::new(&graph, fit(input)).map_err(|e| CliError::data(path, &e))?;
    Ok(Box::new(F32 { detector, input, name: graph.info.name, classes: graph.info.classes }))
}

/// The input size asked for, else the model's own `[height, width]`.
fn input_size(args: &ModelArgs, [height, width]: [usize; 2]) -> Size {
    args.imgsz.unwrap_or(Size { width, height })
}

/// A square asks for the smallest rectangle within it; another size is meant as it is.
fn fit(args: &ModelArgs, input: Size) -> Fit {
    match args.imgsz {
        Some(size) if size.width != size.height => Fit::Exact(size),
        _ => Fit::Rectangle(input),
    }
}

fn kernel(name: Option<&str>) -> Result<&'static dyn Kernels, CliError> {
    match name {
        None => Ok(detect::best()),
        Some(name) => detect::by_name(name).map_err(|e| CliError::Usage(format!("--kernel: {e}"))),
    }
}

/// All kernels of this build.
pub fn kernels() -> Vec<KernelInfo> {
    let chosen = detect::best().name();
    detect::all()
        .iter()
        .map(|c| KernelInfo { name: c.name.into(), obstacle: c.obstacle(), chosen: c.name == chosen })
        .collect()
}

struct Int8 {
    detector: Detector,
    input: Size,
    id: String,
}

impl Runner for Int8 {
    fn model(&self) -> &str {
        &self.id
    }

    fn classes(&self) -> &[String] {
        &self.detector.engine().model().info.classes
    }

    fn input(&self) -> Size {
        self.input
    }

    fn kernel(&self) -> &str {
        self.detector.engine().kernel_name()
    }

    fn threads(&self) -> usize {
        self.detector.engine().threads()
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError> {
        let (detections, timing) = self.detector.detect(picture, options).map_err(internal)?;
        Ok(Answer::new(detections, timing))
    }

    fn compute_every_box(&mut self, every_box: bool) {
        self.detector.compute_every_box(every_box);
    }

    fn profile(&mut self, picture: Pixels<'_>) -> Result<Vec<LayerTime>, CliError> {
        let times = self.detector.profile(picture).map_err(internal)?;
        let engine = self.detector.engine();
        let nodes = &engine.model().graph.nodes;
        let layer = |(id, time): (usize, Duration)| {
            let (height, width) = engine.node_size(id);
            LayerTime {
                name: nodes[id].name.clone(),
                ms: ms(time),
                macs: nodes[id].op.conv_shape().map_or(0, |s| s.macs(height, width)),
            }
        };
        Ok(times.into_iter().map(layer).collect())
    }

    fn reckon(&mut self, picture: Pixels<'_>, threads: usize, frames: usize) -> Result<Vec<f64>, CliError> {
        let times = self.detector.reckon(picture, threads, frames).map_err(internal)?;
        Ok(times.into_iter().map(ms).collect())
    }

    fn peak(&mut self) -> Result<Option<f64>, CliError> {
        let mut team = Team::new(self.threads()).map_err(internal)?;
        let kernels = kernel(Some(self.kernel()))?;
        macs_per_second(kernels, &mut team).map(Some).map_err(internal)
    }
}

struct Cuda {
    detector: Detector<CudaEngine>,
    input: Size,
    id: String,
}

impl Runner for Cuda {
    fn model(&self) -> &str {
        &self.id
    }

    fn classes(&self) -> &[String] {
        &self.detector.engine().model().info.classes
    }

    fn input(&self) -> Size {
        self.input
    }

    fn kernel(&self) -> &str {
        "cuda"
    }

    fn threads(&self) -> usize {
        1
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError> {
        let (detections, timing) = self.detector.detect(picture, options).map_err(internal)?;
        Ok(Answer::new(detections, timing))
    }

    fn profile(&mut self, _: Pixels<'_>) -> Result<Vec<LayerTime>, CliError> {
        Err(CliError::Usage("--profile shows the CPU engine's layers; use --engine cpu".into()))
    }
}

struct F32 {
    detector: ReferenceDetector,
    input: Size,
    name: String,
    classes: Vec<String>,
}

impl Runner for F32 {
    fn model(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn input(&self) -> Size {
        self.input
    }

    fn kernel(&self) -> &str {
        "reference"
    }

    fn threads(&self) -> usize {
        default_threads()
    }

    fn detect(&mut self, picture: Pixels<'_>, options: &NmsOptions) -> Result<Answer, CliError> {
        let (detections, timing) = self.detector.detect(picture, options).map_err(internal)?;
        Ok(Answer::new(detections, timing))
    }

    fn profile(&mut self, _: Pixels<'_>) -> Result<Vec<LayerTime>, CliError> {
        Err(CliError::Usage("--profile shows the int8 engine's layers; leave out --engine reference".into()))
    }
}

fn internal(error: impl std::fmt::Display) -> CliError {
    CliError::Internal(error.to_string())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
