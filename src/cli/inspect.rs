//! `ghostlight inspect`: what a checkpoint or model holds.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::CliError;
use super::table::printable;
use super::{Outcome, backend};
use crate::engine;
use crate::model::checkpoint;
use crate::model::graph::{ModelInfo, Op, RoutingKind};
use crate::quant::report::Report;
use crate::weights::Card;

/// Show what a checkpoint or model holds: layers, sizes, classes, how it was quantised
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ghostlight inspect models/default.safetensors")]
pub struct Args {
    /// Checkpoint (.pt) or model (.safetensors)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Opens the file and describes it.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    std::fs::File::open(&args.file).map_err(|e| CliError::reading(&args.file, &e))?;
    let checkpoint = args.file.extension().is_some_and(|e| e == "pt" || e == "pth");
    let description = if checkpoint { of_checkpoint(&args.file)? } else { of_model(&args.file)? };
    if args.json {
        let text = serde_json::to_string(&description).map_err(|e| CliError::Internal(e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        write_text(&description, out)?;
    }
    Ok(Outcome::Done)
}

/// What a file holds.
#[derive(Debug, Serialize)]
struct Description {
    file: String,
    kind: &'static str,
    name: String,
    classes: Vec<String>,
    /// Height and width.
    input_size: [usize; 2],
    /// Trained parameters; of an int8 model those of its checkpoint.
    parameters: u64,
    /// Multiply-accumulates of one picture of the input size.
    macs: u64,
    bytes: u64,
    /// How DynamicConv was recognised; empty for models without.
    dialect: String,
    /// Routing kind of DynamicConv layers.
    routing: Option<&'static str>,
    layers: Vec<Layer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_sha256: Option<String>,
    #[serde(skip_serializing_if = "Card::is_empty")]
    card: Card,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantisation: Option<Report>,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    op: String,
    /// Output: height, width, channels.
    shape: (usize, usize, usize),
    params: u64,
    macs: u64,
    /// Signal to quantisation noise in dB, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    sqnr_db: Option<f32>,
}

fn of_checkpoint(path: &Path) -> Result<Description, CliError> {
    let graph = checkpoint::load(path).map_err(|e| CliError::data(path, &e))?;
    let [height, width] = graph.info.input_size;
    let costs = graph.costs(height, width).map_err(|e| CliError::data(path, &e))?;
    let layers: Vec<Layer> = costs
        .into_iter()
        .map(|c| Layer {
            name: c.name,
            op: c.op,
            shape: c.shape,
            params: c.params,
            macs: c.macs,
            sqnr_db: None,
        })
        .collect();
    let routing = graph.nodes.iter().find_map(|n| match &n.op {
        Op::DynamicConv(conv) => Some(conv.routing.name()),
        _ => None,
    });
    let mut description = describe(path, "checkpoint", &graph.info, layers)?;
    description.routing = routing;
    Ok(description)
}

fn of_model(path: &Path) -> Result<Description, CliError> {
    let model = backend::open_model(path)?;
    let [height, width] = model.info.input_size;
    let placed =
        engine::place::place(&model.graph, height, width, false).map_err(|e| CliError::data(path, &e))?;
    let report: Option<Report> = serde_json::from_str(&model.report).ok();
    let sqnr = |name: &str| {
        report.as_ref().and_then(|r| r.layers.iter().find(|l| l.name == name)).map(|l| l.sqnr_db)
    };
    let layers = model
        .graph
        .nodes
        .iter()
        .zip(&placed.views)
        .enumerate()
        .map(|(id, (node, view))| Layer {
            name: node.name.clone(),
            op: node.describe(model.is_float(id)),
            shape: (view.height, view.width, node.channels),
            params: model.tensors(id).iter().map(|t| t.len as u64).sum(),
            macs: node.op.conv_shape().map_or(0, |s| s.macs(view.height, view.width)),
            sqnr_db: sqnr(&node.name),
        })
        .collect();
    let mut description = describe(path, "int8 model", &model.info, layers)?;
    description.routing = model.graph.nodes.iter().find_map(|n| n.op.routing()).map(RoutingKind::name);
    description.license = Some(model.license.clone());
    description.source_sha256 = Some(model.source_sha256.clone());
    description.card = model.card.clone();
    description.quantisation = report;
    Ok(description)
}

fn describe(
    path: &Path,
    kind: &'static str,
    info: &ModelInfo,
    layers: Vec<Layer>,
) -> Result<Description, CliError> {
    Ok(Description {
        file: path.display().to_string(),
        kind,
        name: info.name.clone(),
        classes: info.classes.clone(),
        input_size: info.input_size,
        parameters: info.parameters,
        macs: layers.iter().map(|l| l.macs).sum(),
        bytes: std::fs::metadata(path).map_err(|e| CliError::reading(path, &e))?.len(),
        dialect: info.dialect.clone(),
        routing: None,
        layers,
        license: (!info.license.is_empty()).then(|| info.license.clone()),
        source_sha256: None,
        card: Card::default(),
        quantisation: None,
    })
}

fn write_text(d: &Description, out: &mut dyn Write) -> Result<(), CliError> {
    writeln!(out, "file        {} ({}, {:.1} MB)", d.file, d.kind, d.bytes as f64 / 1e6)?;
    writeln!(out, "model       {}", printable(&d.name))?;
    writeln!(out, "classes     {}: {}", d.classes.len(), printable(&d.classes.join(", ")))?;
    writeln!(out, "input       {}x{}", d.input_size[0], d.input_size[1])?;
    writeln!(out, "parameters  {}", d.parameters)?;
    writeln!(out, "MACs        {:.3} G", d.macs as f64 / 1e9)?;
    if !d.dialect.is_empty() {
        writeln!(out, "dialect     {}", printable(&d.dialect))?;
    }
    if let Some(routing) = d.routing {
        writeln!(out, "routing     {routing}")?;
    }
    if let Some(license) = &d.license {
        writeln!(out, "licence     {}", printable(license))?;
    }
    for (key, text) in d.card.entries() {
        writeln!(out, "{key:10}  {text}")?;
    }
    if let Some(report) = &d.quantisation {
        writeln!(out, "calibrated  on {} pictures", report.calibration_pictures)?;
    }
    let names = d.layers.iter().map(|l| l.name.len()).max().unwrap_or(5);
    let ops = d.layers.iter().map(|l| l.op.len()).max().unwrap_or(2);
    writeln!(
        out,
        "\n{:names$}  {:ops$}  {:>13}  {:>9}  {:>8}  {:>7}",
        "layer", "op", "output", "params", "MMAC", "SQNR dB"
    )?;
    for l in &d.layers {
        let shape = format!("{}x{}x{}", l.shape.0, l.shape.1, l.shape.2);
        let sqnr = l.sqnr_db.map_or("-".into(), |db| format!("{db:.1}"));
        let (name, op, mmac) = (printable(&l.name), &l.op, l.macs as f64 / 1e6);
        writeln!(out, "{name:names$}  {op:ops$}  {shape:>13}  {:>9}  {mmac:>8.1}  {sqnr:>7}", l.params)?;
    }
    Ok(())
}
