//! Depthwise convolution: one window for each channel.
//!
//! Test: `kernels::tests`.

use super::super::{Arena, CELL_CHANNELS, Crew, DepthwiseTile, Kernels, MAX_TAPS, Requant, View};
use super::{Base, OpError, Window, check_apart, check_input, check_len, check_output, run_len};

/// Output pixels of one call of a kernel: a table of pointers on the stack bounds it.
const RUN: usize = 16;

/// A depthwise convolution. Fields are those of [`super::ConvJob`].
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseJob<'a> {
    /// What is read; `element` 1.
    pub input: View,
    /// What is written; `element` 1, as many channels as the input.
    pub output: View,
    /// What each output pixel is computed from.
    pub window: Window,
    /// `[tap][channels rounded up to 16]`
    pub weights: &'a [i8],
    /// What lies outside the picture: each channel's stored zero point.
    pub pad_row: &'a [u8],
    /// Requantisation, without residual.
    pub requant: &'a Requant,
}

impl DepthwiseJob<'_> {
    /// Whether [`depthwise`] will do it, in an arena of `len` bytes.
    pub fn check(&self, len: usize) -> Result<(), OpError> {
        let taps = self.window.check([&self.input, &self.output])?;
        check_input("input", &self.input, len)?;
        check_output(&self.output, 1, len)?;
        let channels = self.input.channels;
        if self.output.channels != channels {
            let View { height, width, .. } = self.output;
            return Err(OpError::Shape {
                what: "output",
                have: (height, width, self.output.channels),
                want: (height, width, channels),
            });
        }
        self.requant.check(channels)?;
        if self.requant.is_float() {
            return Err(OpError::Element { what: "output", element: 4, wanted: 1 });
        }
        if self.requant.residual.is_some() {
            return Err(OpError::Residual);
        }
        check_apart("input", &self.input, channels, &self.output)?;
        check_len("pad_row", self.pad_row.len(), channels)?;
        check_len("weights", self.weights.len(), taps * channels.next_multiple_of(CELL_CHANNELS))
    }
}

/// Computes `job` in `arena`.
pub fn depthwise(
    k: &dyn Kernels,
    crew: &Crew<'_>,
    arena: &mut Arena,
    job: &DepthwiseJob<'_>,
) -> Result<(), OpError> {
    job.check(arena.len())?;
    let pixels = job.output.pixels();
    if pixels == 0 || job.input.channels == 0 {
        return Ok(());
    }
    let base = Base(arena.base_mut());
    let work = job.window.taps() * job.input.channels;
    let run = run_len(pixels, RUN, (1usize << 17).div_ceil(work), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        let end = pixels.min((index + 1) * run);
        for first in (index * run..end).step_by(RUN) {
            // SAFETY: `check` passed for this arena, which `base` points to and no one else uses for the
            // time of the call; runs of output pixels are apart, and so are pixels (`check_output`).
            unsafe { depthwise_run(k, base, job, first, RUN.min(end - first)) };
        }
    });
    Ok(())
}

/// Computes `count <= RUN` output pixels from the `first` on.
///
/// # Safety
/// - `job.check` passed for the arena that `base` points to.
/// - No one else touches these output pixels, nor writes what they are computed from.
unsafe fn depthwise_run(k: &dyn Kernels, base: Base, job: &DepthwiseJob<'_>, first: usize, count: usize) {
    let (input, taps) = (&job.input, job.window.taps());
    let Window { kernel, dilation, .. } = job.window;
    let mut table = [job.pad_row.as_ptr(); MAX_TAPS * RUN];
    for (pixel, pointers) in table.chunks_exact_mut(taps).take(count).enumerate() {
        let (oy, ox) = ((first + pixel) / job.output.width, (first + pixel) % job.output.width);
        let (top, left) = job.window.corner((oy, ox));
        for ky in 0..kernel {
            // Wrapping: a position above or left of the picture becomes a huge number, thus outside.
            let y = top.wrapping_add(ky * dilation);
            for kx in 0..kernel {
                let x = left.wrapping_add(kx * dilation);
                if y < input.height && x < input.width {
                    // SAFETY: the pixel is in the checked view.
                    pointers[ky * kernel + kx] =
                        unsafe { base.at(input.offset + (y * input.width + x) * input.stride) };
                }
            }
        }
    }
    let tile = DepthwiseTile {
        pixels: &table[..count * taps],
        taps,
        channels: input.channels,
        weights: job.weights.as_ptr(),
        requant: job.requant,
        // SAFETY: the pixel is in the checked view.
        out: unsafe { base.at(job.output.offset + first * job.output.stride) },
        out_stride: job.output.stride,
    };
    // SAFETY: pointers are to pixels of the checked input or to `pad_row`, `channels` bytes each; weights
    // and requantisation were checked; `count` output pixels from `first` on are this call's.
    unsafe { k.depthwise(&tile) };
}
