//! `ghostlight models`: which models there are, and what they say of themselves.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::CliError;
use super::table::printable;
use super::{Outcome, backend, model_path, tell};
use crate::quant::report::Report;
use crate::weights::{Card, Header};

/// Class names that the table shows of each model.
const CLASSES: usize = 3;

/// List the models in the usual places: what they find, their size, accuracy and licence
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The usual places are models/ here and where the program is installed; a model that $GHOSTLIGHT_MODEL or \
                  the configuration names is listed as well.\n\nExamples:\n  ghostlight models\n  ghostlight models \
                  downloads/ --json"
)]
pub struct Args {
    /// More folders and files to list, beside the usual places
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print JSON: one array
    #[arg(long)]
    pub json: bool,
}

/// Lists every model once. One that cannot be read is told and passed over.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let mut faults = Vec::new();
    let used = used().unwrap_or_else(|error| {
        faults.push(error);
        None
    });
    let files = find(used.as_deref(), &args.paths, &mut faults);
    let mut rows = Vec::new();
    for file in files {
        match describe(&file, used.as_deref()) {
            Ok(row) => rows.push(row),
            Err(error) => faults.push(error),
        }
    }
    if args.json {
        let text = serde_json::to_string(&rows).map_err(|e| CliError::Internal(e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        write_table(&rows, out)?;
    }
    for fault in &faults {
        tell(fault);
    }
    if rows.is_empty() && faults.is_empty() {
        let places: Vec<_> = model_path::folders().map(|folder| folder.display().to_string()).collect();
        log::warn!("no model in {}; make one with 'ghostlight convert'", places.join(" and "));
    }
    Ok(match faults.first() {
        None => Outcome::Done,
        Some(first) if rows.is_empty() => Outcome::AllFailed(first.exit()),
        Some(_) => Outcome::SomeFailed,
    })
}

/// The model that `detect` would use; `None` where there is none.
fn used() -> Result<Option<PathBuf>, CliError> {
    Ok(model_path::asked()?.or_else(|| model_path::usual().ok()))
}

/// The model in use, then those of the usual places, then what was asked for: each file once.
fn find(used: Option<&Path>, paths: &[PathBuf], faults: &mut Vec<CliError>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = used.into_iter().map(Path::to_path_buf).collect();
    let usual = model_path::folders().filter(|folder| folder.is_dir()).map(|folder| (folder, false));
    let asked = paths.iter().map(|path| (path.clone(), true));
    for (path, asked) in usual.chain(asked) {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        match models_in(&path) {
            Ok(found) if found.is_empty() && asked => faults.push(CliError::NoInput {
                subject: path.display().to_string(),
                cause: "no model in this folder; models end in .safetensors".into(),
            }),
            Ok(found) => files.extend(found),
            Err(error) => faults.push(CliError::reading(&path, &error)),
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    files
}

/// Model files directly in a folder, by name.
fn models_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        // A link to nowhere stays, so that it is told.
        let other = path.metadata().is_ok_and(|meta| !meta.is_file());
        if path.extension().is_some_and(|e| e == "safetensors") && !other {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a model says of itself.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    /// Whether `detect` would use it.
    used: bool,
    /// `NAME@HASH`, as detection lines have it.
    model: String,
    classes: Vec<String>,
    /// Height and width.
    input_size: [usize; 2],
    parameters: u64,
    /// Of the file.
    bytes: usize,
    license: String,
    /// Points of mAP50-95 that the conversion cost, as it estimated them.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_drop: Option<f64>,
    card: Card,
}

fn describe(path: &Path, used: Option<&Path>) -> Result<Row, CliError> {
    if path.extension().is_some_and(|e| e == "pt" || e == "pth") {
        return Err(CliError::data(
            path,
            &"a checkpoint, no model; see it with `ghostlight inspect`, make a model of it with `ghostlight convert`",
        ));
    }
    let header = backend::open_header(path)?;
    let report: Option<Report> = serde_json::from_str(&header.report).ok();
    let (model, file) = (header.id(), path.display().to_string());
    let Header { info, license, card, file_len: bytes, .. } = header;
    Ok(Row {
        used: used.is_some_and(|used| used == path),
        file,
        model,
        classes: info.classes,
        input_size: info.input_size,
        parameters: info.parameters,
        bytes,
        license,
        estimated_drop: report.and_then(|report| report.estimated_drop),
        card,
    })
}

/// A row per model; the last column holds the longest words and is not padded.
fn write_table(rows: &[Row], out: &mut dyn Write) -> Result<(), CliError> {
    if rows.is_empty() {
        return Ok(());
    }
    let head = ["", "file", "model", "classes", "input", "MB", "accuracy", "licence of the weights"];
    let mut lines = vec![head.map(String::from)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            write!(out, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", line[7])?;
    }
    if rows.iter().any(|row| row.used) {
        writeln!(out, "\n* what `ghostlight detect` uses where --model names no other")?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 8] {
    let [height, width] = row.input_size;
    let or_dash = |text: &str| if text.is_empty() { "-".into() } else { printable(text).into_owned() };
    [
        if row.used { "*".into() } else { String::new() },
        printable(&row.file).into_owned(),
        printable(&row.model).into_owned(),
        classes(&row.classes),
        format!("{height}x{width}"),
        format!("{:.1}", row.bytes as f64 / 1e6),
        or_dash(row.card.accuracy.as_deref().unwrap_or_default()),
        or_dash(&row.license),
    ]
}

/// The count and the first few.
fn classes(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(CLASSES).map(|name| printable(name)).collect();
    let more = if names.len() > CLASSES { ", …" } else { "" };
    format!("{}: {}{more}", names.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_and_cut() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(classes(&names(&["empty", "occupied"])), "2: empty, occupied");
        assert_eq!(classes(&names(&["a", "b", "c"])), "3: a, b, c");
        assert_eq!(classes(&names(&["a\n", "b", "c", "d"])), "4: a\\n, b, c, …");
    }

    #[test]
    fn each_file_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b.safetensors", "a.safetensors", "notes.txt"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::create_dir(at("c.safetensors")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("d.safetensors")).unwrap();
        let mut faults = Vec::new();
        let paths = [folder.path().to_path_buf(), at("a.safetensors"), at("absent")];
        let used = at("b.safetensors");
        let found = find(Some(&used), &paths, &mut faults);
        let own: Vec<_> = found.iter().filter(|file| file.starts_with(folder.path())).collect();
        assert_eq!(own, [&used, &at("a.safetensors"), &at("d.safetensors"), &at("absent")]);
        assert!(faults.is_empty(), "{faults:?}");
        assert!(
            find(None, &[at("c.safetensors")], &mut faults).iter().all(|f| !f.starts_with(folder.path()))
        );
        assert!(faults[0].to_string().contains("no model in this folder"), "{faults:?}");
    }
}
