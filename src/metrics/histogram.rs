//! Durations counted in fixed buckets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper ends of the buckets in microseconds: 1, 2, 5, … from a fast GPU to a slow board under load.
pub(super) const ENDS: [u64; 12] =
    [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];

/// Durations by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for all above.
    buckets: [AtomicU64; ENDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Counts a duration; a bucket's end belongs to it.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS.partition_point(|&end| end < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// Durations up to each end, and all; read once, so that they never fall from one to the next.
    pub(super) fn cumulative(&self) -> [u64; ENDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|bucket| {
            sum += self.buckets[bucket].load(Relaxed);
            sum
        })
    }

    /// Sum in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.micros.load(Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_belong_to_their_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 2_000, 5_000_000, 5_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        histogram.record(Duration::from_secs(9));
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1], counts[2]), (2, 4, 4));
        assert_eq!((counts[ENDS.len() - 1], counts[ENDS.len()]), (5, 7));
        assert!((histogram.seconds() - 19.004_002).abs() < 1e-9);
    }
}
