//! Where the taps of a tile's output pixels read: the table of pointers of an indirect convolution.
//!
//! A table `[tap][pitch]` points to the input pixel that each tap of each output pixel reads; taps outside
//! the picture point to a row of zero points. Where a window's row of taps is one run of memory (dense input,
//! no dilation) and the tile is away from borders, that row is one long tap.
//!
//! Most tiles lie on one row of the output, away from borders. Their tables differ by one distance alone, so
//! that the last one is kept and moved: two to four pointers an instruction, where a narrow layer would
//! otherwise spend a sixth of its time on filling tables.
//!
//! Test: `kernels::tests`.

use super::super::arena::SLACK;
use super::super::{Kernels, MAX_ROWS, MAX_TAPS};
use super::{ConvJob, Window};

/// Pointers `[tap][pitch]`.
type Pointers = [*const u8; MAX_TAPS * MAX_ROWS];
/// Pointers that are moved together, whether they are in use or not.
const MOVED: usize = 8;

/// What a batch of tiles reads.
pub(super) struct Filled<'a> {
    /// Pointers `[tap][pitch]`, those of the pixels past `rows` valid up to a whole tile.
    pub(super) pixels: &'a [*const u8],
    pub(super) taps: usize,
    /// Readable bytes of each.
    pub(super) depth: usize,
    /// Output pixels.
    pub(super) rows: usize,
}

/// The pointers of one batch of tiles after another.
pub(super) struct Table<'a> {
    job: &'a ConvJob<'a>,
    /// First byte of the input view.
    start: *const u8,
    pitch: usize,
    /// Most pointers of a row that a tile reads.
    reach: usize,
    /// Output pixels of a tile, and of a whole batch.
    unit: usize,
    batch: usize,
    depth: usize,
    /// Taps, and readable bytes of each, of a tile away from borders.
    inner: (usize, usize),
    /// Whether each output pixel reads the input pixel of its own number.
    one_to_one: bool,
    /// The last batch away from borders, its pointers for a whole one.
    kept: Pointers,
    /// Its first pixel's top left tap, in bytes from `start`.
    kept_at: Option<isize>,
    /// Its pixels, whole tiles.
    kept_rows: usize,
    /// How many more batches of as many pixels follow on the same row, away from borders.
    ready: usize,
    /// Bytes from one of them to the next.
    advance: isize,
    /// Any other tile.
    border: Pointers,
}

impl<'a> Table<'a> {
    /// A table for `job` on the kernels `k`; its input begins at `start`.
    pub(super) fn new(k: &dyn Kernels, job: &'a ConvJob<'a>, start: *const u8) -> Self {
        const { assert!(SLACK >= 8, "rounding a pixel's channels up reads less than 8 bytes past its end") };
        let ConvJob { input, output, .. } = *job;
        let Window { kernel, stride, dilation, pad_top, pad_left } = job.window;
        let depth = job.depth(k.layout());
        let (reach, unit) = (k.tile().rows, k.tile_for(output.channels).rows);
        let joined = kernel > 1 && dilation == 1 && input.stride == depth;
        let one_to_one = kernel == 1
            && stride == 1
            && (pad_top, pad_left) == (0, 0)
            && (input.height, input.width) == (output.height, output.width);
        let across = if joined { 1 } else { kernel };
        let pad = job.pad_row.as_ptr();
        Self {
            job,
            start,
            pitch: (reach * k.batch()).min(MAX_ROWS),
            reach,
            unit,
            batch: unit * k.batch(),
            depth,
            inner: (kernel * across, depth * kernel / across),
            one_to_one,
            kept: [pad; MAX_TAPS * MAX_ROWS],
            kept_at: None,
            kept_rows: 0,
            ready: 0,
            advance: 0,
            border: [pad; MAX_TAPS * MAX_ROWS],
        }
    }

    /// That the next pixels do not follow the last ones.
    pub(super) fn leap(&mut self) {
        self.ready = 0;
    }

    /// Points to what output pixels from `at` on read: at most `most` of them, whole tiles of a batch away from borders,
    /// else one tile.
    ///
    /// All pointers that a kernel reads are within the input view, whose last pixel may be read for `depth` bytes:
    /// less than [`SLACK`] past its end; or they are to `pad_row`, which has `depth` bytes.
    #[inline]
    pub(super) fn fill(&mut self, at: usize, most: usize) -> Filled<'_> {
        let (taps, depth) = self.inner;
        if self.ready > 0 && self.kept_rows <= most {
            self.ready -= 1;
            self.move_by(self.advance);
        } else if let Some((first, pixels)) = self.inside(at)
            && let rows = self.batch.min(pixels).min(most) / self.unit * self.unit
            && rows > 0
        {
            self.keep(first, rows);
            self.ready = (pixels - rows) / rows;
        } else {
            self.ready = 0;
            let (rows, taps) = (self.unit.min(most), self.job.window.taps());
            self.fill_border(at, rows);
            return Filled { pixels: &self.border[..taps * self.pitch], taps, depth: self.depth, rows };
        }
        Filled { pixels: &self.kept[..taps * self.pitch], taps, depth, rows: self.kept_rows }
    }

    /// Where output pixel `at` reads nothing outside the picture: bytes from `start` to its top left tap, and
    /// how many pixels, itself included, follow one another at equal distances and read nothing outside.
    fn inside(&self, at: usize) -> Option<(isize, usize)> {
        let ConvJob { input, output, window, .. } = *self.job;
        let Window { kernel, stride, dilation, .. } = window;
        if self.one_to_one {
            return Some(((at * input.stride) as isize, output.pixels() - at));
        }
        let (oy, ox) = (at / output.width, at % output.width);
        let (y, x) = self.corner(oy, ox);
        let reach = ((kernel - 1) * dilation) as isize;
        // Free columns to the right of the window.
        let free = input.width as isize - 1 - (x + reach);
        if y < 0 || y + reach >= input.height as isize || x < 0 || free < 0 {
            return None;
        }
        let pixels = (free as usize / stride.max(1) + 1).min(output.width - ox);
        Some((self.offset(y, x), pixels))
    }

    /// The top left tap of an output pixel.
    fn corner(&self, oy: usize, ox: usize) -> (isize, isize) {
        let (y, x) = self.job.window.corner((oy, ox));
        (y as isize, x as isize)
    }

    /// Bytes from `start` to a position.
    fn offset(&self, y: isize, x: isize) -> isize {
        isize::wrapping_mul(y * self.job.input.width as isize + x, self.job.input.stride as isize)
    }

    /// Makes `kept` the table of `rows` pixels away from borders, the first one's top left tap at `first`.
    fn keep(&mut self, first: isize, rows: usize) {
        match self.kept_at {
            Some(before) => self.move_by(first - before),
            None => self.fill_inside(first),
        }
        self.kept_rows = rows;
        self.advance = (rows * self.job.window.stride * self.job.input.stride) as isize;
    }

    /// Moves the kept batch.
    #[inline]
    fn move_by(&mut self, bytes: isize) {
        let used = (self.inner.0 * self.pitch).next_multiple_of(MOVED).min(self.kept.len());
        for pointers in self.kept[..used].as_chunks_mut::<MOVED>().0 {
            pointers.iter_mut().for_each(|p| *p = p.wrapping_offset(bytes));
        }
        self.kept_at = self.kept_at.map(|at| at + bytes);
    }

    /// Pointers of a whole batch: those past the pixels in use may lie anywhere, and no one reads them.
    fn fill_inside(&mut self, first: isize) {
        let ConvJob { input, window, .. } = *self.job;
        let Window { kernel, stride, dilation, .. } = window;
        let across = self.inner.0 / kernel;
        let line = input.width * input.stride * dilation;
        for (tap, pointers) in self.kept.chunks_exact_mut(self.pitch).take(self.inner.0).enumerate() {
            let (ky, kx) = (tap / across, tap % across);
            let origin = self.start.wrapping_add(ky * line + kx * dilation * input.stride);
            for (r, pointer) in pointers.iter_mut().enumerate() {
                let ahead = (r.min(self.batch - 1) * stride * input.stride) as isize;
                *pointer = origin.wrapping_offset(first + ahead);
            }
        }
        self.kept_at = Some(first);
    }

    fn fill_border(&mut self, at: usize, rows: usize) {
        let ConvJob { input, output, window, pad_row, .. } = *self.job;
        let Window { kernel, dilation, .. } = window;
        let (height, width) = (input.height as isize, input.width as isize);
        let (mut oy, mut ox) = (at / output.width, at % output.width);
        for r in 0..self.reach {
            if r >= rows {
                for pointers in self.border.chunks_exact_mut(self.pitch).take(kernel * kernel) {
                    pointers[r] = pointers[r - 1];
                }
                continue;
            }
            let (top, left) = self.corner(oy, ox);
            for ky in 0..kernel {
                let y = top + (ky * dilation) as isize;
                let line = self.start.wrapping_offset(self.offset(y, left));
                for kx in 0..kernel {
                    let ahead = kx * dilation;
                    let x = left + ahead as isize;
                    let seen = y >= 0 && y < height && x >= 0 && x < width;
                    let pixel = line.wrapping_add(ahead * input.stride);
                    self.border[(ky * kernel + kx) * self.pitch + r] =
                        if seen { pixel } else { pad_row.as_ptr() };
                }
            }
            ox += 1;
            if ox == output.width {
                (oy, ox) = (oy + 1, 0);
            }
        }
    }
}
