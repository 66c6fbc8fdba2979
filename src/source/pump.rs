//! A thread that reads a source, and the newest frame that it read.
//!
//! Three buffers circulate: the reader's, the one here and the asker's. They are swapped, never copied. A frame
//! that nobody asked for in time gives way to the next one, which shows as a gap in the sequence.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Next, Source, SourceError};
use crate::frame::Frame;

/// Longest wait for bytes before the reader looks whether it is still wanted.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// Longest that opening waits to learn what comes. A slower source is opened all the same, and tells later.
const OPENING: Duration = Duration::from_secs(1);
/// Longest that dropping waits for the reader. One that looks a name up cannot be interrupted: it ends by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the reader and its asker share.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether a new frame takes the place of one that was not asked for. If not, it waits.
    live: bool,
}

#[derive(Debug, Default)]
struct State {
    frame: Frame,
    /// `frame` was not asked for yet.
    full: bool,
    /// What was opened, once that is known.
    opened: Option<String>,
    /// The reader is gone.
    ended: bool,
    fault: Option<SourceError>,
    /// Nobody asks any more.
    closed: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reader is to end.
    pub(super) fn closed(&self) -> bool {
        self.state().closed
    }

    /// Tells what comes: layout and size, as soon as they are known.
    pub(super) fn opened(&self, what: impl FnOnce() -> Option<String>) {
        let mut state = self.state();
        if state.opened.is_none() {
            state.opened = what();
            self.changed.notify_all();
        }
    }

    /// Hands a frame over, and gives an older buffer back in its place.
    pub(super) fn put(&self, frame: &mut Frame) {
        let mut state = self.state();
        while !self.live && state.full && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // Nobody sees a frame of a source that still waits for its first.
        state.opened.get_or_insert_with(|| frame.layout());
        std::mem::swap(&mut state.frame, frame);
        state.full = true;
        self.changed.notify_all();
    }

    /// Sleeps, but not longer than the reader is wanted.
    pub(super) fn sleep(&self, time: Duration) {
        drop(self.changed.wait_timeout_while(self.state(), time, |state| !state.closed));
    }
}

/// Reads what is there, waiting at most `patience` for it. `None` is nothing yet, `Some(0)` the end.
pub(super) fn read(from: impl AsFd, buffer: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
    let timeout = Timespec { tv_sec: patience.as_secs() as _, tv_nsec: patience.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)) {
        Ok(0) | Err(Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::io::read(&from, buffer) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::INTR | Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A source that a thread reads.
#[derive(Debug)]
pub(super) struct Pump {
    name: String,
    gate: Arc<Gate>,
}

impl Pump {
    /// Starts `reader`, which puts frames through the gate until the stream ends or the gate is closed. What it
    /// must leave in order (a program, for one) it has done when it returns.
    ///
    /// # Errors
    /// The reader's own, if it failed at once.
    pub(super) fn start(
        name: String,
        live: bool,
        reader: impl FnOnce(&Gate) -> Result<(), SourceError> + Send + 'static,
    ) -> Result<Self, SourceError> {
        let gate = Arc::new(Gate { state: Mutex::default(), changed: Condvar::new(), live });
        let shared = Arc::clone(&gate);
        let read = move || {
            let fault = reader(&shared).err();
            let mut state = shared.state();
            (state.ended, state.fault) = (true, fault);
            shared.changed.notify_all();
        };
        let spawned = thread::Builder::new().name("source".into()).spawn(read);
        spawned.map_err(|error| SourceError::Read { name: name.clone(), error })?;
        let pump = Self { name, gate };
        pump.await_opening()?;
        Ok(pump)
    }

    fn await_opening(&self) -> Result<(), SourceError> {
        let unknown = |state: &mut State| state.opened.is_none() && !state.full && !state.ended;
        let waited = self.gate.changed.wait_timeout_while(self.gate.state(), OPENING, unknown);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.full {
            // Its frames come first.
            true => Ok(()),
            false => state.fault.take().map_or(Ok(()), Err),
        }
    }
}

impl Source for Pump {
    fn next(&mut self, frame: &mut Frame, patience: Duration) -> Result<Next, SourceError> {
        let nothing = |state: &mut State| !state.full && !state.ended;
        let waited = self.gate.changed.wait_timeout_while(self.gate.state(), patience, nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.full {
            state.full = false;
            std::mem::swap(&mut state.frame, frame);
            self.gate.changed.notify_all();
            return Ok(Next::Frame);
        }
        match state.fault.take() {
            Some(fault) => Err(fault),
            None if state.ended => Ok(Next::End),
            None => Ok(Next::Nothing),
        }
    }

    fn live(&self) -> bool {
        self.gate.live
    }

    fn describe(&self) -> String {
        let state = self.gate.state();
        let what = state.opened.as_deref().unwrap_or("waiting for the first picture");
        format!("{}: {what}", self.name)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.closed = true;
        self.gate.changed.notify_all();
        drop(self.gate.changed.wait_timeout_while(state, FAREWELL, |state| !state.ended));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn put(gate: &Gate, frame: &mut Frame, sequence: u64) {
        frame.sequence = sequence;
        frame.bytes.clear();
        frame.bytes.resize(1000, sequence as u8);
        gate.put(frame);
    }

    #[test]
    fn who_asks_late_gets_the_newest_frame_then_the_end() {
        let (told, all_put) = channel();
        let mut pump = Pump::start("x".into(), true, move |gate| {
            let mut frame = Frame::default();
            (0..10).for_each(|sequence| put(gate, &mut frame, sequence));
            told.send(()).unwrap();
            Ok(())
        })
        .unwrap();
        all_put.recv().unwrap();
        let mut frame = Frame::default();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!((frame.sequence, frame.bytes[999]), (9, 9));
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::End);
    }

    #[test]
    fn nothing_of_a_finite_source_is_lost_and_three_buffers_circulate() {
        let mut pump = Pump::start("x".into(), false, |gate| {
            let mut frame = Frame::default();
            (0..100).for_each(|sequence| put(gate, &mut frame, sequence));
            Ok(())
        })
        .unwrap();
        let mut frame = Frame::default();
        let mut buffers = std::collections::BTreeSet::new();
        for sequence in 0..100 {
            assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
            assert_eq!(frame.sequence, sequence);
            buffers.insert(frame.bytes.as_ptr() as usize);
        }
        assert!(buffers.len() <= 3, "{buffers:?}");
        assert!(!pump.live());
    }

    #[test]
    fn a_fault_comes_after_the_frames_and_at_once_without_any() {
        let fault = || SourceError::Unfit { name: "x".into(), cause: "odd".into() };
        assert_eq!(Pump::start("x".into(), true, move |_| Err(fault())).unwrap_err().to_string(), "x: odd");
        let mut pump = Pump::start("x".into(), true, move |gate| {
            put(gate, &mut Frame::default(), 0);
            Err(fault())
        })
        .unwrap();
        let mut frame = Frame::default();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!(pump.next(&mut frame, LONG).unwrap_err().to_string(), "x: odd");
    }

    #[test]
    fn dropping_ends_a_reader_of_a_silent_pipe() {
        let (silent, _writer) = io::pipe().unwrap();
        let (told, ended) = channel();
        let pump = Pump::start("x".into(), true, move |gate| {
            while !gate.closed() {
                assert_eq!(read(&silent, &mut [0; 8], STEP).unwrap(), None);
            }
            told.send(Instant::now()).unwrap();
            Ok(())
        })
        .unwrap();
        assert_eq!(pump.describe(), "x: waiting for the first picture");
        drop(pump);
        ended.recv_timeout(LONG).expect("the reader ends");
    }

    #[test]
    fn a_reader_that_cannot_be_interrupted_does_not_hold_the_asker() {
        let (release, held) = channel::<()>();
        let pump = Pump::start("x".into(), true, move |_| {
            held.recv().ok();
            Ok(())
        })
        .unwrap();
        // Would hang here: the reader is released only behind it.
        drop(pump);
        drop(release);
    }
}
