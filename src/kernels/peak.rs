//! What a set of kernels does at best on this machine: its inner loop, with everything it reads in near caches.
//!
//! Two 1x1 convolutions that differ in depth alone are timed. Their difference is inner loop and nothing else:
//! requantisation, pointers and the waking of threads cancel.

use std::time::{Duration, Instant};

use super::ops::{ConvJob, OpError, Window, conv};
use super::{Act, Arena, CELL_CHANNELS, Crew, Kernels, Requant, Team, View};

/// Input channels of the two.
const DEPTHS: [usize; 2] = [512, 1024];
/// Tiles of pixels for each thread.
const TILES: usize = 32;
/// How long to look for the least time.
const PATIENCE: Duration = Duration::from_millis(200);
const LEAST_ROUNDS: usize = 5;

/// Multiply-accumulates per second of all threads of `team` together.
///
/// # Errors
/// [`OpError`] where the kernels refuse the convolution, which none does.
pub fn macs_per_second(k: &dyn Kernels, team: &mut Team) -> Result<f64, OpError> {
    let channels = k.tile().blocks * CELL_CHANNELS;
    let pixels = k.tile().rows * TILES * team.threads();
    let mut loops = DEPTHS.map(|depth| Loop::new(k, pixels, channels, depth));
    let mut least = [Duration::MAX; 2];
    let started = Instant::now();
    team.frame(|crew| {
        for round in 0.. {
            if round >= LEAST_ROUNDS && started.elapsed() > PATIENCE {
                break;
            }
            for (time, one) in least.iter_mut().zip(&mut loops) {
                *time = one.run(k, crew)?.min(*time);
            }
        }
        Ok(())
    })?;
    let macs = pixels * channels * (DEPTHS[1] - DEPTHS[0]);
    // A clock that does not tell the two apart gives a peak that nothing reaches, not one of zero.
    let time = least[1].saturating_sub(least[0]).max(Duration::from_nanos(1));
    Ok(macs as f64 / time.as_secs_f64())
}

/// A 1x1 convolution with its operands.
struct Loop {
    arena: Arena,
    weights: Arena,
    requant: Requant,
    pad_row: Vec<u8>,
    input: View,
    output: View,
}

impl Loop {
    fn new(k: &dyn Kernels, pixels: usize, channels: usize, depth: usize) -> Self {
        let input = View::dense(0, 1, pixels, depth);
        let output = View::dense(pixels * depth, 1, pixels, channels);
        let requant = Requant {
            bias: vec![0; channels],
            scale: vec![1.0; channels],
            act: Act::Identity,
            mult: vec![1; channels],
            zero: vec![0; channels],
            residual: None,
        };
        Self {
            arena: Arena::new(pixels * (depth + channels)),
            weights: Arena::new(k.layout().packed_len(channels, 1, depth)),
            requant,
            pad_row: vec![0; depth],
            input,
            output,
        }
    }

    /// Computes it once. Returns how long that took.
    fn run(&mut self, k: &dyn Kernels, crew: &Crew<'_>) -> Result<Duration, OpError> {
        let job = ConvJob {
            input: self.input,
            output: self.output,
            window: Window { kernel: 1, stride: 1, dilation: 1, pad_top: 0, pad_left: 0 },
            weights: self.weights.signed(),
            pad_row: &self.pad_row,
            requant: &self.requant,
            residual: None,
        };
        let started = Instant::now();
        conv(k, crew, &mut self.arena, &job)?;
        Ok(started.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::detect;

    #[test]
    fn every_set_of_kernels_has_a_peak() {
        for kernels in detect::all().into_iter().filter_map(|choice| choice.kernels) {
            let peak = macs_per_second(kernels, &mut Team::new(2).unwrap()).unwrap();
            assert!(peak.is_finite() && peak > 1e6, "{}: {peak}", kernels.name());
        }
    }
}
