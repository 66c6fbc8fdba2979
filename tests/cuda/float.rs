//! Kernels in f32 one by one, on shapes and numbers that no model has, against the CPU's.

use ghostlight::kernels::cuda::{FLOAT_TILE, FloatConvArgs, Kernel, PictureArgs, Region};
use ghostlight::kernels::ops::{self, FloatAct, FloatConvJob, Window};
use ghostlight::kernels::{Arena, Team, View, load};
use ghostlight::math::SplitMix64;

use crate::shim::{Shim, shim};

/// A convolution of some shape.
#[derive(Debug, Clone, Copy)]
struct Case {
    c_in: usize,
    c_out: usize,
    size: (usize, usize),
    /// Side, stride, dilation.
    window: (usize, usize, usize),
    /// Numbers before the first pixel and between pixels.
    gap: usize,
    residual: bool,
    depthwise: bool,
}

const PLAIN: Case =
    Case { c_in: 16, c_out: 16, size: (7, 9), window: (3, 1, 1), gap: 0, residual: false, depthwise: false };

fn cases() -> Vec<Case> {
    let mut all = vec![PLAIN];
    all.extend([1, 31, 33, 65].map(|c_out| Case { c_out, c_in: 3, residual: true, ..PLAIN }));
    all.extend([1, 31, 32, 33, 65].map(|c_in| Case { c_in, gap: 1, ..PLAIN }));
    all.extend([(1, 1), (1, 33), (3, 86)].map(|size| Case { size, c_in: 4, ..PLAIN }));
    for window in [(1, 1, 1), (2, 2, 1), (5, 3, 2), (7, 1, 3), (1, 8, 1), (3, 1, 16)] {
        all.push(Case { window, gap: 3, ..PLAIN });
        all.push(Case { window, depthwise: true, c_in: 37, c_out: 37, residual: true, ..PLAIN });
    }
    all
}

const ACTS: [FloatAct; 6] = [
    FloatAct::Identity,
    FloatAct::Relu,
    FloatAct::Relu6,
    FloatAct::Silu,
    FloatAct::Hardswish,
    FloatAct::LeakyRelu(0.1),
];

/// Numbers of all sizes, zeros of both signs among them.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut random = SplitMix64(seed);
    let number = |_| {
        let bits = random.next_u64();
        let unit = (bits >> 40) as f32 / (1 << 23) as f32 - 1.0;
        match bits % 16 {
            0 => 0.0,
            1 => -0.0,
            2 => unit * 300.0,
            3 => unit * 1e-30,
            _ => unit,
        }
    };
    (0..len).map(number).collect()
}

/// Arenas of both sides with the same numbers.
fn arenas(len: usize, seed: u64) -> (Arena, Vec<u64>) {
    let noise = numbers(seed, len / 4);
    let mut arena = Arena::new(len);
    arena.bytes_mut()[..len / 4 * 4].copy_from_slice(bytemuck::cast_slice(&noise));
    let mut words = vec![0u64; len.div_ceil(8)];
    bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..len].copy_from_slice(&arena.bytes()[..len]);
    (arena, words)
}

fn view(offset: usize, (height, width): (usize, usize), channels: usize, gap: usize) -> View {
    let stride = 4 * (channels + gap);
    View { offset: offset + 4 * gap, height, width, channels, element: 4, stride }
}

/// Runs a case on both sides, and compares the whole arena: what lies around the output stays.
fn check(shim: &Shim, case: Case, act: FloatAct) {
    let Case { c_in, c_out, size, window: (kernel, stride, dilation), gap, .. } = case;
    let pad = kernel / 2 * dilation;
    let window = Window { kernel, stride, dilation, pad_top: pad, pad_left: pad };
    let side = |n: usize| (n + 2 * pad).saturating_sub((kernel - 1) * dilation + 1) / stride + 1;
    let input = view(0, size, c_in, gap);
    let output = view((input.end() + 64).next_multiple_of(64), (side(size.0), side(size.1)), c_out, gap);
    let residual = View { offset: (output.end() + 64).next_multiple_of(64) + 4 * gap, ..output };
    let len = residual.end() + 64;

    let taps = kernel * kernel;
    let per_panel = if case.depthwise { taps } else { taps * c_in };
    let weights = numbers(7, per_panel * if case.depthwise { c_out } else { c_out.next_multiple_of(32) });
    let bias = numbers(8, c_out);
    let (mut arena, mut words) = arenas(len, 9 + c_in as u64);
    let job = FloatConvJob {
        input,
        output,
        window,
        depthwise: case.depthwise,
        weights: &weights,
        bias: &bias,
        zeros: &vec![0.0; c_in],
        act,
        residual: case.residual.then_some(residual),
    };
    Team::new(1).unwrap().frame(|crew| ops::float_conv(crew, &mut arena, &job)).unwrap();

    let mut region = vec![0u64; (weights.len() + c_out).div_ceil(2) + 64];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut region);
    let place = (4 * weights.len()).next_multiple_of(8);
    bytes[..4 * weights.len()].copy_from_slice(bytemuck::cast_slice(&weights));
    bytes[place..place + 4 * c_out].copy_from_slice(bytemuck::cast_slice(&bias));
    let args = FloatConvArgs {
        weights: Region::Weights.at(0),
        bias: Region::Weights.at(place),
        ..FloatConvArgs::of((&input, &output, case.residual.then_some(&residual)), &window, act)
    };
    let (kernel, grid) = if case.depthwise {
        (Kernel::FloatDepthwise, [(output.pixels() * c_out).div_ceil(128), 1])
    } else {
        (Kernel::FloatConv, [output.pixels().div_ceil(FLOAT_TILE), c_out.div_ceil(FLOAT_TILE)])
    };
    let found: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    shim.launch(kernel, grid, [found, bytes, &mut [], &mut []], &args.words());
    let differ = found[..len].iter().zip(arena.bytes()).position(|(a, b)| a != b);
    assert_eq!(differ, None, "{case:?} {act:?}: output at {}", output.offset);
}

#[test]
fn float_convolutions_equal_the_cpu() {
    let Some((shim, _turn)) = shim() else { return };
    for case in cases() {
        ACTS.into_iter().for_each(|act| check(shim, case, act));
    }
}

/// Sums, products, pools, and ways to bytes and back, in pictures of odd sizes.
#[test]
fn float_pictures_equal_the_cpu() {
    let Some((shim, _turn)) = shim() else { return };
    for (size, channels, gap, window) in [((1, 1), 1, 0, 3), ((5, 7), 8, 1, 5), ((9, 4), 67, 2, 7)] {
        let a = view(0, size, channels, gap);
        let next = |view: &View| (view.end() + 64).next_multiple_of(64);
        let b = View { offset: next(&a), ..a };
        let out = View { offset: next(&b), ..a };
        let q = View { offset: next(&out) + gap, element: 1, stride: channels + gap, ..a };
        let len = q.end() + 64;
        let step: Vec<f32> = (0..channels).map(|c| 0.01 + c as f32 * 0.003).collect();
        let zero: Vec<u8> = (0..channels).map(|c| (c * 37 % 256) as u8).collect();
        let words = step.iter().map(|s| s.to_bits()).chain(zero.iter().map(|&z| u32::from(z)));
        let mut table: Vec<u32> = words.collect();
        type Cpu<'a> = &'a dyn Fn(&ghostlight::kernels::Crew<'_>, &mut Arena) -> Result<(), ops::OpError>;
        let runs: [(Kernel, Cpu<'_>, (View, View)); 5] = [
            (Kernel::FloatAdd, &|crew, arena| ops::float_add(crew, arena, ([a, b], out)), (a, out)),
            (Kernel::FloatScale, &|crew, arena| ops::float_scale(crew, arena, (a, out), &step), (a, out)),
            (
                Kernel::FloatMaxPool,
                &|crew, arena| ops::float_max_pool(crew, arena, (a, out), window),
                (a, out),
            ),
            (Kernel::Quantise, &|crew, arena| ops::quantise(crew, arena, (a, q), &step, &zero), (a, q)),
            (
                Kernel::Dequantise,
                &|crew, arena| ops::dequantise(crew, arena, (q, out), &step, &zero),
                (q, out),
            ),
        ];
        for (kernel, cpu, (from, to)) in runs {
            let (mut arena, mut words) = arenas(len, 3);
            let stored = |at: usize, view: &View| {
                view.element == 1
                    && at >= view.offset
                    && at < view.end()
                    && (at - view.offset) % view.stride < channels
            };
            // The GPU has activations as they are, the CPU as it stores them.
            let found: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
            (0..len).filter(|&at| stored(at, &from)).for_each(|at| found[at] = load(found[at]));
            Team::new(1).unwrap().frame(|crew| cpu(crew, &mut arena)).unwrap();
            let args = PictureArgs {
                a: Region::Arena.at(from.offset),
                b: Region::Arena.at(b.offset),
                output: Region::Arena.at(to.offset),
                table: Region::Weights.at(0),
                height: size.0 as u32,
                width: size.1 as u32,
                channels: channels as u32,
                a_stride: from.stride as u32,
                b_stride: b.stride as u32,
                out_stride: to.stride as u32,
                size: window as u32,
                ..PictureArgs::default()
            };
            let table: &mut [u8] = bytemuck::cast_slice_mut(&mut table);
            let grid = [(size.0 * size.1 * channels).div_ceil(128), 1];
            shim.launch(kernel, grid, [found, table, &mut [], &mut []], &args.words());
            for (at, &wanted) in arena.bytes()[..len].iter().enumerate() {
                let wanted = if stored(at, &from) || stored(at, &to) { load(wanted) } else { wanted };
                assert_eq!(found[at], wanted, "{kernel:?} {size:?} {channels}: byte {at}");
            }
        }
    }
}
