//! A state dict in a safetensors file, with the model's YAML beside it: the second way in.
//!
//! Such a file names no classes, so activations and shortcuts are those of the YAML.

use std::collections::BTreeMap;
use std::io::Read;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype as Stored;

use super::error::CheckpointError;
use super::source::element;
use super::tree::Dtype;
use super::{build, whole_cells};
use crate::model::blocks::{self, BuildOptions};
use crate::model::graph::Graph;
use crate::model::params::{Params, ParamsError, check_shape, holders_in};
use crate::model::spec::ModelSpec;

/// Largest file read; YOLOv8x in f64 has half a gigabyte.
const MAX_BYTES: u64 = 1 << 30;
/// How the first layer's keys start below whatever a file puts in front of all.
const FIRST: &str = "model.0.";

/// A tensor's place in the file.
struct Place {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: std::ops::Range<usize>,
}

/// A safetensors file, its keys as in an Ultralytics model.
struct StateFile {
    bytes: Vec<u8>,
    tensors: BTreeMap<String, Place>,
}

/// Reads a state dict (`model.0.conv.weight`, …; a prefix before it is taken off) and builds what
/// `yaml` describes. `name` is the YAML's file name: its letter picks the scale, as in `yolov8s.yaml`.
pub fn read_state(
    reader: impl Read,
    yaml: &str,
    name: &str,
    options: BuildOptions,
) -> Result<Graph, CheckpointError> {
    let spec = ModelSpec::parse(yaml, name)?;
    match &spec.names {
        Some(names) if names.len() != spec.nc => {
            return Err(CheckpointError::Names { found: names.len(), expected: spec.nc });
        }
        _ => {}
    }
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CheckpointError::TooLarge { found: bytes.len() as u64, limit: MAX_BYTES });
    }
    let mut file = StateFile::new(bytes)?;
    let mut graph = build(&spec, &mut file, |_| {}, options)?;
    graph.info.input_size = whole_cells([blocks::DEFAULT_INPUT; 2], &graph);
    Ok(graph)
}

impl StateFile {
    fn new(bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let fault = |e: safetensors::SafeTensorError| CheckpointError::Safetensors { reason: e.to_string() };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(fault)?;
        // Checks that the tensors lie one after the other up to the end.
        SafeTensors::deserialize(&bytes).map_err(fault)?;
        let data = header + 8;
        let tensors = metadata.tensors();
        let prefix = tensors.keys().find_map(|key| key.rfind(FIRST).map(|at| key[..at].to_string()));
        let name = |key: &str| match &prefix {
            Some(prefix) => key.strip_prefix(prefix.as_str()).map(str::to_string),
            // The Sequential alone.
            None => Some(format!("model.{key}")),
        };
        let place = |(key, info): (&String, &&safetensors::tensor::TensorInfo)| {
            let (start, end) = info.data_offsets;
            let dtype = match info.dtype {
                Stored::F16 => Dtype::F16,
                Stored::BF16 => Dtype::Bf16,
                Stored::F32 => Dtype::F32,
                Stored::F64 => Dtype::F64,
                _ => Dtype::Other,
            };
            Some((name(key)?, Place { dtype, shape: info.shape.clone(), bytes: data + start..data + end }))
        };
        let tensors = tensors.iter().filter_map(place).collect();
        Ok(Self { bytes, tensors })
    }
}

impl Params for StateFile {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        let place = self.tensors.get(key).ok_or_else(|| ParamsError::Missing { key: key.to_string() })?;
        check_shape(key, &place.shape, shape)?;
        let unreadable =
            |reason: &str| ParamsError::Unreadable { key: key.to_string(), reason: reason.to_string() };
        if place.dtype == Dtype::Other {
            return Err(unreadable("its elements are no floats; save the model in f16 or f32"));
        }
        let bytes = self.bytes.get(place.bytes.clone()).ok_or_else(|| unreadable("the file ends early"))?;
        Ok(bytes.chunks_exact(place.dtype.width()).map(|b| element(b, place.dtype)).collect())
    }

    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|place| place.shape.as_slice())
    }

    fn holders(&self, path: &str, suffix: &str) -> Vec<String> {
        holders_in(&self.tensors, path, suffix)
    }
}
