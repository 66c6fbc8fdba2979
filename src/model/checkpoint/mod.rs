//! PyTorch checkpoints (`.pt`) as Ultralytics writes them: a pickled module tree in a zip archive.
//!
//! A state dict in a safetensors file is read with the model's YAML beside it: [`read_state`].
//!
//! Nothing of the pickle is executed ([`super::pickle`]); sizes are checked against the file before
//! memory is asked for; checksums are verified.

mod archive;
mod error;
mod source;
mod state;
mod tree;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

pub use error::CheckpointError;
pub use state::read_state;

use super::blocks::{self, BuildError, BuildOptions};
use super::graph::Graph;
use super::params::{Params, ParamsError};
use super::pickle::{self, Id, Limits, Pickle, Value};
use super::spec::{ModelSpec, class_names};
use super::yaml;
use archive::Archive;
use source::Source;

/// The coarsest grid that input sizes are rounded up to.
const SIZE_STEP: usize = 32;
/// Largest input size taken from a checkpoint.
const MAX_SIZE: i64 = 4096;
/// Longest text about the licence that is kept, in characters.
const MAX_LICENSE: usize = 400;

/// Reads a checkpoint into a graph with weights, batch norm folded, residual adds not yet fused.
pub fn load(path: impl AsRef<Path>) -> Result<Graph, CheckpointError> {
    load_with(path, BuildOptions::default())
}

/// As [`load`], with options.
pub fn load_with(path: impl AsRef<Path>, options: BuildOptions) -> Result<Graph, CheckpointError> {
    read(BufReader::new(File::open(path)?), options)
}

/// As [`load_with`], from anything that can seek.
pub fn read(reader: impl Read + Seek, options: BuildOptions) -> Result<Graph, CheckpointError> {
    let mut archive = Archive::open(reader)?;
    if archive.has("byteorder") {
        let order = archive.entry("byteorder", 16)?;
        if order != b"little" {
            return Err(CheckpointError::ByteOrder { found: String::from_utf8_lossy(&order).into_owned() });
        }
    }
    let limits = Limits::default();
    let bytes = archive.entry("data.pkl", limits.bytes as u64)?;
    let pickle = pickle::read(&bytes, limits)?;
    let model = find_model(&pickle)?;
    let description = Description::of(&pickle, model)?;
    let tree = tree::walk(&pickle, model)?;
    drop(pickle);
    let mut source = Source::new(archive, tree);
    check_layers(&source)?;
    description.check_task()?;
    let spec = description.spec()?;
    let mut graph = build(&spec, &mut source, Source::rewind, options)?;
    graph.info.input_size = whole_cells(description.input_size(), &graph);
    graph.info.license = description.license;
    if !graph.info.dialect.is_empty() {
        graph.info.dialect += &classes_of_dynamic(&source);
    }
    Ok(graph)
}

/// Builds; where a layer has as many channels as there are classes, both readings of it are tried.
/// `again` readies the source for the second.
fn build<P: Params>(
    spec: &ModelSpec,
    source: &mut P,
    again: impl Fn(&mut P),
    options: BuildOptions,
) -> Result<Graph, CheckpointError> {
    let first = blocks::build_with(spec, source, options);
    let channels = yaml::Value::Int(spec.nc as i64);
    let ambiguous = spec.rows.iter().any(|row| row.args.first() == Some(&channels));
    match first {
        Err(BuildError::Params(ParamsError::Shape { .. })) if ambiguous => {
            again(source);
            let spec = ModelSpec { keep_class_width: true, ..spec.clone() };
            Ok(blocks::build_with(&spec, source, options)?)
        }
        other => Ok(other?),
    }
}

/// A size rounded up to whole cells of the coarsest level, at least the usual step.
fn whole_cells(size: [usize; 2], graph: &Graph) -> [usize; 2] {
    let step = graph.coarsest_stride().clamp(SIZE_STEP, MAX_SIZE as usize);
    size.map(|side| side.next_multiple_of(step))
}

/// The module tree's root: `ema` where training kept one, else `model`, else the root itself.
fn find_model(pickle: &Pickle) -> Result<Id, CheckpointError> {
    let root = pickle.root();
    let is_module = |id: Id| {
        let state = pickle.object(id).and_then(|object| object.state);
        state.is_some_and(|state| pickle.lookup(state, "_modules").is_some())
    };
    if is_module(root) {
        return Ok(root);
    }
    let named = ["ema", "model"].map(|key| pickle.lookup(root, key));
    if let Some(model) = named.iter().flatten().find(|&&id| is_module(id)) {
        return Ok(*model);
    }
    let holds_tensors = |id: Id| pickle.entries(id).iter().any(|(_, v)| tree::tensor(pickle, *v).is_some());
    let candidates = named.into_iter().chain([pickle.lookup(root, "state_dict"), Some(root)]);
    if candidates.flatten().any(holds_tensors) {
        return Err(CheckpointError::StateDictOnly);
    }
    let keys = pickle.entries(root).iter().filter_map(|(key, _)| pickle.str(*key));
    let keys: Vec<String> = keys.take(12).map(|key| key.chars().take(32).collect()).collect();
    let found = if keys.is_empty() { "no named entries".to_string() } else { keys.join(", ") };
    Err(CheckpointError::NoModel { found })
}

/// What the model says of itself beside its tensors.
struct Description {
    class: String,
    yaml: Option<yaml::Value>,
    names: Option<Vec<String>>,
    imgsz: yaml::Value,
    license: String,
}

impl Description {
    fn of(pickle: &Pickle, model: Id) -> Result<Self, CheckpointError> {
        let class = pickle.class(model).map_or("object", |(_, class)| class);
        let class = class.chars().take(64).collect::<String>();
        let state = pickle.object(model).and_then(|object| object.state);
        let attribute = |name: &str| {
            let id = state.and_then(|state| pickle.lookup(state, name))?;
            (*pickle.get(id) != Value::None).then(|| tree::plain(pickle, id))
        };
        let trained = pickle.lookup(pickle.root(), "train_args").map(|id| tree::plain(pickle, id));
        let imgsz = [attribute("args"), trained];
        let imgsz = imgsz.iter().flatten().find_map(|args| args.get("imgsz").cloned());
        let license = pickle.lookup(pickle.root(), "license").and_then(|id| pickle.str(id)).unwrap_or("");
        Ok(Self {
            license: license.chars().take(MAX_LICENSE).collect(),
            class,
            yaml: attribute("yaml"),
            names: class_names(attribute("names").as_ref()),
            imgsz: imgsz.unwrap_or(yaml::Value::Null),
        })
    }

    fn check_task(&self) -> Result<(), CheckpointError> {
        let others = [
            "Classification",
            "Segmentation",
            "Semantic",
            "Pose",
            "OBB",
            "World",
            "YOLOE",
            "RTDETR",
            "Depth",
        ];
        if others.iter().any(|other| self.class.contains(other)) {
            return Err(CheckpointError::Task { found: self.class.clone() });
        }
        Ok(())
    }

    fn spec(&self) -> Result<ModelSpec, CheckpointError> {
        let Some(yaml) = &self.yaml else {
            return Err(CheckpointError::NoDescription { class: self.class.clone() });
        };
        let file = yaml.get("yaml_file").and_then(yaml::Value::as_str).unwrap_or_default();
        let stem = Path::new(file).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let name = if stem.is_empty() { usual_name(yaml) } else { stem };
        let mut spec = ModelSpec::from_value(yaml, name, None)?;
        spec.names = self.names.clone().or(spec.names);
        match &spec.names {
            Some(names) if names.len() != spec.nc => {
                Err(CheckpointError::Names { found: names.len(), expected: spec.nc })
            }
            _ => Ok(spec),
        }
    }

    /// `imgsz` of the training's arguments, a number or `[height, width]`, rounded up to whole cells.
    fn input_size(&self) -> [usize; 2] {
        let side = |v: &yaml::Value| {
            let side = v.as_int().filter(|i| (1..=MAX_SIZE).contains(i))?;
            Some((side as usize).div_ceil(SIZE_STEP) * SIZE_STEP)
        };
        let size = match &self.imgsz {
            yaml::Value::List(pair) if pair.len() == 2 => side(&pair[0]).zip(side(&pair[1])),
            other => side(other).map(|side| (side, side)),
        };
        size.map_or([blocks::DEFAULT_INPUT; 2], |(h, w)| [h, w])
    }
}

/// Name of a model whose description names no file.
fn usual_name(yaml: &yaml::Value) -> &'static str {
    let mut blocks = ["backbone", "head"]
        .iter()
        .filter_map(|section| yaml.get(section)?.as_list())
        .flatten()
        .filter_map(|row| row.as_list()?.get(2)?.as_str());
    match blocks.find(|block| block.contains("DynamicConv")) {
        Some("DynamicConv" | "DynamicConv_Single") => "yolov8-dynamicconv",
        Some(_) => "yolov8-c2f-dynamicconv",
        None => "yolov8",
    }
}

/// Refuses layers of unknown classes by name, before the description is looked at: other families
/// describe themselves in other ways.
fn check_layers<R: Read + Seek>(source: &Source<R>) -> Result<(), CheckpointError> {
    for i in 0.. {
        let layer = format!("model.{i}");
        let Some((_, class)) = source.tree.classes.get(&layer) else { return Ok(()) };
        if source.shape(&format!("{layer}.m.0.weight")).is_some() {
            return Err(BuildError::Anchors { layer }.into());
        }
        if class != "Detect" && class != "Sequential" && !blocks::is_known(class) {
            let (block, advice) = (class.clone(), blocks::advice(class));
            return Err(BuildError::UnknownBlock { layer, block, advice }.into());
        }
    }
    Ok(())
}

/// Classes of the checkpoint's dynamic convolutions, for the dialect text.
fn classes_of_dynamic<R: Read + Seek>(source: &Source<R>) -> String {
    let dynamic = source.tree.classes.values().filter(|(_, class)| class.contains("DynamicConv"));
    let classes: BTreeSet<String> = dynamic.map(|(module, class)| format!("{module}.{class}")).collect();
    if classes.is_empty() {
        return String::new();
    }
    format!("; class {}", classes.into_iter().take(4).collect::<Vec<_>>().join(", "))
}
