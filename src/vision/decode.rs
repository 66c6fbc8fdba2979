//! Picture files to RGB: JPEG, PNG, WebP, BMP.
//!
//! Files are hostile until shown otherwise: the size is checked before anything is allocated, a truncated
//! or broken picture is an error and never a half-grey frame. Rotation by EXIF is applied; transparency
//! and bits past 8 are dropped, as OpenCV's `imread` does.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::huffman::with_huffman_tables;
use super::pixels::Size;

/// Most pixels of a picture: beyond it a board would run out of memory.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Memory that a decoder may take besides its output, in bytes.
const MAX_DECODER_BYTES: u64 = 8 * MAX_PIXELS;

/// Why a picture was not read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file could not be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// A folder was given where a file is needed.
    #[error("it is a folder, not a picture")]
    Folder,
    /// Nothing in it.
    #[error("the file is empty; copy it again")]
    Empty,
    /// The file is larger than any picture that is decoded.
    #[error("the file has {bytes} bytes, the limit is {MAX_FILE_BYTES}; make the picture smaller")]
    FileTooLarge {
        /// The file's length.
        bytes: u64,
    },
    /// The picture has too many pixels.
    #[error("it is {width}x{height} pixels, the limit is {} million; make the picture smaller", MAX_PIXELS / 1_000_000)]
    TooManyPixels {
        /// Pixels per row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// No format that is known here.
    #[error("not a JPEG, PNG, WebP or BMP picture; convert it to one of these")]
    UnknownFormat,
    /// A JPEG that ends early or holds nonsense.
    #[error("broken JPEG ({0}); copy or save it again")]
    Jpeg(String),
    /// A picture of another format that ends early, holds nonsense or uses what is not supported.
    #[error("broken or unsupported {format:?} ({cause}); copy or save it again")]
    Picture {
        /// Its format.
        format: ImageFormat,
        /// What the decoder says.
        cause: String,
    },
}

/// Reads a picture file, turned upright.
pub fn decode_image(path: &Path) -> Result<RgbImage, DecodeError> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(DecodeError::Folder);
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(DecodeError::FileTooLarge { bytes: meta.len() });
    }
    // A pipe has no length: cap what is read, not what was promised.
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_BYTES + 1), &mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DecodeError::FileTooLarge { bytes: bytes.len() as u64 });
    }
    decode_bytes(&bytes)
}

/// Decodes a whole picture file in memory, turned upright.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => decode_jpeg_upright(bytes),
        Ok(format @ (ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => decode_other(bytes, format),
        _ => Err(DecodeError::UnknownFormat),
    }
}

/// Decodes one MJPEG frame into `rgb` (`[height][width][3]`, resized to fit); Huffman tables may be absent.
///
/// Cameras do not rotate by EXIF, so it is not looked at.
pub fn decode_mjpeg(frame: &[u8], rgb: &mut Vec<u8>) -> Result<Size, DecodeError> {
    let frame = with_huffman_tables(frame);
    let (size, _) = decode_jpeg(&frame, rgb)?;
    Ok(size)
}

fn decode_jpeg_upright(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let mut rgb = Vec::new();
    let (size, orientation) = decode_jpeg(bytes, &mut rgb)?;
    let image = RgbImage::from_raw(size.width as u32, size.height as u32, rgb)
        .ok_or_else(|| DecodeError::Jpeg("its rows do not fill the picture".into()))?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Decodes a JPEG in zune-jpeg's strict mode: by default it returns truncated pictures as whole ones.
fn decode_jpeg(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(Size, Orientation), DecodeError> {
    let broken = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Jpeg(one_line(&error));
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let info = decoder.info().ok_or_else(|| DecodeError::Jpeg("it has no header".into()))?;
    let size = Size { width: usize::from(info.width), height: usize::from(info.height) };
    check_pixels(size.width as u64, size.height as u64)?;
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    let length = decoder
        .output_buffer_size()
        .filter(|&length| length == 3 * size.width * size.height)
        .ok_or_else(|| DecodeError::Jpeg("its colours are of a kind that is not supported".into()))?;
    rgb.resize(length, 0);
    decoder.decode_into(rgb).map_err(broken)?;
    Ok((size, orientation))
}

fn decode_other(bytes: &[u8], format: ImageFormat) -> Result<RgbImage, DecodeError> {
    let broken = |error: image::ImageError| DecodeError::Picture { format, cause: one_line(&error) };
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_pixels(u64::from(width), u64::from(height))?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Decoders' messages may hold line breaks; ours are one line.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check_pixels(width: u64, height: u64) -> Result<(), DecodeError> {
    if width * height > MAX_PIXELS {
        return Err(DecodeError::TooManyPixels { width, height });
    }
    Ok(())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
