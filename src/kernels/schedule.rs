//! How long a frame would take on more threads than this machine has.
//!
//! One thread computes all tiles and times each. As [`super::Team`]'s threads claim them, the next tile goes to
//! whichever thread is free first, and a layer ends with its last tile (list scheduling: R. L. Graham, *Bounds on
//! multiprocessing timing anomalies*, 1969). What lies between the layers stays on one thread.
//!
//! It leaves out what threads take from each other: caches, memory bandwidth, the clock of a warm chip. So it
//! bounds what more cores can bring, as far as the split into tiles decides it.

use std::time::{Duration, Instant};

/// From a job's start until the other threads claim, and from the last tile until the leader goes on: assumed, twice
/// the 0.2 µs in which a spinning thread sees a job, and a little.
const HANDOVER: Duration = Duration::from_nanos(500);

/// The jobs of one frame, on so many threads.
#[derive(Debug)]
pub(super) struct Schedule {
    /// When each thread is done with its tiles of the job at hand.
    busy: Vec<Duration>,
    /// What all jobs took here.
    alone: Duration,
    /// What they would take there.
    shared: Duration,
}

impl Schedule {
    /// For `threads`, at least one.
    pub(super) fn new(threads: usize) -> Self {
        Self { busy: vec![Duration::ZERO; threads.max(1)], alone: Duration::ZERO, shared: Duration::ZERO }
    }

    /// Calls `body(index, thread)` for each index below `count`, and times it.
    pub(super) fn run(&mut self, count: usize, body: impl Fn(usize, usize)) {
        self.busy.fill(Duration::ZERO);
        let mut before = Instant::now();
        for index in 0..count {
            let thread = self.free_first();
            body(index, thread);
            let now = Instant::now();
            self.give(thread, now - before);
            before = now;
        }
        if count > 1 && self.busy.len() > 1 {
            self.shared += HANDOVER;
        }
        self.shared += self.busy.iter().max().copied().unwrap_or_default();
    }

    /// The thread that claims next.
    fn free_first(&self) -> usize {
        (0..self.busy.len()).min_by_key(|&thread| self.busy[thread]).unwrap_or(0)
    }

    /// Gives a tile to it.
    fn give(&mut self, thread: usize, took: Duration) {
        self.busy[thread] += took;
        self.alone += took;
    }

    /// What a frame that took `wall` here would take there.
    pub(super) fn time(&self, wall: Duration) -> Duration {
        wall.saturating_sub(self.alone) + self.shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the last thread is done.
    fn span(threads: usize, tiles: &[u64]) -> u64 {
        let mut schedule = Schedule::new(threads);
        tiles.iter().for_each(|&ms| schedule.give(schedule.free_first(), Duration::from_millis(ms)));
        assert_eq!(schedule.alone, Duration::from_millis(tiles.iter().sum()));
        schedule.busy.iter().max().unwrap().as_millis() as u64
    }

    #[test]
    fn tiles_go_to_whoever_is_free_first() {
        assert_eq!(span(1, &[3, 1, 1, 1]), 6);
        assert_eq!(span(2, &[3, 1, 1, 1]), 3);
        // In the order in which they are claimed, which is not the best.
        assert_eq!(span(2, &[1, 1, 1, 3]), 4);
        assert_eq!(span(6, &[5, 5]), 5);
        assert_eq!(span(0, &[2, 2]), 4);
    }

    #[test]
    fn each_index_runs_once_and_counts() {
        let sum = std::cell::Cell::new(0);
        let mut schedule = Schedule::new(4);
        let started = Instant::now();
        for _ in 0..2 {
            schedule.run(8, |index, thread| {
                assert!(thread < 4);
                sum.set(sum.get() + index);
                std::thread::sleep(Duration::from_millis(2));
            });
        }
        let wall = started.elapsed();
        assert_eq!(sum.get(), 56);
        // Two tiles for each of four threads, whatever the sleeps were.
        assert!(schedule.time(wall) < wall, "{schedule:?}");
        assert!(schedule.shared >= Duration::from_millis(8) + 2 * HANDOVER, "{schedule:?}");
    }

    #[test]
    fn one_thread_takes_as_long_as_it_takes() {
        let mut schedule = Schedule::new(1);
        schedule.run(3, |_, _| std::thread::sleep(Duration::from_millis(1)));
        assert_eq!(schedule.time(Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn nothing_to_do_takes_no_time() {
        let mut schedule = Schedule::new(4);
        schedule.run(0, |_, _| unreachable!());
        assert_eq!(schedule.time(Duration::ZERO), Duration::ZERO);
    }
}
