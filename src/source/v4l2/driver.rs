//! What a camera's driver is asked, one call each: a trait, so that tests can play a camera that fails.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::frame::PixelFormat;
use crate::vision::Size;

/// V4L2's name of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// The layout, if it is one that is read here.
    pub fn format(self) -> Option<PixelFormat> {
        Some(match &self.0 {
            b"MJPG" | b"JPEG" => PixelFormat::Mjpeg,
            b"YUYV" => PixelFormat::Yuyv,
            b"UYVY" => PixelFormat::Uyvy,
            b"NV12" => PixelFormat::Nv12,
            b"YU12" => PixelFormat::Yu12,
            b"RGB3" => PixelFormat::Rgb3,
            b"BGR3" => PixelFormat::Bgr3,
            b"GREY" => PixelFormat::Grey,
            _ => return None,
        })
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = self.0.map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' });
        f.write_str(String::from_iter(letters).trim_end())
    }
}

/// What a device node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The camera's name.
    pub card: String,
    /// Whether it captures video into mapped memory, one plane a picture.
    pub captures: bool,
    /// Whether it captures video in several planes a picture.
    pub multi_planar: bool,
}

/// A size that is offered, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeOffer {
    /// One size.
    Discrete(Size),
    /// Sizes from `min` to `max` in steps.
    Range {
        /// The smallest.
        min: Size,
        /// The largest.
        max: Size,
        /// From one to the next.
        step: Size,
    },
}

impl fmt::Display for SizeOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discrete(Size { width, height }) => write!(f, "{width}x{height}"),
            Self::Range { min, max, .. } => {
                write!(f, "{}x{}..{}x{}", min.width, min.height, max.width, max.height)
            }
        }
    }
}

/// Seconds from one picture to the next, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Above the line.
    pub numerator: u32,
    /// Below it.
    pub denominator: u32,
}

impl Interval {
    /// Pictures a second; `None` for a fraction that means nothing.
    pub fn fps(self) -> Option<f64> {
        let sound = self.numerator > 0 && self.denominator > 0;
        sound.then(|| f64::from(self.denominator) / f64::from(self.numerator))
    }

    /// That of so many pictures a second.
    pub fn of(fps: f64) -> Self {
        if fps.fract() == 0.0 {
            return Self { numerator: 1, denominator: fps as u32 };
        }
        Self { numerator: 1000, denominator: (fps * 1000.0).round().max(1.0) as u32 }
    }
}

/// An interval that is offered, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalOffer {
    /// One interval.
    Discrete(Interval),
    /// Any between two.
    Range {
        /// Of the most pictures a second.
        shortest: Interval,
        /// Of the fewest.
        longest: Interval,
    },
}

/// What the driver made of the format it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The layout.
    pub fourcc: FourCc,
    /// The picture's size.
    pub size: Size,
    /// Bytes from one row to the next; 0 where there are no rows.
    pub stride: usize,
}

/// A buffer that the driver has filled and given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Which one.
    pub index: u32,
    /// Bytes that are the picture.
    pub bytes: usize,
    /// Whether the driver says that the picture is damaged.
    pub damaged: bool,
    /// The driver's count of pictures.
    pub sequence: u32,
    /// When it was taken, on the clock of [`Driver::now`]; `None` if on another one.
    pub taken: Option<Duration>,
}

/// What waiting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The time ran out, or a signal came.
    Nothing,
    /// A buffer is filled.
    Buffer,
    /// The device is gone or does not stream; a buffer may be filled all the same.
    Fault,
}

/// Memory that the driver writes pictures into. Dropping it gives it back.
pub trait Mapping: Send {
    /// Replaces what `into` holds by the first `length` bytes, or as many as there are.
    fn copy(&self, length: usize, into: &mut Vec<u8>);
}

/// An open device node. Dropping it closes it.
pub trait Driver: Send {
    /// Its buffers' memory.
    type Mapping: Mapping;

    /// What it is.
    fn capability(&self) -> io::Result<Capability>;
    /// The layout of this number.
    fn format(&self, index: u32) -> io::Result<FourCc>;
    /// The size of this number.
    fn size(&self, fourcc: FourCc, index: u32) -> io::Result<SizeOffer>;
    /// The interval of this number.
    fn interval(&self, fourcc: FourCc, size: Size, index: u32) -> io::Result<IntervalOffer>;
    /// Asks for a layout, and tells which one is set.
    fn set_format(&self, fourcc: FourCc, size: Size) -> io::Result<Layout>;
    /// Asks for an interval, and tells which one is set.
    fn set_interval(&self, interval: Interval) -> io::Result<Interval>;
    /// Asks for so many buffers, and tells how many there are; 0 frees them.
    fn request(&self, count: u32) -> io::Result<u32>;
    /// Maps a buffer.
    fn map(&self, index: u32) -> io::Result<Self::Mapping>;
    /// Gives a buffer to the driver.
    fn queue(&self, index: u32) -> io::Result<()>;
    /// Takes the oldest filled buffer; [`io::ErrorKind::WouldBlock`] without one.
    fn dequeue(&self) -> io::Result<Filled>;
    /// Begins to fill buffers.
    fn start(&self) -> io::Result<()>;
    /// Ends it, and takes all buffers from the driver.
    fn stop(&self) -> io::Result<()>;
    /// Waits for a filled buffer.
    fn wait(&self, time: Duration) -> io::Result<Ready>;
    /// The monotonic clock.
    fn now(&self) -> Duration;
    /// Waits for nothing.
    fn pause(&self, time: Duration);
}

/// Ends a list that would not end. No camera offers as many.
const LONGEST_LIST: u32 = 1024;

/// All of a list that is asked for by number.
///
/// # Errors
/// The device's, but for those that say that there is no more.
pub fn list<T>(ask: impl Fn(u32) -> io::Result<T>) -> io::Result<Vec<T>> {
    let mut all = Vec::new();
    for index in 0..LONGEST_LIST {
        match ask(index) {
            Ok(item) => all.push(item),
            Err(error) if unsupported(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Whether a driver says so that it does not have what is asked of it: not this one, none of the kind, or none
/// with the input as it is set.
pub fn unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY | libc::ENODATA))
}
