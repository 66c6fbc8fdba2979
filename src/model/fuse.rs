//! Folds residual additions into the convolution before them.

use super::graph::{Graph, NodeId, Op};

/// Turns `Add(conv(x), y)` into a convolution with two inputs, `[x, y]`, where nothing else reads
/// `conv(x)`. The sum is taken after the activation, so results stay the same.
///
/// If both operands qualify, the later one takes the other in.
pub fn fuse(graph: Graph) -> Graph {
    let mut readers = vec![0usize; graph.nodes.len()];
    for input in graph.nodes.iter().flat_map(|n| &n.inputs) {
        readers[*input] += 1;
    }
    // An Add's place in the new graph is its convolution's, moved down to the Add: the other operand
    // may stand between the two.
    let mut taken: Vec<Option<NodeId>> = vec![None; graph.nodes.len()];
    let mut moved = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        let &[a, b] = node.inputs.as_slice() else { continue };
        if node.op != Op::Add || a == b {
            continue;
        }
        let fits = |&c: &NodeId| readers[c] == 1 && !moved[c] && takes_residual(&graph.nodes[c]);
        if let Some(conv) = [a.max(b), a.min(b)].into_iter().find(fits) {
            taken[id] = Some(conv);
            moved[conv] = true;
        }
    }
    rebuild(graph, &taken, &moved)
}

fn takes_residual(node: &super::graph::Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::DynamicConv(_)) && node.inputs.len() == 1
}

/// Copies the graph: a moved convolution appears where its Add stood.
fn rebuild(graph: Graph, taken: &[Option<NodeId>], moved: &[bool]) -> Graph {
    let mut new_ids = vec![0; graph.nodes.len()];
    let mut waiting: Vec<Option<super::graph::Node>> = Vec::with_capacity(graph.nodes.len());
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (id, mut node) in graph.nodes.into_iter().enumerate() {
        waiting.push(None);
        if moved[id] {
            waiting[id] = Some(node);
            continue;
        }
        if let Some((conv, mut fused)) = taken[id].and_then(|c| waiting[c].take().map(|n| (c, n))) {
            let residual = if node.inputs[0] == conv { node.inputs[1] } else { node.inputs[0] };
            fused.inputs.push(residual);
            node = fused;
        }
        node.inputs = node.inputs.iter().map(|&i| new_ids[i]).collect();
        new_ids[id] = nodes.len();
        nodes.push(node);
    }
    Graph { nodes, info: graph.info }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blocks::build;
    use crate::model::params::Shapes;
    use crate::model::spec::ModelSpec;

    #[test]
    fn bottleneck_adds_disappear() {
        let graph = build(&ModelSpec::builtin("yolov8n").unwrap(), &mut Shapes).unwrap();
        let adds = |g: &Graph| g.nodes.iter().filter(|n| n.op == Op::Add).count();
        assert_eq!(adds(&graph), 6);
        let fused = fuse(graph.clone());
        assert_eq!(adds(&fused), 0);
        assert_eq!(fused.nodes.len(), graph.nodes.len() - 6);
        let conv = fused.nodes.iter().find(|n| n.name == "model.2.m.0.cv2").unwrap();
        assert_eq!(fused.nodes[conv.inputs[1]].name, "model.2.split");
        assert!(fused.nodes.iter().enumerate().all(|(id, n)| n.inputs.iter().all(|&i| i < id)));
        fused.shapes(640, 384).unwrap();
    }
}
