//! Kernels one by one, on shapes and numbers that no model has, against the CPU's `scalar`.

use ghostlight::kernels::cuda::{ConvArgs, Kernel, MixArgs, PictureArgs, Region, SumArgs, wide};
use ghostlight::kernels::ops::{self, ConvJob, DepthwiseJob, MixJob, Mixed, Window};
use ghostlight::kernels::scalar::Scalar;
use ghostlight::kernels::{
    Act, Arena, Layout, Requant, Residual, STORED_OFFSET, Team, View, load, pack, store,
};
use ghostlight::math::SplitMix64;

use crate::shim::{Shim, shim};

struct Random(SplitMix64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() >> 33) as usize % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    fn weights(&mut self, len: usize, extreme: bool) -> Vec<i8> {
        let weight = |n: usize| if extreme { if n < 100 { -127 } else { 127 } } else { n as i32 - 127 };
        (0..len).map(|_| weight(self.below(255)) as i8).collect()
    }

    fn shorts(&mut self, len: usize, low: i32, high: i32) -> Vec<i16> {
        (0..len).map(|_| (low + self.below((high - low + 1) as usize) as i32) as i16).collect()
    }
}

/// A convolution of some shape.
#[derive(Debug, Clone, Copy)]
struct Case {
    c_in: usize,
    c_out: usize,
    size: (usize, usize),
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Bytes before the first pixel and between pixels: where it is odd, words are not aligned.
    gap: usize,
    residual: bool,
    float: bool,
    depthwise: bool,
    /// Only the greatest and least numbers.
    extreme: bool,
}

const PLAIN: Case = Case {
    c_in: 16,
    c_out: 16,
    size: (7, 9),
    kernel: 3,
    stride: 1,
    dilation: 1,
    gap: 0,
    residual: false,
    float: false,
    depthwise: false,
    extreme: false,
};

fn cases() -> Vec<Case> {
    let mut all = vec![PLAIN];
    // Around a tile's edges: channels, pixels, steps of a round.
    for c_out in [1, 3, 15, 17, 31, 33, 63, 65, 80, 129] {
        all.push(Case { c_out, c_in: c_out.min(7), ..PLAIN });
    }
    for size in [(1, 1), (1, 63), (8, 8), (5, 13), (16, 16), (1, 257), (3, 86)] {
        all.extend([16, 24, 64].map(|c_out| Case { size, c_out, c_in: 4, ..PLAIN }));
    }
    for c_in in [1, 2, 3, 4, 5, 31, 32, 33, 68] {
        all.extend([1, 2, 5, 7].map(|kernel| Case { c_in, kernel, ..PLAIN }));
    }
    for (stride, dilation) in [(2, 1), (3, 2), (8, 1), (1, 16)] {
        all.push(Case { stride, dilation, ..PLAIN });
        all.push(Case { stride, dilation, depthwise: true, ..PLAIN });
    }
    for gap in [1, 2, 3, 4] {
        for (float, residual) in [(false, true), (true, false), (false, false)] {
            let gap = if float { gap * 4 } else { gap };
            all.push(Case { gap, float, residual, c_in: 18, c_out: 22, ..PLAIN });
        }
        all.push(Case { gap, depthwise: true, c_in: 18, c_out: 18, ..PLAIN });
    }
    // Inputs that are copied 16 bytes at a time: rounds within a tap and across taps, a tap's half at the end.
    for c_in in [16, 32, 48, 64, 112] {
        for (kernel, stride, dilation) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (3, 1, 3), (5, 1, 1)] {
            all.push(Case { c_in, kernel, stride, dilation, c_out: c_in + 17, size: (9, 15), ..PLAIN });
        }
    }
    all.extend([1, 15, 33, 65, 130].map(|c_out| Case { c_in: 48, c_out, residual: true, ..PLAIN }));
    for kernel in [1, 2, 5, 7] {
        all.push(Case { kernel, depthwise: true, c_in: 37, c_out: 37, ..PLAIN });
    }
    let extreme = Case { extreme: true, c_in: 300, c_out: 20, ..PLAIN };
    all.extend([extreme, Case { residual: true, ..extreme }, Case { float: true, ..extreme }]);
    all.push(Case { c_in: 304, ..extreme });
    all.push(Case { depthwise: true, c_in: 20, ..extreme });
    all
}

/// Every activation: those of a model, and the wildest that a file may ask for.
fn acts() -> Vec<Act> {
    let gated = |shift, poly| Act::Gated { shift, poly };
    vec![
        Act::Identity,
        Act::Relu,
        gated(3, [150, -700, 900, -400, 120, -30]),
        gated(0, [32767, 0, 0, 0, 0, 0]),
        gated(8, [0, 0, 0, 0, 0, -32767]),
        gated(1, [-8000, 8000, -8000, 8000, 700, -60]),
    ]
}

fn requant(random: &mut Random, case: &Case, act: Act) -> Requant {
    let padded = case.c_out.next_multiple_of(16);
    let most = if case.extreme { 1 << 30 } else { 5000 };
    // So large that p saturates here and there.
    let scale = if case.extreme { 0.9 } else { 0.7 };
    let scales = (0..padded).map(|c| scale / (1 + c % 5) as f32).collect();
    let offset = STORED_OFFSET;
    let bias = (0..padded).map(|_| random.below(2 * most) as i32 - most as i32).collect();
    let zeros = |random: &mut Random| random.shorts(padded, -offset, 255 - offset);
    let zero = zeros(random);
    let residual =
        case.residual.then(|| Residual { zero: zeros(random), mult: random.shorts(padded, 0, 32767) });
    let mult = if case.float {
        Vec::new()
    } else {
        random.shorts(padded, 0, if case.extreme { 32767 } else { 900 })
    };
    let act = if case.float { Act::Identity } else { act };
    Requant { bias, scale: scales, act, mult, zero, residual }
}

/// The views of a case in one arena, and the arena's length.
fn views(case: &Case) -> (View, View, View, Window, usize) {
    let Case { size: (height, width), kernel, stride, dilation, gap, .. } = *case;
    let pad = kernel / 2 * dilation;
    let side = |n: usize| (n + 2 * pad).saturating_sub((kernel - 1) * dilation + 1) / stride + 1;
    let element = if case.float { 4 } else { 1 };
    let view = |offset: usize, (height, width), channels: usize, element: usize| View {
        offset,
        height,
        width,
        channels,
        element,
        stride: (channels * element).next_multiple_of(4) + gap,
    };
    let out_size = (side(height), side(width));
    let input = view(gap, (height, width), case.c_in, 1);
    let output = view((input.end() + 64).next_multiple_of(64) + gap, out_size, case.c_out, element);
    let residual = view((output.end() + 64).next_multiple_of(64) + gap, out_size, case.c_out, 1);
    let window = Window { kernel, stride, dilation, pad_top: pad, pad_left: pad };
    (input, output, residual, window, residual.end() + 64)
}

/// Runs a case on both sides, and compares the whole arena: what lies around the output stays. Gives
/// whether the kernels for wide inputs were among them.
fn check(shim: &Shim, case: Case, act: Act) -> bool {
    let mut random = Random(SplitMix64(case.c_in as u64 * 31 + case.c_out as u64));
    let (input, output, residual, window, len) = views(&case);
    let taps = case.kernel * case.kernel;
    let noise = random.bytes(len).into_iter().map(|b| if case.extreme { b / 128 * 255 } else { b });
    // Activations; the CPU's arena holds them as it stores them.
    let noise: Vec<u8> = noise.collect();
    let per_channel = if case.depthwise { 1 } else { case.c_in };
    let plain = random.weights(case.c_out * per_channel * taps, case.extreme);
    let pad_row = random.bytes(case.c_in.next_multiple_of(16));
    let stored_pads: Vec<u8> = pad_row.iter().map(|&q| store(q)).collect();
    let requant = requant(&mut random, &case, act);
    let packed = if case.depthwise {
        pack::depthwise(case.c_out, taps, &plain)
    } else {
        pack::dense(Layout::N16K4, pack::Shape::plain(case.c_out, case.c_in, taps), &plain)
    };
    let weights = Arena::of_weights(&packed);

    let mut arena = Arena::new(len);
    arena.bytes_mut().iter_mut().zip(&noise).for_each(|(to, &q)| *to = store(q));
    Team::new(1).unwrap().frame(|crew| {
        if case.depthwise {
            let job = DepthwiseJob {
                input,
                output,
                window,
                weights: weights.signed(),
                pad_row: &stored_pads,
                requant: &requant,
            };
            ops::depthwise(&Scalar, crew, &mut arena, &job).unwrap();
        } else {
            let job = ConvJob {
                input,
                output,
                window,
                weights: weights.signed(),
                pad_row: &stored_pads,
                requant: &requant,
                residual: case.residual.then_some(residual),
            };
            ops::conv(&Scalar, crew, &mut arena, &job).unwrap();
        }
    });

    let (mut weights_region, placed) = conv_region(&case, &packed, &pad_row, &plain, &requant);
    let ConvArgs { weights, pad_row, sums, constants, .. } = placed;
    let views = (&input, &output, case.residual.then_some(&residual));
    let args = ConvArgs {
        weights,
        pad_row,
        sums,
        constants,
        ..ConvArgs::of(views, &window, requant.act, case.float)
    };
    let kernels: &[(Kernel, [usize; 2])] = if case.depthwise {
        &[(Kernel::Depthwise, [0; 2])]
    } else {
        &[
            (Kernel::Conv64x64, [64, 64]),
            (Kernel::Conv128x32, [128, 32]),
            (Kernel::Conv256x16, [256, 16]),
            (Kernel::Square64x64, [64, 64]),
            (Kernel::Square128x32, [128, 32]),
            (Kernel::Square256x16, [256, 16]),
            // The last three want wide inputs.
            (Kernel::Tensor64x64, [64, 64]),
            (Kernel::Tensor128x32, [128, 32]),
            (Kernel::Tensor256x16, [256, 16]),
        ]
    };
    let kernels = if case.depthwise || wide(&input) { kernels } else { &kernels[..6] };
    // Numbers in f32 are no activations: the CPU's bytes of them are as they are.
    let float_bytes = |at: usize| {
        let inside = at.checked_sub(output.offset).is_some_and(|d| d % output.stride < 4 * output.channels);
        case.float && inside && at < output.end()
    };
    let wanted: Vec<u8> =
        arena.bytes().iter().enumerate().map(|(at, &b)| if float_bytes(at) { b } else { load(b) }).collect();
    for &(kernel, tile) in kernels {
        let grid = match tile {
            [0, _] => [(output.pixels() * case.c_out.div_ceil(4)).div_ceil(128), 1],
            [pixels, channels] => [output.pixels().div_ceil(pixels), case.c_out.div_ceil(channels)],
        };
        let mut words = vec![0u128; len.div_ceil(16)];
        let found: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        found[..len].copy_from_slice(&noise);
        let region: &mut [u8] = bytemuck::cast_slice_mut(&mut weights_region);
        shim.launch(kernel, grid, [found, region, &mut [], &mut []], &args.words());
        let differ = found[..len].iter().zip(&wanted).position(|(a, b)| a != b);
        assert_eq!(differ, None, "{kernel:?} {case:?} {act:?}: output at {}", output.offset);
    }
    kernels.iter().any(|&(kernel, _)| kernel == Kernel::Tensor64x64)
}

/// Weights, zero points and epilogue as the engine uploads them.
fn conv_region(
    case: &Case,
    packed: &[i8],
    pad_row: &[u8],
    plain: &[i8],
    requant: &Requant,
) -> (Vec<u128>, ConvArgs) {
    let mut region: Vec<u8> = Vec::new();
    let mut push = |bytes: &[u8]| {
        let offset = region.len();
        region.extend_from_slice(bytes);
        region.resize((region.len() + 64).next_multiple_of(64), 0);
        Region::Weights.at(offset)
    };
    let padded = requant.bias.len();
    // What the CPU's operands have less, times the weights' sum.
    let per_channel = plain.len() / case.c_out;
    let sum = |c: usize| plain[c * per_channel..][..per_channel].iter().map(|&w| i32::from(w)).sum::<i32>();
    let start = |c: usize| match c < case.c_out {
        true => requant.bias[c].wrapping_sub(STORED_OFFSET * sum(c)) as u32,
        false => 0,
    };
    let sums: Vec<u32> = (0..padded).map(start).chain(requant.scale.iter().map(|s| s.to_bits())).collect();
    let wide = |values: &[i16], by: i32| values.iter().map(|&v| i32::from(v) + by).collect::<Vec<_>>();
    let mut constants = match case.float {
        true => vec![0; 2 * padded],
        false => [wide(&requant.mult, 0), wide(&requant.zero, STORED_OFFSET)].concat(),
    };
    if let Some(residual) = &requant.residual {
        constants.extend(wide(&residual.mult, 0));
        constants.extend(wide(&residual.zero, STORED_OFFSET));
    }
    let args = ConvArgs {
        weights: push(bytemuck::cast_slice(packed)),
        pad_row: push(pad_row),
        sums: push(bytemuck::cast_slice(&sums)),
        constants: push(bytemuck::cast_slice(&constants)),
        ..ConvArgs::default()
    };
    let mut words = vec![0u128; region.len() / 16];
    bytemuck::cast_slice_mut::<u128, u8>(&mut words).copy_from_slice(&region);
    (words, args)
}

#[test]
fn convolutions_equal_scalar() {
    let Some((shim, _turn)) = shim() else { return };
    let (cases, acts) = (cases(), acts());
    let (mut ran, mut on_fragments) = (0, 0);
    for (i, case) in cases.iter().enumerate() {
        // The last ones, of extremes, with every activation.
        let acts = if case.extreme { &acts[..] } else { &acts[i % acts.len()..][..1] };
        for &act in acts {
            on_fragments += usize::from(check(shim, *case, act));
            ran += 1;
        }
    }
    assert!(ran > 130 && on_fragments > 40, "{ran} {on_fragments}");
}

#[test]
fn pools_enlargements_and_sums_equal_scalar() {
    let Some((shim, _turn)) = shim() else { return };
    let mut random = Random(SplitMix64(9));
    for (height, width, channels, gap, size) in
        [(1, 1, 1, 0, 3), (5, 7, 8, 0, 5), (9, 4, 13, 1, 7), (3, 3, 66, 2, 1), (70, 31, 130, 0, 5)]
    {
        let stride = channels + gap;
        let input = View { stride, ..View::dense(gap, height, width, channels) };
        let offset = (input.end() + 64).next_multiple_of(64) + gap;
        let pooled = View { offset, ..input };
        let factor = size.min(3);
        let large =
            View { offset: pooled.end() + 8, height: height * factor, width: width * factor, ..input };
        let len = large.end() + 64;
        let noise = random.bytes(len);
        let mut arena = Arena::new(len);
        arena.bytes_mut().iter_mut().zip(&noise).for_each(|(to, &q)| *to = store(q));
        let mut wanted_sums = vec![0; channels];
        Team::new(1).unwrap().frame(|crew| {
            ops::max_pool(&Scalar, crew, &mut arena, (input, pooled), size).unwrap();
            ops::upsample(crew, &mut arena, (input, large), factor).unwrap();
            ops::channel_sums(&Scalar, crew, &arena, input, &mut wanted_sums).unwrap();
        });
        let wanted: Vec<u8> = arena.bytes().iter().map(|&b| load(b)).collect();

        let mut words = vec![0u64; len.div_ceil(8)];
        let found: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        found[..len].copy_from_slice(&noise);
        let aligned = |view: &View| (view.offset | view.stride).is_multiple_of(4);
        for (kernel, output, size) in [(Kernel::MaxPool, pooled, size), (Kernel::Enlarge, large, factor)] {
            let args = PictureArgs {
                a: Region::Arena.at(input.offset),
                output: Region::Arena.at(output.offset),
                height: output.height as u32,
                width: output.width as u32,
                channels: channels as u32,
                a_stride: input.stride as u32,
                out_stride: output.stride as u32,
                size: size as u32,
                aligned: (aligned(&input) && aligned(&output)).into(),
                ..PictureArgs::default()
            };
            let grid = [(output.pixels() * channels.div_ceil(4)).div_ceil(128), 1];
            shim.launch(kernel, grid, [found, &mut [], &mut [], &mut []], &args.words());
        }
        assert!(found[..len] == wanted, "{height}x{width}x{channels}");

        let runs = 3;
        let mut partial = vec![0u32; runs * channels];
        let args = SumArgs {
            input: Region::Arena.at(input.offset),
            partial: Region::Scratch.at(0),
            pixels: input.pixels() as u32,
            stride: input.stride as u32,
            channels: channels as u32,
            run: input.pixels().div_ceil(runs) as u32,
            aligned: aligned(&input).into(),
        };
        let grid = [input.pixels().div_ceil(args.run as usize), channels.div_ceil(64)];
        let scratch = bytemuck::cast_slice_mut(&mut partial);
        shim.launch(Kernel::ChannelSums, grid, [found, &mut [], scratch, &mut []], &args.words());
        let sums: Vec<u32> = (0..channels).map(|c| partial.iter().skip(c).step_by(channels).sum()).collect();
        assert_eq!(sums, wanted_sums);
    }
}

/// Mixing as the CPU does it; start values as those of a CPU whose operands are less by 128 as well.
#[test]
fn mixing_equals_the_cpu() {
    let Some((shim, _turn)) = shim() else { return };
    for (c_out, c_in, taps, count) in
        [(1, 1, 1, 1), (16, 4, 9, 4), (33, 7, 9, 3), (20, 300, 1, 32), (40, 5, 49, 2)]
    {
        for offset in [0u32, 128] {
            mix(shim, (c_out, c_in, taps, count), offset);
        }
    }
}

fn mix(shim: &Shim, (c_out, c_in, taps, count): (usize, usize, usize, usize), offset: u32) {
    let mut random = Random(SplitMix64(c_in as u64));
    let padded = c_out.next_multiple_of(16);
    let plain: Vec<Vec<i8>> = (0..count).map(|_| random.weights(c_out * c_in * taps, count == 32)).collect();
    let experts = pack::dense_experts(Layout::N16K4, pack::Shape::plain(c_out, c_in, taps), &plain);
    // A channel of zeros: its greatest weight is 0.
    let alpha = |e: usize, c: usize| if c == 0 { 0 } else { ((e * 977 + c * 31) % 4097) as i32 };
    let alpha: Vec<i32> = (0..count * padded).map(|i| alpha(i / padded, i % padded)).collect();
    let zeros = random.bytes(c_in.next_multiple_of(4));
    let stored: Vec<u8> = zeros.iter().map(|&q| store(q)).collect();
    let len = Layout::N16K4.packed_len(c_out, taps, c_in);
    let (mut mixed, mut maxima, mut zero_sums) = (vec![0i8; len], vec![0; padded], vec![0; padded]);
    let job = MixJob {
        layout: Layout::N16K4,
        c_out,
        taps,
        depth: c_in,
        count,
        experts: &experts,
        alpha: &alpha,
        pad_row: &stored,
    };
    let out = Mixed { weights: &mut mixed, maxima: &mut maxima, zero_sums: &mut zero_sums };
    Team::new(1).unwrap().frame(|crew| ops::mix(crew, &job, out)).unwrap();

    let mut scratch: Vec<u8> = Vec::new();
    let mut push = |bytes: &[u8]| {
        let at = scratch.len();
        scratch.extend_from_slice(bytes);
        scratch.resize((scratch.len() + 64).next_multiple_of(64), 0);
        Region::Scratch.at(at)
    };
    let bias: Vec<f32> = (0..padded).map(|c| c as f32 * 0.37 - 2.0).collect();
    let steps: Vec<f32> = (0..padded).map(|c| 1e-5 * (1 + c) as f32).collect();
    let shares: Vec<f32> = (0..count).map(|e| 1.0 / (1 + e) as f32).collect();
    let expert_bias: Vec<f32> = (0..count * padded).map(|i| i as f32 * 0.01).collect();
    let unit = 3e-4f32;
    let args = MixArgs {
        experts: push(bytemuck::cast_slice(&experts)),
        alpha: push(bytemuck::cast_slice(&alpha)),
        alpha_step: push(bytemuck::cast_slice(&steps)),
        routing: push(bytemuck::cast_slice(&shares)),
        bias: push(bytemuck::cast_slice(&bias)),
        expert_bias: push(bytemuck::cast_slice(&expert_bias)),
        zeros: push(&zeros),
        mixed: push(&vec![0xa5; len]),
        sums: push(&vec![0xa5; 8 * padded]),
        cells: (taps * c_in.div_ceil(4)) as u32,
        depth: c_in.div_ceil(4) as u32,
        count: count as u32,
        padded: padded as u32,
        channels: c_out as u32,
        products: (c_in * taps) as u32,
        unit: unit.to_bits(),
        offset,
    };
    let mut words = vec![0u128; scratch.len() / 16];
    let region: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    region.copy_from_slice(&scratch);
    shim.launch(Kernel::MixDense, [padded / 16, 1], [&mut [], &mut [], region, &mut []], &args.words());
    let place = |reference: u32| (reference & (Region::LIMIT as u32 - 1)) as usize;
    assert!(
        region[place(args.mixed)..][..len] == *bytemuck::cast_slice::<i8, u8>(&mixed),
        "{c_out} {c_in} {taps} {count}"
    );

    let sums: &[u32] = bytemuck::cast_slice(&region[place(args.sums)..][..8 * padded]);
    let ones = vec![1u8; c_in.next_multiple_of(4)];
    let weight_sums = pack::zero_sums(Layout::N16K4, &mixed, (c_out, taps, c_in), &ones);
    for c in 0..c_out {
        // `engine::constants::set_channel`, in the terms of a machine with this offset.
        let mixed_bias = (0..count).fold(bias[c], |sum, e| sum + shares[e] * expert_bias[e * padded + c]);
        let step = (maxima[c] as f32 / 127.0 * steps[c]).max(unit * 1e-6);
        // The CPU's zero sums are those of its own offset.
        let zero_sum = zero_sums[c] + (STORED_OFFSET - offset as i32) * weight_sums[c];
        let start = (f64::from(mixed_bias) / f64::from(step)).round_ties_even().clamp(-1e9, 1e9) as i32;
        let start = start.saturating_sub(zero_sum);
        let largest = (c_in * taps) as f64 * 255.0 * 127.0 + f64::from(start).abs();
        let scale = (step / unit).min((2_130_000_000.0 / largest) as f32);
        let moved = start.wrapping_sub(offset as i32 * weight_sums[c]) as u32;
        assert_eq!((sums[c], sums[padded + c]), (moved, scale.to_bits()), "channel {c}, offset {offset}");
    }
}
