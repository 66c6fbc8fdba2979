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
    /// It is not there, or has no picture.
    pub fn open(path: &Path, repeat: bool) -> Result<Self, SourceError> {
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
