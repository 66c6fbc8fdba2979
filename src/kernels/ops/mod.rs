//! Safe operations on views of one arena.
//!
//! Each operation checks its views against the arena and against each other ([`OpError`]), cuts the work
//! into tasks, and lets a [`Crew`](super::Crew) run them. Checking costs some 50 ns a call; a plan can call
//! a job's `check` once to learn of faults early.

mod conv;
mod depthwise;
mod elementwise;
mod float;
mod float_conv;
mod mix;
mod pixels;
mod pool;
mod runs;
mod window;

pub use conv::{ConvJob, conv, conv_runs};
pub use depthwise::{DepthwiseJob, depthwise};
pub use elementwise::{AddJob, Affine, ScaleJob, add, channel_sums, copy, scale_channels, upsample};
pub use float::{dequantise, float_add, float_max_pool, float_mix, float_scale, float_sums, quantise};
pub use float_conv::{FloatAct, FloatConvJob, float_conv};
pub use mix::{DepthwiseMixJob, MAX_EXPERTS, MixJob, Mixed, mix, mix_depthwise};
pub use pool::max_pool;
pub use runs::{Runs, mark_above, mark_read};
pub use window::Window;

use super::{CELL_CHANNELS, MAX_TAPS, Requant, View};

/// An operation was asked for that cannot be done.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum OpError {
    /// A view leads outside the arena.
    #[error("the {what} ends at byte {end}, the arena has {len}")]
    Outside {
        /// Which view.
        what: &'static str,
        /// Its end.
        end: usize,
        /// The arena's length.
        len: usize,
    },
    /// Pixels of an output overlap each other.
    #[error("pixels of {bytes} bytes do not fit a stride of {stride}")]
    Stride {
        /// Bytes of a pixel.
        bytes: usize,
        /// The view's stride.
        stride: usize,
    },
    /// The output shares bytes with what is read.
    #[error("the output shares bytes with the {what}")]
    Overlap {
        /// Which view.
        what: &'static str,
    },
    /// An element is of the wrong size.
    #[error("the {what} has elements of {element} bytes, not {wanted}")]
    Element {
        /// Which view.
        what: &'static str,
        /// Its element.
        element: usize,
        /// What the operation works on.
        wanted: usize,
    },
    /// Two views do not fit together.
    #[error("the {what} is {have:?} (height, width, channels), not {want:?}")]
    Shape {
        /// Which view.
        what: &'static str,
        /// Its shape.
        have: (usize, usize, usize),
        /// The shape that fits.
        want: (usize, usize, usize),
    },
    /// A window that no kernel takes.
    #[error("a {size} x {size} window is not supported here")]
    Window {
        /// Its size.
        size: usize,
    },
    /// A picture, weight, step or padding is larger than index arithmetic is proven for.
    #[error("{size} is too large for a side, channels, taps, a step or a padding")]
    Geometry {
        /// What was too large.
        size: usize,
    },
    /// A vector is too short.
    #[error("{what} has {have} elements, at least {want} are needed")]
    Short {
        /// Which vector.
        what: &'static str,
        /// Its length.
        have: usize,
        /// The length needed.
        want: usize,
    },
    /// Numbers of an f32 view do not lie at multiples of 4 bytes.
    #[error("the {what}'s numbers do not lie at multiples of 4 bytes")]
    Offset {
        /// Which view.
        what: &'static str,
    },
    /// Weights do not begin at a multiple of 64 bytes.
    #[error("weights are not aligned to 64 bytes")]
    Unaligned,
    /// A residual without a residual's requantisation, or the other way round, or with f32 output.
    #[error("residual and requantisation do not fit together")]
    Residual,
    /// More experts than sums in f32 are exact for, or none.
    #[error("{count} experts are not supported")]
    Experts {
        /// How many.
        count: usize,
    },
    /// A sum over so many pixels may not fit 32 bits.
    #[error("a sum over {pixels} pixels may not fit 32 bits")]
    Sum {
        /// How many.
        pixels: usize,
    },
}

/// The first element of a block that the threads of a crew share: the arena's bytes, mostly.
struct Base<T = u8>(*mut T);

impl<T> Clone for Base<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Base<T> {}

// SAFETY: it is an address of plain numbers; whoever uses it says why no two threads touch the same one.
unsafe impl<T: Copy> Send for Base<T> {}
// SAFETY: as above.
unsafe impl<T: Copy> Sync for Base<T> {}

impl<T> Base<T> {
    /// The element at `offset`. A method, so that closures capture the whole `Base`.
    ///
    /// # Safety
    /// - `offset` is within the block that it points to.
    #[inline(always)]
    unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's duty.
        unsafe { self.0.add(offset) }
    }
}

/// `view.end()`, or `usize::MAX` where it does not fit.
fn checked_end(view: &View) -> usize {
    let end = || {
        let pixels = view.height.checked_mul(view.width)?;
        let bytes = view.channels.checked_mul(view.element)?;
        match pixels {
            0 => Some(view.offset),
            n => (n - 1).checked_mul(view.stride)?.checked_add(bytes)?.checked_add(view.offset),
        }
    };
    end().unwrap_or(usize::MAX)
}

/// A view that is read: inside the arena, elements of one byte.
fn check_input(what: &'static str, view: &View, len: usize) -> Result<(), OpError> {
    if view.element != 1 {
        return Err(OpError::Element { what, element: view.element, wanted: 1 });
    }
    let end = checked_end(view);
    if end > len { Err(OpError::Outside { what, end, len }) } else { Ok(()) }
}

/// A view that is written: inside the arena, elements of `element` bytes, no pixel overlapping another.
fn check_output(view: &View, element: usize, len: usize) -> Result<(), OpError> {
    if view.element != element {
        return Err(OpError::Element { what: "output", element: view.element, wanted: element });
    }
    let end = checked_end(view);
    if end > len {
        return Err(OpError::Outside { what: "output", end, len });
    }
    let bytes = view.channels * view.element;
    if view.pixels() > 1 && view.stride < bytes {
        return Err(OpError::Stride { bytes, stride: view.stride });
    }
    Ok(())
}

/// That no byte of `output` is read through `read`, whose pixels are read for `bytes` bytes each. Both are
/// checked views. Slices of one buffer's pixels are told apart.
fn check_apart(what: &'static str, read: &View, bytes: usize, output: &View) -> Result<(), OpError> {
    if read.pixels() == 0 || output.pixels() == 0 || bytes == 0 || output.channels == 0 {
        return Ok(());
    }
    let read_end = read.offset + (read.pixels() - 1) * read.stride + bytes;
    if read_end <= output.offset || output.end() <= read.offset {
        return Ok(());
    }
    if read.stride == output.stride && read.stride > 0 {
        let stride = read.stride;
        let ahead = (output.offset % stride + stride - read.offset % stride) % stride;
        if ahead >= bytes && ahead + output.channels * output.element <= stride {
            return Ok(());
        }
    }
    Err(OpError::Overlap { what })
}

/// That two views have the same height, width and channels.
fn check_same(what: &'static str, view: &View, like: &View) -> Result<(), OpError> {
    let shape = |v: &View| (v.height, v.width, v.channels);
    if shape(view) == shape(like) {
        return Ok(());
    }
    Err(OpError::Shape { what, have: shape(view), want: shape(like) })
}

fn check_len(what: &'static str, have: usize, want: usize) -> Result<(), OpError> {
    if have < want { Err(OpError::Short { what, have, want }) } else { Ok(()) }
}

/// Most rows, columns or channels.
const MAX_SIDE: usize = 1 << 24;

/// That a weight's sizes cannot overflow when multiplied.
fn check_sizes(taps: usize, channels: [usize; 2]) -> Result<(), OpError> {
    let sizes = [(taps, MAX_TAPS), (channels[0], MAX_SIDE), (channels[1], MAX_SIDE)];
    match sizes.into_iter().find(|(size, most)| size > most) {
        Some((size, _)) => Err(OpError::Geometry { size }),
        None => Ok(()),
    }
}

impl Requant {
    /// That its vectors serve `channels` output channels, rounded up to a cell.
    fn check(&self, channels: usize) -> Result<(), OpError> {
        let want = channels.next_multiple_of(CELL_CHANNELS);
        check_len("the requantisation's bias", self.bias.len(), want)?;
        check_len("the requantisation's scale", self.scale.len(), want)?;
        if !self.is_float() {
            check_len("the requantisation's mult", self.mult.len(), want)?;
            check_len("the requantisation's zero", self.zero.len(), want)?;
        }
        if let Some(residual) = &self.residual {
            check_len("the residual's mult", residual.mult.len(), want)?;
            check_len("the residual's zero", residual.zero.len(), want)?;
        }
        if self.residual.is_some() && self.is_float() { Err(OpError::Residual) } else { Ok(()) }
    }
}

/// Cuts `items` into runs of at least `least` (and a multiple of `unit`), some eight for each lane at most.
fn run_len(items: usize, unit: usize, least: usize, lanes: usize) -> usize {
    let even = if lanes == 1 { items } else { items.div_ceil(8 * lanes) };
    even.max(least).max(1).next_multiple_of(unit.max(1))
}
