//! Which input pixels an output pixel is computed from.
//!
//! Test: `kernels::tests`.

use super::super::{MAX_TAPS, View};
use super::{MAX_SIDE, OpError};

/// Longest step and widest padding.
const MAX_STEP: usize = 1 << 12;

/// The window of a convolution: `kernel x kernel` taps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Taps of a row, and rows of them.
    pub kernel: usize,
    /// Input pixels from one output pixel to the next.
    pub stride: usize,
    /// Input pixels from one tap to the next.
    pub dilation: usize,
    /// Rows of padding above.
    pub pad_top: usize,
    /// Columns of padding on the left.
    pub pad_left: usize,
}

impl Window {
    /// `kernel²`
    #[inline(always)]
    pub fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// That positions of taps cannot overflow: sides of at most 2^24 pixels, steps and paddings of 2^12.
    /// Gives the number of taps.
    pub(super) fn check(&self, views: [&View; 2]) -> Result<usize, OpError> {
        let taps = match self.kernel.checked_mul(self.kernel) {
            Some(taps) if (1..=MAX_TAPS).contains(&taps) => taps,
            _ => return Err(OpError::Window { size: self.kernel }),
        };
        let sides = views.into_iter().flat_map(|view| [view.height, view.width, view.channels]);
        let steps = [self.stride, self.dilation, self.pad_top, self.pad_left];
        let bounded = sides.map(|s| (s, MAX_SIDE)).chain(steps.map(|s| (s, MAX_STEP)));
        match bounded.into_iter().find(|(size, most)| size > most) {
            Some((size, _)) => Err(OpError::Geometry { size }),
            None => Ok(taps),
        }
    }

    /// Position of the first tap of output pixel `(y, x)`; what is above or left of the picture wraps.
    #[inline(always)]
    pub(super) fn corner(&self, (y, x): (usize, usize)) -> (usize, usize) {
        ((y * self.stride).wrapping_sub(self.pad_top), (x * self.stride).wrapping_sub(self.pad_left))
    }
}

/// That a pooling window has a middle and fits a kernel's table of pointers.
pub(super) fn check_pool(window: usize) -> Result<(), OpError> {
    if window.is_multiple_of(2) || window > MAX_TAPS.isqrt() {
        return Err(OpError::Window { size: window });
    }
    Ok(())
}
