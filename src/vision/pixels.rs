//! A view of a picture in memory, in any layout that has rows.

use image::RgbImage;

use crate::frame::{Frame, PixelFormat};
use crate::kernels::rows::Row;

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A view of a picture: its bytes, and how they make pixels.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Layout of the bytes.
    pub format: PixelFormat,
    /// Size.
    pub size: Size,
    /// Bytes from one row of the first plane to the next, at least [`row_bytes`].
    pub stride: usize,
    /// The planes; the last one may end with its last row, without padding.
    pub bytes: &'a [u8],
}

/// A view whose bytes are not what its format, size and stride promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A JPEG has no rows.
    #[error("a {} frame has no rows before it is decoded", PixelFormat::Mjpeg)]
    Compressed,
    /// A side is zero, or larger than any picture that is decoded.
    #[error("a {format} frame of {size} pixels is not a picture")]
    Sides {
        /// Its layout.
        format: PixelFormat,
        /// Its size.
        size: Size,
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

/// Most pixels a side, as many as the largest picture has: products of sides and strides stay far from overflow.
const MAX_SIDE: usize = 100_000_000;

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
    let planes = match format {
        PixelFormat::Nv12 => 1,
        PixelFormat::Yu12 => 2,
        _ => 0,
    };
    let chroma = planes * chroma_stride(format, size.width, stride);
    stride.saturating_mul(size.height).saturating_add(chroma.saturating_mul(size.height.div_ceil(2)))
}

/// Bytes between rows of the planes of chroma.
pub fn chroma_stride(format: PixelFormat, width: usize, stride: usize) -> usize {
    match format {
        PixelFormat::Nv12 => stride.max(2 * width.div_ceil(2)),
        PixelFormat::Yu12 => stride.div_ceil(2),
        _ => 0,
    }
}

impl<'a> Pixels<'a> {
    /// Packed RGB, `[height][width][3]`.
    pub fn rgb(size: Size, bytes: &'a [u8]) -> Self {
        Self { format: PixelFormat::Rgb3, size, stride: size.width.saturating_mul(3), bytes }
    }

    /// Checks that the bytes hold what format, size and stride promise, padding behind their end excepted.
    ///
    /// # Errors
    /// [`LayoutError`] for anything that would be read past the bytes.
    pub fn check(&self) -> Result<(), LayoutError> {
        let Self { format, size, stride, .. } = *self;
        if format == PixelFormat::Mjpeg {
            return Err(LayoutError::Compressed);
        }
        if [size.width, size.height].iter().any(|&side| side == 0 || side > MAX_SIDE) {
            return Err(LayoutError::Sides { format, size });
        }
        let row = row_bytes(format, size.width);
        // A stride past this is no padding but nonsense, and its products could overflow.
        if stride < row || stride > 16 * MAX_SIDE {
            return Err(LayoutError::Stride { format, needed: row, stride });
        }
        let last = match format {
            PixelFormat::Nv12 => (chroma_stride(format, size.width, stride), 2 * size.width.div_ceil(2)),
            PixelFormat::Yu12 => (chroma_stride(format, size.width, stride), size.width.div_ceil(2)),
            _ => (stride, row),
        };
        let (needed, actual) = (frame_bytes(format, size, stride) - (last.0 - last.1), self.bytes.len());
        if actual < needed {
            return Err(LayoutError::Short { format, size, needed, actual });
        }
        Ok(())
    }

    /// Row `y` of a view that was checked; none of a JPEG.
    pub(super) fn row(&self, y: usize) -> Row<'a> {
        let Self { format, size, stride, .. } = *self;
        let first = &self.bytes[y * stride..][..row_bytes(format, size.width)];
        let pairs = size.width.div_ceil(2);
        let pitch = chroma_stride(format, size.width, stride);
        let chroma = |plane: usize, length: usize| {
            let plane = stride * size.height + plane * pitch * size.height.div_ceil(2);
            &self.bytes[plane + y / 2 * pitch..][..length]
        };
        match format {
            PixelFormat::Yuyv => Row::Yuyv(first),
            PixelFormat::Uyvy => Row::Uyvy(first),
            PixelFormat::Nv12 => Row::SemiPlanar { luma: first, chroma: chroma(0, 2 * pairs) },
            PixelFormat::Yu12 => Row::Planar { luma: first, u: chroma(0, pairs), v: chroma(1, pairs) },
            PixelFormat::Bgr3 => Row::Bgr(first),
            PixelFormat::Grey => Row::Grey(first),
            PixelFormat::Rgb3 | PixelFormat::Mjpeg => Row::Rgb(first),
        }
    }
}

impl<'a> From<&'a RgbImage> for Pixels<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Self::rgb(Size { width: image.width() as usize, height: image.height() as usize }, image.as_raw())
    }
}

impl<'a> From<&'a Frame> for Pixels<'a> {
    fn from(frame: &'a Frame) -> Self {
        let size = Size { width: frame.width, height: frame.height };
        Self { format: frame.format, size, stride: frame.stride, bytes: &frame.bytes }
    }
}
