//! A live source's frame as a view of pixels, and as packed RGB.
//!
//! YUV is BT.601 of limited range (Y 16..=235, U and V 16..=240), which is what cameras and video files of
//! 8 bits give unless they say otherwise; pictures of HD in BT.709 come out a shade off, which a detector
//! does not mind. Chroma is repeated, not interpolated.

use super::decode::{DecodeError, decode_mjpeg};
use super::pixels::{LayoutError, Pixels};
use crate::frame::{Frame, PixelFormat};
use crate::kernels::rows::{PIXEL, Rows};

/// Why a frame gives no picture. Such a frame is skipped; the next one may be whole.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The JPEG is broken.
    #[error(transparent)]
    Jpeg(#[from] DecodeError),
    /// Its bytes are not what its layout promises.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// A frame's pixels: where they lie, in the frame's own layout. A JPEG's are first decoded into `rgb`, which is
/// resized to fit and used again.
///
/// # Errors
/// [`ConvertError`]; `rgb` then holds nothing of use.
pub fn view<'a>(frame: &'a Frame, rgb: &'a mut Vec<u8>) -> Result<Pixels<'a>, ConvertError> {
    if frame.format == PixelFormat::Mjpeg {
        let size = decode_mjpeg(&frame.bytes, rgb)?;
        return Ok(Pixels::rgb(size, rgb));
    }
    let pixels = Pixels::from(frame);
    pixels.check()?;
    Ok(pixels)
}

/// Writes pixels as `[height][width][3]` into `rgb`, which is resized to fit and used again.
///
/// # Errors
/// [`LayoutError`]; `rgb` is then as it was.
pub fn to_rgb(pixels: Pixels<'_>, rgb: &mut Vec<u8>) -> Result<(), LayoutError> {
    pixels.check()?;
    let (rows, width) = (Rows::best(), pixels.size.width);
    let mut line = vec![0; PIXEL * width];
    rgb.resize(3 * width * pixels.size.height, 0);
    for (y, out) in rgb.chunks_exact_mut(3 * width).enumerate() {
        rows.colours(pixels.row(y), &mut line);
        for (to, from) in out.chunks_exact_mut(3).zip(line.chunks_exact(PIXEL)) {
            to.copy_from_slice(&from[..3]);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "convert_tests.rs"]
pub(super) mod tests;
