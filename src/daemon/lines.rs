//! The thread that writes lines.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::StartError;
use super::queue::{Popped, Queue};
use super::report::Report;
use super::supervise::Event;
use crate::config::Jsonl;
use crate::sink::file::{LineFile, Written};

/// Lines that wait at most: a second or two of a camera.
const WAITING: usize = 64;

/// Lines to a file or standard output, by a thread of their own.
#[derive(Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue<Arc<Report>>,
    reopen: AtomicBool,
    /// Where lines go from now on.
    moved: Mutex<Option<LineFile>>,
    /// Frames of lines that were lost since the last one written.
    missed: AtomicU64,
    /// Lines that were lost.
    lost: AtomicU64,
}

impl Lines {
    /// Opens the file and starts the thread; `None` where lines are off.
    ///
    /// # Errors
    /// [`StartError::Lines`].
    pub fn start(jsonl: &Jsonl, events: Sender<Event>) -> Result<Option<Self>, StartError> {
        if !jsonl.enabled {
            return Ok(None);
        }
        let file = open(&jsonl.path)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(WAITING),
            reopen: AtomicBool::new(false),
            moved: Mutex::new(None),
            missed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = Builder::new().name("lines".into()).spawn(move || own.run(file, &events))?;
        Ok(Some(Self { shared, thread: Some(thread) }))
    }

    /// Queues a report; the oldest gives way where there is no room.
    pub fn sender(&self) -> LineSender {
        LineSender(Arc::clone(&self.shared))
    }

    /// Opens the file anew.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
        self.shared.queue.wake();
    }

    /// Writes to another file from now on.
    ///
    /// # Errors
    /// It cannot be opened; the old one stays.
    pub fn move_to(&self, path: &Path) -> Result<(), StartError> {
        let file = open(path)?;
        *self.shared.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.shared.queue.wake();
        Ok(())
    }

    /// Lines that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// No more lines come; those that wait are still written.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// Whether all is written.
    pub fn finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Lines {
    /// Ends the thread, unless a reader that does not read holds it.
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            // Its panic was printed.
            let _ = thread.join();
        }
    }
}

/// Where the compute thread leaves its reports.
#[derive(Debug, Clone)]
pub struct LineSender(Arc<Shared>);

impl LineSender {
    /// Queues a report; the oldest gives way where there is no room.
    pub fn push(&self, report: Arc<Report>) {
        if let Some(evicted) = self.0.queue.push(report) {
            self.0.miss(&evicted);
        }
    }

    /// Waits for room. `false` where `patience` ran out.
    pub fn wait_room(&self, patience: Duration) -> bool {
        self.0.queue.wait_room(patience)
    }
}

fn open(path: &Path) -> Result<LineFile, StartError> {
    LineFile::open(path).map_err(|error| StartError::Lines { path: path.to_path_buf(), error })
}

impl Shared {
    fn run(&self, mut file: LineFile, events: &Sender<Event>) {
        let mut line = Vec::new();
        loop {
            let popped = self.queue.pop();
            if let Some(moved) = self.moved.lock().unwrap_or_else(PoisonError::into_inner).take() {
                file = moved;
            }
            if self.reopen.swap(false, Ordering::Relaxed) {
                file.reopen();
            }
            let report = match popped {
                Popped::Item(report) => report,
                Popped::Woken => continue,
                Popped::Closed => return,
            };
            let missed = self.missed.swap(0, Ordering::Relaxed);
            if let Err(error) = report.line(missed, &mut line) {
                log::error!("a line could not be made: {error}");
                continue;
            }
            match file.write(&line) {
                Written::Whole => {}
                Written::Lost => {
                    self.missed.fetch_add(missed, Ordering::Relaxed);
                    self.miss(&report);
                }
                Written::Closed => {
                    // The main thread ends last, but for a second signal.
                    let _ = events.send(Event::OutputClosed);
                    return;
                }
            }
        }
    }

    fn miss(&self, report: &Report) {
        self.missed.fetch_add(1 + report.lost, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}
