//! The whole conversion: calibrate, quantise, measure.

use std::path::PathBuf;
use std::sync::Arc;

use super::calibrate::{Calibration, calibrate};
use super::error::QuantError;
use super::float::check;
use super::held_out::{HeldOut, fill};
use super::ladder::{Attempt, Ladder};
use super::quantise::quantise;
use super::report::{LayerReport, Noise, Report};
use crate::engine::Engine;
use crate::kernels;
use crate::model::fuse::fuse;
use crate::model::graph::{Graph, Op};
use crate::reference::{Products, Reference, to_unit};
use crate::weights::Model;
use crate::weights::write::ModelParts;

/// Most pictures that the layers' errors are measured on.
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
    /// Points of mAP50-95 that int8 may lose before parts of it fall back to f32; `None` only measures.
    pub target_drop: Option<f64>,
}

/// What a conversion is doing.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// So many of all calibration pictures are done.
    Calibrating(usize, usize),
    /// A try of the ladder.
    Trying(&'a str),
}

/// A converted model with its error report.
#[derive(Debug)]
pub struct Converted {
    /// What to write.
    pub parts: ModelParts,
    /// How good it is.
    pub report: Report,
    /// Whether the target was met; true where none was given.
    pub met: bool,
}

/// Converts a graph with weights to int8.
///
/// The same graph, pictures and size give the same bytes on every machine, with any number of threads.
///
/// # Errors
/// [`QuantError`] where the graph cannot be run or quantised, or no picture can be read.
pub fn convert(
    graph: Graph,
    request: &Request<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Converted, QuantError> {
    let mut graph = fuse(graph);
    graph.info.input_size = request.size;
    check(&graph)?;
    let reference = Reference::with(&graph, Products::Exact)?;
    let calibration = calibrate(&graph, &reference, request.pictures, request.size, &mut |done, all| {
        progress(Progress::Calibrating(done, all));
    })?;
    let Calibration { ranges, all, pictures, held_out } = calibration;
    let held_out =
        HeldOut::new(&reference, held_out, request.size, graph.info.classes.len(), request.threads)?;
    let ladder = Ladder { graph: &graph, ranges: &ranges, held_out: &held_out, target: request.target_drop };
    let attempt = ladder.climb(&mut |what| progress(Progress::Trying(what)))?;
    let Attempt { spread, float, quality } = attempt;
    // What was measured on the held-out pictures has not seen them; what is written has.
    let (mut parts, node_of) = quantise(&graph, &all.by(spread), &float)?.into_parts(&graph);
    parts.source_sha256.clone_from(&request.source_sha256);
    parts.license.clone_from(&request.license);
    let report = Report {
        target_drop: request.target_drop,
        estimated_drop: quality.drop.map(hundredths),
        held_out_pictures: held_out.len(),
        outputs: quality.raw.report(),
        spread,
        f32_share: hundredths(f32_share(&graph, &float)),
        calibration_pictures: pictures,
        measured_pictures: held_out.len().min(MEASURED),
        input_size: request.size,
        layers: layers(&graph, &reference, &parts, &float, &node_of, &held_out, request.threads)?,
    };
    parts.report = serde_json::to_string(&report).unwrap_or_default();
    let met = request.target_drop.is_none_or(|target| quality.meets(target));
    Ok(Converted { parts, report, met })
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Share of the multiply-accumulates in nodes that are computed in f32.
fn f32_share(graph: &Graph, float: &[bool]) -> f64 {
    let [h, w] = graph.info.input_size;
    let costs = graph.costs(h, w).unwrap_or_default();
    let sum = |all: bool| -> u64 {
        costs.iter().zip(float).filter(|(_, float)| all || **float).map(|(cost, _)| cost.macs).sum()
    };
    sum(false) as f64 / sum(true).max(1) as f64
}

/// Runs the model beside the reference and compares every layer.
fn layers(
    graph: &Graph,
    reference: &Reference,
    parts: &ModelParts,
    float: &[bool],
    node_of: &[usize],
    held_out: &HeldOut,
    threads: usize,
) -> Result<Vec<LayerReport>, QuantError> {
    let model = Arc::new(Model::from_bytes(&parts.to_bytes()?)?);
    let mut engine = Engine::keeping_all(model, kernels::detect::best(), threads)?;
    let mut noise = vec![Noise::default(); graph.nodes.len()];
    let [h, w] = graph.info.input_size;
    for input in held_out.inputs().iter().take(MEASURED) {
        fill(&mut engine, input);
        engine.run()?;
        reference.observe(&to_unit(input), h, w, |node, values, _| {
            if let Some(found) = engine.activation(node_of[node]) {
                noise[node].add(values, &found);
            }
        })?;
    }
    let measured = |op: &Op| matches!(op, Op::Conv(_) | Op::DynamicConv(_) | Op::Add | Op::SqueezeExcite(_));
    let rows = graph.nodes.iter().zip(&noise).zip(float).filter(|((node, _), _)| measured(&node.op));
    Ok(rows
        .map(|((node, noise), &f32)| LayerReport {
            name: node.name.clone(),
            op: node.op.describe(),
            f32,
            sqnr_db: noise.sqnr_db(),
        })
        .collect())
}
