//! Which V4L2 cameras there are, and what they offer.

use std::io;
use std::path::{Path, PathBuf};

use v4l::capability::Flags;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;

/// A video device that captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// Its name as the driver gives it.
    pub name: String,
    /// Formats with their sizes: `MJPG 1280x720 640x480`.
    pub formats: Vec<String>,
}

/// All `/dev/videoN`, by number, with what is known of each; `None` for a device that captures no video.
pub fn list() -> Vec<(PathBuf, io::Result<Option<Camera>>)> {
    let mut numbers: Vec<u32> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .map(|number| {
            let path = PathBuf::from(format!("/dev/video{number}"));
            let camera = ask(&path);
            (path, camera)
        })
        .collect()
}

fn ask(path: &Path) -> io::Result<Option<Camera>> {
    let device = v4l::Device::with_path(path)?;
    let caps = device.query_caps()?;
    if !caps.capabilities.contains(Flags::VIDEO_CAPTURE) {
        return Ok(None);
    }
    let mut formats = Vec::new();
    for format in device.enum_formats()? {
        let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
        let sizes: Vec<String> = sizes.into_iter().map(|size| size_text(&size.size)).collect();
        formats.push(format!("{} {}", format.fourcc, sizes.join(" ")).trim_end().to_owned());
    }
    Ok(Some(Camera { name: caps.card, formats }))
}

fn size_text(size: &FrameSizeEnum) -> String {
    match size {
        FrameSizeEnum::Discrete(size) => format!("{}x{}", size.width, size.height),
        FrameSizeEnum::Stepwise(size) => {
            format!("{}x{}..{}x{}", size.min_width, size.min_height, size.max_width, size.max_height)
        }
    }
}
