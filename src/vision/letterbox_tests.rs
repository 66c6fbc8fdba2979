//! Letterboxing against OpenCV and Ultralytics. The hashes are those of Ultralytics 8.4's `LetterBox` on
//! OpenCV 5.0 for the same pictures.

use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, PixelFormat};
use crate::vision::convert::tests::{frame, slow};

/// Pictures without files: bytes that are a hash of their index.
fn picture(width: usize, height: usize) -> Vec<u8> {
    (0..width as u32 * height as u32 * 3)
        .map(|i| {
            let mut v = i.wrapping_mul(2_654_435_761);
            v ^= v >> 15;
            v = v.wrapping_mul(2_246_822_519);
            v ^= v >> 13;
            v as u8
        })
        .collect()
}

fn view(bytes: &[u8], width: usize, height: usize) -> Pixels<'_> {
    Pixels::rgb(Size { width, height }, bytes)
}

/// FNV-1a over the colours, the padding bytes left out.
fn hash(out: &[u8], offset: u8) -> u64 {
    out.chunks_exact(PIXEL).flat_map(|pixel| &pixel[..3]).fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte.wrapping_add(offset))).wrapping_mul(0x100_0000_01b3)
    })
}

/// Width, height.
type Sides = (usize, usize);

/// Source, input, hash of `[height][width][3]`.
const GOLDEN: [(Sides, Sides, u64); 15] = [
    ((1, 1), (32, 32), 0x9aaffded5b3c7325),
    ((2, 1), (32, 64), 0x16484e46026924f5),
    ((5, 7), (64, 96), 0x42aaf5d76db3bff6),
    ((37, 23), (64, 64), 0x4cb2420d2a34da51),
    ((64, 64), (64, 64), 0x57de0fd119cb643f),
    ((100, 50), (96, 96), 0xee6311be32ac9d73),
    ((333, 500), (320, 320), 0xda561eb729cddd91),
    ((640, 480), (416, 416), 0x6c515529d3b5e5b0),
    ((768, 432), (640, 384), 0x82935630396f02c6),
    ((1280, 720), (640, 640), 0xdc55693e2dcb4728),
    ((1280, 720), (640, 384), 0x52a022fa64b6c728),
    ((1920, 1080), (640, 384), 0x359ed8d554e32ef5),
    ((3000, 2), (640, 640), 0xf0f266286e9c24e5),
    ((3, 1700), (96, 96), 0x4c298872c233c45d),
    ((2592, 1944), (640, 640), 0x648315ce07cac64a),
];

#[test]
fn equals_opencv() {
    let mut letterbox = Letterbox::new();
    for ((width, height), (input_width, input_height), expected) in GOLDEN {
        let bytes = picture(width, height);
        let input = Size { width: input_width, height: input_height };
        for offset in [0, 128] {
            let mut out = vec![7; input_width * input_height * PIXEL];
            letterbox.run(view(&bytes, width, height), input, offset, &mut out).unwrap();
            assert_eq!(hash(&out, offset), expected, "{width}x{height} into {input}, offset {offset}");
            assert!(out.chunks_exact(PIXEL).all(|pixel| pixel[3] == 0u8.wrapping_sub(offset)));
        }
    }
}

/// The letterbox in two steps with plain loops: a picture of packed RGB, then each byte of the input from its four
/// pixels.
fn two_steps(rgb: &[u8], size: Size, input: Size, offset: u8) -> Vec<u8> {
    let placement = Placement::new(size, input);
    let columns: Vec<Tap> = taps(size.width, placement.resized.width, true).collect();
    let rows: Vec<Tap> = taps(size.height, placement.resized.height, false).collect();
    let mut out = Vec::new();
    for y in 0..input.height {
        for x in 0..input.width {
            let row = y.checked_sub(placement.top).and_then(|y| rows.get(y));
            let column = x.checked_sub(placement.left).and_then(|x| columns.get(x));
            let pixel = match (row, column) {
                (Some(row), Some(column)) => [0, 1, 2].map(|channel| {
                    let across = |y: usize| {
                        let [a, b] = [column.first, column.second]
                            .map(|x| i32::from(rgb[3 * (y * size.width + x) + channel]));
                        (a * i32::from(column.weights[0]) + b * i32::from(column.weights[1])) >> 4
                    };
                    let part = |y, weight| (across(y) * i32::from(weight)) >> 16;
                    (part(row.first, row.weights[0]) + part(row.second, row.weights[1]) + 2) >> 2
                }),
                _ => [i32::from(GREY); 3],
            };
            out.extend(pixel.map(|value| (value as u8).wrapping_sub(offset)));
            out.push(0u8.wrapping_sub(offset));
        }
    }
    out
}

/// That every set of kernels makes of a frame what [`two_steps`] makes of its RGB.
fn assert_two_steps(letterboxes: &mut [Letterbox], frame: &Frame, input: Size, offset: u8) {
    let pixels = Pixels::from(frame);
    let want = two_steps(&slow(frame), pixels.size, input, offset);
    for letterbox in letterboxes {
        let mut out = vec![7; input.width * input.height * PIXEL];
        letterbox.run(pixels, input, offset, &mut out).unwrap();
        let same = out == want;
        let (Frame { format, stride, .. }, size) = (frame, pixels.size);
        assert!(same, "{format} {size} stride {stride} into {input}: {:?}", letterbox.kernels);
    }
}

fn letterboxes() -> [Letterbox; 2] {
    [Letterbox::with(Rows::scalar()), Letterbox::new()]
}

#[test]
fn one_pass_equals_two_steps() {
    let mut letterboxes = letterboxes();
    for format in PixelFormat::RAW {
        for (width, height, input_width, input_height) in [
            (1, 1, 32, 32),
            (2, 1, 32, 64),
            (3, 3, 3, 3),
            (5, 7, 64, 96),
            (64, 48, 64, 64),
            (65, 49, 65, 64),
            (128, 72, 64, 64),
            (129, 73, 64, 64),
            (131, 50, 64, 32),
            (192, 108, 64, 64),
            (300, 2, 64, 64),
            (3, 170, 96, 96),
        ] {
            let input = Size { width: input_width, height: input_height };
            for (padding, offset) in [(0, 0), (6, 128)] {
                let frame = frame(format, width, height, padding);
                assert_two_steps(&mut letterboxes, &frame, input, offset);
            }
        }
    }
}

proptest! {
    #[test]
    fn one_pass_equals_two_steps_at_any_size(
        format in 0usize..7,
        (width, height) in (1usize..150, 1usize..90),
        (input_width, input_height) in (1usize..100, 1usize..100),
        padding in 0usize..20,
        offset in prop::bool::ANY,
    ) {
        let frame = frame(PixelFormat::RAW[format], width, height, padding);
        let input = Size { width: input_width, height: input_height };
        assert_two_steps(&mut letterboxes(), &frame, input, if offset { 128 } else { 0 });
    }
}

#[test]
fn a_strided_picture_gives_the_same() {
    let (width, height, stride) = (37, 23, 128);
    let packed = picture(width, height);
    let mut strided = vec![99; stride * (height - 1) + 3 * width];
    for (y, row) in packed.chunks_exact(3 * width).enumerate() {
        strided[y * stride..][..3 * width].copy_from_slice(row);
    }
    let input = Size { width: 64, height: 64 };
    let (mut a, mut b) = (vec![0; 64 * 64 * PIXEL], vec![1; 64 * 64 * PIXEL]);
    let mut letterbox = Letterbox::new();
    letterbox.run(view(&packed, width, height), input, 0, &mut a).unwrap();
    letterbox.run(Pixels { stride, ..view(&strided, width, height) }, input, 0, &mut b).unwrap();
    assert!(a == b);
}

#[test]
fn rectangles_as_ultralytics_pads_them() {
    for ((width, height), limit, expected) in [
        ((1280, 720), 640, (640, 384)),
        ((640, 480), 640, (640, 480)),
        ((500, 333), 640, (640, 448)),
        ((1, 1), 640, (640, 640)),
        ((33, 1000), 640, (32, 640)),
        ((1920, 1080), 416, (416, 256)),
        ((810, 1080), 320, (256, 320)),
        ((3000, 2), 640, (640, 32)),
    ] {
        let shape = rectangle(Size { width, height }, Size { width: limit, height: limit }, 32);
        assert_eq!((shape.width, shape.height), expected, "{width}x{height} at {limit}");
    }
}

#[test]
fn boxes_return_as_ultralytics_scales_them() {
    for (source, input, expected) in [
        ((500, 333), (640, 640), [8.0078125, 0.0, 234.47266, 112.36797]),
        ((1281, 721), (640, 384), [20.516016, 17.023611, 600.71893, 478.16318]),
        ((37, 23), (64, 64), [5.92578125, 4.8875003, 37.0, 23.0]),
        ((479, 640), (416, 416), [0.0, 31.538464, 382.1604, 385.76926]),
    ] {
        let size = |(width, height)| Size { width, height };
        let placement = Placement::new(size(source), size(input));
        let got = placement.to_source([10.25, 20.5, 300.125, 250.75]);
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b as f32).abs() < 1e-4, "{source:?}: {got:?}, expected {expected:?}");
        }
        let all = placement.to_source([-5.0, -5.0, 9000.0, 9000.0]);
        assert_eq!(all, [0.0, 0.0, source.0 as f32, source.1 as f32]);
    }
}

#[test]
fn wrong_buffers_are_refused() {
    let mut letterbox = Letterbox::new();
    let input = Size { width: 32, height: 32 };
    let mut out = vec![0; 32 * 32 * PIXEL];
    let bytes = [0; 12];
    let short = letterbox.run(view(&bytes, 2, 3), input, 0, &mut out);
    assert_eq!(short.unwrap_err().to_string(), "a RGB3 frame of 2x3 takes 18 bytes, this one has 12");
    let empty = letterbox.run(view(&bytes, 0, 3), input, 0, &mut out);
    assert!(matches!(empty, Err(LetterboxError::Picture(LayoutError::Sides { .. }))));
    let nothing = letterbox.run(view(&bytes, 2, 2), Size { width: 0, height: 32 }, 0, &mut out);
    assert!(matches!(nothing, Err(LetterboxError::EmptyInput { .. })));
    let length = letterbox.run(view(&bytes, 2, 2), input, 0, &mut out[1..]);
    assert!(matches!(length, Err(LetterboxError::OutputLength { .. })));
}
