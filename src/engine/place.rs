//! Where every tensor lies in the arena, for one input size.
//!
//! Slices are views of their input. A concat is a view too where it can be: its inputs are written
//! straight into their channel ranges of one buffer, and only what cannot be (an input that is already
//! part of another buffer, channel counts that are no multiple of 8, f32) is copied. Buffers whose
//! lifetimes do not meet share memory.

use super::EngineError;
use crate::kernels::View;
use crate::model::graph::{ConvShape, NodeId};
use crate::weights::graph::{QGraph, QNode, QOp};

/// Bytes of an input pixel: R, G, B and one that weights ignore.
pub const INPUT_STRIDE: usize = 4;
/// Gap behind each buffer, so that a read rounded up to a cell stays out of the next one.
const GAP: usize = 64;
/// Channels of the widest weight cell ([`crate::kernels::Layout`]).
const WIDEST_CELL: usize = 8;
/// Most pixels of one layer: a channel's sum over them still fits 32 bits.
const MAX_PIXELS: usize = 1 << 24;
/// Most bytes of an arena: four times what the largest YOLOv8 needs at 2048x2048.
const MAX_ARENA: usize = 1 << 30;
/// The same where no memory is reused.
const MAX_ARENA_KEEPING_ALL: usize = 16 << 30;

/// Views of all nodes' outputs, and the size of the arena that holds them.
#[derive(Debug)]
pub struct Placement {
    /// By node. [`QOp::Detect`]'s is empty.
    pub views: Vec<View>,
    /// Bytes.
    pub arena_len: usize,
    /// `(concat, which input)` that must be copied into place.
    pub copies: Vec<(NodeId, usize)>,
}

impl Placement {
    /// The inputs of a concat that must be copied into place: where each lies, and where it is to be.
    pub fn copies_into<'a>(&'a self, id: NodeId, node: &'a QNode) -> impl Iterator<Item = (View, View)> + 'a {
        let whole = self.views[id];
        let copies = self.copies.iter().filter(move |(concat, _)| *concat == id);
        copies.map(move |&(_, which)| {
            let from = self.views[node.inputs[which]];
            let before: usize = node.inputs[..which].iter().map(|&i| self.views[i].channels).sum();
            let offset = whole.offset + before * whole.element;
            (from, View { offset, channels: from.channels, ..whole })
        })
    }
}

/// The buffer that holds a node, and the node's first channel in it.
type Place = (NodeId, usize);
/// A concat, and which of its inputs must be copied into place.
type CopyIn = (NodeId, usize);

/// Where a node's output is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// In a buffer of its own.
    Root,
    /// In the buffer of another node, from a channel on.
    Inside(NodeId, usize),
}

/// Places all tensors for an input of `height x width` pixels; nodes run in the graph's order.
///
/// # Errors
/// As [`place_for`].
pub fn place(graph: &QGraph, height: usize, width: usize, keep_all: bool) -> Result<Placement, EngineError> {
    let order: Vec<NodeId> = (0..graph.nodes.len()).collect();
    place_for(graph, &order, (height, width), keep_all)
}

/// As [`place`], for nodes that run in `order`, which has each once, after its inputs.
///
/// With `keep_all`, no memory is reused, so that every tensor can be read after a run.
///
/// # Errors
/// [`EngineError::Size`] where the input's size does not fit the graph, [`EngineError::Memory`] where it
/// asks for more than any detector does.
pub fn place_for(
    graph: &QGraph,
    order: &[NodeId],
    (height, width): (usize, usize),
    keep_all: bool,
) -> Result<Placement, EngineError> {
    let sizes = sizes(graph, height, width)?;
    let floats = graph.floats();
    let (roots, copies) = storage_without_conflict(graph, &floats);
    let lifetimes = lifetimes(graph, order, &roots, keep_all);

    let mut buffers = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if roots[id].0 == id && !matches!(node.op, QOp::Detect(_)) {
            // At most 2^24 pixels of 2^15 bytes: no overflow.
            let len = sizes[id].0 * sizes[id].1 * pixel_stride(node, floats[id]);
            buffers.push(Buffer {
                id,
                len: (len + GAP).next_multiple_of(64),
                life: lifetimes[id],
                offset: 0,
            });
        }
    }
    let arena_len = pack(&mut buffers);
    let limit = if keep_all { MAX_ARENA_KEEPING_ALL } else { MAX_ARENA };
    if arena_len > limit {
        return Err(EngineError::Memory { height, width, needed: arena_len, limit });
    }

    let mut offsets = vec![0; graph.nodes.len()];
    buffers.iter().for_each(|b| offsets[b.id] = b.offset);
    let views = (0..graph.nodes.len())
        .map(|id| {
            let (root, channel) = roots[id];
            let element = if floats[id] { 4 } else { 1 };
            View {
                offset: offsets[root] + channel * element,
                height: sizes[id].0,
                width: sizes[id].1,
                channels: graph.nodes[id].channels,
                element,
                stride: pixel_stride(&graph.nodes[root], floats[root]),
            }
        })
        .collect();
    Ok(Placement { views, arena_len, copies })
}

fn pixel_stride(node: &QNode, float: bool) -> usize {
    match node.op {
        QOp::Input => INPUT_STRIDE,
        _ if float => 4 * node.channels,
        _ => node.channels.next_multiple_of(4),
    }
}

/// Height and width of every node's output.
fn sizes(graph: &QGraph, height: usize, width: usize) -> Result<Vec<(usize, usize)>, EngineError> {
    let fits =
        |(h, w): (usize, usize)| h > 0 && w > 0 && h <= MAX_PIXELS && w <= MAX_PIXELS && h * w <= MAX_PIXELS;
    let mut sizes: Vec<(usize, usize)> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let misfit = || EngineError::Size { height, width, node: node.name.clone() };
        let first = node.inputs.first().map(|&i| sizes[i]);
        let conv = |shape: &ConvShape| {
            let (h, w) = first.ok_or_else(misfit)?;
            let out = (shape.place(h).1, shape.place(w).1);
            let residual_fits = node.inputs.get(1).is_none_or(|&r| sizes[r] == out);
            if residual_fits { Ok(out) } else { Err(misfit()) }
        };
        let size = match &node.op {
            QOp::Input => (height, width),
            QOp::Conv { shape, .. } | QOp::DynamicConv { shape, .. } | QOp::FloatConv { shape, .. } => {
                conv(shape)?
            }
            QOp::Upsample { factor } => first.map(|(h, w)| (h * factor, w * factor)).ok_or_else(misfit)?,
            QOp::Add | QOp::Concat => {
                let (h, w) = first.ok_or_else(misfit)?;
                if node.inputs.iter().any(|&i| sizes[i] != (h, w)) {
                    return Err(misfit());
                }
                (h, w)
            }
            QOp::Slice { .. }
            | QOp::MaxPool { .. }
            | QOp::SqueezeExcite { .. }
            | QOp::Dequantise
            | QOp::Quantise => first.ok_or_else(misfit)?,
            QOp::Detect(detect) => {
                for (level, stride) in detect.strides.iter().enumerate() {
                    let wanted = (height.div_ceil(*stride), width.div_ceil(*stride));
                    if node.inputs[2 * level..2 * level + 2].iter().any(|&i| sizes[i] != wanted) {
                        return Err(misfit());
                    }
                }
                (0, 0)
            }
        };
        if !fits(size) && !matches!(node.op, QOp::Detect(_)) {
            return Err(misfit());
        }
        sizes.push(size);
    }
    Ok(sizes)
}

/// Root and first channel of every node, and the copies that concats need.
///
/// Convolutions read their input's channels rounded up to a cell. Where that of a slice would reach into
/// the convolution's own output in the same buffer, the output gets a buffer of its own.
fn storage_without_conflict(graph: &QGraph, floats: &[bool]) -> (Vec<Place>, Vec<CopyIn>) {
    let mut fixed = vec![false; graph.nodes.len()];
    loop {
        let (storage, copies) = assign_storage(graph, floats, &fixed);
        let roots: Vec<Place> = (0..graph.nodes.len()).map(|n| resolve(&storage, n)).collect();
        let mut sound = true;
        for (id, node) in graph.nodes.iter().enumerate() {
            if node.op.conv_shape().is_none() || fixed[id] {
                continue;
            }
            let ((root, first), (from, start)) = (roots[id], roots[node.inputs[0]]);
            let end = start + graph.nodes[node.inputs[0]].channels.next_multiple_of(WIDEST_CELL);
            if root == from && start < first + node.channels && first < end {
                fixed[id] = true;
                sound = false;
            }
        }
        if sound {
            return (roots, copies);
        }
    }
}

fn assign_storage(graph: &QGraph, floats: &[bool], fixed: &[bool]) -> (Vec<Storage>, Vec<CopyIn>) {
    let mut storage: Vec<Storage> = graph
        .nodes
        .iter()
        .map(|node| match node.op {
            QOp::Slice { start } => Storage::Inside(node.inputs[0], start),
            _ => Storage::Root,
        })
        .collect();
    let mut copies = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.op, QOp::Concat) {
            continue;
        }
        let (mut index, mut channel) = (0, 0usize);
        while index < node.inputs.len() {
            let (tenant, count) = whole_input(graph, &node.inputs[index..]);
            let channels = graph.nodes[tenant].channels;
            let movable = storage[tenant] == Storage::Root
                && !fixed[tenant]
                && !floats[id]
                && !matches!(graph.nodes[tenant].op, QOp::Input)
                && channels.is_multiple_of(8)
                && channel.is_multiple_of(8)
                && node.channels.is_multiple_of(8);
            if movable {
                storage[tenant] = Storage::Inside(id, channel);
            } else {
                copies.extend((index..index + count).map(|i| (id, i)));
            }
            channel += channels;
            index += count;
        }
    }
    (storage, copies)
}

/// The node that the first inputs of a concat make up, and how many they are: slices that follow one
/// another and cover their common input stand for that input.
fn whole_input(graph: &QGraph, inputs: &[NodeId]) -> (NodeId, usize) {
    let first = &graph.nodes[inputs[0]];
    let QOp::Slice { start: 0 } = first.op else { return (inputs[0], 1) };
    let parent = first.inputs[0];
    let mut covered = 0;
    for (count, &input) in inputs.iter().enumerate() {
        if covered == graph.nodes[parent].channels {
            return (parent, count);
        }
        match graph.nodes[input].op {
            QOp::Slice { start } if start == covered && graph.nodes[input].inputs[0] == parent => {
                covered += graph.nodes[input].channels;
            }
            _ => return (inputs[0], 1),
        }
    }
    if covered == graph.nodes[parent].channels { (parent, inputs.len()) } else { (inputs[0], 1) }
}

/// The buffer that holds a node, and the node's first channel in it.
fn resolve(storage: &[Storage], mut node: NodeId) -> Place {
    let mut channel = 0;
    while let Storage::Inside(parent, start) = storage[node] {
        channel += start;
        node = parent;
    }
    (node, channel)
}

/// First and last step of `order` that touch each root's buffer.
fn lifetimes(graph: &QGraph, order: &[NodeId], roots: &[Place], keep_all: bool) -> Vec<(usize, usize)> {
    let end = graph.nodes.len();
    let mut lives = vec![(end, 0); end];
    for (at, &id) in order.iter().enumerate() {
        let node = &graph.nodes[id];
        let mut touch = |tensor: NodeId, at: usize| {
            let life = &mut lives[roots[tensor].0];
            *life = (life.0.min(at), life.1.max(at));
        };
        touch(id, at);
        node.inputs.iter().for_each(|&input| touch(input, at));
        if matches!(node.op, QOp::Detect(_)) {
            node.inputs.iter().for_each(|&input| touch(input, end));
        }
    }
    if keep_all {
        lives.iter_mut().for_each(|life| *life = (0, end));
    }
    lives
}

#[derive(Debug)]
struct Buffer {
    id: NodeId,
    len: usize,
    life: (usize, usize),
    offset: usize,
}

/// Gives each buffer an offset: largest first, at the lowest place that is free for its whole life.
/// Returns the bytes needed.
fn pack(buffers: &mut [Buffer]) -> usize {
    buffers.sort_by_key(|b| (std::cmp::Reverse(b.len), b.id));
    let mut end = 0;
    for current in 0..buffers.len() {
        let life = buffers[current].life;
        let mut taken: Vec<(usize, usize)> = buffers[..current]
            .iter()
            .filter(|b| b.life.0 <= life.1 && life.0 <= b.life.1)
            .map(|b| (b.offset, b.offset + b.len))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (from, to) in taken {
            if offset + buffers[current].len <= from {
                break;
            }
            offset = offset.max(to);
        }
        buffers[current].offset = offset;
        end = end.max(offset + buffers[current].len);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: QOp, inputs: &[NodeId], channels: usize) -> QNode {
        QNode { name: format!("n{channels}{inputs:?}"), op, inputs: inputs.to_vec(), channels }
    }

    fn graph() -> QGraph {
        let pool = || QOp::MaxPool { kernel: 3 };
        QGraph {
            nodes: vec![
                node(QOp::Input, &[], 3),
                node(pool(), &[0], 16),
                node(QOp::Slice { start: 0 }, &[1], 8),
                node(QOp::Slice { start: 8 }, &[1], 8),
                node(pool(), &[3], 8),
                node(QOp::Concat, &[2, 3, 4], 24),
                node(pool(), &[5], 24),
                node(QOp::Concat, &[6, 4], 32),
            ],
        }
    }

    #[test]
    fn concat_is_written_in_place() {
        let placed = place(&graph(), 4, 6, false).expect("fits");
        let base = placed.views[5].offset;
        let at = |id: usize| (placed.views[id].offset - base, placed.views[id].stride);
        assert_eq!((at(1), at(2), at(3), at(4)), ((0, 24), (0, 24), (8, 24), (16, 24)));
        assert_eq!(placed.copies, [(7, 1)], "node 4 lives in the first concat already");
        assert_eq!(placed.views[6].stride, 32);
    }

    /// A convolution of a narrow slice reads past it, up to a whole cell.
    #[test]
    fn an_output_is_not_put_where_its_reader_reads() {
        let shape = crate::model::graph::ConvShape {
            c_in: 2,
            c_out: 8,
            kernel: 1,
            stride: 1,
            dilation: 1,
            groups: 1,
            padding: crate::model::graph::Padding::Fixed(0),
        };
        let conv = QOp::Conv {
            shape,
            act: crate::weights::graph::QAct::Relu,
            output: crate::weights::graph::QOutput::Int8 { unit: 1.0 },
        };
        let nodes = vec![
            node(QOp::Input, &[], 3),
            node(QOp::MaxPool { kernel: 3 }, &[0], 8),
            node(QOp::Slice { start: 6 }, &[1], 2),
            node(conv, &[2], 8),
            node(QOp::Concat, &[1, 3], 16),
        ];
        let placed = place(&QGraph { nodes }, 4, 4, false).expect("fits");
        assert_eq!(placed.copies, [(4, 1)]);
    }

    /// Channels of f32 are four bytes, and a concat of them is copied.
    #[test]
    fn f32_lies_in_buffers_of_its_own() {
        let nodes = vec![
            node(QOp::Input, &[], 3),
            node(QOp::MaxPool { kernel: 3 }, &[0], 16),
            node(QOp::Dequantise, &[1], 16),
            node(QOp::Slice { start: 8 }, &[2], 8),
            node(QOp::Concat, &[2, 3], 24),
            node(QOp::Quantise, &[4], 24),
            node(QOp::Concat, &[5, 1], 40),
        ];
        let placed = place(&QGraph { nodes }, 4, 6, false).expect("fits");
        let view = |id: usize| placed.views[id];
        assert_eq!((view(2).element, view(2).stride), (4, 64));
        assert_eq!((view(3).offset, view(3).stride), (view(2).offset + 32, 64));
        assert_eq!((view(4).stride, view(5).stride, view(5).element), (96, 40, 1));
        assert_eq!(placed.copies, [(4, 0), (4, 1)], "int8 behind f32 is written in place again");
    }

    #[test]
    fn buffers_that_live_together_do_not_meet() {
        for keep_all in [false, true] {
            let graph = graph();
            let placed = place(&graph, 8, 8, keep_all).expect("fits");
            let spans: Vec<_> = [0, 5, 7].map(|id| (id, &placed.views[id])).into();
            for (id, view) in &spans {
                assert!(view.end() <= placed.arena_len, "node {id}");
            }
            let (five, seven) = (&placed.views[5], &placed.views[7]);
            assert!(five.end() <= seven.offset || seven.end() <= five.offset);
        }
    }

    #[test]
    fn dead_buffers_are_reused() {
        let mut nodes = vec![node(QOp::Input, &[], 3)];
        for i in 0..10 {
            nodes.push(node(QOp::MaxPool { kernel: 3 }, &[i], 16));
        }
        let graph = QGraph { nodes };
        let one = 32 * 32 * 16 + 64;
        assert!(place(&graph, 32, 32, false).expect("fits").arena_len <= 2 * one + 32 * 32 * 4);
        assert!(place(&graph, 32, 32, true).expect("fits").arena_len >= 10 * one);
    }
}
