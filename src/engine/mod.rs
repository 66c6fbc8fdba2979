//! The engine: a model file's graph, in int8 but for what the file has in f32, run on one arena by one
//! table of kernels.
//!
//! - [`place`]: fuse and plan, where each tensor lies for an input size;
//! - `boxes`: the part of the heads that is computed only where a class passes;
//! - `constants`: what each convolution's epilogue needs, derived once;
//! - `prepare`: a node with its weights in the kernels' layout;
//! - `dynamic`: routing and mixing of dynamic convolutions, per picture;
//! - `float`: layers that the model file wants in f32;
//! - [`Engine`]: execute. After the first run for a size nothing is allocated.

mod boxes;
mod constants;
pub mod cuda;
mod dynamic;
pub mod error;
mod float;
pub mod place;
mod prepare;

use std::sync::Arc;
use std::time::Duration;

pub use error::EngineError;

use crate::kernels::{Arena, Kernels, Team, View, ops};
use crate::model::graph::{Detect, NodeId};
use crate::weights::Model;
use crate::weights::graph::QOp;
use boxes::Boxes;
use place::Placement;
use prepare::Prepared;

/// One level of the head's raw outputs, as f32.
#[derive(Debug, Clone, Copy)]
pub struct HeadView<'a> {
    /// Rows of cells.
    pub height: usize,
    /// Columns of cells.
    pub width: usize,
    /// Pixels per cell.
    pub stride: usize,
    /// DFL logits `[height * width, 4 * reg_max]`.
    pub boxes: &'a [f32],
    /// Class logits `[height * width, classes]`.
    pub classes: &'a [f32],
    /// Cells that have a class above the floor, in rising order; `None` where nobody looked for them.
    pub passing: Option<&'a [u32]>,
}

/// A model that is ready to run.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    kernels: &'static dyn Kernels,
    team: Team,
    prepared: Vec<Prepared>,
    /// All nodes, as they run.
    order: Vec<NodeId>,
    boxes: Boxes,
    /// Whether boxes are computed where no class passes, too.
    every_box: bool,
    /// Room for the largest mixed kernel.
    mixed: Arena,
    size: (usize, usize),
    placement: Placement,
    arena: Arena,
    keep_all: bool,
}

impl Engine {
    /// Prepares a model for its own input size.
    ///
    /// # Errors
    /// [`EngineError`] where the threads cannot be started or the size does not fit the graph.
    pub fn new(
        model: Arc<Model>,
        kernels: &'static dyn Kernels,
        threads: usize,
    ) -> Result<Self, EngineError> {
        Self::with_memory(model, kernels, team(threads)?, false)
    }

    /// Another engine for the same model and kernels, which computes on the calling thread and reckons what `threads`
    /// would take ([`Engine::reckoned`]).
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn reckoning(&self, threads: usize) -> Result<Self, EngineError> {
        let team = Team::reckoning(threads);
        let engine = Self::with_memory(Arc::clone(&self.model), self.kernels, team, self.keep_all)?;
        Ok(Self { every_box: self.every_box, ..engine })
    }

    /// What the last run of an engine that is [`Engine::reckoning`] would have taken on its threads.
    pub fn reckoned(&self) -> Option<Duration> {
        self.team.reckoned()
    }

    /// As [`Engine::new`], but no memory is reused, so that [`Engine::activation`] can read every node.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn keeping_all(
        model: Arc<Model>,
        kernels: &'static dyn Kernels,
        threads: usize,
    ) -> Result<Self, EngineError> {
        Self::with_memory(model, kernels, team(threads)?, true)
    }

    fn with_memory(
        model: Arc<Model>,
        kernels: &'static dyn Kernels,
        team: Team,
        keep_all: bool,
    ) -> Result<Self, EngineError> {
        let prepared: Vec<Prepared> =
            (0..model.graph.nodes.len()).map(|id| prepare::prepare(&model, id, kernels.layout())).collect();
        if kernels.layout() != crate::kernels::Layout::N16K4 {
            log::info!("weights repacked for kernel {}", kernels.name());
        }
        let mixed = Arena::new(prepared.iter().map(Prepared::mixed_len).max().unwrap_or(0));
        let branches = boxes::branches(&model.graph);
        let order = boxes::order(&model.graph, &branches);
        let mut boxes = Boxes::new(branches);
        let [height, width] = model.info.input_size;
        let placement = place::place_for(&model.graph, &order, (height, width), keep_all)?;
        boxes.make_room(&model.graph, &placement.views, kernels);
        Ok(Self {
            arena: Arena::new(placement.arena_len),
            model,
            kernels,
            team,
            prepared,
            order,
            boxes,
            every_box: false,
            mixed,
            size: (height, width),
            placement,
            keep_all,
        })
    }

    /// Whether [`Engine::run_above`] computes all boxes, as [`Engine::run`] does: for measurements.
    pub fn compute_every_box(&mut self, every_box: bool) {
        self.every_box = every_box;
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Name of the kernels in use.
    pub fn kernel_name(&self) -> &'static str {
        self.kernels.name()
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Input height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Height and width of a node's output.
    pub fn node_size(&self, id: NodeId) -> (usize, usize) {
        let view = self.placement.views[id];
        (view.height, view.width)
    }

    /// Bytes of the arena for the current size.
    pub fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// Plans for another input size; nothing happens where it is the current one.
    ///
    /// # Errors
    /// [`EngineError::Size`] where it does not fit the graph; the old size then stays.
    pub fn resize(&mut self, height: usize, width: usize) -> Result<(), EngineError> {
        if self.size == (height, width) {
            return Ok(());
        }
        let placement = place::place_for(&self.model.graph, &self.order, (height, width), self.keep_all)?;
        if placement.arena_len > self.arena.len() {
            self.arena = Arena::new(placement.arena_len);
        }
        self.boxes.make_room(&self.model.graph, &placement.views, self.kernels);
        self.placement = placement;
        self.size = (height, width);
        Ok(())
    }

    /// The input's bytes: `[height, width, 4]`, R, G, B and one that is ignored, each as
    /// [`crate::kernels::store`] gives it.
    pub fn input_mut(&mut self) -> &mut [u8] {
        let view = self.placement.views[0];
        &mut self.arena.bytes_mut()[view.offset..view.offset + view.pixels() * view.stride]
    }

    /// Computes the heads' outputs from the input. The input's memory is reused: fill it each time.
    ///
    /// # Errors
    /// [`EngineError::Op`] for a plan that an operation refuses, which a checked model never makes.
    pub fn run(&mut self) -> Result<(), EngineError> {
        self.execute(None, |_| {})
    }

    /// As [`Engine::run`], for boxes of the cells that have a class logit above `floor`; [`HeadView::boxes`] of others
    /// may be any numbers. The fewer these cells, the less is computed.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_above(&mut self, floor: f32) -> Result<(), EngineError> {
        let floor = (!self.every_box).then_some(floor);
        self.execute(floor, |_| {})
    }

    /// As [`Engine::run`]; `done` is told of each node that has run.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_with(&mut self, done: impl FnMut(NodeId)) -> Result<(), EngineError> {
        self.execute(None, done)
    }

    fn execute(&mut self, floor: Option<f32>, mut done: impl FnMut(NodeId)) -> Result<(), EngineError> {
        let Self { model, kernels, team, prepared, order, boxes, mixed, placement, arena, .. } = self;
        boxes.begin();
        team.frame(|crew| {
            for &id in order.iter() {
                let mut step = Step { model, kernels: *kernels, crew, arena, placement, id };
                let mut run = || {
                    let wanted = floor.map_or(Ok(None), |floor| boxes.wanted(&step, floor))?;
                    step.run(&mut prepared[id], mixed, wanted)
                };
                run()
                    .map_err(|source| EngineError::Op { node: model.graph.nodes[id].name.clone(), source })?;
                done(id);
            }
            Ok(())
        })
    }

    /// The detection head's constants.
    pub fn detect(&self) -> &Detect {
        self.model.detect()
    }

    /// Levels of the head.
    pub fn levels(&self) -> usize {
        self.detect().strides.len()
    }

    /// Raw outputs of one level of the last run.
    pub fn head(&self, level: usize) -> HeadView<'_> {
        let view = |i: usize| self.placement.views[self.model.head()[i]];
        let (boxes, classes) = (view(2 * level), view(2 * level + 1));
        HeadView {
            height: boxes.height,
            width: boxes.width,
            stride: self.detect().strides[level],
            boxes: self.floats(boxes),
            classes: self.floats(classes),
            passing: self.boxes.passing(self.model.head()[2 * level + 1]),
        }
    }

    fn floats(&self, view: View) -> &[f32] {
        bytemuck::cast_slice(&self.arena.bytes()[view.offset..view.end()])
    }

    /// Real values `[pixels, channels]` of any node after a run of an engine that keeps all; `None` for
    /// the detection head.
    pub fn activation(&self, id: NodeId) -> Option<Vec<f32>> {
        let node = &self.model.graph.nodes[id];
        let view = self.placement.views[id];
        if matches!(node.op, QOp::Detect(_)) {
            return None;
        }
        let bytes = &self.arena.bytes()[view.offset..view.end()];
        if self.model.is_float(id) {
            let pixels = bytes.chunks(view.stride).map(|p| &p[..4 * view.channels]);
            return Some(pixels.flat_map(bytemuck::cast_slice).copied().collect());
        }
        let quant = self.model.quant(id);
        let mut values = Vec::with_capacity(view.pixels() * view.channels);
        for pixel in bytes.chunks(view.stride) {
            for ((&byte, &step), &zero) in pixel.iter().zip(&quant.step).zip(&quant.zero) {
                values.push((f32::from(crate::kernels::load(byte)) - f32::from(zero)) * step);
            }
        }
        Some(values)
    }

    /// Routing weights of the last run: node and one number per expert.
    pub fn routing(&self) -> Vec<(NodeId, Vec<f32>)> {
        self.prepared.iter().enumerate().filter_map(|(id, p)| p.routing().map(|r| (id, r.to_vec()))).collect()
    }
}

fn team(threads: usize) -> Result<Team, EngineError> {
    Team::new(threads).map_err(|e| EngineError::Threads { threads, cause: e.to_string() })
}

/// One node's turn.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    model: &'a Model,
    kernels: &'a dyn Kernels,
    crew: &'a crate::kernels::Crew<'a>,
    arena: &'a mut Arena,
    placement: &'a Placement,
    id: NodeId,
}

impl Step<'_> {
    /// Computes the node; of a dense convolution only what is `wanted`.
    fn run(
        &mut self,
        prepared: &mut Prepared,
        mixed: &mut Arena,
        wanted: Option<&ops::Runs>,
    ) -> Result<(), ops::OpError> {
        let node = &self.model.graph.nodes[self.id];
        let views = &self.placement.views;
        let output = views[self.id];
        let input = node.inputs.first().map_or(output, |&i| views[i]);
        match (&node.op, prepared) {
            (QOp::Conv { shape, .. }, Prepared::Dense(dense)) => {
                let weights = dense.weights.get(self.model, node);
                prepare::dense(self, shape, (weights, &dense.pad_row, &dense.requant), wanted)
            }
            (QOp::Conv { shape, .. }, Prepared::Depthwise(depthwise)) => {
                let weights = self.model.i8s(node, "weight");
                prepare::depthwise(self, shape, weights, &depthwise.pad_row, &depthwise.requant)
            }
            (QOp::DynamicConv { shape, .. }, Prepared::Dynamic(dynamic)) => dynamic.run(self, shape, mixed),
            (QOp::Add, Prepared::Add(affine)) => {
                let job = ops::AddJob { a: input, b: views[node.inputs[1]], output, affine };
                ops::add(self.crew, self.arena, &job)
            }
            (QOp::SqueezeExcite { .. }, Prepared::SqueezeExcite(se)) => se.run(self),
            (QOp::FloatConv { shape, .. }, Prepared::FloatConv(conv)) => conv.run(self, shape, mixed),
            (QOp::SqueezeExcite { .. }, Prepared::FloatSqueezeExcite(se)) => se.run(self),
            (QOp::Add, _) => ops::float_add(self.crew, self.arena, ([input, views[node.inputs[1]]], output)),
            (QOp::Dequantise, _) => {
                let quant = self.model.quant(node.inputs[0]);
                ops::dequantise(self.crew, self.arena, (input, output), &quant.step, &quant.zero)
            }
            (QOp::Quantise, _) => {
                let quant = self.model.quant(self.id);
                ops::quantise(self.crew, self.arena, (input, output), &quant.step, &quant.zero)
            }
            (QOp::MaxPool { kernel }, _) if self.model.is_float(self.id) => {
                ops::float_max_pool(self.crew, self.arena, (input, output), *kernel)
            }
            (QOp::MaxPool { kernel }, _) => {
                ops::max_pool(self.kernels, self.crew, self.arena, (input, output), *kernel)
            }
            (QOp::Upsample { factor }, _) => {
                ops::upsample(self.crew, self.arena, (as_bytes(input), as_bytes(output)), *factor)
            }
            (QOp::Concat, _) => self.copy_into_concat(),
            _ => Ok(()),
        }
    }

    fn copy_into_concat(&mut self) -> Result<(), ops::OpError> {
        let node = &self.model.graph.nodes[self.id];
        for (from, to) in self.placement.copies_into(self.id, node) {
            ops::copy(self.crew, self.arena, (as_bytes(from), as_bytes(to)))?;
        }
        Ok(())
    }
}

/// A view's bytes as channels: for operations that only move them.
fn as_bytes(view: View) -> View {
    View { channels: view.channels * view.element, element: 1, ..view }
}
