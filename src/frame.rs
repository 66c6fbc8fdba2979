//! One picture of a live source, as the source gives it.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// How a frame's bytes make pixels. Names as V4L2 has them, 8 bits a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Motion JPEG: one picture, possibly without Huffman tables, possibly padded behind its end.
    Mjpeg,
    /// 4:2:2 packed, Y0 U Y1 V.
    Yuyv,
    /// 4:2:2 packed, U Y0 V Y1.
    Uyvy,
    /// 4:2:0, a plane of Y, then one of U and V interleaved.
    Nv12,
    /// 4:2:0, planes of Y, U and V (V4L2's YU12, I420).
    Yu12,
    /// Packed R, G, B.
    Rgb3,
    /// Packed B, G, R.
    Bgr3,
    /// One sample a pixel.
    Grey,
}

impl PixelFormat {
    /// All but the compressed one.
    pub const RAW: [Self; 7] =
        [Self::Yuyv, Self::Uyvy, Self::Nv12, Self::Yu12, Self::Rgb3, Self::Bgr3, Self::Grey];
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mjpeg => "MJPEG",
            Self::Yuyv => "YUYV",
            Self::Uyvy => "UYVY",
            Self::Nv12 => "NV12",
            Self::Yu12 => "YU12",
            Self::Rgb3 => "RGB3",
            Self::Bgr3 => "BGR3",
            Self::Grey => "GREY",
        })
    }
}

/// A name that is no [`PixelFormat`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown pixel format `{0}`; known are mjpeg, yuyv, uyvy, nv12, yu12, rgb3, bgr3, grey")]
pub struct UnknownFormat(String);

impl FromStr for PixelFormat {
    type Err = UnknownFormat;

    /// By V4L2's name or the one that other programs use, in any case.
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "mjpeg" | "mjpg" | "jpeg" => Self::Mjpeg,
            "yuyv" | "yuy2" | "yuyv422" => Self::Yuyv,
            "uyvy" | "uyvy422" => Self::Uyvy,
            "nv12" => Self::Nv12,
            "yu12" | "i420" | "yuv420" | "yuv420p" => Self::Yu12,
            "rgb3" | "rgb24" | "rgb" => Self::Rgb3,
            "bgr3" | "bgr24" | "bgr" => Self::Bgr3,
            "grey" | "gray" => Self::Grey,
            _ => return Err(UnknownFormat(name.to_owned())),
        })
    }
}

/// A picture and when it was taken. Its buffer is used again for later ones.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Layout of `bytes`.
    pub format: PixelFormat,
    /// Pixels in a row. 0 where only the JPEG knows.
    pub width: usize,
    /// Rows. 0 where only the JPEG knows.
    pub height: usize,
    /// Bytes from one row of the first plane to the next; rows may be padded.
    pub stride: usize,
    /// Counted by the source: a gap is a frame that was lost before it came here.
    pub sequence: u64,
    /// When the sensor took it, as well as the source knows.
    pub captured: SystemTime,
    /// The picture.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Format and, where it is known, size in words: `YUYV 640x480`, `MJPEG`.
    pub fn layout(&self) -> String {
        let Self { format, width, height, .. } = self;
        if *width == 0 { format.to_string() } else { format!("{format} {width}x{height}") }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            format: PixelFormat::Rgb3,
            width: 0,
            height: 0,
            stride: 0,
            sequence: 0,
            captured: SystemTime::UNIX_EPOCH,
            bytes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_reads_its_own_name() {
        for name in ["MJPEG", "YUYV", "UYVY", "NV12", "YU12", "RGB3", "BGR3", "GREY"] {
            assert_eq!(name.parse::<PixelFormat>().unwrap().to_string(), name);
        }
        let error = "h264".parse::<PixelFormat>().unwrap_err().to_string();
        assert!(error.contains("h264") && error.contains("mjpeg"), "{error}");
    }
}
