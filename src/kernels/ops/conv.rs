//! Dense convolution as an indirect matrix product: pointers to input pixels instead of a copy of them.
//!
//! Output pixels are numbered through, across rows, and cut into tiles of `Kernels::tile_for` pixels. For
//! each tile a table on the stack, `[tap][row]`, points to the input pixel that each tap of each output pixel
//! reads; taps outside the picture point to a row of zero points. Where a window's row of taps is one run
//! of memory (dense input, no dilation) and the tile is away from borders, that row is one long tap.
//!
//! Test: `kernels::tests`.

use super::super::arena::{ALIGN, SLACK};
use super::super::{
    Arena, CELL_CHANNELS, Crew, DenseTile, Kernels, Layout, MAX_ROWS, MAX_TAPS, Requant, View,
};
use super::{Base, OpError, check_apart, check_geometry, check_input, check_len, check_output, check_same};
use super::{check_window, run_len};

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
    /// The window is `kernel x kernel`.
    pub kernel: usize,
    /// Input pixels from one output pixel to the next.
    pub stride: usize,
    /// Input pixels from one tap to the next.
    pub dilation: usize,
    /// Rows of padding above.
    pub pad_top: usize,
    /// Columns of padding on the left.
    pub pad_left: usize,
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
    fn depth(&self, layout: Layout) -> usize {
        self.input.channels.next_multiple_of(layout.depth())
    }

    /// Whether [`conv`] will do it, in an arena of `len` bytes, with weights in `layout`.
    pub fn check(&self, layout: Layout, len: usize) -> Result<(), OpError> {
        let taps = check_window(self.kernel)?;
        let steps = [self.stride, self.dilation, self.pad_top, self.pad_left];
        check_geometry([&self.input, &self.output], steps)?;
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
    let (pixels, channels) = (job.output.pixels(), job.output.channels);
    if pixels == 0 || channels == 0 {
        return Ok(());
    }
    let base = Base(arena.base_mut());
    let taps = job.kernel * job.kernel;
    let work = taps * job.depth(k.layout()) * channels.next_multiple_of(CELL_CHANNELS);
    let run = run_len(pixels, k.tile_for(channels).rows, TASK.div_ceil(work.max(1)), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        let first = index * run;
        // SAFETY: `check` passed for this arena and layout, which `base` points to and no one else uses
        // for the time of `conv`; runs of output pixels are apart, and so are pixels (`check_output`).
        unsafe { conv_run(k, base, job, first, run.min(pixels - first)) };
    });
    Ok(())
}

/// Computes `count` output pixels from the `first` on.
///
/// # Safety
/// - `job.check` passed for `k`'s layout and the arena that `base` points to.
/// - No one else touches these output pixels, nor writes what they are computed from.
unsafe fn conv_run(k: &dyn Kernels, base: Base, job: &ConvJob<'_>, first: usize, count: usize) {
    let layout = k.layout();
    let (pitch, cut) = (k.tile().rows.min(MAX_ROWS), k.tile_for(job.output.channels));
    let step = cut.blocks * CELL_CHANNELS;
    let block = layout.packed_len(CELL_CHANNELS, job.kernel * job.kernel, job.depth(layout));
    let mut table = Table::new(job, layout, pitch);
    let mut at = first;
    while at < first + count {
        let rows = cut.rows.min(first + count - at);
        let (taps, depth) = table.fill(base, at, rows);
        for c in (0..job.output.channels).step_by(step) {
            let out = job.output.offset + at * job.output.stride + c * job.output.element;
            // SAFETY: pixel `at` and channel `c` are in the checked view.
            let residual = job
                .residual
                .as_ref()
                .map_or(std::ptr::null(), |r| unsafe { base.at(r.offset + at * r.stride + c).cast_const() });
            let tile = DenseTile {
                pixels: &table.pixels[..taps * pitch],
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
            // SAFETY: `fill` gives `taps * pitch` pointers, each readable for `depth` bytes; weights,
            // requantisation, output and residual were checked for all channels, and `rows` pixels
            // from `at` on are this call's.
            unsafe { k.dense(&tile) };
        }
        at += rows;
    }
}

/// Pointers `[tap][pitch]` to what the taps of a tile's output pixels read.
struct Table<'a> {
    job: &'a ConvJob<'a>,
    pixels: [*const u8; MAX_TAPS * MAX_ROWS],
    pitch: usize,
    depth: usize,
    /// Whether the taps of one row of the window are one run of memory, weights included.
    joined: bool,
}

impl<'a> Table<'a> {
    fn new(job: &'a ConvJob<'a>, layout: Layout, pitch: usize) -> Self {
        let depth = job.depth(layout);
        let joined = job.kernel > 1 && job.dilation == 1 && job.input.stride == depth;
        Self { job, pixels: [job.pad_row.as_ptr(); MAX_TAPS * MAX_ROWS], pitch, depth, joined }
    }

    /// Points to what output pixels `at..at + rows` read; gives taps and readable bytes of each.
    ///
    /// All pointers are within the input view, whose last pixel may be read for `depth` bytes: less than
    /// [`SLACK`] past its end; or they are to `pad_row`, which has `depth` bytes.
    fn fill(&mut self, base: Base, at: usize, rows: usize) -> (usize, usize) {
        const { assert!(SLACK >= 8, "rounding a pixel's channels up reads less than 8 bytes past its end") };
        let ConvJob { input, output, kernel, stride, dilation, .. } = *self.job;
        let pitch = self.pitch;
        let start = base.0.wrapping_add(input.offset).cast_const();
        if kernel == 1
            && stride == 1
            && self.job.pad_top == 0
            && self.job.pad_left == 0
            && (input.height, input.width) == (output.height, output.width)
        {
            for (r, pixel) in self.pixels[..pitch].iter_mut().enumerate() {
                *pixel = start.wrapping_add((at + r.min(rows - 1)) * input.stride);
            }
            return (1, self.depth);
        }
        // The top left tap of each output pixel, as a position and as bytes from `start`.
        let (height, width) = (input.height as isize, input.width as isize);
        let reach = ((kernel - 1) * dilation) as isize;
        let corner = |oy: usize, ox: usize| {
            let (top, left) = (self.job.pad_top as isize, self.job.pad_left as isize);
            ((oy * stride) as isize - top, (ox * stride) as isize - left)
        };
        let offset = |(y, x)| isize::wrapping_mul(y * width + x, input.stride as isize);
        let (mut oy, mut ox) = (at / output.width, at % output.width);
        let mut corners = [(0isize, 0isize); MAX_ROWS];
        let mut bytes = [0isize; MAX_ROWS];
        let mut inside = false;
        if ox + rows <= output.width {
            // All on one row: the first and the last speak for the others.
            let ((y, x), (_, last)) = (corner(oy, ox), corner(oy, ox + rows - 1));
            inside = y >= 0 && y + reach < height && x >= 0 && last + reach < width;
            if inside {
                let (first, step) = (offset((y, x)), (stride * input.stride) as isize);
                for (r, bytes) in bytes[..pitch].iter_mut().enumerate() {
                    *bytes = first + r.min(rows - 1) as isize * step;
                }
            }
        }
        if !inside {
            inside = true;
            for r in 0..pitch {
                if r >= rows {
                    (corners[r], bytes[r]) = (corners[r - 1], bytes[r - 1]);
                    continue;
                }
                let (y, x) = corner(oy, ox);
                inside &= y >= 0 && x >= 0 && y + reach < height && x + reach < width;
                (corners[r], bytes[r]) = ((y, x), offset((y, x)));
                ox += 1;
                if ox == output.width {
                    (oy, ox) = (oy + 1, 0);
                }
            }
        }
        let line = input.width * input.stride * dilation;
        if inside {
            let across = if self.joined { 1 } else { kernel };
            let mut chunks = self.pixels.chunks_exact_mut(pitch);
            for ky in 0..kernel {
                for (kx, pixels) in chunks.by_ref().take(across).enumerate() {
                    let tap = start.wrapping_add(ky * line + kx * dilation * input.stride);
                    for (pixel, &bytes) in pixels.iter_mut().zip(&bytes) {
                        *pixel = tap.wrapping_offset(bytes);
                    }
                }
            }
            return (kernel * across, self.depth * kernel / across);
        }
        for ky in 0..kernel {
            for kx in 0..kernel {
                let pixels = &mut self.pixels[(ky * kernel + kx) * pitch..][..pitch];
                let (dy, dx) = ((ky * dilation) as isize, (kx * dilation) as isize);
                for (r, pixel) in pixels.iter_mut().enumerate() {
                    let (y, x) = (corners[r].0 + dy, corners[r].1 + dx);
                    let ahead = (dy * width + dx).wrapping_mul(input.stride as isize);
                    let at = bytes[r].wrapping_add(ahead);
                    let seen = y >= 0 && x >= 0 && y < height && x < width;
                    *pixel = if seen { start.wrapping_offset(at) } else { self.job.pad_row.as_ptr() };
                }
            }
        }
        (kernel * kernel, self.depth)
    }
}
