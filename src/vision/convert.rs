//! A live source's frame as packed RGB, whatever its layout.
//!
//! YUV is BT.601 of limited range (Y 16..=235, U and V 16..=240), which is what cameras and video files of
//! 8 bits give unless they say otherwise; pictures of HD in BT.709 come out a shade off, which a detector
//! does not mind. Chroma is repeated, not interpolated.

use super::decode::{DecodeError, decode_mjpeg};
use super::letterbox::Size;
use crate::frame::{Frame, PixelFormat};

/// Fraction bits of the factors below: few enough that each factor and each centred sample fits an i16.
pub const FRACTION_BITS: u32 = 13;
/// What Y counts in R, G and B: `255 / 219`.
pub const Y_GAIN: i32 = 9539;
/// What V counts in R: `255 / 112 * 0.701`.
pub const V_TO_R: i32 = 13075;
/// What U counts in G: `-255 / 112 * 0.886 * 0.114 / 0.587`.
pub const U_TO_G: i32 = -3209;
/// What V counts in G: `-255 / 112 * 0.701 * 0.299 / 0.587`.
pub const V_TO_G: i32 = -6660;
/// What U counts in B: `255 / 112 * 0.886`.
pub const U_TO_B: i32 = 16525;
/// Y of black.
pub const Y_BLACK: i32 = 16;
/// U and V of grey.
pub const UV_GREY: i32 = 128;

/// Why a frame gives no picture. Such a frame is skipped; the next one may be whole.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The JPEG is broken.
    #[error(transparent)]
    Jpeg(#[from] DecodeError),
    /// A side is zero, or larger than any picture that is decoded.
    #[error("a {format} frame of {width}x{height} pixels is not a picture")]
    Sides {
        /// Its layout.
        format: PixelFormat,
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// Its rows are said to lie closer than they are long.
    #[error("a {format} row takes {needed} bytes, the frame's stride is {stride}")]
    Stride {
        /// Its layout.
        format: PixelFormat,
        /// Bytes of a row.
        needed: usize,
        /// Bytes between rows.
        stride: usize,
    },
    /// It ends early.
    #[error("a {format} frame of {size} takes {needed} bytes, this one has {actual}")]
    Short {
        /// Its layout.
        format: PixelFormat,
        /// Its size.
        size: Size,
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        actual: usize,
    },
}

/// Most pixels a side: products of sides and strides stay far from overflow.
const MAX_SIDE: usize = u16::MAX as usize;

/// Bytes of the first plane's rows without padding; 0 for a JPEG, which has no rows.
pub fn row_bytes(format: PixelFormat, width: usize) -> usize {
    match format {
        PixelFormat::Mjpeg => 0,
        PixelFormat::Yuyv | PixelFormat::Uyvy => 4 * width.div_ceil(2),
        PixelFormat::Nv12 | PixelFormat::Yu12 | PixelFormat::Grey => width,
        PixelFormat::Rgb3 | PixelFormat::Bgr3 => 3 * width,
    }
}

/// Bytes of a whole frame whose rows are `stride` apart, padding behind the last row included.
pub fn frame_bytes(format: PixelFormat, size: Size, stride: usize) -> usize {
    let chroma = match format {
        PixelFormat::Nv12 => chroma_stride(format, size.width, stride) * size.height.div_ceil(2),
        PixelFormat::Yu12 => 2 * chroma_stride(format, size.width, stride) * size.height.div_ceil(2),
        _ => 0,
    };
    stride * size.height + chroma
}

/// Bytes between rows of the planes of chroma.
pub fn chroma_stride(format: PixelFormat, width: usize, stride: usize) -> usize {
    match format {
        PixelFormat::Nv12 => stride.max(2 * width.div_ceil(2)),
        PixelFormat::Yu12 => stride.div_ceil(2),
        _ => 0,
    }
}

/// Checks that a frame holds what its format, size and stride promise, padding behind its end excepted.
///
/// # Errors
/// [`ConvertError`] for anything that would be read past `bytes`. A JPEG is not looked at.
pub fn check(frame: &Frame) -> Result<(), ConvertError> {
    let Frame { format, width, height, stride, .. } = *frame;
    if format == PixelFormat::Mjpeg {
        return Ok(());
    }
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(ConvertError::Sides { format, width, height });
    }
    let row = row_bytes(format, width);
    // A stride past this is no padding but nonsense, and its products could overflow.
    if stride < row || stride > 16 * MAX_SIDE {
        return Err(ConvertError::Stride { format, needed: row, stride });
    }
    let size = Size { width, height };
    let last = match format {
        PixelFormat::Nv12 => (chroma_stride(format, width, stride), 2 * width.div_ceil(2)),
        PixelFormat::Yu12 => (chroma_stride(format, width, stride), width.div_ceil(2)),
        _ => (stride, row),
    };
    let needed = frame_bytes(format, size, stride) - (last.0 - last.1);
    if frame.bytes.len() < needed {
        return Err(ConvertError::Short { format, size, needed, actual: frame.bytes.len() });
    }
    Ok(())
}

/// Writes a frame as `[height][width][3]` into `rgb`, which is resized to fit and used again.
///
/// # Errors
/// [`ConvertError`]; `rgb` then holds nothing of use.
pub fn to_rgb(frame: &Frame, rgb: &mut Vec<u8>) -> Result<Size, ConvertError> {
    if frame.format == PixelFormat::Mjpeg {
        return Ok(decode_mjpeg(&frame.bytes, rgb)?);
    }
    check(frame)?;
    let size = Size { width: frame.width, height: frame.height };
    rgb.resize(3 * size.width * size.height, 0);
    let rows = rgb.chunks_exact_mut(3 * size.width).enumerate();
    match frame.format {
        PixelFormat::Mjpeg => {}
        PixelFormat::Yuyv => rows.for_each(|(y, out)| packed_row(row(frame, y), [0, 1, 2, 3], out)),
        PixelFormat::Uyvy => rows.for_each(|(y, out)| packed_row(row(frame, y), [1, 0, 3, 2], out)),
        PixelFormat::Nv12 => {
            let stride = chroma_stride(frame.format, frame.width, frame.stride);
            let chroma = &frame.bytes[frame.stride * frame.height..];
            rows.for_each(|(y, out)| {
                let uv = chroma[y / 2 * stride..].chunks_exact(2).map(|uv| (uv[0], uv[1]));
                planar_row(row(frame, y), uv, out);
            });
        }
        PixelFormat::Yu12 => {
            let stride = chroma_stride(frame.format, frame.width, frame.stride);
            let (u, v) =
                frame.bytes[frame.stride * frame.height..].split_at(stride * frame.height.div_ceil(2));
            rows.for_each(|(y, out)| {
                let at = y / 2 * stride;
                planar_row(row(frame, y), u[at..].iter().copied().zip(v[at..].iter().copied()), out);
            });
        }
        PixelFormat::Rgb3 => rows.for_each(|(y, out)| out.copy_from_slice(row(frame, y))),
        PixelFormat::Bgr3 => rows.for_each(|(y, out)| {
            for (to, from) in out.chunks_exact_mut(3).zip(row(frame, y).chunks_exact(3)) {
                to.copy_from_slice(&[from[2], from[1], from[0]]);
            }
        }),
        PixelFormat::Grey => rows.for_each(|(y, out)| {
            for (to, &from) in out.chunks_exact_mut(3).zip(row(frame, y)) {
                to.fill(from);
            }
        }),
    }
    Ok(size)
}

/// Row `y` of the first plane, without padding.
fn row(frame: &Frame, y: usize) -> &[u8] {
    &frame.bytes[y * frame.stride..][..row_bytes(frame.format, frame.width)]
}

/// A row of pixel pairs; `order` says where in a pair's 4 bytes Y0, U, Y1 and V lie.
fn packed_row(pairs: &[u8], order: [usize; 4], rgb: &mut [u8]) {
    for (pair, out) in pairs.chunks_exact(4).zip(rgb.chunks_mut(6)) {
        let [y0, u, y1, v] = order.map(|at| pair[at]);
        out[..3].copy_from_slice(&yuv_to_rgb(y0, u, v));
        // Behind an odd width's last pixel the pair goes on, the row does not.
        if let Some(second) = out.get_mut(3..6) {
            second.copy_from_slice(&yuv_to_rgb(y1, u, v));
        }
    }
}

/// A row of Y with a row of chroma, one pair of which serves two pixels.
fn planar_row(luma: &[u8], chroma: impl Iterator<Item = (u8, u8)>, rgb: &mut [u8]) {
    for ((y, out), (u, v)) in luma.chunks(2).zip(rgb.chunks_mut(6)).zip(chroma) {
        for (&y, out) in y.iter().zip(out.chunks_exact_mut(3)) {
            out.copy_from_slice(&yuv_to_rgb(y, u, v));
        }
    }
}

/// One pixel, BT.601 of limited range, rounded to nearest and clipped.
#[inline]
pub fn yuv_to_rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let luma = Y_GAIN * (i32::from(y) - Y_BLACK) + (1 << (FRACTION_BITS - 1));
    let (u, v) = (i32::from(u) - UV_GREY, i32::from(v) - UV_GREY);
    [luma + V_TO_R * v, luma + U_TO_G * u + V_TO_G * v, luma + U_TO_B * u]
        .map(|sum| (sum >> FRACTION_BITS).clamp(0, 255) as u8)
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
