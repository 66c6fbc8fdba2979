//! Every fault of a file gives its error; nothing panics; truncated pictures are refused.

use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageEncoder, ImageFormat};
use proptest::prelude::*;

use super::*;

/// A smooth picture whose four corners differ: red, green, blue, white.
fn corners(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let colour = match (x < width / 2, y < height / 2) {
            (true, true) => [250, 5, 5],
            (false, true) => [5, 250, 5],
            (true, false) => [5, 5, 250],
            (false, false) => [250, 250, 250],
        };
        image::Rgb(colour.map(|v: u8| v.saturating_sub((x % 5) as u8)))
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    encoded(&image.clone().into(), ImageFormat::Jpeg)
}

/// The corner's main colour: r, g, b or w.
fn corner(image: &RgbImage, x: u32, y: u32) -> char {
    match image.get_pixel(x, y).0.map(|v| v > 128) {
        [true, false, false] => 'r',
        [false, true, false] => 'g',
        [false, false, true] => 'b',
        [true, true, true] => 'w',
        _ => '?',
    }
}

/// Top left, top right, bottom left, bottom right.
fn all_corners(image: &RgbImage) -> String {
    let (right, bottom) = (image.width() - 4, image.height() - 4);
    [(3, 3), (right, 3), (3, bottom), (right, bottom)].map(|(x, y)| corner(image, x, y)).iter().collect()
}

#[test]
fn every_format_gives_the_same_picture() {
    let picture = corners(40, 24);
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        assert!(decode_bytes(&encoded(&picture.clone().into(), format)).unwrap() == picture, "{format:?}");
    }
    let read = decode_bytes(&jpeg(&picture)).unwrap();
    assert_eq!((read.width(), read.height()), (40, 24));
    assert_eq!(all_corners(&read), "rgbw");
}

#[test]
fn every_colour_kind_becomes_rgb() {
    let picture: DynamicImage = corners(16, 16).into();
    let grey = decode_bytes(&encoded(&picture.to_luma8().into(), ImageFormat::Png)).unwrap();
    let Some(&image::Rgb([r, g, b])) = grey.get_pixel_checked(0, 0) else { panic!("empty") };
    assert!(r == g && g == b);
    let grey = decode_bytes(&encoded(&picture.to_luma8().into(), ImageFormat::Jpeg)).unwrap();
    assert_eq!(grey.dimensions(), (16, 16));
    for other in [
        DynamicImage::from(picture.to_rgba8()),
        picture.to_luma_alpha8().into(),
        picture.to_rgb16().into(),
        picture.to_rgba16().into(),
    ] {
        assert_eq!(decode_bytes(&encoded(&other, ImageFormat::Png)).unwrap().dimensions(), (16, 16));
    }
    let deep = decode_bytes(&encoded(&picture.to_rgb16().into(), ImageFormat::Png)).unwrap();
    assert!(deep == picture.to_rgb8());
}

#[test]
fn exif_turns_the_picture() {
    // 1: as it is, 2: mirrored, 3: half a turn, 6: a quarter clockwise, 8: a quarter back.
    for (tag, expected) in [(1, "rgbw"), (2, "grwb"), (3, "wbgr"), (6, "brwg"), (8, "gwrb")] {
        let picture = corners(40, 24);
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend_from_slice(&[tag, 0, 0, 0, 0, 0, 0, 0]);
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&picture, 40, 24, image::ExtendedColorType::Rgb8).unwrap();
        assert_eq!(all_corners(&decode_bytes(&bytes).unwrap()), expected, "orientation {tag}");
    }
}

#[test]
fn truncated_pictures_are_refused_wherever_they_end() {
    let picture = corners(64, 48);
    let whole = jpeg(&picture);
    // The last two bytes are the end marker: all pixels are there without it.
    for end in 0..whole.len() - 3 {
        assert!(decode_bytes(&whole[..end]).is_err(), "JPEG cut at {end} of {}", whole.len());
    }
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        let whole = encoded(&picture.clone().into(), format);
        for end in (0..whole.len() * 9 / 10).step_by(7) {
            assert!(decode_bytes(&whole[..end]).is_err(), "{format:?} cut at {end} of {}", whole.len());
        }
    }
}

#[test]
fn each_fault_has_its_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(decode_image(folder.path()), Err(DecodeError::Folder)));
    let absent = decode_image(&folder.path().join("absent.jpg"));
    assert!(matches!(absent, Err(DecodeError::Read(e)) if e.kind() == std::io::ErrorKind::NotFound));
    assert!(matches!(decode_bytes(b""), Err(DecodeError::Empty)));
    assert!(matches!(decode_bytes(b"GIF89a..........."), Err(DecodeError::UnknownFormat)));
    assert!(matches!(decode_bytes(b"\xff\xd8\xff"), Err(DecodeError::Jpeg(_))));
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
    assert!(matches!(decode_bytes(png), Err(DecodeError::Picture { format: ImageFormat::Png, .. })));
}

#[test]
fn a_picture_that_claims_too_much_is_refused_before_it_is_read() {
    let mut bytes = jpeg(&corners(16, 16));
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let error = decode_bytes(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it is 65535x65535 pixels, the limit is 100 million; make the picture smaller"
    );
    let mut bytes = encoded(&corners(16, 16).into(), ImageFormat::Bmp);
    bytes[18..22].copy_from_slice(&60_000i32.to_le_bytes());
    bytes[22..26].copy_from_slice(&60_000i32.to_le_bytes());
    assert!(matches!(decode_bytes(&bytes), Err(DecodeError::TooManyPixels { width: 60_000, .. })));
}

#[test]
fn a_frame_without_huffman_tables_decodes_alike() {
    let whole = jpeg(&corners(64, 48));
    let mut bare = whole.clone();
    while let Some(at) = bare.windows(2).position(|w| w == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        bare.drain(at..at + 2 + length);
    }
    assert!(bare.len() < whole.len() - 400);
    let repaired = with_huffman_tables(&bare);
    assert_eq!(repaired.len(), bare.len() + 420);
    assert!(matches!(with_huffman_tables(&whole), std::borrow::Cow::Borrowed(_)));
    let (mut a, mut b) = (Vec::new(), vec![1; 5]);
    let size = decode_mjpeg(&whole, &mut a).unwrap();
    assert_eq!(size, Size { width: 64, height: 48 });
    assert_eq!(decode_mjpeg(&bare, &mut b).unwrap(), size);
    assert!(a == b);
    for end in 0..bare.len() {
        with_huffman_tables(&bare[..end]);
    }
}

/// Photographs of phones and cameras: strict mode must not refuse what everybody can read.
#[test]
fn real_photographs_decode() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let mut read = 0;
    for folder in ["coco128/images/train2017", "cards/images/val", "pklot/images/val"] {
        let Ok(entries) = std::fs::read_dir(data.join(folder)) else { continue };
        for entry in entries.take(40) {
            let path = entry.unwrap().path();
            decode_image(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            read += 1;
        }
    }
    if read == 0 {
        eprintln!("skipped: no photographs in {}", data.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Flipped bits give a picture or an error, and no picture larger than allowed.
    #[test]
    fn flipped_bits_never_panic(
        format in prop::sample::select(vec![
            ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp,
        ]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..6),
    ) {
        let mut bytes = encoded(&corners(32, 24).into(), format);
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1 << bit;
        }
        if let Ok(image) = decode_bytes(&bytes) {
            prop_assert!(u64::from(image.width()) * u64::from(image.height()) <= MAX_PIXELS);
        }
    }

    /// Bytes that only start like a picture never panic either.
    #[test]
    fn nonsense_never_panics(
        head in prop::sample::select(vec![
            &b"\xff\xd8\xff\xc0"[..], b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8L", b"BM",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = decode_bytes(&[head, &tail].concat());
    }
}
