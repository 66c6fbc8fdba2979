//! Boxes are wanted only where a class passes: the convolutions that lead to nothing but a level's boxes run
//! after its classes, and only on the cells that those boxes are computed from.
//!
//! Most pictures show objects on a few percent of the cells, and these convolutions are a sixth of YOLOv8n's
//! arithmetic. What is computed is the same bits as where everything is; the other cells of these tensors
//! hold what lay there before, and nothing reads them.

use super::Step;
use super::prepare::window;
use crate::kernels::ops::{self, OpError, Runs};
use crate::kernels::{Kernels, View};
use crate::model::graph::NodeId;
use crate::weights::graph::{QGraph, QOp};

/// Cells of a level per one that passes, below which all are computed: they need the cells around them, too.
const FEW: usize = 8;

/// The convolutions that only one level's boxes are computed from.
#[derive(Debug)]
pub struct Branch {
    /// The level's classes.
    classes: NodeId,
    /// First to last.
    nodes: Vec<NodeId>,
    /// Cells of each node's output that are wanted; as many as the nodes.
    wanted: Vec<Runs>,
    /// Whether only these cells are computed, in this frame.
    sparse: bool,
    /// Cells that have a class above the floor, in rising order.
    passing: Vec<u32>,
    /// Whether they are this frame's.
    known: bool,
}

/// The branches of a graph that can be computed in part: static convolutions in int8, of one reader each.
pub fn branches(graph: &QGraph) -> Vec<Branch> {
    let mut readers = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|&input| readers[input] += 1);
    let alone = |id: NodeId| {
        let node = &graph.nodes[id];
        let dense = matches!(&node.op, QOp::Conv { shape, .. } if !shape.is_depthwise());
        dense && node.inputs.len() == 1 && readers[id] == 1
    };
    let heads = graph.nodes.last().filter(|node| matches!(node.op, QOp::Detect(_)));
    let pairs = heads.into_iter().flat_map(|node| node.inputs.as_chunks::<2>().0);
    pairs
        .filter_map(|&[boxes, classes]| {
            let before = |id: &NodeId| alone(*id).then(|| graph.nodes[*id].inputs[0]);
            let mut nodes: Vec<NodeId> =
                std::iter::successors(Some(boxes), before).filter(|&id| alone(id)).collect();
            nodes.reverse();
            let wanted = nodes.iter().map(|_| Runs::default()).collect();
            let branch = Branch { classes, nodes, wanted, sparse: false, passing: Vec::new(), known: false };
            (!branch.nodes.is_empty()).then_some(branch)
        })
        .collect()
}

/// All nodes in the order in which they run: the graph's, but each branch after its level's classes.
pub fn order(graph: &QGraph, branches: &[Branch]) -> Vec<NodeId> {
    let mut order = Vec::with_capacity(graph.nodes.len());
    for id in 0..graph.nodes.len() {
        if !branches.iter().any(|branch| branch.nodes.contains(&id)) {
            order.push(id);
        }
        // What the branch reads is there before, too.
        let ready = |branch: &&Branch| id == branch.classes.max(graph.nodes[branch.nodes[0]].inputs[0]);
        order.extend(branches.iter().filter(ready).flat_map(|branch| &branch.nodes));
    }
    order
}

/// The branches of an engine, and room for what is wanted of them.
#[derive(Debug)]
pub struct Boxes {
    branches: Vec<Branch>,
    marks: Vec<u8>,
    read: Vec<u8>,
}

impl Boxes {
    /// Of a graph's branches.
    pub fn new(branches: Vec<Branch>) -> Self {
        Self { branches, marks: Vec::new(), read: Vec::new() }
    }

    /// Makes all the room that any picture of a size needs.
    pub fn make_room(&mut self, graph: &QGraph, views: &[View], kernels: &dyn Kernels) {
        for branch in &mut self.branches {
            let marked = branch.nodes.iter().chain([&branch.classes]);
            let most = marked.map(|&id| views[id].pixels()).max().unwrap_or(0);
            for marks in [&mut self.marks, &mut self.read] {
                marks.reserve(most.saturating_sub(marks.len()));
            }
            branch.known = false;
            branch.passing.clear();
            branch.passing.reserve(views[branch.classes].pixels());
            for (&id, wanted) in branch.nodes.iter().zip(&mut branch.wanted) {
                wanted.make_room(views[id].pixels(), kernels.tile_for(graph.nodes[id].channels).rows);
            }
        }
    }

    /// A frame begins: what is known is the one before's.
    pub fn begin(&mut self) {
        self.branches.iter_mut().for_each(|branch| branch.known = false);
    }

    /// Cells of a level with the node `classes` that have a class above this frame's floor, in rising order, where the
    /// frame had a floor.
    pub fn passing(&self, classes: NodeId) -> Option<&[u32]> {
        let branch = self.branches.iter().find(|branch| branch.classes == classes && branch.known)?;
        Some(&branch.passing)
    }

    /// What is wanted of the step's node, if that is not all: the cells that boxes need of which a class is above
    /// `floor`.
    pub fn wanted(&mut self, step: &Step<'_>, floor: f32) -> Result<Option<&Runs>, OpError> {
        for branch in &mut self.branches {
            if let Some(at) = branch.nodes.iter().position(|&id| id == step.id) {
                // Its level's classes are there by now.
                if at == 0 {
                    branch.find(step, floor, (&mut self.marks, &mut self.read))?;
                }
                return Ok(branch.sparse.then_some(&branch.wanted[at]));
            }
        }
        Ok(None)
    }
}

impl Branch {
    /// Finds the cells that are wanted of each node.
    fn find(
        &mut self,
        step: &Step<'_>,
        floor: f32,
        (marks, read): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<(), OpError> {
        let (graph, views) = (&step.model.graph, &step.placement.views);
        let classes = views[self.classes];
        marks.resize(classes.pixels(), 0);
        ops::mark_above(step.crew, step.arena, &classes, floor, marks)?;
        self.passing.clear();
        self.passing.extend((0..).zip(&*marks).filter(|(_, mark)| **mark != 0).map(|(cell, _)| cell));
        self.known = true;
        self.sparse = self.passing.len() <= marks.len() / FEW;
        if !self.sparse {
            return Ok(());
        }
        for (at, (&id, wanted)) in self.nodes.iter().zip(&mut self.wanted).enumerate().rev() {
            let node = &graph.nodes[id];
            wanted.take(marks, step.kernels.tile_for(node.channels).rows);
            // What the first one reads is there, all of it.
            if at > 0
                && let Some(shape) = node.op.conv_shape()
            {
                let input = &views[node.inputs[0]];
                read.resize(input.pixels(), 0);
                ops::mark_read(&window(shape, input), (&views[id], marks), (input, read));
                std::mem::swap(marks, read);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{ConvShape, Detect, Padding};
    use crate::weights::graph::{QAct, QNode, QOutput};

    fn conv(groups: usize) -> QOp {
        let padding = Padding::Fixed(1);
        let shape = ConvShape { c_in: 8, c_out: 8, kernel: 3, stride: 1, dilation: 1, groups, padding };
        QOp::Conv { shape, act: QAct::Relu, output: QOutput::Int8 { unit: 1.0 } }
    }

    fn detect(levels: usize) -> QOp {
        QOp::Detect(Detect { classes: 8, reg_max: 16, strides: vec![8; levels] })
    }

    fn graph(nodes: Vec<(QOp, &[NodeId])>) -> QGraph {
        let node = |(op, inputs): (QOp, &[NodeId])| QNode {
            name: op.describe(),
            op,
            inputs: inputs.to_vec(),
            channels: 8,
        };
        QGraph { nodes: nodes.into_iter().map(node).collect() }
    }

    fn of(graph: &QGraph) -> (Vec<Vec<NodeId>>, Vec<NodeId>) {
        let branches = branches(graph);
        let order = order(graph, &branches);
        (branches.into_iter().map(|branch| branch.nodes).collect(), order)
    }

    #[test]
    fn each_branch_runs_after_its_classes() {
        let graph = graph(vec![
            (QOp::Input, &[]),
            (conv(1), &[0]),
            (conv(1), &[1]), // level 0's boxes
            (conv(1), &[2]),
            (conv(1), &[1]), // its classes
            (conv(1), &[1]), // level 1's boxes
            (conv(1), &[1]), // its classes
            (detect(2), &[3, 4, 5, 6]),
        ]);
        let (branches, order) = of(&graph);
        assert_eq!(branches, [vec![2, 3], vec![5]]);
        assert_eq!(order, [0, 1, 4, 2, 3, 6, 5, 7]);
    }

    /// The classes come first here, and the boxes are of something that is computed after them.
    #[test]
    fn a_branch_runs_after_what_it_reads() {
        let graph = graph(vec![
            (QOp::Input, &[]),
            (conv(1), &[0]), // classes
            (QOp::MaxPool { kernel: 3 }, &[0]),
            (conv(1), &[2]), // boxes
            (detect(1), &[3, 1]),
        ]);
        assert_eq!(of(&graph), (vec![vec![3]], vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn what_others_need_whole_is_no_branch() {
        let graph = graph(vec![
            (QOp::Input, &[]),
            (conv(1), &[0]), // read twice
            (conv(8), &[1]), // depthwise
            (conv(1), &[2]),
            (conv(1), &[3, 1]), // with a residual
            (conv(1), &[4]),
            (conv(1), &[0]), // classes
            (conv(1), &[0]), // boxes and classes at once
            (detect(2), &[5, 6, 7, 7]),
        ]);
        assert_eq!(of(&graph), (vec![vec![5]], vec![0, 1, 2, 3, 4, 6, 5, 7, 8]));
    }
}
