//! The whole graph on a GPU, with the same bits as on the CPU.
//!
//! - `upload`: weights and constants, once;
//! - `plan`: launches for an input size, recorded as one CUDA graph;
//! - `driver`: the only module that calls CUDA; `cache`: what was compiled, on disk;
//! - [`CudaEngine`]: a picture in, and out the positions of the heads that are above a threshold.
//!
//! Kernels are `crate::kernels::cuda`. Test: `tests/cuda`, on a driver of its own where no GPU is.

mod cache;
mod driver;
mod error;
mod plan;
mod upload;

use std::sync::Arc;
use std::time::Instant;

pub use driver::{Gpu, GpuInfo};
pub use error::CudaError;

use super::place::{self, Placement};
use crate::kernels::View;
use crate::kernels::cuda::{BOX_LOGITS, OPTIONS, Region, source};
use crate::model::graph::{Detect, NodeId};
use crate::weights::Model;
use plan::{HostPlaces, Plan};
use upload::{Placed, Upload};

/// The positions of one level that are above the threshold, in their order.
#[derive(Debug, Default)]
pub struct Survivors {
    /// Rows of cells.
    pub height: usize,
    /// Columns of cells.
    pub width: usize,
    /// Pixels per cell.
    pub stride: usize,
    /// Position of each row.
    pub positions: Vec<u32>,
    /// DFL logits `[rows, 4 * reg_max]`.
    pub boxes: Vec<f32>,
    /// Class logits `[rows, classes]`.
    pub classes: Vec<f32>,
}

/// A model that is ready to run on a GPU.
#[derive(Debug)]
pub struct CudaEngine {
    model: Arc<Model>,
    gpu: Gpu,
    placed: Vec<Placed>,
    size: (usize, usize),
    placement: Placement,
    plan: Plan,
    survivors: Vec<Survivors>,
    keep_all: bool,
}

impl CudaEngine {
    /// Prepares a model for its own input size, on the first GPU.
    ///
    /// # Errors
    /// [`CudaError`] that says in one line why the GPU cannot be used.
    pub fn new(model: Arc<Model>) -> Result<Self, CudaError> {
        Self::with_memory(model, false)
    }

    /// As [`CudaEngine::new`], but no memory is reused, so that [`CudaEngine::activations`] has every node.
    ///
    /// # Errors
    /// As [`CudaEngine::new`].
    pub fn keeping_all(model: Arc<Model>) -> Result<Self, CudaError> {
        Self::with_memory(model, true)
    }

    fn with_memory(model: Arc<Model>, keep_all: bool) -> Result<Self, CudaError> {
        let mut gpu = Gpu::open()?;
        load_kernels(&mut gpu)?;
        let mut upload = Upload::default();
        let placed: Vec<Placed> =
            (0..model.graph.nodes.len()).map(|id| upload::place(&mut upload, &model, id)).collect();
        gpu.reserve(Region::Weights, upload.bytes.len())?;
        gpu.upload(Region::Weights, &upload.bytes)?;
        let [height, width] = model.info.input_size;
        let placement = place::place(&model.graph, height, width, keep_all)?;
        let plan = prepare(&mut gpu, &model, &placement, &placed)?;
        let survivors = std::iter::repeat_with(Survivors::default).take(plan.host.rows.len()).collect();
        Ok(Self { model, gpu, placed, size: (height, width), placement, plan, survivors, keep_all })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What it runs on.
    pub fn gpu(&self) -> &GpuInfo {
        &self.gpu.info
    }

    /// Input height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Launches of one frame.
    pub fn launches(&self) -> usize {
        self.plan.launches.len()
    }

    /// Plans for another input size; nothing happens where it is the current one.
    ///
    /// # Errors
    /// [`CudaError`] where it does not fit the graph or the GPU's memory.
    pub fn resize(&mut self, height: usize, width: usize) -> Result<(), CudaError> {
        if self.size == (height, width) {
            return Ok(());
        }
        let placement = place::place(&self.model.graph, height, width, self.keep_all)?;
        // After a fault no size is planned for: the next call plans anew.
        self.size = (0, 0);
        self.plan = prepare(&mut self.gpu, &self.model, &placement, &self.placed)?;
        self.placement = placement;
        self.size = (height, width);
        Ok(())
    }

    /// The input's bytes: `[height, width, 4]`, R, G, B and one that is ignored, not offset on any machine.
    pub fn input_mut(&mut self) -> &mut [u8] {
        let HostPlaces { input, input_len, .. } = self.plan.host;
        &mut self.gpu.host_mut()[input..input + input_len]
    }

    /// Computes the heads' outputs from the input, and fetches those with a class logit above `floor`.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver tells of a fault.
    pub fn run(&mut self, floor: f32) -> Result<(), CudaError> {
        let at = HostPlaces::FLOOR;
        self.gpu.host_mut()[at..at + 4].copy_from_slice(&floor.to_ne_bytes());
        self.gpu.run()?;
        let Self { gpu, plan, survivors, placement, model, .. } = self;
        for (level, out) in survivors.iter_mut().enumerate() {
            let boxes = placement.views[model.head()[2 * level]];
            collect(gpu.host(), &plan.host, level, (&boxes, model.detect()), out);
        }
        Ok(())
    }

    /// What each level has above the threshold of the last run.
    pub fn survivors(&self) -> &[Survivors] {
        &self.survivors
    }

    /// The detection head's constants.
    pub fn detect(&self) -> &Detect {
        self.model.detect()
    }

    /// Bytes `[pixels, channels * element]` of every node after a run of an engine that keeps all; a byte is an
    /// activation in `0..=255`. Empty for the detection head.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver refuses.
    pub fn activations(&self) -> Result<Vec<Vec<u8>>, CudaError> {
        let bytes = self.gpu.download(Region::Arena)?;
        let of = |id: NodeId| {
            let view = self.placement.views[id];
            let pixels = bytes[view.offset..view.end()].chunks(view.stride.max(1));
            pixels.flat_map(|pixel| &pixel[..view.channels * view.element]).copied().collect()
        };
        Ok((0..self.model.graph.nodes.len()).map(of).collect())
    }
}

/// Loads the kernels from the cache, or compiles them and fills it.
fn load_kernels(gpu: &mut Gpu) -> Result<(), CudaError> {
    let source = source();
    let file = cache::folder().map(|folder| cache::file(&folder, &gpu.info, &source, &OPTIONS));
    if let Some(code) = file.as_deref().and_then(cache::read) {
        match gpu.load(&code) {
            Ok(()) => return Ok(()),
            Err(e) => log::info!("cached kernels are made anew: {e}"),
        }
    }
    let started = Instant::now();
    let code = driver::compile(&source, gpu.info.capability, &OPTIONS)?;
    gpu.load(&code)?;
    log::info!("kernels compiled for {} in {:.1} s", gpu.info.name, started.elapsed().as_secs_f32());
    if let Some(file) = file
        && let Err(e) = cache::write(&file, &code)
    {
        log::info!("{}: kernels are not kept for the next start: {e}", file.display());
    }
    Ok(())
}

/// Plans, makes room, and records the launches.
fn prepare(
    gpu: &mut Gpu,
    model: &Model,
    placement: &Placement,
    placed: &[Placed],
) -> Result<Plan, CudaError> {
    if placement.arena_len > Region::LIMIT {
        let (what, bytes) = ("activations", placement.arena_len);
        return Err(CudaError::TooLarge { what, bytes, limit: Region::LIMIT });
    }
    let plan = plan::plan(model, placement, placed, gpu.info.capability);
    // Reserved anew each time: survivors' counters begin at zero.
    gpu.reserve(Region::Scratch, plan.scratch_len)?;
    gpu.reserve(Region::Host, plan.host.len)?;
    gpu.reserve(Region::Arena, placement.arena_len)?;
    gpu.record(&plan.launches)?;
    Ok(plan)
}

/// Sorts a level's rows by position: blocks come in any order.
fn collect(
    host: &[u8],
    places: &HostPlaces,
    level: usize,
    (view, detect): (&View, &Detect),
    out: &mut Survivors,
) {
    (out.height, out.width, out.stride) = (view.height, view.width, detect.strides[level]);
    out.positions.clear();
    out.boxes.clear();
    out.classes.clear();
    let at = HostPlaces::count(level) / 4;
    let words: &[u32] = bytemuck::cast_slice(&host[..host.len() / 4 * 4]);
    let rows = &words[places.rows[level] / 4..];
    let count = (words[at] as usize).min(view.pixels());
    let mut order: Vec<(u32, usize)> = (0..count).map(|row| (rows[row * places.row_words], row)).collect();
    order.sort_unstable();
    for (position, row) in order {
        let logits = &rows[row * places.row_words + 1..][..places.row_words - 1];
        let logits: &[f32] = bytemuck::cast_slice(logits);
        out.positions.push(position);
        out.boxes.extend_from_slice(&logits[..BOX_LOGITS]);
        out.classes.extend_from_slice(&logits[BOX_LOGITS..]);
    }
}
