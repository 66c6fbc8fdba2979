//! Where pictures come from.
//!
//! [`files`] lists pictures for `detect`. The live ones are a [`Source`] each: the daemon's capture thread
//! asks for the next frame, and opens the source again after an error. [`open()`] finds out which one a text
//! means. Streams are read by a thread each (`pump`), which keeps the newest frame: standard input (`stdin`),
//! HTTP cameras (`http`), and what a player decodes (`child`).

use std::io;
use std::time::Duration;

use crate::frame::Frame;

mod address;
mod child;
pub mod files;
mod http;
mod http_body;
mod http_head;
mod jpeg;
mod open;
pub mod pictures;
mod pump;
mod stdin;
mod stream;
pub mod v4l2;

pub use open::{SourceOptions, open, shown};

/// Largest frame that is taken from a stream.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// Time between two frames, of so many a second.
fn period(fps: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / fps).unwrap_or_default()
}

/// What came of waiting for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The frame was filled.
    Frame,
    /// The time ran out without one; the source still stands.
    Nothing,
    /// The stream ended and gives no more.
    End,
}

/// Why a live source gives no frames.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or went away; it may come back.
    #[error("{name}: {cause}")]
    Absent {
        /// The device, address or program.
        name: String,
        /// Why, and what to do.
        cause: String,
    },
    /// It is there and cannot be used as asked: trying again does not help.
    #[error("{name}: {cause}")]
    Unfit {
        /// The device, address or program.
        name: String,
        /// Why, and what to do.
        cause: String,
    },
    /// Reading failed; opening it anew may help.
    #[error("{name}: {error}")]
    Read {
        /// The device, address or program.
        name: String,
        /// The system's word.
        #[source]
        error: io::Error,
    },
}

impl SourceError {
    /// Whether opening the source again can help.
    pub fn may_recover(&self) -> bool {
        !matches!(self, Self::Unfit { .. })
    }
}

/// A live source of frames. Opening is each kind's own `open`; dropping it frees what it holds.
pub trait Source: Send {
    /// Waits at most `patience` for the next frame and writes it into `frame`, whose buffer is used again.
    ///
    /// # Errors
    /// [`SourceError`]: the source is to be dropped and, if [`SourceError::may_recover`], opened again.
    fn next(&mut self, frame: &mut Frame, patience: Duration) -> Result<Next, SourceError>;

    /// Whether frames come in their own time. What is not live waits for whoever asks, and nothing of it need be
    /// lost.
    fn live(&self) -> bool {
        true
    }

    /// What was opened, for the log: device, format, size and rate.
    fn describe(&self) -> String;
}
