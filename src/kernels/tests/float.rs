//! Operations in f32 against plain loops, bit for bit, on several counts of threads.

use super::*;
use crate::kernels::f32::{COLUMNS, pack};
use crate::kernels::ops::*;

impl Random {
    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.within(-4000, 4000) as f32 / 1024.0).collect()
    }
}

/// An f32 view whose pixels lie `gap` numbers further apart than they are long.
fn view(offset: usize, (height, width, channels): (usize, usize, usize), gap: usize) -> View {
    View { offset, height, width, channels, element: 4, stride: 4 * (channels + gap) }
}

fn fill(arena: &mut Arena, random: &mut Random) {
    let values = random.floats(arena.len() / 4);
    arena.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
}

fn pixel(arena: &[u8], view: &View, at: usize) -> Vec<f32> {
    let bytes = &arena[view.offset + at * view.stride..][..4 * view.channels];
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect()
}

/// Runs `op` on arenas of the same content; the output must be `wanted` and all other bytes as before.
fn same_everywhere(
    arena: &Arena,
    output: View,
    wanted: &[Vec<f32>],
    op: &dyn Fn(&Crew<'_>, &mut Arena) -> Result<(), OpError>,
) {
    let mut expected = arena.bytes().to_vec();
    for (at, values) in wanted.iter().enumerate() {
        let to = output.offset + at * output.stride;
        expected[to..to + 4 * output.channels].copy_from_slice(bytemuck::cast_slice(values));
    }
    for threads in 1..=3 {
        let mut copy = Arena::new(arena.len());
        copy.bytes_mut().copy_from_slice(arena.bytes());
        let mut team = Team::new(threads).expect("threads");
        assert_eq!(team.frame(|crew| op(crew, &mut copy)), Ok(()));
        assert!(copy.bytes() == expected, "{output:?}, {threads} threads");
    }
}

fn activate(act: FloatAct, v: f32) -> f32 {
    match act {
        FloatAct::Identity => v,
        FloatAct::Relu => v.max(0.0),
        FloatAct::Relu6 => v.clamp(0.0, 6.0),
        FloatAct::Silu => v / (1.0 + crate::kernels::f32::exp(-v)),
        FloatAct::Hardswish => v * ((v + 3.0).clamp(0.0, 6.0) / 6.0),
        FloatAct::LeakyRelu(slope) => v * if v < 0.0 { slope } else { 1.0 },
    }
}

const ACTS: [FloatAct; 6] = [
    FloatAct::Identity,
    FloatAct::Relu,
    FloatAct::Relu6,
    FloatAct::Silu,
    FloatAct::Hardswish,
    FloatAct::LeakyRelu(-0.25),
];

#[derive(Clone, Copy)]
struct Case {
    size: (usize, usize),
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    gap: usize,
    depthwise: bool,
}

fn check_conv(case: &Case, act: FloatAct, residual: bool, random: &mut Random) {
    let Case { size: (h, w), channels: (c_in, c_out), kernel, stride, dilation, pad, gap, depthwise } = *case;
    let place = |n: usize| (n + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
    let input = view(8, (h, w, c_in), gap);
    let output = view(input.end().next_multiple_of(4) + 4, (place(h), place(w), c_out), gap);
    let sum = View { offset: output.end() + 4, ..output };
    let mut arena = Arena::new(sum.end() + 4);
    fill(&mut arena, random);
    let (taps, depth) = (kernel * kernel, if depthwise { 1 } else { c_in });
    let (weights, bias) = (random.floats(taps * depth * c_out), random.floats(c_out));
    let mut wanted = Vec::new();
    for at in 0..output.pixels() {
        let (oy, ox) = (at / output.width, at % output.width);
        let mut sums = bias.clone();
        for tap in 0..taps {
            let y = (oy * stride + tap / kernel * dilation).wrapping_sub(pad);
            let x = (ox * stride + tap % kernel * dilation).wrapping_sub(pad);
            let from = if y < h && x < w { pixel(arena.bytes(), &input, y * w + x) } else { vec![0.0; c_in] };
            for (o, sum) in sums.iter_mut().enumerate() {
                for k in 0..depth {
                    *sum += from[if depthwise { o } else { k }] * weights[(tap * depth + k) * c_out + o];
                }
            }
        }
        let added = if residual { pixel(arena.bytes(), &sum, at) } else { vec![0.0; c_out] };
        let out = sums
            .iter()
            .zip(added)
            .map(|(&v, r)| if residual { activate(act, v) + r } else { activate(act, v) });
        wanted.push(out.collect());
    }
    let panels = if depthwise { weights } else { pack(&weights, c_out) };
    let zeros = vec![0.0; c_in];
    let job = FloatConvJob {
        input,
        output,
        window: Window { kernel, stride, dilation, pad_top: pad, pad_left: pad },
        depthwise,
        weights: &panels,
        bias: &bias,
        zeros: &zeros,
        act,
        residual: residual.then_some(sum),
    };
    same_everywhere(&arena, output, &wanted, &|crew, arena| float_conv(crew, arena, &job));
}

#[test]
fn convolutions_equal_plain_loops() {
    let mut random = Random::new(3);
    let base = Case {
        size: (5, 9),
        channels: (3, 8),
        kernel: 3,
        stride: 1,
        dilation: 1,
        pad: 1,
        gap: 0,
        depthwise: false,
    };
    let cases = [
        base,
        Case { size: (1, 1), channels: (1, 1), kernel: 1, pad: 0, ..base },
        Case { channels: (5, COLUMNS - 1), gap: 3, ..base },
        Case { channels: (4, COLUMNS), stride: 2, ..base },
        Case { channels: (7, 2 * COLUMNS + 1), kernel: 1, pad: 0, ..base },
        Case { size: (8, 8), channels: (16, 40), kernel: 6, stride: 2, pad: 2, ..base },
        Case { size: (7, 20), dilation: 2, pad: 2, ..base },
        Case { size: (2, 2), kernel: 7, pad: 3, ..base },
        Case { size: (40, 40), channels: (32, 33), ..base },
        Case { channels: (19, 19), depthwise: true, ..base },
        Case { channels: (33, 33), kernel: 5, stride: 2, pad: 2, gap: 1, depthwise: true, ..base },
    ];
    for (index, case) in cases.iter().enumerate() {
        for (act, residual) in [(ACTS[index % 6], true), (ACTS[(index + 1) % 6], false)] {
            check_conv(case, act, residual, &mut random);
        }
    }
    for act in ACTS {
        check_conv(&base, act, true, &mut random);
    }
}

#[test]
fn activations_never_open_which_zero_it_is() {
    for act in [FloatAct::Relu, FloatAct::Relu6] {
        let mut values = [-0.0, 0.0, -1.0, f32::NAN, 1.0];
        act.apply(&mut values);
        assert_eq!(values.map(f32::to_bits), [0.0f32, 0.0, 0.0, 0.0, 1.0].map(f32::to_bits), "{act:?}");
    }
}

#[test]
fn maps_equal_plain_loops() {
    let mut random = Random::new(4);
    for shape in [(1, 1, 1), (5, 7, 17), (40, 33, 40)] {
        let a = view(0, shape, 0);
        let b = view(a.end() + 4, shape, 2);
        let output = view(b.end() + 8, shape, 1);
        let mut arena = Arena::new(output.end() + 12);
        fill(&mut arena, &mut random);
        let pixels =
            |view: &View| (0..view.pixels()).map(|at| pixel(arena.bytes(), view, at)).collect::<Vec<_>>();
        let (of_a, of_b) = (pixels(&a), pixels(&b));
        let sum: Vec<Vec<f32>> =
            of_a.iter().zip(&of_b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect();
        same_everywhere(&arena, output, &sum, &|crew, arena| float_add(crew, arena, ([a, b], output)));
        let factors = random.floats(shape.2);
        let scaled: Vec<Vec<f32>> =
            of_b.iter().map(|b| b.iter().zip(&factors).map(|(x, f)| x * f).collect()).collect();
        same_everywhere(&arena, output, &scaled, &|crew, arena| {
            float_scale(crew, arena, (b, output), &factors)
        });
        for window in [1, 3, 5] {
            let wanted: Vec<Vec<f32>> = (0..b.pixels())
                .map(|at| {
                    let (y, x, reach) = (at / b.width, at % b.width, window / 2);
                    let near = (0..b.pixels())
                        .filter(|o| (o / b.width).abs_diff(y) <= reach && (o % b.width).abs_diff(x) <= reach);
                    near.map(|o| of_b[o].clone())
                        .reduce(|m, v| m.iter().zip(v).map(|(m, v)| m.max(v)).collect())
                        .expect("itself")
                })
                .collect();
            same_everywhere(&arena, output, &wanted, &|crew, arena| {
                float_max_pool(crew, arena, (b, output), window)
            });
        }
        let mut sums = vec![0.0; shape.2];
        let mut wanted = vec![0.0; shape.2];
        of_b.iter().for_each(|p| wanted.iter_mut().zip(p).for_each(|(s, &v)| *s += f64::from(v)));
        for threads in 1..=3 {
            let mut team = Team::new(threads).expect("threads");
            team.frame(|crew| float_sums(crew, &arena, b, &mut sums)).expect("fits");
            assert_eq!(sums, wanted);
        }
    }
}

#[test]
fn mixing_equals_plain_loops() {
    let mut random = Random::new(5);
    for len in [0, 1, 17, 40_000] {
        let (experts, routing) = (random.floats(3 * len), random.floats(3));
        let wanted: Vec<f32> =
            (0..len).map(|i| (0..3).fold(0.0, |sum, e| sum + routing[e] * experts[e * len + i])).collect();
        for threads in 1..=3 {
            let mut mixed = vec![9.0; len];
            let mut team = Team::new(threads).expect("threads");
            team.frame(|crew| float_mix(crew, &experts, &routing, &mut mixed)).expect("fits");
            assert_eq!(mixed, wanted);
        }
    }
}

#[test]
fn bytes_survive_the_way_to_f32_and_back() {
    let bytes = View { offset: 0, height: 16, width: 16, channels: 1, element: 1, stride: 4 };
    let floats = view(1024, (16, 16, 1), 1);
    let back = View { offset: floats.end() + 4, ..bytes };
    let mut arena = Arena::new(back.end());
    (0..=255u8).for_each(|q| arena.bytes_mut()[4 * usize::from(q)] = store(q));
    for (step, zero) in [(1.0, 0), (0.03, 128), (7e-4, 255)] {
        let mut team = Team::new(2).expect("threads");
        team.frame(|crew| {
            dequantise(crew, &mut arena, (bytes, floats), &[step], &[zero])?;
            quantise(crew, &mut arena, (floats, back), &[step], &[zero])
        })
        .expect("fits");
        for q in 0..256 {
            let found = pixel(arena.bytes(), &floats, q)[0];
            assert_eq!(found, (q as f32 - f32::from(zero)) * step);
            assert_eq!(load(arena.bytes()[back.offset + 4 * q]), q as u8);
        }
    }
}

#[test]
fn quantising_rounds_halves_up_and_takes_anything() {
    let input = view(0, (1, 9, 1), 0);
    let output = View { offset: 64, height: 1, width: 9, channels: 1, element: 1, stride: 1 };
    let values = [0.25, 0.74, 0.75, -5.5, -1e30, 1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mut arena = Arena::new(73);
    arena.bytes_mut()[..36].copy_from_slice(bytemuck::cast_slice(&values));
    let mut team = Team::new(1).expect("no thread");
    team.frame(|crew| quantise(crew, &mut arena, (input, output), &[0.5], &[10])).expect("fits");
    let found: Vec<u8> = arena.bytes()[64..].iter().map(|&b| load(b)).collect();
    assert_eq!(found, [11, 11, 12, 0, 0, 255, 0, 255, 0]);
}

#[test]
fn each_fault_is_refused() {
    let (input, output) = (view(0, (2, 2, 4), 0), view(64, (2, 2, 4), 0));
    let (weights, bias, zeros) = (vec![0.0; 4 * COLUMNS], [0.0; 4], [0.0; 4]);
    let with = |change: &dyn Fn(&mut FloatConvJob<'_>)| {
        let mut job = FloatConvJob {
            input,
            output,
            window: Window { kernel: 1, stride: 1, dilation: 1, pad_top: 0, pad_left: 0 },
            depthwise: false,
            weights: &weights,
            bias: &bias,
            zeros: &zeros,
            act: FloatAct::Relu,
            residual: None,
        };
        change(&mut job);
        let mut arena = Arena::new(192);
        Team::new(1).expect("no thread").frame(|crew| float_conv(crew, &mut arena, &job))
    };
    assert_eq!(with(&|_| {}), Ok(()));
    let short = |what, have, want| Err(OpError::Short { what, have, want });
    assert!(matches!(with(&|j| j.input.offset = 132), Err(OpError::Outside { what: "input", .. })));
    assert!(matches!(with(&|j| j.output.offset = 132), Err(OpError::Outside { what: "output", .. })));
    assert_eq!(with(&|j| j.input.offset = 130), Err(OpError::Outside { what: "input", end: 194, len: 192 }));
    assert_eq!(with(&|j| j.input.offset = 126), Err(OpError::Offset { what: "input" }));
    assert_eq!(with(&|j| j.output.stride = 18), Err(OpError::Offset { what: "output" }));
    assert_eq!(with(&|j| j.output.stride = 12), Err(OpError::Stride { bytes: 16, stride: 12 }));
    assert_eq!(with(&|j| j.output.offset = 60), Err(OpError::Overlap { what: "input" }));
    let bytes = Err(OpError::Element { what: "input", element: 1, wanted: 4 });
    assert_eq!(with(&|j| j.input.element = 1), bytes);
    assert_eq!(with(&|j| j.window.kernel = 8), Err(OpError::Window { size: 8 }));
    assert_eq!(with(&|j| j.window.dilation = usize::MAX), Err(OpError::Geometry { size: usize::MAX }));
    assert_eq!(with(&|j| j.weights = &j.weights[1..]), short("weights", 127, 128));
    assert_eq!(with(&|j| j.bias = &[0.0; 3]), short("bias", 3, 4));
    assert_eq!(with(&|j| j.zeros = &[0.0; 3]), short("zeros", 3, 4));
    assert!(matches!(
        with(&|j| (j.depthwise, j.input.channels) = (true, 3)),
        Err(OpError::Shape { what: "output", .. })
    ));
    assert_eq!(with(&|j| j.residual = Some(j.output)), Err(OpError::Overlap { what: "residual" }));
    let wide = view(0, (2, 1, 4), 0);
    assert!(matches!(with(&|j| j.residual = Some(wide)), Err(OpError::Shape { what: "residual", .. })));

    let mut arena = Arena::new(192);
    let bytes = View::dense(128, 2, 2, 4);
    Team::new(1).expect("no thread").frame(|crew| {
        assert_eq!(
            float_add(crew, &mut arena, ([input, output], output)),
            Err(OpError::Overlap { what: "input" })
        );
        assert_eq!(float_scale(crew, &mut arena, (input, output), &[1.0]), short("factors", 1, 4));
        assert_eq!(float_sums(crew, &arena, input, &mut [0.0; 3]), short("sums", 3, 4));
        assert_eq!(float_mix(crew, &[0.0; 5], &[1.0; 2], &mut [0.0; 3]), short("experts", 5, 6));
        assert_eq!(float_max_pool(crew, &mut arena, (input, output), 4), Err(OpError::Window { size: 4 }));
        assert_eq!(dequantise(crew, &mut arena, (bytes, input), &[1.0; 3], &[0; 4]), short("step", 3, 4));
        assert_eq!(dequantise(crew, &mut arena, (bytes, input), &[1.0; 4], &[0; 3]), short("zero", 3, 4));
        assert_eq!(quantise(crew, &mut arena, (input, bytes), &[1.0; 3], &[0; 4]), short("step", 3, 4));
        let inside = View { offset: 60, ..bytes };
        assert_eq!(
            quantise(crew, &mut arena, (input, inside), &[1.0; 4], &[0; 4]),
            Err(OpError::Overlap { what: "input" })
        );
    });
}
