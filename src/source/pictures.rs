//! Picture files as a source: a file or a folder, in order, once or again and again.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::files::{self, Input, ListError};
use super::{Next, Source, SourceError, period};
use crate::frame::{Frame, PixelFormat};
use crate::vision;

/// Pictures a second in a loop, where nobody says how many.
const LOOP_FPS: f64 = 25.0;

/// The pictures of a file or folder.
#[derive(Debug)]
pub struct Pictures {
    name: String,
    files: Vec<Input>,
    next: usize,
    sequence: u64,
    repeat: bool,
    /// Time between two pictures.
    period: Option<Duration>,
    /// When the next one may come.
    due: Option<Instant>,
}

impl Pictures {
    /// Lists a file or folder; `repeat` begins anew at its end. At most `fps` pictures a second come.
    ///
    /// # Errors
    /// It is not there, or has no picture.
    pub fn open(path: &Path, repeat: bool, fps: Option<f64>) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        if !path.exists() {
            let cause = "no such device, file or folder; plug the camera in, or check the path".into();
            return Err(SourceError::Absent { name, cause });
        }
        let files = match files::list(path) {
            Ok(files) => files,
            Err(ListError::Read(error)) => return Err(SourceError::Read { name, error }),
            Err(cause @ ListError::NoPicture) => {
                return Err(SourceError::Unfit { name, cause: cause.to_string() });
            }
        };
        // In a loop it stands for a camera, and is not to keep a core busy.
        let fps = fps.or(repeat.then_some(LOOP_FPS));
        let period = fps.map(period);
        Ok(Self { name, files, next: 0, sequence: 0, repeat, period, due: None })
    }
}

impl Pictures {
    /// Waits for the next picture's time; whether it came.
    fn wait_turn(&mut self, patience: Duration) -> bool {
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        let wait = due.saturating_duration_since(now);
        std::thread::sleep(wait.min(patience));
        if wait > patience {
            return false;
        }
        // Late pictures are not made up for.
        self.due = self.period.map(|period| (due + period).max(now));
        true
    }
}

impl Source for Pictures {
    fn next(&mut self, frame: &mut Frame, patience: Duration) -> Result<Next, SourceError> {
        if self.next == self.files.len() {
            if !self.repeat {
                return Ok(Next::End);
            }
            self.next = 0;
        }
        if !self.wait_turn(patience) {
            return Ok(Next::Nothing);
        }
        let path = self.files[self.next].path();
        let bytes = std::fs::read(path)
            .map_err(|error| SourceError::Read { name: path.display().to_string(), error })?;
        self.next += 1;
        frame.sequence = self.sequence;
        self.sequence += 1;
        frame.captured = SystemTime::now();
        match vision::decode_bytes(&bytes) {
            Ok(image) => {
                (frame.width, frame.height) = (image.width() as usize, image.height() as usize);
                (frame.format, frame.stride) = (PixelFormat::Rgb3, 3 * frame.width);
                frame.bytes = image.into_raw();
            }
            // Whoever decodes it counts it as broken, and says why.
            Err(_) => (frame.format, frame.bytes) = (PixelFormat::Mjpeg, bytes),
        }
        Ok(Next::Frame)
    }

    fn live(&self) -> bool {
        self.repeat
    }

    fn describe(&self) -> String {
        match self.files.len() {
            1 => format!("{}: 1 picture", self.name),
            count => format!("{}: {count} pictures", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn fault(path: &Path) -> SourceError {
        Pictures::open(path, false, None).expect_err("no source")
    }

    #[test]
    fn what_gives_no_pictures_says_why() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(fault(folder.path()), SourceError::Unfit { .. }));
        assert!(matches!(fault(&folder.path().join("absent")), SourceError::Absent { .. }));
    }

    #[test]
    fn pictures_come_in_order_and_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        for width in [3, 5] {
            image::RgbImage::new(width, 2).save(folder.path().join(format!("{width}.png"))).unwrap();
        }
        for (repeat, widths) in [(false, vec![3, 5]), (true, vec![3, 5, 3, 5])] {
            let mut source = Pictures::open(folder.path(), repeat, Some(1000.0)).unwrap();
            let mut frame = Frame::default();
            for (number, &width) in widths.iter().enumerate() {
                assert_eq!(source.next(&mut frame, LONG).unwrap(), Next::Frame);
                assert_eq!((frame.width, frame.sequence), (width, number as u64));
            }
            let after = source.next(&mut frame, LONG).unwrap();
            assert_eq!((after == Next::End, source.live()), (!repeat, repeat));
        }
    }

    #[test]
    fn a_picture_comes_in_its_time() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(2, 2).save(folder.path().join("a.png")).unwrap();
        let mut source = Pictures::open(folder.path(), true, Some(0.001)).unwrap();
        let mut frame = Frame::default();
        assert_eq!(source.next(&mut frame, Duration::ZERO).unwrap(), Next::Frame);
        assert_eq!(source.next(&mut frame, Duration::from_millis(1)).unwrap(), Next::Nothing);
    }
}
