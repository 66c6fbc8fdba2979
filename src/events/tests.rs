use proptest::prelude::*;

use super::*;

const IMAGE: Size = Size { width: 100, height: 200 };

fn detection(class_id: usize, confidence: f32, [x1, y1, x2, y2]: [f32; 4]) -> Detection {
    Detection { class_id, confidence, x1, y1, x2, y2 }
}

fn zone(kind: Kind, classes: &[usize], points: &[(f64, f64)]) -> Zone {
    let points = points.iter().map(|&(x, y)| Point { x, y }).collect();
    Zone { name: "gate".into(), kind, classes: classes.to_vec(), points }
}

fn square(kind: Kind, classes: &[usize], from: f64, to: f64) -> Zone {
    zone(kind, classes, &[(from, from), (to, from), (to, to), (from, to)])
}

fn watch(ids: &[usize]) -> Options {
    Options::new(ids.iter().map(|&id| Class { id, min_confidence: 0.5 }).collect())
}

/// Presence after each picture of a script: `x` with a detection, `.` without; a picture a second.
fn presence(options: Options, script: &str) -> String {
    let mut rules = Rules::new(options).unwrap();
    let start = Instant::now();
    let seen = [detection(0, 0.9, [0.0, 0.0, 10.0, 10.0])];
    let mut was = false;
    script
        .chars()
        .enumerate()
        .map(|(second, c)| {
            let found = if c == 'x' { &seen[..] } else { &[] };
            let at = start + Duration::from_secs(second as u64);
            let verdict = rules.apply(found, IMAGE, at);
            let is = verdict.present[0];
            let expected = Transition { class: 0, present: is, at };
            assert_eq!(
                verdict.transitions,
                if is == was { &[][..] } else { std::slice::from_ref(&expected) }
            );
            was = is;
            if is { '#' } else { '.' }
        })
        .collect()
}

#[test]
fn presence_needs_pictures_in_a_row_both_ways() {
    for (on, off, cooldown, script, expected) in [
        (1, 1, 0, "x.x..", "#.#.."),
        (3, 2, 0, "xx.xxx.x..x", ".....####.."),
        (2, 3, 0, "xx.x..x...x", ".########.."),
        (1, 1, 4, "x.x.xxx", "#...###"),
        (1, 1, 5, "x.x..x", "#....#"),
        (2, 1, 4, "xx.xxx", ".#...#"),
        (1, 2, 100, "x......xxxx", "##........."),
    ] {
        let mut options = watch(&[0]);
        (options.frames_on, options.frames_off) = (on, off);
        options.cooldown = Duration::from_secs(cooldown);
        assert_eq!(presence(options, script), expected, "on {on}, off {off}, cooldown {cooldown}: {script}");
    }
}

#[test]
fn classes_thresholds_and_zones_filter() {
    let mut options = watch(&[7, 2]);
    options.classes[1].min_confidence = 0.8;
    options.zones = vec![
        square(Kind::Include, &[], 0.0, 0.5),
        square(Kind::Exclude, &[2], 0.2, 0.3),
        square(Kind::Exclude, &[7], 0.45, 0.6),
    ];
    let mut rules = Rules::new(options).unwrap();
    // The middle of the lower edge decides: (0.25, 0.25), though the box reaches far beyond the zones.
    let low = [0.0, 0.0, 50.0, 50.0];
    let all = [
        detection(7, 0.5, low),
        detection(7, 0.49, low),
        detection(2, 0.9, low),
        detection(2, 0.9, [0.0, 0.0, 80.0, 80.0]),
        detection(2, 0.79, [0.0, 0.0, 80.0, 80.0]),
        detection(7, 0.9, [0.0, 0.0, 100.0, 100.0]),
        detection(7, 0.9, [-500.0, 0.0, 20.0, 20.0]),
        detection(7, 0.9, [60.0, 0.0, 100.0, 20.0]),
        detection(1, 0.9, low),
        detection(7, f32::NAN, low),
    ];
    let verdict = rules.apply(&all, IMAGE, Instant::now());
    assert_eq!(verdict.kept, [all[0], all[3], all[6]]);
    assert_eq!(verdict.counts, [2, 1]);
    assert_eq!(verdict.present, [false, false]);
}

#[test]
fn each_wrong_option_has_its_error() {
    type Change = fn(&mut Options);
    let cases: [(Change, &str); 6] = [
        (|o| o.classes[0].min_confidence = 1.01, "class 0: a confidence of 1.01"),
        (|o| o.classes[0].min_confidence = f32::NAN, "a confidence of NaN"),
        (|o| o.classes.push(o.classes[0].clone()), "class 0 is watched twice"),
        (|o| o.frames_on = 0, "until a class is present"),
        (|o| o.frames_off = 0, "until a class is absent"),
        (|o| o.zones.push(square(Kind::Include, &[5], 0.0, 1.0)), "names class 5"),
    ];
    for (change, expected) in cases {
        let mut options = watch(&[0]);
        change(&mut options);
        let message = Rules::new(options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn each_polygon_that_is_none_has_its_error() {
    let many: Vec<(f64, f64)> = (0..65).map(|i| (f64::from(i) / 65.0, 0.0)).collect();
    for (points, expected) in [
        (&[(0.0, 0.0), (1.0, 1.0)][..], "2 points"),
        (&many, "65 points"),
        (&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.1)], "point 3 is (1, 1.1)"),
        (&[(0.0, 0.0), (f64::NAN, 0.0), (1.0, 1.0)], "point 2 is (NaN, 0)"),
        (&[(0.0, 0.0), (0.0, 0.0), (1.0, 1.0)], "points 1 and 2 are the same"),
        (&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)], "points 4 and 1 are the same"),
        // A bow tie, a spike, sides that touch in a corner, all on one line.
        (&[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)], "from points 1 and 3 meet"),
        (&[(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 1.0)], "from points 1 and 2 meet"),
        (&[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 1.0)], "from points 1 and 3 meet"),
        (&[(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)], "meet"),
        (&[(0.1, 0.1), (0.101, 0.1), (0.101, 0.1005)], "nearly nothing"),
    ] {
        let message = zone(Kind::Include, &[], points).check().unwrap_err().to_string();
        assert!(message.contains(expected), "{points:?}: {message}");
    }
    for points in [
        &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)][..],
        &[(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)],
        // A corner on a straight side, and a horseshoe.
        &[(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 1.0)],
        &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.8, 1.0), (0.8, 0.2), (0.2, 0.2), (0.2, 1.0), (0.0, 1.0)],
    ] {
        zone(Kind::Include, &[], points).check().unwrap();
    }
}

#[test]
fn the_border_belongs_to_the_zone() {
    let horseshoe = zone(
        Kind::Include,
        &[],
        &[
            (0.0, 0.0),
            (1.0, 0.0),
            (1.0, 1.0),
            (0.75, 1.0),
            (0.75, 0.25),
            (0.25, 0.25),
            (0.25, 1.0),
            (0.0, 1.0),
        ],
    );
    for (x, y, inside) in [
        (0.0, 0.0, true),
        (0.25, 0.25, true),
        (0.5, 0.25, true),
        (0.25, 0.7, true),
        (1.0, 0.5, true),
        (0.1, 0.25, true),
        (0.5, 0.26, false),
        (0.5, 1.0, false),
        (0.5, 0.1, true),
        (0.9, 0.25, true),
    ] {
        assert_eq!(horseshoe.contains(Point { x, y }), inside, "({x}, {y})");
    }
}

/// Corners around a middle at growing angles: never crosses itself.
fn star() -> impl Strategy<Value = Vec<(f64, f64)>> {
    prop::collection::vec(0.1f64..0.5, 3..12).prop_map(|radii| {
        let step = std::f64::consts::TAU / radii.len() as f64;
        let at = |(i, r): (usize, &f64)| {
            let angle = step * i as f64;
            ((0.5 + r * angle.cos()).clamp(0.0, 1.0), (0.5 + r * angle.sin()).clamp(0.0, 1.0))
        };
        radii.iter().enumerate().map(at).collect()
    })
}

proptest! {
    #[test]
    fn corners_and_sides_are_inside_and_beyond_is_outside(points in star(), t in 0.0f64..=1.0) {
        let zone = zone(Kind::Include, &[], &points);
        zone.check().unwrap();
        let middle = Point { x: 0.5, y: 0.5 };
        prop_assert!(zone.contains(middle));
        for (a, b) in zone.sides() {
            prop_assert!(zone.contains(a));
            let between = Point { x: a.x + t * (b.x - a.x), y: a.y + t * (b.y - a.y) };
            prop_assert!(zone.contains(between));
            let beyond = Point { x: 0.5 + 1.01 * (a.x - 0.5), y: 0.5 + 1.01 * (a.y - 0.5) };
            prop_assert!(!zone.contains(beyond));
        }
    }

    #[test]
    fn neither_the_first_corner_nor_the_sense_matters(
        points in star(), turn in 0usize..12, x in 0.0f64..1.0, y in 0.0f64..1.0
    ) {
        let place = Point { x, y };
        let plain = zone(Kind::Include, &[], &points).contains(place);
        let mut other = points.clone();
        other.rotate_left(turn % points.len());
        prop_assert_eq!(zone(Kind::Include, &[], &other).contains(place), plain);
        other.reverse();
        prop_assert_eq!(zone(Kind::Include, &[], &other).contains(place), plain);
    }

    #[test]
    fn no_list_of_points_stops_the_check(
        points in prop::collection::vec((-0.2f64..1.2, -0.2f64..1.2), 0..20), x in 0.0f64..1.0, y in 0.0f64..1.0
    ) {
        let zone = zone(Kind::Include, &[], &points);
        if zone.check().is_ok() {
            zone.contains(Point { x, y });
        }
    }

    #[test]
    fn transitions_alternate_and_keep_the_cooldown(
        seen in prop::collection::vec(any::<bool>(), 1..200), on in 1u32..5, off in 1u32..5, cooldown in 0u64..20
    ) {
        let mut options = watch(&[0]);
        (options.frames_on, options.frames_off) = (on, off);
        options.cooldown = Duration::from_secs(cooldown);
        let mut rules = Rules::new(options).unwrap();
        let start = Instant::now();
        let found = [detection(0, 0.9, [0.0, 0.0, 10.0, 10.0])];
        let mut all = Vec::new();
        for (second, &seen) in seen.iter().enumerate() {
            let at = start + Duration::from_secs(second as u64);
            all.extend_from_slice(rules.apply(if seen { &found } else { &[] }, IMAGE, at).transitions);
        }
        for (index, transition) in all.iter().enumerate() {
            prop_assert_eq!(transition.present, index % 2 == 0);
        }
        let appearances: Vec<Instant> = all.iter().filter(|t| t.present).map(|t| t.at).collect();
        for pair in appearances.windows(2) {
            prop_assert!(pair[1] - pair[0] >= Duration::from_secs(cooldown));
        }
    }
}
