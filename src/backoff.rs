//! Delays between attempts to reach what is away.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Bounds of the delay between attempts. It doubles at each failure, and half of it is chance: boards that
/// lost the same peer do not return to it at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub first: Duration,
    /// The longest delay; at once that of causes which only a person can remove.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }
}

/// The delays of one connection.
#[derive(Debug)]
pub struct Delays {
    bounds: Backoff,
    next: Duration,
}

impl Delays {
    /// Begins with the first delay.
    pub fn new(bounds: Backoff) -> Self {
        Self { bounds, next: bounds.first }
    }

    /// Begins anew, after a connection that held.
    pub fn reset(&mut self) {
        self.next = self.bounds.first;
    }

    /// The next delay: half of it fixed, half by chance.
    pub fn next(&mut self, lasting: bool) -> Duration {
        let whole = if lasting { self.bounds.most } else { self.next };
        self.next = (self.next * 2).min(self.bounds.most);
        whole / 2 + (whole / 2).mul_f64(chance())
    }
}

/// A number from 0 up to 1. `RandomState` is seeded by the system and differs at each call: no crate for this.
fn chance() -> f64 {
    random() as f64 / (u64::MAX as f64)
}

/// 64 bits by chance; for delays and names, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_vary() {
        let mut delays = Delays::new(Backoff::default());
        for whole in [1, 2, 4, 8, 16, 32, 60, 60] {
            let delay = delays.next(false);
            let whole = Duration::from_secs(whole);
            assert!(delay >= whole / 2 && delay <= whole, "{delay:?} of {whole:?}");
        }
        assert!(delays.next(true) >= Duration::from_secs(30));
        delays.reset();
        assert!(delays.next(false) <= Duration::from_secs(1));
        assert!(delays.next(true) >= Duration::from_secs(30), "a lasting cause waits long at once");
        let drawn: Vec<u64> = (0..8).map(|_| random()).collect();
        assert!(drawn.iter().any(|&n| n != drawn[0]));
    }
}
