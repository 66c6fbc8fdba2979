//! Checkpoints whole and broken, written by the test itself: one test for each kind of fault.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::Cursor;
use std::time::{Duration, Instant};

use common::{Checkpoint, Pickler, Recorder, archive};
use ghostlight::model::blocks::{BuildError, BuildOptions, build};
use ghostlight::model::checkpoint::{self, CheckpointError};
use ghostlight::model::graph::{Activation, Graph, Op, RoutingKind};
use ghostlight::model::params::ParamsError;
use ghostlight::model::pickle::PickleError;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<Graph, CheckpointError> {
    checkpoint::read(Cursor::new(bytes), BuildOptions::default())
}

fn load(checkpoint: Checkpoint) -> Result<Graph, CheckpointError> {
    read(&checkpoint.write())
}

fn expected() -> Graph {
    build(&Checkpoint::default().spec(), &mut Recorder::new(&[])).unwrap()
}

/// Fails, and says how, unless the bytes are refused as the pattern says.
macro_rules! refused {
    ($bytes:expr, $pattern:pat) => {{
        let start = Instant::now();
        let fault = read(&$bytes).expect_err("must be refused");
        assert!(matches!(fault, $pattern), "{fault:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        fault.to_string()
    }};
}

#[test]
fn the_licence_is_what_the_root_says() {
    let of = |license: Option<&str>| {
        load(Checkpoint { license: license.map(str::to_owned), ..Checkpoint::default() })
            .unwrap()
            .info
            .license
    };
    assert_eq!(of(None), "");
    assert_eq!(
        of(Some("AGPL-3.0 (https://ultralytics.com/license)")),
        "AGPL-3.0 (https://ultralytics.com/license)"
    );
    assert_eq!(of(Some(&"x".repeat(5000))).len(), 400);
}

#[test]
fn a_whole_checkpoint_gives_the_graph_of_its_numbers() {
    let graph = load(Checkpoint::default()).unwrap();
    assert_eq!(graph.nodes, expected().nodes);
    assert_eq!(graph.info.classes, ["cat", "dog", "cow"]);
    assert_eq!(graph.info.input_size, [320, 320], "300 is rounded up to whole cells");
    assert_eq!(graph.info.name, "yolov8-dynamicconv");
    assert!(graph.info.dialect.contains("bare"), "{}", graph.info.dialect);
}

#[test]
fn a_file_on_disk_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Checkpoint::default().write()).unwrap();
    assert_eq!(checkpoint::load(file.path()).unwrap().nodes, expected().nodes);
    assert!(matches!(checkpoint::load("/nowhere/x.pt"), Err(CheckpointError::Io(_))));
}

#[test]
fn forms_that_mean_the_same_give_the_same() {
    for checkpoint in [
        Checkpoint { model_key: "ema", ..Checkpoint::default() },
        Checkpoint { names_as_list: true, ..Checkpoint::default() },
        Checkpoint { channels_last: true, ..Checkpoint::default() },
        Checkpoint { storage: "DoubleStorage", ..Checkpoint::default() },
        Checkpoint { prefix: "a/b", ..Checkpoint::default() },
    ] {
        let graph = load(checkpoint).unwrap();
        assert_eq!(graph.nodes, expected().nodes);
        assert_eq!(graph.info.classes, ["cat", "dog", "cow"]);
    }
}

#[test]
fn forms_of_blocks_are_told_apart_by_their_keys() {
    const C2F: &str = "nc: 3\nreg_max: 2\nbackbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, C2f_DynamicConv, [16, True]]]\nhead: [[[-1], 1, Detect, [nc]]]\n";
    for (yaml, key, shape, dialect, routing) in [
        (common::YAML, "model.1.conv.0.routing.weight", vec![2, 8], "wrapped", Some(RoutingKind::Sigmoid)),
        (common::YAML, "model.1.bn.weight", vec![8], "beside it", Some(RoutingKind::Softmax)),
        (
            common::YAML,
            "model.1.cond_conv.experts.0.weight",
            vec![8, 8, 3, 3],
            "per expert",
            Some(RoutingKind::Sigmoid),
        ),
        (common::YAML, "model.0.conv.bias", vec![8], "bare", Some(RoutingKind::Sigmoid)),
        (common::YAML, "model.2.cv3.0.0.0.conv.weight", vec![8, 1, 3, 3], "bare", Some(RoutingKind::Sigmoid)),
        (C2F, "model.1.cv1.conv.none", vec![], "ghost", Some(RoutingKind::Sigmoid)),
        (C2F, "model.1.m.0.cv1.conv.weight", vec![8, 8, 3, 3], "", None),
    ] {
        let forms = vec![(key, shape)];
        let mut recorder = Recorder::new(&forms);
        let written = build(&Checkpoint { yaml, ..Checkpoint::default() }.spec(), &mut recorder).unwrap();
        let graph = load(Checkpoint { yaml, forms, ..Checkpoint::default() }).unwrap();
        assert_eq!(graph.nodes, written.nodes, "{key}");
        assert!(graph.info.dialect.contains(dialect), "{key}: {}", graph.info.dialect);
        let found = graph.nodes.iter().find_map(|n| match &n.op {
            Op::DynamicConv(dynamic) => Some(dynamic.routing),
            _ => None,
        });
        assert_eq!(found, routing, "{key}");
    }
}

#[test]
fn heads_without_nms_are_refused() {
    let rename = Some((".cv2.0.2.", ".one2one_cv2.0.2."));
    let bytes = Checkpoint { rename, ..Checkpoint::default() }.write();
    refused!(bytes, CheckpointError::Build(BuildError::EndToEnd { .. }));
}

#[test]
fn short_floats_are_read_within_their_precision() {
    for (storage, precision) in [("HalfStorage", 2e-3), ("BFloat16Storage", 2e-2)] {
        let graph = load(Checkpoint { storage, ..Checkpoint::default() }).unwrap();
        let (Op::Conv(found), expected) = (&graph.nodes[1].op, expected()) else { panic!() };
        let Op::Conv(expected) = &expected.nodes[1].op else { panic!() };
        for (a, b) in found.weight.iter().zip(&expected.weight) {
            assert!((a - b).abs() <= precision * b.abs().max(0.1), "{storage}: {a} {b}");
        }
    }
}

#[test]
fn activations_come_from_the_checkpoint() {
    let graph = load(Checkpoint { activation: Some("ReLU"), ..Checkpoint::default() }).unwrap();
    let Op::Conv(conv) = &graph.nodes[1].op else { panic!() };
    assert_eq!(conv.activation, Activation::Relu);
    let fault = load(Checkpoint { activation: Some("GELU"), ..Checkpoint::default() }).unwrap_err();
    assert!(matches!(fault, CheckpointError::Build(BuildError::Activation { .. })));
    assert!(fault.to_string().contains("model.0.act") && fault.to_string().contains("GELU"));
}

#[test]
fn routing_can_be_overridden() {
    let options = BuildOptions { routing: Some(RoutingKind::Softmax) };
    let graph = checkpoint::read(Cursor::new(Checkpoint::default().write()), options).unwrap();
    let Op::DynamicConv(dynamic) = &graph.nodes[2].op else { panic!() };
    assert_eq!(dynamic.routing, RoutingKind::Softmax);
    assert!(graph.info.dialect.contains("as the user chose"));
}

#[test]
fn channels_equal_to_the_class_count_are_read_either_way() {
    const UNSCALED: &str = "nc: 16\nreg_max: 2\nscales: {n: [1, 0.5, 64]}\nbackbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [[[-1], 1, Detect, [nc]]]\n";
    const PLAIN: &str =
        "nc: 16\nreg_max: 2\nbackbone: [[-1, 1, Conv, [16, 3, 2]]]\nhead: [[[-1], 1, Detect, [nc]]]\n";
    let names = vec!["x"; 16];
    let scaled = load(Checkpoint { yaml: UNSCALED, names: names.clone(), ..Checkpoint::default() }).unwrap();
    assert_eq!(scaled.nodes[1].channels, 8);
    // The same description, with the tensors of a model whose layer stayed at 16.
    let (mut pickle, storages) = Checkpoint { yaml: PLAIN, names, ..Checkpoint::default() }.pickle();
    let mut to = Pickler::default();
    to.str("scales").yaml(&ghostlight::model::yaml::parse("{n: [1, 0.5, 64]}").unwrap());
    let mut nc = Pickler::default();
    nc.str("nc").int(16);
    let at = pickle.windows(nc.bytes.len()).position(|w| w == nc.bytes).unwrap() + nc.bytes.len();
    pickle.splice(at..at, to.bytes);
    let kept = read(&archive("a", "little", &pickle, &storages)).unwrap();
    assert_eq!(kept.nodes[1].channels, 16);
}

#[test]
fn files_that_are_no_checkpoints_are_named() {
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"\x80\x02\x8a\x0al\xfc\x9c", "before 1.6"),
        (b"\x80\x04N.", "bare pickle"),
        (b"version https://git-lfs", "LFS"),
        (b"\x1c\0\0\0TFL3aaaaaaaaaaa", "TFLite"),
        (b"\x08\0\0\0\0\0\0\0{\"a\":1}  ", "safetensors"),
        (b"<html>", "web page"),
        (b"MZ", "first bytes"),
    ] {
        assert!(refused!(bytes, CheckpointError::NotZip { .. }).contains(word));
    }
    refused!(b"PK\x03\x04"[..], CheckpointError::Zip { .. });
    refused!(archive("", "little", b"", &[])[..60], CheckpointError::Zip { .. });
}

#[test]
fn broken_archives_are_refused() {
    let whole = Checkpoint::default().write();
    for len in [1, 30, 100, whole.len() / 2, whole.len() - 1] {
        assert!(read(&whole[..len]).is_err(), "{len}");
    }
    let mut flipped = whole.clone();
    let at = whole.windows(4).position(|w| w == 0.125f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    let fault = refused!(flipped, CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. })));
    assert!(fault.to_lowercase().contains("checksum"), "{fault}");
    // A zip64 record that claims 2^55 entries.
    let mut claims = b"PK\x03\x04PK\x06\x06".to_vec();
    claims.resize(4 + 32, 0);
    claims.extend((1u64 << 55).to_le_bytes());
    refused!(claims, CheckpointError::TooManyEntries { .. });
}

/// Claims a length, holds nothing.
struct Claims(u64);

impl std::io::Read for Claims {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

impl std::io::Seek for Claims {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(self.0)
    }
}

#[test]
fn files_beyond_any_checkpoint_are_refused() {
    let fault = checkpoint::read(Claims(5 << 30), BuildOptions::default()).unwrap_err();
    assert!(matches!(fault, CheckpointError::TooLarge { found, .. } if found == 5 << 30));
}

#[test]
fn compressed_entries_are_refused() {
    for method in [8, 93] {
        let bytes = Checkpoint { method, ..Checkpoint::default() }.write();
        assert!(refused!(bytes, CheckpointError::Compressed { .. }).contains("best/data.pkl"));
    }
}

#[test]
fn archives_without_a_model_are_named() {
    let other = |name: &str| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(
            name,
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
        zip.finish().unwrap().into_inner()
    };
    assert!(refused!(other("x.npy"), CheckpointError::NoPickle { .. }).contains("NumPy"));
    assert!(refused!(other("x.txt"), CheckpointError::NoPickle { .. }).contains("some other"));
    refused!(archive("a", "big", b"N.", &[]), CheckpointError::ByteOrder { .. });
    refused!(archive("a", "little", b"i", &[]), CheckpointError::Pickle(PickleError::Opcode { .. }));
    let fault = refused!(archive("a", "little", b"}X\x01\0\0\0kNs.", &[]), CheckpointError::NoModel { .. });
    assert!(fault.contains("found k"), "{fault}");
}

#[test]
fn a_state_dict_alone_is_refused_with_what_is_missing() {
    for wrap in [None, Some("state_dict"), Some("model")] {
        let mut out = Pickler::start();
        if let Some(key) = wrap {
            out.op(b"}").str(key);
        }
        out.global("collections", "OrderedDict").op(b")R(").str("model.0.conv.weight");
        out.tensor("FloatStorage", 0, &[2], &[1]).op(b"u");
        out.op(if wrap.is_some() { b"s." } else { b"." });
        let bytes = archive("a", "little", &out.bytes, &[vec![0; 8]]);
        assert!(refused!(bytes, CheckpointError::StateDictOnly).contains("yaml and names"));
    }
}

#[test]
fn other_models_are_refused_by_name() {
    for (class, family) in [
        ("BottleneckCSP", "YOLOv5"),
        ("C3k2", "YOLO11"),
        ("C2PSA", "YOLO11"),
        ("Classify", "classifier"),
        ("Segment", "head"),
    ] {
        let bytes = Checkpoint { first_class: class, ..Checkpoint::default() }.write();
        let fault = refused!(bytes, CheckpointError::Build(BuildError::UnknownBlock { .. }));
        assert!(fault.contains("model.0") && fault.contains(class) && fault.contains(family), "{fault}");
    }
    for root_class in ["ClassificationModel", "SegmentationModel", "PoseModel", "OBBModel"] {
        let bytes = Checkpoint { root_class, ..Checkpoint::default() }.write();
        assert!(refused!(bytes, CheckpointError::Task { .. }).contains(root_class));
    }
}

#[test]
fn descriptions_that_do_not_fit_are_refused() {
    let whole = Checkpoint::default;
    refused!(Checkpoint { with_yaml: false, ..whole() }.write(), CheckpointError::NoDescription { .. });
    let bytes = Checkpoint { names: vec!["one"], ..whole() }.write();
    refused!(bytes, CheckpointError::Names { found: 1, expected: 3 });
    let (pickle, storages) = whole().pickle();
    let at = pickle.windows(8).position(|w| w == b"backbone").unwrap();
    let mut bent = pickle.clone();
    bent[at] = b'B';
    refused!(archive("a", "little", &bent, &storages), CheckpointError::Spec(_));
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_key() {
    let whole = Checkpoint::default;
    let key = "model.0.conv.weight";
    let bytes = Checkpoint { without: key, ..whole() }.write();
    assert!(
        refused!(bytes, CheckpointError::Build(BuildError::Params(ParamsError::Missing { .. })))
            .contains(key)
    );
    let bytes = Checkpoint { first_shape: Some(vec![9, 3, 3, 3]), ..whole() }.write();
    assert!(
        refused!(bytes, CheckpointError::Build(BuildError::Params(ParamsError::Shape { .. }))).contains(key)
    );
    for first in [f32::NAN, f32::INFINITY] {
        let bytes = Checkpoint { first, ..whole() }.write();
        let fault =
            refused!(bytes, CheckpointError::Build(BuildError::Params(ParamsError::NotFinite { .. })));
        assert!(fault.contains(key));
    }
    let bytes = Checkpoint { storage: "LongStorage", ..whole() }.write();
    refused!(bytes, CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. })));
    let (pickle, mut storages) = whole().pickle();
    storages[0].truncate(8);
    let short = archive("a", "little", &pickle, &storages);
    refused!(short, CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. })));
    storages.clear();
    let none = archive("a", "little", &pickle, &storages);
    refused!(none, CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. })));
}

#[test]
fn bombs_end_within_a_second() {
    let zipped = |pickle: &[u8]| archive("a", "little", pickle, &[]);
    // 2 M nested tuples.
    let mut nested = vec![0x80, 2, b'N'];
    nested.resize(2 << 20, 0x85);
    refused!(zipped(&nested), CheckpointError::Pickle(PickleError::TooManyValues { .. }));
    // A list that doubles when copied: 2^40 elements for a reader without sharing, in `yaml` and in names.
    let mut out = Pickler::start();
    out.op(b"}(").str("model").global("ultralytics.nn.tasks", "DetectionModel").op(b")\x81}(");
    out.str("_modules").op(b"}").str("yaml").op(b"]q\x00");
    for _ in 0..40 {
        out.op(b"0h\x00h\x00\x86q\x00");
    }
    out.op(b"ubu.");
    assert!(read(&zipped(&out.bytes)).is_err());
    // Modules that contain themselves.
    let mut out = Pickler::start();
    out.op(b"}(").str("model").global("m", "DetectionModel").op(b")\x81q\x01}(").str("_modules").op(b"}(");
    out.str("a").op(b"h\x01").str("b").op(b"h\x01uubu.");
    refused!(zipped(&out.bytes), CheckpointError::TooManyModules { .. });
    // A module with a large state that contains itself: each visit would look through all of it.
    let mut out = Pickler::start();
    out.op(b"}(").str("model").global("m", "DetectionModel").op(b")\x81q\x01}(").str("_modules").op(b"}(");
    for _ in 0..30_000 {
        out.str("abc").op(b"h\x01");
    }
    out.op(b"u");
    for _ in 0..200_000 {
        out.op(b"NN");
    }
    out.op(b"ubu.");
    refused!(zipped(&out.bytes), CheckpointError::TooManyModules { .. });
    // A pickle longer than any.
    refused!(zipped(&vec![b'N'; 17 << 20]), CheckpointError::EntryTooLarge { .. });
}

#[test]
fn sizes_beyond_the_file_ask_for_no_memory() {
    let huge = vec![1 << 20, 1 << 20, 1 << 20, 1 << 20];
    assert!(load(Checkpoint { first_shape: Some(huge), ..Checkpoint::default() }).is_err());
    // A description that asks for a gigantic layer, and a tensor that claims to be it.
    const WIDE: &str = "nc: 3\nbackbone: [[-1, 1, Conv, [65536, 64, 2]]]\nhead: [[[-1], 1, Detect, [nc]]]\n";
    let (pickle, storages) =
        Checkpoint { first_shape: Some(vec![65_536, 3, 64, 64]), ..Checkpoint::default() }.pickle();
    let mut old = Pickler::default();
    old.str("yaml").yaml(&ghostlight::model::yaml::parse(common::YAML).unwrap());
    let mut new = Pickler::default();
    new.str("yaml").yaml(&ghostlight::model::yaml::parse(WIDE).unwrap());
    let at = pickle.windows(old.bytes.len()).position(|w| w == old.bytes).unwrap();
    let mut bent = pickle;
    bent.splice(at..at + old.bytes.len(), new.bytes);
    let bytes = archive("a", "little", &bent, &storages);
    let fault = refused!(bytes, CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. })));
    assert!(fault.contains("more elements than the file"), "{fault}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is flipped, reading ends without a panic, and soon.
    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6)) {
        let (pickle, storages) = Checkpoint::default().pickle();
        let mut bent = pickle.clone();
        for (at, bit) in &flips {
            let at = at.index(bent.len());
            bent[at] ^= 1 << bit;
        }
        // Inside the archive, where checksums do not stop it, and the archive itself.
        let _ = read(&archive("a", "little", &bent, &storages));
        let mut whole = archive("a", "little", &pickle, &storages);
        for (at, bit) in &flips {
            let at = at.index(whole.len());
            whole[at] ^= 1 << bit;
        }
        let start = Instant::now();
        let _ = read(&whole);
        prop_assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read(&archive("a", "little", &bytes, &[]));
    }
}
