//! One suite for all kernels: each that runs here must equal plain loops, bit for bit, and leave every
//! other byte of the arena as it was.

mod convolution;
mod deep;
mod errors;
mod float;
mod others;
mod runs;
mod throughput;

use super::*;

/// xorshift64*: the same numbers on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `low..=high`.
    pub(super) fn within(&mut self, low: i64, high: i64) -> i64 {
        low + ((self.next() >> 16) % (high - low + 1) as u64) as i64
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.within(0, 255) as u8).collect()
    }

    pub(super) fn weights(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.within(-127, 127) as i8).collect()
    }
}

/// The kernels that run here, and one of layout `N16K8` that only tests have; fails if the chosen one is not among them.
pub(super) fn here() -> Vec<&'static dyn Kernels> {
    let mut ran: Vec<_> = detect::all().into_iter().filter_map(|c| c.kernels).collect();
    ran.push(&deep::Deep);
    let names: Vec<_> = ran.iter().map(|k| k.name()).collect();
    assert!(names.contains(&detect::best().name()) && names.contains(&"scalar"), "only {names:?}");
    ran
}

/// SiLU's correction, roughly, in units of 1/4096 (`shift` 0).
pub(super) const SILU: Act = Act::Gated { shift: 0, poly: [310, -700, 520, 150, -420, 170] };

/// A requantisation that exercises the whole range for sums over `terms` products.
pub(super) fn requant(random: &mut Random, channels: usize, terms: usize, act: Act, kind: Kind) -> Requant {
    let padded = channels.next_multiple_of(CELL_CHANNELS);
    let reach = (terms.max(1) as f32) * 255.0 * 127.0;
    let mut vector = |low, high| (0..padded).map(|_| random.within(low, high)).collect::<Vec<_>>();
    let percent = vector(1, 400);
    let scale = percent.iter().map(|&p| match kind {
        Kind::Halves => 0.5,
        Kind::Saturating => 2f32.powi(29) / reach,
        _ => p as f32 * 800.0 / reach.sqrt() / 256.0,
    });
    let scale = scale.collect();
    let spread = if kind == Kind::Halves { 500 } else { reach as i64 / 16 };
    let short = |v: Vec<i64>| v.into_iter().map(|x| x as i16).collect::<Vec<_>>();
    Requant {
        bias: vector(-spread, spread).into_iter().map(|x| x as i32).collect(),
        scale,
        act,
        mult: if kind == Kind::Float { vec![] } else { short(vector(0, 32767)) },
        zero: short(vector(0, 255).into_iter().map(|z| z - STORED_OFFSET as i64).collect()),
        residual: (kind == Kind::Residual).then(|| Residual {
            mult: short(vector(0, 32767)),
            zero: short(vector(0, 255).into_iter().map(|z| z - STORED_OFFSET as i64).collect()),
        }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Halves,
    Saturating,
    Residual,
    Float,
}

/// Where the first difference is, for a message that can be read.
pub(super) fn difference(have: &[u8], want: &[u8]) -> Option<(usize, u8, u8)> {
    assert_eq!(have.len(), want.len());
    (0..have.len()).find(|&i| have[i] != want[i]).map(|i| (i, have[i], want[i]))
}
