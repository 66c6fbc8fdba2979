//! Everything but convolution: packing, mixing, pooling, sums, maps, the requantisation rule, detection.

use super::*;
use crate::kernels::ops::*;

#[test]
fn detection() {
    let all = detect::all();
    let names: Vec<_> = all.iter().map(|c| c.name).collect();
    assert_eq!(names.last(), Some(&"scalar"));
    for c in &all {
        match c.kernels {
            Some(k) => {
                assert_eq!((k.name(), c.obstacle()), (c.name, None));
                assert_eq!(detect::by_name(c.name).expect("runs here").name(), c.name);
                let tile = k.tile();
                assert!((1..=MAX_ROWS).contains(&(tile.rows * k.batch())) && tile.blocks > 0, "{tile:?}");
                for channels in 1..400 {
                    let cut = k.tile_for(channels);
                    assert!(
                        cut.rows > 0 && cut.rows <= tile.rows && cut.blocks > 0 && cut.blocks <= tile.blocks
                    );
                }
            }
            None => {
                let error = detect::by_name(c.name).expect_err("does not run here").to_string();
                assert!(error.contains(c.name) && error.contains(c.needs), "{error}");
            }
        }
    }
    let error = detect::by_name("mmx").expect_err("no such kernel").to_string();
    assert!(error.contains("`mmx`") && error.contains("scalar"), "{error}");
}

#[test]
fn the_rule_at_its_corners() {
    assert_eq!(mulhrs_all(32767, 32767), 32766);
    assert_eq!(mulhrs_all(-32768, 32767), -32767);
    assert_eq!(mulhrs_all(1, 16384), 1);
    assert_eq!(mulhrs_all(-1, 16384), 0);
    assert_eq!(mulhrs_all(3, 16384), 2);
    let round = requant::round_sat16;
    assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5].map(round), [0, 2, 2, 0, -2]);
    assert_eq!([40000.0, -40000.0, 32767.4, -32768.5].map(round), [32767, -32768, 32767, -32768]);
    assert_eq!(Act::Relu.apply(-5), 0);
    assert_eq!(Act::Identity.apply(-5), -5);
    let flat = Act::Gated { shift: 3, poly: [7, 0, 0, 0, 0, 0] };
    assert_eq!([-32768, -100, 0, 100, 32767].map(|p| flat.apply(p)), [-7, -7, -7, 93, 32760]);
}

fn mulhrs_all(a: i16, b: i16) -> i16 {
    requant::mulhrs(a, b)
}

#[test]
fn packing() {
    let mut random = Random::new(1);
    for layout in [Layout::N16K4, Layout::N16K8] {
        for (c_out, c_in, taps, depth) in [(1, 1, 1, 1), (16, 4, 1, 4), (17, 5, 9, 5), (40, 13, 4, 22)] {
            let experts: Vec<_> = (0..3).map(|_| random.weights(c_out * c_in * taps)).collect();
            let map: Vec<usize> = (0..c_in).map(|k| k + k / 2 * (depth - c_in) / c_in.max(2)).collect();
            let shape = pack::Shape { c_out, c_in, taps, depth, k_map: Some(&map) };
            let d = layout.depth();
            let depth_cells = depth.div_ceil(d);
            let all = pack::dense_experts(layout, shape, &experts);
            assert_eq!(all.len(), 3 * c_out.div_ceil(16) * taps * depth_cells * 16 * d);
            // Read it back in the order that the module's doc gives.
            let mut at = all.iter();
            for block in 0..c_out.div_ceil(16) {
                for tap in 0..taps {
                    for cell in 0..depth_cells {
                        for expert in &experts {
                            for lane in 0..16 {
                                for k in 0..d {
                                    let (c, k) = (block * 16 + lane, cell * d + k);
                                    let from = map.iter().position(|&m| m == k).filter(|_| c < c_out);
                                    let want = from.map_or(0, |k| expert[(c * c_in + k) * taps + tap]);
                                    assert_eq!(*at.next().expect("long enough"), want);
                                }
                            }
                        }
                    }
                }
            }
            let file = pack::dense_experts(Layout::N16K4, shape, &experts);
            assert_eq!(pack::repack(layout, &file, 3, (c_out, taps, depth)), all);
            // Zero sums.
            let one = pack::dense(layout, shape, &experts[0]);
            let pad = random.bytes(depth);
            let sums = pack::zero_sums(layout, &one, (c_out, taps, depth), &pad);
            for c in 0..c_out {
                let want: i32 = (0..c_in * taps)
                    .map(|i| i32::from(experts[0][c * c_in * taps + i]) * operand(pad[map[i / taps]]))
                    .sum();
                assert_eq!(sums[c], want);
            }
        }
    }
}

/// The definition of mixing one channel: weights, maximum.
fn mix_channel(experts: &[Vec<i8>], alpha: &[i32], range: std::ops::Range<usize>) -> (Vec<i8>, i32) {
    let mixed: Vec<i32> =
        range.map(|i| experts.iter().zip(alpha).map(|(w, a)| i32::from(w[i]) * a).sum()).collect();
    let most = mixed.iter().map(|m| m.abs()).max().unwrap_or(0);
    let ratio = 127.0 / most as f32;
    let w = mixed.iter().map(|&m| if most == 0 { 0 } else { (m as f32 * ratio).round_ties_even() as i8 });
    (w.collect(), most)
}

#[test]
fn mixing_equals_its_definition() {
    let mut team = Team::new(2).expect("threads");
    for layout in [Layout::N16K4, Layout::N16K8] {
        for (c_out, c_in, taps, count) in
            [(1, 1, 1, 1), (16, 16, 9, 4), (33, 5, 9, 4), (64, 32, 9, 8), (20, 12, 1, 32), (128, 64, 9, 4)]
        {
            let mut random = Random::new((c_out + count) as u64);
            let experts: Vec<_> = (0..count).map(|_| random.weights(c_out * c_in * taps)).collect();
            let padded = c_out.next_multiple_of(16);
            let alpha: Vec<i32> = (0..padded * count)
                .map(|i| match i % padded {
                    0 if c_out > 1 => 0,
                    1 => 4096,
                    _ => random.within(-100, 4096) as i32,
                })
                .collect();
            let pad_row = random.bytes(c_in.next_multiple_of(8));
            let shape = pack::Shape::plain(c_out, c_in, taps);
            let mut have = vec![99; layout.packed_len(c_out, taps, c_in)];
            let (mut maxima, mut zero_sums) = (vec![-1; padded], vec![-1; padded]);
            let job = MixJob {
                layout,
                c_out,
                taps,
                depth: c_in,
                count,
                experts: &pack::dense_experts(layout, shape, &experts),
                alpha: &alpha,
                pad_row: &pad_row,
            };
            let out = Mixed { weights: &mut have, maxima: &mut maxima, zero_sums: &mut zero_sums };
            team.frame(|crew| mix(crew, &job, out)).expect("a good job");
            let mut want = vec![];
            for c in 0..c_out {
                let alpha: Vec<i32> = (0..count).map(|e| alpha[e * padded + c]).collect();
                let (w, most) = mix_channel(&experts, &alpha, c * c_in * taps..(c + 1) * c_in * taps);
                assert_eq!(maxima[c], most);
                assert!(most == 0 || w.iter().any(|w| w.abs() == 127));
                want.extend(w);
            }
            assert_eq!(have, pack::dense(layout, shape, &want));
            assert_eq!(zero_sums, pack::zero_sums(layout, &have, (c_out, taps, c_in), &pad_row));
        }
    }
}

#[test]
fn depthwise_mixing_equals_its_definition() {
    for (channels, taps, count) in [(1, 9, 4), (16, 9, 4), (40, 25, 3), (64, 1, 8)] {
        let mut random = Random::new(channels as u64);
        let experts: Vec<_> = (0..count).map(|_| random.weights(channels * taps)).collect();
        let padded = channels.next_multiple_of(16);
        let alpha: Vec<i32> = (0..padded * count).map(|_| random.within(0, 4096) as i32).collect();
        let pad_row = random.bytes(channels);
        let mut have = vec![99; padded * taps];
        let (mut maxima, mut zero_sums) = (vec![-1; padded], vec![-1; padded]);
        let job = DepthwiseMixJob {
            channels,
            taps,
            count,
            experts: &pack::depthwise_experts(channels, taps, &experts),
            alpha: &alpha,
            pad_row: &pad_row,
        };
        let out = Mixed { weights: &mut have, maxima: &mut maxima, zero_sums: &mut zero_sums };
        mix_depthwise(&job, out).expect("a good job");
        let mut want = vec![];
        for c in 0..channels {
            let alpha: Vec<i32> = (0..count).map(|e| alpha[e * padded + c]).collect();
            let (w, most) = mix_channel(&experts, &alpha, c * taps..(c + 1) * taps);
            assert_eq!(maxima[c], most);
            want.extend(w);
        }
        assert_eq!(have, pack::depthwise(channels, taps, &want));
        assert_eq!(zero_sums, pack::depthwise_zero_sums(&have, channels, taps, &pad_row));
    }
}

/// An arena of noise with an input and an output view in it.
fn two_views(random: &mut Random, size: (usize, usize), channels: usize, gap: usize) -> (Arena, View, View) {
    let view = |offset| View { stride: channels + gap, ..View::dense(offset, size.0, size.1, channels) };
    let input = view(gap);
    let output = view(input.end() + 7);
    let mut arena = Arena::new(output.end() + 9);
    let noise = random.bytes(arena.len());
    arena.bytes_mut().copy_from_slice(&noise);
    (arena, input, output)
}

#[test]
fn max_pool_equals_its_definition() {
    let mut random = Random::new(5);
    let mut team = Team::new(2).expect("threads");
    for channels in [1, 16, 33, 64, 128, 130] {
        for (window, size) in [(1, (3, 3)), (3, (4, 5)), (5, (20, 20)), (5, (2, 3)), (7, (9, 1))] {
            let (arena, input, output) = two_views(&mut random, size, channels, channels % 5);
            let noise = arena.bytes().to_vec();
            let mut want = noise.clone();
            let reach = window / 2;
            for at in 0..input.pixels() {
                let (y, x) = (at / size.1, at % size.1);
                for c in 0..channels {
                    let near =
                        |p: usize| (p / size.1).abs_diff(y) <= reach && (p % size.1).abs_diff(x) <= reach;
                    let most = (0..input.pixels())
                        .filter(|&p| near(p))
                        .map(|p| load(noise[input.offset + p * input.stride + c]))
                        .max();
                    want[output.offset + at * output.stride + c] = store(most.expect("itself"));
                }
            }
            for k in here() {
                let mut arena = Arena::new(noise.len());
                arena.bytes_mut().copy_from_slice(&noise);
                team.frame(|crew| max_pool(k, crew, &mut arena, (input, output), window)).expect("good");
                assert_eq!(difference(arena.bytes(), &want), None, "{} {channels} {window}", k.name());
            }
        }
    }
}

#[test]
fn channel_sums_are_exact() {
    let mut random = Random::new(6);
    let mut team = Team::new(3).expect("threads");
    for channels in [1, 3, 15, 16, 17, 48, 64, 100, 256, 300] {
        for size in [(0, 3), (1, 1), (3, 5), (40, 41)] {
            let (arena, input, _) = two_views(&mut random, size, channels, channels % 3);
            let mut want = vec![0u32; channels];
            for p in 0..input.pixels() {
                for (c, want) in want.iter_mut().enumerate() {
                    *want += u32::from(load(arena.bytes()[input.offset + p * input.stride + c]));
                }
            }
            for k in here() {
                let mut sums = vec![7; channels + 1];
                team.frame(|crew| channel_sums(k, crew, &arena, input, &mut sums)).expect("good");
                assert_eq!((&sums[..channels], sums[channels]), (&want[..], 7), "{}", k.name());
            }
        }
    }
}

#[test]
fn copies_and_enlargements() {
    let mut random = Random::new(7);
    let mut team = Team::new(2).expect("threads");
    for (factor, channels, gap) in [(1, 5, 3), (2, 16, 0), (2, 64, 64), (3, 1, 1)] {
        let input = View { stride: channels + gap, ..View::dense(2, 3, 5, channels) };
        let output =
            View { stride: channels + gap, ..View::dense(input.end(), 3 * factor, 5 * factor, channels) };
        let mut arena = Arena::new(output.end() + 4);
        let noise = random.bytes(arena.len());
        arena.bytes_mut().copy_from_slice(&noise);
        team.frame(|crew| upsample(crew, &mut arena, (input, output), factor)).expect("good");
        let mut want = noise.clone();
        for at in 0..output.pixels() {
            let from = at / output.width / factor * input.width + at % output.width / factor;
            for c in 0..channels {
                want[output.offset + at * output.stride + c] = noise[input.offset + from * input.stride + c];
            }
        }
        assert_eq!(difference(arena.bytes(), &want), None);
        if factor == 1 {
            let mut again = Arena::new(noise.len());
            again.bytes_mut().copy_from_slice(&noise);
            team.frame(|crew| copy(crew, &mut again, (input, output))).expect("good");
            assert_eq!(again.bytes(), arena.bytes());
        }
    }
}

#[test]
fn maps_are_near_the_real_ones() {
    let mut random = Random::new(8);
    let mut team = Team::new(2).expect("threads");
    for channels in [1, 16, 35] {
        let (arena, a, b) = two_views(&mut random, (5, 9), channels, 2);
        let rules: Vec<[(f32, u8); 2]> = (0..channels)
            .map(|_| [0, 1].map(|_| (random.within(1, 3000) as f32 / 1000.0, random.within(0, 255) as u8)))
            .collect();
        let zero = 100;
        let sums: Vec<_> = rules.iter().map(|&r| Affine::new(r, zero)).collect();
        let scales: Vec<_> = rules.iter().map(|r| Affine::new([r[0]], zero)).collect();
        for two in [true, false] {
            let mut out = Arena::new(arena.len());
            out.bytes_mut().copy_from_slice(arena.bytes());
            team.frame(|crew| {
                if two {
                    add(crew, &mut out, &AddJob { a, b, output: b, affine: &sums })
                } else {
                    scale_channels(crew, &mut out, &ScaleJob { input: a, output: b, affine: &scales })
                }
            })
            .expect("good");
            for at in 0..a.pixels() {
                for (c, rule) in rules.iter().enumerate() {
                    let q = |v: &View, bytes: &[u8]| f64::from(load(bytes[v.offset + at * v.stride + c]));
                    let term = |i: usize, v: &View| {
                        (q(v, arena.bytes()) - f64::from(rule[i].1)) * f64::from(rule[i].0)
                    };
                    let real = f64::from(zero) + term(0, &a) + if two { term(1, &b) } else { 0.0 };
                    let error = (q(&b, out.bytes()) - real.clamp(0.0, 255.0)).abs();
                    assert!(error < 0.52, "{real} became {}", q(&b, out.bytes()));
                }
            }
        }
    }
    let wild = Affine::new([(1e30, 0), (-1e30, 255)], 255);
    assert_eq!(
        [wild.apply([store(255), store(0)]), wild.apply([store(0), store(255)])].map(load),
        [255, 255]
    );
    let exact = Affine::new([(0.5, 0)], 0);
    assert_eq!([1, 2, 3, 255].map(|q| load(exact.apply([store(q)]))), [1, 1, 2, 128]);
}
