//! The thread that computes: newest frame → detections → rules → sinks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use image::RgbImage;

use super::lines::LineSender;
use super::notify::Notifier;
use super::report::{Clock, Names, Report, StageTimes};
use super::slot::{Slot, Taken};
use super::{Look, Network};
use crate::events::{Rules, Transition};
use crate::frame::{Frame, PixelFormat};
use crate::metrics::{Metrics, Reason};
use crate::sink::mqtt::{Mqtt, State};
use crate::vision::{self, NmsOptions, Pixels, Size, encode_jpeg, to_rgb};

/// Longest wait before looking at a new setup.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest sleep for the cap on the rate before looking at a new setup.
const SLICE: Duration = Duration::from_millis(100);
/// Time between two warnings about frames that cannot be used.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The client, which the main thread may exchange.
pub type SharedMqtt = Arc<Mutex<Option<Mqtt>>>;

/// All that a reload may change.
pub struct Setup {
    /// `None` keeps the one before.
    pub network: Option<Box<dyn Network>>,
    /// Which detections the network keeps.
    pub nms: NmsOptions,
    /// Which of them count; `None` keeps those before, and what they remember.
    pub rules: Option<Rules>,
    /// What lines say of every picture.
    pub names: Arc<Names>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where lines go.
    pub lines: Option<LineSender>,
    /// Least time between two pictures.
    pub period: Option<Duration>,
    /// Whether a picture is published when a class appears.
    pub snapshots: bool,
}

/// A place for the next setup, and figures for the status.
#[derive(Default)]
pub struct Desk {
    next: Mutex<Option<Setup>>,
    waiting: AtomicBool,
    stop: AtomicBool,
    /// Pictures computed.
    pub frames: AtomicU64,
    /// Sum of microseconds from capture to publishing.
    pub micros: AtomicU64,
    /// Frames lost before they were computed.
    pub lost: AtomicU64,
    /// Frames that were no pictures.
    pub broken: AtomicU64,
}

impl Desk {
    /// Leaves a setup for the next picture.
    pub fn leave(&self, setup: Setup) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(setup);
        self.waiting.store(true, Ordering::Release);
    }

    /// Ends after the picture at hand.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Setup> {
        if !self.waiting.swap(false, Ordering::Acquire) {
            return None;
        }
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The compute thread's own.
pub struct Compute {
    /// Looks at pictures.
    pub network: Box<dyn Network>,
    /// Which detections count.
    pub rules: Rules,
    /// What a reload may change.
    pub setup: Setup,
    /// Where frames come from.
    pub slot: Arc<Slot>,
    /// Where setups come from and figures go.
    pub desk: Arc<Desk>,
    /// The broker.
    pub mqtt: SharedMqtt,
    /// The service manager.
    pub notifier: Arc<Notifier>,
}

/// Buffers and counts that last from picture to picture.
struct Memory {
    frame: Frame,
    /// The frame's picture where it is a JPEG; else only what [`Memory::with_image`] makes of it.
    rgb: Vec<u8>,
    line: Vec<u8>,
    seq: u64,
    /// Frames lost since the last line.
    lost: u64,
    rate: Rate,
    warned: Option<Instant>,
}

impl Memory {
    /// Lends the frame, which was seen to have that size, as a picture.
    fn with_image(&mut self, size: Size, use_it: impl FnOnce(&RgbImage)) {
        // The detector takes a frame as it is: its picture is made when somebody wants to look at it.
        if self.frame.format != PixelFormat::Mjpeg
            && let Err(error) = to_rgb(Pixels::from(&self.frame), &mut self.rgb)
        {
            return log::warn!("no picture: {error}");
        }
        let bytes = std::mem::take(&mut self.rgb);
        if let Some(image) = RgbImage::from_raw(size.width as u32, size.height as u32, bytes) {
            use_it(&image);
            self.rgb = image.into_raw();
        }
    }
}

impl Compute {
    /// Computes until the source ends, or the slot is closed.
    pub fn run(mut self) {
        let mut memory = Memory {
            frame: Frame::default(),
            rgb: Vec::new(),
            line: Vec::new(),
            seq: 0,
            lost: 0,
            rate: Rate::new(),
            warned: None,
        };
        let mut due = Instant::now();
        while !self.desk.stopped() {
            self.adopt();
            if !self.wait_until(due) {
                continue;
            }
            match self.slot.take(&mut memory.frame, PATIENCE) {
                Taken::Frame { lost, at } => {
                    // The cap counts from when a picture was due, so that a late one does not lower the rate.
                    let now = Instant::now();
                    due = self.setup.period.map_or(now, |period| (due + period).max(now - period));
                    memory.lost += lost;
                    self.desk.lost.fetch_add(lost, Ordering::Relaxed);
                    self.setup.metrics.dropped(Reason::Overtaken, lost);
                    self.picture(at, &mut memory);
                }
                Taken::Nothing => {}
                Taken::Ended => return,
            }
        }
    }

    /// Takes a new setup, if there is one.
    fn adopt(&mut self) {
        let Some(mut setup) = self.desk.take() else { return };
        if let Some(network) = setup.network.take() {
            self.network = network;
        }
        if let Some(rules) = setup.rules.take() {
            self.rules = rules;
        }
        self.setup = setup;
    }

    /// Waits for the cap on the rate, a while at most; whether the time has come. To wait on purpose is to live.
    fn wait_until(&self, due: Instant) -> bool {
        let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return true;
        };
        std::thread::sleep(left.min(SLICE));
        self.notifier.feed();
        left <= SLICE
    }

    fn picture(&mut self, at: Instant, memory: &mut Memory) {
        let clock = Clock::new(memory.frame.captured, at);
        let started = Instant::now();
        let seen = vision::view(&memory.frame, &mut memory.rgb).map(|pixels| {
            let decode = started.elapsed();
            (pixels.size, decode, self.network.detect(pixels, &self.setup.nms))
        });
        match seen {
            Ok((size, decode, Ok(look))) => self.publish(clock, size, decode, look, memory),
            Ok((.., Err(error))) => self.broken(Reason::Failed, &error, memory),
            Err(error) => self.broken(Reason::Undecodable, &error.to_string(), memory),
        }
    }

    /// A frame that gives no detections is counted and passed over.
    fn broken(&self, reason: Reason, cause: &str, memory: &mut Memory) {
        memory.lost += 1;
        self.setup.metrics.dropped(reason, 1);
        let count = self.desk.broken.fetch_add(1, Ordering::Relaxed) + 1;
        if memory.warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            memory.warned = Some(Instant::now());
            log::warn!("{}: a frame is skipped, {count} so far: {cause}", self.setup.names.source);
        }
    }

    fn publish(&mut self, clock: Clock, image: Size, decode: Duration, look: Look, memory: &mut Memory) {
        let Self { setup, rules, mqtt, .. } = self;
        let verdict = rules.apply(&look.detections, image, Instant::now());
        let times = StageTimes { decode, ..look.times };
        let report = Arc::new(Report {
            names: Arc::clone(&setup.names),
            seq: memory.seq,
            clock,
            image,
            detections: verdict.kept.to_vec(),
            times,
            lost: std::mem::take(&mut memory.lost),
        });
        memory.seq += 1;
        if let Some(mqtt) = mqtt.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            match report.line(0, &mut memory.line) {
                Ok(()) => mqtt.publish_detections(&memory.line),
                Err(error) => log::error!("a line could not be made: {error}"),
            }
            mqtt.publish_state(&State {
                counts: verdict.counts,
                present: verdict.present,
                fps: memory.rate.fps,
                latency_ms: memory.rate.latency.as_secs_f64() * 1e3,
                dropped_frames: self.desk.lost.load(Ordering::Relaxed),
            });
            if setup.snapshots {
                snapshots(mqtt, verdict.transitions, &report, memory);
            }
        }
        let latency = clock.total();
        setup.metrics.frame(verdict.counts, times.inference, latency);
        if setup.metrics.snapshot().wanted() {
            memory.with_image(image, |picture| {
                setup.metrics.snapshot().fill(picture, &report.detections, &report.names.classes);
            });
        }
        self.push(report);
        self.count(latency, memory);
    }

    fn push(&self, report: Arc<Report>) {
        let Some(lines) = &self.setup.lines else { return };
        // Nothing of a finite source may be lost: then the reader sets the pace.
        while self.slot.is_finite() && !self.desk.stopped() && !lines.wait_room(PATIENCE) {
            self.notifier.feed();
        }
        lines.push(report);
    }

    fn count(&self, latency: Duration, memory: &mut Memory) {
        self.desk.frames.fetch_add(1, Ordering::Relaxed);
        self.desk.micros.fetch_add(latency.as_micros() as u64, Ordering::Relaxed);
        if memory.rate.count(latency) {
            self.setup.metrics.set_fps(memory.rate.fps);
        }
        self.notifier.feed();
    }
}

/// Publishes the picture, boxes drawn, for each class that appeared.
fn snapshots(mqtt: &Mqtt, transitions: &[Transition], report: &Report, memory: &mut Memory) {
    if !transitions.iter().any(|transition| transition.present) {
        return;
    }
    memory.with_image(report.image, |picture| {
        let mut drawn = picture.clone();
        vision::draw_detections(&mut drawn, &report.detections, &report.names.classes);
        match encode_jpeg(&drawn) {
            Ok(jpeg) => {
                for transition in transitions.iter().filter(|transition| transition.present) {
                    mqtt.publish_snapshot(transition.class, jpeg.clone());
                }
            }
            Err(error) => log::warn!("no snapshot: {error}"),
        }
    });
}

/// Pictures a second and their mean latency, over a second or more.
struct Rate {
    since: Instant,
    frames: u32,
    sum: Duration,
    fps: f64,
    latency: Duration,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), frames: 0, sum: Duration::ZERO, fps: 0.0, latency: Duration::ZERO }
    }

    /// Counts a picture; whether the figures are new.
    fn count(&mut self, latency: Duration) -> bool {
        self.frames += 1;
        self.sum += latency;
        let elapsed = self.since.elapsed();
        if elapsed < Duration::from_secs(1) {
            return false;
        }
        self.fps = f64::from(self.frames) / elapsed.as_secs_f64();
        self.latency = self.sum / self.frames;
        (self.since, self.frames, self.sum) = (Instant::now(), 0, Duration::ZERO);
        true
    }
}
