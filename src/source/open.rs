//! Which source a text means, and opening it.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::pictures::Pictures;
use super::stream::Asked;
use super::v4l2::{Camera, CameraOptions};
use super::{Source, SourceError, address, child, files, http, stdin};
use crate::frame::PixelFormat;
use crate::vision::Size;

/// Schemes that are left to a player.
const PLAYED: [&str; 9] = ["https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp"];

/// Which source, and what is asked of it.
#[derive(Clone, PartialEq)]
pub struct SourceOptions {
    /// `-` for standard input, an address, a file, a folder of pictures, or a camera.
    pub from: String,
    /// Layout of pixels; the source's, if none.
    pub format: Option<PixelFormat>,
    /// Pixels in a row; the source's, if none.
    pub width: Option<usize>,
    /// Rows; the source's, if none.
    pub height: Option<usize>,
    /// Most frames a second.
    pub fps: Option<f64>,
    /// The network's input, which a camera's size is chosen for.
    pub want: Size,
    /// Whether files begin anew at their end.
    pub repeat: bool,
    /// The program that plays videos and streams; ffmpeg or GStreamer from `PATH`, if none.
    pub player: Option<PathBuf>,
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, format, width, height, fps, want, repeat, player } = self;
        f.debug_struct("SourceOptions")
            .field("from", &address::shown(from))
            .field("format", format)
            .field("width", width)
            .field("height", height)
            .field("fps", fps)
            .field("want", want)
            .field("repeat", repeat)
            .field("player", player)
            .finish()
    }
}

/// An address as it may be shown: without user, password and query.
pub fn shown(from: &str) -> String {
    address::shown(from)
}

/// What a text means.
#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    Stdin,
    Http,
    /// An address for a player.
    Stream,
    /// A scheme that nobody knows.
    Foreign(String),
    Pictures(&'a Path),
    Video(&'a Path),
    Camera,
    /// A path to something else.
    Other,
}

impl<'a> Kind<'a> {
    fn of(from: &'a str) -> Self {
        if from == "-" {
            return Self::Stdin;
        }
        match address::scheme(from).as_deref() {
            Some("http") => return Self::Http,
            Some(scheme) if PLAYED.contains(&scheme) => return Self::Stream,
            Some(scheme) => return Self::Foreign(scheme.to_owned()),
            None => {}
        }
        let path = Path::new(from);
        match path.metadata() {
            Ok(meta) if meta.is_dir() || (meta.is_file() && files::is_picture(path)) => Self::Pictures(path),
            Ok(meta) if meta.is_file() => Self::Video(path),
            Ok(meta) if meta.file_type().is_char_device() => Self::Camera,
            Ok(_) => Self::Other,
            Err(_) if from.starts_with("/dev/") || !from.contains('/') => Self::Camera,
            // Says that it is not there.
            Err(_) => Self::Pictures(path),
        }
    }
}

/// Opens the source that `options.from` means.
///
/// # Errors
/// [`SourceError`], with what to do.
pub fn open(options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let SourceOptions { from, format, width, height, fps, repeat, player, .. } = options;
    let asked = Asked { format: *format, width: *width, height: *height };
    let play = |input| child::open(input, asked, player.as_deref());
    let unfit = |cause: String| Err(SourceError::Unfit { name: address::shown(from), cause });
    Ok(match Kind::of(from) {
        Kind::Stdin => Box::new(stdin::open(asked)?),
        Kind::Http => Box::new(http::open(from, *format, *fps)?),
        Kind::Stream => match address::Address::parse(from) {
            Ok(_) => Box::new(play(child::Input::Address(from.clone()))?),
            Err(cause) => return unfit(cause.into()),
        },
        Kind::Foreign(scheme) => {
            return unfit(format!("unknown scheme {scheme}://; known are http, {}", PLAYED.join(", ")));
        }
        Kind::Pictures(path) => Box::new(Pictures::open(path, *repeat, *fps)?),
        Kind::Video(path) => {
            Box::new(play(child::Input::File { path: path.to_path_buf(), repeat: *repeat })?)
        }
        Kind::Camera => return camera(options),
        Kind::Other => {
            return unfit(
                "neither a file, a folder nor a camera; a pipe is read by --source - < PIPE".into(),
            );
        }
    })
}

fn camera(options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let SourceOptions { from, format, width, height, fps, want, .. } = options.clone();
    Ok(Box::new(Camera::open(&CameraOptions { device: from, format, width, height, fps, network: want })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(from: &str) -> SourceOptions {
        let want = Size { width: 640, height: 640 };
        let (format, width, height, fps, repeat, player) = (None, None, None, None, false, None);
        SourceOptions { from: from.into(), format, width, height, fps, want, repeat, player }
    }

    #[test]
    fn each_text_means_one_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.jpg", "a.mp4"] {
            std::fs::write(path(name), "").unwrap();
        }
        let kind = |text: &str| format!("{:?}", Kind::of(text)).split('(').next().unwrap().to_owned();
        for (text, expected) in [
            ("-", "Stdin"),
            ("HTTP://cam/x", "Http"),
            ("https://cam/x", "Stream"),
            ("rtsp://u:p@cam/x", "Stream"),
            ("gopher://cam/x", "Foreign"),
            ("/dev/video-absent", "Camera"),
            ("UVC Camera", "Camera"),
            ("/dev/null", "Camera"),
            ("absent/folder", "Pictures"),
            (folder.path().to_str().unwrap(), "Pictures"),
            (path("a.jpg").to_str().unwrap(), "Pictures"),
            (path("a.mp4").to_str().unwrap(), "Video"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why_without_secrets() {
        for (from, words, recovers) in [
            ("gopher://u:secret@cam", "known are http, https, rtsp", false),
            ("rtsp://u:secret@", "no host", false),
            ("http://u:secret@cam:x/", "the port is no number", false),
            ("/dev/video-absent", "no such device", true),
            ("absent/folder", "no such device, file or folder", true),
        ] {
            let fault = open(&options(from)).err().expect("no source");
            let text = fault.to_string();
            assert!(text.contains(words) && fault.may_recover() == recovers, "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
        assert!(!format!("{:?}", options("rtsp://u:secret@cam")).contains("secret"));
    }
}
