//! A picture in, detections out: letterbox, network, boxes, with every buffer kept between pictures.
//!
//! [`Detector::detect`] is the one path that `detect`, `bench` and the daemon use; it is the same for
//! the int8 engines, on CPU and GPU, and for the f32 reference.

use std::time::{Duration, Instant};

use crate::engine::cuda::{CudaEngine, CudaError};
use crate::engine::{Engine, EngineError};
use crate::kernels::STORED_OFFSET;
use crate::model::graph::{Graph, NodeId};
use crate::reference::{Level, Reference, ReferenceError};
use crate::vision::letterbox::rectangle;
use crate::vision::{
    Cells, Detection, Detector as Boxes, HeadLevel, HeadsError, Letterbox, LetterboxError, NmsOptions,
    Pixels, Size,
};
use crate::weights::Model;
use crate::weights::graph::MAX_LEVELS;

/// Sides of an input are multiples of the coarsest level's cell, and of this.
pub const STRIDE: usize = 32;

/// A picture that gives no detections.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// It cannot be letterboxed.
    #[error(transparent)]
    Letterbox(#[from] LetterboxError),
    /// The network cannot run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The GPU stopped.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The heads are not what they should be.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// The reference cannot run.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

/// How long the stages of one picture took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// The network's input, in pixels, which that depends on.
    pub input: Size,
    /// From the picture's pixels, in whatever layout, to the network's input.
    pub preprocess: Duration,
    /// The network.
    pub inference: Duration,
    /// From heads to boxes.
    pub postprocess: Duration,
}

impl Timing {
    /// Of a picture whose boxes are ready now.
    fn since(input: Size, started: Instant, preprocessed: Instant, inferred: Instant) -> Self {
        Self {
            input,
            preprocess: preprocessed - started,
            inference: inferred - preprocessed,
            postprocess: inferred.elapsed(),
        }
    }
}

/// How a picture is fitted into the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The smallest rectangle of whole cells within the size, as Ultralytics predicts.
    Rectangle(Size),
    /// Just this size.
    Exact(Size),
}

impl Fit {
    /// Input size for a picture, in cells of `stride`.
    fn input(self, picture: Size, stride: usize) -> Size {
        match self {
            Fit::Rectangle(limit) => rectangle(picture, limit, stride),
            Fit::Exact(size) => size,
        }
    }
}

/// Pixels of the coarsest level's cell, at least [`STRIDE`]: P6 has 64.
fn coarsest(strides: impl Iterator<Item = usize>) -> usize {
    strides.fold(STRIDE, usize::max)
}

/// An int8 engine, on whatever processor: what [`Detector`] asks of it.
pub trait Network {
    /// What is taken from each byte of the input.
    const OFFSET: u8;

    /// The model.
    fn model(&self) -> &Model;

    /// Plans for an input size, and gives the room for its bytes, `[height, width, 4]`.
    ///
    /// # Errors
    /// The engine's.
    fn input(&mut self, size: Size) -> Result<&mut [u8], DetectError>;

    /// Computes the heads; a cell without a class logit above `floor` need not be there, nor its box.
    ///
    /// # Errors
    /// The engine's.
    fn run(&mut self, floor: f32) -> Result<(), DetectError>;

    /// The heads, and how many they are.
    fn levels(&self) -> ([HeadLevel<'_>; MAX_LEVELS], usize);
}

impl Network for Engine {
    const OFFSET: u8 = STORED_OFFSET as u8;

    fn model(&self) -> &Model {
        self.model()
    }

    fn input(&mut self, size: Size) -> Result<&mut [u8], DetectError> {
        self.resize(size.height, size.width)?;
        Ok(self.input_mut())
    }

    fn run(&mut self, floor: f32) -> Result<(), DetectError> {
        Ok(self.run_above(floor)?)
    }

    fn levels(&self) -> ([HeadLevel<'_>; MAX_LEVELS], usize) {
        levels(self)
    }
}

impl Network for CudaEngine {
    const OFFSET: u8 = 0;

    fn model(&self) -> &Model {
        self.model()
    }

    fn input(&mut self, size: Size) -> Result<&mut [u8], DetectError> {
        self.resize(size.height, size.width)?;
        Ok(self.input_mut())
    }

    fn run(&mut self, floor: f32) -> Result<(), DetectError> {
        Ok(self.run(floor)?)
    }

    fn levels(&self) -> ([HeadLevel<'_>; MAX_LEVELS], usize) {
        sparse_levels(self)
    }
}

/// An int8 engine with its letterbox and its boxes; detections are the same bits on each.
#[derive(Debug)]
pub struct Detector<E = Engine> {
    engine: E,
    fit: Fit,
    stride: usize,
    letterbox: Letterbox,
    boxes: Boxes,
}

impl<E: Network> Detector<E> {
    /// A detector that fits pictures as `fit` says.
    pub fn new(engine: E, fit: Fit) -> Self {
        let stride = coarsest(engine.model().detect().strides.iter().copied());
        Self { engine, fit, stride, letterbox: Letterbox::new(), boxes: Boxes::new() }
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// Detections in a picture, the most confident first, corners in its pixels.
    ///
    /// On the CPU nothing is allocated once a picture of the same size went through.
    ///
    /// # Errors
    /// [`DetectError`] for a picture without pixels, or a bug.
    pub fn detect(
        &mut self,
        picture: Pixels<'_>,
        options: &NmsOptions,
    ) -> Result<(&[Detection], Timing), DetectError> {
        let started = Instant::now();
        let input = self.fit.input(picture.size, self.stride);
        let placement = self.letterbox.run(picture, input, E::OFFSET, self.engine.input(input)?)?;
        let preprocessed = Instant::now();
        self.engine.run(options.floor())?;
        let inferred = Instant::now();
        let (levels, count) = self.engine.levels();
        let classes = self.engine.model().detect().classes;
        let detections = self.boxes.run(&levels[..count], classes, &placement, options)?;
        Ok((detections, Timing::since(input, started, preprocessed, inferred)))
    }
}

impl Detector {
    /// Whether boxes are computed where no class passes, too ([`Engine::compute_every_box`]).
    pub fn compute_every_box(&mut self, every_box: bool) {
        self.engine.compute_every_box(every_box);
    }

    /// Runs one picture and gives each node's time, in order.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn profile(&mut self, picture: Pixels<'_>) -> Result<Vec<(NodeId, Duration)>, DetectError> {
        let input = self.fit.input(picture.size, self.stride);
        self.engine.resize(input.height, input.width)?;
        self.letterbox.run(picture, input, STORED_OFFSET as u8, self.engine.input_mut())?;
        let mut times = Vec::with_capacity(self.engine.model().graph.nodes.len());
        let mut before = Instant::now();
        self.engine.run_with(|id| {
            let now = Instant::now();
            times.push((id, now - before));
            before = now;
        })?;
        Ok(times)
    }

    /// What the network would take on `threads`, whether this machine has them or not, for each of `frames` runs.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn reckon(
        &self,
        picture: Pixels<'_>,
        threads: usize,
        frames: usize,
    ) -> Result<Vec<Duration>, DetectError> {
        let engine = self.engine.reckoning(threads)?;
        let mut detector = Self::new(engine, self.fit);
        let options = NmsOptions::default();
        let mut times = Vec::with_capacity(frames);
        for _ in 0..frames {
            detector.detect(picture, &options)?;
            times.extend(detector.engine.reckoned());
        }
        Ok(times)
    }
}

/// The f32 reference behind the same letterbox and boxes.
#[derive(Debug)]
pub struct ReferenceDetector {
    reference: Reference,
    classes: usize,
    fit: Fit,
    stride: usize,
    letterbox: Letterbox,
    boxes: Boxes,
}

impl ReferenceDetector {
    /// A detector for a graph with weights.
    ///
    /// # Errors
    /// [`ReferenceError`] for a graph that candle cannot run.
    pub fn new(graph: &Graph, fit: Fit) -> Result<Self, ReferenceError> {
        let reference = Reference::new(graph)?;
        let classes = graph.info.classes.len();
        let stride = coarsest(graph.detect().into_iter().flat_map(|d| d.strides.iter().copied()));
        Ok(Self { reference, classes, fit, stride, letterbox: Letterbox::new(), boxes: Boxes::new() })
    }

    /// As [`Detector::detect`], in f32.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect(
        &mut self,
        picture: Pixels<'_>,
        options: &NmsOptions,
    ) -> Result<(&[Detection], Timing), DetectError> {
        let started = Instant::now();
        let input = self.fit.input(picture.size, self.stride);
        let mut bytes = vec![0; input.height * input.width * 4];
        let placement = self.letterbox.run(picture, input, 0, &mut bytes)?;
        let rgb = without_fourth(&bytes);
        let preprocessed = Instant::now();
        let outputs = self.reference.run_u8(&rgb, input.height, input.width)?;
        let inferred = Instant::now();
        let levels: Vec<HeadLevel<'_>> = outputs.levels.iter().map(reference_level).collect();
        let detections = self.boxes.run(&levels, self.classes, &placement, options)?;
        Ok((detections, Timing::since(input, started, preprocessed, inferred)))
    }
}

/// `[pixels, 4]` bytes as `[pixels, 3]`.
pub fn without_fourth(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

/// A level of the reference's outputs, as boxes are read from it.
pub(crate) fn reference_level(level: &Level) -> HeadLevel<'_> {
    let cells = (level.height * level.width).max(1);
    HeadLevel {
        height: level.height,
        width: level.width,
        stride: level.stride,
        boxes: &level.boxes,
        box_row: level.boxes.len() / cells,
        classes: &level.classes,
        class_row: level.classes.len() / cells,
        cells: Cells::All,
    }
}

/// The head's levels on the stack, and how many they are.
pub(crate) fn levels(engine: &Engine) -> ([HeadLevel<'_>; MAX_LEVELS], usize) {
    let mut levels = [NO_LEVEL; MAX_LEVELS];
    let detect = engine.detect();
    let count = engine.levels().min(MAX_LEVELS);
    for (index, level) in levels[..count].iter_mut().enumerate() {
        let head = engine.head(index);
        *level = HeadLevel {
            height: head.height,
            width: head.width,
            stride: head.stride,
            boxes: head.boxes,
            box_row: 4 * detect.reg_max,
            classes: head.classes,
            class_row: detect.classes,
            cells: head.passing.map_or(Cells::All, Cells::Passing),
        };
    }
    (levels, count)
}

/// Levels of what is above the threshold, and how many they are.
fn sparse_levels(engine: &CudaEngine) -> ([HeadLevel<'_>; MAX_LEVELS], usize) {
    let mut levels = [NO_LEVEL; MAX_LEVELS];
    let (detect, survivors) = (engine.detect(), engine.survivors());
    for (level, found) in levels.iter_mut().zip(survivors) {
        *level = HeadLevel {
            height: found.height,
            width: found.width,
            stride: found.stride,
            boxes: &found.boxes,
            box_row: 4 * detect.reg_max,
            classes: &found.classes,
            class_row: detect.classes,
            cells: Cells::Listed(&found.positions),
        };
    }
    (levels, survivors.len().min(MAX_LEVELS))
}

const NO_LEVEL: HeadLevel<'static> = HeadLevel {
    height: 0,
    width: 0,
    stride: 1,
    boxes: &[],
    box_row: 0,
    classes: &[],
    class_row: 0,
    cells: Cells::All,
};
