//! How the daemon fares, for machines and people: counters, health and the last picture, over HTTP.
//!
//! The pipeline updates [`Metrics`], atomics that never make it wait; [`Server`] answers `GET /metrics`
//! (Prometheus), `/healthz` and `/snapshot.jpg` on loopback.

mod histogram;
mod http;
mod server;
mod snapshot;
mod text;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sink::mqtt::Counts;

pub use histogram::Histogram;
pub use server::{Options, Server, ServerError};
pub use snapshot::Snapshot;

/// Why a frame gave no detections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A newer frame came before its turn.
    Overtaken,
    /// Its bytes are no picture.
    Undecodable,
    /// The detector failed on it.
    Failed,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Overtaken, Self::Undecodable, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Overtaken => "overtaken",
            Self::Undecodable => "undecodable",
            Self::Failed => "failed",
        }
    }
}

/// Whether the daemon does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Frames flow.
    Ok,
    /// They do not, and why.
    Unwell(String),
}

type MqttCounts = Box<dyn Fn() -> Counts + Send + Sync>;

/// Counters, shared by the pipeline and the server. Every method returns at once and allocates nothing.
pub struct Metrics {
    classes: Vec<String>,
    detections: Vec<AtomicU64>,
    frames: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    reconnects: AtomicU64,
    camera_up: AtomicBool,
    /// Bits of an `f64`.
    fps: AtomicU64,
    latency: Histogram,
    inference: Histogram,
    began: Instant,
    /// Milliseconds after `began`, plus one; 0 before the first frame.
    last_frame: AtomicU64,
    mqtt: OnceLock<MqttCounts>,
    snapshot: Snapshot,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Counts detections of these classes, by their place in the list.
    pub fn new(classes: Vec<String>) -> Self {
        Self {
            detections: classes.iter().map(|_| AtomicU64::new(0)).collect(),
            classes,
            frames: AtomicU64::new(0),
            dropped: Default::default(),
            reconnects: AtomicU64::new(0),
            camera_up: AtomicBool::new(false),
            fps: AtomicU64::new(0f64.to_bits()),
            latency: Histogram::default(),
            inference: Histogram::default(),
            began: Instant::now(),
            last_frame: AtomicU64::new(0),
            mqtt: OnceLock::new(),
            snapshot: Snapshot::default(),
        }
    }

    /// A frame is done: objects of each class, time in the network, time from capture to publishing.
    pub fn frame(&self, counts: &[u32], inference: Duration, latency: Duration) {
        self.frames.fetch_add(1, Relaxed);
        for (total, &count) in self.detections.iter().zip(counts) {
            total.fetch_add(u64::from(count), Relaxed);
        }
        self.inference.record(inference);
        self.latency.record(latency);
        self.last_frame.store(self.began.elapsed().as_millis() as u64 + 1, Relaxed);
    }

    /// `frames` frames gave no detections.
    pub fn dropped(&self, reason: Reason, frames: u64) {
        self.dropped[reason as usize].fetch_add(frames, Relaxed);
    }

    /// Frames a second, as the pipeline measures them.
    pub fn set_fps(&self, fps: f64) {
        self.fps.store(fps.to_bits(), Relaxed);
    }

    /// The source is open, or lost.
    pub fn set_camera_up(&self, up: bool) {
        self.camera_up.store(up, Relaxed);
    }

    /// The source was opened once more.
    pub fn reconnected(&self) {
        self.reconnects.fetch_add(1, Relaxed);
    }

    /// Where the counts of MQTT are read; the first call holds. See [`crate::sink::mqtt::Mqtt::counter`].
    pub fn set_mqtt(&self, counts: impl Fn() -> Counts + Send + Sync + 'static) {
        if self.mqtt.set(Box::new(counts)).is_err() {
            log::debug!("MQTT's counts are known already");
        }
    }

    /// The last picture, filled when somebody asks for it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Well where a frame was done within `limit`. An absent camera is unwell: whoever watches wants to know.
    pub fn health(&self, limit: Duration) -> Health {
        let last = self.last_frame.load(Relaxed);
        let now = self.began.elapsed();
        let since = now.saturating_sub(Duration::from_millis(last.saturating_sub(1)));
        if last > 0 && since <= limit {
            return Health::Ok;
        }
        let camera = if self.camera_up.load(Relaxed) { "the source is open" } else { "the source is absent" };
        Health::Unwell(match last {
            0 => format!("no frame since the start {:.0} s ago; {camera}", now.as_secs_f64()),
            _ => format!("no frame for {:.0} s; {camera}", since.as_secs_f64()),
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
