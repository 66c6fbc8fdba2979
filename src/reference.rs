//! The graph on candle, in f32 on the CPU: what the int8 engine is compared with and calibrated by.
//!
//! Maps are NHWC, row-major: `data[(y * w + x) * c + channel]`, as in the engine. Matrix products are
//! candle's, or [`Products::Exact`] ones; the copies around them (im2col, depthwise, pooling) are written
//! out, because candle's own convolution works on NCHW and loops over groups.
//! Fused graphs ([`crate::model::fuse`]) and unfused ones give the same numbers.

mod conv;
mod device;
mod ops;

use thiserror::Error;

use crate::model::graph::{Graph, Node, NodeId, Op};
use crate::model::shapes::{Shape, ShapeError};

use conv::Prepared;

/// Why the reference does not run.
#[derive(Debug, Error)]
pub enum ReferenceError {
    /// The input size does not fit the graph.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The input has another length than its size says.
    #[error("the picture has {found} values, {expected} belong to this size")]
    Input {
        /// Values given.
        found: usize,
        /// Values that `h * w * channels` makes.
        expected: usize,
    },
    /// A graph built from shapes alone.
    #[error("`{node}` has no weights; load a checkpoint instead of a description")]
    NoWeights {
        /// The node.
        node: String,
    },
    /// A graph that does not end in a detection node.
    #[error("the graph ends in `{node}`, no detection layer; use `observe`")]
    NoDetect {
        /// The last node.
        node: String,
    },
    /// candle refuses.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
}

/// Who multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    /// candle: the fastest that it finds for this CPU, sums in an order of its own.
    Candle,
    /// [`crate::kernels::f32`]: the same bits on every CPU with any number of threads, for calibration.
    Exact,
}

/// One level's raw outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Pixels of the input per cell.
    pub stride: usize,
    /// `[height * width, 4 * reg_max]`: logits of left, top, right, bottom distributions.
    pub boxes: Vec<f32>,
    /// `[height * width, classes]`: logits.
    pub classes: Vec<f32>,
}

/// Mixing weights of one dynamic convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The convolution's node.
    pub node: NodeId,
    /// One weight per expert.
    pub weights: Vec<f32>,
}

/// What a run gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// Levels from the finest on; empty for a graph without a detection node.
    pub levels: Vec<Level>,
    /// One entry per dynamic convolution, in the graph's order.
    pub routing: Vec<Routing>,
}

/// A map between nodes.
pub(crate) struct Map {
    pub shape: Shape,
    pub data: Vec<f32>,
}

/// The graph with its weights in the layout of matrix products.
pub struct Reference {
    nodes: Vec<Prepared>,
    graph: Graph,
    /// The last node that reads each node.
    last_reader: Vec<NodeId>,
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reference").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Reference {
    /// Prepares a graph with weights, for candle.
    pub fn new(graph: &Graph) -> Result<Self, ReferenceError> {
        Self::with(graph, Products::Candle)
    }

    /// Prepares a graph with weights.
    pub fn with(graph: &Graph, products: Products) -> Result<Self, ReferenceError> {
        let prepare = |node| conv::prepare(node, products);
        let nodes = graph.nodes.iter().map(prepare).collect::<Result<_, _>>()?;
        let mut last_reader: Vec<NodeId> = (0..graph.nodes.len()).collect();
        for (id, node) in graph.nodes.iter().enumerate() {
            for &input in &node.inputs {
                last_reader[input] = id;
            }
        }
        // The weights live in `nodes` now; the graph stays for its structure.
        let structure = graph.nodes.iter().map(without_weights).collect();
        let graph = Graph { nodes: structure, info: graph.info.clone() };
        Ok(Self { nodes, graph, last_reader })
    }

    /// Raw outputs for one picture: `input` is `[h, w, 3]`, RGB in [0, 1].
    pub fn run(&self, input: &[f32], h: usize, w: usize) -> Result<Outputs, ReferenceError> {
        if self.graph.detect().is_none() {
            let node = self.graph.nodes.last().map(|n| n.name.clone()).unwrap_or_default();
            return Err(ReferenceError::NoDetect { node });
        }
        self.observe(input, h, w, |_, _, _| {})
    }

    /// As [`Reference::run`], from `[h, w, 3]` bytes (a letterboxed picture, RGB).
    pub fn run_u8(&self, input: &[u8], h: usize, w: usize) -> Result<Outputs, ReferenceError> {
        self.run(&to_unit(input), h, w)
    }

    /// As [`Reference::run`], and shows every node's output to `observer`, in the graph's order, the
    /// picture included and the detection node left out: node, NHWC values, (height, width, channels).
    pub fn observe(
        &self,
        input: &[f32],
        h: usize,
        w: usize,
        mut observer: impl FnMut(NodeId, &[f32], Shape),
    ) -> Result<Outputs, ReferenceError> {
        let shapes = self.graph.shapes(h, w)?;
        let expected = shapes.first().map_or(0, |&(h, w, c)| h * w * c);
        if input.len() != expected {
            return Err(ReferenceError::Input { found: input.len(), expected });
        }
        let mut outputs = Outputs::default();
        let mut maps: Vec<Option<Map>> = Vec::with_capacity(shapes.len());
        for (id, node) in self.graph.nodes.iter().enumerate() {
            let map = match &node.op {
                Op::Input => Some(input.to_vec()),
                Op::Detect(_) => None,
                _ => Some(self.compute(id, &maps, shapes[id], &mut outputs)?),
            };
            let map = map.map(|data| Map { shape: shapes[id], data });
            if let Some(map) = &map {
                observer(id, &map.data, map.shape);
            }
            maps.push(map);
            if matches!(node.op, Op::Detect(_)) {
                outputs.levels = self.levels(node, &mut maps);
            }
            for &input in &node.inputs {
                if self.last_reader[input] == id {
                    maps[input] = None;
                }
            }
        }
        Ok(outputs)
    }

    fn compute(
        &self,
        id: NodeId,
        maps: &[Option<Map>],
        shape: Shape,
        outputs: &mut Outputs,
    ) -> Result<Vec<f32>, ReferenceError> {
        let node = &self.graph.nodes[id];
        // A map is dropped only after its last reader, so every input is there.
        let inputs: Vec<&Map> = node.inputs.iter().filter_map(|&i| maps[i].as_ref()).collect();
        let residual = inputs.get(1).map(|map| map.data.as_slice());
        Ok(match (&node.op, &self.nodes[id]) {
            (_, Prepared::Conv(conv)) => conv.run(inputs[0], shape, residual)?,
            (_, Prepared::Dynamic(dynamic)) => {
                let (data, weights) = dynamic.run(inputs[0], shape, residual)?;
                outputs.routing.push(Routing { node: id, weights });
                data
            }
            (Op::SqueezeExcite(_), Prepared::SqueezeExcite(se)) => ops::squeeze_excite(inputs[0], se),
            (Op::Add, _) => ops::add(inputs[0], inputs[1]),
            (Op::Concat, _) => ops::concat(&inputs, shape),
            (Op::Slice { start }, _) => ops::slice(inputs[0], *start, shape.2),
            (Op::MaxPool { kernel }, _) => ops::max_pool(inputs[0], *kernel),
            (Op::Upsample { factor }, _) => ops::upsample(inputs[0], *factor),
            _ => Vec::new(),
        })
    }

    fn levels(&self, node: &Node, maps: &mut [Option<Map>]) -> Vec<Level> {
        let Op::Detect(detect) = &node.op else { return Vec::new() };
        let pairs = node.inputs.chunks_exact(2).zip(&detect.strides);
        let level = |(pair, &stride): (&[NodeId], &usize)| {
            let (boxes, classes) = (maps[pair[0]].take()?, maps[pair[1]].take()?);
            let (height, width, _) = boxes.shape;
            Some(Level { height, width, stride, boxes: boxes.data, classes: classes.data })
        };
        pairs.filter_map(level).collect()
    }
}

/// Bytes as numbers in [0, 1].
pub fn to_unit(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|&b| f32::from(b) / 255.0).collect()
}

fn without_weights(node: &Node) -> Node {
    let op = match &node.op {
        Op::Conv(conv) => {
            Op::Conv(crate::model::graph::Conv { weight: Vec::new(), bias: Vec::new(), ..*conv })
        }
        Op::DynamicConv(dynamic) => Op::DynamicConv(crate::model::graph::DynamicConv {
            routing_weight: Vec::new(),
            routing_bias: Vec::new(),
            weight: Vec::new(),
            expert_bias: Vec::new(),
            bias: Vec::new(),
            ..*dynamic
        }),
        other => other.clone(),
    };
    Node { name: node.name.clone(), op, inputs: node.inputs.clone(), channels: node.channels }
}
