//! From a model description and a source of numbers to a [`Graph`].

mod args;
mod conv;
mod error;
mod ghost;
mod layout;
mod stock;
mod yolo;

use std::collections::BTreeSet;

pub use error::BuildError;

use args::Args;
use stock::Chain;

use super::graph::{Activation, Graph, ModelInfo, Node, NodeId, Op, RoutingKind};
use super::params::{Params, check_finite};
use super::spec::{ModelSpec, Row};
use super::yaml::Value;

/// Input size where a model does not state one.
pub const DEFAULT_INPUT: usize = 640;
/// Most nodes built, so that a hostile description ends soon. YOLOv8x has some 250.
const MAX_NODES: usize = 20_000;

/// What the caller knows better than the files.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildOptions {
    /// Routing kind of every DynamicConv, in place of what the keys suggest.
    pub routing: Option<RoutingKind>,
}

/// Builds the whole detector; tensors are asked for by keys below `model.`.
pub fn build(spec: &ModelSpec, params: &mut dyn Params) -> Result<Graph, BuildError> {
    build_with(spec, params, BuildOptions::default())
}

/// As [`build`], with options.
pub fn build_with(
    spec: &ModelSpec,
    params: &mut dyn Params,
    options: BuildOptions,
) -> Result<Graph, BuildError> {
    let mut builder = Builder::new(params, options, 3);
    builder.default_activation = spec.activation.unwrap_or(Activation::Silu);
    let mut outputs: Vec<NodeId> = Vec::new();
    for (i, row) in spec.rows.iter().enumerate() {
        let layer = format!("model.{i}");
        let inputs = sources(&layer, row, &outputs)?;
        let last = i + 1 == spec.rows.len();
        let node = match (row.block.as_str(), last) {
            ("Detect", true) => builder.detect(&layer, &inputs, spec.nc, spec.reg_max)?,
            ("Detect", false) => return Err(BuildError::NoDetect { found: format!("one at {layer}") }),
            (block, true) if is_known(block) => {
                return Err(BuildError::NoDetect { found: format!("`{block}` at {layer}") });
            }
            _ => builder.scaled_row(spec, &layer, row, &inputs)?,
        };
        outputs.push(node);
    }
    if outputs.is_empty() {
        return Err(BuildError::NoDetect { found: "no rows".to_string() });
    }
    let graph = builder.finish(ModelInfo {
        name: spec.name.clone(),
        classes: spec.class_names(),
        input_size: [DEFAULT_INPUT; 2],
        parameters: 0,
        dialect: String::new(),
        license: String::new(),
    });
    // Large enough that layers of different strides also differ in size.
    let probe = graph.coarsest_stride().saturating_mul(16).min(1 << 16);
    graph.shapes(probe, probe)?;
    Ok(graph)
}

/// Builds one block alone, on an input of `c_in` channels, with tensors below `path`; for tests of blocks.
///
/// `args` are a row's arguments, output channels first, not scaled. The graph's last node is the
/// block's output.
pub fn build_block(
    block: &str,
    args: &[Value],
    c_in: usize,
    path: &str,
    params: &mut dyn Params,
    options: BuildOptions,
) -> Result<Graph, BuildError> {
    let mut builder = Builder::new(params, options, c_in);
    let args = Args { layer: path, block, values: args };
    builder.block(args, 1, &[0])?;
    Ok(builder.finish(ModelInfo { name: block.to_string(), ..ModelInfo::default() }))
}

/// The nodes that feed a row; negative indices count backward, the picture stands before row 0.
fn sources(layer: &str, row: &Row, outputs: &[NodeId]) -> Result<Vec<NodeId>, BuildError> {
    let find = |&from: &i64| {
        let at = if from < 0 { outputs.len() as i64 + from } else { from };
        match usize::try_from(at) {
            Ok(at) if at < outputs.len() => Ok(outputs[at]),
            Err(_) if at == -1 && outputs.is_empty() => Ok(0),
            _ => Err(BuildError::From { layer: layer.to_string(), from }),
        }
    };
    row.from.iter().map(find).collect()
}

/// Blocks that [`Builder::block`] takes.
pub(crate) fn is_known(block: &str) -> bool {
    canonical(block).is_some()
}

/// The closed set of blocks, by every name that model files use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Conv,
    DwConv,
    DynamicConv,
    ConvBnAct,
    GhostConv,
    GhostModule,
    GhostBottleneck,
    C2,
    C2f,
    C2fDynamic,
    C3,
    C3Ghost,
    Bottleneck,
    Sppf,
    Upsample,
    Concat,
}

impl Block {
    /// Whether the repeats of its row are its own, not those of a Sequential around it.
    fn takes_repeats(self) -> bool {
        matches!(self, Block::C2 | Block::C2f | Block::C2fDynamic | Block::C3 | Block::C3Ghost)
    }
}

fn canonical(block: &str) -> Option<Block> {
    Some(match block {
        "Conv" => Block::Conv,
        "DWConv" => Block::DwConv,
        "DynamicConv" | "DynamicConv_Single" => Block::DynamicConv,
        "ConvBnAct" => Block::ConvBnAct,
        "GhostConv" => Block::GhostConv,
        "GhostModule" => Block::GhostModule,
        "GhostBottleneck" => Block::GhostBottleneck,
        "C2" => Block::C2,
        "C2f" => Block::C2f,
        "C2f_DynamicConv" | "C2f_GhostModule_DynamicConv" => Block::C2fDynamic,
        "C3" => Block::C3,
        "C3Ghost" => Block::C3Ghost,
        "Bottleneck" | "Bottleneck_DynamicConv" => Block::Bottleneck,
        "SPPF" => Block::Sppf,
        "nn.Upsample" | "Upsample" => Block::Upsample,
        "Concat" => Block::Concat,
        _ => return None,
    })
}

/// Builder of nodes. Every tensor passes through it, so that it can count them.
pub(crate) struct Builder<'a> {
    nodes: Vec<Node>,
    /// Pixels of the picture per output pixel, for each node.
    strides: Vec<usize>,
    params: &'a mut dyn Params,
    parameters: u64,
    default_activation: Activation,
    routing_override: Option<RoutingKind>,
    /// Whether the DynamicConv being built is of the flat form, whose routing is softmax.
    flat_routing: bool,
    /// Forms of DynamicConv met, and routing kinds, for the dialect text.
    forms: BTreeSet<&'static str>,
    routings: BTreeSet<&'static str>,
}

impl<'a> Builder<'a> {
    fn new(params: &'a mut dyn Params, options: BuildOptions, c_in: usize) -> Self {
        let input = Node { name: "input".to_string(), op: Op::Input, inputs: Vec::new(), channels: c_in };
        Self {
            nodes: vec![input],
            strides: vec![1],
            params,
            parameters: 0,
            default_activation: Activation::Silu,
            routing_override: options.routing,
            flat_routing: false,
            forms: BTreeSet::new(),
            routings: BTreeSet::new(),
        }
    }

    fn finish(self, info: ModelInfo) -> Graph {
        let dialect = self.dialect();
        Graph { nodes: self.nodes, info: ModelInfo { parameters: self.parameters, dialect, ..info } }
    }

    fn dialect(&self) -> String {
        if self.forms.is_empty() {
            return String::new();
        }
        let list = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join("; ");
        let why = if self.routing_override.is_some() { ", as the user chose" } else { "" };
        format!("DynamicConv {}; routing {}{why}", list(&self.forms), list(&self.routings))
    }

    /// A row of the model file: channels and repeats scaled.
    fn scaled_row(
        &mut self,
        spec: &ModelSpec,
        layer: &str,
        row: &Row,
        inputs: &[NodeId],
    ) -> Result<NodeId, BuildError> {
        if self.nodes.len() > MAX_NODES {
            let expected = format!("a model of at most {MAX_NODES} nodes");
            return Err(BuildError::Channels { layer: layer.to_string(), found: self.nodes.len(), expected });
        }
        let mut values = row.args.clone();
        let block = canonical(&row.block);
        let scaled = !matches!(block, Some(Block::Upsample | Block::Concat));
        if let Some(Value::Int(c)) = values.first_mut().filter(|_| scaled) {
            *c = spec.scaled_channels((*c).clamp(0, 65_536) as usize) as i64;
        }
        let repeats = spec.scaled_repeats(row.repeats);
        let base = Args { layer, block: &row.block, values: &values };
        if repeats == 1 || block.is_some_and(Block::takes_repeats) {
            return self.block(base, repeats, inputs);
        }
        // Ultralytics puts other repeated blocks into a Sequential.
        let mut inputs = inputs.to_vec();
        for i in 0..repeats {
            let path = format!("{layer}.{i}");
            inputs = vec![self.block(Args { layer: &path, ..base }, 1, &inputs)?];
        }
        Ok(inputs[0])
    }

    /// One block on its inputs.
    fn block(&mut self, args: Args, repeats: usize, inputs: &[NodeId]) -> Result<NodeId, BuildError> {
        let unknown = || BuildError::UnknownBlock {
            layer: args.layer.to_string(),
            block: args.block.to_string(),
            advice: advice(args.block),
        };
        let block = canonical(args.block).ok_or_else(unknown)?;
        if block == Block::Concat {
            return self.concat_row(args, inputs.to_vec());
        }
        let &[x] = inputs else {
            let expected = "one input".to_string();
            return Err(BuildError::Channels {
                layer: args.layer.to_string(),
                found: inputs.len(),
                expected,
            });
        };
        match block {
            Block::Conv => self.conv_row(args, x),
            Block::DwConv => self.depthwise_row(args, x),
            Block::DynamicConv => self.dynamic_row(args, x),
            Block::ConvBnAct => self.conv_bn_act_row(args, x),
            Block::GhostConv => self.ghost_conv_row(args, x),
            Block::GhostModule => self.ghost_module_row(args, x),
            Block::GhostBottleneck if self.is_stock_ghost(args.layer) => self.stock_ghost_row(args, x),
            Block::GhostBottleneck => self.ghost_bottleneck_row(args, x),
            Block::C2 => self.c2_row(args, repeats, x),
            Block::C2f => self.c2f_row(args, repeats, x, false),
            Block::C2fDynamic => self.c2f_row(args, repeats, x, true),
            Block::C3 => self.c3_row(args, repeats, x, Chain::Bottlenecks),
            Block::C3Ghost => self.c3_row(args, repeats, x, Chain::Ghosts),
            Block::Bottleneck => self.bottleneck_row(args, x),
            Block::Sppf => self.sppf_row(args, x),
            Block::Upsample => self.upsample_row(args, x),
            Block::Concat => self.concat_row(args, vec![x]),
        }
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<NodeId>, channels: usize) -> NodeId {
        let before = inputs.first().map_or(1, |&i| self.strides[i]);
        let stride = match &op {
            Op::Conv(conv) => before.saturating_mul(conv.shape.stride),
            Op::DynamicConv(conv) => before.saturating_mul(conv.shape.stride),
            Op::Upsample { factor } => (before / factor).max(1),
            _ => before,
        };
        self.nodes.push(Node { name: name.to_string(), op, inputs, channels });
        self.strides.push(stride);
        self.nodes.len() - 1
    }

    fn channels(&self, node: NodeId) -> usize {
        self.nodes[node].channels
    }

    fn stride(&self, node: NodeId) -> usize {
        self.strides[node]
    }

    fn has(&self, key: &str) -> bool {
        self.params.shape(key).is_some()
    }

    /// Whether a convolution of any form lies at `path`.
    fn has_any(&self, path: &str) -> bool {
        self.has(&format!("{path}.conv.weight")) || self.is_dynamic(path)
    }

    /// A trained tensor, counted.
    fn parameter(&mut self, key: &str, shape: &[usize]) -> Result<Vec<f32>, BuildError> {
        let values = self.params.tensor(key, shape)?;
        check_finite(key, &values)?;
        self.parameters += shape.iter().map(|&n| n as u64).product::<u64>();
        Ok(values)
    }
}

/// Which family an unknown block belongs to, and what to use.
pub(crate) fn advice(block: &str) -> &'static str {
    match block {
        "BottleneckCSP" | "Focus" | "SPP" | "C3TR" | "C3x" => {
            "a YOLOv5 block; train a YOLOv8 detector and convert that"
        }
        "C3k2" | "C2PSA" | "C3k" | "A2C2f" => {
            "a YOLO11 or later block; train a YOLOv8 detector and convert that"
        }
        "C2fCIB" | "SCDown" | "PSA" | "v10Detect" => {
            "a YOLOv10 block; train a YOLOv8 detector and convert that"
        }
        "RepNCSPELAN4" | "ELAN1" | "ADown" | "AConv" | "SPPELAN" => {
            "a YOLOv9 block; train a YOLOv8 detector and convert that"
        }
        "Classify" => "a classifier's head; only detectors can be converted",
        "Segment" | "Pose" | "OBB" | "WorldDetect" | "RTDETRDecoder" | "ImagePoolingAttn" => {
            "the head of another task; only detectors (Detect) can be converted"
        }
        _ => "not a block that this version knows; README lists those that are",
    }
}
