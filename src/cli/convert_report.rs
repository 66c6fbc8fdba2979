//! What `convert` prints: each layer's error, what was done, what it costs and what is lost.

use std::io::{self, Write};
use std::path::Path;

use crate::quant::Converted;
use crate::quant::report::Report;

/// How many int8 multiply-accumulates a CPU does in the time of one in f32, about.
const F32_COST: f64 = 8.0;

/// Prints the table and its summary.
pub fn write(converted: &Converted, output: &Path, out: &mut dyn Write) -> io::Result<()> {
    let report = &converted.report;
    table(report, out)?;
    let (pictures, held) = (report.calibration_pictures, report.held_out_pictures);
    let raw = &report.outputs;
    writeln!(
        out,
        "\nraw outputs, SQNR on {held} pictures: box logits {:.1} dB, box sides {:.1}, class logits {:.1}, scores {:.1}",
        raw.box_logits_db, raw.box_sides_db, raw.class_logits_db, raw.scores_db
    )?;
    writeln!(out, "{}", verdict(converted))?;
    writeln!(out, "ranges: {}, from {pictures} pictures", report.spread)?;
    if report.f32_share > 0.0 {
        let time = 1.0 + report.f32_share * (F32_COST - 1.0);
        let (layers, share) = (report.layers.iter().filter(|l| l.f32).count(), 100.0 * report.f32_share);
        writeln!(out, "f32: {layers} layers, {share:.0} % of the work: about {time:.1} times int8's time")?;
    }
    writeln!(out, "wrote {}", output.display())
}

fn table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let names = report.layers.iter().map(|l| l.name.len()).max().unwrap_or(5);
    let ops = report.layers.iter().map(|l| l.op.len()).max().unwrap_or(2);
    writeln!(out, "{:names$}  {:ops$}  {:>8}  done", "layer", "op", "SQNR dB")?;
    for layer in &report.layers {
        let done = if layer.f32 { "f32" } else { "int8" };
        writeln!(out, "{:names$}  {:ops$}  {:>8.1}  {done}", layer.name, layer.op, layer.sqnr_db)?;
    }
    Ok(())
}

/// What is lost, and whether that is within the target.
fn verdict(converted: &Converted) -> String {
    let report = &converted.report;
    let lost = match report.estimated_drop {
        Some(drop) => format!("estimated loss: {drop:.2} points of mAP50-95"),
        None => {
            "estimated loss: unknown, the pictures show too few objects; raw outputs were compared".into()
        }
    };
    let target = match (report.target_drop, converted.met) {
        (None, _) => "no target",
        (Some(_), true) => "within the target",
        (Some(_), false) => "NOT within the target: calibrate with more pictures of what the camera will see",
    };
    format!("{lost} ({target})")
}
