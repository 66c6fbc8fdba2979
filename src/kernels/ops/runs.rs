//! Some pixels of an output, as runs: what is computed where not all of it is wanted.
//!
//! Test: `kernels::tests`.

use std::ops::Range;

use super::super::{Arena, Crew, View};
use super::float::{check_float, each_pixel, read};
use super::{Base, OpError, Window, check_len};

/// Pixels of an output, numbered through across rows.
#[derive(Debug, Default)]
pub struct Runs {
    /// In rising order, apart.
    list: Vec<Run>,
    /// All together.
    pixels: usize,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    len: usize,
    /// Pixels of the runs before.
    before: usize,
}

impl Runs {
    /// Makes room for any that are taken of so many marks in tiles of `unit` pixels.
    pub fn make_room(&mut self, marks: usize, unit: usize) {
        self.list.clear();
        self.pixels = 0;
        // There is at least a tile from one run's first pixel to the gap before the next.
        self.list.reserve(marks / (unit + 1) + 1);
    }

    /// Takes the pixels that are marked, by anything but 0, in place of those it has: as whole tiles of `unit` pixels,
    /// with what lies between two of them where that is less.
    pub fn take(&mut self, marks: &[u8], unit: usize) {
        let unit = unit.max(1);
        self.make_room(marks.len(), unit);
        let mut run = 0..0;
        let mut at = 0;
        while let Some(ahead) = marks[at..].iter().position(|&mark| mark != 0) {
            let first = at + ahead;
            if run.is_empty() || first >= run.end + unit {
                self.push(run);
                run = first..first;
            }
            let len = (first + 1 - run.start).next_multiple_of(unit);
            run.end = marks.len().min(run.start + len);
            at = run.end;
        }
        self.push(run);
    }

    fn push(&mut self, run: Range<usize>) {
        if !run.is_empty() {
            self.list.push(Run { first: run.start, len: run.len(), before: self.pixels });
            self.pixels += run.len();
        }
    }

    /// How many pixels they are.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// One past the last.
    pub(super) fn end(&self) -> usize {
        self.list.last().map_or(0, |run| run.first + run.len)
    }

    /// The runs of the pixels that are `part` of all of them.
    pub fn part(&self, part: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let from = self.list.partition_point(|run| run.before + run.len <= part.start);
        self.list[from..].iter().take_while(move |run| run.before < part.end).map(move |run| {
            let (skip, end) = (part.start.saturating_sub(run.before), run.len.min(part.end - run.before));
            run.first + skip..run.first + end
        })
    }
}

/// Marks the pixels of an f32 view that have a number above `floor` with 1, the others with 0.
pub fn mark_above(
    crew: &Crew<'_>,
    arena: &Arena,
    input: &View,
    floor: f32,
    marks: &mut [u8],
) -> Result<(), OpError> {
    check_float("input", input, arena.len())?;
    check_len("marks", marks.len(), input.pixels())?;
    let (base, out) = (Base(arena.base().cast_mut()), Base(marks.as_mut_ptr()));
    each_pixel(crew, input.pixels(), input.channels, |at| {
        // SAFETY: the pixel is in the checked view, which nobody writes: the arena is borrowed.
        let numbers = unsafe { read(base, input, at, 0, input.channels) };
        // Without a branch, so that it is done in vectors.
        let above = numbers.iter().fold(false, |any, &number| any | (number > floor));
        // SAFETY: `marks` has all pixels, and this one is this task's.
        unsafe { *out.at(at) = u8::from(above) };
    });
    Ok(())
}

/// Marks the pixels of `input` that `window` reads for the marked ones of `output` with 1, the others with 0.
///
/// # Panics
/// Where there are fewer marks than pixels.
pub fn mark_read(window: &Window, (output, marks): (&View, &[u8]), (input, read): (&View, &mut [u8])) {
    let read = &mut read[..input.pixels()];
    read.fill(0);
    for (at, _) in marks[..output.pixels()].iter().enumerate().filter(|(_, mark)| **mark != 0) {
        let (top, left) = window.corner((at / output.width, at % output.width));
        for tap in 0..window.taps() {
            // Wrapping: what is above or left of the picture becomes a huge number, thus outside.
            let y = top.wrapping_add(tap / window.kernel * window.dilation);
            let x = left.wrapping_add(tap % window.kernel * window.dilation);
            if y < input.height && x < input.width {
                read[y * input.width + x] = 1;
            }
        }
    }
}
