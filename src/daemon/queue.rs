//! A bounded queue that never makes its writer wait: when it is full, the oldest gives way.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// The oldest item.
    Item(T),
    /// Somebody called [`Queue::wake`].
    Woken,
    /// Closed and empty.
    Closed,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    woken: bool,
    closed: bool,
}

impl<T> Queue<T> {
    /// For at most `limit` items.
    pub fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::with_capacity(limit), woken: false, closed: false };
        Self { limit, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing under the lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end and gives back the oldest where there was no room.
    pub fn push(&self, item: T) -> Option<T> {
        let mut state = self.state();
        let evicted = (state.items.len() >= self.limit).then(|| state.items.pop_front()).flatten();
        state.items.push_back(item);
        self.changed.notify_all();
        evicted
    }

    /// Waits for room; for a source that must lose nothing. `false` where `patience` ran out.
    pub fn wait_room(&self, patience: std::time::Duration) -> bool {
        let full = |state: &mut State<T>| state.items.len() >= self.limit && !state.closed;
        let waited = self.changed.wait_timeout_while(self.state(), patience, full);
        waited.map_or(true, |(state, _)| state.items.len() < self.limit || state.closed)
    }

    /// Waits for the oldest item.
    pub fn pop(&self) -> Popped<T> {
        let waits = |state: &mut State<T>| state.items.is_empty() && !state.woken && !state.closed;
        let waited = self.changed.wait_while(self.state(), waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.woken) {
            return Popped::Woken;
        }
        let item = state.items.pop_front();
        self.changed.notify_all();
        item.map_or(Popped::Closed, Popped::Item)
    }

    /// Makes [`Queue::pop`] return once without an item.
    pub fn wake(&self) {
        self.state().woken = true;
        self.changed.notify_all();
    }

    /// No item comes any more; those here can still be taken.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way() {
        let queue = Queue::new(2);
        assert_eq!([queue.push(1), queue.push(2), queue.push(3)], [None, None, Some(1)]);
        assert!(!queue.wait_room(std::time::Duration::ZERO));
        queue.wake();
        assert_eq!([queue.pop(), queue.pop()], [Popped::Woken, Popped::Item(2)]);
        assert!(queue.wait_room(std::time::Duration::ZERO));
        queue.close();
        assert_eq!([queue.pop(), queue.pop()], [Popped::Item(3), Popped::Closed]);
    }
}
