//! Detections for people.

use std::io::{self, Write};

use crate::sink::Record;

/// A heading per picture, a row per detection. Errors are told on standard error, so nothing here.
pub fn write(out: &mut dyn Write, record: &Record<'_>) -> io::Result<()> {
    let Ok(found) = record.outcome else { return Ok(()) };
    let (size, count) = (found.image, found.detections.len());
    let noun = if count == 1 { "detection" } else { "detections" };
    writeln!(out, "{}  {size}  {count} {noun}  {:.1} ms", record.source, found.timing.inference)?;
    let number = |id: usize| id.to_string();
    let name = |id: usize| record.classes.get(id).cloned().unwrap_or_else(|| number(id));
    let widest = found.detections.iter().map(|d| name(d.class_id).chars().count()).max().unwrap_or(0);
    for d in found.detections {
        let name = name(d.class_id);
        writeln!(
            out,
            "  {name:widest$}  {:.2}  {:>7.1} {:>7.1} {:>7.1} {:>7.1}",
            d.confidence, d.x1, d.y1, d.x2, d.y2
        )?;
    }
    Ok(())
}
