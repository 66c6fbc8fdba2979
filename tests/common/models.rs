//! Small int8 models made of seeds: the same bytes on every machine.

#![allow(dead_code, clippy::unwrap_used)]

use ghostlight::engine::Engine;
use ghostlight::kernels;
use ghostlight::model::blocks::build;
use ghostlight::model::fuse::fuse;
use ghostlight::model::graph::Graph;
use ghostlight::model::params::Seeded;
use ghostlight::model::spec::ModelSpec;
use ghostlight::quant::quantise;
use ghostlight::quant::ranges::Ranges;
use ghostlight::reference::Reference;
use ghostlight::weights::write::ModelParts;

/// Two levels, every operation but squeeze-and-excite, some 250 KB.
pub const TINY: &str = "nc: 2
backbone:
- [-1, 1, Conv, [8, 3, 2]]
- [-1, 1, DynamicConv, [16, 3, 2]]
- [-1, 1, C2f, [16, True]]
- [-1, 1, DynamicConv, [16, 3, 2]]
- [-1, 1, SPPF, [16, 5]]
head:
- [-1, 1, nn.Upsample, [None, 2, nearest]]
- [[-1, 2], 1, Concat, [1]]
- [-1, 1, C2f, [16]]
- [[7, 4], 1, Detect, [nc]]
";

/// Ghost modules, dynamic depthwise convolutions of both strides, squeeze-and-excite, a sum.
pub const GHOST: &str = "nc: 2
backbone:
- [-1, 1, Conv, [8, 3, 2]]
- [-1, 1, GhostBottleneck, [16, 3, 2, 0.25]]
- [-1, 1, GhostBottleneck, [16, 3, 1, 0.25]]
- [-1, 1, GhostBottleneck, [24, 5, 2, 0.25]]
head:
- [[2, 3], 1, Detect, [nc]]
";

/// A fused graph with seeded weights, from a YAML text.
pub fn graph(yaml: &str) -> Graph {
    seeded(ModelSpec::parse(yaml, "tiny").unwrap())
}

/// A built-in model, a quarter as wide as scale n, of three classes.
pub fn builtin(name: &str) -> Graph {
    let mut spec = ModelSpec::builtin(name).unwrap().with_classes(3);
    spec.width /= 4.0;
    seeded(spec)
}

fn seeded(spec: ModelSpec) -> Graph {
    let mut graph = fuse(build(&spec, &mut Seeded(1)).unwrap());
    graph.info.input_size = [64, 64];
    graph
}

/// Ranges that nobody measured, and that no machine's f32 can change.
pub fn fixed_ranges(graph: &Graph) -> Ranges {
    let mut ranges = Ranges::new(graph);
    for (id, node) in graph.nodes.iter().enumerate() {
        let low = (0..node.channels).map(|c| -0.25 - (c % 3) as f32 * 0.5);
        let high = (0..node.channels).map(|c| 2.0 + (c % 5) as f32 * 0.5);
        ranges.observe(id, &low.collect::<Vec<_>>());
        ranges.observe(id, &high.collect::<Vec<_>>());
    }
    ranges
}

/// Ranges that the reference sees on a few pictures of `size`.
pub fn observed_ranges(graph: &Graph, size: [usize; 2]) -> Ranges {
    let reference = Reference::new(graph).unwrap();
    let mut ranges = Ranges::new(graph);
    for seed in 0..4 {
        let input = ghostlight::reference::to_unit(&picture(seed, size));
        let observe = |node, values: &[f32], _| ranges.observe(node, values);
        reference.observe(&input, size[0], size[1], observe).unwrap();
    }
    ranges
}

/// A model to be written.
pub fn parts(graph: &Graph, ranges: &Ranges) -> ModelParts {
    mixed_parts(graph, ranges, &[])
}

/// A model to be written, some nodes in f32.
pub fn mixed_parts(graph: &Graph, ranges: &Ranges, float: &[bool]) -> ModelParts {
    let (parts, _) = quantise(graph, ranges, float).unwrap().into_parts(graph);
    ModelParts { source_sha256: "0123456789abcdef".into(), license: "test".into(), ..parts }
}

/// [`TINY`] as a model file.
pub fn tiny_bytes() -> Vec<u8> {
    let graph = graph(TINY);
    parts(&graph, &fixed_ranges(&graph)).to_bytes().unwrap()
}

/// Every second node of a graph, on from the first.
pub fn every_second(graph: &Graph) -> Vec<bool> {
    (0..graph.nodes.len()).map(|id| id % 2 == 1).collect()
}

/// [`TINY`] as a model file with every second node in f32.
pub fn mixed_bytes() -> Vec<u8> {
    let graph = graph(TINY);
    mixed_parts(&graph, &fixed_ranges(&graph), &every_second(&graph)).to_bytes().unwrap()
}

/// Saves [`picture`].
pub fn save_picture(path: &std::path::Path, seed: usize, size: [usize; 2]) {
    let [height, width] = size.map(|side| side as u32);
    image::RgbImage::from_raw(width, height, picture(seed, size)).unwrap().save(path).unwrap();
}

/// A picture `[height, width, 3]`: slopes, edges and noise.
pub fn picture(seed: usize, [height, width]: [usize; 2]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(height * width * 3);
    let mut state = seed as u32 * 7919 + 1;
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let slope = (x * (3 + c) + y * (5 - c) + 40 * seed) % 256;
                let edge = if (x / 16 + y / 16 + seed).is_multiple_of(2) { 60 } else { 0 };
                bytes.push((slope as u32 / 2 + edge + (state >> 26)) as u8);
            }
        }
    }
    bytes
}

/// Writes a picture `[height, width, 3]` into the engine's input.
pub fn fill(engine: &mut Engine, rgb: &[u8]) {
    for (to, from) in engine.input_mut().chunks_exact_mut(4).zip(rgb.chunks_exact(3)) {
        to[..3].iter_mut().zip(from).for_each(|(to, &from)| *to = kernels::store(from));
        to[3] = kernels::store(0);
    }
}

/// Bits of all heads' outputs of the last run.
pub fn head_bits(engine: &Engine) -> Vec<u32> {
    (0..engine.levels())
        .flat_map(|level| {
            let head = engine.head(level);
            head.boxes.iter().chain(head.classes).map(|v| v.to_bits()).collect::<Vec<_>>()
        })
        .collect()
}
