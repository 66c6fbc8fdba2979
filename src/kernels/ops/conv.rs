//! Dense convolution as an indirect matrix product: pointers to input pixels instead of a copy of them.
//!
//! Output pixels are numbered through, across rows, and cut into tiles of `Kernels::tile_for` pixels, batches of
//! them where none of their taps lies outside the picture. For each a table of pointers (`super::pixels`) says
//! what its taps read.
//!
//! Test: `kernels::tests`.

use std::ops::Range;

use super::super::arena::ALIGN;
use super::super::{Arena, CELL_CHANNELS, Crew, DenseTile, Kernels, Layout, Requant, View};
use super::pixels::{Filled, Table};
use super::{
    Base, OpError, Runs, Window, check_apart, check_input, check_len, check_output, check_same, run_len,
};

/// Multiplications that are worth handing to another thread: a few microseconds of the fastest kernel.
const TASK: usize = 1 << 20;

/// A dense convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvJob<'a> {
    /// What is read; `element` 1. Channels are read rounded up to 4, those past the last with weight zero.
    pub input: View,
    /// What is written; `element` 1, or 4 (f32) where `requant.is_float()`. Any height and width: the
    /// lower and right padding is what they imply.
    pub output: View,
    /// What each output pixel is computed from.
    pub window: Window,
    /// Packed in the kernel's layout, 64-byte aligned.
    pub weights: &'a [i8],
    /// What lies outside the picture: each channel's stored zero point, `input.channels` rounded up to 8.
    pub pad_row: &'a [u8],
    /// Requantisation.
    pub requant: &'a Requant,
    /// Added after the activation; of the output's shape. Needs `requant.residual`.
    pub residual: Option<View>,
}

impl ConvJob<'_> {
    /// Bytes read behind each pixel pointer.
    pub(super) fn depth(&self, layout: Layout) -> usize {
        self.input.channels.next_multiple_of(layout.depth())
    }

    /// Whether [`conv`] will do it, in an arena of `len` bytes, with weights in `layout`.
    pub fn check(&self, layout: Layout, len: usize) -> Result<(), OpError> {
        let taps = self.window.check([&self.input, &self.output])?;
        check_input("input", &self.input, len)?;
        check_output(&self.output, if self.requant.is_float() { 4 } else { 1 }, len)?;
        self.requant.check(self.output.channels)?;
        let depth = self.depth(layout);
        check_apart("input", &self.input, depth, &self.output)?;
        check_len("pad_row", self.pad_row.len(), depth)?;
        check_len("weights", self.weights.len(), layout.packed_len(self.output.channels, taps, depth))?;
        if !self.weights.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(OpError::Unaligned);
        }
        if self.residual.is_some() != self.requant.residual.is_some() {
            return Err(OpError::Residual);
        }
        if let Some(residual) = &self.residual {
            check_input("residual", residual, len)?;
            check_same("residual", residual, &self.output)?;
            check_apart("residual", residual, residual.channels, &self.output)?;
        }
        Ok(())
    }
}

/// Computes `job` in `arena`.
pub fn conv(k: &dyn Kernels, crew: &Crew<'_>, arena: &mut Arena, job: &ConvJob<'_>) -> Result<(), OpError> {
    job.check(k.layout(), arena.len())?;
    let pixels = job.output.pixels();
    share(k, crew, arena, (job, pixels), std::iter::once);
    Ok(())
}

/// Computes the pixels of `job`'s output that `runs` has; the others stay as they are.
pub fn conv_runs(
    k: &dyn Kernels,
    crew: &Crew<'_>,
    arena: &mut Arena,
    job: &ConvJob<'_>,
    runs: &Runs,
) -> Result<(), OpError> {
    job.check(k.layout(), arena.len())?;
    check_len("the output's pixels", job.output.pixels(), runs.end())?;
    share(k, crew, arena, (job, runs.pixels()), |part| runs.part(part));
    Ok(())
}

/// Cuts a checked job of so many pixels into tasks; `runs` says which pixels of the output a part of them is.
fn share<R: Iterator<Item = Range<usize>>>(
    k: &dyn Kernels,
    crew: &Crew<'_>,
    arena: &mut Arena,
    (job, pixels): (&ConvJob<'_>, usize),
    runs: impl Fn(Range<usize>) -> R + Sync,
) {
    let channels = job.output.channels;
    if pixels == 0 || channels == 0 {
        return;
    }
    let base = Base(arena.base_mut());
    let taps = job.window.taps();
    let work = taps * job.depth(k.layout()) * channels.next_multiple_of(CELL_CHANNELS);
    let batch = k.tile_for(channels).rows * k.batch();
    let run = run_len(pixels, batch, TASK.div_ceil(work.max(1)), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        let first = index * run;
        // SAFETY: `check` passed for this arena and layout, which `base` points to and no one else uses
        // for the time of `share`; parts, and so their runs, are apart, and so are pixels (`check_output`).
        unsafe { compute(k, base, job, runs(first..pixels.min(first + run))) };
    });
}

/// Computes runs of output pixels.
///
/// # Safety
/// - `job.check` passed for `k`'s layout and the arena that `base` points to.
/// - The pixels are the output's; no one else touches them, nor writes what they are computed from.
unsafe fn compute(k: &dyn Kernels, base: Base, job: &ConvJob<'_>, runs: impl Iterator<Item = Range<usize>>) {
    let cut = k.tile_for(job.output.channels);
    let step = cut.blocks * CELL_CHANNELS;
    let block = k.layout().packed_len(CELL_CHANNELS, job.window.taps(), job.depth(k.layout()));
    let start = base.0.wrapping_add(job.input.offset).cast_const();
    let mut table = Table::new(k, job, start);
    for Range { start: mut at, end } in runs {
        table.leap();
        while at < end {
            let Filled { pixels, taps, depth, rows } = table.fill(at, end - at);
            for c in (0..job.output.channels).step_by(step) {
                let out = job.output.offset + at * job.output.stride + c * job.output.element;
                // SAFETY: pixel `at` and channel `c` are in the checked view.
                let residual = job.residual.as_ref().map_or(std::ptr::null(), |r| unsafe {
                    base.at(r.offset + at * r.stride + c).cast_const()
                });
                let tile = DenseTile {
                    pixels,
                    taps,
                    depth,
                    weights: job.weights[c / CELL_CHANNELS * block..].as_ptr(),
                    rows,
                    channels: step.min(job.output.channels - c),
                    requant: job.requant,
                    first_channel: c,
                    // SAFETY: pixel `at` and channel `c` are in the checked view.
                    out: unsafe { base.at(out) },
                    out_stride: job.output.stride,
                    residual,
                    residual_stride: job.residual.map_or(0, |r| r.stride),
                };
                // SAFETY: `fill` gives `taps * pitch` pointers, readable for `depth` bytes as far as `dense` asks;
                // weights, requantisation, output and residual were checked for all channels, and `rows` pixels
                // from `at` on are this call's.
                unsafe { k.dense(&tile) };
            }
            at += rows;
        }
    }
}
