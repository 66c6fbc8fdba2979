use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::kernels::rows::yuv_to_rgb;
use crate::vision::pixels::{Size, chroma_stride, frame_bytes, row_bytes};

/// The formula of BT.601, unrounded and unclipped.
fn exact(y: u8, u: u8, v: u8) -> [f64; 3] {
    let y = 255.0 / 219.0 * (f64::from(y) - 16.0);
    let (u, v) = (255.0 / 112.0 * (f64::from(u) - 128.0), 255.0 / 112.0 * (f64::from(v) - 128.0));
    [y + 0.701 * v, y - 0.886 * 0.114 / 0.587 * u - 0.701 * 0.299 / 0.587 * v, y + 0.886 * u]
}

#[test]
fn pixels_follow_the_formula() {
    let mut off = 0;
    for y in 0..=255 {
        for u in (0..=255).step_by(3) {
            for v in (0..=255).step_by(3) {
                for (got, want) in yuv_to_rgb(y, u, v).into_iter().zip(exact(y, u, v)) {
                    let want = want.clamp(0.0, 255.0);
                    assert!((f64::from(got) - want).abs() < 0.55, "{y} {u} {v}: {got}, not {want}");
                    off += usize::from(f64::from(got) != want.round());
                }
            }
        }
    }
    // Factors of 13 bits round another way only close to a half.
    assert!(off < 256 * 86 * 86 * 3 / 50, "{off} roundings differ");
}

#[test]
fn black_grey_and_white_have_no_colour() {
    assert_eq!(yuv_to_rgb(16, 128, 128), [0, 0, 0]);
    assert_eq!(yuv_to_rgb(126, 128, 128), [128, 128, 128]);
    assert_eq!(yuv_to_rgb(235, 128, 128), [255, 255, 255]);
}

/// A frame with rows `padding` bytes longer than they need, filled with a hash of the offset, nothing behind it.
pub(in crate::vision) fn frame(format: PixelFormat, width: usize, height: usize, padding: usize) -> Frame {
    let stride = row_bytes(format, width) + padding;
    let fill = |i: usize| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[1];
    let bytes = (0..frame_bytes(format, Size { width, height }, stride)).map(fill).collect();
    Frame { format, width, height, stride, bytes, ..Frame::default() }
}

/// The picture by plain indexing, one pixel at a time.
pub(in crate::vision) fn slow(frame: &Frame) -> Vec<u8> {
    let (s, b) = (frame.stride, &frame.bytes);
    let chroma = chroma_stride(frame.format, frame.width, s);
    let planes = s * frame.height;
    let mut rgb = Vec::new();
    for y in 0..frame.height {
        for x in 0..frame.width {
            let pair = y * s + x / 2 * 4;
            let cell = planes + y / 2 * chroma;
            rgb.extend(match frame.format {
                PixelFormat::Yuyv => yuv_to_rgb(b[pair + x % 2 * 2], b[pair + 1], b[pair + 3]),
                PixelFormat::Uyvy => yuv_to_rgb(b[pair + 1 + x % 2 * 2], b[pair], b[pair + 2]),
                PixelFormat::Nv12 => yuv_to_rgb(b[y * s + x], b[cell + x / 2 * 2], b[cell + x / 2 * 2 + 1]),
                PixelFormat::Yu12 => {
                    let v = cell + chroma * frame.height.div_ceil(2);
                    yuv_to_rgb(b[y * s + x], b[cell + x / 2], b[v + x / 2])
                }
                PixelFormat::Rgb3 => [0, 1, 2].map(|c| b[y * s + 3 * x + c]),
                PixelFormat::Bgr3 => [2, 1, 0].map(|c| b[y * s + 3 * x + c]),
                PixelFormat::Grey => [b[y * s + x]; 3],
                PixelFormat::Mjpeg => unreachable!(),
            });
        }
    }
    rgb
}

#[test]
fn each_layout_is_read_where_it_lies() {
    let mut rgb = vec![7; 5];
    let mut ran = HashSet::new();
    for format in PixelFormat::RAW {
        for (width, height) in [(1, 1), (2, 2), (3, 1), (1, 3), (5, 3), (6, 4), (33, 7)] {
            for padding in [0, 1, 2, 16] {
                let frame = frame(format, width, height, padding);
                to_rgb(Pixels::from(&frame), &mut rgb).unwrap();
                assert_eq!(rgb, slow(&frame), "{format} {width}x{height} padding {padding}");
                ran.insert(format);
            }
        }
    }
    assert_eq!(ran.len(), PixelFormat::RAW.len());
}

#[test]
fn a_truncated_frame_is_refused_at_every_length() {
    for format in PixelFormat::RAW {
        let whole = frame(format, 5, 3, 3);
        let mut rgb = Vec::new();
        let (mut refused, mut read) = (0, 0);
        for length in 0..whole.bytes.len() {
            let cut = Frame { bytes: whole.bytes[..length].to_vec(), ..whole.clone() };
            match to_rgb(Pixels::from(&cut), &mut rgb) {
                Err(LayoutError::Short { needed, actual, .. }) => {
                    assert!(actual < needed && actual == length);
                    refused += 1;
                }
                Ok(_) => read += 1,
                Err(other) => panic!("{format}: {other}"),
            }
        }
        // Only the last row's padding may be missing.
        assert!(refused > 0 && read <= 4, "{format}: {read} short frames read");
    }
}

#[test]
fn impossible_sizes_and_strides_are_refused() {
    for (width, height) in [(0, 2), (2, 0), (usize::MAX, 2), (2, usize::MAX)] {
        let bad = Frame { format: PixelFormat::Yuyv, width, height, stride: 8, ..Frame::default() };
        assert!(matches!(Pixels::from(&bad).check(), Err(LayoutError::Sides { .. })), "{width}x{height}");
    }
    for stride in [0, 7, usize::MAX] {
        let bad = Frame { stride, ..frame(PixelFormat::Yuyv, 4, 2, 0) };
        assert!(matches!(Pixels::from(&bad).check(), Err(LayoutError::Stride { needed: 8, .. })), "{stride}");
    }
}

#[test]
fn a_frame_is_seen_as_it_lies_and_a_jpeg_decoded() {
    let raw = frame(PixelFormat::Nv12, 6, 4, 2);
    let mut rgb = vec![7; 5];
    let pixels = view(&raw, &mut rgb).unwrap();
    assert_eq!((pixels.format, pixels.stride, pixels.bytes), (PixelFormat::Nv12, 8, &raw.bytes[..]));
    let picture = image::RgbImage::from_fn(9, 5, |x, y| image::Rgb([x as u8 * 20, y as u8 * 40, 90]));
    let bytes = crate::vision::encode_jpeg(&picture).unwrap();
    let jpeg = Frame { format: PixelFormat::Mjpeg, bytes, ..Frame::default() };
    let pixels = view(&jpeg, &mut rgb).unwrap();
    assert_eq!((pixels.format, pixels.size), (PixelFormat::Rgb3, Size { width: 9, height: 5 }));
    assert_eq!(pixels.bytes.len(), 3 * 9 * 5);
    let cut = Frame { bytes: raw.bytes[..30].to_vec(), ..raw };
    assert!(matches!(view(&cut, &mut rgb), Err(ConvertError::Layout(LayoutError::Short { actual: 30, .. }))));
}

#[test]
fn a_broken_jpeg_is_an_error() {
    let bad = Frame { format: PixelFormat::Mjpeg, bytes: vec![0xff, 0xd8, 0xff], ..Frame::default() };
    assert!(matches!(view(&bad, &mut Vec::new()), Err(ConvertError::Jpeg(_))));
    assert_eq!(to_rgb(Pixels::from(&bad), &mut Vec::new()), Err(LayoutError::Compressed));
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(
        format in 0usize..7,
        width in 0usize..70,
        height in 0usize..20,
        stride in 0usize..300,
        length in 0usize..4000,
    ) {
        let frame = Frame { format: PixelFormat::RAW[format], width, height, stride, bytes: vec![90; length], ..Frame::default() };
        let mut rgb = Vec::new();
        if to_rgb(Pixels::from(&frame), &mut rgb).is_ok() {
            prop_assert_eq!(rgb, slow(&frame));
        }
    }
}
