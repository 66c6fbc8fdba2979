//! Cameras of Video4Linux2.
//!
//! `driver` is what a driver is asked, `device` asks the kernel, `choose` decides on format, size and rate,
//! `stream` moves buffers, `error` says what the system's errors mean. A camera is resolved anew each time it
//! is opened: one that was plugged in again may have another number.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Next, Source, SourceError};
use crate::frame::{Frame, PixelFormat};
use crate::vision::Size;

mod choose;
mod device;
mod driver;
mod error;
mod stream;

pub use choose::FormatOffer;
use device::Device;
use driver::{Capability, Driver, Interval, Layout};
pub use driver::{FourCc, SizeOffer};
pub use error::{BUSY, DENIED};
use error::{Step, fault};
use stream::Stream;

/// Which camera, and what is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraOptions {
    /// A path with a slash (`/dev/video0`, a link in `/dev/v4l/by-id`), or the camera's name as its driver
    /// gives it: the first camera that has it.
    pub device: String,
    /// Layout; the best that the camera has, if none.
    pub format: Option<PixelFormat>,
    /// Pixels in a row; the smallest that fill the network, if none.
    pub width: Option<usize>,
    /// Rows; the smallest that fill the network, if none.
    pub height: Option<usize>,
    /// Pictures a second that are enough; up to 30, if none.
    pub fps: Option<f64>,
    /// The network's input, which the size is chosen for.
    pub network: Size,
}

/// An open camera.
pub struct Camera {
    stream: Stream<Device>,
    description: String,
}

impl fmt::Debug for Camera {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Camera").field(&self.description).finish()
    }
}

impl Camera {
    /// Opens the camera and starts it.
    ///
    /// # Errors
    /// [`SourceError`], with what to do.
    pub fn open(options: &CameraOptions) -> Result<Self, SourceError> {
        let path = resolve(&options.device)?;
        let name = path.display().to_string();
        let device = Device::open(&path).map_err(|error| fault(&name, Step::Open, error))?;
        let (stream, description) = start(device, &name, options)?;
        Ok(Self { stream, description })
    }
}

impl Source for Camera {
    fn next(&mut self, frame: &mut Frame, patience: Duration) -> Result<Next, SourceError> {
        self.stream.next(frame, patience)
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// Sets an open device up and starts it; also what came of it, in words.
fn start<D: Driver>(
    driver: D,
    name: &str,
    options: &CameraOptions,
) -> Result<(Stream<D>, String), SourceError> {
    let at = |step| move |error| fault(name, step, error);
    let capability = driver.capability().map_err(at(Step::Ask))?;
    let unfit = |cause: String| SourceError::Unfit { name: name.to_owned(), cause };
    if !capability.captures {
        return Err(unfit(no_capture(&capability).to_owned()));
    }
    let mode = choose(&driver, options, unfit, at(Step::List))?;
    let asked = options.format.is_some() || options.width.is_some() || options.height.is_some();
    let layout = driver.set_format(mode.fourcc, mode.size).map_err(at(Step::Format { asked }))?;
    let format = layout.fourcc.format().filter(|&format| options.format.is_none_or(|asked| asked == format));
    let format = format.ok_or_else(|| {
        unfit(format!(
            "asked for {}, it gives {}; set [source] format to another",
            mode.fourcc, layout.fourcc
        ))
    })?;
    warn_of_size(name, &layout, options);
    let interval = match mode.interval {
        Some(interval) => set_interval(&driver, interval).map_err(at(Step::Rate))?,
        None => None,
    };
    let fps = interval.and_then(Interval::fps);
    let description = describe(name, &capability.card, format, layout.size, fps);
    let period = fps.and_then(|fps| Duration::try_from_secs_f64(1.0 / fps).ok()).unwrap_or_default();
    Ok((Stream::start(driver, name, layout, format, period)?, description))
}

fn describe(name: &str, card: &str, format: PixelFormat, size: Size, fps: Option<f64>) -> String {
    let Size { width, height } = size;
    let rate = fps.map_or_else(String::new, |fps| format!(" at {} fps", (fps * 100.0).round() / 100.0));
    format!("{name} ({card}): {format} {width}x{height}{rate}")
}

fn no_capture(capability: &Capability) -> &'static str {
    if capability.multi_planar {
        return "its pictures come in several planes, which are not read here; use rpicam-vid or ffmpeg and \
                --source -";
    }
    "it captures no video (it is the metadata node of a camera, or a codec); see 'ghostlight doctor' for cameras"
}

fn choose<D: Driver>(
    driver: &D,
    options: &CameraOptions,
    unfit: impl Fn(String) -> SourceError,
    failed: impl Fn(io::Error) -> SourceError,
) -> Result<choose::Mode, SourceError> {
    let offers = offers(driver).map_err(&failed)?;
    let modes = choose::modes(&offers, options).map_err(|error| unfit(error.to_string()))?;
    let with_intervals = modes
        .into_iter()
        .map(|mode| Ok((mode, driver::list(|index| driver.interval(mode.fourcc, mode.size, index))?)))
        .collect::<io::Result<_>>()
        .map_err(&failed)?;
    choose::best(with_intervals, options).ok_or_else(|| unfit(choose::NoMode::Nothing.to_string()))
}

fn offers<D: Driver>(driver: &D) -> io::Result<Vec<FormatOffer>> {
    let formats = driver::list(|index| driver.format(index))?;
    formats
        .into_iter()
        .map(|fourcc| Ok(FormatOffer { fourcc, sizes: driver::list(|index| driver.size(fourcc, index))? }))
        .collect()
}

/// The interval that the driver sets; `None` from one that has no choice or will not tell.
fn set_interval<D: Driver>(driver: &D, wanted: Interval) -> io::Result<Option<Interval>> {
    match driver.set_interval(wanted) {
        Ok(interval) => Ok(Some(interval)),
        Err(error) if driver::unsupported(&error) || error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        Err(error) => Err(error),
    }
}

fn warn_of_size(name: &str, layout: &Layout, options: &CameraOptions) {
    let Size { width, height } = layout.size;
    let other = |asked: Option<usize>, given| asked.is_some_and(|asked| asked != given);
    if other(options.width, width) || other(options.height, height) {
        log::warn!("{name}: [source] width and height: it has no such size; it gives {width}x{height}");
    }
}

/// What a camera is and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Its name, as the driver gives it.
    pub card: String,
    /// Its formats.
    pub formats: Vec<FormatOffer>,
}

/// Asks a node what it offers; `None` for one that captures no video.
///
/// # Errors
/// The system's.
pub fn ask(path: &Path) -> io::Result<Option<Offers>> {
    let device = Device::open(path)?;
    let capability = device.capability()?;
    if !capability.captures {
        return Ok(None);
    }
    Ok(Some(Offers { card: capability.card, formats: offers(&device)? }))
}

/// All `/dev/videoN`, by number.
pub fn nodes() -> Vec<PathBuf> {
    let mut numbers: Vec<u32> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| PathBuf::from(format!("/dev/video{number}"))).collect()
}

/// The node that a path or a camera's name means now.
fn resolve(device: &str) -> Result<PathBuf, SourceError> {
    if device.contains('/') {
        return Ok(device.into());
    }
    let capability = |path: &Path| Device::open(path)?.capability();
    named(device, nodes().into_iter().map(|path| (capability(&path), path)))
}

/// The first of the nodes that is a camera of this name.
fn named(
    name: &str,
    nodes: impl Iterator<Item = (io::Result<Capability>, PathBuf)>,
) -> Result<PathBuf, SourceError> {
    let mut others = Vec::new();
    for (capability, path) in nodes {
        match capability {
            Ok(capability) if !capability.captures => {}
            Ok(capability) if capability.card == name => return Ok(path),
            Ok(capability) => others.push(format!("{} ({})", capability.card, path.display())),
            Err(error) => others.push(fault(&path.display().to_string(), Step::Open, error).to_string()),
        }
    }
    let cause = if others.is_empty() {
        "no camera of this name, nor any other; plug it in, or give a path like /dev/video0".to_owned()
    } else {
        format!("no camera of this name; there are: {}", others.join(", "))
    };
    Err(SourceError::Absent { name: name.to_owned(), cause })
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
