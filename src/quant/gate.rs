//! Fits the polynomial of [`crate::kernels::Act::Gated`]: what an activation lacks to ReLU.

use crate::kernels::Act;
use crate::math;

/// `|x| * sigmoid(-|x|)`: SiLU is `max(x, 0)` minus this.
pub fn silu_gap(t: f64) -> f64 {
    t * math::sigmoid(-t)
}

/// Real `|x|` up to which SiLU's gap is followed; at 7 it is 0.006 and falling.
pub const SILU_REACH: f64 = 7.0;

/// `|t| (3 - |t|) / 6` up to 3: Hardswish is `max(x, 0)` minus this.
pub fn hardswish_gap(t: f64) -> f64 {
    t * (3.0 - t).max(0.0) / 6.0
}

/// Where Hardswish's gap ends: beyond, it is ReLU.
pub const HARDSWISH_REACH: f64 = 3.0;

/// The least `shift` for which `p` of the given full scale (real value of 32768) reaches no further
/// than `reach` in the polynomial's argument.
pub fn shift_for(full_scale: f64, reach: f64) -> u32 {
    (0..8).find(|&s| full_scale / f64::from(1u32 << s) <= reach * 1.0001).unwrap_or(8)
}

/// Fits `gap` on `[0, full_scale / 2^shift]`, in units of `full_scale / 32768`.
///
/// Minimax by Lawson's iteration (weighted least squares, weights grow with the error) on a uniform
/// grid, in plain f64 arithmetic, so that every machine finds the same integers.
pub fn fit(gap: impl Fn(f64) -> f64, full_scale: f64, shift: u32) -> Act {
    const POINTS: usize = 513;
    let reach = full_scale / f64::from(1u32 << shift);
    let unit = full_scale / 32768.0;
    let grid: Vec<f64> = (0..POINTS).map(|i| 2.0 * i as f64 / (POINTS - 1) as f64 - 1.0).collect();
    let target: Vec<f64> = grid.iter().map(|v| gap((v + 1.0) / 2.0 * reach) / unit).collect();
    let mut weights = vec![1.0; POINTS];
    let mut best = ([0.0; 6], f64::INFINITY);
    for _ in 0..60 {
        let coefficients = least_squares(&grid, &target, &weights);
        let errors: Vec<f64> =
            grid.iter().zip(&target).map(|(&v, &t)| (horner(&coefficients, v) - t).abs()).collect();
        let worst = errors.iter().copied().fold(0.0, f64::max);
        if worst < best.1 {
            best = (coefficients, worst);
        }
        let mean = errors.iter().sum::<f64>() / POINTS as f64;
        weights.iter_mut().zip(&errors).for_each(|(w, e)| *w *= 0.2 + e / mean.max(1e-300));
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w *= POINTS as f64 / total);
    }
    Act::Gated { shift, poly: best.0.map(|c| c.round_ties_even().clamp(-32768.0, 32767.0) as i16) }
}

fn horner(coefficients: &[f64; 6], v: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * v + c)
}

/// Coefficients that minimise `Σ w (poly(v) - t)²`: normal equations, Gaussian elimination.
fn least_squares(grid: &[f64], target: &[f64], weights: &[f64]) -> [f64; 6] {
    let mut system = [[0.0; 7]; 6];
    for ((&v, &t), &w) in grid.iter().zip(target).zip(weights) {
        let mut powers = [1.0; 6];
        for i in 1..6 {
            powers[i] = powers[i - 1] * v;
        }
        for (row, &a) in system.iter_mut().zip(&powers) {
            row[..6].iter_mut().zip(&powers).for_each(|(cell, &b)| *cell += w * a * b);
            row[6] += w * a * t;
        }
    }
    for pivot in 0..6 {
        let row = system[pivot];
        for (index, other) in system.iter_mut().enumerate() {
            if index != pivot {
                let factor = other[pivot] / row[pivot];
                other.iter_mut().zip(&row).for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    std::array::from_fn(|i| system[i][6] / system[i][i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::Activation;

    #[test]
    fn hardswish_is_within_two_units_and_ends_as_relu() {
        for k in 0..8 {
            let full_scale = HARDSWISH_REACH * f64::from(1 << k);
            let act = fit(hardswish_gap, full_scale, shift_for(full_scale, HARDSWISH_REACH));
            let unit = full_scale / 32768.0;
            for p in i16::MIN..=i16::MAX {
                let x = f64::from(p) * unit;
                let found = f64::from(act.apply(p)) * unit;
                let error = (found - x * (x + 3.0).clamp(0.0, 6.0) / 6.0).abs();
                assert!(error <= 2.0 * unit, "full scale {full_scale}, x {x}: {error}");
                if x.abs() > HARDSWISH_REACH {
                    assert_eq!(act.apply(p), p.max(0), "full scale {full_scale}, x {x}");
                }
            }
        }
    }

    #[test]
    fn activations_end_at_their_bounds() {
        for (activation, gap) in [
            (Activation::Silu, silu_gap as fn(f64) -> f64),
            (Activation::Hardswish, hardswish_gap),
            (Activation::Relu, |_| 0.0),
        ] {
            let least = (0..4000).map(|i| -gap(f64::from(i) / 1000.0)).fold(0.0, f64::min);
            let bottom = f64::from(activation.bounds().0);
            assert!(bottom <= least && least < bottom + 1e-4, "{activation:?}: {least}, not {bottom}");
        }
    }

    #[test]
    fn silu_is_within_three_thousandths() {
        for full_scale in [1.0, 3.5, 7.0, 14.0, 28.0] {
            let shift = shift_for(full_scale, SILU_REACH);
            let act = fit(silu_gap, full_scale, shift);
            let unit = full_scale / 32768.0;
            for p in i16::MIN..=i16::MAX {
                let x = f64::from(p) * unit;
                let error = (f64::from(act.apply(p)) * unit - x * math::sigmoid(x)).abs();
                // Past its reach the gap stands still instead of dying out.
                let bound = if x.abs() < SILU_REACH { 0.003 } else { 0.0095 };
                assert!(error < bound + 2.0 * unit, "full scale {full_scale}, x {x}: {error}");
            }
        }
    }
}
