//! Dense and depthwise convolution against their definitions.

use super::*;
use crate::kernels::ops::{ConvJob, DepthwiseJob, Runs, Window, conv, conv_runs, depthwise};
use proptest::prelude::*;

/// A convolution of some shape, in an arena of noise.
#[derive(Debug, Clone, Copy)]
struct Case {
    c_in: usize,
    c_out: usize,
    height: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Bytes between pixels beyond their channels, in input, output and residual.
    gap: usize,
    act: Act,
    kind: Kind,
    /// Input bytes and weights are the extremes only.
    extreme: bool,
}

impl Case {
    fn new(c_in: usize, c_out: usize, (height, width): (usize, usize), kernel: usize) -> Self {
        let (stride, dilation, gap, act, kind) = (1, 1, 0, Act::Identity, Kind::Plain);
        Self { c_in, c_out, height, width, kernel, stride, dilation, gap, act, kind, extreme: false }
    }

    fn pad(&self) -> usize {
        self.kernel / 2 * self.dilation
    }

    fn out_size(&self, side: usize) -> usize {
        if side == 0 {
            0
        } else {
            (side + 2 * self.pad()).saturating_sub((self.kernel - 1) * self.dilation + 1) / self.stride + 1
        }
    }

    fn seed(&self) -> u64 {
        [self.c_in, self.c_out, self.height, self.width, self.kernel, self.stride, self.gap]
            .iter()
            .fold(self.kind as u64, |seed, &n| seed.wrapping_mul(31).wrapping_add(n as u64))
    }
}

/// All that a case needs, drawn from its seed.
struct Setup {
    case: Case,
    input: View,
    output: View,
    residual: Option<View>,
    noise: Vec<u8>,
    weights: Vec<i8>,
    pad_row: Vec<u8>,
    requant: Requant,
}

impl Setup {
    fn new(case: Case, depthwise: bool) -> Self {
        let mut random = Random::new(case.seed());
        let Case { c_in, c_out, height, width, kernel, gap, .. } = case;
        let element = if case.kind == Kind::Float { 4 } else { 1 };
        let view = |offset, height, width, channels, element| View {
            offset,
            height,
            width,
            channels,
            element,
            stride: channels * element + gap,
        };
        let (oh, ow) = (case.out_size(height), case.out_size(width));
        let input = view(5 * gap, height, width, c_in, 1);
        let output = view(input.end() + 16, oh, ow, c_out, element);
        let residual = (case.kind == Kind::Residual).then(|| view(output.end() + 3, oh, ow, c_out, 1));
        let len = residual.unwrap_or(output).end() + gap;
        let mut noise = random.bytes(len);
        let per_channel = if depthwise { 1 } else { c_in };
        let mut weights = random.weights(c_out * per_channel * kernel * kernel);
        if case.extreme {
            noise.iter_mut().for_each(|b| *b = if *b < 40 { 0 } else { 255 });
            weights.iter_mut().for_each(|w| *w = if *w < 100 { -127 } else { 127 });
        }
        let pad_row = random.bytes(c_in.next_multiple_of(8));
        let terms = per_channel * kernel * kernel;
        let requant = requant(&mut random, c_out, terms, case.act, case.kind);
        Self { case, input, output, residual, noise, weights, pad_row, requant }
    }

    /// The arena as the definition leaves it; `c_in` is 1 input channel for each output channel if depthwise.
    fn expected(&self, depthwise: bool) -> Vec<u8> {
        let Self { case, input, output, .. } = self;
        let mut arena = self.noise.clone();
        let taps = case.kernel * case.kernel;
        for at in 0..output.pixels() {
            let (oy, ox) = (at / output.width, at % output.width);
            for c in 0..output.channels {
                let mut acc = self.requant.bias[c];
                for tap in 0..taps {
                    let y =
                        (oy * case.stride + tap / case.kernel * case.dilation) as isize - case.pad() as isize;
                    let x =
                        (ox * case.stride + tap % case.kernel * case.dilation) as isize - case.pad() as isize;
                    let inside =
                        (0..input.height as isize).contains(&y) && (0..input.width as isize).contains(&x);
                    for k in if depthwise { c..c + 1 } else { 0..case.c_in } {
                        let at =
                            input.offset as isize + (y * input.width as isize + x) * input.stride as isize;
                        let a = if inside { self.noise[at as usize + k] } else { self.pad_row[k] };
                        let w = if depthwise { c * taps + tap } else { (c * case.c_in + k) * taps + tap };
                        acc = acc.wrapping_add(operand(a) * i32::from(self.weights[w]));
                    }
                }
                let to = output.offset + at * output.stride + c * output.element;
                if self.requant.is_float() {
                    arena[to..to + 4].copy_from_slice(&(acc as f32 * self.requant.scale[c]).to_ne_bytes());
                } else {
                    let residual = self.residual.map(|r| self.noise[r.offset + at * r.stride + c]);
                    arena[to] = self.requant.apply(c, acc, residual);
                }
            }
        }
        arena
    }

    fn run(&self, k: &dyn Kernels, team: &mut Team) -> Arena {
        self.run_some(k, team, None)
    }

    /// Computes only what `runs` has, where they are given.
    fn run_some(&self, k: &dyn Kernels, team: &mut Team, runs: Option<&Runs>) -> Arena {
        let case = &self.case;
        let packed = pack::dense(
            k.layout(),
            pack::Shape::plain(case.c_out, case.c_in, case.kernel * case.kernel),
            &self.weights,
        );
        let packed = Arena::of_weights(&packed);
        let mut arena = Arena::new(self.noise.len());
        arena.bytes_mut().copy_from_slice(&self.noise);
        let job = ConvJob {
            input: self.input,
            output: self.output,
            window: Window {
                kernel: case.kernel,
                stride: case.stride,
                dilation: case.dilation,
                pad_top: case.pad(),
                pad_left: case.pad(),
            },
            weights: packed.signed(),
            pad_row: &self.pad_row,
            requant: &self.requant,
            residual: self.residual,
        };
        team.frame(|crew| match runs {
            Some(runs) => conv_runs(k, crew, &mut arena, &job, runs),
            None => conv(k, crew, &mut arena, &job),
        })
        .expect("a good job");
        arena
    }

    fn run_depthwise(&self, k: &dyn Kernels, team: &mut Team) -> Arena {
        let case = &self.case;
        let packed = pack::depthwise(case.c_out, case.kernel * case.kernel, &self.weights);
        let mut arena = Arena::new(self.noise.len());
        arena.bytes_mut().copy_from_slice(&self.noise);
        let job = DepthwiseJob {
            input: self.input,
            output: self.output,
            window: Window {
                kernel: case.kernel,
                stride: case.stride,
                dilation: case.dilation,
                pad_top: case.pad(),
                pad_left: case.pad(),
            },
            weights: &packed,
            pad_row: &self.pad_row,
            requant: &self.requant,
        };
        team.frame(|crew| depthwise(k, crew, &mut arena, &job)).expect("a good job");
        arena
    }
}

fn check_on(case: Case, threads: usize) {
    let setup = Setup::new(case, false);
    let want = setup.expected(false);
    let mut team = Team::new(threads).expect("threads");
    for k in here() {
        let have = setup.run(k, &mut team);
        assert_eq!(difference(have.bytes(), &want), None, "{} on {case:?} into {:?}", k.name(), setup.output);
    }
}

fn check(case: Case) {
    check_on(case, 1);
}

const ACTS: [Act; 6] = [
    Act::Identity,
    Act::Relu,
    SILU,
    Act::Gated { shift: 1, poly: [3000, -5000, 32767, -32768, 9, 77] },
    Act::Gated { shift: 2, poly: [-300, 1, 2, -30000, 20000, -20000] },
    Act::Gated { shift: 3, poly: [32767, 32767, 32767, 32767, 32767, 32767] },
];

#[test]
fn pixels_around_each_tile() {
    let channels = [1, 16, 17, 32, 48, 64, 80, 96, 112, 128];
    for c_out in channels {
        let mut counts = vec![0, 1];
        for k in here() {
            let t = k.tile_for(c_out).rows;
            counts.extend([t - 1, t, t + 1, 2 * t + 1, 3 * t]);
        }
        counts.sort_unstable();
        counts.dedup();
        for pixels in counts {
            check(Case::new(8, c_out, (1, pixels), 1));
            check(Case { kind: Kind::Residual, gap: 5, ..Case::new(7, c_out, (pixels, 1), 1) });
        }
    }
}

#[test]
fn channels_around_each_block() {
    for c_out in [1, 2, 3, 4, 8, 12, 15, 16, 17, 24, 31, 47, 49, 63, 64, 65, 79, 80, 81, 144, 160] {
        for (i, kind) in [Kind::Plain, Kind::Residual, Kind::Float].into_iter().enumerate() {
            check(Case { kind, gap: i, act: SILU, ..Case::new(12, c_out, (3, 7), 1) });
        }
    }
}

#[test]
fn depths_around_each_cell() {
    for c_in in [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 33, 64, 100] {
        for (kernel, gap) in [(1, 0), (1, 1), (3, 0), (3, 9)] {
            check(Case { gap, ..Case::new(c_in, 20, (5, 9), kernel) });
        }
    }
}

/// More inputs than any kernel holds at a time.
#[test]
fn long_sums_are_made_in_parts() {
    check(Case::new(329, 20, (3, 5), 3));
    check(Case::new(1300, 20, (1, 3), 3));
}

#[test]
fn windows_strides_dilations_and_borders() {
    for kernel in [1, 3, 5, 7] {
        for stride in [1, 2, 3] {
            for dilation in [1, 2] {
                for (c_in, gap, size) in [(4, 0, (9, 23)), (3, 1, (9, 23)), (8, 8, (2, 3)), (16, 0, (1, 1))] {
                    let case = Case::new(c_in, 18, size, kernel);
                    check(Case { stride, dilation, gap, act: Act::Relu, ..case });
                }
            }
        }
    }
}

#[test]
fn each_activation_with_each_kind() {
    for act in ACTS {
        for kind in [Kind::Plain, Kind::Halves, Kind::Saturating, Kind::Residual] {
            for c_out in [16, 32, 48, 64, 80] {
                check(Case { act, kind, ..Case::new(16, c_out, (5, 7), 3) });
            }
        }
    }
}

#[test]
fn extremes() {
    for c_out in [16, 40, 64, 80] {
        for kind in [Kind::Plain, Kind::Saturating, Kind::Residual, Kind::Float] {
            check(Case { kind, extreme: true, ..Case::new(256, c_out, (4, 5), 3) });
        }
    }
}

/// `(kernel, stride, c_in, c_out)` of YOLOv8n with dynamic convolutions.
const LAYERS: [(usize, usize, usize, usize); 29] = [
    (3, 2, 3, 16),
    (3, 2, 16, 32),
    (1, 1, 32, 32),
    (3, 1, 16, 16),
    (1, 1, 48, 32),
    (3, 2, 32, 64),
    (1, 1, 64, 64),
    (3, 1, 32, 32),
    (1, 1, 128, 64),
    (3, 2, 64, 128),
    (1, 1, 128, 128),
    (3, 1, 64, 64),
    (1, 1, 256, 128),
    (3, 2, 128, 256),
    (1, 1, 256, 256),
    (3, 1, 128, 128),
    (1, 1, 384, 256),
    (1, 1, 512, 256),
    (1, 1, 384, 128),
    (1, 1, 192, 128),
    (1, 1, 192, 64),
    (1, 1, 96, 64),
    (3, 1, 64, 80),
    (3, 1, 80, 80),
    (1, 1, 80, 80),
    (3, 1, 128, 64),
    (3, 1, 128, 80),
    (3, 1, 256, 64),
    (3, 1, 256, 80),
];

#[test]
fn layers_of_the_model() {
    for (kernel, stride, c_in, c_out) in LAYERS {
        let case = Case { stride, act: SILU, ..Case::new(c_in, c_out, (7, 11), kernel) };
        check_on(case, 2);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for threads in [2, 3, 8] {
        check_on(Case { act: SILU, kind: Kind::Residual, ..Case::new(16, 48, (61, 67), 3) }, threads);
        check_on(Case { gap: 3, ..Case::new(64, 33, (50, 50), 1) }, threads);
    }
}

/// A tile of any size up to a batch of `tile()`, not only those that `tile_for` cuts.
#[test]
fn each_tile_that_the_contract_allows() {
    for k in here() {
        let Tile { rows, blocks } = k.tile();
        let pitch = rows * k.batch();
        for channels in (1..=blocks * 16).filter(|c| c % 16 < 2 || c % 16 == 7) {
            for rows in 1..=pitch {
                let mut random = Random::new((channels * 100 + rows) as u64);
                let (taps, depth) = (2, 12usize.next_multiple_of(k.layout().depth()));
                let input = random.bytes(taps * rows * depth);
                let weights = random.weights((16 + channels) * depth * taps);
                let shape = pack::Shape::plain(16 + channels, depth, taps);
                let packed = Arena::of_weights(&pack::dense(k.layout(), shape, &weights));
                let requant = requant(&mut random, 16 + channels, taps * depth, SILU, Kind::Plain);
                let pixels: Vec<*const u8> = (0..taps * pitch)
                    .map(|i| input[(i / pitch * rows + (i % pitch).min(rows - 1)) * depth..].as_ptr())
                    .collect();
                let stride = channels + 3;
                let noise = random.bytes(stride * rows + 64);
                let (mut have, mut want) = (noise.clone(), noise);
                let tile = DenseTile {
                    pixels: &pixels,
                    taps,
                    depth,
                    weights: packed.signed()[k.layout().packed_len(16, taps, depth)..].as_ptr(),
                    rows,
                    channels,
                    requant: &requant,
                    first_channel: 16,
                    out: have.as_mut_ptr(),
                    out_stride: stride,
                    residual: std::ptr::null(),
                    residual_stride: 0,
                };
                // SAFETY: pointers, weights, vectors and output have the sizes that the duties ask for.
                unsafe { k.dense(&tile) };
                for row in 0..rows {
                    for c in 0..channels {
                        let mut acc = requant.bias[16 + c];
                        for tap in 0..taps {
                            for i in 0..depth {
                                let a = operand(input[(tap * rows + row) * depth + i]);
                                acc += a * i32::from(weights[((16 + c) * depth + i) * taps + tap]);
                            }
                        }
                        want[row * stride + c] = requant.apply(16 + c, acc, None);
                    }
                }
                assert_eq!(difference(&have, &want), None, "{} {rows} x {channels}", k.name());
            }
        }
    }
}

#[test]
fn depthwise_equals_its_definition() {
    let mut cases = vec![];
    for channels in [1, 3, 15, 16, 17, 32, 48, 63, 64, 65, 130] {
        for (kernel, stride, dilation) in [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 2), (7, 1, 1)] {
            for (gap, size) in [(0, (5, 19)), (7, (1, 1)), (1, (3, 16)), (0, (0, 4))] {
                cases.push(Case { stride, dilation, gap, ..Case::new(channels, channels, size, kernel) });
            }
        }
    }
    for act in ACTS {
        for kind in [Kind::Halves, Kind::Saturating] {
            cases.push(Case { act, kind, extreme: true, ..Case::new(24, 24, (9, 9), 3) });
        }
    }
    for (i, case) in cases.into_iter().enumerate() {
        let setup = Setup::new(case, true);
        let want = setup.expected(true);
        let mut team = Team::new(1 + i % 3).expect("threads");
        for k in here() {
            let have = setup.run_depthwise(k, &mut team);
            assert_eq!(difference(have.bytes(), &want), None, "{} on {case:?}", k.name());
        }
    }
}

/// Input and output are slices of the same pixels, as where a concatenation is written in place.
#[test]
fn in_and_out_of_one_buffer() {
    for k in here() {
        let mut random = Random::new(3);
        let noise = random.bytes(6 * 7 * 48);
        let slice = |first, channels| View { stride: 48, ..View::dense(first, 6, 7, channels) };
        let weights = random.weights(16 * 16 * 9);
        let requant = requant(&mut random, 16, 144, SILU, Kind::Plain);
        let pad_row = random.bytes(16);
        let packed = Arena::of_weights(&pack::dense(k.layout(), pack::Shape::plain(16, 16, 9), &weights));
        let mut results = vec![];
        for (input, output, len) in [
            (slice(16, 16), slice(32, 16), noise.len()),
            (slice(16, 16), View::dense(noise.len(), 6, 7, 16), noise.len() + 6 * 7 * 16),
        ] {
            let mut arena = Arena::new(len);
            arena.bytes_mut()[..noise.len()].copy_from_slice(&noise);
            let job = ConvJob {
                input,
                output,
                window: Window { kernel: 3, stride: 1, dilation: 1, pad_top: 1, pad_left: 1 },
                weights: packed.signed(),
                pad_row: &pad_row,
                requant: &requant,
                residual: None,
            };
            Team::new(2).expect("threads").frame(|crew| conv(k, crew, &mut arena, &job)).expect("apart");
            let pixels = (0..42).map(|p| arena.bytes()[output.offset + p * output.stride..][..16].to_vec());
            results.push(pixels.collect::<Vec<_>>());
        }
        assert_eq!(results[0], results[1], "{}", k.name());
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(&[Kind::Plain, Kind::Halves, Kind::Saturating, Kind::Residual, Kind::Float][..])
}

/// Where `runs` has a pixel it is computed; everything else is left as it was.
fn check_some(case: Case, runs: &Runs, threads: usize) {
    let setup = Setup::new(case, false);
    let mut want = setup.noise.clone();
    let (full, output) = (setup.expected(false), setup.output);
    for at in runs.part(0..runs.pixels()).flatten() {
        let bytes = output.offset + at * output.stride..;
        let bytes = bytes.start..bytes.start + output.channels * output.element;
        want[bytes.clone()].copy_from_slice(&full[bytes]);
    }
    let mut team = Team::new(threads).expect("threads");
    for k in here() {
        let have = setup.run_some(k, &mut team, Some(runs));
        assert_eq!(difference(have.bytes(), &want), None, "{} on {case:?}, {runs:?}", k.name());
    }
}

#[test]
fn some_pixels_of_a_box_branch() {
    for (c_in, c_out, side, kernel, kind) in
        [(64, 64, 40, 3, Kind::Plain), (64, 64, 40, 1, Kind::Float), (128, 64, 20, 3, Kind::Plain)]
    {
        let case = Case { act: SILU, kind, ..Case::new(c_in, c_out, (side, side), kernel) };
        // An object of 5 x 7 cells, one at the end, and nothing.
        let (middle, corner) = (side / 2, side * side - 1);
        for list in
            [(0..35).map(|i| (middle + i / 5) * side + middle + i % 5).collect(), vec![corner], vec![]]
        {
            let mut marks = vec![0; side * side];
            list.into_iter().for_each(|at: usize| marks[at] = 1);
            let mut runs = Runs::default();
            runs.take(&marks, 8);
            assert!(marks.contains(&1) == (runs.pixels() > 0) && runs.pixels() <= 7 * 8);
            check_some(case, &runs, 2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_convolution(
        (c_in, c_out) in (1usize..40, 1usize..100),
        (height, width) in (1usize..12, 1usize..20),
        (half, stride, dilation) in (0usize..3, 1usize..3, 1usize..3),
        (gap, act, kind) in (0usize..9, 0usize..6, kinds()),
        extreme: bool,
    ) {
        let case = Case::new(c_in, c_out, (height, width), 2 * half + 1);
        check_on(Case { stride, dilation, gap, act: ACTS[act], kind, extreme, ..case }, 1 + gap % 2);
    }

    #[test]
    fn some_pixels_of_any_convolution(
        (c_in, c_out) in (1usize..20, 1usize..70),
        (height, width) in (1usize..12, 1usize..20),
        (half, stride, kind) in (0usize..2, 1usize..3, kinds()),
        (unit, every, seed) in (1usize..17, 1i64..20, 0u64..9),
    ) {
        let case = Case { stride, kind, ..Case::new(c_in, c_out, (height, width), 2 * half + 1) };
        let mut random = Random::new(seed);
        let pixels = case.out_size(height) * case.out_size(width);
        let marks: Vec<u8> = (0..pixels).map(|_| u8::from(random.within(1, every) == 1)).collect();
        let mut runs = Runs::default();
        runs.take(&marks, unit);
        check_some(case, &runs, 1 + unit % 2);
    }
}
