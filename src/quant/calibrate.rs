//! Calibration pictures, and what the reference does with them.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::error::QuantError;
use super::ranges::Ranges;
use crate::detector::without_fourth;
use crate::model::graph::Graph;
use crate::reference::{Reference, to_unit};
use crate::vision::{Letterbox, LetterboxError, Pixels, Size, decode_image};

/// Most pictures that are held out from the calibration.
const MOST_HELD_OUT: usize = 32;
/// One picture of so many is held out.
const HELD_OUT_SHARE: usize = 4;
/// Ranges for inputs below this (pixels of the longer side) also come from larger ones.
const ENLARGED: usize = 640;

/// Observed ranges, and the pictures kept back.
#[derive(Debug)]
pub struct Calibration {
    /// What each channel did on the pictures that are not held out.
    pub ranges: Ranges,
    /// What each channel did on all pictures.
    pub all: Ranges,
    /// Pictures that could be read.
    pub pictures: usize,
    /// Pictures to measure on, `[height, width, 3]` bytes each: others than those of [`Self::ranges`], if there
    /// were enough.
    pub held_out: Vec<Vec<u8>>,
}

/// Runs the reference over pictures. `progress` is told how many are done.
///
/// Where the input is small ([`enlarged`]), each picture is seen twice: so do channels speak up that answer to larger
/// objects than these pictures have, but others may.
///
/// # Errors
/// [`QuantError`] where no picture can be read, or the reference cannot run.
pub fn calibrate(
    graph: &Graph,
    reference: &Reference,
    pictures: &[PathBuf],
    size: [usize; 2],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Calibration, QuantError> {
    let mut inputs = Inputs::new(size);
    let mut larger = enlarged(size, graph.coarsest_stride()).map(Inputs::new);
    let mut ranges = [Ranges::new(graph), Ranges::new(graph)];
    let (mut seen, mut held_out, mut last) = ([0, 0], Vec::new(), None);
    let held = (pictures.len() / HELD_OUT_SHARE).min(MOST_HELD_OUT);
    let is_held =
        |index: usize| held > 0 && (index + 1) * held / pictures.len() > index * held / pictures.len();
    for (index, path) in pictures.iter().enumerate() {
        progress(index, pictures.len());
        let Some(picture) = or_warn(decode_image(path), path) else { continue };
        let Some(input) = or_warn(inputs.fit(&picture), path) else { continue };
        let part = usize::from(is_held(index));
        let ranges = &mut ranges[part];
        let mut see = |input: &[u8], [h, w]: [usize; 2]| {
            reference.observe(&to_unit(input), h, w, |node, values, _| ranges.observe(node, values))
        };
        see(&input, size)?;
        if let Some(larger) = &mut larger
            && let Some(input) = or_warn(larger.fit(&picture), path)
        {
            see(&input, larger.size)?;
        }
        seen[part] += 1;
        if held == 0 || part == 1 {
            held_out.push(input);
        } else {
            last = Some(input);
        }
    }
    progress(pictures.len(), pictures.len());
    if seen == [0, 0] {
        return Err(QuantError::NoPictures { tried: pictures.len() });
    }
    let [ranges, of_held_out] = ranges;
    let all = of_held_out.joined(&ranges);
    // Where none of a part can be read, the other stands for it.
    let ranges = if seen[0] == 0 { all.clone() } else { ranges };
    held_out.extend(last.filter(|_| seen[1] == 0 && held > 0));
    Ok(Calibration { ranges, all, pictures: seen[0] + seen[1], held_out })
}

/// Twice the size, but no more than [`ENLARGED`], in multiples of `stride`: `None` where that is no larger.
fn enlarged(size: [usize; 2], stride: usize) -> Option<[usize; 2]> {
    let longest = size[0].max(size[1]);
    let to = ENLARGED.min(2 * longest);
    let side = |v: usize| (v * to).div_ceil(longest).next_multiple_of(stride);
    (to > longest).then(|| size.map(side))
}

/// A picture that cannot be used gives a warning and `None`.
fn or_warn<T, E: std::fmt::Display>(result: Result<T, E>, path: &Path) -> Option<T> {
    result.inspect_err(|error| log::warn!("{}: {error}; left out of the calibration", path.display())).ok()
}

/// Makes pictures network inputs.
struct Inputs {
    size: [usize; 2],
    letterbox: Letterbox,
    bytes: Vec<u8>,
}

impl Inputs {
    fn new(size: [usize; 2]) -> Self {
        Self { size, letterbox: Letterbox::new(), bytes: vec![0; size[0] * size[1] * 4] }
    }

    /// `[height, width, 3]` bytes.
    fn fit(&mut self, picture: &RgbImage) -> Result<Vec<u8>, LetterboxError> {
        let input = Size { width: self.size[1], height: self.size[0] };
        self.letterbox.run(Pixels::from(picture), input, 0, &mut self.bytes)?;
        Ok(without_fourth(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_inputs_are_enlarged() {
        assert_eq!(enlarged([320, 320], 32), Some([640, 640]));
        assert_eq!(enlarged([416, 416], 32), Some([640, 640]));
        assert_eq!(enlarged([192, 320], 32), Some([384, 640]));
        assert_eq!(enlarged([32, 64], 32), Some([64, 128]));
        assert_eq!(enlarged([64, 32], 32), Some([128, 64]));
        assert_eq!(enlarged([256, 384], 128), Some([512, 640]), "whole cells of the coarsest level");
        for as_large in [[640, 640], [384, 640], [640, 32], [1280, 1280]] {
            assert_eq!(enlarged(as_large, 32), None);
        }
    }
}
