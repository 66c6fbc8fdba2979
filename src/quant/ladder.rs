//! What is tried when int8 loses too much, rung by rung, until the loss is within the target.
//!
//! 1. int8 everywhere, ranges by the default [`Spread`].
//! 2. The other [`SPREADS`]; the one with the least error goes on.
//! 3. f32 for one part of the network, the least that does; or for several: those first whose noise at the
//!    outputs is largest for their share of the work, and no more of them than it takes.

use super::QuantError;
use super::float::forced_float;
use super::held_out::{HeldOut, Quality};
use super::quantise::quantise;
use super::ranges::{Ranges, Spread};
use crate::model::graph::{Graph, NodeId, Op};

/// What is tried where the default does not do. Nothing narrower: it measures well on pictures like those of the
/// calibration, and loses several times as much on others.
const SPREADS: [Spread; 3] = [
    Spread { quarters: 3, percent: 115 },
    Spread { quarters: 4, percent: 100 },
    Spread { quarters: 4, percent: 115 },
];

/// One try: how the model was made and how good it is.
#[derive(Debug)]
pub struct Attempt {
    /// How the ranges were read.
    pub spread: Spread,
    /// Per node of the graph, whether it is computed in f32.
    pub float: Vec<bool>,
    /// How good.
    pub quality: Quality,
}

/// A network with what its quantisation needs.
pub struct Ladder<'a> {
    /// Fused.
    pub graph: &'a Graph,
    /// What each channel does.
    pub ranges: &'a Ranges,
    /// Pictures to measure on.
    pub held_out: &'a HeldOut,
    /// Points of mAP50-95 that may be lost; `None` does not climb.
    pub target: Option<f64>,
}

impl Ladder<'_> {
    /// Climbs as far as the target needs. `progress` is told of each try.
    ///
    /// # Errors
    /// [`QuantError`] where a model cannot be made or run.
    pub fn climb(&self, progress: &mut dyn FnMut(&str)) -> Result<Attempt, QuantError> {
        let forced = forced_float(self.graph);
        progress("measuring int8");
        let mut best = self.attempt(Spread::default(), forced.clone())?;
        let Some(target) = self.target else { return Ok(best) };
        let mut others = SPREADS.into_iter();
        while !best.quality.meets(target) {
            let Some(spread) = others.next() else { return self.with_f32(best, target, progress) };
            progress("trying other ranges");
            let other = self.attempt(spread, forced.clone())?;
            if other.quality.meets(target) || other.quality.error < best.quality.error {
                best = other;
            }
        }
        Ok(best)
    }

    /// f32 for the fewest groups that meet the target, or for all where none does.
    fn with_f32(
        &self,
        int8: Attempt,
        target: f64,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Attempt, QuantError> {
        let spread = int8.spread;
        let mut groups = groups(self.graph);
        let mut gains = Vec::with_capacity(groups.len());
        let mut single: Option<(u64, Attempt)> = None;
        for (index, group) in groups.iter().enumerate() {
            progress(&format!("weighing part {} of {}", index + 1, groups.len()));
            let alone = self.attempt(spread, with(&int8.float, [group]))?;
            gains.push((int8.quality.error - alone.quality.error) / group.work.max(1) as f64);
            if alone.quality.meets(target) && single.as_ref().is_none_or(|(work, _)| group.work < *work) {
                single = Some((group.work, alone));
            }
        }
        if let Some((_, attempt)) = single {
            return Ok(attempt);
        }
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by(|&a, &b| gains[b].total_cmp(&gains[a]));
        groups = order.into_iter().map(|index| groups[index].clone()).collect();
        // The least count of groups that meets the target, by bisection: more groups, less loss.
        let (mut low, mut high, mut found) = (0, groups.len(), None);
        while low < high {
            let count = usize::midpoint(low, high);
            progress(&format!("f32 in {} of {} parts", count + 1, groups.len()));
            let attempt = self.attempt(spread, with(&int8.float, &groups[..=count]))?;
            if attempt.quality.meets(target) {
                high = count;
                found = Some(attempt);
            } else {
                low = count + 1;
            }
        }
        match found {
            // All of them already, or few enough.
            Some(attempt) if high + 1 == groups.len() || work(&groups[..=high]) * 10 < work(&groups) * 9 => {
                Ok(attempt)
            }
            // With so little left int8 costs precision and saves no time.
            _ => self.attempt(spread, with(&int8.float, &groups)),
        }
    }

    fn attempt(&self, spread: Spread, float: Vec<bool>) -> Result<Attempt, QuantError> {
        let quantised = quantise(self.graph, &self.ranges.by(spread), &float)?;
        let quality = self.held_out.measure(&quantised.into_parts(self.graph).0)?;
        let lost = quality.drop.map_or_else(|| "unknown".into(), |drop| format!("{drop:.2} points"));
        let f32s = float.iter().filter(|&&float| float).count();
        log::info!(
            "ranges {spread}, {f32s} nodes in f32: noise {:.5} of the signal, estimated loss {lost}",
            quality.error
        );
        Ok(Attempt { spread, float, quality })
    }
}

/// Nodes that change together.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    key: String,
    nodes: Vec<NodeId>,
    /// Multiply-accumulates.
    work: u64,
}

fn work(groups: &[Group]) -> u64 {
    groups.iter().map(|group| group.work).sum()
}

/// Layers of the model file (`model.4`), and of the head each level of each branch (`model.22.cv2.0`).
fn groups(graph: &Graph) -> Vec<Group> {
    let detect = graph.nodes.last().map(|node| node.name.clone()).unwrap_or_default();
    let key = |name: &str| {
        let depth = if !detect.is_empty() && name.starts_with(&detect) { 4 } else { 2 };
        name.split('.').take(depth).collect::<Vec<_>>().join(".")
    };
    let costs = graph.costs(graph.info.input_size[0], graph.info.input_size[1]).unwrap_or_default();
    let mut groups: Vec<Group> = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        if matches!(node.op, Op::Input | Op::Detect(_)) {
            continue;
        }
        let key = key(&node.name);
        let work = costs.get(id).map_or(0, |cost| cost.macs);
        match groups.iter_mut().find(|group| group.key == key) {
            Some(group) => {
                group.nodes.push(id);
                group.work += work;
            }
            None => groups.push(Group { key, nodes: vec![id], work }),
        }
    }
    groups
}

fn with<'a>(float: &[bool], groups: impl IntoIterator<Item = &'a Group>) -> Vec<bool> {
    let mut float = float.to_vec();
    groups.into_iter().flat_map(|group| &group.nodes).for_each(|&id| float[id] = true);
    float
}
