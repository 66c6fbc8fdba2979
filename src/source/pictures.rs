//! Picture files as a source: a file or a folder, in order, once or again and again.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{self, Input, ListError};
use super::{Next, Source, SourceError};
use crate::frame::{Frame, PixelFormat};
use crate::vision;

/// The pictures of a file or folder.
#[derive(Debug)]
pub struct Pictures {
    name: String,
    files: Vec<Input>,
    next: usize,
    sequence: u64,
    repeat: bool,
}

impl Pictures {
    /// Lists a file or folder; `repeat` begins anew at its end.
    ///
    /// # Errors
    /// It is not there, is no file or folder, or has no picture.
    pub fn open(path: &Path, repeat: bool) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        if name == "-" || name.contains("://") || (path.exists() && !path.is_file() && !path.is_dir()) {
            let cause = "cameras and streams are not read yet; give a picture file or a folder".into();
            return Err(SourceError::Unfit { name, cause });
        }
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
        Ok(Self { name, files, next: 0, sequence: 0, repeat })
    }
}

impl Source for Pictures {
    fn next(&mut self, frame: &mut Frame, _: Duration) -> Result<Next, SourceError> {
        if self.next == self.files.len() {
            if !self.repeat {
                return Ok(Next::End);
            }
            self.next = 0;
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

    fn fault(path: &Path) -> SourceError {
        Pictures::open(path, false).expect_err("no source")
    }

    #[test]
    fn what_gives_no_pictures_says_why() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(fault(folder.path()), SourceError::Unfit { .. }));
        assert!(matches!(fault(&folder.path().join("absent")), SourceError::Absent { .. }));
        for other in ["-", "http://camera/video", "/dev/null"] {
            assert!(fault(Path::new(other)).to_string().contains("not read yet"), "{other}");
        }
    }

    #[test]
    fn pictures_come_in_order_and_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        for width in [3, 5] {
            image::RgbImage::new(width, 2).save(folder.path().join(format!("{width}.png"))).unwrap();
        }
        for (repeat, widths) in [(false, vec![3, 5]), (true, vec![3, 5, 3, 5])] {
            let mut source = Pictures::open(folder.path(), repeat).unwrap();
            let mut frame = Frame::default();
            for (number, &width) in widths.iter().enumerate() {
                assert_eq!(source.next(&mut frame, Duration::ZERO).unwrap(), Next::Frame);
                assert_eq!((frame.width, frame.sequence), (width, number as u64));
            }
            let after = source.next(&mut frame, Duration::ZERO).unwrap();
            assert_eq!((after == Next::End, source.live()), (!repeat, repeat));
        }
    }
}
