//! Cameras of Video4Linux2.

use std::time::Duration;

use super::{Next, Source, SourceError};
use crate::frame::{Frame, PixelFormat};
use crate::vision::Size;

/// Which camera, and what is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraOptions {
    /// A path with a slash (`/dev/video0`, a link in `/dev/v4l/by-id`), or the camera's name as its driver
    /// gives it.
    pub device: String,
    /// Layout; the best that the camera has, if none.
    pub format: Option<PixelFormat>,
    /// Pixels in a row; the smallest that fill the network, if none.
    pub width: Option<usize>,
    /// Rows; the smallest that fill the network, if none.
    pub height: Option<usize>,
    /// Frames a second.
    pub fps: Option<f64>,
    /// The network's input, which the size is chosen for.
    pub network: Size,
}

/// An open camera.
#[derive(Debug)]
pub struct Camera {
    name: String,
}

impl Camera {
    /// Opens the camera and starts it.
    ///
    /// # Errors
    /// [`SourceError`], with what to do.
    pub fn open(options: &CameraOptions) -> Result<Self, SourceError> {
        let cause = "cameras are not read yet".into();
        Err(SourceError::Unfit { name: options.device.clone(), cause })
    }
}

impl Source for Camera {
    fn next(&mut self, _: &mut Frame, _: Duration) -> Result<Next, SourceError> {
        Ok(Next::End)
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
