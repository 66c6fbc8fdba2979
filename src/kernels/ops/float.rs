//! Operations in f32, and the ways between f32 and stored bytes.
//!
//! Every number is computed by itself, or summed in an order that the count of threads does not change,
//! with nothing fused: the same bits everywhere.
//!
//! Test: `kernels::tests`.

use super::super::{Arena, Crew, View, load, store};
use super::window::check_pool;
use super::{Base, OpError, check_apart, check_input, check_len, check_output, check_same, run_len};

/// Numbers that are worth handing to another thread.
const TASK: usize = 1 << 14;
/// Channels that one task sums: a cache line of them.
const SUMMED: usize = 16;

/// An f32 view that is read.
pub(super) fn check_float(what: &'static str, view: &View, len: usize) -> Result<(), OpError> {
    if view.element != 4 {
        return Err(OpError::Element { what, element: view.element, wanted: 4 });
    }
    let end = super::checked_end(view);
    if end > len {
        return Err(OpError::Outside { what, end, len });
    }
    check_offset(what, view)
}

/// An f32 view that is written.
pub(super) fn check_float_output(view: &View, len: usize) -> Result<(), OpError> {
    check_output(view, 4, len)?;
    check_offset("output", view)
}

fn check_offset(what: &'static str, view: &View) -> Result<(), OpError> {
    let fits = view.offset.is_multiple_of(4) && view.stride.is_multiple_of(4);
    if fits { Ok(()) } else { Err(OpError::Offset { what }) }
}

/// That writing `output` does not disturb reading `read`, an f32 view.
pub(super) fn check_float_apart(what: &'static str, read: &View, output: &View) -> Result<(), OpError> {
    check_apart(what, read, 4 * read.channels, output)
}

/// Numbers `first..first + len` behind the start of pixel `at`.
///
/// # Safety
/// - `view` passed [`check_float`] for the arena that `base` points to, and the numbers lie in it.
/// - Nobody writes them as long as the slice lives.
#[inline(always)]
pub(super) unsafe fn read<'a>(base: Base, view: &View, at: usize, first: usize, len: usize) -> &'a [f32] {
    // SAFETY: arenas are aligned to 64 bytes, initialised, and the rest is the caller's duty.
    unsafe { std::slice::from_raw_parts(base.at(view.offset + at * view.stride + 4 * first).cast(), len) }
}

/// As [`read()`], to be written.
///
/// # Safety
/// - As of [`read()`], with [`check_float_output`].
/// - Nobody else has these numbers as long as the slice lives.
#[inline(always)]
pub(super) unsafe fn write<'a>(
    base: Base,
    view: &View,
    at: usize,
    first: usize,
    len: usize,
) -> &'a mut [f32] {
    // SAFETY: as in `read`.
    unsafe { std::slice::from_raw_parts_mut(base.at(view.offset + at * view.stride + 4 * first).cast(), len) }
}

/// Calls `f` with the index of each of `pixels`, of which each is `work` numbers.
pub(super) fn each_pixel(crew: &Crew<'_>, pixels: usize, work: usize, f: impl Fn(usize) + Sync) {
    let run = run_len(pixels, 1, TASK.div_ceil(work.max(1)), crew.lanes());
    crew.for_each(pixels.div_ceil(run), &|index, _| {
        (index * run..pixels.min((index + 1) * run)).for_each(&f);
    });
}

/// Calls `f` with each pixel of the inputs and of the output, all of one shape.
fn map<const N: usize>(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (inputs, output): ([View; N], View),
    f: impl Fn([&[f32]; N], &mut [f32]) + Sync,
) -> Result<(), OpError> {
    check_float_output(&output, arena.len())?;
    for view in &inputs {
        check_float("input", view, arena.len())?;
        check_same("input", view, &output)?;
        check_float_apart("input", view, &output)?;
    }
    let base = Base(arena.base_mut());
    let channels = output.channels;
    each_pixel(crew, output.pixels(), channels, |at| {
        // SAFETY: the pixel is in the checked views, which are apart; no other task writes it.
        let (from, to) = unsafe {
            (inputs.map(|view| read(base, &view, at, 0, channels)), write(base, &output, at, 0, channels))
        };
        f(from, to);
    });
    Ok(())
}

/// Adds two pictures.
pub fn float_add(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (inputs, output): ([View; 2], View),
) -> Result<(), OpError> {
    map(crew, arena, (inputs, output), |[a, b], to| {
        to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = a + b);
    })
}

/// Scales each channel of a picture.
pub fn float_scale(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    factors: &[f32],
) -> Result<(), OpError> {
    check_len("factors", factors.len(), output.channels)?;
    map(crew, arena, ([input], output), |[x], to| {
        to.iter_mut().zip(x).zip(factors).for_each(|((to, x), factor)| *to = x * factor);
    })
}

/// Writes to `sums` the sum of each channel over all pixels, in f64, in the pixels' order.
pub fn float_sums(crew: &Crew<'_>, arena: &Arena, input: View, sums: &mut [f64]) -> Result<(), OpError> {
    check_float("input", &input, arena.len())?;
    check_len("sums", sums.len(), input.channels)?;
    let base = Base(arena.base().cast_mut());
    let out = Base(sums.as_mut_ptr());
    crew.for_each(input.channels.div_ceil(SUMMED), &|index, _| {
        let first = index * SUMMED;
        let len = SUMMED.min(input.channels - first);
        let mut totals = [0.0; SUMMED];
        for at in 0..input.pixels() {
            // SAFETY: the channels are in the checked view, which nobody writes: the arena is borrowed.
            let x = unsafe { read(base, &input, at, first, len) };
            totals.iter_mut().zip(x).for_each(|(total, &x)| *total += f64::from(x));
        }
        for (c, total) in totals[..len].iter().enumerate() {
            // SAFETY: `sums` has all channels, and these are this task's.
            unsafe { *out.at(first + c) = *total };
        }
    });
    Ok(())
}

/// `mixed[i] = Σ_e routing[e] * experts[e][i]`, experts in ascending order.
pub fn float_mix(
    crew: &Crew<'_>,
    experts: &[f32],
    routing: &[f32],
    mixed: &mut [f32],
) -> Result<(), OpError> {
    let len = mixed.len();
    check_len("experts", experts.len(), routing.len().saturating_mul(len))?;
    let out = Base(mixed.as_mut_ptr());
    crew.for_each(len.div_ceil(TASK), &|index, _| {
        let range = index * TASK..len.min((index + 1) * TASK);
        // SAFETY: the range is in `mixed`, which is borrowed exclusively, and this task's alone.
        let to = unsafe { std::slice::from_raw_parts_mut(out.at(range.start), range.len()) };
        to.fill(0.0);
        for (&r, expert) in routing.iter().zip(experts.chunks_exact(len)) {
            to.iter_mut().zip(&expert[range.clone()]).for_each(|(to, w)| *to += r * w);
        }
    });
    Ok(())
}

/// As [`super::max_pool`], in f32.
pub fn float_max_pool(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    window: usize,
) -> Result<(), OpError> {
    check_pool(window)?;
    check_float("input", &input, arena.len())?;
    check_float_output(&output, arena.len())?;
    check_same("output", &output, &input)?;
    check_float_apart("input", &input, &output)?;
    let base = Base(arena.base_mut());
    let (height, width, channels, reach) = (input.height, input.width, input.channels, window / 2);
    each_pixel(crew, input.pixels(), window * window * channels, |at| {
        let (y, x) = (at / width, at % width);
        // SAFETY: the pixel is in the checked view, this task's alone, and apart from the input.
        let to = unsafe { write(base, &output, at, 0, channels) };
        to.fill(f32::NEG_INFINITY);
        for sy in y.saturating_sub(reach)..height.min(y + reach + 1) {
            for sx in x.saturating_sub(reach)..width.min(x + reach + 1) {
                // SAFETY: the pixel is in the checked view, which nobody writes.
                let from = unsafe { read(base, &input, sy * width + sx, 0, channels) };
                // `f32::max` leaves open which zero it gives.
                to.iter_mut().zip(from).for_each(|(to, &v)| *to = if v > *to { v } else { *to });
            }
        }
    });
    Ok(())
}

/// Stored bytes to real numbers: `(q - zero) * step`, both per channel.
pub fn dequantise(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    step: &[f32],
    zero: &[u8],
) -> Result<(), OpError> {
    check_input("input", &input, arena.len())?;
    check_float_output(&output, arena.len())?;
    check_same("output", &output, &input)?;
    check_apart("input", &input, input.channels, &output)?;
    check_len("step", step.len(), input.channels)?;
    check_len("zero", zero.len(), input.channels)?;
    let base = Base(arena.base_mut());
    let channels = input.channels;
    each_pixel(crew, input.pixels(), channels, |at| {
        // SAFETY: the pixel is in the checked views, which are apart; no other task writes it.
        let (from, to) = unsafe {
            let from = base.at(input.offset + at * input.stride).cast_const();
            (std::slice::from_raw_parts(from, channels), write(base, &output, at, 0, channels))
        };
        for (((to, &byte), &step), &zero) in to.iter_mut().zip(from).zip(step).zip(zero) {
            *to = (f32::from(load(byte)) - f32::from(zero)) * step;
        }
    });
    Ok(())
}

/// Real numbers to stored bytes: `x / step + zero`, to nearest (halves up), within `0..=255`; what is no
/// number becomes 0.
pub fn quantise(
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    step: &[f32],
    zero: &[u8],
) -> Result<(), OpError> {
    check_float("input", &input, arena.len())?;
    check_output(&output, 1, arena.len())?;
    check_same("output", &output, &input)?;
    check_float_apart("input", &input, &output)?;
    check_len("step", step.len(), input.channels)?;
    check_len("zero", zero.len(), input.channels)?;
    let base = Base(arena.base_mut());
    let channels = input.channels;
    each_pixel(crew, input.pixels(), channels, |at| {
        // SAFETY: the pixel is in the checked views, which are apart; no other task writes it.
        let (from, to) = unsafe {
            let to = base.at(output.offset + at * output.stride);
            (read(base, &input, at, 0, channels), std::slice::from_raw_parts_mut(to, channels))
        };
        for (((to, &x), &step), &zero) in to.iter_mut().zip(from).zip(step).zip(zero) {
            // The conversion cuts off, which is down: what it takes is not negative.
            *to = store(((x / step + f32::from(zero)).clamp(0.0, 255.0) + 0.5) as u8);
        }
    });
    Ok(())
}
