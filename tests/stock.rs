//! Ultralytics' other blocks, activations and state dicts, from description to int8.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::models::{self, fill, observed_ranges, parts, picture};
use common::{Checkpoint, Recorder};
use ghostlight::detector::{Detector, Fit, ReferenceDetector};
use ghostlight::engine::Engine;
use ghostlight::kernels::detect;
use ghostlight::model::blocks::{BuildError, BuildOptions, build};
use ghostlight::model::checkpoint::{CheckpointError, read_state};
use ghostlight::model::graph::{Activation, Graph, Op};
use ghostlight::model::params::{Params, ParamsError, Seeded, Shapes};
use ghostlight::model::spec::{ModelSpec, SpecError};
use ghostlight::quant::report::Noise;
use ghostlight::quant::{QuantError, forced_float, quantise};
use ghostlight::reference::{Reference, to_unit};
use ghostlight::vision::{NmsOptions, Pixels, Size};
use ghostlight::weights::Model;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Three levels of ghost convolutions, C3, C2 and a depthwise convolution.
const GHOSTS: &str = "nc: 2
backbone:
- [-1, 1, Conv, [16, 6, 2, 2]]
- [-1, 1, GhostConv, [24, 3, 2]]
- [-1, 2, C3Ghost, [24, True]]
- [-1, 1, GhostConv, [32, 3, 2]]
- [-1, 1, C3, [32]]
- [-1, 1, DWConv, [32, 3, 2]]
- [-1, 2, C2, [32]]
head:
- [-1, 1, nn.Upsample, [None, 2, nearest]]
- [[-1, 4], 1, Concat, [1]]
- [-1, 1, C3, [32, False]]
- [[2, 9, 6], 1, Detect, [nc]]
";
const SIZE: [usize; 2] = [96, 64];

fn with_activation(activation: &str) -> Graph {
    models::graph(&format!("activation: {activation}\n{GHOSTS}"))
}

/// SQNR of all heads' outputs on one of the pictures that gave the ranges.
fn sqnr(graph: &Graph) -> f32 {
    let bytes = parts(graph, &observed_ranges(graph, SIZE)).to_bytes().unwrap();
    let mut engine = Engine::new(Arc::new(Model::from_bytes(&bytes).unwrap()), detect::best(), 1).unwrap();
    engine.resize(SIZE[0], SIZE[1]).unwrap();
    let rgb = picture(3, SIZE);
    fill(&mut engine, &rgb);
    engine.run().unwrap();
    let wanted = Reference::new(graph).unwrap().run(&to_unit(&rgb), SIZE[0], SIZE[1]).unwrap();
    let mut noise = Noise::default();
    for (index, level) in wanted.levels.iter().enumerate() {
        let head = engine.head(index);
        noise.add(&level.boxes, head.boxes);
        noise.add(&level.classes, head.classes);
    }
    noise.sqnr_db()
}

#[test]
fn int8_follows_each_activation_that_it_takes() {
    for (activation, least) in
        [("nn.SiLU()", 22.0), ("nn.Hardswish()", 22.0), ("nn.ReLU()", 22.0), ("nn.Identity()", 22.0)]
    {
        let found = sqnr(&with_activation(activation));
        eprintln!("{activation}: {found:.1} dB");
        assert!(found >= least, "{activation}: {found} dB");
    }
    // Bottlenecks of shortcuts add after it; without them it fits.
    let plain = GHOSTS.replace("C3, [32]", "C3, [32, False]").replace("C2, [32]", "C2, [32, False]");
    let relu6 = models::graph(&format!("activation: nn.ReLU6()\n{plain}"));
    let found = sqnr(&relu6);
    eprintln!("ReLU6: {found:.1} dB");
    assert!(found >= 22.0, "ReLU6: {found} dB");
}

#[test]
fn relu6_clips_at_six() {
    const BRIGHT: &str = "nc: 2\nactivation: nn.ReLU6()\nbackbone:\n- [-1, 1, Conv, [16, 3, 2]]\nhead:\n- [[-1], 1, Detect, [nc]]\n";
    let mut graph = models::graph(BRIGHT);
    let Op::Conv(conv) = &mut graph.nodes[1].op else { panic!("{:?}", graph.nodes[1]) };
    conv.weight.iter_mut().for_each(|w| *w *= 40.0);
    let rgb = to_unit(&picture(3, SIZE));
    let mut clipped = 0;
    let observe = |node, values: &[f32], _| {
        clipped += values.iter().filter(|&&v| node == 1 && v == 6.0).count();
    };
    Reference::new(&graph).unwrap().observe(&rgb, SIZE[0], SIZE[1], observe).unwrap();
    assert!(clipped > 1000, "{clipped}");
    let found = sqnr(&graph);
    eprintln!("clipped ReLU6: {found:.1} dB");
    assert!(found >= 22.0, "{found} dB");
}

#[test]
fn what_int8_cannot_run_stays_f32() {
    let count = |graph: &Graph| forced_float(graph).iter().filter(|&&forced| forced).count();
    assert_eq!(count(&with_activation("nn.SiLU()")), 0);
    for activation in ["nn.LeakyReLU(0.1)", "nn.ReLU6()"] {
        let graph = with_activation(activation);
        assert!(count(&graph) > 1, "{activation}");
        let found = sqnr(&graph);
        eprintln!("{activation}: {found:.1} dB, {} nodes in f32", count(&graph));
        assert!(found >= 22.0, "{activation}: {found} dB");
    }
}

#[test]
fn what_the_engine_cannot_run_is_refused_by_layer() {
    let mut graph = with_activation("nn.SiLU()");
    let head = graph.nodes.len() - 1;
    let channels = graph.nodes[graph.nodes[head].inputs[1]].channels;
    graph.nodes[head - 1].op = Op::Slice { start: 0 };
    graph.nodes[head - 1].name = "sliced".into();
    graph.nodes[head].inputs[1] = head - 1;
    graph.nodes[head - 1].channels = channels;
    let fault = quantise(&graph, &models::fixed_ranges(&graph), &[]).unwrap_err();
    assert!(matches!(&fault, QuantError::Unsupported { node, .. } if node == "sliced"), "{fault}");
}

#[test]
fn activations_of_descriptions_are_read() {
    let activation = |text: &str| {
        let yaml = format!("activation: {text}\n{GHOSTS}");
        ModelSpec::parse(&yaml, "t").map(|spec| spec.activation.unwrap())
    };
    for (text, expected) in [
        ("nn.SiLU(inplace=True)", Activation::Silu),
        ("torch.nn.ReLU6()", Activation::Relu6),
        ("nn.Hardswish()", Activation::Hardswish),
        ("nn.LeakyReLU()", Activation::LeakyRelu { slope: 0.01 }),
        ("nn.LeakyReLU(0.1)", Activation::LeakyRelu { slope: 0.1 }),
        ("nn.LeakyReLU(negative_slope=0.2)", Activation::LeakyRelu { slope: 0.2 }),
    ] {
        assert_eq!(activation(text), Ok(expected), "{text}");
    }
    for text in ["nn.GELU()", "nn.LeakyReLU(x)", "nn.LeakyReLU(1e99)"] {
        assert!(matches!(activation(text), Err(SpecError::Activation { .. })), "{text}");
    }
}

fn built(rows: &str) -> Result<Graph, BuildError> {
    let text =
        format!("nc: 2\nbackbone: [[-1, 1, Conv, [8, 3, 2]], {rows}]\nhead: [[[-1], 1, Detect, [nc]]]\n");
    build(&ModelSpec::parse(&text, "t").unwrap(), &mut Shapes)
}

#[test]
fn arguments_that_cannot_be_are_refused() {
    assert!(built("[-1, 2, C2, [16]]").is_ok());
    assert!(matches!(
        built("[-1, 1, Bottleneck, [8, True, 1, 3]]"),
        Err(BuildError::Argument { index: 3, .. })
    ));
    // Five inner channels have halves of two: one too few for the sum.
    assert!(matches!(built("[-1, 1, C3Ghost, [8, True, 1, 0.63]]"), Err(BuildError::Channels { .. })));
    // One channel has no half.
    assert!(matches!(built("[-1, 1, GhostConv, [0]]"), Err(BuildError::Argument { .. })));
}

#[test]
fn a_module_with_two_dynamic_convolutions_is_refused() {
    let mut params = ghostlight::model::params::StateDict::default();
    for key in ["block.a.routing.weight", "block.b.routing.weight"] {
        params.tensors.insert(key.into(), (vec![1], vec![0.0]));
    }
    let args = [ghostlight::model::yaml::Value::Int(8)];
    let options = BuildOptions::default();
    let fault =
        ghostlight::model::blocks::build_block("DynamicConv", &args, 4, "block", &mut params, options);
    assert!(matches!(fault, Err(BuildError::Holds { found: 2, .. })), "{fault:?}");
}

#[test]
fn heads_with_anchors_are_refused() {
    let mut params = ghostlight::model::params::StateDict::default();
    params.tensors.insert("model.0.m.0.weight".into(), (vec![1], vec![0.0]));
    let spec = ModelSpec::parse("nc: 2\nbackbone: []\nhead: [[[-1], 1, Detect, [nc]]]\n", "t").unwrap();
    let fault = build(&spec, &mut params).unwrap_err();
    assert!(matches!(fault, BuildError::Anchors { .. }) && fault.to_string().contains("model.0"), "{fault}");
}

/// The test checkpoint's tensors as a state dict, `prefix` before each key.
fn state(prefix: &str, dtype: Dtype) -> Vec<u8> {
    state_of(common::YAML, prefix, dtype)
}

/// The same for a model of this description.
fn state_of(yaml: &str, prefix: &str, dtype: Dtype) -> Vec<u8> {
    let mut recorder = Recorder::new(&[]);
    build(&ModelSpec::parse(yaml, "yolov8").unwrap(), &mut recorder).unwrap();
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::F64 => values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    };
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = recorder
        .tensors
        .iter()
        .map(|(key, shape, values)| {
            let key = if prefix == "-" { key.replacen("model.", "", 1) } else { format!("{prefix}{key}") };
            (key, (shape.clone(), bytes(values)))
        })
        .collect();
    let views = tensors.iter().map(|(k, (shape, b))| (k, TensorView::new(dtype, shape.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn read(bytes: &[u8], yaml: &str) -> Result<Graph, CheckpointError> {
    read_state(bytes, yaml, "yolov8.yaml", BuildOptions::default())
}

#[test]
fn a_state_dict_with_its_yaml_is_read() {
    let expected = build(&Checkpoint::default().spec(), &mut Recorder::new(&[])).unwrap();
    for (prefix, dtype) in [
        ("", Dtype::F32),
        ("", Dtype::F64),
        ("model.", Dtype::F32),
        ("module.ema.", Dtype::F32),
        ("-", Dtype::F32),
    ] {
        let graph = read(&state(prefix, dtype), common::YAML).unwrap();
        assert_eq!(graph.nodes, expected.nodes, "{prefix} {dtype:?}");
        assert_eq!(graph.info.classes, ["class0", "class1", "class2"]);
        assert_eq!(graph.info.input_size, [640, 640]);
    }
    let named = format!("names: [cat, dog, cow]\n{}", common::YAML);
    assert_eq!(read(&state("", Dtype::F32), &named).unwrap().info.classes, ["cat", "dog", "cow"]);
}

#[test]
fn the_command_reads_a_state_dict_with_its_yaml() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let yaml = common::YAML.replace("reg_max: 2\n", "");
    std::fs::write(path("state.safetensors"), state_of(&yaml, "", Dtype::F32)).unwrap();
    std::fs::write(path("yolov8n.yaml"), yaml).unwrap();
    std::fs::create_dir(path("photos")).unwrap();
    models::save_picture(&path("photos/1.png"), 1, [64, 64]);
    let convert = |yaml: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ghostlight"));
        command.current_dir(folder.path()).args(["convert", "state.safetensors"]).args(yaml);
        let words =
            ["-o", "out.safetensors", "--calibrate", "photos", "--imgsz", "64", "--target-drop", "off"];
        command.args(words).output().unwrap()
    };
    let done = convert(&["--yaml", "yolov8n.yaml"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let model = Model::from_bytes(&std::fs::read(path("out.safetensors")).unwrap()).unwrap();
    assert_eq!(model.info.classes, ["class0", "class1", "class2"]);
    // What int8 and its boxes cannot take is said with the layer.
    std::fs::write(path("state.safetensors"), state("", Dtype::F32)).unwrap();
    std::fs::write(path("few.yaml"), common::YAML).unwrap();
    let text = |output: std::process::Output| String::from_utf8(output.stderr).unwrap();
    let few = text(convert(&["--yaml", "few.yaml"]));
    assert!(few.contains("model.2") && few.contains("reg_max 2"), "{few}");
    // Without it, and with one that is not there, each says what it wants.
    assert!(text(convert(&[])).contains("state.safetensors"));
    assert!(text(convert(&["--yaml", "absent.yaml"])).contains("absent.yaml"));
}

/// A head whose coarsest cells are 64 pixels, as P6 models have.
const P6: &str = "nc: 2
backbone:
- [-1, 1, Conv, [8, 3, 2]]
- [-1, 1, Conv, [8, 3, 2]]
- [-1, 1, Conv, [8, 3, 2]]
- [-1, 1, Conv, [16, 3, 2]]
- [-1, 1, Conv, [16, 3, 2]]
- [-1, 1, Conv, [16, 3, 2]]
head:
- [[3, 5], 1, Detect, [nc]]
";

#[test]
fn a_coarser_level_wants_a_coarser_rectangle() {
    let graph = models::graph(P6);
    let size = Size { width: 256, height: 256 };
    let model = parts(&graph, &observed_ranges(&graph, [256, 256])).to_bytes().unwrap();
    let engine = Engine::new(Arc::new(Model::from_bytes(&model).unwrap()), detect::best(), 1).unwrap();
    let mut detector = Detector::new(engine, Fit::Rectangle(size));
    let bytes = picture(1, [90, 250]);
    let pixels = Pixels::rgb(Size { width: 250, height: 90 }, &bytes);
    detector.detect(pixels, &NmsOptions::default()).unwrap();
    // 96 would be a multiple of 32 and cut the coarsest level's cell in two.
    assert_eq!(detector.engine().size(), (128, 256));
    let mut reference = ReferenceDetector::new(&graph, Fit::Rectangle(size)).unwrap();
    reference.detect(pixels, &NmsOptions::default()).unwrap();
}

#[test]
fn state_dicts_that_do_not_fit_are_refused() {
    let whole = state("", Dtype::F32);
    let fault = |bytes: &[u8], yaml: &str| read(bytes, yaml).unwrap_err();
    for bytes in [&b""[..], b"PK\x03\x04", &whole[..whole.len() - 1]] {
        assert!(matches!(fault(bytes, common::YAML), CheckpointError::Safetensors { .. }));
    }
    assert!(matches!(fault(&whole, "nc: 0"), CheckpointError::Spec(_)));
    let named = format!("names: [one]\n{}", common::YAML);
    assert!(matches!(fault(&whole, &named), CheckpointError::Names { found: 1, expected: 3 }));
    let other = common::YAML.replace("nc: 3", "nc: 4");
    let shape = fault(&whole, &other);
    assert!(
        matches!(shape, CheckpointError::Build(BuildError::Params(ParamsError::Shape { .. }))),
        "{shape}"
    );
    let longer = common::YAML.replace("head:", "- [-1, 1, Conv, [8]]\nhead:");
    assert!(matches!(
        fault(&whole, &longer),
        CheckpointError::Build(BuildError::Params(ParamsError::Missing { .. }))
    ));
    let whole_numbers = state("", Dtype::I32);
    assert!(matches!(
        fault(&whole_numbers, common::YAML),
        CheckpointError::Build(BuildError::Params(ParamsError::Unreadable { .. }))
    ));
}

/// Seeded weights of a head whose class branch is this wide.
struct Wide([usize; 4]);

impl Params for Wide {
    fn tensor(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, ParamsError> {
        Seeded(1).tensor(key, shape)
    }

    fn shape(&self, key: &str) -> Option<&[usize]> {
        key.ends_with(".cv3.0.2.weight").then_some(&self.0)
    }
}

/// A head that was trained for more classes, and then for these, keeps its width.
#[test]
fn a_class_branch_is_as_wide_as_the_checkpoint_says() {
    let width = |params: &mut dyn Params| {
        let graph = build(&ModelSpec::parse(models::TINY, "tiny").unwrap(), params).unwrap();
        let head = graph.nodes.last().unwrap();
        let last = &graph.nodes[head.inputs[1]];
        graph.nodes[last.inputs[0]].channels
    };
    let usual = width(&mut Seeded(1));
    assert_eq!(width(&mut Wide([2, usual + 24, 1, 1])), usual + 24);
    // What no head has is left to the check of the tensor's shape.
    assert_eq!(width(&mut Wide([2, 1 << 40, 1, 1])), usual);
}
