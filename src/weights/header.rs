//! What a model file says of itself: all but the tensors' values, which stay unread.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::card::Card;
use super::check;
use super::error::WeightsError;
use super::file::{FORMAT, LAYOUT, key, map};
use super::graph::{Element, QGraph, TensorSpec};
use crate::model::graph::ModelInfo;

/// Longest header accepted, in bytes: a hundred times what the largest YOLOv8 needs.
const MAX_HEADER: u64 = 8 << 20;

/// Suffixes and byte ranges of each node's tensors.
pub(super) type Tensors = HashMap<String, Vec<(&'static str, Range<usize>)>>;

/// The checked header of a model file: its tensors have the right types and places, their values may be wrong.
#[derive(Debug)]
pub struct Header {
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
    /// What people say of it.
    pub card: Card,
    /// Bytes of the file.
    pub file_len: usize,
    /// Byte ranges in the file with their suffixes, by the node's name: looked up per picture, so
    /// that no full name is put together there.
    pub(super) tensors: Tensors,
    pub(super) floats: Vec<bool>,
}

impl Header {
    /// Maps a model file and checks its header, in a time that does not depend on the file's size.
    ///
    /// # Errors
    /// Any fault of the header; see [`WeightsError`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::parse(&map(path)?)
    }

    /// Checks the header of a whole file's bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WeightsError> {
        let data_start = header_end(bytes)?;
        let container = |e: SafeTensorError| WeightsError::Container(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let mut texts = metadata.metadata().clone().unwrap_or_default();
        let mut text = |key: &'static str| texts.remove(key).ok_or(WeightsError::NotOurs { key });
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
        let mut optional = |key: &'static str| texts.remove(key).unwrap_or_default();
        let (report, source_sha256) = (optional(key::REPORT), optional(key::SOURCE));
        let (license, card) = (optional(key::LICENSE), card(&optional(key::CARD))?);

        let tensors = SafeTensors::deserialize(bytes).map_err(container)?;
        let mut found = HashMap::new();
        let base = bytes.as_ptr() as usize;
        for (name, view) in tensors.tensors() {
            let offset = view.data().as_ptr() as usize - base;
            found.insert(name, (offset..offset + view.data().len(), view.dtype()));
        }
        let floats = graph.floats();
        let tensors = claim_tensors(&graph, &floats, found, data_start)?;
        let file_len = bytes.len();
        Ok(Self { graph, info, report, source_sha256, license, card, file_len, tensors, floats })
    }

    /// `NAME@first eight digits of the source's sha256`, as detection lines name the model.
    pub fn id(&self) -> String {
        let hash: String = self.source_sha256.chars().take(8).collect();
        if hash.is_empty() { self.info.name.clone() } else { format!("{}@{hash}", self.info.name) }
    }
}

/// The card; an empty one where the file has none.
fn card(text: &str) -> Result<Card, WeightsError> {
    if text.is_empty() {
        return Ok(Card::default());
    }
    let card: Card = parse(key::CARD, text)?;
    card.check().map_err(|cause| WeightsError::Metadata { key: key::CARD, cause })?;
    Ok(card)
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
