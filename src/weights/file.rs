//! Opening a model file: every number is checked before anything uses it.

use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::check;
use super::error::WeightsError;
use super::graph::{ActQuant, QNode, QOp, TensorSpec, inherited};
use super::header::Header;
use crate::kernels::Arena;
use crate::model::graph::{Detect, NodeId};

/// Version of the format that this program reads and writes.
pub const FORMAT: &str = "1";
/// Layout tag of dense weights.
pub const LAYOUT: &str = "n16k4";
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
    /// What people say of the model, JSON; only where they say something.
    pub const CARD: &str = "ghostlight.card";
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

/// A checked model file, mapped read-only: processes that open the same file share its pages.
#[derive(Debug)]
pub struct Model {
    storage: Storage,
    header: Header,
    quants: Vec<ActQuant>,
}

/// All that the header says is the model's own.
impl Deref for Model {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl Model {
    /// The detection head's constants.
    pub fn detect(&self) -> &Detect {
        match self.graph.nodes.last().map(|node| &node.op) {
            Some(QOp::Detect(detect)) => detect,
            _ => unreachable!("a checked model ends with its detection head"),
        }
    }

    /// The nodes that the head reads: of each level its box logits, then its class logits.
    pub fn head(&self) -> &[NodeId] {
        self.graph.nodes.last().map_or(&[], |node| &node.inputs)
    }

    /// Maps and checks a model file.
    ///
    /// # Errors
    /// Any fault of the file; see [`WeightsError`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::new(Storage::Map(map(path)?))
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
        let header = Header::parse(storage.bytes())?;
        let mut model = Self { storage, header, quants: Vec::new() };
        check::values(&model)?;
        model.quants = propagate(&model);
        Ok(model)
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

/// Maps a file read-only.
pub(super) fn map(path: &Path) -> Result<Mmap, WeightsError> {
    // Asked before opening: to open a pipe is to wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file").into());
    }
    let file = File::open(path)?;
    // SAFETY: the map is read-only and stays in this module's structs. Another process that truncates
    // the file while it is mapped can raise SIGBUS; models are replaced by rename (`weights::write`),
    // which leaves the mapped file whole.
    Ok(unsafe { Mmap::map(&file)? })
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
