//! Label files: `class x y width height` a line, as parts of the picture; or `class` and a polygon.

/// A labelled box, as parts of the picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Class id.
    pub class_id: usize,
    /// Middle, width, height: `[x, y, w, h]`.
    pub bounds: [f64; 4],
}

impl Label {
    /// `[x1, y1, x2, y2]`
    pub fn corners(&self) -> [f64; 4] {
        let [x, y, w, h] = self.bounds;
        [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
    }
}

/// A broken line of a label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFault {
    /// Which, counted from 1.
    pub line: usize,
    /// What is wrong, and what should be there.
    pub what: String,
}

/// Values may leave the picture by this much, as Ultralytics allows: rounding does that.
const MARGIN: f64 = 0.01;

/// Reads a label file for a dataset with `classes` classes. A line that is given twice counts once, as in
/// Ultralytics (`verify_image_label`).
///
/// # Errors
/// The first broken line.
pub fn parse(text: &str, classes: usize) -> Result<Vec<Label>, LabelFault> {
    let mut labels: Vec<Label> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let values: Vec<&str> = line.split_whitespace().collect();
        if values.is_empty() {
            continue;
        }
        let label = parse_line(&values, classes).map_err(|what| LabelFault { line: index + 1, what })?;
        labels.push(label);
    }
    // Sorted copies find doubles in n log n: a hostile file may have a million lines.
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let key = |index: &usize| labels[*index];
    let compare = |a: &usize, b: &usize| {
        let (a, b) = (key(a), key(b));
        let bounds = a.bounds.iter().zip(&b.bounds).map(|(x, y)| x.total_cmp(y));
        a.class_id.cmp(&b.class_id).then(bounds.fold(std::cmp::Ordering::Equal, |all, one| all.then(one)))
    };
    order.sort_by(compare);
    order.dedup_by(|later, first| key(later) == key(first));
    order.sort_unstable();
    Ok(order.iter().map(key).collect())
}

fn parse_line(values: &[&str], classes: usize) -> Result<Label, String> {
    let polygon = values.len() >= 7 && values.len() % 2 == 1;
    if values.len() != 5 && !polygon {
        let count = values.len();
        return Err(format!("{count} values; it needs `class x y width height`, or a class and a polygon"));
    }
    // Some tools write classes as 3.0.
    let class = number(values[0])?;
    if class.fract() != 0.0 || class < 0.0 || class >= classes as f64 {
        return Err(format!("class {} is not one of 0 to {}", shown(values[0]), classes.saturating_sub(1)));
    }
    let mut places = Vec::with_capacity(values.len() - 1);
    for text in &values[1..] {
        let value = number(text)?;
        if !(-MARGIN..=1.0 + MARGIN).contains(&value) {
            return Err(format!("{} is not from 0 to 1; positions are parts of the picture", shown(text)));
        }
        places.push(value);
    }
    let bounds = if polygon { around(&places) } else { [places[0], places[1], places[2], places[3]] };
    if bounds[2] < 0.0 || bounds[3] < 0.0 {
        return Err("a width or height below 0".into());
    }
    Ok(Label { class_id: class as usize, bounds })
}

/// The box around a polygon `x, y, x, y, …`.
fn around(places: &[f64]) -> [f64; 4] {
    let span = |first: usize| {
        let values = places.iter().skip(first).step_by(2).copied();
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    };
    let ((x1, x2), (y1, y2)) = (span(0), span(1));
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0, x2 - x1, y2 - y1]
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| format!("{} is no number", shown(text)))
}

/// A word in quotes, shortened.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(20).collect();
    if start.len() < text.len() { format!("'{start}…'") } else { format!("'{start}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_and_polygons() {
        let labels = parse("1 0.5 0.5 0.2 0.4\r\n\n  0.0\t.1 .2 .3 .2 .3 .6\n", 2).unwrap();
        assert_eq!(labels.len(), 2);
        assert_eq!(labels[0], Label { class_id: 1, bounds: [0.5, 0.5, 0.2, 0.4] });
        assert_eq!(labels[1].class_id, 0);
        let [x1, y1, x2, y2] = labels[1].corners();
        assert!((x1 - 0.1).abs() < 1e-9 && (y1 - 0.2).abs() < 1e-9, "{labels:?}");
        assert!((x2 - 0.3).abs() < 1e-9 && (y2 - 0.6).abs() < 1e-9, "{labels:?}");
        assert_eq!(parse("", 2).unwrap(), []);
    }

    #[test]
    fn doubles_count_once_and_order_stays() {
        let labels = parse("1 .5 .5 .1 .1\n0 .5 .5 .1 .1\n1 .5 .5 .10 .1\n", 2).unwrap();
        assert_eq!(labels.iter().map(|l| l.class_id).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn each_fault_names_its_line() {
        for (line, hint) in [
            ("0 0.5 0.5 0.1", "4 values"),
            ("0 0.5 0.5 0.1 0.1 0.9", "6 values"),
            ("0", "1 values"),
            ("x 0.5 0.5 0.1 0.1", "'x' is no number"),
            ("0 0.5 nan 0.1 0.1", "'nan' is no number"),
            ("0 0.5 inf 0.1 0.1", "'inf' is no number"),
            ("0 0,5 0.5 0.1 0.1", "'0,5' is no number"),
            ("2 0.5 0.5 0.1 0.1", "class '2' is not one of 0 to 1"),
            ("-1 0.5 0.5 0.1 0.1", "class '-1'"),
            ("0.5 0.5 0.5 0.1 0.1", "class '0.5'"),
            ("1e300 0.5 0.5 0.1 0.1", "class '1e300'"),
            ("0 320 0.5 0.1 0.1", "'320' is not from 0 to 1"),
            ("0 0.5 0.5 -0.005 0.1", "below 0"),
            ("0 0.5 0.5 0.1 -3", "'-3'"),
            ("\u{0} \u{0} \u{0} \u{0} \u{0}", "is no number"),
        ] {
            let text = format!("0 0.5 0.5 0.1 0.1\n\n{line}\n");
            let fault = parse(&text, 2).unwrap_err();
            assert_eq!(fault.line, 3, "{line}");
            assert!(fault.what.contains(hint), "{line}: {}", fault.what);
        }
        let long = parse(&"9".repeat(1 << 20), 2).unwrap_err();
        assert!(long.what.len() < 200);
        let long = parse(&format!("0 {} 1 1 1", "x".repeat(1 << 20)), 2).unwrap_err();
        assert!(long.what.len() < 200);
    }
}
