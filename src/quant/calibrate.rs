//! Calibration pictures, and what the reference does with them.

use std::path::{Path, PathBuf};

use super::error::QuantError;
use super::ranges::Ranges;
use crate::detector::without_fourth;
use crate::model::graph::Graph;
use crate::reference::{Reference, to_unit};
use crate::vision::{Letterbox, Pixels, Size, decode_image};

/// Most pictures that are held out from the calibration.
const MOST_HELD_OUT: usize = 32;
/// One picture of so many is held out.
const HELD_OUT_SHARE: usize = 4;

/// Observed ranges, and the pictures kept back.
#[derive(Debug)]
pub struct Calibration {
    /// What each channel did.
    pub ranges: Ranges,
    /// Pictures that the ranges come from.
    pub pictures: usize,
    /// Pictures to measure on, `[height, width, 3]` bytes each: others than those, if there were enough.
    pub held_out: Vec<Vec<u8>>,
}

/// Runs the reference over pictures. `progress` is told how many are done.
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
    let [h, w] = size;
    let mut inputs = Inputs::new(size);
    let mut calibration = Calibration { ranges: Ranges::new(graph), pictures: 0, held_out: Vec::new() };
    let held = (pictures.len() / HELD_OUT_SHARE).min(MOST_HELD_OUT);
    let is_held =
        |index: usize| held > 0 && (index + 1) * held / pictures.len() > index * held / pictures.len();
    for (index, picture) in pictures.iter().enumerate() {
        progress(index, pictures.len());
        let Some(input) = inputs.read(picture) else { continue };
        if is_held(index) {
            calibration.held_out.push(input);
            continue;
        }
        reference
            .observe(&to_unit(&input), h, w, |node, values, _| calibration.ranges.observe(node, values))?;
        calibration.pictures += 1;
        if held == 0 {
            calibration.held_out.push(input);
        }
    }
    progress(pictures.len(), pictures.len());
    if calibration.pictures == 0 {
        return Err(QuantError::NoPictures { tried: pictures.len() });
    }
    Ok(calibration)
}

/// Reads pictures as network inputs.
struct Inputs {
    size: [usize; 2],
    letterbox: Letterbox,
    bytes: Vec<u8>,
}

impl Inputs {
    fn new(size: [usize; 2]) -> Self {
        Self { size, letterbox: Letterbox::new(), bytes: vec![0; size[0] * size[1] * 4] }
    }

    /// `[height, width, 3]` bytes; `None`, with a warning, for a picture that cannot be read.
    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        let picture = match decode_image(path) {
            Ok(picture) => picture,
            Err(error) => {
                log::warn!("{}: {error}; left out of the calibration", path.display());
                return None;
            }
        };
        let input = Size { width: self.size[1], height: self.size[0] };
        match self.letterbox.run(Pixels::from(&picture), input, 0, &mut self.bytes) {
            Ok(_) => Some(without_fourth(&self.bytes)),
            Err(error) => {
                log::warn!("{}: {error}; left out of the calibration", path.display());
                None
            }
        }
    }
}
