//! Detections for people, and other people's words.

use std::borrow::Cow;
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

/// Words out of a file as they may be shown: control characters, which could steer a terminal or end a line of
/// the log, are written as escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("Größe „x“"), "Größe „x“");
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}"), r"a\u{1b}[2J\nb\u{9b}");
    }
}
