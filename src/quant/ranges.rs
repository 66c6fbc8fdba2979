//! What values each channel of each activation takes over the calibration pictures.

use crate::model::graph::{Graph, NodeId};

/// Least and largest value per node and channel; zero always lies between.
#[derive(Debug, Clone)]
pub struct Ranges {
    nodes: Vec<Vec<(f32, f32)>>,
}

/// How far a channel's range is never smaller than, as a share of its tensor's: a channel that was
/// quiet over the calibration pictures may speak later.
const QUIET_SHARE: f32 = 0.125;

impl Ranges {
    /// Empty ranges for a graph.
    pub fn new(graph: &Graph) -> Self {
        Self { nodes: graph.nodes.iter().map(|n| vec![(0.0, 0.0); n.channels]).collect() }
    }

    /// Widens a node's ranges by one activation `[pixels, channels]`.
    pub fn observe(&mut self, node: NodeId, values: &[f32]) {
        let ranges = &mut self.nodes[node];
        for pixel in values.chunks_exact(ranges.len().max(1)) {
            for ((low, high), &v) in ranges.iter_mut().zip(pixel) {
                *low = low.min(v);
                *high = high.max(v);
            }
        }
    }

    /// Ranges per channel, none narrower than a share of the widest.
    pub fn channels(&self, node: NodeId) -> Vec<(f32, f32)> {
        let ranges = &self.nodes[node];
        let widest = ranges.iter().map(|(low, high)| high - low).fold(0.0, f32::max).max(1e-6);
        ranges
            .iter()
            .map(|&(low, high)| {
                let stretch = (widest * QUIET_SHARE / (high - low).max(1e-12)).max(1.0);
                if high - low < 1e-12 { (0.0, widest * QUIET_SHARE) } else { (low * stretch, high * stretch) }
            })
            .collect()
    }
}
