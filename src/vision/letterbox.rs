//! Letterboxing: a picture of any size, resized with its proportions kept, centred on grey.
//!
//! The numbers are Ultralytics' (`LetterBox` and `scale_boxes` of 8.4): ratio `min(h/h0, w/w0)`, enlarging
//! allowed, sizes by round-half-even, grey 114. The resize equals OpenCV's `INTER_LINEAR` on bytes bit for
//! bit (`tests::equals_opencv`): coefficients of 11 bits, horizontal sums cut to 15 bits, then the vertical
//! sum.

use super::pixels::{LayoutError, Pixels, Size};
pub use crate::kernels::rows::PIXEL;
use crate::kernels::rows::{Columns, Rows, WEIGHT_BITS};

/// Grey level around the picture.
pub const GREY: u8 = 114;

/// What the caller of [`Letterbox`] got wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LetterboxError {
    /// The picture's bytes are not what its layout promises.
    #[error(transparent)]
    Picture(#[from] LayoutError),
    /// A side of the input is zero.
    #[error("an input of {size} has no pixels")]
    EmptyInput {
        /// The input's size.
        size: Size,
    },
    /// The output buffer has another length.
    #[error("an input of {size} takes {needed} bytes, the buffer has {actual}")]
    OutputLength {
        /// The input's size.
        size: Size,
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        actual: usize,
    },
}

/// Where a picture lies in the engine's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The original picture.
    pub source: Size,
    /// The engine's input.
    pub input: Size,
    /// The resized picture.
    pub resized: Size,
    /// Grey columns to its left.
    pub left: usize,
    /// Grey rows above it.
    pub top: usize,
}

impl Placement {
    /// Places a picture of `source` pixels, with its proportions kept, in the middle of `input`.
    pub fn new(source: Size, input: Size) -> Self {
        let resized = fit(source, input);
        Self {
            source,
            input,
            resized,
            left: before(input.width - resized.width),
            top: before(input.height - resized.height),
        }
    }

    /// A box `[x1, y1, x2, y2]` in the input's pixels as one in the original's, clipped to it.
    pub fn to_source(&self, corners: [f32; 4]) -> [f32; 4] {
        let axis = |value: f32, before: usize, resized: usize, source: usize| {
            let gain = resized as f32 / source as f32;
            ((value - before as f32) / gain).clamp(0.0, source as f32)
        };
        let [x1, y1, x2, y2] = corners;
        [
            axis(x1, self.left, self.resized.width, self.source.width),
            axis(y1, self.top, self.resized.height, self.source.height),
            axis(x2, self.left, self.resized.width, self.source.width),
            axis(y2, self.top, self.resized.height, self.source.height),
        ]
    }
}

/// The smallest input whose sides are multiples of `stride` and that holds `source` fitted into `limit`.
///
/// A camera of 1280x720 and a limit of 640x640 give 640x384: 40 % less work than the square.
pub fn rectangle(source: Size, limit: Size, stride: usize) -> Size {
    let resized = fit(source, limit);
    Size {
        width: resized.width.next_multiple_of(stride).min(limit.width),
        height: resized.height.next_multiple_of(stride).min(limit.height),
    }
}

/// Size of `source` enlarged or reduced to fill `limit` in one direction.
fn fit(source: Size, limit: Size) -> Size {
    let ratio = (limit.height as f64 / source.height as f64).min(limit.width as f64 / source.width as f64);
    let side = |length: usize, most: usize| {
        ((length as f64 * ratio).round_ties_even() as usize).clamp(1, most.max(1))
    };
    Size { width: side(source.width, limit.width), height: side(source.height, limit.height) }
}

/// Padding on the first side: half, an odd pixel goes to the other one (`round(half - 0.1)`).
fn before(padding: usize) -> usize {
    padding / 2
}

/// One output position: the first of two neighbouring source positions, and both weights (sum 2048).
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weights: [i16; 2],
}

/// A letterbox with its buffers; reuse it from frame to frame.
///
/// A picture goes through it row by row, in whatever layout it has: only the rows that the input needs are
/// read, each once, and no picture lies between.
#[derive(Debug, Default)]
pub struct Letterbox {
    kernels: Rows,
    placement: Option<Placement>,
    columns: Columns,
    rows: Vec<Tap>,
    /// One source row `[source.width + 1][4]`; the last pixel only ever counts 0.
    line: Vec<u8>,
    /// Two horizontally resized source rows `[resized.width][4]`, 15 bits.
    strips: [Vec<i16>; 2],
    /// Which source row each strip holds.
    held: [Option<usize>; 2],
}

impl Letterbox {
    /// A letterbox without buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Letterbox::new`], with other kernels than the best ones.
    pub fn with(kernels: Rows) -> Self {
        Self { kernels, ..Self::default() }
    }

    /// Writes `picture` into `out`, `[input.height][input.width][4]` bytes `r, g, b, 0`, less `offset`.
    ///
    /// `offset` is subtracted from every byte, wrapping (128 where activations are stored as `i8`).
    ///
    /// # Errors
    /// [`LetterboxError`]; nothing is written then.
    pub fn run(
        &mut self,
        picture: Pixels<'_>,
        input: Size,
        offset: u8,
        out: &mut [u8],
    ) -> Result<Placement, LetterboxError> {
        picture.check()?;
        if input.width == 0 || input.height == 0 {
            return Err(LetterboxError::EmptyInput { size: input });
        }
        let needed = input.height * input.width * PIXEL;
        if out.len() != needed {
            return Err(LetterboxError::OutputLength { size: input, needed, actual: out.len() });
        }

        let placement = Placement::new(picture.size, input);
        self.prepare(placement);
        let stored = |value: u8| value.wrapping_sub(offset);
        let grey = [stored(GREY), stored(GREY), stored(GREY), stored(0)];
        let fill = |bytes: &mut [u8]| bytes.as_chunks_mut().0.fill(grey);
        let line = input.width * PIXEL;
        let (above, rest) = out.split_at_mut(placement.top * line);
        let (middle, below) = rest.split_at_mut(placement.resized.height * line);
        fill(above);
        fill(below);
        let from = placement.left * PIXEL;
        let to = from + placement.resized.width * PIXEL;
        for (y, target) in middle.chunks_exact_mut(line).enumerate() {
            fill(&mut target[..from]);
            self.write_row(picture, y, offset, &mut target[from..to]);
            fill(&mut target[to..]);
        }
        Ok(placement)
    }

    /// Computes the taps, unless they are those of the last frame.
    fn prepare(&mut self, placement: Placement) {
        self.held = [None; 2];
        if self.placement == Some(placement) {
            return;
        }
        let Placement { source, resized, .. } = placement;
        // Where a column's neighbour is the pixel itself, at the border, its weight is 0: any will do.
        self.columns.fill(taps(source.width, resized.width, true).map(|tap| (tap.first as u32, tap.weights)));
        self.rows.clear();
        self.rows.extend(taps(source.height, resized.height, false));
        self.line.clear();
        self.line.resize((source.width + 1) * PIXEL, 0);
        for strip in &mut self.strips {
            strip.clear();
            strip.resize(resized.width * PIXEL, 0);
        }
        self.placement = Some(placement);
    }

    /// Row `y` of the resized picture into `target`, `[resized.width][4]`.
    fn write_row(&mut self, picture: Pixels<'_>, y: usize, offset: u8, target: &mut [u8]) {
        if target.len() == PIXEL * picture.size.width && self.rows.len() == picture.size.height {
            // In its own size: all weights are 2048 and 0, and what the shifts cut off is 0.
            self.kernels.colours(picture.row(y), target);
            target.iter_mut().for_each(|byte| *byte = byte.wrapping_sub(offset));
            return;
        }
        let Tap { first, second, weights } = self.rows[y];
        // A row that counts nothing need not be read.
        let [first, second] = match weights {
            [_, 0] => [first; 2],
            [0, _] => [second; 2],
            _ => [first, second],
        };
        let strips = [self.strip(picture, first, second), self.strip(picture, second, first)];
        self.kernels.down(strips.map(|strip| &self.strips[strip][..]), weights, offset, target);
    }

    /// The strip that holds source row `row`, computed unless present; `keep` is not overwritten.
    fn strip(&mut self, picture: Pixels<'_>, row: usize, keep: usize) -> usize {
        if let Some(strip) = self.held.iter().position(|&held| held == Some(row)) {
            return strip;
        }
        let strip = usize::from(self.held[0] == Some(keep));
        self.kernels.colours(picture.row(row), &mut self.line[..PIXEL * picture.size.width]);
        self.kernels.across(&self.columns, &self.line, &mut self.strips[strip]);
        self.held[strip] = Some(row);
        strip
    }
}

/// Taps from `from` source positions to `to` output ones, as OpenCV computes them.
///
/// Outside the source both neighbours are its border. Columns then take one of them whole (`snap`), rows
/// keep their weights: that changes a rounding, so both ways are followed.
fn taps(from: usize, to: usize, snap: bool) -> impl Iterator<Item = Tap> {
    let scale = 1.0 / (to as f64 / from as f64);
    let one = f32::from(1u16 << WEIGHT_BITS);
    let last = from as isize - 1;
    (0..to).map(move |i| {
        let position = ((i as f64 + 0.5) * scale - 0.5) as f32;
        let mut index = position.floor() as isize;
        let mut fraction = position - index as f32;
        if snap && (index < 0 || index >= last) {
            index = index.clamp(0, last);
            fraction = 0.0;
        }
        let weight = |part: f32| (part * one).round_ties_even() as i16;
        Tap {
            first: index.clamp(0, last) as usize,
            second: (index + 1).clamp(0, last) as usize,
            weights: [weight(1.0 - fraction), weight(fraction)],
        }
    })
}

#[cfg(test)]
#[path = "letterbox_tests.rs"]
mod tests;
