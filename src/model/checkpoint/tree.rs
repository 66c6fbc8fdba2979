//! The pickled module tree: which tensors and modules it has, by their dotted paths.

use std::collections::BTreeMap;

use super::error::CheckpointError;
use crate::model::pickle::{Id, Pickle, Value};
use crate::model::yaml;

/// Most modules; YOLOv8x with dynamic convolutions has some 600.
const MAX_MODULES: usize = 20_000;
/// Most tensors.
const MAX_TENSORS: usize = 50_000;
/// Deepest nesting of modules; YOLOv8 reaches 6.
const MAX_DEPTH: usize = 24;
/// Longest dotted path, in bytes.
const MAX_PATH: usize = 512;
/// Most entries looked at: modules may share one large dictionary. YOLOv8x takes some 200,000.
const MAX_WORK: usize = 20_000_000;
/// Attributes of modules that blocks ask for.
const ATTRIBUTES: [&str; 4] = ["eps", "add", "n", "negative_slope"];
/// Most values and deepest nesting of a `yaml`, `names` or `args` dictionary.
const MAX_DICT: (usize, usize) = (100_000, 12);

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    /// Whole numbers and others: counted, never read.
    Other,
}

impl Dtype {
    fn of_storage(class: &str) -> Self {
        match class {
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::Bf16,
            "FloatStorage" => Dtype::F32,
            "DoubleStorage" => Dtype::F64,
            _ => Dtype::Other,
        }
    }

    /// Bytes of one element.
    pub(super) fn width(self) -> usize {
        match self {
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::Other => 1,
        }
    }
}

/// A tensor as the pickle describes it; nothing of it is verified against the storage yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorRef {
    pub dtype: Dtype,
    /// Name of the storage's entry below `data/`.
    pub storage: String,
    /// First element.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per axis.
    pub strides: Vec<usize>,
}

/// What lies below one module.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub tensors: BTreeMap<String, TensorRef>,
    /// Path → Python module and class.
    pub classes: BTreeMap<String, (String, String)>,
    pub numbers: BTreeMap<(String, String), f64>,
}

/// Walks the modules below `root`, whose own path is empty.
pub(super) fn walk(pickle: &Pickle, root: Id) -> Result<Tree, CheckpointError> {
    let mut tree = Tree::default();
    let mut open = vec![(root, String::new(), 0)];
    let mut work = 0;
    while let Some((id, path, depth)) = open.pop() {
        let Some(object) = pickle.object(id) else { continue };
        let too_many = |what, limit| CheckpointError::TooManyModules { what, limit };
        if tree.classes.len() >= MAX_MODULES {
            return Err(too_many("modules", MAX_MODULES));
        }
        if depth > MAX_DEPTH {
            return Err(too_many("levels", MAX_DEPTH));
        }
        if let Some((module, class)) = pickle.class(id) {
            tree.classes.insert(path.clone(), (clip(module), clip(class)));
        }
        let Some(state) = object.state else { continue };
        work += entries_below(pickle, state);
        if work > MAX_WORK {
            return Err(too_many("entries", MAX_WORK));
        }
        for attribute in ATTRIBUTES {
            if let Some(number) = pickle.lookup(state, attribute).and_then(|v| number(pickle, v)) {
                tree.numbers.insert((path.clone(), attribute.to_string()), number);
            }
        }
        for table in &TABLES[..2] {
            for (name, value) in table_entries(pickle, state, table) {
                let Some(tensor) = tensor(pickle, value) else { continue };
                if tree.tensors.len() >= MAX_TENSORS {
                    return Err(too_many("tensors", MAX_TENSORS));
                }
                if let Some(path) = join(&path, name) {
                    tree.tensors.insert(path, tensor);
                }
            }
        }
        for (name, child) in table_entries(pickle, state, TABLES[2]) {
            if open.len() >= MAX_MODULES {
                return Err(too_many("modules", MAX_MODULES));
            }
            open.extend(join(&path, name).map(|path| (child, path, depth + 1)));
        }
    }
    Ok(tree)
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_PATH).collect()
}

fn join(path: &str, name: &str) -> Option<String> {
    if path.len() + name.len() >= MAX_PATH {
        return None;
    }
    Some(if path.is_empty() { name.to_string() } else { format!("{path}.{name}") })
}

/// Tables of a module's state.
const TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

/// Entries that a walk over one module looks at: its state for each look-up, its tables once.
fn entries_below(pickle: &Pickle, state: Id) -> usize {
    let own = pickle.entries(state).len() * (ATTRIBUTES.len() + 2 * TABLES.len());
    let tables = TABLES.iter().filter_map(|table| pickle.lookup(state, table));
    own + tables.map(|table| pickle.entries(table).len()).sum::<usize>()
}

fn table_entries<'p>(
    pickle: &'p Pickle<'p>,
    state: Id,
    table: &str,
) -> impl Iterator<Item = (&'p str, Id)> + use<'p> {
    let entries = pickle.lookup(state, table).map_or(&[][..], |t| pickle.entries(t));
    entries.iter().filter_map(|&(name, value)| Some((pickle.str(name)?, value)))
}

fn number(pickle: &Pickle, id: Id) -> Option<f64> {
    match pickle.get(id) {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Int(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

/// A tensor by the call that would rebuild it. Parameters wrap tensors.
pub(super) fn tensor(pickle: &Pickle, id: Id) -> Option<TensorRef> {
    let (_, mut name) = pickle.class(id)?;
    let mut args = pickle.elements(pickle.object(id)?.args);
    // A Parameter subclass may wrap once more; a cycle would wrap for ever.
    for _ in 0..4 {
        if !matches!(name, "_rebuild_parameter" | "Parameter" | "_rebuild_parameter_with_state") {
            break;
        }
        let inner = *args.first()?;
        (_, name) = pickle.class(inner)?;
        args = pickle.elements(pickle.object(inner)?.args);
    }
    if name != "_rebuild_tensor_v2" && name != "_rebuild_tensor" {
        return None;
    }
    let [storage, offset, shape, strides, ..] = args else { return None };
    let Value::Persistent(storage) = pickle.get(*storage) else { return None };
    let [_, class, key, ..] = pickle.elements(*storage) else { return None };
    let sizes = |id: Id| {
        let elements = pickle.elements(unwrapped(pickle, id));
        let elements = Some(elements).filter(|e| e.len() <= 8)?;
        elements.iter().map(|&n| pickle.size(n)).collect::<Option<Vec<_>>>()
    };
    Some(TensorRef {
        dtype: Dtype::of_storage(pickle.global(*class)?.1),
        storage: pickle.str(*key).filter(|key| key.len() <= 64)?.to_string(),
        offset: pickle.size(*offset)?,
        // A `torch.Size` is a call around a tuple.
        shape: sizes(*shape)?,
        strides: sizes(*strides)?,
    })
}

fn unwrapped(pickle: &Pickle, id: Id) -> Id {
    let inner = pickle.object(id).and_then(|object| pickle.elements(object.args).first());
    inner.copied().unwrap_or(id)
}

/// A dictionary of plain values (`yaml`, `names`, `args`) as a [`yaml::Value`]; what is not plain
/// becomes null. Shared values are copied, so a budget bounds what a small pickle can unfold to.
pub(super) fn plain(pickle: &Pickle, id: Id) -> yaml::Value {
    let mut budget = MAX_DICT.0;
    unfold(pickle, id, MAX_DICT.1, &mut budget)
}

fn unfold(pickle: &Pickle, id: Id, depth: usize, budget: &mut usize) -> yaml::Value {
    let cost = match pickle.get(id) {
        Value::Str(text) => 1 + text.len() / 16,
        _ => 1,
    };
    if depth == 0 || *budget < cost {
        return yaml::Value::Null;
    }
    *budget -= cost;
    match pickle.get(id) {
        Value::Bool(b) => yaml::Value::Bool(*b),
        Value::Int(i) => yaml::Value::Int(*i),
        Value::Float(f) => yaml::Value::Float(*f),
        Value::Str(s) => yaml::Value::Str((*s).to_string()),
        Value::Tuple(items) | Value::List(items) => {
            yaml::Value::List(items.iter().map(|&item| unfold(pickle, item, depth - 1, budget)).collect())
        }
        Value::Dict(_) => mapping(pickle, pickle.entries(id), depth, budget),
        Value::Object(object) => match object.state {
            // A namespace, such as Ultralytics' `args`, keeps its values in its state.
            Some(state) => unfold(pickle, state, depth - 1, budget),
            None => mapping(pickle, &object.items, depth, budget),
        },
        Value::None | Value::Opaque | Value::Global(..) | Value::Persistent(_) => yaml::Value::Null,
    }
}

fn mapping(pickle: &Pickle, entries: &[(Id, Id)], depth: usize, budget: &mut usize) -> yaml::Value {
    let mut map = Vec::new();
    for &(key, value) in entries {
        if *budget == 0 {
            break;
        }
        let key = match pickle.get(key) {
            Value::Str(text) => clip(text),
            Value::Int(i) => i.to_string(),
            _ => continue,
        };
        *budget = budget.saturating_sub(key.len() / 16);
        map.push((key, unfold(pickle, value, depth - 1, budget)));
    }
    yaml::Value::Map(map)
}
