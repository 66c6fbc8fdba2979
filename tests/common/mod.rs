//! Writes small checkpoints as torch.save does, whole or broken in one way.

#![allow(dead_code, clippy::unwrap_used)]

pub mod container;
pub mod models;

use std::io::{Cursor, Write};

use ghostlight::model::blocks::build;
use ghostlight::model::params::{Params, ParamsError, Seeded};
use ghostlight::model::spec::ModelSpec;
use zip::write::SimpleFileOptions;

/// A detector of one level, some thousand parameters.
pub const YAML: &str = "nc: 3\nreg_max: 2\nbackbone:\n- [-1, 1, Conv, [8, 3, 2]]\n- [-1, 1, DynamicConv, [8, 3, 2]]\nhead:\n- [[-1], 1, Detect, [nc]]\n";

/// What to write, and what of it to bend.
#[derive(Clone)]
pub struct Checkpoint {
    pub yaml: &'static str,
    /// Storage class and how it writes one number.
    pub storage: &'static str,
    pub root_class: &'static str,
    /// Class of the first layer.
    pub first_class: &'static str,
    pub names: Vec<&'static str>,
    pub names_as_list: bool,
    pub with_yaml: bool,
    /// What the root says of its licence.
    pub license: Option<String>,
    /// Under which key of the root the model lies, the others being None.
    pub model_key: &'static str,
    /// Tensors to leave out, by part of their key.
    pub without: &'static str,
    /// Part of a key to write differently: `("conv.bias", "conv.bios")`.
    pub rename: Option<(&'static str, &'static str)>,
    /// Value of the first element of the first tensor.
    pub first: f32,
    /// Claimed shape of the first tensor.
    pub first_shape: Option<Vec<usize>>,
    pub channels_last: bool,
    pub byteorder: &'static str,
    pub prefix: &'static str,
    pub activation: Option<&'static str>,
    /// Keys that tell another form of a block apart, with their shapes.
    pub forms: Vec<(&'static str, Vec<usize>)>,
    /// Compression method written into the headers, the bytes staying stored.
    pub method: u8,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            yaml: YAML,
            storage: "FloatStorage",
            root_class: "DetectionModel",
            first_class: "Conv",
            names: vec!["cat", "dog", "cow"],
            names_as_list: false,
            with_yaml: true,
            license: None,
            model_key: "model",
            without: "nothing",
            rename: None,
            first: 0.125,
            first_shape: None,
            channels_last: false,
            byteorder: "little",
            prefix: "best",
            activation: None,
            forms: Vec::new(),
            method: 0,
        }
    }
}

/// Asks a seed, and remembers what was asked.
pub struct Recorder {
    seed: Seeded,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    forms: Vec<(&'static str, Vec<usize>)>,
}

impl Recorder {
    pub fn new(forms: &[(&'static str, Vec<usize>)]) -> Self {
        Self { seed: Seeded(7), tensors: Vec::new(), forms: forms.to_vec() }
    }
}

impl Params for Recorder {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        let mut values = self.seed.tensor(key, shape)?;
        if self.tensors.is_empty() {
            values[0] = 0.125;
        }
        self.tensors.push((key.to_string(), shape.to_vec(), values.clone()));
        Ok(values)
    }

    fn shape(&self, key: &str) -> Option<&[usize]> {
        self.forms.iter().find(|(form, _)| *form == key).map(|(_, shape)| shape.as_slice())
    }
}

/// Emits pickle opcodes of protocol 2.
#[derive(Default)]
pub struct Pickler {
    pub bytes: Vec<u8>,
}

impl Pickler {
    pub fn start() -> Self {
        Self { bytes: vec![0x80, 2] }
    }

    pub fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn str(&mut self, text: &str) -> &mut Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    pub fn int(&mut self, value: usize) -> &mut Self {
        match i32::try_from(value) {
            Ok(value) => self.op(b"J").op(&value.to_le_bytes()),
            Err(_) => self.op(b"\x8a\x08").op(&value.to_le_bytes()),
        }
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ints(&mut self, values: &[usize]) -> &mut Self {
        self.op(b"(");
        for &value in values {
            self.int(value);
        }
        self.op(b"t")
    }

    /// A value of a YAML text.
    pub fn yaml(&mut self, value: &ghostlight::model::yaml::Value) -> &mut Self {
        use ghostlight::model::yaml::Value;
        match value {
            Value::Null => self.op(b"N"),
            Value::Bool(b) => self.op(if *b { b"\x88" } else { b"\x89" }),
            Value::Int(i) => self.op(b"J").op(&(*i as i32).to_le_bytes()),
            Value::Float(f) => self.op(b"G").op(&f.to_be_bytes()),
            Value::Str(s) => self.str(s),
            Value::List(items) => {
                self.op(b"](");
                items.iter().for_each(|item| {
                    self.yaml(item);
                });
                self.op(b"e")
            }
            Value::Map(entries) => {
                self.op(b"}(");
                entries.iter().for_each(|(key, value)| {
                    self.str(key).yaml(value);
                });
                self.op(b"u")
            }
        }
    }

    pub fn tensor(&mut self, storage: &str, key: usize, shape: &[usize], strides: &[usize]) -> &mut Self {
        let len: usize = shape.iter().fold(1, |n: usize, d| n.wrapping_mul(*d));
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"((").str("storage").global("torch", storage);
        self.str(&key.to_string()).str("cpu").int(len).op(b"tQ").int(0).ints(shape).ints(strides);
        self.op(b"\x89").global("collections", "OrderedDict").op(b")RtR")
    }
}

fn element(storage: &str, v: f32) -> Vec<u8> {
    match storage {
        "HalfStorage" => half::f16::from_f32(v).to_bits().to_le_bytes().to_vec(),
        "BFloat16Storage" => half::bf16::from_f32(v).to_bits().to_le_bytes().to_vec(),
        "DoubleStorage" => f64::from(v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    }
}

/// Row-major strides, or those of channels-last for four axes.
fn strides(shape: &[usize], channels_last: bool) -> Vec<usize> {
    if let (true, &[_, c, h, w]) = (channels_last, shape) {
        return vec![c * h * w, 1, w * c, c];
    }
    let mut strides = vec![1usize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1].wrapping_mul(shape[axis + 1]);
    }
    strides
}

/// Row-major values in the order of the storage.
fn stored(values: &[f32], shape: &[usize], channels_last: bool) -> Vec<f32> {
    let &[o, c, h, w] = shape else { return values.to_vec() };
    if !channels_last {
        return values.to_vec();
    }
    let mut out = vec![0.0; values.len()];
    assert_eq!(values.len(), o * c * h * w);
    for (i, &value) in values.iter().enumerate() {
        let (oi, ci, p) = (i / (c * h * w), i / (h * w) % c, i % (h * w));
        out[(oi * h * w + p) * c + ci] = value;
    }
    out
}

impl Checkpoint {
    pub fn spec(&self) -> ModelSpec {
        ModelSpec::parse(self.yaml, "yolov8").unwrap()
    }

    /// The whole file.
    pub fn write(&self) -> Vec<u8> {
        let (pickle, storages) = self.pickle();
        let mut bytes = archive(self.prefix, self.byteorder, &pickle, &storages);
        // The method stands 8 bytes into a local header, 10 into a central one.
        for (signature, offset) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
            let at = bytes.windows(4).position(|w| w == signature).unwrap();
            bytes[at + offset] = self.method;
        }
        bytes
    }

    pub fn pickle(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let spec = self.spec();
        let mut recorder = Recorder::new(&self.forms);
        build(&spec, &mut recorder).unwrap();
        let mut tensors = recorder.tensors;
        tensors[0].2[0] = self.first;
        tensors.retain(|(key, ..)| !key.contains(self.without));
        if let Some((from, to)) = self.rename {
            tensors.iter_mut().for_each(|t| t.0 = t.0.replace(from, to));
        }
        let mut out = Pickler::start();
        out.op(b"}(").str("epoch").int(3);
        if let Some(license) = &self.license {
            out.str("license").str(license);
        }
        for key in ["ema", "model"] {
            out.str(key);
            if key == self.model_key {
                self.module(&mut out, "", &tensors);
            } else {
                out.op(b"N");
            }
        }
        out.str("train_args").op(b"}(").str("imgsz").int(300).op(b"uu.");
        let storages = tensors.iter().map(|(_, shape, values)| {
            let values = stored(values, shape, self.channels_last);
            values.iter().flat_map(|&v| element(self.storage, v)).collect()
        });
        (out.bytes, storages.collect())
    }

    fn class(&self, path: &str) -> String {
        let spec = self.spec();
        match path.strip_prefix("model.").and_then(|i| i.parse::<usize>().ok()) {
            _ if path.is_empty() => self.root_class.to_string(),
            Some(0) => self.first_class.to_string(),
            Some(i) => spec.rows[i].block.clone(),
            None if path.ends_with(".act") => self.activation.unwrap_or("SiLU").to_string(),
            None => "Module".to_string(),
        }
    }

    /// An object with `_parameters` and `_modules`, made from the dotted keys below `path`.
    fn module(&self, out: &mut Pickler, path: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
        let below = if path.is_empty() { String::new() } else { format!("{path}.") };
        out.global("ultralytics.nn", &self.class(path)).op(b")\x81}(");
        let mut children: Vec<String> = Vec::new();
        out.str("_parameters").op(b"}(");
        for (index, (key, shape, _)) in tensors.iter().enumerate() {
            let Some(rest) = key.strip_prefix(&below) else { continue };
            if let Some((child, _)) = rest.split_once('.') {
                if !children.iter().any(|c| c == child) {
                    children.push(child.to_string());
                }
                continue;
            }
            let shape = self.first_shape.as_ref().filter(|_| index == 0).unwrap_or(shape);
            out.str(rest).tensor(self.storage, index, shape, &strides(shape, self.channels_last));
        }
        out.op(b"u").str("_modules").op(b"}(");
        let named_act = self.activation.is_some() && children.iter().any(|c| c == "bn");
        for child in &children {
            out.str(child);
            self.module(out, &format!("{below}{child}"), tensors);
        }
        if named_act {
            out.str("act");
            self.module(out, &format!("{below}act"), &[]);
        }
        out.op(b"u");
        if path.is_empty() {
            self.description(out);
        }
        out.op(b"ub");
    }

    fn description(&self, out: &mut Pickler) {
        if self.with_yaml {
            out.str("yaml").yaml(&ghostlight::model::yaml::parse(self.yaml).unwrap());
        }
        out.str("names").op(if self.names_as_list { b"](" } else { b"}(" });
        for (i, name) in self.names.iter().enumerate() {
            if !self.names_as_list {
                out.int(i);
            }
            out.str(name);
        }
        out.op(if self.names_as_list { b"e" } else { b"u" });
    }
}

/// A zip archive of a pickle and its storages.
pub fn archive(prefix: &str, byteorder: &str, pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut entry = |name: String, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry(format!("{prefix}/data.pkl"), pickle);
    entry(format!("{prefix}/byteorder"), byteorder.as_bytes());
    for (i, storage) in storages.iter().enumerate() {
        entry(format!("{prefix}/data/{i}"), storage);
    }
    zip.finish().unwrap().into_inner()
}
