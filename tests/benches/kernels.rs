//! Each set of kernels that runs here, on layers of YOLOv8n at 640x640, one thread.
//!
//! `cargo bench --bench kernels`; throughput is in multiply-accumulates a second. `cargo test` runs each once.

#![allow(missing_docs, clippy::unwrap_used)] // a bench may stop at what it did not expect

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ghostlight::kernels::ops::{
    ConvJob, DepthwiseJob, MixJob, Mixed, Window, conv, depthwise, max_pool, mix,
};
use ghostlight::kernels::{Act, Arena, Kernels, Layout, Requant, Team, View, detect};

/// A convolution of `kernel` x `kernel`.
struct Shape {
    kernel: usize,
    stride: usize,
    c_in: usize,
    c_out: usize,
    /// Height and width of the output.
    side: usize,
}

const fn shape(kernel: usize, stride: usize, c_in: usize, c_out: usize, side: usize) -> Shape {
    Shape { kernel, stride, c_in, c_out, side }
}

/// The stem, each stage's convolutions, the neck's widest, the head's.
const DENSE: [Shape; 10] = [
    shape(3, 2, 4, 16, 320),
    shape(3, 2, 16, 32, 160),
    shape(1, 1, 48, 32, 160),
    shape(3, 1, 32, 32, 80),
    shape(3, 1, 64, 64, 80),
    shape(1, 1, 80, 80, 80),
    shape(3, 2, 64, 128, 40),
    shape(1, 1, 384, 128, 40),
    shape(3, 1, 128, 128, 20),
    shape(1, 1, 512, 256, 20),
];

/// Of Ghost blocks.
const DEPTHWISE: [Shape; 2] = [shape(3, 1, 64, 64, 80), shape(5, 2, 128, 128, 20)];

impl Shape {
    fn name(&self) -> String {
        let Self { kernel, stride, c_in, c_out, side } = self;
        format!("{c_in}-{c_out} {kernel}x{kernel} step {stride} at {side}")
    }

    fn window(&self) -> Window {
        let pad = self.kernel / 2;
        Window { kernel: self.kernel, stride: self.stride, dilation: 1, pad_top: pad, pad_left: pad }
    }

    /// Input, output, and an arena of noise that holds both.
    fn operands(&self) -> (View, View, Arena) {
        let input = View::dense(0, self.side * self.stride, self.side * self.stride, self.c_in);
        let output = View::dense(input.end().next_multiple_of(64), self.side, self.side, self.c_out);
        let mut arena = Arena::new(output.end());
        for (at, byte) in arena.bytes_mut().iter_mut().enumerate() {
            *byte = noise(at);
        }
        (input, output, arena)
    }
}

fn noise(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

fn weights(count: usize) -> Arena {
    let weights: Vec<i8> = (0..count).map(|at| (noise(at) as i8).max(-127)).collect();
    Arena::of_weights(&weights)
}

/// SiLU, for sums over `terms` products of which few saturate.
fn requant(channels: usize, terms: usize) -> Requant {
    let channels = channels.next_multiple_of(16);
    Requant {
        bias: vec![100; channels],
        scale: vec![2.0 / (terms as f32).sqrt(); channels],
        act: Act::Gated { shift: 0, poly: [310, -700, 520, 150, -420, 170] },
        mult: vec![8000; channels],
        zero: vec![3; channels],
        residual: None,
    }
}

fn kernels() -> Vec<&'static dyn Kernels> {
    let here = detect::all().into_iter().filter_map(|candidate| candidate.kernels);
    here.filter(|kernels| kernels.name() != "scalar").collect()
}

fn dense(c: &mut Criterion) {
    let mut group = c.benchmark_group("dense");
    for shape in &DENSE {
        let taps = shape.kernel * shape.kernel;
        let macs = taps * shape.c_in * shape.c_out * shape.side * shape.side;
        group.throughput(Throughput::Elements(macs as u64));
        for k in kernels() {
            let (input, output, mut arena) = shape.operands();
            let weights = weights(k.layout().packed_len(shape.c_out, taps, shape.c_in));
            let requant = requant(shape.c_out, taps * shape.c_in);
            let job = ConvJob {
                input,
                output,
                window: shape.window(),
                weights: weights.signed(),
                pad_row: &[0; 512],
                requant: &requant,
                residual: None,
            };
            let mut team = Team::new(1).unwrap();
            group.bench_function(BenchmarkId::new(k.name(), shape.name()), |b| {
                team.frame(|crew| b.iter(|| conv(k, crew, &mut arena, black_box(&job)).unwrap()));
            });
        }
    }
}

fn depthwise_and_pool(c: &mut Criterion) {
    let mut group = c.benchmark_group("depthwise");
    for shape in &DEPTHWISE {
        let taps = shape.kernel * shape.kernel;
        group.throughput(Throughput::Elements((taps * shape.c_out * shape.side * shape.side) as u64));
        for k in kernels() {
            let (input, output, mut arena) = shape.operands();
            let weights = weights(taps * shape.c_out);
            let requant = requant(shape.c_out, taps);
            let job = DepthwiseJob {
                input,
                output,
                window: shape.window(),
                weights: weights.signed(),
                pad_row: &[0; 512],
                requant: &requant,
            };
            let mut team = Team::new(1).unwrap();
            group.bench_function(BenchmarkId::new(k.name(), shape.name()), |b| {
                team.frame(|crew| b.iter(|| depthwise(k, crew, &mut arena, black_box(&job)).unwrap()));
            });
        }
    }
    group.finish();

    let mut group = c.benchmark_group("max pool");
    let shape = shape(5, 1, 128, 128, 20);
    for k in kernels() {
        let (input, output, mut arena) = shape.operands();
        let mut team = Team::new(1).unwrap();
        group.bench_function(BenchmarkId::new(k.name(), shape.name()), |b| {
            team.frame(|crew| {
                b.iter(|| max_pool(k, crew, &mut arena, black_box((input, output)), shape.kernel).unwrap());
            });
        });
    }
}

/// The largest convolution's experts into one kernel.
fn mixing(c: &mut Criterion) {
    let (c_out, taps, depth, count) = (256, 9, 128, 4);
    let experts: Vec<i8> = (0..count * c_out * taps * depth).map(|at| noise(at) as i8).collect();
    let alpha: Vec<i32> = (0..count * c_out).map(|at| i32::from(noise(at)) * 16).collect();
    let job = MixJob {
        layout: Layout::N16K4,
        c_out,
        taps,
        depth,
        count,
        experts: &experts,
        alpha: &alpha,
        pad_row: &[7; 128],
    };
    let mut mixed = vec![0; experts.len() / count];
    let (mut maxima, mut zero_sums) = (vec![0; c_out], vec![0; c_out]);
    let mut group = c.benchmark_group("mixing");
    group.throughput(Throughput::Elements(experts.len() as u64));
    group.bench_function("4 experts of 128-256 3x3", |b| {
        Team::new(1).unwrap().frame(|crew| {
            b.iter(|| {
                let out = Mixed { weights: &mut mixed, maxima: &mut maxima, zero_sums: &mut zero_sums };
                mix(crew, black_box(&job), out).unwrap();
            });
        });
    });
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = dense, depthwise_and_pool, mixing }
criterion_main!(benches);
