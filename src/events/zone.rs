//! Polygons on the picture, in which detections count or do not.

/// Points of a polygon at most: a check of crossings takes their square.
const MOST_POINTS: usize = 64;
/// Smallest area, as a share of the picture: a thousandth of it squared.
const LEAST_AREA: f64 = 1e-6;
/// Distance, as a share of the picture, below which a point is on a line. A tenth of a pixel of a picture with
/// a million columns: for rounding only.
const ON_LINE: f64 = 1e-7;

/// A place on the picture: shares of its width and height, from the upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// 0 at the left, 1 at the right.
    pub x: f64,
    /// 0 at the top, 1 at the bottom.
    pub y: f64,
}

/// What a zone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only detections in such a zone count (in any, where there are several).
    Include,
    /// Detections in it do not count, even where another zone includes them.
    Exclude,
}

/// A polygon. Its border belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// For messages.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Numbers of the classes that it is about; all where empty.
    pub classes: Vec<usize>,
    /// Its corners, in order, either way round; the last is joined to the first.
    pub points: Vec<Point>,
}

/// Why a polygon is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ZoneError {
    /// Too few or too many corners.
    #[error("{found} points; give 3 to {MOST_POINTS}")]
    Points {
        /// Points given.
        found: usize,
    },
    /// A corner outside the picture.
    #[error("point {index} is ({x}, {y}); give shares of the picture's width and height, 0 to 1")]
    Outside {
        /// Which, from 1.
        index: usize,
        /// Its x.
        x: f64,
        /// Its y.
        y: f64,
    },
    /// Two neighbours at the same place.
    #[error("points {first} and {second} are the same; leave one out")]
    Same {
        /// Which, from 1.
        first: usize,
        /// Its neighbour.
        second: usize,
    },
    /// Two sides touch or cross.
    #[error("the sides from points {first} and {second} meet; give the corners in order around the area")]
    Crossing {
        /// Where the first side begins, from 1.
        first: usize,
        /// Where the second begins.
        second: usize,
    },
    /// A polygon without an inside.
    #[error("its area is {found:.2e} of the picture, nearly nothing; move the points apart")]
    Area {
        /// Share of the picture.
        found: f64,
    },
}

/// Whether the zones let a detection of `class` at `place` count.
pub(super) fn allow(zones: &[Zone], class: usize, place: Point) -> bool {
    let about = |kind: Kind| zones.iter().filter(move |z| z.kind == kind && z.is_about(class));
    let included = about(Kind::Include).next().is_none() || about(Kind::Include).any(|z| z.contains(place));
    included && !about(Kind::Exclude).any(|z| z.contains(place))
}

impl Zone {
    /// Checks that the points make a simple polygon on the picture.
    pub fn check(&self) -> Result<(), ZoneError> {
        let points = &self.points;
        if !(3..=MOST_POINTS).contains(&points.len()) {
            return Err(ZoneError::Points { found: points.len() });
        }
        for (index, point) in points.iter().enumerate() {
            let inside = (0.0..=1.0).contains(&point.x) && (0.0..=1.0).contains(&point.y);
            if !inside {
                return Err(ZoneError::Outside { index: index + 1, x: point.x, y: point.y });
            }
        }
        for (index, (a, b)) in self.sides().enumerate() {
            if distance(a, b) <= ON_LINE {
                return Err(ZoneError::Same { first: index + 1, second: (index + 1) % points.len() + 1 });
            }
        }
        self.check_crossings()?;
        let area = self.area();
        if area < LEAST_AREA { Err(ZoneError::Area { found: area }) } else { Ok(()) }
    }

    /// Whether a place lies in the polygon or on its border.
    pub fn contains(&self, place: Point) -> bool {
        let mut inside = false;
        for (a, b) in self.sides() {
            if is_on(a, b, place) {
                return true;
            }
            // A ray to the left crosses the side. Half-open in y: a corner counts for one of its two sides.
            if (a.y > place.y) != (b.y > place.y) {
                let x = a.x + (place.y - a.y) / (b.y - a.y) * (b.x - a.x);
                inside ^= x < place.x;
            }
        }
        inside
    }

    fn is_about(&self, class: usize) -> bool {
        self.classes.is_empty() || self.classes.contains(&class)
    }

    pub(super) fn sides(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let ends = self.points.iter().cycle().skip(1);
        self.points.iter().zip(ends).map(|(a, b)| (*a, *b))
    }

    fn check_crossings(&self) -> Result<(), ZoneError> {
        let sides: Vec<(Point, Point)> = self.sides().collect();
        for (i, &(a, b)) in sides.iter().enumerate() {
            for (j, &(c, d)) in sides.iter().enumerate().skip(i + 1) {
                // Neighbours share a corner; they must not share more.
                let meet = if j == i + 1 {
                    is_on(a, b, d) || is_on(c, d, a)
                } else if i == 0 && j == sides.len() - 1 {
                    is_on(a, b, c) || is_on(c, d, b)
                } else {
                    cross(a, b, c, d)
                };
                if meet {
                    return Err(ZoneError::Crossing { first: i + 1, second: j + 1 });
                }
            }
        }
        Ok(())
    }

    /// By the shoelace formula.
    fn area(&self) -> f64 {
        (self.sides().map(|(a, b)| a.x * b.y - b.x * a.y).sum::<f64>() / 2.0).abs()
    }
}

fn distance(a: Point, b: Point) -> f64 {
    (b.x - a.x).hypot(b.y - a.y)
}

/// Twice the signed area of a triangle: on which side of `a`-`b` lies `p`.
fn turn(a: Point, b: Point, p: Point) -> f64 {
    (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x)
}

/// Whether a place lies on a side.
fn is_on(a: Point, b: Point, p: Point) -> bool {
    let length = distance(a, b);
    let along = (p.x - a.x) * (b.x - a.x) + (p.y - a.y) * (b.y - a.y);
    turn(a, b, p).abs() <= ON_LINE * length
        && along >= -ON_LINE * length
        && along <= length * (length + ON_LINE)
}

/// Whether two sides without a common corner touch or cross.
fn cross(a: Point, b: Point, c: Point, d: Point) -> bool {
    let apart = |p: f64, q: f64| (p > 0.0) != (q > 0.0);
    let proper = apart(turn(a, b, c), turn(a, b, d)) && apart(turn(c, d, a), turn(c, d, b));
    proper || is_on(a, b, c) || is_on(a, b, d) || is_on(c, d, a) || is_on(c, d, b)
}
