//! From an i32 accumulator to a stored byte: one rule, the same bits on every instruction set.
//!
//! For output channel `c`, accumulator `acc` (bias already in it) and residual byte `a`:
//!
//! ```text
//! p = sat16(round_half_even(acc as f32 * scale[c]))          i16, unit u
//! y = identity: p    relu: max(p, 0)    gated: max(p, 0) - C(|p|)   (saturating)
//! y = sat16(y + mulhrs(operand(a) - r.zero[c]) << 7, r.mult[c]))    where there is a residual
//! out = sat8(sat16(mulhrs(y, mult[c]) + zero[c]))           u8 range on x86, i8 range on ARM
//! ```
//!
//! `mulhrs(a, b) = (a * b + 2^14) >> 15` (PMULHRSW; SQRDMULH gives the same as multipliers are never
//! -32768). The unit `u` is chosen at conversion: the output's step is `u * 32768 / mult`.
//!
//! SiLU, Hardswish and GELU differ from ReLU by an even function `C(|x|)` that dies out:
//! `x * sigmoid(x) = relu(x) - |x| * sigmoid(-|x|)`. `C` is a polynomial of degree 5 in
//! `v = 2t - 32768`, `t = min(|p|, 32767 >> shift) << shift`, by Horner with `mulhrs` in i16 with
//! wrapping sums: 10 instructions for a vector on every ISA, error about 0.002 on [0, 7] where a
//! 256-entry table of int8 pre-activations errs by half an output step.

/// Activation in the fixed-point domain of [`Requant`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    /// `y = p`
    Identity,
    /// `y = max(p, 0)`
    Relu,
    /// `y = max(p, 0) - C(|p|)`
    Gated {
        /// `t = min(|p|, 32767 >> shift) << shift`, in `0..=8`.
        shift: u32,
        /// Coefficients of `v^0 … v^5`, in units of `p`.
        poly: [i16; 6],
    },
}

/// A residual that is added after the activation.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    /// Per channel: residual step / (unit `u` * 128) in Q15; at least 0.
    pub mult: Vec<i16>,
    /// Per channel: the residual's zero point as [`super::operand`] gives it.
    pub zero: Vec<i16>,
}

/// How one convolution's accumulators become its output. Vectors are padded to a multiple of 16 channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Requant {
    /// Start value of the accumulator: bias and the input zero points' share.
    pub bias: Vec<i32>,
    /// Accumulator to `p`. Positive, and small enough that no product reaches 2^31.
    pub scale: Vec<f32>,
    /// Activation.
    pub act: Act,
    /// `y` to output steps, Q15; at least 0. Empty: the output is f32, `acc as f32 * scale`, nothing else.
    pub mult: Vec<i16>,
    /// Output zero point, minus [`super::STORED_OFFSET`].
    pub zero: Vec<i16>,
    /// Residual.
    pub residual: Option<Residual>,
}

/// `(a * b + 2^14) >> 15`, as PMULHRSW computes it.
#[inline(always)]
pub fn mulhrs(a: i16, b: i16) -> i16 {
    ((a as i32 * b as i32 + 0x4000) >> 15) as i16
}

/// Rounds to the nearest integer, ties to even, and saturates to i16.
#[inline(always)]
pub fn round_sat16(x: f32) -> i16 {
    x.round_ties_even().clamp(-32768.0, 32767.0) as i16
}

impl Act {
    /// The activation of `p`.
    #[inline(always)]
    pub fn apply(self, p: i16) -> i16 {
        match self {
            Act::Identity => p,
            Act::Relu => p.max(0),
            Act::Gated { shift, poly } => {
                let t = p.saturating_abs().min(32767 >> shift) << shift;
                let v = (t << 1) ^ i16::MIN;
                let c = poly[..5].iter().rev().fold(poly[5], |h, &k| mulhrs(h, v).wrapping_add(k));
                p.max(0).saturating_sub(c)
            }
        }
    }
}

impl Requant {
    /// Whether the output is f32.
    pub fn is_float(&self) -> bool {
        self.mult.is_empty()
    }

    /// The stored byte of channel `c`; `residual` is the residual's stored byte where there is one.
    #[inline(always)]
    pub fn apply(&self, c: usize, acc: i32, residual: Option<u8>) -> u8 {
        let mut y = self.act.apply(round_sat16(acc as f32 * self.scale[c]));
        if let (Some(r), Some(a)) = (&self.residual, residual) {
            let centred = (super::operand(a) as i16 - r.zero[c]) << 7;
            y = y.saturating_add(mulhrs(centred, r.mult[c]));
        }
        let q = mulhrs(y, self.mult[c]).saturating_add(self.zero[c]);
        if super::STORED_OFFSET == 0 { q.clamp(0, 255) as u8 } else { q.clamp(-128, 127) as i8 as u8 }
    }
}
