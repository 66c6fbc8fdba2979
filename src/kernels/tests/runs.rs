//! Which pixels are wanted: marks, and runs of them.

use super::*;
use crate::kernels::ops::{Runs, Window, mark_above, mark_read};
use proptest::prelude::*;

/// First and one past the last pixel of each run.
fn taken(marks: &[u8], unit: usize) -> Vec<(usize, usize)> {
    let mut runs = Runs::default();
    runs.take(&[1; 5], 1);
    runs.take(marks, unit);
    runs.part(0..runs.pixels()).map(|run| (run.start, run.end)).collect()
}

#[test]
fn runs_are_whole_tiles_and_join_where_less_lies_between() {
    let marks = |set: &[usize]| (0..20).map(|at| u8::from(set.contains(&at)) * 7).collect::<Vec<_>>();
    assert_eq!(taken(&marks(&[]), 4), []);
    assert_eq!(taken(&[], 4), []);
    assert_eq!(taken(&marks(&[1]), 4), [(1, 5)]);
    assert_eq!(taken(&marks(&[1, 4, 5]), 4), [(1, 9)]);
    assert_eq!(taken(&marks(&[1, 8]), 4), [(1, 9)], "3 lie between");
    assert_eq!(taken(&marks(&[1, 9]), 4), [(1, 5), (9, 13)], "a whole tile lies between");
    assert_eq!(taken(&marks(&[0, 19]), 4), [(0, 4), (19, 20)], "the end is the end");
    assert_eq!(taken(&marks(&[3]), 0), [(3, 4)]);
}

#[test]
fn nothing_is_above_what_is_no_number() {
    let numbers = [[1.0, f32::NAN], [0.5, 0.5], [f32::NAN; 2], [f32::INFINITY, -1.0], [-0.0, 0.0]];
    let view = View { element: 4, stride: 12, ..View::dense(4, 5, 1, 2) };
    let mut arena = Arena::new(4 + 5 * 12);
    for (at, pair) in numbers.iter().enumerate() {
        for (channel, number) in pair.iter().enumerate() {
            arena.bytes_mut()[4 + 12 * at + 4 * channel..][..4].copy_from_slice(&number.to_ne_bytes());
        }
    }
    let above = |floor: f32, marks: &mut [u8]| {
        Team::new(2).expect("threads").frame(|crew| mark_above(crew, &arena, &view, floor, marks))
    };
    for (floor, want) in [
        (0.5, [1, 0, 0, 1, 0]),
        (f32::NEG_INFINITY, [1, 1, 0, 1, 1]),
        (f32::INFINITY, [0; 5]),
        (f32::NAN, [0; 5]),
    ] {
        let mut marks = [9; 5];
        above(floor, &mut marks).expect("a good view");
        assert_eq!(marks, want, "above {floor}");
    }
    assert!(above(0.0, &mut [0; 4]).is_err(), "too few marks");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_part_of_the_runs_is_those_pixels(
        marks in prop::collection::vec(0u8..2, 0..60),
        (unit, step) in (1usize..9, 1usize..30),
    ) {
        let mut runs = Runs::default();
        runs.take(&marks, unit);
        let all: Vec<usize> = runs.part(0..runs.pixels()).flatten().collect();
        prop_assert_eq!(all.len(), runs.pixels());
        prop_assert!(all.is_sorted_by(|a, b| a < b) && all.iter().all(|&at| at < marks.len()));
        prop_assert!((0..marks.len()).all(|at| marks[at] == 0 || all.contains(&at)));
        // What no mark asks for is the rest of a tile and a gap of less than one.
        let row = 2 * unit - 1;
        let asked = |pixels: &[usize]| pixels.iter().any(|&at| marks[at] == 1);
        prop_assert!(all.windows(row).all(|pixels| pixels[row - 1] >= pixels[0] + row || asked(pixels)));
        let parts = (0..runs.pixels()).step_by(step);
        let parts = parts.flat_map(|at| runs.part(at..runs.pixels().min(at + step)));
        prop_assert_eq!(parts.flatten().collect::<Vec<_>>(), all);
    }

    #[test]
    fn what_is_read_is_what_the_taps_lie_on(
        (height, width) in (1usize..9, 1usize..9),
        (half, stride, dilation) in (0usize..3, 1usize..3, 1usize..3),
        seed in 0u64..1000,
    ) {
        let pad = half * dilation;
        let window = Window { kernel: 2 * half + 1, stride, dilation, pad_top: pad, pad_left: pad };
        let out = |side: usize| (side - 1) / stride + 1;
        let (input, output) = (View::dense(0, height, width, 1), View::dense(0, out(height), out(width), 1));
        let mut random = Random::new(seed);
        let marks: Vec<u8> = (0..output.pixels()).map(|_| u8::from(random.within(0, 5) == 0)).collect();
        let mut read = vec![9; input.pixels()];
        mark_read(&window, (&output, &marks), (&input, &mut read));
        for (at, &read) in read.iter().enumerate() {
            let (y, x) = ((at / width) as isize, (at % width) as isize);
            let lies_on = |oy: usize, ox: usize| {
                let taps = 0..(window.kernel * window.kernel) as isize;
                let side = window.kernel as isize;
                taps.into_iter().any(|tap| {
                    let at = |o: usize, k: isize| (o * stride) as isize + k * dilation as isize - pad as isize;
                    (at(oy, tap / side), at(ox, tap % side)) == (y, x)
                })
            };
            let want = (0..output.pixels())
                .any(|o| marks[o] == 1 && lies_on(o / output.width, o % output.width));
            prop_assert_eq!(read, u8::from(want), "{}, {}", y, x);
        }
    }
}
