//! The loop: buffers go to the driver, come back filled, are copied from and go again.

use std::io;
use std::time::{Duration, SystemTime};

use super::driver::{Driver, Filled, Layout, Mapping, Ready};
use super::error::{Step, fault};
use crate::frame::{Frame, PixelFormat};
use crate::source::{Next, SourceError};
use crate::vision::pixels::row_bytes;

/// Buffers that the driver is asked for: one is filled, one is filled next, two wait for this program.
const BUFFERS: u32 = 4;
/// A camera that gives no whole picture for this long, and for as long as [`SILENT_PERIODS`] take, has failed,
/// and is to be opened anew. It is longer than any camera takes to start.
const SILENCE: Duration = Duration::from_secs(5);
/// Pictures that a slow camera may miss.
const SILENT_PERIODS: u32 = 5;
/// Rest after a wake-up that brought no picture, so that a driver which wakes at once costs no core.
const REST: Duration = Duration::from_millis(2);
/// A picture is not older than this: such a time is not of the monotonic clock.
const OLDEST: Duration = Duration::from_secs(10);

/// The driver's 32-bit count, continued.
#[derive(Debug, Default)]
struct Sequence {
    last: Option<(u32, u64)>,
}

impl Sequence {
    /// The number of the next picture. A count that stands still or goes back counts on by one.
    fn next(&mut self, count: u32) -> u64 {
        let number = match self.last {
            None => u64::from(count),
            Some((last, number)) => match count.wrapping_sub(last) {
                step @ 1..=0x7fff_ffff => number + u64::from(step),
                _ => number + 1,
            },
        };
        self.last = Some((count, number));
        number
    }
}

/// A camera that streams. Dropping it gives back all it has, and closes the device.
pub struct Stream<D: Driver> {
    name: String,
    /// Before the driver: no buffer is mapped longer than its device is open.
    mappings: Vec<D::Mapping>,
    driver: D,
    requested: bool,
    started: bool,
    layout: Layout,
    format: PixelFormat,
    sequence: Sequence,
    /// When the last picture came, or the stream began.
    last: Duration,
    silence: Duration,
    /// Pictures that were skipped since the last whole one.
    damaged: u64,
}

impl<D: Driver> Stream<D> {
    /// Starts a device whose format is set to `layout`; pictures come `period` apart.
    ///
    /// # Errors
    /// [`SourceError`]; everything is given back.
    pub fn start(
        driver: D,
        name: &str,
        layout: Layout,
        format: PixelFormat,
        period: Duration,
    ) -> Result<Self, SourceError> {
        let mut stream = Self {
            name: name.to_owned(),
            mappings: Vec::new(),
            last: driver.now(),
            driver,
            requested: false,
            started: false,
            layout,
            format,
            sequence: Sequence::default(),
            silence: SILENCE.max(period.saturating_mul(SILENT_PERIODS)),
            damaged: 0,
        };
        let count = stream.driver.request(BUFFERS).map_err(|error| stream.fault(Step::Request, error))?;
        stream.requested = true;
        if count == 0 {
            return Err(stream.fault(Step::Request, io::Error::from_raw_os_error(libc::EINVAL)));
        }
        for index in 0..count {
            let mapping = stream.driver.map(index).map_err(|error| stream.fault(Step::Buffers, error))?;
            stream.mappings.push(mapping);
            stream.queue(index, Step::Buffers)?;
        }
        stream.driver.start().map_err(|error| stream.fault(Step::Start, error))?;
        stream.started = true;
        stream.last = stream.driver.now();
        Ok(stream)
    }

    fn fault(&self, step: Step, error: io::Error) -> SourceError {
        fault(&self.name, step, error)
    }

    fn queue(&self, index: u32, step: Step) -> Result<(), SourceError> {
        self.driver.queue(index).map_err(|error| self.fault(step, error))
    }

    /// The newest picture, within `patience`; see [`crate::source::Source::next`].
    ///
    /// # Errors
    /// The device failed, or is silent for too long.
    pub fn next(&mut self, frame: &mut Frame, patience: Duration) -> Result<Next, SourceError> {
        let end = self.driver.now().saturating_add(patience);
        let mut ready = Ready::Nothing;
        loop {
            if self.take(frame)? {
                return Ok(Next::Frame);
            }
            match ready {
                Ready::Nothing => {}
                Ready::Buffer => self.driver.pause(REST),
                // Waiting would return at once, again and again.
                Ready::Fault => {
                    let error = io::Error::other("the driver tells of an error");
                    return Err(self.fault(Step::Read, error));
                }
            }
            let now = self.driver.now();
            if now.saturating_sub(self.last) >= self.silence {
                return Err(self.silent());
            }
            let Some(left) = end.checked_sub(now).filter(|left| !left.is_zero()) else {
                return Ok(Next::Nothing);
            };
            ready = self.driver.wait(left).map_err(|error| self.fault(Step::Read, error))?;
        }
    }

    fn silent(&self) -> SourceError {
        let seconds = self.silence.as_secs();
        let cause = match self.damaged {
            0 => format!("no picture for {seconds} s; check the camera and its cable"),
            _ => format!("only damaged pictures for {seconds} s; use another cable, port or format"),
        };
        SourceError::Read { name: self.name.clone(), error: io::Error::new(io::ErrorKind::TimedOut, cause) }
    }

    /// Copies the newest of the filled buffers, and gives all of them to the driver again. Whether one of them
    /// held a picture.
    fn take(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        let Some((filled, number)) = self.newest()? else { return Ok(false) };
        let mapping = self.mappings.get(filled.index as usize).ok_or_else(|| self.no_such(filled.index))?;
        mapping.copy(filled.bytes, &mut frame.bytes);
        self.queue(filled.index, Step::Read)?;
        if self.format == PixelFormat::Mjpeg {
            // Some drivers give the whole buffer, zeros behind the picture.
            let end = frame.bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            frame.bytes.truncate(end);
        }
        if frame.bytes.is_empty() {
            self.skip();
            return Ok(false);
        }
        let (width, height) = (self.layout.size.width, self.layout.size.height);
        frame.format = self.format;
        (frame.width, frame.height) = (width, height);
        frame.stride = match (self.format, self.layout.stride) {
            (PixelFormat::Mjpeg, _) => 0,
            // Old drivers leave it out.
            (_, 0) => row_bytes(self.format, width),
            (_, stride) => stride,
        };
        frame.sequence = number;
        frame.captured = self.wall_time(filled.taken);
        self.last = self.driver.now();
        self.damaged = 0;
        Ok(true)
    }

    /// Takes the filled buffers from the driver and returns the newest, with its picture's number; damaged and
    /// older ones go back.
    fn newest(&mut self) -> Result<Option<(Filled, u64)>, SourceError> {
        let mut newest: Option<(Filled, u64)> = None;
        // A driver that fills buffers as fast as they come back must not hold this loop.
        for _ in 0..self.mappings.len() {
            let filled = match self.driver.dequeue() {
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.fault(Step::Read, error)),
            };
            let number = self.sequence.next(filled.sequence);
            if filled.damaged || filled.bytes == 0 {
                self.skip();
                self.queue(filled.index, Step::Read)?;
            } else if let Some((older, _)) = newest.replace((filled, number)) {
                self.queue(older.index, Step::Read)?;
            }
        }
        Ok(newest)
    }

    fn skip(&mut self) {
        self.damaged += 1;
        log::debug!("{}: a damaged picture, {} in a row", self.name, self.damaged);
    }

    fn no_such(&self, index: u32) -> SourceError {
        self.fault(
            Step::Read,
            io::Error::other(format!("the driver fills buffer {index}, which there is not")),
        )
    }

    /// A time of the monotonic clock by the wall's; now, if it is none.
    fn wall_time(&self, taken: Option<Duration>) -> SystemTime {
        let age = taken.and_then(|taken| self.driver.now().checked_sub(taken)).filter(|&age| age <= OLDEST);
        let now = SystemTime::now();
        now.checked_sub(age.unwrap_or_default()).unwrap_or(now)
    }
}

impl<D: Driver> Drop for Stream<D> {
    fn drop(&mut self) {
        // A device that went away refuses all of it; closing it frees what is left.
        let stopped = if self.started { self.driver.stop() } else { Ok(()) };
        self.mappings.clear();
        let freed = if self.requested { self.driver.request(0).map(drop) } else { Ok(()) };
        if let Err(error) = stopped.and(freed) {
            log::debug!("{}: ending the stream: {error}", self.name);
        }
    }
}
