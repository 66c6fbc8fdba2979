//! Labelled pictures as Ultralytics lays them out: `data.yaml`, pictures in `images`, boxes in `labels`.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::Truth;
use super::labels::{self, Label, LabelFault};
use crate::model::yaml::{self, Value, YamlError};
use crate::source::files::is_picture;
use crate::vision::Size;

/// Splits that a dataset may name.
pub const SPLITS: [&str; 3] = ["train", "val", "test"];
/// Longest `data.yaml` and label file read.
const MAX_TEXT_BYTES: u64 = 1 << 24;
/// Deepest folders searched: a loop of links ends here.
const MAX_DEPTH: usize = 16;

/// Why a dataset cannot be read; [`DatasetError::path`] says where.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder cannot be read.
    #[error("{error}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something that is no text file, or one too long to be what it should.
    #[error("not a text file of at most {MAX_TEXT_BYTES} bytes; is it the right file?")]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// `data.yaml` is no YAML.
    #[error("{error}")]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: YamlError,
    },
    /// A key of `data.yaml` is missing or holds something else than it should.
    #[error("{key}: {what}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What it should be.
        what: String,
    },
    /// The split is not in `data.yaml`.
    #[error("no split '{split}'; it has {known}")]
    NoSplit {
        /// Which file.
        path: PathBuf,
        /// The split that was asked for.
        split: String,
        /// Those that it names.
        known: String,
    },
    /// What a split names is not there.
    #[error("no such file or folder (from '{entry}' of the dataset); check path and splits in data.yaml")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// The words that name it.
        entry: String,
    },
    /// A split without pictures.
    #[error("no picture found; check the split's path in data.yaml")]
    NoPictures {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// A line of a label file is broken.
    #[error("line {}: {}", fault.line, fault.what)]
    Label {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        fault: LabelFault,
    },
    /// Another number of classes than the model's.
    #[error(
        "the dataset has {dataset} classes, the model {model}; use the dataset that the model was trained for"
    )]
    Classes {
        /// Which file.
        path: PathBuf,
        /// Classes of the dataset.
        dataset: usize,
        /// Classes of the model.
        model: usize,
    },
}

impl DatasetError {
    /// The file or folder that is at fault.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::NotText { path }
            | Self::Yaml { path, .. }
            | Self::Key { path, .. }
            | Self::NoSplit { path, .. }
            | Self::Absent { path, .. }
            | Self::NoPictures { path }
            | Self::Label { path, .. }
            | Self::Classes { path, .. } => path,
        }
    }
}

/// A picture and where its labels should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture's file.
    pub picture: PathBuf,
    /// The label file; it need not exist.
    pub labels: PathBuf,
}

/// One split of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Class names, by class id.
    pub classes: Vec<String>,
    /// Its pictures: those of each entry sorted by path, in the order of the entries.
    pub samples: Vec<Sample>,
    path: PathBuf,
}

impl Dataset {
    /// Reads a `data.yaml` and lists the pictures of `split`.
    ///
    /// A split is a folder (searched with its folders), a list of them, or a text file with a picture a
    /// line. Relative paths start at `path`, which itself starts at the YAML's folder.
    ///
    /// # Errors
    /// [`DatasetError`] for what is missing or not as it should be.
    pub fn open(path: &Path, split: &str) -> Result<Self, DatasetError> {
        let text = without_download(&read_text(path)?);
        let value = yaml::parse(&text).map_err(|error| DatasetError::Yaml { path: path.into(), error })?;
        let key = |key: &str, what: String| DatasetError::Key { path: path.into(), key: key.into(), what };
        let classes = class_names(&value).map_err(|what| key("names", what))?;
        let mut root = path.parent().unwrap_or(Path::new("")).to_path_buf();
        match value.get("path") {
            None | Some(Value::Null) => {}
            Some(Value::Str(text)) => root.push(text),
            Some(_) => return Err(key("path", "should be a folder".into())),
        }
        let entries = entries(&value, split, path)?;
        let mut pictures = Vec::new();
        for entry in &entries {
            add_entry(&root, entry, &mut pictures)?;
        }
        if pictures.is_empty() {
            let first = entries.first().map(String::as_str).unwrap_or_default();
            return Err(DatasetError::NoPictures { path: plain(&root.join(first)) });
        }
        let samples =
            pictures.into_iter().map(|picture| Sample { labels: label_path(&picture), picture }).collect();
        Ok(Self { classes, samples, path: path.into() })
    }

    /// Refuses a model with another number of classes.
    ///
    /// # Errors
    /// [`DatasetError::Classes`].
    pub fn check_classes(&self, model: usize) -> Result<(), DatasetError> {
        match self.classes.len() {
            dataset if dataset == model => Ok(()),
            dataset => Err(DatasetError::Classes { path: self.path.clone(), dataset, model }),
        }
    }

    /// A sample's labels, as parts of the picture; none where the file is missing.
    ///
    /// # Errors
    /// [`DatasetError`] for a file that cannot be read or has a broken line.
    pub fn labels(&self, sample: &Sample) -> Result<Vec<Label>, DatasetError> {
        let text = match read_text(&sample.labels) {
            Err(DatasetError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            text => text?,
        };
        labels::parse(&text, self.classes.len())
            .map_err(|fault| DatasetError::Label { path: sample.labels.clone(), fault })
    }
}

/// Labels as boxes in the pixels of a picture of this size.
pub fn truths(labels: &[Label], size: Size) -> Vec<Truth> {
    let (width, height) = (size.width as f64, size.height as f64);
    let corners = |l: &Label| {
        let [x1, y1, x2, y2] = l.corners();
        [x1 * width, y1 * height, x2 * width, y2 * height]
    };
    labels.iter().map(|l| Truth { class_id: l.class_id, corners: corners(l) }).collect()
}

fn read_text(path: &Path) -> Result<String, DatasetError> {
    let reading = |error| DatasetError::Read { path: path.into(), error };
    let about = fs::metadata(path).map_err(reading)?;
    // A device or a pipe may never end.
    if !about.is_file() || about.len() > MAX_TEXT_BYTES {
        return Err(DatasetError::NotText { path: path.into() });
    }
    String::from_utf8(fs::read(path).map_err(reading)?)
        .map(|text| text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        .map_err(|_| DatasetError::NotText { path: path.into() })
}

/// Empties the `download:` block, a script that is of no use here; line numbers stay.
fn without_download(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let own = !line.starts_with([' ', '\t']) && !line.trim().is_empty();
        if own {
            inside = line.starts_with("download:");
        }
        if !inside {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

/// `names` as a list, or by class id; without it, `nc` numbers.
fn class_names(value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| match value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    };
    let count = value.get("nc").and_then(Value::as_int).and_then(|count| usize::try_from(count).ok());
    let names: Option<Vec<String>> = match value.get("names") {
        Some(Value::List(items)) => items.iter().map(text).collect(),
        Some(Value::Map(entries)) => {
            // Every id from 0 once: as many entries as there are classes, and each id is found.
            let of = |id: usize| entries.iter().find(|(key, _)| key.parse() == Ok(id));
            (0..entries.len()).map(|id| of(id).and_then(|(_, name)| text(name))).collect()
        }
        None | Some(Value::Null) => match count {
            Some(count) if count <= 10_000 => Some((0..count).map(|id| id.to_string()).collect()),
            _ => None,
        },
        Some(_) => None,
    };
    match names {
        Some(names) if names.is_empty() => Err("no class in it".into()),
        Some(names) if count.is_some_and(|count| count != names.len()) => {
            Err(format!("{} names, but nc is {}; correct one", names.len(), count.unwrap_or_default()))
        }
        Some(names) => Ok(names),
        None => Err("should be a list of names, or `0: name`, `1: name`, … without gaps".into()),
    }
}

/// The words that name a split's pictures.
fn entries(value: &Value, split: &str, path: &Path) -> Result<Vec<String>, DatasetError> {
    let given = |name: &str| match value.get(name) {
        // Ultralytics takes this name for the split as well.
        None | Some(Value::Null) if name == "val" => value.get("validation"),
        found => found,
    };
    let words = match given(split) {
        Some(Value::Str(one)) => Some(vec![one.clone()]),
        Some(Value::List(list)) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        None | Some(Value::Null) => {
            let named = |name: &&str| given(name).is_some_and(|v| *v != Value::Null);
            let known: Vec<&str> = SPLITS.into_iter().filter(named).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(DatasetError::NoSplit { path: path.into(), split: split.into(), known });
        }
        Some(_) => None,
    };
    words.ok_or_else(|| DatasetError::Key {
        path: path.into(),
        key: split.into(),
        what: "should be a folder, a list of folders, or a .txt file with a picture a line".into(),
    })
}

/// Adds the pictures of a folder, or those that a text file lists.
fn add_entry(root: &Path, entry: &str, pictures: &mut Vec<PathBuf>) -> Result<(), DatasetError> {
    let mut path = plain(&root.join(entry));
    // Some exports write `../images` for a folder beside the YAML.
    if !path.exists()
        && let Some(rest) = entry.strip_prefix("../")
    {
        let beside = plain(&root.join(rest));
        path = if beside.exists() { beside } else { path };
    }
    if !path.exists() {
        return Err(DatasetError::Absent { path, entry: entry.into() });
    }
    if path.is_dir() {
        let start = pictures.len();
        walk(&path, 0, pictures)?;
        pictures[start..].sort();
        return Ok(());
    }
    let list = read_text(&path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // `./` means the list's folder; the rest starts at the dataset's, if it is there.
        let at_root = plain(&root.join(line));
        let own = line.starts_with("./") || !at_root.exists();
        let picture = if own { plain(&folder.join(line)) } else { at_root };
        if !picture.exists() {
            return Err(DatasetError::Absent { path: picture, entry: format!("{line}' in '{entry}") });
        }
        pictures.push(picture);
    }
    Ok(())
}

fn walk(folder: &Path, depth: usize, pictures: &mut Vec<PathBuf>) -> Result<(), DatasetError> {
    let reading = |error| DatasetError::Read { path: folder.into(), error };
    for entry in fs::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(&path, depth + 1, pictures)?;
            }
        } else if is_picture(&path) {
            pictures.push(path);
        }
    }
    Ok(())
}

/// A path without `.` parts, so that messages read well.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

/// The label file of a picture: the last folder `images` becomes `labels`, the extension `.txt`.
fn label_path(picture: &Path) -> PathBuf {
    let parts: Vec<Component<'_>> = picture.components().collect();
    let folders = parts.len().saturating_sub(1);
    let last = parts[..folders].iter().rposition(|part| part.as_os_str() == "images");
    let with = parts.iter().enumerate().map(|(index, part)| match Some(index) == last {
        true => std::ffi::OsStr::new("labels"),
        false => part.as_os_str(),
    });
    with.collect::<PathBuf>().with_extension("txt")
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
