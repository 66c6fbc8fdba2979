//! The newest frame, between the thread that captures and the one that computes.
//!
//! One place: a frame that nobody took yet gives way to a newer one and is counted. Buffers are swapped, never
//! copied or allocated: three of them circulate (the capturer's, the one here, the computer's).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::Frame;

/// What came of waiting for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The newest frame, and how many were lost since the last one taken.
    Frame {
        /// Frames that came between and were not taken.
        lost: u64,
        /// When the frame came here.
        at: Instant,
    },
    /// The time ran out.
    Nothing,
    /// No frame will come any more.
    Ended,
}

/// One place for the newest frame.
#[derive(Debug)]
pub struct Slot {
    state: Mutex<State>,
    changed: Condvar,
    /// The source is finite: nothing of it may be lost.
    finite: AtomicBool,
}

#[derive(Debug)]
struct State {
    frame: Frame,
    /// When `frame` came, if it is not taken yet.
    full: Option<Instant>,
    lost: u64,
    /// No frame comes any more; the last one may still be taken.
    ended: bool,
    /// No frame is taken any more.
    closed: bool,
}

impl Default for Slot {
    fn default() -> Self {
        let state = State { frame: Frame::default(), full: None, lost: 0, ended: false, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), finite: AtomicBool::new(false) }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the source is finite.
    pub fn set_finite(&self, finite: bool) {
        self.finite.store(finite, Ordering::Relaxed);
    }

    /// Whether nothing may be lost.
    pub fn is_finite(&self) -> bool {
        self.finite.load(Ordering::Relaxed)
    }

    /// Puts a frame here and gives an older buffer back in its place; `lost` frames went missing before it.
    pub fn put(&self, frame: &mut Frame, lost: u64) {
        let mut state = self.state();
        std::mem::swap(&mut state.frame, frame);
        state.lost += lost + u64::from(state.full.is_some());
        state.full = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Waits until the last frame is taken: so a source that loses nothing loses nothing here.
    ///
    /// Returns `false` if the time ran out.
    pub fn wait_taken(&self, patience: Duration) -> bool {
        let waits = |state: &mut State| state.full.is_some() && !state.closed;
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        waited.map_or(true, |(state, _)| state.full.is_none() || state.closed)
    }

    /// Waits for a frame and swaps it with `frame`.
    pub fn take(&self, frame: &mut Frame, patience: Duration) -> Taken {
        let waits = |state: &mut State| state.full.is_none() && !state.ended && !state.closed;
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        let Ok((mut state, _)) = waited else { return Taken::Ended };
        if state.closed {
            return Taken::Ended;
        }
        match state.full.take() {
            Some(at) => {
                std::mem::swap(&mut state.frame, frame);
                self.changed.notify_all();
                Taken::Frame { lost: std::mem::take(&mut state.lost), at }
            }
            None if state.ended => Taken::Ended,
            None => Taken::Nothing,
        }
    }

    /// No frame comes any more; one that is here can still be taken.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Nothing is taken any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64) -> Frame {
        Frame { sequence, bytes: vec![sequence as u8; 100], ..Frame::default() }
    }

    fn lost(taken: Taken) -> Option<u64> {
        match taken {
            Taken::Frame { lost, .. } => Some(lost),
            Taken::Nothing | Taken::Ended => None,
        }
    }

    #[test]
    fn the_newest_stays_and_the_others_are_counted() {
        let slot = Slot::default();
        let mut own = Frame::default();
        assert_eq!(slot.take(&mut own, Duration::ZERO), Taken::Nothing);
        slot.put(&mut frame(1), 0);
        slot.put(&mut frame(2), 0);
        slot.put(&mut frame(5), 2);
        assert_eq!(lost(slot.take(&mut own, Duration::ZERO)), Some(4));
        assert_eq!(own.sequence, 5);
        slot.put(&mut frame(6), 0);
        assert_eq!(lost(slot.take(&mut own, Duration::ZERO)), Some(0));
    }

    #[test]
    fn buffers_circulate() {
        let slot = Slot::default();
        let (mut captured, mut computed) = (Frame::default(), Frame::default());
        let mut seen = std::collections::HashSet::new();
        for round in 0..30u64 {
            captured.bytes.resize(1000, round as u8);
            seen.insert(captured.bytes.as_ptr() as usize);
            slot.put(&mut captured, 0);
            if round % 3 == 0 {
                assert!(matches!(slot.take(&mut computed, Duration::ZERO), Taken::Frame { .. }));
            }
        }
        assert!(seen.len() <= 3, "{} buffers", seen.len());
    }

    #[test]
    fn the_last_frame_outlives_the_end_but_not_closing() {
        let (slot, mut own) = (Slot::default(), Frame::default());
        slot.put(&mut frame(1), 0);
        assert!(!slot.wait_taken(Duration::ZERO));
        slot.end();
        assert_eq!(lost(slot.take(&mut own, Duration::ZERO)), Some(0));
        assert!(slot.wait_taken(Duration::ZERO));
        assert_eq!(slot.take(&mut own, Duration::from_secs(60)), Taken::Ended);
        slot.put(&mut frame(2), 0);
        slot.close();
        assert!(slot.wait_taken(Duration::from_secs(60)));
        assert_eq!(slot.take(&mut own, Duration::from_secs(60)), Taken::Ended);
    }
}
