//! The thread that captures: it opens the source, fills the slot, and opens the source again when it went away.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Opener;
use super::notify::Notifier;
use super::slot::Slot;
use super::supervise::Event;
use crate::backoff::{Backoff, Delays};
use crate::config::Source as SourceConfig;
use crate::frame::Frame;
use crate::metrics::Metrics;
use crate::source::{Next, Source, SourceError, shown};

/// Longest wait for a frame before looking at orders.
const PATIENCE: Duration = Duration::from_millis(200);
/// A source without a frame for this long, or for five times its period, is opened anew.
const STALL: Duration = Duration::from_secs(10);
/// Delays between attempts to open. A camera that was plugged in again is back within seconds.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), most: Duration::from_secs(10) };

/// What the capture thread is to do; the main thread may change it.
#[derive(Debug)]
pub struct Orders {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
struct Order {
    source: SourceConfig,
    metrics: Arc<Metrics>,
    /// Counts changes of `source`.
    number: u64,
    stop: bool,
}

impl Orders {
    /// To capture from `source`.
    pub fn new(source: SourceConfig, metrics: Arc<Metrics>) -> Self {
        let order = Order { source, metrics, number: 0, stop: false };
        Self { order: Mutex::new(order), changed: Condvar::new() }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        // Nothing under the lock can panic halfway.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To capture from another source.
    pub fn change(&self, source: SourceConfig) {
        let mut order = self.order();
        order.source = source;
        order.number += 1;
        self.changed.notify_all();
    }

    /// To count somewhere else.
    pub fn count_in(&self, metrics: Arc<Metrics>) {
        self.order().metrics = metrics;
    }

    /// To end.
    pub fn stop(&self) {
        self.order().stop = true;
        self.changed.notify_all();
    }

    fn stands(&self, number: u64) -> bool {
        let order = self.order();
        !order.stop && order.number == number
    }

    /// Waits, but not longer than the order stands.
    fn wait(&self, number: u64, time: Duration) {
        let waits = |order: &mut Order| !order.stop && order.number == number;
        // What came of it is asked for by the caller.
        drop(self.changed.wait_timeout_while(self.order(), time, waits));
    }
}

/// The capture thread's own.
pub struct Capture {
    /// Opens the source.
    pub open: Opener,
    /// Where frames go.
    pub slot: Arc<Slot>,
    /// What to do.
    pub orders: Arc<Orders>,
    /// Where changes of state are told.
    pub events: Sender<Event>,
    /// The service manager.
    pub notifier: Arc<Notifier>,
}

/// Why a stream of frames ended.
enum Gone {
    End,
    /// The orders changed.
    Ordered,
    Lost(SourceError),
}

impl Capture {
    /// Captures until the stream ends, or it is told to stop.
    pub fn run(mut self) {
        let mut frame = Frame::default();
        let mut delays = Delays::new(BACKOFF);
        // A source that was open once is tried again whatever its fault.
        let mut was_open = false;
        let mut told = None;
        loop {
            let order = self.orders.order().clone();
            if order.stop {
                break;
            }
            let fault = match (self.open)(&order.source) {
                Ok(mut source) => {
                    if was_open {
                        order.metrics.reconnected();
                    }
                    was_open = true;
                    told = None;
                    self.tell(Event::Opened(source.describe()));
                    match self.stream(source.as_mut(), &order, &mut frame, &mut delays) {
                        Gone::End => break,
                        Gone::Ordered => continue,
                        Gone::Lost(fault) => fault,
                    }
                }
                Err(fault) => fault,
            };
            if !was_open && !fault.may_recover() {
                self.tell(Event::Unfit(fault.to_string()));
                break;
            }
            let text = fault.to_string();
            if told.as_ref() != Some(&text) {
                self.tell(Event::Lost(text.clone()));
                told = Some(text);
            }
            self.pause(order.number, delays.next(!fault.may_recover()));
        }
        self.slot.end();
    }

    /// Waits before the next attempt. The source is known to be away: that is no reason for a restart.
    fn pause(&self, number: u64, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.notifier.feed();
            self.orders.wait(number, left.min(self.notifier.patience().unwrap_or(left)));
            if !self.orders.stands(number) {
                return;
            }
        }
    }

    fn stream(&self, source: &mut dyn Source, order: &Order, frame: &mut Frame, delays: &mut Delays) -> Gone {
        let live = source.live() || order.source.repeat;
        self.slot.set_finite(!live);
        let period = order.source.fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps));
        let stall = STALL.max(5 * period);
        let mut last_frame = Instant::now();
        let mut sequence = None;
        while self.orders.stands(order.number) {
            match source.next(frame, PATIENCE) {
                Ok(Next::Frame) => {
                    let expected = sequence.map_or(frame.sequence, |last: u64| last + 1);
                    sequence = Some(frame.sequence);
                    delays.reset();
                    // A frame of a finite source waits its turn; one of a camera would be old by then.
                    while !live && !self.slot.wait_taken(PATIENCE) {
                        if !self.orders.stands(order.number) {
                            return Gone::Ordered;
                        }
                    }
                    last_frame = Instant::now();
                    self.slot.put(frame, frame.sequence.saturating_sub(expected));
                }
                Ok(Next::End) => return Gone::End,
                Ok(Next::Nothing) if live && last_frame.elapsed() > stall => {
                    let cause =
                        format!("no picture for {} s; check the camera and its cable", stall.as_secs());
                    return Gone::Lost(SourceError::Absent { name: shown(&order.source.address), cause });
                }
                Ok(Next::Nothing) => {}
                Err(fault) => return Gone::Lost(fault),
            }
        }
        Gone::Ordered
    }

    fn tell(&self, event: Event) {
        // The main thread ends last, but for a second signal.
        let _ = self.events.send(event);
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
