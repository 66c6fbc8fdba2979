//! Operations byte by byte: add, scale by channel, sum by channel, copy, enlarge.
//!
//! Test: `kernels::tests`.

use super::super::{Arena, Crew, Kernels, View, load, store};
use super::{Base, OpError, check_apart, check_input, check_len, check_output, check_same, run_len};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes that are worth handing to another thread.
const TASK: usize = 1 << 15;
/// Fraction bits of [`Affine`] multipliers.
const FRACTION: u32 = 14;

/// A linear map from activations to an activation, one for each channel, in integers:
/// `out = clamp((Σ_i q_i * mult_i + offset) >> 14, 0, 255)`, `q` and `out` in `0..=255`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine<const N: usize> {
    mult: [i32; N],
    offset: i32,
}

impl<const N: usize> Affine<N> {
    /// `out = zero_out + Σ_i (q_i - zero_i) * factor_i`, rounded to nearest (halves up). Factors are
    /// rounded to 14 bits of fraction and limited to ±400 / `N`, so that no sum overflows.
    pub fn new(inputs: [(f32, u8); N], zero_out: u8) -> Self {
        let limit = ((400 << FRACTION) / N.max(1) as i32) as f32;
        let mult = inputs.map(|(factor, _)| {
            (factor * (1 << FRACTION) as f32).round_ties_even().clamp(-limit, limit) as i32
        });
        let centre: i32 = mult.iter().zip(&inputs).map(|(m, &(_, zero))| m * i32::from(zero)).sum();
        Self { mult, offset: (i32::from(zero_out) << FRACTION) + (1 << (FRACTION - 1)) - centre }
    }

    /// Multipliers and offset, of activations in `0..=255`.
    pub fn parts(&self) -> ([i32; N], i32) {
        (self.mult, self.offset)
    }

    /// The stored byte for stored bytes.
    #[inline(always)]
    pub fn apply(&self, bytes: [u8; N]) -> u8 {
        let mut sum = self.offset;
        for (&byte, &mult) in bytes.iter().zip(&self.mult) {
            sum = sum.wrapping_add(i32::from(load(byte)).wrapping_mul(mult));
        }
        store((sum >> FRACTION).clamp(0, 255) as u8)
    }
}

/// Sum of two pictures.
#[derive(Debug, Clone, Copy)]
pub struct AddJob<'a> {
    /// One.
    pub a: View,
    /// The other.
    pub b: View,
    /// Their sum; may be `a` or `b` itself.
    pub output: View,
    /// Each channel's map.
    pub affine: &'a [Affine<2>],
}

/// A picture whose channels are scaled.
#[derive(Debug, Clone, Copy)]
pub struct ScaleJob<'a> {
    /// What is read.
    pub input: View,
    /// What is written; may be the input itself.
    pub output: View,
    /// Each channel's map.
    pub affine: &'a [Affine<1>],
}

/// That writing `output` pixel by pixel does not disturb reading `read`.
fn check_apart_or_same(what: &'static str, read: &View, output: &View) -> Result<(), OpError> {
    if read == output { Ok(()) } else { check_apart(what, read, read.channels, output) }
}

/// Applies a map of `N` inputs to each byte. All views are checked, of one shape, and apart or the same.
fn map<const N: usize>(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (inputs, output): ([View; N], View),
    affine: &[Affine<N>],
) {
    let base = Base(arena.base_mut());
    let pixels = output.pixels();
    let run = run_len(pixels, 1, TASK.div_ceil(output.channels.max(1)), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        for at in index * run..pixels.min((index + 1) * run) {
            // SAFETY: the pixel is in the checked views.
            let (out, from) = unsafe {
                let out = base.at(output.offset + at * output.stride);
                (out, inputs.map(|view| base.at(view.offset + at * view.stride).cast_const()))
            };
            for (c, affine) in affine[..output.channels].iter().enumerate() {
                // SAFETY: channel `c` is in the checked views; this pixel of the output is this task's,
                // and no input has it but one that is the output itself, which was read before.
                unsafe { *out.add(c) = affine.apply(from.map(|from| *from.add(c))) };
            }
        }
    });
}

/// Adds two pictures.
pub fn add(crew: &Crew<'_>, arena: &mut Arena, job: &AddJob<'_>) -> Result<(), OpError> {
    check_output(&job.output, 1, arena.len())?;
    for (what, view) in [("first summand", &job.a), ("second summand", &job.b)] {
        check_input(what, view, arena.len())?;
        check_same(what, view, &job.output)?;
        check_apart_or_same(what, view, &job.output)?;
    }
    check_len("affine", job.affine.len(), job.output.channels)?;
    map(crew, arena, ([job.a, job.b], job.output), job.affine);
    Ok(())
}

/// Scales each channel of a picture.
pub fn scale_channels(crew: &Crew<'_>, arena: &mut Arena, job: &ScaleJob<'_>) -> Result<(), OpError> {
    check_input("input", &job.input, arena.len())?;
    check_output(&job.output, 1, arena.len())?;
    check_same("output", &job.output, &job.input)?;
    check_apart_or_same("input", &job.input, &job.output)?;
    check_len("affine", job.affine.len(), job.output.channels)?;
    map(crew, arena, ([job.input], job.output), job.affine);
    Ok(())
}

/// Writes to `sums` the sum of each channel's activations (`0..=255`) over all pixels, exactly.
pub fn channel_sums(
    k: &dyn Kernels,
    crew: &Crew<'_>,
    arena: &Arena,
    input: View,
    sums: &mut [u32],
) -> Result<(), OpError> {
    /// Channels of one call of a kernel: its sums are on the stack.
    const CHANNELS: usize = 256;
    check_input("input", &input, arena.len())?;
    check_len("sums", sums.len(), input.channels)?;
    if u32::try_from(input.pixels()).ok().and_then(|n| n.checked_mul(255)).is_none() {
        return Err(OpError::Sum { pixels: input.pixels() });
    }
    let sums = &mut sums[..input.channels];
    sums.fill(0);
    // SAFETY: `AtomicU32` has the layout of `u32`, and the slice is borrowed exclusively.
    let sums = unsafe { &*(std::ptr::from_mut(sums) as *const [AtomicU32]) };
    let base = Base(arena.base().cast_mut());
    let pixels = input.pixels();
    let run = run_len(pixels, 1, (1usize << 17).div_ceil(input.channels.max(1)), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        let first = index * run;
        for (chunk, totals) in sums.chunks(CHANNELS).enumerate() {
            let mut part = [0u32; CHANNELS];
            // SAFETY: pixels from `first` on are in the checked view, which nobody writes: the arena is
            // borrowed. `part` has at least as many elements as `totals`.
            unsafe {
                let from = base.at(input.offset + first * input.stride + chunk * CHANNELS).cast_const();
                k.channel_sums(from, run.min(pixels - first), input.stride, totals.len(), &mut part);
            }
            for (total, part) in totals.iter().zip(part) {
                total.fetch_add(part, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}

/// Copies a picture, for example into a slice of a concatenation.
pub fn copy(crew: &Crew<'_>, arena: &mut Arena, (input, output): (View, View)) -> Result<(), OpError> {
    upsample(crew, arena, (input, output), 1)
}

/// Enlarges a picture `factor` times: each pixel becomes a square of the same.
pub fn upsample(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    factor: usize,
) -> Result<(), OpError> {
    check_input("input", &input, arena.len())?;
    check_output(&output, 1, arena.len())?;
    check_apart("input", &input, input.channels, &output)?;
    let want = (input.height.saturating_mul(factor), input.width.saturating_mul(factor), input.channels);
    let have = (output.height, output.width, output.channels);
    if have != want {
        return Err(OpError::Shape { what: "output", have, want });
    }
    let base = Base(arena.base_mut());
    let run = run_len(output.height, 1, TASK.div_ceil((output.width * output.channels).max(1)), crew.lanes());
    crew.for_each(output.height.div_ceil(run), &|index, _| {
        for y in index * run..output.height.min((index + 1) * run) {
            let from = input.offset + y / factor * input.width * input.stride;
            let to = output.offset + y * output.width * output.stride;
            for x in 0..output.width {
                // SAFETY: both pixels are in the checked views, which are apart; rows of the output are
                // one task's each.
                unsafe {
                    let (from, to) =
                        (base.at(from + x / factor * input.stride), base.at(to + x * output.stride));
                    std::ptr::copy_nonoverlapping(from, to, input.channels);
                }
            }
        }
    });
    Ok(())
}
