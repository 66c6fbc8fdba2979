//! Opening a model file: every number is checked before anything uses it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::check;
use super::error::WeightsError;
use super::graph::{ActQuant, Element, QGraph, QNode, TensorSpec, inherited};
use crate::kernels::Arena;
use crate::model::graph::{ModelInfo, NodeId};

/// Version of the format that this program reads and writes.
pub const FORMAT: &str = "1";
/// Layout tag of dense weights.
pub const LAYOUT: &str = "n16k4";
/// Longest header accepted, in bytes: a hundred times what the largest YOLOv8 needs.
const MAX_HEADER: u64 = 8 << 20;
/// Longest file that is read to memory: four times the largest YOLOv8 with four experts a layer.
const MAX_COPY: u64 = 1 << 30;

/// Metadata keys.
pub mod key {
    /// Format version.
    pub const FORMAT: &str = "ghostlight.format";
    /// Layout of dense weights.
    pub const LAYOUT: &str = "ghostlight.layout";
    /// The graph, JSON.
    pub const GRAPH: &str = "ghostlight.graph";
    /// Names and numbers, JSON.
    pub const INFO: &str = "ghostlight.info";
    /// Error report of the conversion, JSON.
    pub const REPORT: &str = "ghostlight.report";
    /// sha256 of the checkpoint.
    pub const SOURCE: &str = "ghostlight.source_sha256";
    /// Licence of the weights.
    pub const LICENSE: &str = "ghostlight.weights_license";
}

#[derive(Debug)]
enum Storage {
    Map(Mmap),
    Owned(Arena),
}

impl Storage {
    fn bytes(&self) -> &[u8] {
        match self {
            Storage::Map(map) => map,
            Storage::Owned(arena) => arena.bytes(),
        }
    }
}

/// Suffixes and byte ranges of each node's tensors.
type Tensors = HashMap<String, Vec<(&'static str, Range<usize>)>>;

/// A checked model file, mapped read-only: processes that open the same file share its pages.
#[derive(Debug)]
pub struct Model {
    storage: Storage,
    /// Byte ranges in the file with their suffixes, by the node's name: looked up per picture, so
    /// that no full name is put together there.
    tensors: Tensors,
    /// The quantised graph.
    pub graph: QGraph,
    /// Names and numbers.
    pub info: ModelInfo,
    /// Error report of the conversion, JSON text; empty where there is none.
    pub report: String,
    /// sha256 of the checkpoint, hexadecimal; empty where unknown.
    pub source_sha256: String,
    /// Licence of the weights; empty where unknown.
    pub license: String,
    quants: Vec<ActQuant>,
    floats: Vec<bool>,
}

impl Model {
    /// Maps and checks a model file.
    ///
    /// # Errors
    /// Any fault of the file; see [`WeightsError`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        // Asked before opening: to open a pipe is to wait for its other end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file").into());
        }
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this struct. Another process that truncates the
        // file while it is mapped can raise SIGBUS; models are replaced by rename (`weights::write`),
        // which leaves the mapped file whole.
        let map = unsafe { Mmap::map(&file)? };
        Self::new(Storage::Map(map))
    }

    /// Reads and checks a model file, without a map: whatever happens to the file afterwards, the model stays.
    ///
    /// For processes that run for long. To cut a mapped file short, as `cp` over it does, kills whoever maps it.
    ///
    /// # Errors
    /// Any fault of the file; see [`WeightsError`].
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file").into());
        }
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > MAX_COPY {
            return Err(WeightsError::TooLong { actual: length, most: MAX_COPY });
        }
        let mut arena = Arena::new(length as usize);
        file.read_exact(arena.bytes_mut())?;
        Self::new(Storage::Owned(arena))
    }

    /// Checks a model that lies in memory.
    ///
    /// # Errors
    /// Any fault of the bytes; see [`WeightsError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let mut arena = Arena::new(bytes.len());
        arena.bytes_mut().copy_from_slice(bytes);
        Self::new(Storage::Owned(arena))
    }

    fn new(storage: Storage) -> Result<Self, WeightsError> {
        let bytes = storage.bytes();
        let data_start = header_end(bytes)?;
        let container = |e: safetensors::SafeTensorError| WeightsError::Container(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let text = |key: &'static str| texts.get(key).cloned().ok_or(WeightsError::NotOurs { key });
        let format = text(key::FORMAT)?;
        if format != FORMAT {
            return Err(WeightsError::Format { found: format, expected: FORMAT });
        }
        let layout = text(key::LAYOUT)?;
        if layout != LAYOUT {
            return Err(WeightsError::Format { found: layout, expected: LAYOUT });
        }
        let graph: QGraph = parse(key::GRAPH, &text(key::GRAPH)?)?;
        let info: ModelInfo = parse(key::INFO, &text(key::INFO)?)?;
        check::graph(&graph, &info)?;

        let tensors = SafeTensors::deserialize(bytes).map_err(container)?;
        let mut found = HashMap::new();
        let base = bytes.as_ptr() as usize;
        for (name, view) in tensors.tensors() {
            let offset = view.data().as_ptr() as usize - base;
            found.insert(name, (offset..offset + view.data().len(), view.dtype()));
        }
        let floats = graph.floats();
        let ranges = claim_tensors(&graph, &floats, found, data_start)?;
        let mut model = Self {
            tensors: ranges,
            graph,
            info,
            report: texts.get(key::REPORT).cloned().unwrap_or_default(),
            source_sha256: texts.get(key::SOURCE).cloned().unwrap_or_default(),
            license: texts.get(key::LICENSE).cloned().unwrap_or_default(),
            storage,
            quants: Vec::new(),
            floats,
        };
        check::values(&model)?;
        model.quants = propagate(&model);
        Ok(model)
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> usize {
        self.storage.bytes().len()
    }

    /// `NAME@first eight digits of the source's sha256`, as detection lines name the model.
    pub fn id(&self) -> String {
        let hash: String = self.source_sha256.chars().take(8).collect();
        if hash.is_empty() { self.info.name.clone() } else { format!("{}@{hash}", self.info.name) }
    }

    fn tensor(&self, node: &QNode, suffix: &str) -> &[u8] {
        let ranges = &self.tensors[&node.name];
        match ranges.iter().find(|(name, _)| *name == suffix) {
            Some((_, range)) => &self.storage.bytes()[range.clone()],
            None => unreachable!("`{}` has no `{suffix}`", node.name),
        }
    }

    /// A node's int8 tensor, 64-byte aligned.
    pub fn i8s(&self, node: &QNode, suffix: &str) -> &[i8] {
        bytemuck::cast_slice(self.tensor(node, suffix))
    }

    /// A node's f32 tensor.
    pub fn f32s(&self, node: &QNode, suffix: &str) -> &[f32] {
        bytemuck::cast_slice(self.tensor(node, suffix))
    }

    /// A node's i32 tensor.
    pub fn i32s(&self, node: &QNode, suffix: &str) -> &[i32] {
        bytemuck::cast_slice(self.tensor(node, suffix))
    }

    /// Step and zero point of a node's output; empty for f32 outputs.
    pub fn quant(&self, node: NodeId) -> &ActQuant {
        &self.quants[node]
    }

    /// Whether a node's output is f32.
    pub fn is_float(&self, node: NodeId) -> bool {
        self.floats[node]
    }

    /// The tensors that a node owns.
    pub fn tensors(&self, node: NodeId) -> Vec<TensorSpec> {
        self.graph.nodes[node].tensors(self.floats[node])
    }
}

/// Checks the header's length and gives the first byte of the data.
fn header_end(bytes: &[u8]) -> Result<usize, WeightsError> {
    let actual = bytes.len();
    let (length, _) = bytes.split_first_chunk::<8>().ok_or(WeightsError::TooShort { actual })?;
    let claimed = u64::from_le_bytes(*length);
    if claimed > MAX_HEADER || claimed > (actual - 8) as u64 {
        return Err(WeightsError::HeaderLength { claimed, actual });
    }
    Ok(8 + claimed as usize)
}

fn parse<T: serde::de::DeserializeOwned>(key: &'static str, text: &str) -> Result<T, WeightsError> {
    serde_json::from_str(text).map_err(|e| WeightsError::Metadata { key, cause: e.to_string() })
}

/// Matches the container's tensors with those that the graph needs: all of them, and no others.
fn claim_tensors(
    graph: &QGraph,
    floats: &[bool],
    mut found: HashMap<String, (Range<usize>, Dtype)>,
    data_start: usize,
) -> Result<Tensors, WeightsError> {
    let mut ranges = HashMap::new();
    if !data_start.is_multiple_of(64) {
        return Err(WeightsError::Misaligned { name: "the first".into(), offset: data_start });
    }
    for (node, &float) in graph.nodes.iter().zip(floats) {
        let mut own = Vec::new();
        for spec in node.tensors(float) {
            let name = format!("{}.{}", node.name, spec.suffix);
            let Some((range, dtype)) = found.remove(&name) else {
                return Err(WeightsError::MissingTensor { name });
            };
            check_tensor(&name, &range, dtype, &spec)?;
            own.push((spec.suffix, range));
        }
        ranges.insert(node.name.clone(), own);
    }
    match found.into_keys().min() {
        Some(name) => Err(WeightsError::UnknownTensor { name }),
        None => Ok(ranges),
    }
}

fn check_tensor(
    name: &str,
    range: &Range<usize>,
    dtype: Dtype,
    spec: &TensorSpec,
) -> Result<(), WeightsError> {
    let wanted = match spec.element {
        Element::I8 => Dtype::I8,
        Element::F32 => Dtype::F32,
        Element::I32 => Dtype::I32,
    };
    let expected_len = spec.len * spec.element.size();
    if dtype != wanted || range.len() != expected_len {
        return Err(WeightsError::TensorShape {
            name: name.into(),
            found: format!("{dtype:?} in {} bytes", range.len()),
            expected: format!("{wanted:?} in {expected_len} bytes"),
        });
    }
    if !range.start.is_multiple_of(64) {
        return Err(WeightsError::Misaligned { name: name.into(), offset: range.start });
    }
    Ok(())
}

/// Step and zero point of every node's output: own, or those of its inputs.
fn propagate(model: &Model) -> Vec<ActQuant> {
    let mut quants: Vec<ActQuant> = Vec::with_capacity(model.graph.nodes.len());
    for (node, &float) in model.graph.nodes.iter().zip(&model.floats) {
        let quant = inherited(node, float, &quants).unwrap_or_else(|| ActQuant {
            step: model.f32s(node, "step")[..node.channels].to_vec(),
            zero: model.i32s(node, "zero")[..node.channels].iter().map(|&z| z as u8).collect(),
        });
        quants.push(quant);
    }
    quants
}
