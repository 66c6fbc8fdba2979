//! A camera that plays a script, fails where it is told to, and keeps account of what it lent.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::driver::{
    Capability, Driver, Filled, FourCc, Interval, IntervalOffer, Layout, Mapping, Ready, SizeOffer,
};
use crate::vision::Size;

/// A picture that the camera takes.
#[derive(Debug, Clone)]
pub struct Shot {
    pub sequence: u32,
    pub bytes: Vec<u8>,
    pub damaged: bool,
    pub taken: Option<Duration>,
}

impl Shot {
    pub fn new(sequence: u32, bytes: &[u8]) -> Self {
        Self { sequence, bytes: bytes.to_vec(), damaged: false, taken: None }
    }

    pub fn damaged(sequence: u32) -> Self {
        Self { damaged: true, ..Self::new(sequence, b"torn") }
    }
}

/// What happens while the program waits.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Pictures come.
    Shots(Vec<Shot>),
    /// Nothing, until the time is over.
    Quiet,
    /// It wakes for nothing.
    Wake,
    /// The device hangs up.
    Fault,
}

/// Which call fails, and how.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Its number, from 0.
    pub at: usize,
    pub errno: i32,
    /// Whether all later calls fail too.
    pub lasting: bool,
}

#[derive(Debug, Default)]
pub struct State {
    pub script: VecDeque<Turn>,
    /// Played again and again, once the script is over.
    pub forever: Option<Turn>,
    pub failure: Option<Failure>,
    /// Index that the next dequeued buffer is said to have.
    pub wrong_index: Option<u32>,
    pub offers: Vec<(FourCc, Vec<SizeOffer>, Vec<IntervalOffer>)>,
    pub no_capture: bool,
    /// What the format is, whatever is asked for.
    pub given: Option<Layout>,
    /// Buffers that are granted.
    pub granted: Option<u32>,
    pub clock: Duration,
    pub calls: usize,
    pub pauses: usize,
    pub waits: usize,
    pub mapped: usize,
    pub buffers: u32,
    pub streaming: bool,
    pub open: bool,
    pub stop_due: bool,
    pub free_due: bool,
    pub memory: Vec<Vec<u8>>,
    pub queued: BTreeSet<u32>,
    pub filled: VecDeque<Filled>,
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        assert!(self.open, "a call to a closed device");
        let number = self.calls;
        self.calls += 1;
        match self.failure {
            Some(Failure { at, errno, lasting }) if number == at || (lasting && number > at) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(()),
        }
    }

    fn fill(&mut self, shot: &Shot) {
        // With no buffer, a picture is lost.
        let Some(index) = self.queued.pop_first() else { return };
        self.memory[index as usize].clone_from(&shot.bytes);
        self.filled.push_back(Filled {
            index: self.wrong_index.unwrap_or(index),
            bytes: shot.bytes.len(),
            damaged: shot.damaged,
            sequence: shot.sequence,
            taken: shot.taken,
        });
    }
}

/// What is dropped behind a failed assertion must not fail again: that would end all tests.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

/// The camera; what a test keeps of it is a [`Handle`].
pub struct Fake {
    state: Arc<Mutex<State>>,
}

/// The test's side.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<State>>);

impl Handle {
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Everything that was lent came back, in the order that the kernel wants.
    pub fn assert_all_returned(&self) {
        let state = self.state();
        assert!(!state.open, "the device is open");
        assert_eq!(state.mapped, 0, "mappings");
        assert!(!state.stop_due, "it streams");
        assert!(!state.free_due, "buffers are not freed");
    }
}

impl Fake {
    pub fn new(state: State) -> (Self, Handle) {
        let state = Arc::new(Mutex::new(State { open: true, ..state }));
        (Self { state: Arc::clone(&state) }, Handle(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn called(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.call()?;
        Ok(state)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let mut state = self.state();
        assert!(std::thread::panicking() || state.mapped == 0, "closed with buffers mapped");
        state.open = false;
    }
}

pub struct FakeMapping {
    state: Arc<Mutex<State>>,
    index: u32,
}

impl Mapping for FakeMapping {
    fn copy(&self, length: usize, into: &mut Vec<u8>) {
        let state = lock(&self.state);
        assert!(!state.queued.contains(&self.index), "read while the driver has it");
        let memory = &state.memory[self.index as usize];
        into.clear();
        into.extend_from_slice(&memory[..length.min(memory.len())]);
    }
}

impl Drop for FakeMapping {
    fn drop(&mut self) {
        lock(&self.state).mapped -= 1;
    }
}

impl Driver for Fake {
    type Mapping = FakeMapping;

    fn capability(&self) -> io::Result<Capability> {
        let state = self.called()?;
        Ok(Capability { card: "Fake".into(), captures: !state.no_capture, multi_planar: false })
    }

    fn format(&self, index: u32) -> io::Result<FourCc> {
        let state = self.called()?;
        state.offers.get(index as usize).map_or_else(|| errno(libc::EINVAL), |offer| Ok(offer.0))
    }

    fn size(&self, fourcc: FourCc, index: u32) -> io::Result<SizeOffer> {
        let state = self.called()?;
        let offer = state.offers.iter().find(|offer| offer.0 == fourcc);
        offer.and_then(|offer| offer.1.get(index as usize)).copied().map_or_else(|| errno(libc::EINVAL), Ok)
    }

    fn interval(&self, fourcc: FourCc, _: Size, index: u32) -> io::Result<IntervalOffer> {
        let state = self.called()?;
        let offer = state.offers.iter().find(|offer| offer.0 == fourcc);
        offer.and_then(|offer| offer.2.get(index as usize)).copied().map_or_else(|| errno(libc::EINVAL), Ok)
    }

    fn set_format(&self, fourcc: FourCc, size: Size) -> io::Result<Layout> {
        let state = self.called()?;
        Ok(state.given.unwrap_or(Layout { fourcc, size, stride: 2 * size.width }))
    }

    fn set_interval(&self, interval: Interval) -> io::Result<Interval> {
        self.called().map(|_| interval)
    }

    fn request(&self, count: u32) -> io::Result<u32> {
        let mut state = self.state();
        if count == 0 {
            assert_eq!(state.mapped, 0, "freed with buffers mapped");
            // Asked for, whether or not a dead device grants it.
            state.free_due = false;
        }
        state.call()?;
        assert!(!state.streaming, "buffers change while it streams");
        state.buffers = if count == 0 { 0 } else { state.granted.unwrap_or(count) };
        state.free_due = count > 0;
        state.memory = vec![Vec::new(); state.buffers as usize];
        Ok(state.buffers)
    }

    fn map(&self, index: u32) -> io::Result<FakeMapping> {
        let mut state = self.called()?;
        if index >= state.buffers {
            return errno(libc::EINVAL);
        }
        state.mapped += 1;
        Ok(FakeMapping { state: Arc::clone(&self.state), index })
    }

    fn queue(&self, index: u32) -> io::Result<()> {
        let mut state = self.called()?;
        assert!(index < state.buffers && state.queued.insert(index), "buffer {index} is queued twice");
        Ok(())
    }

    fn dequeue(&self) -> io::Result<Filled> {
        let mut state = self.called()?;
        state.filled.pop_front().map_or_else(|| errno(libc::EAGAIN), Ok)
    }

    fn start(&self) -> io::Result<()> {
        let mut state = self.called()?;
        (state.streaming, state.stop_due) = (true, true);
        Ok(())
    }

    fn stop(&self) -> io::Result<()> {
        let mut state = self.state();
        assert!(state.streaming, "stopped before it was started");
        state.stop_due = false;
        // A dead device streams no more, whatever it answers.
        state.streaming = false;
        state.queued.clear();
        state.call()
    }

    fn wait(&self, time: Duration) -> io::Result<Ready> {
        let mut state = self.called()?;
        state.waits += 1;
        let turn = state.script.pop_front().or_else(|| state.forever.clone()).unwrap_or(Turn::Quiet);
        Ok(match turn {
            Turn::Shots(shots) => {
                state.clock += Duration::from_millis(1);
                shots.iter().for_each(|shot| state.fill(shot));
                Ready::Buffer
            }
            Turn::Quiet => {
                state.clock += time;
                Ready::Nothing
            }
            Turn::Wake => {
                state.clock += Duration::from_micros(10);
                Ready::Buffer
            }
            Turn::Fault => Ready::Fault,
        })
    }

    fn now(&self) -> Duration {
        self.state().clock
    }

    fn pause(&self, time: Duration) {
        let mut state = self.state();
        state.clock += time;
        state.pauses += 1;
    }
}
