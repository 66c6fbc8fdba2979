//! Boxes and labels on pictures.
//!
//! The font is `font.txt`, a sheet of 6 x 16 glyphs (ASCII 32 to 127) of 5 x 9 dots, the lowest two rows
//! below the line, columns 6 apart. The last place (127) is shown for every other character.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageEncoder, ImageError, ImageFormat, Rgb, RgbImage};

use super::detect::Detection;

const SHEET: &str = include_str!("font.txt");
const GLYPHS_PER_BAND: usize = 16;
/// Columns from one glyph to the next.
const ADVANCE: usize = 6;
/// Rows of a glyph.
const ROWS: usize = 9;
/// JPEG quality of saved pictures.
const QUALITY: u8 = 92;

const BLACK: Rgb<u8> = Rgb([0, 0, 0]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);

/// Why a picture was not saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file could not be written.
    #[error("{0}")]
    Write(#[from] std::io::Error),
    /// The picture could not be encoded.
    #[error("{0}")]
    Encode(ImageError),
}

/// Draws each detection's box, and `name 0.91` where it hides no other label, else `0.91` alone.
///
/// Boxes of little confidence lie below the others; labels of much confidence choose their place first. `classes` are
/// the class names; a class without one shows its number.
pub fn draw_detections(image: &mut RgbImage, detections: &[Detection], classes: &[String]) {
    let pen = Pen::for_picture(image.width(), image.height());
    let mut order: Vec<&Detection> = detections.iter().collect();
    order.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    for detection in order.iter().rev() {
        pen.frame(image, detection, colour(detection.class_id));
    }
    let mut taken = Vec::with_capacity(order.len());
    let labels: Vec<_> =
        order.iter().map(|detection| pen.place(image, detection, classes, &mut taken)).collect();
    for (detection, (text, at)) in order.iter().zip(&labels).rev() {
        pen.label(image, *at, text, colour(detection.class_id));
    }
}

/// Saves a picture in the format of its extension: PNG, WebP (lossless), BMP, otherwise JPEG of quality 92.
pub fn save_image(image: &RgbImage, path: &Path) -> Result<(), SaveError> {
    let format = ImageFormat::from_path(path).unwrap_or(ImageFormat::Jpeg);
    let bytes = match format {
        ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp => {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).map_err(SaveError::Encode)?;
            bytes.into_inner()
        }
        _ => encode_jpeg(image).map_err(SaveError::Encode)?,
    };
    Ok(std::fs::write(path, bytes)?)
}

/// A picture as JPEG of quality 92.
pub fn encode_jpeg(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let (width, height) = image.dimensions();
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.write_image(image.as_raw(), width, height, image::ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

/// A class's colour: hues a golden angle apart, so that neighbours in the list differ most.
fn colour(class: usize) -> Rgb<u8> {
    let hue = (class as f32 * 0.618_034 + 0.97) % 1.0 * 6.0;
    // Three strengths in turn: 80 hues alone look alike.
    let (saturation, value) = match class % 3 {
        0 => (0.85, 1.0),
        1 => (0.95, 0.85),
        _ => (0.6, 1.0),
    };
    let channel = |offset: f32| {
        let distance = (hue + offset) % 6.0;
        let ramp = distance.min(4.0 - distance).clamp(0.0, 1.0);
        ((value - value * saturation * ramp) * 255.0).round() as u8
    };
    Rgb([channel(5.0), channel(3.0), channel(1.0)])
}

/// Black or white, whichever reads better on `background` (luma of ITU-R BT.601).
fn ink(background: Rgb<u8>) -> Rgb<u8> {
    let [r, g, b] = background.0.map(u32::from);
    if 299 * r + 587 * g + 114 * b > 140_000 { BLACK } else { WHITE }
}

/// Line widths and text size for a picture.
struct Pen {
    /// Pixels of a box's line.
    line: i64,
    /// Pixels of a font dot.
    dot: i64,
}

impl Pen {
    fn for_picture(width: u32, height: u32) -> Self {
        let side = i64::from(width.max(height));
        Self { line: (side / 320).max(2), dot: (side / 480).max(1) }
    }

    /// The box's four lines, inside the picture, with a thin dark edge that shows on any background.
    fn frame(&self, image: &mut RgbImage, detection: &Detection, colour: Rgb<u8>) {
        let [x1, y1, x2, y2] = corners(detection, image);
        let w = self.line;
        let lines = |grow: i64| {
            [
                [x1 - grow, y1 - grow, x2 + grow, y1 + w + grow],
                [x1 - grow, y2 - w - grow, x2 + grow, y2 + grow],
                [x1 - grow, y1 - grow, x1 + w + grow, y2 + grow],
                [x2 - w - grow, y1 - grow, x2 + grow, y2 + grow],
            ]
        };
        for line in lines(1) {
            shade(image, line);
        }
        for line in lines(0) {
            fill(image, line, colour);
        }
    }

    /// A detection's label and where it goes, `[x1, y1, x2, y2]`: the longest text and first place that hide nothing
    /// of `taken`, which it joins; the long one above the box where there is no such place.
    fn place(
        &self,
        image: &RgbImage,
        detection: &Detection,
        classes: &[String],
        taken: &mut Vec<[i64; 4]>,
    ) -> (String, [i64; 4]) {
        let class = detection.class_id;
        let name = classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        let short = format!("{:.2}", detection.confidence);
        let long = format!("{name} {short}");
        let corners = corners(detection, image);
        let free = |place: &[i64; 4]| !taken.iter().any(|other| overlap(place, other));
        let found = [&long, &short]
            .into_iter()
            .find_map(|text| Some((text.clone(), self.places(image, corners, text).into_iter().find(free)?)));
        let (text, place) = found.unwrap_or_else(|| {
            let [above, ..] = self.places(image, corners, &long);
            (long, above)
        });
        taken.push(place);
        (text, place)
    }

    /// Where a text may stand at a box, all within the picture: above it, inside at its top, inside at its bottom,
    /// below it; above, from its right end.
    fn places(&self, image: &RgbImage, [x1, y1, x2, y2]: [i64; 4], text: &str) -> [[i64; 4]; 5] {
        let (width, height) = self.size(text);
        let (right, bottom) = (i64::from(image.width()) - width, i64::from(image.height()) - height);
        [(x1, y1 - height), (x1, y1), (x1, y2 - height), (x1, y2), (x2 - width, y1 - height)].map(|(x, y)| {
            let (x, y) = (x.min(right).max(0), y.min(bottom).max(0));
            [x, y, x + width, y + height]
        })
    }

    /// Width and height of a label.
    fn size(&self, text: &str) -> (i64, i64) {
        let columns = (text.chars().count() * ADVANCE) as i64 - 1;
        (columns * self.dot + 2 * self.pad(), ROWS as i64 * self.dot + 2 * self.pad())
    }

    /// Between a label's edge and its text.
    fn pad(&self) -> i64 {
        self.dot + 1
    }

    /// Draws a text on a rectangle of `background` made for it.
    fn label(&self, image: &mut RgbImage, place: [i64; 4], text: &str, background: Rgb<u8>) {
        fill(image, place, background);
        let ink = ink(background);
        let (left, top) = (place[0] + self.pad(), place[1] + self.pad());
        for (index, character) in text.chars().enumerate() {
            self.glyph(image, character, (left + (index * ADVANCE) as i64 * self.dot, top), ink);
        }
    }

    fn glyph(&self, image: &mut RgbImage, character: char, (x, y): (i64, i64), ink: Rgb<u8>) {
        for (row, dots) in glyph_rows(character).enumerate() {
            for (column, dot) in dots.bytes().enumerate() {
                if dot == b'#' {
                    let (left, top) = (x + column as i64 * self.dot, y + row as i64 * self.dot);
                    fill(image, [left, top, left + self.dot, top + self.dot], ink);
                }
            }
        }
    }
}

/// A glyph's rows, each up to 5 characters, `#` for a dot.
fn glyph_rows(character: char) -> impl Iterator<Item = &'static str> {
    let place = match u32::from(character) {
        code @ 32..=126 => code as usize - 32,
        _ => 127 - 32,
    };
    let column = place % GLYPHS_PER_BAND * ADVANCE;
    SHEET.lines().skip(place / GLYPHS_PER_BAND * ROWS).take(ROWS).map(move |line| {
        let end = line.len().min(column + ADVANCE - 1);
        line.get(column..end).unwrap_or("")
    })
}

/// A detection's corners in whole pixels.
fn corners(detection: &Detection, image: &RgbImage) -> [i64; 4] {
    let at = |value: f32, most: u32| (value.round() as i64).clamp(0, i64::from(most));
    let (width, height) = image.dimensions();
    [at(detection.x1, width), at(detection.y1, height), at(detection.x2, width), at(detection.y2, height)]
}

/// Whether two rectangles share a pixel.
fn overlap(a: &[i64; 4], b: &[i64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// The part of a rectangle `[x1, y1, x2, y2]` (ends excluded) that lies in the picture.
fn pixels(image: &RgbImage, [x1, y1, x2, y2]: [i64; 4]) -> impl Iterator<Item = (u32, u32)> + use<> {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    let columns = x1.clamp(0, width) as u32..x2.clamp(0, width) as u32;
    let rows = y1.clamp(0, height) as u32..y2.clamp(0, height) as u32;
    rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
}

fn fill(image: &mut RgbImage, rectangle: [i64; 4], colour: Rgb<u8>) {
    for (x, y) in pixels(image, rectangle) {
        image.put_pixel(x, y, colour);
    }
}

/// Darkens by half.
fn shade(image: &mut RgbImage, rectangle: [i64; 4]) {
    for (x, y) in pixels(image, rectangle) {
        let pixel = image.get_pixel_mut(x, y);
        pixel.0 = pixel.0.map(|v| v / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(class_id: usize, corners: [f32; 4]) -> Detection {
        let [x1, y1, x2, y2] = corners;
        Detection { class_id, confidence: 0.5, x1, y1, x2, y2 }
    }

    #[test]
    fn the_font_holds_every_character() {
        assert_eq!(SHEET.lines().count(), 6 * ROWS);
        let art = |c| glyph_rows(c).collect::<Vec<_>>().join("\n");
        for a in ' '..='~' {
            assert_eq!(glyph_rows(a).count(), ROWS);
            assert_eq!(art(a).contains('#'), a != ' ', "{a}");
            for b in ' '..a {
                assert_ne!(art(a), art(b), "{a} looks like {b}");
            }
        }
        assert_eq!(art('é'), art('\u{7f}'));
    }

    #[test]
    fn labels_contrast_with_their_colour() {
        for class in 0..200 {
            let (paper, ink) = (colour(class), ink(colour(class)));
            let luma = |c: Rgb<u8>| {
                let [r, g, b] = c.0.map(i64::from);
                299 * r + 587 * g + 114 * b
            };
            assert!((luma(paper) - luma(ink)).abs() > 100_000, "class {class}: {paper:?}");
        }
        for class in 1..80 {
            assert!(!(0..class).any(|other| colour(other) == colour(class)), "class {class}");
        }
    }

    #[test]
    fn boxes_at_the_border_and_tiny_pictures_are_drawn() {
        for (width, height) in [(1, 1), (8, 8), (100, 20)] {
            let mut image = RgbImage::new(width, height);
            let all = [
                detection(0, [0.0, 0.0, width as f32, height as f32]),
                detection(5, [-9.0, -9.0, 1e9, 1e9]),
                detection(9, [f32::NAN, 0.0, 0.0, 0.0]),
            ];
            draw_detections(&mut image, &all, &["person".into()]);
            assert!(image.pixels().any(|pixel| pixel.0 != [0; 3]));
        }
    }

    #[test]
    fn labels_hide_no_other_where_there_is_room() {
        let image = RgbImage::new(400, 300);
        let pen = Pen::for_picture(400, 300);
        let place = |boxes: &[[f32; 4]]| {
            let mut taken = Vec::new();
            let texts: Vec<String> = boxes
                .iter()
                .map(|corners| pen.place(&image, &detection(0, *corners), &["person".into()], &mut taken).0)
                .collect();
            let hidden = |i: usize| taken[..i].iter().any(|other| overlap(&taken[i], other));
            (texts, (0..taken.len()).filter(|i| hidden(*i)).count())
        };
        // Far apart, on each other, and at the top, where nothing is above.
        let apart = [[10.0, 50.0, 60.0, 90.0], [200.0, 50.0, 260.0, 90.0]];
        assert_eq!(place(&apart), (vec!["person 0.50".to_owned(); 2], 0));
        assert_eq!(place(&[[50.0, 50.0, 200.0, 200.0]; 4]).1, 0);
        assert_eq!(place(&[[50.0, 0.0, 200.0, 200.0]; 3]).1, 0);
        // Narrow and side by side: some are short, none is hidden.
        let row: Vec<[f32; 4]> =
            (0..12).map(|i| i as f32 * 30.0).map(|x| [x, 100.0, x + 28.0, 140.0]).collect();
        let (texts, hidden) = place(&row);
        assert_eq!(hidden, 0, "{texts:?}");
        // No room at all: drawn all the same.
        assert!(place(&[[50.0, 50.0, 52.0, 52.0]; 20]).1 > 0);
    }

    #[test]
    fn the_extension_chooses_the_format() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = RgbImage::from_pixel(20, 10, Rgb([10, 200, 30]));
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("b.JPG", ImageFormat::Jpeg),
            ("c", ImageFormat::Jpeg),
            ("d.webp", ImageFormat::WebP),
            ("e.bmp", ImageFormat::Bmp),
        ] {
            let path = folder.path().join(name);
            save_image(&image, &path).expect("saved");
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(image::guess_format(&bytes).expect("a picture"), format, "{name}");
        }
        let absent = folder.path().join("absent/a.png");
        assert!(matches!(save_image(&image, &absent), Err(SaveError::Write(_))));
    }
}
