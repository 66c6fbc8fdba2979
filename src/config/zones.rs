//! Whether a zone's outline encloses something.

/// Why an outline encloses nothing, and what to do; `None` if it is sound.
pub fn fault(points: &[[f64; 2]]) -> Option<String> {
    if points.len() < 3 {
        return Some(format!("{} points enclose nothing; give at least 3", points.len()));
    }
    if let Some([x, y]) = points.iter().find(|p| !p.iter().all(|c| (0.0..=1.0).contains(c))) {
        return Some(format!(
            "[{x}, {y}] lies outside the picture; give fractions of its width and height, 0 to 1"
        ));
    }
    if let Some((a, b)) = crossing(points) {
        let (a, b) = (a + 1, b + 1);
        return Some(format!(
            "the sides after points {a} and {b} meet; give the corners in their order around the zone"
        ));
    }
    if area(points).abs() < SMALLEST {
        return Some("its points enclose no area; give corners that do not lie on one line".into());
    }
    None
}

/// A millionth of the picture is about a pixel.
const SMALLEST: f64 = 1e-6;

/// Signed area (shoelace).
fn area(points: &[[f64; 2]]) -> f64 {
    sides(points).map(|([ax, ay], [bx, by])| ax * by - bx * ay).sum::<f64>() / 2.0
}

fn sides(points: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2])> {
    points.iter().copied().zip(points.iter().copied().cycle().skip(1))
}

/// Two sides that touch without being neighbours, by the points where they begin.
fn crossing(points: &[[f64; 2]]) -> Option<(usize, usize)> {
    let sides: Vec<_> = sides(points).collect();
    let last = sides.len() - 1;
    for (i, &first) in sides.iter().enumerate() {
        for (j, &second) in sides.iter().enumerate().skip(i + 2) {
            let neighbours = i == 0 && j == last;
            if !neighbours && touch(first, second) {
                return Some((i, j));
            }
        }
    }
    None
}

/// Whether two segments have a point in common.
fn touch((a, b): ([f64; 2], [f64; 2]), (c, d): ([f64; 2], [f64; 2])) -> bool {
    let side = |p: [f64; 2], q: [f64; 2], r: [f64; 2]| {
        let cross = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]);
        if cross == 0.0 { 0 } else { cross.signum() as i32 }
    };
    let within = |p: [f64; 2], q: [f64; 2], r: [f64; 2]| {
        (0..2).all(|k| (p[k].min(q[k])..=p[k].max(q[k])).contains(&r[k]))
    };
    let (c_side, d_side, a_side, b_side) = (side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b));
    (c_side != d_side && a_side != b_side)
        || (c_side == 0 && within(a, b, c))
        || (d_side == 0 && within(a, b, d))
        || (a_side == 0 && within(c, d, a))
        || (b_side == 0 && within(c, d, b))
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn sound_outlines() {
        for points in [
            &[[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]][..],
            &[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]],
            &[[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.6, 0.6], [1.0, 0.0]],
        ] {
            assert_eq!(fault(points), None, "{points:?}");
        }
    }

    #[test]
    fn outlines_that_enclose_nothing() {
        for (points, word) in [
            (&[][..], "at least 3"),
            (&[[0.0, 0.0], [1.0, 1.0]], "at least 3"),
            (&[[0.0, 0.0], [1.0, 0.0], [0.5, 1.1]], "outside the picture"),
            (&[[0.0, 0.0], [f64::NAN, 0.0], [0.5, 1.0]], "outside the picture"),
            (&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], "points 1 and 3 meet"),
            (&[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], "no area"),
            (&[[0.2, 0.2], [0.2, 0.2], [0.2, 0.2]], "no area"),
            (&[[0.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.5, 1.0]], "meet"),
        ] {
            let said = fault(points).unwrap_or_default();
            assert!(said.contains(word), "{points:?}: {said}");
        }
    }
}
