//! Elementary functions with the same bits on every machine: only `+ - * /` and exact conversions.
//!
//! libm's `exp` differs between C libraries and CPUs; a routing weight that differs in its last bit
//! may round to another integer, and then every layer behind it differs.

/// `e^x` in f64, relative error below 1e-13 for `|x| <= 700`; 0 below, infinity above.
///
/// Cody-Waite reduction `x = k ln2 + r`, `|r| <= ln2 / 2`, then Taylor's series to degree 13.
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < -700.0 {
        return 0.0;
    }
    if x > 700.0 {
        return f64::INFINITY;
    }
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    let k = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + r / f64::from(n) * sum);
    series * f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// Logarithm to base 10 of a positive, finite, normal number, absolute error below 1e-12.
///
/// `x = 2^k m` with `m` about 1, then `ln m = 2 artanh((m - 1) / (m + 1))` as a series.
pub fn log10(x: f64) -> f64 {
    const LOG10_2: f64 = std::f64::consts::LOG10_2;
    let bits = x.to_bits();
    let k = ((bits >> 52) as i64 - 1023) as f64;
    let m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let (k, m) = if m > std::f64::consts::SQRT_2 { (k + 1.0, m / 2.0) } else { (k, m) };
    let t = (m - 1.0) / (m + 1.0);
    let series = (0..16).rev().fold(0.0, |sum, n| sum * t * t + 1.0 / f64::from(2 * n + 1));
    k * LOG10_2 + 2.0 * t * series * std::f64::consts::LOG10_E
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x_i / Σ e^x_j`, in place.
pub fn softmax(values: &mut [f64]) {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in values.iter_mut() {
        *v = exp(*v - max);
        sum += *v;
    }
    for v in values.iter_mut() {
        *v /= sum;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same numbers everywhere. The field is its state.
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_std() {
        for i in -7000..=7000 {
            let x = f64::from(i) / 10.0 + 0.037;
            let relative = (exp(x) - x.exp()).abs() / x.exp();
            assert!(relative < 1e-13 || !(-700.0..=700.0).contains(&x), "x {x}: {relative}");
        }
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(1e9), f64::INFINITY);
        assert!(exp(f64::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn log10_agrees_with_std() {
        for i in 1..20_000 {
            let x = f64::from(i) * f64::from(i) * 1e-5;
            assert!((log10(x) - x.log10()).abs() < 1e-12, "x {x}");
        }
        assert_eq!(log10(1.0), 0.0);
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut v = [1000.0, 999.0, -5.0];
        softmax(&mut v);
        assert!((v.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(v[0] > v[1] && v[1] > v[2]);
    }
}
