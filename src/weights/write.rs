//! Writing a model file: whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::card::Card;
use super::error::WeightsError;
use super::file::{FORMAT, LAYOUT, key};
use super::graph::{Element, QGraph};
use crate::model::graph::ModelInfo;

/// One tensor's data, padded as [`super::graph::QNode::tensors`] asks.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// int8
    I8(Vec<i8>),
    /// f32
    F32(Vec<f32>),
    /// i32
    I32(Vec<i32>),
}

impl TensorData {
    fn bytes(&self) -> &[u8] {
        match self {
            TensorData::I8(v) => bytemuck::cast_slice(v),
            TensorData::F32(v) => bytemuck::cast_slice(v),
            TensorData::I32(v) => bytemuck::cast_slice(v),
        }
    }
}

/// A model to be written.
#[derive(Debug, Clone)]
pub struct ModelParts {
    /// The quantised graph.
    pub graph: QGraph,
    /// Names and numbers.
    pub info: ModelInfo,
    /// Tensors by full name.
    pub tensors: HashMap<String, TensorData>,
    /// Error report, JSON text.
    pub report: String,
    /// sha256 of the checkpoint, hexadecimal.
    pub source_sha256: String,
    /// Licence of the weights.
    pub license: String,
    /// What people say of it; written where there is anything.
    pub card: Card,
}

impl ModelParts {
    /// The file's bytes: the same parts give the same bytes.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`] where the graph asks for a tensor that is not there.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WeightsError> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), self.metadata()?);
        let mut data: Vec<&[u8]> = Vec::new();
        let mut offset = 0;
        for (node, float) in self.graph.nodes.iter().zip(self.graph.floats()) {
            for spec in node.tensors(float) {
                let name = format!("{}.{}", node.name, spec.suffix);
                let tensor = self
                    .tensors
                    .get(&name)
                    .ok_or_else(|| WeightsError::MissingTensor { name: name.clone() })?
                    .bytes();
                let dtype = match spec.element {
                    Element::I8 => "I8",
                    Element::F32 => "F32",
                    Element::I32 => "I32",
                };
                let end = offset + tensor.len();
                header.insert(
                    name,
                    json!({"dtype": dtype, "shape": [spec.len], "data_offsets": [offset, end]}),
                );
                data.push(tensor);
                offset = end;
            }
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // Trailing spaces, which the container allows, align the data.
        text.resize((8 + text.len()).next_multiple_of(64) - 8, b' ');
        let mut bytes = Vec::with_capacity(8 + text.len() + offset);
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
        data.iter().for_each(|d| bytes.extend_from_slice(d));
        Ok(bytes)
    }

    fn metadata(&self) -> Result<Value, WeightsError> {
        let json = |key, e: serde_json::Error| WeightsError::Metadata { key, cause: e.to_string() };
        let mut metadata = json!({
            (key::FORMAT): FORMAT,
            (key::LAYOUT): LAYOUT,
            (key::GRAPH): serde_json::to_string(&self.graph).map_err(|e| json(key::GRAPH, e))?,
            (key::INFO): serde_json::to_string(&self.info).map_err(|e| json(key::INFO, e))?,
            (key::REPORT): self.report,
            (key::SOURCE): self.source_sha256,
            (key::LICENSE): self.license,
        });
        if !self.card.is_empty() {
            let text = serde_json::to_string(&self.card).map_err(|e| json(key::CARD, e))?;
            metadata[key::CARD] = text.into();
        }
        Ok(metadata)
    }

    /// Writes the file by way of a temporary one beside it, fsync and rename: a reader, or a daemon that
    /// has the old file mapped, never sees half a model.
    ///
    /// # Errors
    /// I/O errors, and those of [`ModelParts::to_bytes`].
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        write_atomically(path, &self.to_bytes()?)?;
        Ok(())
    }
}

/// Writes a file whole or not at all: a temporary one beside it, fsync, rename.
///
/// # Errors
/// The system's; the old file, if there was one, then stands as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = (|| {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(temporary);
    }
    written?;
    // The rename itself is durable once the directory is.
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
