//! Frames out of a stream of bytes: Motion JPEG, YUV4MPEG2, or raw frames of a known size.
//!
//! Bytes come in pieces of any length. The state between two pieces is all here, so that reading may stop
//! and go on anywhere.

use std::io;
use std::time::SystemTime;

use super::jpeg::JpegScanner;
use super::{MAX_FRAME_BYTES, SourceError};
use crate::frame::{Frame, PixelFormat};
use crate::vision::Size;
use crate::vision::pixels::{frame_bytes, row_bytes};

/// How a stream of YUV4MPEG2 begins.
const Y4M: &[u8] = b"YUV4MPEG2 ";
/// How a JPEG begins.
const JPEG: &[u8] = &[0xff, 0xd8];
/// How each of its frames begins.
const FRAME: &[u8] = b"FRAME";
/// Longest line of a header.
const MAX_LINE: usize = 1024;
/// Widest and highest picture.
const MAX_SIDE: usize = u16::MAX as usize;

/// Why bytes give no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    /// Nothing says what the bytes are.
    #[error(
        "neither Motion JPEG nor YUV4MPEG2; send one of these (rpicam-vid -t 0 --codec mjpeg -o - | ghostlight \
         run --source -), or set format, width and height in [source] for raw frames"
    )]
    Unknown,
    /// The header of YUV4MPEG2 is not one.
    #[error("broken YUV4MPEG2 header: {0}")]
    Header(String),
    /// Samples that are not read.
    #[error("YUV4MPEG2 with {0} is not read; send C420 or Cmono, 8 bits (ffmpeg: -pix_fmt yuv420p)")]
    Samples(String),
    /// A frame larger than is taken.
    #[error("frames of {width}x{height} pixels are not taken; up to {} MB a frame are", MAX_FRAME_BYTES >> 20)]
    Large {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// A frame does not begin where the last one ended.
    #[error("broken stream: no frame begins behind frame {0}")]
    Lost(u64),
}

impl StreamError {
    /// As the fault of a source.
    pub(super) fn of(self, name: &str) -> SourceError {
        let name = name.to_owned();
        match self {
            Self::Lost(_) => SourceError::Read {
                name,
                error: io::Error::new(io::ErrorKind::InvalidData, self.to_string()),
            },
            _ => SourceError::Unfit { name, cause: self.to_string() },
        }
    }
}

/// What is known of a stream before it begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Layout of its frames.
    pub(super) format: Option<PixelFormat>,
    /// Pixels in a row.
    pub(super) width: Option<usize>,
    /// Rows.
    pub(super) height: Option<usize>,
}

/// Frames of one layout and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    format: PixelFormat,
    size: Size,
    bytes: usize,
}

impl Shape {
    fn new(format: PixelFormat, width: usize, height: usize) -> Result<Self, StreamError> {
        let sides = [width, height].iter().all(|side| (1..=MAX_SIDE).contains(side));
        let size = Size { width, height };
        let bytes = if sides { frame_bytes(format, size, row_bytes(format, width)) } else { usize::MAX };
        match bytes <= MAX_FRAME_BYTES {
            true => Ok(Self { format, size, bytes }),
            false => Err(StreamError::Large { width, height }),
        }
    }

    /// Takes bytes of a frame. Returns how many, and whether it is whole.
    fn fill(&self, bytes: &[u8], frame: &mut Vec<u8>) -> (usize, bool) {
        let left = self.bytes - frame.len();
        let taken = left.min(bytes.len());
        frame.extend_from_slice(&bytes[..taken]);
        (taken, taken == left)
    }
}

#[derive(Debug)]
enum Layout {
    /// Not known yet.
    Unknown,
    Mjpeg(JpegScanner),
    Raw(Shape),
    /// In the header of YUV4MPEG2.
    Y4mHeader,
    /// In a frame's own header.
    Y4mLine(Shape),
    Y4mFrame(Shape),
}

/// Cuts frames out of bytes.
#[derive(Debug)]
pub(super) struct Decoder {
    asked: Asked,
    layout: Layout,
    /// The first bytes, or those of a header's line, as far as they came.
    line: Vec<u8>,
    /// The frame that is being filled; empty between frames.
    frame: Frame,
    sequence: u64,
}

impl Decoder {
    /// Begins a stream.
    ///
    /// # Errors
    /// Frames of the size asked for are not taken.
    pub(super) fn new(asked: Asked) -> Result<Self, StreamError> {
        let layout = match (asked.format, asked.width, asked.height) {
            (Some(PixelFormat::Mjpeg), ..) => Layout::Mjpeg(JpegScanner::new()),
            (Some(format), Some(width), Some(height)) => Layout::Raw(Shape::new(format, width, height)?),
            _ => Layout::Unknown,
        };
        Ok(Self { asked, layout, line: Vec::new(), frame: Frame::default(), sequence: 0 })
    }

    /// What was known of the stream before it began.
    pub(super) fn asked(&self) -> Asked {
        self.asked
    }

    /// Frames so far, lost ones included.
    pub(super) fn count(&self) -> u64 {
        self.sequence
    }

    /// Layout and size, once they are known.
    pub(super) fn describe(&self) -> Option<String> {
        match &self.layout {
            Layout::Unknown | Layout::Y4mHeader => None,
            Layout::Mjpeg(_) => Some(PixelFormat::Mjpeg.to_string()),
            Layout::Raw(shape) | Layout::Y4mLine(shape) | Layout::Y4mFrame(shape) => {
                Some(format!("{} {}", shape.format, shape.size))
            }
        }
    }

    /// Takes bytes. Each whole frame goes to `put`, which gives any buffer back in its place.
    ///
    /// # Errors
    /// [`StreamError`]; the rest of the stream means nothing then.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        mut put: impl FnMut(&mut Frame),
    ) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let (taken, whole) = self.step(bytes)?;
            bytes = &bytes[taken..];
            if whole {
                self.finish(&mut put);
            }
        }
        Ok(())
    }

    fn finish(&mut self, put: &mut impl FnMut(&mut Frame)) {
        let shape = match &mut self.layout {
            Layout::Mjpeg(scanner) => {
                self.sequence += scanner.take_dropped();
                None
            }
            Layout::Raw(shape) | Layout::Y4mFrame(shape) | Layout::Y4mLine(shape) => Some(*shape),
            Layout::Unknown | Layout::Y4mHeader => None,
        };
        let frame = &mut self.frame;
        frame.format = shape.map_or(PixelFormat::Mjpeg, |shape| shape.format);
        (frame.width, frame.height) = shape.map_or((0, 0), |shape| (shape.size.width, shape.size.height));
        frame.stride = row_bytes(frame.format, frame.width);
        frame.sequence = self.sequence;
        frame.captured = SystemTime::now();
        self.sequence += 1;
        put(frame);
        frame.bytes.clear();
    }

    /// Takes some bytes. Returns how many, and whether a frame is whole.
    fn step(&mut self, bytes: &[u8]) -> Result<(usize, bool), StreamError> {
        let frame = &mut self.frame.bytes;
        match &mut self.layout {
            Layout::Unknown => {
                self.line.push(bytes[0]);
                self.recognise()?;
                Ok((1, false))
            }
            Layout::Mjpeg(scanner) => Ok(scanner.feed(bytes, frame)),
            Layout::Raw(shape) => Ok(shape.fill(bytes, frame)),
            Layout::Y4mHeader => {
                let too_long = || StreamError::Header(format!("its line is longer than {MAX_LINE} bytes"));
                let (taken, ended) = take_line(bytes, &mut self.line).ok_or_else(too_long)?;
                if ended {
                    self.layout = Layout::Y4mLine(header(&self.line)?);
                    self.line.clear();
                }
                Ok((taken, false))
            }
            Layout::Y4mLine(shape) => {
                let (shape, lost) = (*shape, StreamError::Lost(self.sequence));
                let Some((taken, ended)) = take_line(bytes, &mut self.line) else { return Err(lost) };
                // Told by the first bytes: no end of line may ever come.
                let known = FRAME.len().min(self.line.len());
                if self.line[..known] != FRAME[..known] {
                    return Err(lost);
                }
                if ended {
                    if !matches!(self.line.get(FRAME.len()), None | Some(b' ')) || known < FRAME.len() {
                        return Err(lost);
                    }
                    self.line.clear();
                    self.layout = Layout::Y4mFrame(shape);
                }
                Ok((taken, false))
            }
            Layout::Y4mFrame(shape) => {
                let shape = *shape;
                let (taken, whole) = shape.fill(bytes, frame);
                if whole {
                    self.layout = Layout::Y4mLine(shape);
                }
                Ok((taken, whole))
            }
        }
    }

    /// Looks whether the first bytes say what the stream is.
    fn recognise(&mut self) -> Result<(), StreamError> {
        let head = self.line.as_slice();
        if head == JPEG {
            let mut scanner = JpegScanner::new();
            scanner.feed(JPEG, &mut self.frame.bytes);
            self.layout = Layout::Mjpeg(scanner);
        } else if head == Y4M {
            self.layout = Layout::Y4mHeader;
        } else if JPEG.starts_with(head) || Y4M.starts_with(head) {
            return Ok(());
        } else {
            return Err(StreamError::Unknown);
        }
        self.line.clear();
        Ok(())
    }
}

/// Takes bytes of a line without its end. Returns how many, and whether it ended; `None` if it is too long.
fn take_line(bytes: &[u8], line: &mut Vec<u8>) -> Option<(usize, bool)> {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let part = &bytes[..end.unwrap_or(bytes.len())];
    if line.len() + part.len() > MAX_LINE {
        return None;
    }
    line.extend_from_slice(part);
    Some((part.len() + usize::from(end.is_some()), end.is_some()))
}

/// Reads the header behind its first word: `W640 H480 F30:1 Ip A1:1 C420jpeg`.
fn header(line: &[u8]) -> Result<Shape, StreamError> {
    let line = str::from_utf8(line).map_err(|_| StreamError::Header("it is not text".into()))?;
    let side = |text: &str, which: &str| {
        let side = text.parse::<usize>().ok().filter(|&side| side > 0);
        side.ok_or_else(|| StreamError::Header(format!("{which} is '{}'", text.escape_default())))
    };
    let (mut width, mut height, mut samples) = (None, None, "420");
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word.chars();
        match rest.next() {
            Some('W') => width = Some(side(rest.as_str(), "the width")?),
            Some('H') => height = Some(side(rest.as_str(), "the height")?),
            Some('C') => samples = rest.as_str(),
            _ => {}
        }
    }
    let format = match samples {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => PixelFormat::Yu12,
        "mono" => PixelFormat::Grey,
        other => return Err(StreamError::Samples(format!("C{}", other.escape_default()))),
    };
    match (width, height) {
        (Some(width), Some(height)) => Shape::new(format, width, height),
        _ => Err(StreamError::Header("it has no width or no height".into())),
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
