//! [`crate::math`]'s functions for single precision, and the threshold in the heads' own terms.

/// `e^x`, the nearest f32 to [`crate::math::exp`].
#[inline]
pub fn exp(x: f32) -> f32 {
    crate::math::exp(f64::from(x)) as f32
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
