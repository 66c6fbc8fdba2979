//! Maximum over a window, stride 1, same size; what lies outside the picture does not count.
//!
//! Test: `kernels::tests`.

use super::super::{Arena, Crew, Kernels, MAX_TAPS, View};
use super::window::check_pool;
use super::{Base, OpError, check_apart, check_input, check_output, check_same, run_len};

/// Writes to each pixel of `output` the maximum over the `window x window` pixels around it.
/// `window` is odd, and at most 7. Both have the same zero points: bytes are compared as they are.
pub fn max_pool(
    k: &dyn Kernels,
    crew: &Crew<'_>,
    arena: &mut Arena,
    (input, output): (View, View),
    window: usize,
) -> Result<(), OpError> {
    check_pool(window)?;
    check_input("input", &input, arena.len())?;
    check_output(&output, 1, arena.len())?;
    check_same("output", &output, &input)?;
    check_apart("input", &input, input.channels, &output)?;
    let base = Base(arena.base_mut());
    let (height, width, reach) = (input.height, input.width, window / 2);
    let run = run_len(
        input.pixels(),
        1,
        (1usize << 18).div_ceil(window * window * input.channels.max(1)),
        crew.lanes(),
    );
    crew.for_each(input.pixels().div_ceil(run), &|index, _| {
        for at in index * run..input.pixels().min((index + 1) * run) {
            let (y, x) = (at / width, at % width);
            let mut sources = [std::ptr::null(); MAX_TAPS];
            let mut count = 0;
            for sy in y.saturating_sub(reach)..height.min(y + reach + 1) {
                for sx in x.saturating_sub(reach)..width.min(x + reach + 1) {
                    // SAFETY: the pixel is in the checked view.
                    sources[count] =
                        unsafe { base.at(input.offset + (sy * width + sx) * input.stride).cast_const() };
                    count += 1;
                }
            }
            // SAFETY: sources are pixels of the checked input, at least the one at (y, x); the output
            // pixel is in the checked view, this task's alone, and apart from the input.
            unsafe {
                let out = base.at(output.offset + at * output.stride);
                k.max(&sources[..count], input.channels, out);
            }
        }
    });
    Ok(())
}
