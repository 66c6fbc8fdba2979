//! The whole conversion: calibrate, quantise, measure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::QuantError;
use super::quantise::{check, quantise};
use super::ranges::Ranges;
use super::report::{LayerReport, Noise, Report};
use crate::detector::without_fourth;
use crate::engine::Engine;
use crate::kernels::{self, store};
use crate::model::fuse::fuse;
use crate::model::graph::{Graph, Op};
use crate::reference::{Reference, to_unit};
use crate::vision::{Letterbox, Pixels, Size, decode_image};
use crate::weights::Model;
use crate::weights::write::ModelParts;

/// Most pictures that the error report is measured on.
const MEASURED: usize = 4;

/// What a conversion works on.
#[derive(Debug)]
pub struct Request<'a> {
    /// Calibration pictures. Those that cannot be read are left out, with a warning in the log.
    pub pictures: &'a [PathBuf],
    /// Network input: height and width.
    pub size: [usize; 2],
    /// sha256 of the checkpoint, hexadecimal.
    pub source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// Threads for the error report.
    pub threads: usize,
}

/// A converted model with its error report.
#[derive(Debug)]
pub struct Converted {
    /// What to write.
    pub parts: ModelParts,
    /// How good it is.
    pub report: Report,
}

/// Converts a graph with weights to int8. `progress` is told how many of all pictures are done.
///
/// # Errors
/// [`QuantError`] where the graph cannot be run or quantised, or no picture can be read.
pub fn convert(
    graph: Graph,
    request: &Request<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Converted, QuantError> {
    let mut graph = fuse(graph);
    graph.info.input_size = request.size;
    check(&graph)?;
    let reference = Reference::new(&graph)?;
    let mut inputs = Inputs::new(request.size);
    let total = request.pictures.len();

    let mut ranges = Ranges::new(&graph);
    let mut calibrated = 0;
    for (index, picture) in request.pictures.iter().enumerate() {
        progress(index, total);
        if let Some(input) = inputs.read(picture) {
            let [h, w] = request.size;
            reference.observe(&to_unit(&input), h, w, |node, values, _| ranges.observe(node, values))?;
            calibrated += 1;
        }
    }
    progress(total, total);
    if calibrated == 0 {
        return Err(QuantError::NoPictures { tried: total });
    }

    let quantised = quantise(&graph, &ranges)?;
    let mut parts = ModelParts {
        graph: quantised.graph,
        info: graph.info.clone(),
        tensors: quantised.tensors,
        report: String::new(),
        source_sha256: request.source_sha256.clone(),
        license: request.license.clone(),
    };
    let mut report = measure(&graph, &reference, &parts, request, &mut inputs)?;
    report.calibration_pictures = calibrated;
    parts.report = serde_json::to_string(&report).unwrap_or_default();
    Ok(Converted { parts, report })
}

/// Calibration pictures as network inputs.
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
        let size = Size { width: picture.width() as usize, height: picture.height() as usize };
        let pixels = Pixels { size, stride: 3 * size.width, bytes: picture.as_raw() };
        let input = Size { width: self.size[1], height: self.size[0] };
        match self.letterbox.run(pixels, input, 0, &mut self.bytes) {
            Ok(_) => Some(without_fourth(&self.bytes)),
            Err(error) => {
                log::warn!("{}: {error}; left out of the calibration", path.display());
                None
            }
        }
    }
}

/// Runs the int8 model beside the reference and compares every layer.
fn measure(
    graph: &Graph,
    reference: &Reference,
    parts: &ModelParts,
    request: &Request<'_>,
    inputs: &mut Inputs,
) -> Result<Report, QuantError> {
    let model = Arc::new(Model::from_bytes(&parts.to_bytes()?)?);
    let mut engine = Engine::keeping_all(model, kernels::detect::best(), request.threads)?;
    let mut noise = vec![Noise::default(); graph.nodes.len()];
    let mut measured = 0;
    let [h, w] = request.size;
    for picture in request.pictures {
        if measured == MEASURED {
            break;
        }
        let Some(input) = inputs.read(picture) else { continue };
        for (to, from) in engine.input_mut().chunks_exact_mut(4).zip(input.chunks_exact(3)) {
            to[..3].iter_mut().zip(from).for_each(|(t, &f)| *t = store(f));
        }
        engine.run()?;
        reference.observe(&to_unit(&input), h, w, |node, values, _| {
            if let Some(int8) = engine.activation(node) {
                noise[node].add(values, &int8);
            }
        })?;
        measured += 1;
    }
    let layers = graph
        .nodes
        .iter()
        .zip(&noise)
        .filter(|(node, _)| {
            matches!(node.op, Op::Conv(_) | Op::DynamicConv(_) | Op::Add | Op::SqueezeExcite(_))
        })
        .map(|(node, noise)| LayerReport {
            name: node.name.clone(),
            op: node.op.describe(),
            sqnr_db: (noise.sqnr_db() * 100.0).round() / 100.0,
        })
        .collect();
    Ok(Report { calibration_pictures: 0, measured_pictures: measured, input_size: request.size, layers })
}
