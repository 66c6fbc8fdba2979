//! Model files whole and broken: one test for each kind of fault; [`chance`] finds the rest.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chance;
#[path = "../common/mod.rs"]
mod common;
mod float;

use std::sync::{Arc, LazyLock};

use common::container::{Container, join};
use common::models;
use ghostlight::detector::{Detector, Fit};
use ghostlight::engine::{Engine, EngineError};
use ghostlight::kernels::detect;
use ghostlight::vision::{NmsOptions, Pixels, Size};
use ghostlight::weights::file::key;
use ghostlight::weights::graph::{QAct, QGraph, QNode, QOp, QOutput};
use ghostlight::weights::{Model, WeightsError};
use serde_json::{Value, json};

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(models::tiny_bytes);
/// The same model with every second layer in f32.
static MIXED: LazyLock<Vec<u8>> = LazyLock::new(models::mixed_bytes);

fn good() -> Container {
    Container::read(&GOOD)
}

/// Fails, and says how, unless the bytes are refused as the pattern says.
macro_rules! refused {
    ($bytes:expr, $pattern:pat) => {{
        let fault = Model::from_bytes(&$bytes).err().expect("must be refused");
        assert!(matches!(fault, $pattern), "{fault:?}");
        let text = fault.to_string();
        assert!(!text.contains('\n') && text.len() < 1000, "{text}");
        text
    }};
}
pub(crate) use refused;

/// A file whose graph was bent.
fn bent(bend: impl FnOnce(&mut QGraph)) -> Vec<u8> {
    let mut file = good();
    let mut graph = file.graph();
    bend(&mut graph);
    file.set_graph(&graph);
    file.write()
}

fn find(graph: &mut QGraph, wanted: impl Fn(&QOp) -> bool) -> &mut QNode {
    graph.nodes.iter_mut().find(|node| wanted(&node.op)).unwrap()
}

/// The detector at 64x64 with the portable kernel.
fn look(model: Model) -> Result<(), String> {
    let engine = match Engine::new(Arc::new(model), detect::by_name("scalar").unwrap(), 1) {
        Ok(engine) => engine,
        Err(EngineError::Size { .. } | EngineError::Memory { .. }) => return Ok(()),
        Err(other) => return Err(other.to_string()),
    };
    let mut detector = Detector::new(engine, Fit::Exact(Size { width: 64, height: 64 }));
    let rgb = models::picture(1, [40, 60]);
    let picture = Pixels::rgb(Size { width: 60, height: 40 }, &rgb);
    match detector.detect(picture, &NmsOptions { confidence: 0.01, ..NmsOptions::default() }) {
        Ok(_) => Ok(()),
        Err(ghostlight::detector::DetectError::Engine(
            EngineError::Size { .. } | EngineError::Memory { .. },
        )) => Ok(()),
        Err(other) => Err(other.to_string()),
    }
}

#[test]
fn a_whole_file_loads_and_runs() {
    assert_eq!(good().write(), *GOOD, "taking apart and joining changes nothing");
    let model = Model::from_bytes(&GOOD).unwrap();
    assert_eq!(model.id(), "tiny@01234567");
    look(model).unwrap();
}

#[test]
fn a_file_on_disk_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    std::fs::write(&path, &*GOOD).unwrap();
    look(Model::open(&path).unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Model::open(&path), Err(WeightsError::TooShort { actual: 0 } | WeightsError::Io(_))));
    assert!(matches!(Model::open(folder.path()), Err(WeightsError::Io(_))));
    assert!(matches!(Model::open(&folder.path().join("absent")), Err(WeightsError::Io(_))));
}

#[test]
fn a_file_that_was_read_may_be_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    std::fs::write(&path, &*GOOD).unwrap();
    let model = Model::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10).unwrap();
    look(model).unwrap();
    file.set_len(3 << 30).unwrap();
    assert!(matches!(Model::read(&path), Err(WeightsError::TooLong { actual: 3_221_225_472, .. })));
    assert!(matches!(Model::read(folder.path()), Err(WeightsError::Io(_))));
}

#[test]
fn cut_files_are_refused() {
    for len in [0, 1, 7] {
        refused!(GOOD[..len], WeightsError::TooShort { .. });
    }
    let header = GOOD.len() - good().data.len();
    for len in [8, 9, 100, header - 1] {
        refused!(GOOD[..len], WeightsError::HeaderLength { .. });
    }
    for len in [header, header + 1, header + 64, GOOD.len() - 64, GOOD.len() - 1] {
        refused!(GOOD[..len], WeightsError::Container(_));
    }
    refused!([&GOOD[..], b"x"].concat(), WeightsError::Container(_));
}

#[test]
fn lies_about_the_header_are_refused() {
    for claimed in [u64::MAX, i64::MAX as u64, GOOD.len() as u64 - 7, (8 << 20) + 1] {
        let mut bytes = GOOD.clone();
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        assert!(refused!(bytes, WeightsError::HeaderLength { .. }).contains(&claimed.to_string()));
    }
    for claimed in [0u64, 1, 50] {
        let mut bytes = GOOD.clone();
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        refused!(bytes, WeightsError::Container(_));
    }
}

#[test]
fn headers_that_are_no_headers_are_refused() {
    let nested = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
    let deep = format!("{{\"__metadata__\":{}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    for header in [&b"\xff\xfe\xfd"[..], b"null", b"[]", b"{", b"{\"a\":1}", &nested, deep.as_bytes()] {
        refused!(join(header, b""), WeightsError::Container(_));
    }
}

#[test]
fn offsets_that_overlap_or_leave_holes_are_refused() {
    let file = good();
    let name = file.tensor(".weight_scale");
    let range = file.range(&name);
    for wrong in [
        range.start - 64..range.end - 64,
        range.start + 64..range.end + 64,
        range.start..range.end + 64,
        range.end..range.start,
        usize::MAX - 64..usize::MAX,
        0..usize::MAX,
    ] {
        let mut file = file.clone();
        file.set_range(&name, wrong);
        refused!(file.write(), WeightsError::Container(_));
    }
    let mut file = file.clone();
    file.header[&name]["shape"] = json!([1u64 << 63, 2]);
    refused!(file.write(), WeightsError::Container(_));
}

#[test]
fn files_of_other_programs_are_named() {
    assert!(refused!(join(b"{}      ", b""), WeightsError::NotOurs { .. }).contains("ghostlight convert"));
    for key in [key::FORMAT, key::LAYOUT, key::GRAPH, key::INFO] {
        let mut file = good();
        file.metadata().remove(key);
        assert!(refused!(file.write(), WeightsError::NotOurs { .. }).contains(key));
    }
}

#[test]
fn other_versions_are_refused() {
    for (key, text) in [(key::FORMAT, "2"), (key::FORMAT, ""), (key::LAYOUT, "n16k8")] {
        let mut file = good();
        file.set_text(key, text);
        assert!(refused!(file.write(), WeightsError::Format { .. }).contains(&format!("`{text}`")));
    }
}

#[test]
fn broken_metadata_is_refused_by_key() {
    for key in [key::GRAPH, key::INFO] {
        for text in ["", "{", "null", "[1]", &"[".repeat(1 << 20), &"{\"nodes\":".repeat(100_000)] {
            let mut file = good();
            file.set_text(key, text);
            assert!(refused!(file.write(), WeightsError::Metadata { .. }).contains(key));
        }
    }
    for size in [json!([0, 64]), json!([64, 33]), json!([8224, 64]), json!([64]), json!([-64, 64])] {
        let mut file = good();
        let mut info: Value = serde_json::from_str(&file.text(key::INFO)).unwrap();
        info["input_size"] = size;
        file.set_text(key::INFO, &info.to_string());
        refused!(file.write(), WeightsError::Metadata { key: key::INFO, .. });
    }
    let mut file = good();
    let info = file.text(key::INFO).replace("[\"class0\",\"class1\"]", "[\"class0\"]");
    file.set_text(key::INFO, &info);
    assert!(refused!(file.write(), WeightsError::Metadata { .. }).contains("1 class names for 2 classes"));
}

#[test]
fn graphs_of_absurd_length_or_names_are_refused() {
    let bends: [&dyn Fn(&mut QGraph); 5] = [
        &|g| g.nodes.clear(),
        &|g| g.nodes = vec![g.nodes[0].clone(); 2049],
        &|g| g.nodes[1].name = g.nodes[2].name.clone(),
        &|g| g.nodes[1].name.clear(),
        &|g| g.nodes[1].name = "x".repeat(201),
    ];
    for bend in bends {
        refused!(bent(bend), WeightsError::Metadata { key: key::GRAPH, .. });
    }
}

#[test]
fn graphs_that_contradict_themselves_are_refused() {
    let is_conv = |op: &QOp| matches!(op, QOp::Conv { output: QOutput::Int8 { .. }, .. });
    let is_float = |op: &QOp| matches!(op, QOp::Conv { output: QOutput::Float, .. });
    macro_rules! shape {
        ($field:ident = $value:expr) => {
            Box::new(move |g: &mut QGraph| match &mut find(g, is_conv).op {
                QOp::Conv { shape, .. } => shape.$field = $value,
                _ => panic!("no convolution"),
            })
        };
    }
    macro_rules! op {
        ($wanted:pat, $change:expr) => {
            Box::new(move |g: &mut QGraph| $change(find(g, |op| matches!(op, $wanted))))
        };
    }
    let unit = |value: f32| {
        Box::new(move |g: &mut QGraph| match &mut find(g, is_conv).op {
            QOp::Conv { output, .. } => *output = QOutput::Int8 { unit: value },
            _ => panic!("no convolution"),
        })
    };
    type Bend = Box<dyn Fn(&mut QGraph)>;
    let experts = |count: usize| -> Bend {
        Box::new(move |g: &mut QGraph| match &mut find(g, |op| matches!(op, QOp::DynamicConv { .. })).op {
            QOp::DynamicConv { experts, .. } => *experts = count,
            _ => panic!("no dynamic convolution"),
        })
    };
    let detect = |change: fn(&mut ghostlight::model::graph::Detect)| -> Bend {
        Box::new(move |g: &mut QGraph| match &mut g.nodes.last_mut().unwrap().op {
            QOp::Detect(detect) => change(detect),
            _ => panic!("no head"),
        })
    };
    let cases: Vec<(&str, Bend)> = vec![
        ("must be the first", Box::new(|g| g.nodes[0].op = QOp::Add)),
        ("must be the first", Box::new(|g| g.nodes[3].op = QOp::Input)),
        ("must be the last", Box::new(|g| _ = g.nodes.pop())),
        ("expected 3", Box::new(|g| g.nodes[0].channels = 4)),
        ("0 inputs", Box::new(|g| g.nodes[1].inputs.clear())),
        ("3 inputs", Box::new(|g| g.nodes[1].inputs = vec![0; 3])),
        ("does not come before", Box::new(|g| g.nodes[1].inputs = vec![1])),
        ("does not come before", Box::new(|g| g.nodes[1].inputs = vec![usize::MAX])),
        ("0 channels", Box::new(|g| g.nodes[1].channels = 0)),
        ("channels, expected", Box::new(|g| g.nodes[1].channels = usize::MAX)),
        ("channels, expected 0", Box::new(|g| g.nodes.last_mut().unwrap().channels = usize::MAX)),
        ("convolves", shape!(c_in = 5)),
        ("convolves", shape!(c_out = usize::MAX)),
        ("kernel 8", shape!(kernel = 8)),
        ("kernel 0", shape!(kernel = 0)),
        ("stride 0", shape!(stride = 0)),
        ("stride 9", shape!(stride = 9)),
        ("dilation 0", shape!(dilation = 0)),
        ("groups", shape!(groups = 0)),
        ("groups", shape!(groups = 3)),
        ("padding", shape!(padding = ghostlight::model::graph::Padding::Fixed(65))),
        ("unit", unit(0.0)),
        ("unit", unit(-1.0)),
        (
            "shift",
            op!(QOp::Conv { output: QOutput::Int8 { .. }, .. }, |n: &mut QNode| {
                if let QOp::Conv { act, .. } = &mut n.op {
                    *act = QAct::Gated { shift: 9, poly: [0; 6] };
                }
            }),
        ),
        ("0 experts", experts(0)),
        ("33 experts", experts(33)),
        ("65 experts", experts(65)),
        ("inputs have", op!(QOp::Concat, |n: &mut QNode| n.channels += 8)),
        ("0 inputs", op!(QOp::Concat, |n: &mut QNode| n.inputs.clear())),
        ("past its input", op!(QOp::Slice { .. }, |n: &mut QNode| n.op = QOp::Slice { start: usize::MAX })),
        ("pooling window 4", op!(QOp::MaxPool { .. }, |n: &mut QNode| n.op = QOp::MaxPool { kernel: 4 })),
        ("pooling window 9", op!(QOp::MaxPool { .. }, |n: &mut QNode| n.op = QOp::MaxPool { kernel: 9 })),
        ("factor 0", op!(QOp::Upsample { .. }, |n: &mut QNode| n.op = QOp::Upsample { factor: 0 })),
        ("factor 9", op!(QOp::Upsample { .. }, |n: &mut QNode| n.op = QOp::Upsample { factor: 9 })),
        ("reduced", op!(QOp::Upsample { .. }, |n: &mut QNode| n.op = QOp::SqueezeExcite { reduced: 0 })),
        ("channels from", op!(QOp::Upsample { .. }, |n: &mut QNode| n.channels += 1)),
        ("levels", detect(|d| d.strides.clear())),
        ("levels", detect(|d| d.strides = vec![8; 9])),
        ("powers of two", detect(|d| d.strides[0] = 0)),
        ("powers of two", detect(|d| d.strides[0] = 512)),
        ("0 classes", detect(|d| d.classes = 0)),
        ("classes", detect(|d| d.classes = usize::MAX)),
        ("level with", detect(|d| d.classes = 3)),
        ("bins per box side", detect(|d| d.reg_max = 8)),
        ("bins per box side", detect(|d| d.reg_max = usize::MAX)),
    ];
    for (word, bend) in cases {
        let text = refused!(bent(|g| bend(g)), WeightsError::Node { .. });
        assert!(text.contains(word), "{word}: {text}");
    }
    // An f32 output that something else than the head takes, and int8 inputs of the head.
    let bytes = bent(|g| {
        let float = g.nodes.iter().position(|n| is_float(&n.op)).unwrap();
        let after = g.nodes[float + 1..].iter_mut().find(|n| is_conv(&n.op)).unwrap();
        after.inputs[0] = float;
    });
    assert!(refused!(bytes, WeightsError::Node { .. }).contains("f32"));
    let bytes = bent(|g| g.nodes.last_mut().unwrap().inputs[0] = 1);
    assert!(refused!(bytes, WeightsError::Node { .. }).contains("int8"));
    // JSON has no infinity, but numbers that round to it.
    let mut file = good();
    let text = file.text(key::GRAPH);
    let at = text.find("\"unit\":").unwrap() + 7;
    let end = at + text[at..].find('}').unwrap();
    file.set_text(key::GRAPH, &format!("{}1e300{}", &text[..at], &text[end..]));
    refused!(file.write(), WeightsError::Node { .. });
}

#[test]
fn missing_and_unknown_tensors_are_named() {
    let file = good();
    let name = file.tensor(".weight_scale");
    let entry = file.header[&name].clone();
    let mut renamed = file.clone();
    renamed.header.remove(&name);
    renamed.header.insert("nobody.weight".into(), entry);
    assert!(refused!(renamed.write(), WeightsError::MissingTensor { .. }).contains(&name));
    let mut extra = file.clone();
    let end = extra.data.len();
    extra
        .header
        .insert("nobody.bias".into(), json!({"dtype": "U8", "shape": [4], "data_offsets": [end, end + 4]}));
    extra.data.extend([0; 4]);
    assert!(refused!(extra.write(), WeightsError::UnknownTensor { .. }).contains("nobody.bias"));
    let mut parts =
        models::parts(&models::graph(models::TINY), &models::fixed_ranges(&models::graph(models::TINY)));
    parts.tensors.remove(&name);
    assert!(matches!(parts.to_bytes(), Err(WeightsError::MissingTensor { name: n }) if n == name));
}

#[test]
fn tensors_of_another_type_or_length_are_refused_by_name() {
    let file = good();
    for (suffix, dtype) in [(".weight", "U8"), (".weight_scale", "I32"), (".zero", "F32")] {
        let name = file.tensor(suffix);
        let mut file = file.clone();
        file.header[&name]["dtype"] = dtype.into();
        assert!(refused!(file.write(), WeightsError::TensorShape { .. }).contains(&name));
    }
    // A whole kernel more than the file has.
    let bytes = bent(|g| {
        let node = find(g, |op| matches!(op, QOp::DynamicConv { .. }));
        if let QOp::DynamicConv { experts, .. } = &mut node.op {
            *experts += 1;
        }
    });
    refused!(bytes, WeightsError::TensorShape { .. });
}

#[test]
fn misaligned_data_are_refused() {
    assert!(refused!(good().write_with(8), WeightsError::Misaligned { .. }).contains("multiple of 64"));
    // Four bytes before all others.
    let mut file = good();
    let names: Vec<String> = file.header.keys().filter(|k| *k != "__metadata__").cloned().collect();
    for name in names {
        let range = file.range(&name);
        file.set_range(&name, range.start + 4..range.end + 4);
    }
    file.header.insert("first.bias".into(), json!({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}));
    file.data.splice(0..0, [0; 4]);
    refused!(file.write(), WeightsError::Misaligned { .. });
}

#[test]
fn numbers_that_no_conversion_writes_are_refused_by_name() {
    let file = good();
    let floats = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(f32::to_le_bytes);
    let scales = [0f32, -0.0, -1.0].map(f32::to_le_bytes);
    let zeros = [256i32, -1, i32::MIN, i32::MAX].map(i32::to_le_bytes);
    let mut cases: Vec<(&str, Vec<u8>)> = vec![(".weight", vec![0x80])];
    for suffix in [".weight_scale", ".step"] {
        cases.extend(floats.iter().chain(&scales).map(|v| (suffix, v.to_vec())));
    }
    for suffix in [".bias", ".expert_bias", ".routing_weight", ".routing_bias"] {
        cases.extend(floats.iter().map(|v| (suffix, v.to_vec())));
    }
    cases.extend(zeros.iter().map(|v| (".zero", v.to_vec())));
    for (suffix, value) in cases {
        let name = file.tensor(suffix);
        let range = file.range(&name);
        // The first element, and the last one of the padding.
        for at in [range.start, range.end - value.len()] {
            let mut file = file.clone();
            file.data[at..at + value.len()].copy_from_slice(&value);
            assert!(refused!(file.write(), WeightsError::TensorValue { .. }).contains(&name), "{value:?}");
        }
    }
}

#[test]
fn graphs_that_explode_end_in_an_error() {
    // Twenty enlargements by 8: more pixels than can be counted.
    let enlarged = bent(|g| {
        let node = |i: usize| QNode {
            name: format!("up{i}"),
            op: QOp::Upsample { factor: 8 },
            inputs: vec![i],
            channels: 3,
        };
        for later in g.nodes[1..].iter_mut() {
            later.inputs.iter_mut().filter(|i| **i > 0).for_each(|i| *i += 40);
        }
        g.nodes.splice(1..1, (0..40).map(node));
    });
    let model = Arc::new(Model::from_bytes(&enlarged).unwrap());
    let fault = Engine::new(model, detect::best(), 1).unwrap_err();
    assert!(matches!(fault, EngineError::Size { .. }), "{fault:?}");
    // 6144 channels at full size, kept alive to the end.
    let wide = bent(|g| {
        let concat = |i: usize, inputs: Vec<usize>, channels| QNode {
            name: format!("wide{i}"),
            op: QOp::Concat,
            inputs,
            channels,
        };
        for later in g.nodes[1..].iter_mut() {
            later.inputs.iter_mut().filter(|i| **i > 0).for_each(|i| *i += 2);
        }
        g.nodes.splice(1..1, [concat(1, vec![0; 64], 192), concat(2, vec![1; 32], 6144)]);
    });
    let mut engine = Engine::new(Arc::new(Model::from_bytes(&wide).unwrap()), detect::best(), 1).unwrap();
    let fault = engine.resize(4096, 4096).unwrap_err();
    assert!(matches!(fault, EngineError::Memory { needed, .. } if needed > 90 << 30), "{fault:?}");
    assert_eq!(engine.size(), (64, 64), "the old size stays");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let model = Arc::new(Model::from_bytes(&GOOD).unwrap());
    let mut engine = Engine::new(model, detect::best(), 1).unwrap();
    for (height, width) in [
        (0, 0),
        (0, 64),
        (64, 0),
        (33, 64),
        (64, 36),
        (1, 1),
        (usize::MAX, 64),
        (64, usize::MAX),
        (usize::MAX, usize::MAX),
        (1 << 20, 1 << 20),
    ] {
        let fault = engine.resize(height, width).expect_err(&format!("{height}x{width}"));
        assert!(matches!(fault, EngineError::Size { .. }), "{fault:?}");
        assert_eq!(engine.size(), (64, 64), "the old size stays");
    }
    models::fill(&mut engine, &models::picture(1, [64, 64]));
    engine.run().unwrap();
}
