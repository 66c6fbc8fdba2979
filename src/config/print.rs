//! The effective configuration as TOML, with where each value came from.

use std::io::{self, Write};

use super::scope::Entry;

/// Writes all values; a key that is not set stands in a comment.
pub fn write(entries: &[Entry], out: &mut dyn Write) -> io::Result<()> {
    let mut header = "";
    for entry in entries {
        if entry.header != header {
            header = &entry.header;
            // The number behind `[[zones]]` only serves messages.
            let written =
                header.rsplit_once("]] ").map_or(header.to_owned(), |(name, _)| format!("{name}]]"));
            writeln!(out, "\n{written}")?;
        }
        match (&entry.value, entry.note) {
            (Some(value), _) => writeln!(out, "{} = {value}  # {}", entry.key, entry.place)?,
            (None, "") => writeln!(out, "# {} =  # default: none", entry.key)?,
            (None, note) => writeln!(out, "# {} =  # default: {note}", entry.key)?,
        }
    }
    Ok(())
}
