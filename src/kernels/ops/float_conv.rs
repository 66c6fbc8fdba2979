//! Convolution in f32: tiles of 8 output pixels x 32 channels ([`crate::kernels::f32`]), whose rows are
//! taken from the input where they lie.
//!
//! A sum goes over taps by row, column and input channel, in that order, zeros of the padding included, so
//! that it has the same bits in whichever tile its pixel is.
//!
//! Test: `kernels::tests`.

use super::super::f32::{COLUMNS, ROWS, Tile, accumulate, accumulate_depthwise, silu};
use super::super::{Arena, Crew, View};
use super::float::{check_float, check_float_apart, check_float_output, read, write};
use super::{Base, OpError, Window, check_len, check_same, check_sizes};

/// Multiplications that are worth handing to another thread.
const TASK: usize = 1 << 20;

/// What follows a convolution in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FloatAct {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `clamp(x, 0, 6)`
    Relu6,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * clamp(x + 3, 0, 6) / 6`
    Hardswish,
    /// `x` above zero, this times `x` below.
    LeakyRelu(f32),
}

impl FloatAct {
    /// Applies it in place. What is no number becomes 0 where the activation cuts off.
    pub fn apply(self, values: &mut [f32]) {
        // Comparisons, because `f32::max` leaves open which zero it gives.
        match self {
            FloatAct::Identity => {}
            FloatAct::Relu => values.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { 0.0 }),
            FloatAct::Relu6 => {
                for v in values {
                    let above = if *v > 0.0 { *v } else { 0.0 };
                    *v = if above < 6.0 { above } else { 6.0 };
                }
            }
            FloatAct::Silu => silu(values),
            FloatAct::Hardswish => values.iter_mut().for_each(|v| *v *= (*v + 3.0).clamp(0.0, 6.0) / 6.0),
            FloatAct::LeakyRelu(slope) => {
                values.iter_mut().for_each(|v| *v = if *v < 0.0 { *v * slope } else { *v });
            }
        }
    }
}

/// A convolution in f32, dense or depthwise.
#[derive(Debug, Clone, Copy)]
pub struct FloatConvJob<'a> {
    /// What is read; `element` 4.
    pub input: View,
    /// What is written; `element` 4. Any height and width: the lower and right padding is what they imply.
    pub output: View,
    /// What each output pixel is computed from.
    pub window: Window,
    /// Whether each channel is filtered alone.
    pub depthwise: bool,
    /// Dense: panels `[channels out / 32][tap][channels in][32]`; depthwise: `[tap][channels]`.
    pub weights: &'a [f32],
    /// One for each output channel.
    pub bias: &'a [f32],
    /// Zeros, as many as input channels: what lies outside the picture. Depthwise needs none.
    pub zeros: &'a [f32],
    /// Activation.
    pub act: FloatAct,
    /// Added after the activation; of the output's shape.
    pub residual: Option<View>,
}

impl FloatConvJob<'_> {
    fn check(&self, len: usize) -> Result<(), OpError> {
        let taps = self.window.check([&self.input, &self.output])?;
        check_float("input", &self.input, len)?;
        check_float_output(&self.output, len)?;
        check_float_apart("input", &self.input, &self.output)?;
        let (c_in, c_out) = (self.input.channels, self.output.channels);
        check_sizes(taps, [c_in, c_out])?;
        check_len("bias", self.bias.len(), c_out)?;
        if self.depthwise {
            let View { height, width, .. } = self.output;
            check_same("output", &self.output, &View { height, width, ..self.input })?;
            check_len("weights", self.weights.len(), taps * c_in)?;
        } else {
            check_len("zeros", self.zeros.len(), c_in)?;
            check_len("weights", self.weights.len(), taps * c_in * c_out.next_multiple_of(COLUMNS))?;
        }
        if let Some(residual) = &self.residual {
            check_float("residual", residual, len)?;
            check_same("residual", residual, &self.output)?;
            check_float_apart("residual", residual, &self.output)?;
        }
        Ok(())
    }

    /// Index of the input pixel at `(y, x)`; none outside, negative positions being huge.
    #[inline(always)]
    fn source(&self, (y, x): (usize, usize)) -> Option<usize> {
        (y < self.input.height && x < self.input.width).then(|| y * self.input.width + x)
    }

    /// Position of an output pixel's first tap.
    #[inline(always)]
    fn corner(&self, at: usize) -> (usize, usize) {
        self.window.corner((at / self.output.width, at % self.output.width))
    }
}

/// Computes `job` in `arena`.
pub fn float_conv(crew: &Crew<'_>, arena: &mut Arena, job: &FloatConvJob<'_>) -> Result<(), OpError> {
    job.check(arena.len())?;
    let (pixels, channels) = (job.output.pixels(), job.output.channels);
    if pixels == 0 || channels == 0 {
        return Ok(());
    }
    let base = Base(arena.base_mut());
    let taps = job.window.taps();
    let work = taps * if job.depthwise { channels } else { job.input.channels * COLUMNS };
    let run = TASK.div_ceil(work.max(1)).next_multiple_of(ROWS);
    // Panels of a run follow one another, so that its input stays in the cache.
    let panels = if job.depthwise { 1 } else { channels.div_ceil(COLUMNS) };
    crew.for_each(pixels.div_ceil(run) * panels, &|index, _| {
        let first = index / panels * run;
        for at in (first..pixels.min(first + run)).step_by(if job.depthwise { 1 } else { ROWS }) {
            // SAFETY: `check` passed for this arena, which `base` points to and no one else uses for the
            // time of the call; runs of output pixels and panels of their channels are one task's each.
            unsafe {
                if job.depthwise {
                    depthwise_pixel(base, job, at);
                } else {
                    tile(base, job, index % panels, at, ROWS.min(pixels - at));
                }
            }
        }
    });
    Ok(())
}

/// Computes the channels of a panel of output pixels `at..at + rows`.
///
/// # Safety
/// - `job.check` passed for the arena that `base` points to; panel and pixels are in the output.
/// - No one else touches these numbers, nor writes what they are computed from.
unsafe fn tile(base: Base, job: &FloatConvJob<'_>, panel: usize, at: usize, rows: usize) {
    let depth = job.input.channels;
    let Window { kernel, dilation, .. } = job.window;
    let row_len = kernel * depth * COLUMNS;
    let weights = &job.weights[panel * kernel * row_len..][..kernel * row_len];
    let first = panel * COLUMNS;
    let count = COLUMNS.min(job.output.channels - first);
    let mut sums: Tile = [[0.0; COLUMNS]; ROWS];
    sums.iter_mut().for_each(|row| row[..count].copy_from_slice(&job.bias[first..first + count]));

    let corners: [(usize, usize); ROWS] = std::array::from_fn(|r| job.corner(at + r.min(rows - 1)));
    // Taps of one row of the window are one run of numbers, as their weights are.
    let inside = |&(_, x): &(usize, usize)| x < job.input.width && x + kernel <= job.input.width;
    let joined = dilation == 1 && job.input.stride == 4 * depth && corners.iter().all(inside);
    for (ky, weights) in weights.chunks_exact(row_len.max(1)).enumerate() {
        let y_of = |y: usize| y.wrapping_add(ky * dilation);
        let joined = joined && corners.iter().all(|&(y, _)| y_of(y) < job.input.height);
        let pixels = if joined { kernel } else { 1 };
        for (kx, weights) in weights.chunks_exact(pixels * depth * COLUMNS).enumerate() {
            let rows = corners.map(|(y, x)| match job.source((y_of(y), x.wrapping_add(kx * dilation))) {
                // SAFETY: the pixel is in the checked view, and where it is more than one, so is the
                // window's whole row, without gaps.
                Some(from) => unsafe { read(base, &job.input, from, 0, pixels * depth) },
                None => job.zeros,
            });
            accumulate(&rows, weights, &mut sums);
        }
    }

    job.act.apply(sums.as_flattened_mut());
    for (r, sums) in sums[..rows].iter().enumerate() {
        // SAFETY: pixel and channels are in the checked output, and this call's alone.
        let out = unsafe { write(base, &job.output, at + r, first, count) };
        out.copy_from_slice(&sums[..count]);
        if let Some(residual) = &job.residual {
            // SAFETY: pixel and channels are in the checked view, apart from the output.
            add(out, unsafe { read(base, residual, at + r, first, count) });
        }
    }
}

/// Computes one output pixel of a depthwise convolution.
///
/// # Safety
/// - As of [`tile`].
unsafe fn depthwise_pixel(base: Base, job: &FloatConvJob<'_>, at: usize) {
    let channels = job.output.channels;
    // SAFETY: the pixel is in the checked output, and this call's alone.
    let out = unsafe { write(base, &job.output, at, 0, channels) };
    out.copy_from_slice(&job.bias[..channels]);
    let (y, x) = job.corner(at);
    let Window { kernel, dilation, .. } = job.window;
    for (tap, weights) in job.weights.chunks_exact(channels).take(job.window.taps()).enumerate() {
        let (ky, kx) = (tap / kernel * dilation, tap % kernel * dilation);
        if let Some(from) = job.source((y.wrapping_add(ky), x.wrapping_add(kx))) {
            // SAFETY: the pixel is in the checked input, apart from the output.
            accumulate_depthwise(unsafe { read(base, &job.input, from, 0, channels) }, weights, out);
        }
    }
    job.act.apply(out);
    if let Some(residual) = &job.residual {
        // SAFETY: the pixel is in the checked view, apart from the output.
        add(out, unsafe { read(base, residual, at, 0, channels) });
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
