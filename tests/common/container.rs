//! A model file taken apart, to be bent and put together again.

#![allow(dead_code, clippy::unwrap_used)]

use ghostlight::weights::file::key;
use ghostlight::weights::graph::QGraph;
use serde_json::{Map, Value};

/// Header and data of a safetensors file.
#[derive(Clone)]
pub struct Container {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Container {
    pub fn read(bytes: &[u8]) -> Self {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        Self { header, data: bytes[8 + len..].to_vec() }
    }

    pub fn write(&self) -> Vec<u8> {
        self.write_with(0)
    }

    /// With `spaces` more behind the header than alignment asks for.
    pub fn write_with(&self, spaces: usize) -> Vec<u8> {
        let mut text = serde_json::to_vec(&self.header).unwrap();
        text.resize((8 + text.len()).next_multiple_of(64) - 8 + spaces, b' ');
        join(&text, &self.data)
    }

    pub fn metadata(&mut self) -> &mut Map<String, Value> {
        self.header["__metadata__"].as_object_mut().unwrap()
    }

    /// A metadata text.
    pub fn text(&mut self, key: &str) -> String {
        self.metadata()[key].as_str().unwrap().to_owned()
    }

    pub fn set_text(&mut self, key: &str, text: &str) {
        self.metadata().insert(key.into(), text.into());
    }

    pub fn graph(&mut self) -> QGraph {
        serde_json::from_str(&self.text(key::GRAPH)).unwrap()
    }

    pub fn set_graph(&mut self, graph: &QGraph) {
        let text = serde_json::to_string(graph).unwrap();
        self.set_text(key::GRAPH, &text);
    }

    /// Where a tensor's data lie.
    pub fn range(&self, tensor: &str) -> std::ops::Range<usize> {
        let offsets = &self.header[tensor]["data_offsets"];
        offsets[0].as_u64().unwrap() as usize..offsets[1].as_u64().unwrap() as usize
    }

    pub fn set_range(&mut self, tensor: &str, range: std::ops::Range<usize>) {
        self.header[tensor]["data_offsets"] = serde_json::json!([range.start, range.end]);
    }

    /// Name of the first tensor that ends so.
    pub fn tensor(&self, suffix: &str) -> String {
        self.header.keys().find(|name| name.ends_with(suffix)).unwrap().clone()
    }
}

/// A file of a header's bytes and data.
pub fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    bytes
}
