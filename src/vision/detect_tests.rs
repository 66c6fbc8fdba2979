//! Reading heads, against Ultralytics and by property.

use std::path::Path;

use proptest::prelude::*;

use super::super::pixels::Size;
use super::*;

const CLASSES: usize = 3;
/// Height, width, stride.
const LEVELS: [(usize, usize, usize); 3] = [(12, 20, 8), (6, 10, 16), (3, 5, 32)];

/// `n` bytes that are a hash of their index, as floats.
fn hashes(n: usize, seed: u32) -> impl Iterator<Item = f32> {
    (seed..seed + n as u32).map(|i| {
        let mut v = i.wrapping_mul(2_654_435_761);
        v ^= v >> 15;
        v = v.wrapping_mul(2_246_822_519);
        v ^= v >> 13;
        f32::from(v as u8)
    })
}

/// Heads that hold something everywhere, no two class logits alike: (boxes, classes) per level.
fn crowded() -> Vec<(Vec<f32>, Vec<f32>)> {
    let mut counter = 0.0;
    LEVELS
        .iter()
        .zip([0, 1000, 2000])
        .map(|(&(height, width, _), seed)| {
            let boxes = hashes(height * width * 64, seed).map(|v| (v - 128.0) / 32.0).collect();
            let classes = hashes(height * width * CLASSES, 77_777 + seed).map(|v| {
                let logit = (v * 1024.0 + counter) / 32_768.0 - 5.0;
                counter += 1.0;
                logit
            });
            (boxes, classes.collect())
        })
        .collect()
}

fn levels(data: &[(Vec<f32>, Vec<f32>)]) -> Vec<HeadLevel<'_>> {
    LEVELS
        .iter()
        .zip(data)
        .map(|(&(height, width, stride), (boxes, classes))| HeadLevel {
            height,
            width,
            stride,
            boxes,
            box_row: 64,
            classes,
            class_row: CLASSES,
            cells: Cells::All,
        })
        .collect()
}

/// A picture of 331x180 in an input of 160x96.
fn placement() -> Placement {
    Placement::new(Size { width: 331, height: 180 }, Size { width: 160, height: 96 })
}

/// Sums over all detections: x1, y1, x2, y2, confidence, class id.
fn sums(found: &[Detection]) -> [f64; 6] {
    found.iter().fold([0.0; 6], |sums, d| {
        let row = [d.x1, d.y1, d.x2, d.y2, d.confidence, d.class_id as f32];
        std::array::from_fn(|i| sums[i] + f64::from(row[i]))
    })
}

/// Options, count, sums and the first boxes as Ultralytics 8.4 gives them for [`crowded`].
fn golden() -> Vec<(NmsOptions, usize, [f64; 6])> {
    let base = NmsOptions::default();
    vec![
        (
            NmsOptions { confidence: 0.8, iou: 0.5, ..base.clone() },
            56,
            [3134.05, 986.36, 15170.46, 9408.71, 51.2, 59.0],
        ),
        (
            NmsOptions { confidence: 0.8, iou: 0.3, classes: Some(vec![0, 2]), ..base.clone() },
            16,
            [830.71, 265.7, 4273.37, 2694.81, 14.8, 14.0],
        ),
        (
            NmsOptions { iou: 0.45, max_detections: 40, ..base.clone() },
            40,
            [2137.6, 719.86, 11034.44, 6834.92, 37.29, 48.0],
        ),
        (
            NmsOptions { confidence: 0.001, multi_label: true, ..base.clone() },
            300,
            [17122.0, 4115.65, 82866.77, 51055.9, 201.69, 305.0],
        ),
        (
            NmsOptions { confidence: 0.5, iou: 0.2, max_candidates: 100, ..base },
            14,
            [1152.74, 366.86, 3888.62, 2334.05, 13.1, 13.0],
        ),
    ]
}

#[test]
fn equals_ultralytics_on_crowded_heads() {
    let data = crowded();
    let mut detector = Detector::new();
    for (options, count, expected) in golden() {
        let found = detector.run(&levels(&data), CLASSES, &placement(), &options).unwrap();
        assert_eq!(found.len(), count, "{options:?}");
        for (got, want) in sums(found).iter().zip(expected) {
            assert!((got - want).abs() < 0.03, "{options:?}: {:?}", sums(found));
        }
        let first = found[0];
        assert_eq!(first.class_id, 0);
        assert!((first.confidence - 0.951831).abs() < 1e-6);
        let corners = [first.x1, first.y1, first.x2, first.y2];
        for (got, want) in corners.iter().zip([0.0, 19.017, 123.911, 180.0]) {
            assert!((got - want).abs() < 1e-3, "{corners:?}");
        }
    }
}

#[test]
fn rows_may_be_padded() {
    let data = crowded();
    let mut detector = Detector::new();
    let options = NmsOptions::default();
    let expected = detector.run(&levels(&data), CLASSES, &placement(), &options).unwrap().to_vec();
    let pad = |values: &[f32], row: usize, padded: usize| -> Vec<f32> {
        let mut out = vec![f32::NAN; values.len() / row * padded];
        for (to, from) in out.chunks_exact_mut(padded).zip(values.chunks_exact(row)) {
            to[..row].copy_from_slice(from);
        }
        out
    };
    let padded: Vec<_> =
        data.iter().map(|(boxes, classes)| (pad(boxes, 64, 80), pad(classes, CLASSES, 16))).collect();
    let levels: Vec<_> =
        levels(&padded).into_iter().map(|level| HeadLevel { box_row: 80, class_row: 16, ..level }).collect();
    assert_eq!(detector.run(&levels, CLASSES, &placement(), &options).unwrap(), expected);
}

/// Positions of each level that have a class above the threshold, and their rows alone.
#[test]
fn rows_may_be_of_the_positions_that_pass() {
    let data = crowded();
    let mut detector = Detector::new();
    let options = NmsOptions { confidence: 0.9, ..NmsOptions::default() };
    let expected = detector.run(&levels(&data), CLASSES, &placement(), &options).unwrap().to_vec();
    let passing = |classes: &[f32]| -> Vec<u32> {
        let rows = (0..).zip(classes.chunks(CLASSES));
        rows.filter(|(_, row)| row.iter().any(|&l| l > options.floor())).map(|(at, _)| at).collect()
    };
    let passing: Vec<_> = data.iter().map(|(_, classes)| passing(classes)).collect();
    assert!(passing.iter().zip(LEVELS).all(|(cells, (h, w, _))| (1..h * w / 2).contains(&cells.len())));
    let rows = |values: &[f32], row: usize, cells: &[u32]| -> Vec<f32> {
        cells.iter().flat_map(|&at| values[at as usize * row..][..row].to_vec()).collect()
    };
    let alone: Vec<_> = (data.iter().zip(&passing))
        .map(|((boxes, classes), cells)| (rows(boxes, 64, cells), rows(classes, CLASSES, cells)))
        .collect();
    let kinds: [(_, fn(_) -> _); 2] = [(&data, Cells::Passing), (&alone, Cells::Listed)];
    for (data, kind) in kinds {
        let levels = levels(data).into_iter().zip(&passing);
        let levels: Vec<_> =
            levels.map(|(level, cells)| HeadLevel { cells: kind(cells.as_slice()), ..level }).collect();
        assert_eq!(detector.run(&levels, CLASSES, &placement(), &options).unwrap(), expected, "{levels:?}");
    }
    // Others are not looked at.
    let levels = levels(&data).into_iter().map(|level| HeadLevel { cells: Cells::Passing(&[]), ..level });
    let levels: Vec<_> = levels.collect();
    assert!(detector.run(&levels, CLASSES, &placement(), &options).unwrap().is_empty());
}

#[test]
fn short_buffers_are_refused() {
    let data = crowded();
    let mut levels = levels(&data);
    levels[1].boxes = &levels[1].boxes[1..];
    let error = Detector::new().run(&levels, CLASSES, &placement(), &NmsOptions::default()).unwrap_err();
    assert_eq!(error, HeadsError { level: 1, what: "boxes", needed: 60 * 64, actual: 60 * 64 - 1 });
    levels[1] = HeadLevel { boxes: &data[1].0, cells: Cells::Passing(&[3, 60]), ..levels[1] };
    let error = Detector::new().run(&levels, CLASSES, &placement(), &NmsOptions::default()).unwrap_err();
    assert_eq!(error, HeadsError { level: 1, what: "boxes", needed: 61 * 64, actual: 60 * 64 });
}

#[test]
fn broken_numbers_give_no_detection() {
    let data: Vec<_> = LEVELS
        .iter()
        .map(|&(height, width, _)| {
            let cells = height * width;
            (vec![f32::NAN; cells * 64], vec![3.0; cells * CLASSES])
        })
        .collect();
    let mut detector = Detector::new();
    let options = NmsOptions::default();
    assert!(detector.run(&levels(&data), CLASSES, &placement(), &options).unwrap().is_empty());
    let data: Vec<_> = data.iter().map(|(b, c)| (vec![0.0; b.len()], vec![f32::NAN; c.len()])).collect();
    assert!(detector.run(&levels(&data), CLASSES, &placement(), &options).unwrap().is_empty());
}

#[test]
fn an_even_distribution_is_seven_and_a_half_cells() {
    assert_eq!(expectation(&[1.0; REG_MAX]), 7.5);
    let mut sharp = [-50.0; REG_MAX];
    sharp[3] = 50.0;
    assert_eq!(expectation(&sharp), 3.0);
}

#[test]
fn iou_by_hand() {
    assert_eq!(iou([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]), 2.0 / 6.0);
    assert_eq!(iou([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0]), 0.0);
    assert!(iou([1.0; 4], [1.0; 4]).is_nan());
}

/// One cell's heads whose decoded box and scores are `column` (`x, y, w, h` in input pixels, then scores).
fn undo(x: f32, y: f32, stride: f32, column: &[f32], boxes: &mut [f32], classes: &mut [f32]) {
    let (cx, cy, w, h) = (column[0] / stride, column[1] / stride, column[2] / stride, column[3] / stride);
    let sides = [x - (cx - w / 2.0), y - (cy - h / 2.0), cx + w / 2.0 - x, cy + h / 2.0 - y];
    boxes.fill(-1e4);
    for (side, bins) in sides.iter().zip(boxes.chunks_exact_mut(REG_MAX)) {
        let low = side.floor().clamp(0.0, 14.0);
        let part = (side - low).clamp(0.0, 1.0);
        bins[low as usize] = (1.0 - part).max(1e-30).ln();
        bins[low as usize + 1] = part.max(1e-30).ln();
    }
    for (logit, score) in classes.iter_mut().zip(&column[4..]) {
        *logit = (f64::from(*score) / (1.0 - f64::from(*score))).max(1e-30).ln() as f32;
    }
}

/// Real outputs of YOLOv8n, made into heads again; the counts and boxes are Ultralytics' own suppression's.
#[test]
fn equals_ultralytics_on_real_outputs() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/golden/yolov8n-coco.golden.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        eprintln!("skipped: {} is absent", path.display());
        return;
    };
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, expected) in REAL {
        let tensor = file.tensor(&format!("{name}.output")).unwrap();
        let output: Vec<f32> =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let cells = 8400;
        let mut start = 0;
        let mut data = Vec::new();
        for (side, stride) in [(80, 8.0), (40, 16.0), (20, 32.0)] {
            let mut boxes = vec![0.0; side * side * 64];
            let mut classes = vec![0.0; side * side * 80];
            for i in 0..side * side {
                let column: Vec<f32> = (0..84).map(|row| output[row * cells + start + i]).collect();
                let (x, y) = ((i % side) as f32 + 0.5, (i / side) as f32 + 0.5);
                undo(x, y, stride, &column, &mut boxes[i * 64..][..64], &mut classes[i * 80..][..80]);
            }
            start += side * side;
            data.push((side, stride as usize, boxes, classes));
        }
        let levels: Vec<_> = data
            .iter()
            .map(|(side, stride, boxes, classes)| HeadLevel {
                height: *side,
                width: *side,
                stride: *stride,
                boxes,
                box_row: 64,
                classes,
                class_row: 80,
                cells: Cells::All,
            })
            .collect();
        let square = Size { width: 640, height: 640 };
        let placement = Placement::new(square, square);
        let mut detector = Detector::new();
        let found = detector.run(&levels, 80, &placement, &NmsOptions::default()).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        let mut worst = 0f32;
        for (got, &(class, confidence, corners)) in found.iter().zip(expected) {
            assert_eq!(got.class_id, class, "{name}");
            assert!((got.confidence - confidence).abs() < 1e-5, "{name}: {got:?}");
            for (a, b) in [got.x1, got.y1, got.x2, got.y2].iter().zip(corners) {
                worst = worst.max((a - b.clamp(0.0, 640.0)).abs());
            }
        }
        assert!(worst < 0.01, "{name}: a corner is {worst} px away");
    }
}

type Expected = (usize, f32, [f32; 4]);

/// Class, confidence, corners in the input of 640x640.
const REAL: [(&str, &[Expected]); 2] = [
    (
        "000000000009",
        &[
            (45, 0.920412, [306.658, 81.341, 628.456, 320.369]),
            (50, 0.782533, [250.627, 312.314, 566.759, 554.973]),
            (45, 0.713071, [-0.371, 90.807, 444.437, 531.021]),
            (45, 0.603673, [-0.118, 269.091, 628.007, 553.276]),
            (50, 0.507058, [328.617, 491.451, 422.378, 558.680]),
            (60, 0.280745, [0.901, 86.289, 634.006, 552.286]),
            (52, 0.262177, [-0.011, 191.752, 231.408, 381.281]),
            (48, 0.254117, [509.995, 277.084, 639.622, 399.880]),
        ],
    ),
    (
        "000000000025",
        &[
            (23, 0.936521, [382.548, 171.836, 600.267, 464.668]),
            (23, 0.536840, [48.257, 461.111, 180.060, 524.004]),
        ],
    ),
];

proptest! {
    /// Whatever the heads hold: sorted, above the threshold, within the picture, no pair of a class over
    /// the IoU limit, at most as many as asked; and the same twice.
    #[test]
    fn suppression_keeps_its_promises(
        seed in 0u32..1_000_000,
        confidence in 0.0f32..1.0,
        limit in 0.0f32..1.0,
        max_detections in 0usize..50,
        multi_label: bool,
        shift in -8.0f32..8.0,
    ) {
        let data: Vec<_> = LEVELS
            .iter()
            .map(|&(height, width, _)| {
                let cells = height * width;
                let boxes: Vec<f32> = hashes(cells * 64, seed).map(|v| v / 16.0).collect();
                let classes: Vec<f32> =
                    hashes(cells * CLASSES, seed + 5).map(|v| v / 32.0 - 4.0 + shift).collect();
                (boxes, classes)
            })
            .collect();
        let input = Size { width: 160, height: 96 };
        let whole = Placement::new(input, input);
        let options =
            NmsOptions { confidence, iou: limit, max_detections, multi_label, ..NmsOptions::default() };
        let mut detector = Detector::new();
        let found = detector.run(&levels(&data), CLASSES, &whole, &options).unwrap().to_vec();
        prop_assert!(found.len() <= max_detections);
        for pair in found.windows(2) {
            prop_assert!(pair[0].confidence >= pair[1].confidence);
        }
        for d in &found {
            prop_assert!(d.confidence > confidence && d.class_id < CLASSES);
            prop_assert!(0.0 <= d.x1 && d.x1 <= d.x2 && d.x2 <= 160.0);
            prop_assert!(0.0 <= d.y1 && d.y1 <= d.y2 && d.y2 <= 96.0);
        }
        for (i, a) in detector.kept.iter().enumerate() {
            for b in &detector.kept[..i] {
                prop_assert!(a.class != b.class || iou(b.corners, a.corners) <= limit);
            }
        }
        prop_assert_eq!(detector.run(&levels(&data), CLASSES, &whole, &options).unwrap(), &found[..]);
    }
}
