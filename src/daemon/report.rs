//! What is told about one picture.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::sink::{Found, Record, Timing, write_record};
use crate::vision::{Detection, Size};

/// Times of a picture's stages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Frame to RGB.
    pub decode: Duration,
    /// RGB to the network's input.
    pub preprocess: Duration,
    /// The network.
    pub inference: Duration,
    /// Heads to boxes.
    pub postprocess: Duration,
}

/// What stays the same from picture to picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// This device.
    pub device: String,
    /// The source, as configured.
    pub source: String,
    /// The model.
    pub model: String,
    /// Class names, by class id.
    pub classes: Vec<String>,
}

/// A picture's clock: the wall's when it was taken, and a steady one from when it came here.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    captured: SystemTime,
    /// Between capture and `since`, by the wall.
    before: Duration,
    since: Instant,
}

impl Clock {
    /// For a frame captured at `captured` by the wall, that came here at `since`.
    pub fn new(captured: SystemTime, since: Instant) -> Self {
        // The wall's clock may be set between the two: then nothing is known of the time before.
        let age = SystemTime::now().duration_since(captured).unwrap_or_default();
        Self { captured, before: age.saturating_sub(since.elapsed()), since }
    }

    /// Time since capture.
    pub fn total(&self) -> Duration {
        self.before + self.since.elapsed()
    }
}

/// One picture's detections.
#[derive(Debug, Clone)]
pub struct Report {
    /// What stays the same.
    pub names: Arc<Names>,
    /// Number of the picture in this run.
    pub seq: u64,
    /// When it was taken.
    pub clock: Clock,
    /// Its size.
    pub image: Size,
    /// What was found.
    pub detections: Vec<Detection>,
    /// How long it took.
    pub times: StageTimes,
    /// Frames lost since the report before.
    pub lost: u64,
}

impl Report {
    /// Writes the line as of now into `line`; `missed` frames of reports that were lost come on top.
    ///
    /// # Errors
    /// None in practice: memory takes all that is written.
    pub fn line(&self, missed: u64, line: &mut Vec<u8>) -> io::Result<()> {
        line.clear();
        let total = self.clock.total();
        let timing = Timing {
            decode: ms(self.times.decode),
            preprocess: ms(self.times.preprocess),
            inference: ms(self.times.inference),
            postprocess: ms(self.times.postprocess),
            total: ms(total),
        };
        let record = Record {
            device: &self.names.device,
            source: &self.names.source,
            seq: self.seq,
            captured_at: self.clock.captured,
            published_at: self.clock.captured + total,
            model: &self.names.model,
            classes: &self.names.classes,
            outcome: Ok(Found { image: self.image, detections: &self.detections, timing }),
            dropped_frames: self.lost + missed,
        };
        write_record(line, &record)
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
