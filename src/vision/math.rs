//! `exp` and its kin without libm, so that the same numbers come out on every machine.
//!
//! Only IEEE additions, multiplications and roundings, never contracted (Rust does not contract).

/// `ln 2` in two parts: the first has 15 significant bits, so that `n * HIGH` is exact for `|n| < 2^9`.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `e^x` within 2 units in the last place; 0 below -87, infinity above 88.7, NaN stays NaN.
///
/// Cody and Waite's reduction `x = n ln2 + r`, `|r| <= ln2 / 2`, then `e^r`'s Taylor sum to the 7th power
/// (its remainder there is below 6e-9).
#[inline]
pub fn exp(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    if x > 88.7 {
        return f32::INFINITY;
    }
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let tail = 1.0 / 5_040.0;
    let tail = tail * r + 1.0 / 720.0;
    let tail = tail * r + 1.0 / 120.0;
    let tail = tail * r + 1.0 / 24.0;
    let tail = tail * r + 1.0 / 6.0;
    let tail = tail * r + 0.5;
    let sum = (tail * r * r + r) + 1.0;
    // n is in -126..=128 (NaN casts to 0); two factors keep each exponent in range.
    let n = n as i32;
    sum * power_of_two(n / 2) * power_of_two(n - n / 2)
}

/// `2^n` for `n` in `-126..=127`.
#[inline]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// `1 / (1 + e^-x)`
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// A logit below which `sigmoid` is surely not above `probability`: `ln(p / (1 - p))` less a margin.
///
/// The margin covers `ln` differing between machines; callers check `sigmoid` itself afterwards.
pub fn logit_floor(probability: f32) -> f32 {
    let p = f64::from(probability.clamp(0.0, 1.0));
    let logit = (p / (1.0 - p)).ln();
    (logit - 1e-4 * (1.0 + logit.abs())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0f64;
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 1.5e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(88.7).is_finite());
        assert!(exp(-87.0) > 0.0);
    }

    #[test]
    fn exp_never_falls() {
        let mut last = 0.0;
        for i in -200_000..=200_000 {
            let y = exp(i as f32 * 1e-4);
            assert!(y >= last, "exp falls at {}", i as f32 * 1e-4);
            last = y;
        }
    }

    #[test]
    fn sigmoid_is_between_0_and_1() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(-200.0), 0.0);
        assert_eq!(sigmoid(200.0), 1.0);
    }

    #[test]
    fn logit_floor_lets_no_survivor_out() {
        for i in 1..1000 {
            let p = i as f32 / 1000.0;
            let floor = logit_floor(p);
            assert!(sigmoid(floor) <= p, "sigmoid({floor}) > {p}");
            assert!(sigmoid(floor) > p - 1e-3, "the margin at {p} is too wide");
        }
        assert_eq!(logit_floor(0.0), f32::NEG_INFINITY);
    }
}
