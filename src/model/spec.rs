//! What a model file says: rows of blocks, and the scale that shrinks them.
//!
//! Source: the model files of Ultralytics YOLOv8, and the `yaml` dictionary that its checkpoints carry.

use std::collections::HashMap;

use thiserror::Error;

use super::graph::Activation;
use super::yaml::{self, Value, YamlError};

/// Most rows and repeats taken; YOLOv8 has 23 rows and 6 repeats.
const MAX_ROWS: usize = 512;
/// Most classes taken.
pub const MAX_CLASSES: usize = 65_536;

/// The model files that come with Ghostlight: name and text.
const BUILTIN: [(&str, &str); 3] = [
    ("yolov8", include_str!("../../models/yolov8.yaml")),
    ("yolov8-dynamicconv", include_str!("../../models/yolov8-dynamicconv.yaml")),
    ("yolov8-c2f-dynamicconv", include_str!("../../models/yolov8-c2f-dynamicconv.yaml")),
];

/// A model file with its scale picked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name, for example `yolov8n-dynamicconv`.
    pub name: String,
    /// Count of classes.
    pub nc: usize,
    /// Class names, where the file gives them.
    pub names: Option<Vec<String>>,
    /// Letter of the scale, where the file has scales.
    pub scale: Option<char>,
    /// Factor on repeats.
    pub depth: f64,
    /// Factor on channels.
    pub width: f64,
    /// Most channels before the factor.
    pub max_channels: f64,
    /// Activation of `Conv`, where the file changes it.
    pub activation: Option<Activation>,
    /// Bins per box side.
    pub reg_max: usize,
    /// Channels equal to the class count stay unscaled, as Ultralytics did before 8.4.
    pub keep_class_width: bool,
    /// Backbone rows, then head rows.
    pub rows: Vec<Row>,
}

/// One row: `[from, repeats, block, args]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Rows that feed it; negative counts backward from it.
    pub from: Vec<i64>,
    /// How often the block stands there, before the depth factor.
    pub repeats: usize,
    /// Block, for example `C2f` or `nn.Upsample`.
    pub block: String,
    /// Its arguments after the input channels.
    pub args: Vec<Value>,
}

/// Why a text or a checkpoint's dictionary is no model.
#[derive(Debug, Error, PartialEq)]
pub enum SpecError {
    /// The text does not parse.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A field is missing or has another type.
    #[error("`{field}`: expected {expected}, found {found}")]
    Field {
        /// Path of the field, for example `backbone[3]`.
        field: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The scale letter is not in the file.
    #[error("no scale `{found}` in this model, it has {known}; name one of them")]
    Scale {
        /// The letter asked for.
        found: char,
        /// The letters there are.
        known: String,
    },
    /// No built-in model of this name.
    #[error("no built-in model `{found}`; there are {}, each with a scale letter n, s, m, l or x", names())]
    NoBuiltin {
        /// The name asked for.
        found: String,
    },
    /// An activation that Ghostlight does not know.
    #[error(
        "`activation`: `{found}` is not known; SiLU, ReLU, ReLU6, LeakyReLU, Hardswish and Identity are, retrain with one of them"
    )]
    Activation {
        /// What the file says.
        found: String,
    },
    /// More rows than any detector has.
    #[error("{found} rows, at most {MAX_ROWS} are taken; is it the right file?")]
    TooManyRows {
        /// Rows found.
        found: usize,
    },
}

fn names() -> String {
    BUILTIN.map(|(name, _)| name).join(", ")
}

impl ModelSpec {
    /// A model that comes with Ghostlight, by a name as Ultralytics writes it:
    /// `yolov8s-dynamicconv.yaml` is the file `yolov8-dynamicconv` at scale `s`; without a letter, `n`.
    pub fn builtin(name: &str) -> Result<Self, SpecError> {
        let stem = stem(name);
        let (base, _) = split_scale(stem);
        let text = BUILTIN.iter().find(|(known, _)| *known == base).map(|(_, text)| *text);
        let text = text.ok_or_else(|| SpecError::NoBuiltin { found: stem.to_string() })?;
        Self::parse(text, stem)
    }

    /// Reads a model file; `name` is its file name, whose scale letter picks the scale.
    pub fn parse(text: &str, name: &str) -> Result<Self, SpecError> {
        let stem = stem(name);
        Self::from_value(&yaml::parse(text)?, stem, split_scale(stem).1)
    }

    /// Takes a parsed file or a checkpoint's dictionary. A `scale` in it counts where `scale` is `None`.
    pub fn from_value(value: &Value, name: &str, scale: Option<char>) -> Result<Self, SpecError> {
        let written = value.get("scale").and_then(Value::as_str).and_then(|s| s.chars().next());
        let (scale, [depth, width, max_channels]) = factors(value, scale.or(written))?;
        let mut rows = rows(value, "backbone")?;
        rows.extend(self::rows(value, "head")?);
        if rows.len() > MAX_ROWS {
            return Err(SpecError::TooManyRows { found: rows.len() });
        }
        let (base, letter) = split_scale(name);
        let name = match scale.filter(|_| letter.is_none()) {
            Some(letter) => with_scale(&base, letter),
            None => name.to_string(),
        };
        Ok(Self {
            name,
            nc: count(value, "nc", None, MAX_CLASSES)?,
            names: class_names(value.get("names")),
            scale,
            depth,
            width,
            max_channels,
            activation: value.get("activation").and_then(Value::as_str).map(activation).transpose()?,
            reg_max: count(value, "reg_max", Some(16), 64)?,
            keep_class_width: false,
            rows,
        })
    }

    /// The same model for another count of classes.
    pub fn with_classes(mut self, nc: usize) -> Self {
        self.nc = nc;
        self.names = self.names.filter(|names| names.len() == nc);
        self
    }

    /// The class names, or `class0`, `class1`, … where the file gives none.
    pub fn class_names(&self) -> Vec<String> {
        self.names.clone().unwrap_or_else(|| (0..self.nc).map(|i| format!("class{i}")).collect())
    }

    /// Channels of a row at this scale: `min(c, max) * width`, rounded up to a multiple of 8.
    pub fn scaled_channels(&self, c: usize) -> usize {
        if self.keep_class_width && c == self.nc {
            return c;
        }
        ((c as f64).min(self.max_channels) * self.width / 8.0).ceil() as usize * 8
    }

    /// Repeats of a row at this scale: one stays one, more are rounded half to even, at least one.
    pub fn scaled_repeats(&self, n: usize) -> usize {
        if n > 1 { ((n as f64 * self.depth).round_ties_even() as usize).max(1) } else { n }
    }
}

fn activation(text: &str) -> Result<Activation, SpecError> {
    let found = || SpecError::Activation { found: text.chars().take(80).collect() };
    activation_named(text).ok_or_else(found)
}

/// torch's slope of `LeakyReLU` where none is given.
const LEAKY_SLOPE: f32 = 0.01;

/// Activation by the name of its class, in any spelling that holds it (`nn.SiLU()`,
/// `torch.nn.ReLU(inplace=True)`, `nn.LeakyReLU(0.1)`).
pub fn activation_named(text: &str) -> Option<Activation> {
    let (path, arguments) = text.trim().split_once('(').unwrap_or((text.trim(), ")"));
    let arguments = arguments.strip_suffix(')')?;
    match path.rsplit('.').next()? {
        "ReLU6" => Some(Activation::Relu6),
        "Hardswish" => Some(Activation::Hardswish),
        "LeakyReLU" => {
            let mut slope = LEAKY_SLOPE;
            for (index, argument) in arguments.split(',').map(str::trim).enumerate() {
                match argument.split_once('=') {
                    Some((name, value)) if name.trim() == "negative_slope" => {
                        slope = value.trim().parse().ok()?
                    }
                    None if index == 0 && !argument.is_empty() => slope = argument.parse().ok()?,
                    _ => {}
                }
            }
            slope.is_finite().then_some(Activation::LeakyRelu { slope })
        }
        "SiLU" => Some(Activation::Silu),
        "ReLU" => Some(Activation::Relu),
        "Identity" => Some(Activation::Identity),
        _ => None,
    }
}

/// File name without folders and `.yaml`.
fn stem(name: &str) -> &str {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    file.trim_end_matches(".yaml").trim_end_matches(".yml")
}

/// Splits `yolov8s-x` into `yolov8-x` and `s`: the letter stands right behind the version's digits.
fn split_scale(name: &str) -> (String, Option<char>) {
    let Some(digit) = name.find(|c: char| c.is_ascii_digit()).filter(|_| name.starts_with("yolo")) else {
        return (name.to_string(), None);
    };
    let digits = name[digit..].bytes().take_while(u8::is_ascii_digit).count();
    let (head, tail) = name.split_at(digit + digits);
    match tail.chars().next().filter(|c| "nsmlx".contains(*c)) {
        Some(letter) => (format!("{head}{}", &tail[1..]), Some(letter)),
        None => (name.to_string(), None),
    }
}

/// Puts the letter where [`split_scale`] finds it; at the end of names without a version.
fn with_scale(base: &str, letter: char) -> String {
    if !base.starts_with("yolo") {
        return base.to_string();
    }
    let digits_end = base
        .find(|c: char| c.is_ascii_digit())
        .map(|at| at + base[at..].bytes().take_while(u8::is_ascii_digit).count());
    match digits_end {
        Some(at) => format!("{}{letter}{}", &base[..at], &base[at..]),
        None => base.to_string(),
    }
}

/// Depth, width and most channels: from `scales`, or from the older `depth_multiple`, `width_multiple`.
fn factors(value: &Value, scale: Option<char>) -> Result<(Option<char>, [f64; 3]), SpecError> {
    let scales = match value.get("scales") {
        Some(Value::Map(entries)) if !entries.is_empty() => entries,
        _ => {
            let depth = number(value, "depth_multiple", 1.0)?;
            let width = number(value, "width_multiple", 1.0)?;
            return Ok((scale, [depth, width, f64::INFINITY]));
        }
    };
    let letter = |key: &str| key.chars().next().unwrap_or('?');
    let scale = scale.unwrap_or_else(|| letter(&scales[0].0));
    let entry = scales.iter().find(|(key, _)| letter(key) == scale);
    let (_, factors) = entry.ok_or_else(|| SpecError::Scale {
        found: scale,
        known: scales.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let list: Vec<f64> = factors.as_list().unwrap_or_default().iter().filter_map(Value::as_f64).collect();
    match list[..] {
        [depth, width, max] if [depth, width, max].iter().all(|f| (0.0..=65_536.0).contains(f)) => {
            Ok((Some(scale), [depth, width, max]))
        }
        _ => Err(field(format!("scales.{scale}"), "three numbers: depth, width, most channels", factors)),
    }
}

fn field(field: String, expected: &'static str, found: &Value) -> SpecError {
    let found: String = format!("{found:?}").chars().take(80).collect();
    SpecError::Field { field, expected, found }
}

fn number(value: &Value, key: &str, default: f64) -> Result<f64, SpecError> {
    match value.get(key) {
        None => Ok(default),
        Some(v) => match v.as_f64() {
            Some(f) if (0.0..=64.0).contains(&f) => Ok(f),
            _ => Err(field(key.to_string(), "a number from 0 to 64", v)),
        },
    }
}

fn count(value: &Value, key: &str, default: Option<usize>, most: usize) -> Result<usize, SpecError> {
    let found = value.get(key).unwrap_or(&Value::Null);
    match (found, default) {
        (Value::Null, Some(default)) => Ok(default),
        _ => match found.as_int() {
            Some(i) if i >= 1 && i as u64 <= most as u64 => Ok(i as usize),
            _ => Err(field(key.to_string(), "a positive count", found)),
        },
    }
}

/// Class names from a list, or from a map whose keys are 0, 1, …; `None` where they are neither.
pub fn class_names(value: Option<&Value>) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_string);
    match value? {
        Value::List(items) => items.iter().map(text).collect(),
        Value::Map(entries) => {
            let by_key: HashMap<&str, &Value> = entries.iter().map(|(k, v)| (k.as_str(), v)).collect();
            (0..entries.len()).map(|i| by_key.get(i.to_string().as_str()).and_then(|v| text(v))).collect()
        }
        _ => None,
    }
}

fn rows(value: &Value, section: &str) -> Result<Vec<Row>, SpecError> {
    let found = value.get(section).unwrap_or(&Value::Null);
    let list = found.as_list().ok_or_else(|| field(section.to_string(), "a list of rows", found))?;
    list.iter().enumerate().map(|(i, row)| self::row(row, format!("{section}[{i}]"))).collect()
}

fn row(value: &Value, name: String) -> Result<Row, SpecError> {
    let expected = "a row [from, repeats, block, args]";
    let Some([from, repeats, block, args]) = value.as_list() else {
        return Err(field(name, expected, value));
    };
    let from = match from {
        Value::Int(i) => Some(vec![*i]),
        Value::List(items) => items.iter().map(Value::as_int).collect(),
        _ => None,
    };
    let repeats = repeats.as_int().filter(|n| (1..=MAX_ROWS as i64).contains(n));
    match (from, repeats, block.as_str(), args.as_list()) {
        (Some(from), Some(repeats), Some(block), Some(args)) if !from.is_empty() => {
            Ok(Row { from, repeats: repeats as usize, block: block.to_string(), args: args.to_vec() })
        }
        _ => Err(field(name, expected, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = "nc: 2\nbackbone:\n  - [-1, 1, Conv, [8]]\nhead:\n  - [-1, 1, Detect, [nc]]\n";

    #[test]
    fn scale_comes_from_the_file_name() {
        for (name, base, letter) in [
            ("yolov8n-dynamicconv", "yolov8-dynamicconv", Some('n')),
            ("yolov8x", "yolov8", Some('x')),
            ("yolov8-c2f-dynamicconv", "yolov8-c2f-dynamicconv", None),
            ("mine8s", "mine8s", None),
        ] {
            assert_eq!(split_scale(name), (base.to_string(), letter));
        }
        let spec = ModelSpec::builtin("models/yolov8m-dynamicconv.yaml").unwrap();
        assert_eq!((spec.scale, spec.depth, spec.width), (Some('m'), 0.67, 0.75));
        assert_eq!(spec.name, "yolov8m-dynamicconv");
        assert_eq!(ModelSpec::builtin("yolov8").unwrap().name, "yolov8n");
    }

    #[test]
    fn channels_and_repeats_scale_as_in_ultralytics() {
        let m = ModelSpec::builtin("yolov8m").unwrap();
        assert_eq!((m.scaled_channels(1024), m.scaled_channels(64), m.scaled_repeats(6)), (576, 48, 4));
        let n = ModelSpec::builtin("yolov8n").unwrap().with_classes(64);
        assert_eq!((n.scaled_channels(64), n.scaled_repeats(1), n.scaled_repeats(3)), (16, 1, 1));
        assert_eq!(ModelSpec { keep_class_width: true, ..n }.scaled_channels(64), 64);
    }

    #[test]
    fn older_files_give_factors_by_name() {
        let text = format!("depth_multiple: 0.33\nwidth_multiple: 0.5\nnames: [a, b]\n{TINY}");
        let spec = ModelSpec::parse(&text, "old.yaml").unwrap();
        assert_eq!((spec.depth, spec.width, spec.scale), (0.33, 0.5, None));
        assert_eq!(spec.class_names(), ["a", "b"]);
        assert_eq!(spec.rows[1].block, "Detect");
    }

    #[test]
    fn each_fault_has_its_error() {
        let parse = |text: &str| ModelSpec::parse(text, "t").unwrap_err();
        assert!(matches!(parse("a: |"), SpecError::Yaml(_)));
        for text in [
            "nc: 0\nbackbone: []\nhead: []",
            "backbone: []\nhead: []",
            "nc: 1\nhead: []",
            "nc: 1\nbackbone: [[-1, 1, Conv]]\nhead: []",
            "nc: 1\nbackbone: [[-1, 0, Conv, []]]\nhead: []",
            "nc: 1\nwidth_multiple: x\nbackbone: []\nhead: []",
            "nc: 1\nscales: {n: [1, 2]}\nbackbone: []\nhead: []",
        ] {
            assert!(matches!(parse(text), SpecError::Field { .. }), "{text}");
        }
        let text = "nc: 1\nscales: {n: [1, 1, 8]}\nbackbone: []\nhead: []";
        let fault = ModelSpec::parse(text, "yolov8s").unwrap_err();
        assert!(matches!(fault, SpecError::Scale { found: 's', .. }));
        assert!(matches!(ModelSpec::builtin("yolov9c"), Err(SpecError::NoBuiltin { .. })));
        let many = format!("nc: 1\nbackbone: [{}]\nhead: []", "[-1, 1, Conv, [8]],".repeat(MAX_ROWS + 1));
        assert!(matches!(parse(&many), SpecError::TooManyRows { .. }));
    }
}
