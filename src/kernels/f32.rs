//! Products and activations in f32 with the same bits on every machine.
//!
//! Calibration and the engine's f32 layers need that: a range that differs in its last bit gives another
//! model file. So every product and every sum is rounded by itself, in a fixed order, never fused, and
//! `exp` is our own. Vectors lie along output channels, which changes no order: plain loops that the
//! compiler vectorises, compiled once more for each wider instruction set.
//!
//! Test: `kernels::f32::tests`.

/// Rows of one tile.
pub const ROWS: usize = 8;
/// Output channels of one tile and of one panel of weights.
pub const COLUMNS: usize = 32;

/// Sums of one tile.
pub type Tile = [[f32; COLUMNS]; ROWS];

/// `[depth, columns]` weights as panels `[columns / 32][depth][32]`, padded with zeros.
pub fn pack(weights: &[f32], columns: usize) -> Vec<f32> {
    let depth = weights.len() / columns.max(1);
    let mut panels = vec![0.0; columns.div_ceil(COLUMNS) * depth * COLUMNS];
    for (panel, out) in panels.chunks_exact_mut((depth * COLUMNS).max(1)).enumerate() {
        let first = panel * COLUMNS;
        let len = COLUMNS.min(columns - first);
        for (to, from) in out.chunks_exact_mut(COLUMNS).zip(weights.chunks_exact(columns)) {
            to[..len].copy_from_slice(&from[first..first + len]);
        }
    }
    panels
}

/// A kernel `[columns, inner, taps]` as rows of a matrix product: `[taps, inner, columns]`.
pub fn by_tap(kernel: &[f32], columns: usize, taps: usize) -> Vec<f32> {
    let inner = kernel.len() / (columns * taps).max(1);
    let mut rows = vec![0.0; kernel.len()];
    for (o, kernel) in kernel.chunks_exact((inner * taps).max(1)).enumerate() {
        for (i, plane) in kernel.chunks_exact(taps).enumerate() {
            for (tap, &w) in plane.iter().enumerate() {
                rows[(tap * inner + i) * columns + o] = w;
            }
        }
    }
    rows
}

/// Calls the body compiled for the widest vectors that this CPU has.
macro_rules! widest {
    ($body:ident($($arg:ident: $type:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f")]
            fn avx512($($arg: $type),*) {
                $body($($arg),*);
            }
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) {
                $body($($arg),*);
            }
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has AVX-512F, as was just asked; the body is safe code.
                return unsafe { avx512($($arg),*) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the CPU has AVX2, as was just asked; the body is safe code.
                return unsafe { avx2($($arg),*) };
            }
        }
        $body($($arg),*)
    }};
}

/// `sums[m][n] += Σ_k rows[m][k] * panel[k][n]`, `k` ascending.
///
/// `rows` are of one length, `panel` is `[length, 32]`.
pub fn accumulate(rows: &[&[f32]; ROWS], panel: &[f32], sums: &mut Tile) {
    widest!(accumulate_body(rows: &[&[f32]; ROWS], panel: &[f32], sums: &mut Tile))
}

#[inline(always)]
fn accumulate_body(rows: &[&[f32]; ROWS], panel: &[f32], sums: &mut Tile) {
    let depth = panel.len() / COLUMNS;
    let rows = rows.map(|row| &row[..depth]);
    let mut local = *sums;
    for (k, weights) in panel.chunks_exact(COLUMNS).enumerate() {
        for (row, sums) in rows.iter().zip(&mut local) {
            let x = row[k];
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum += x * w;
            }
        }
    }
    *sums = local;
}

/// `sums[n] += x[n] * weights[n]`: one tap of a depthwise convolution.
pub fn accumulate_depthwise(x: &[f32], weights: &[f32], sums: &mut [f32]) {
    widest!(depthwise_body(x: &[f32], weights: &[f32], sums: &mut [f32]))
}

#[inline(always)]
fn depthwise_body(x: &[f32], weights: &[f32], sums: &mut [f32]) {
    for ((sum, x), w) in sums.iter_mut().zip(x).zip(weights) {
        *sum += x * w;
    }
}

/// `v / (1 + e^-v)` in place.
pub fn silu(values: &mut [f32]) {
    widest!(silu_body(values: &mut [f32]))
}

#[inline(always)]
fn silu_body(values: &mut [f32]) {
    for v in values {
        *v /= 1.0 + exp(-*v);
    }
}

/// `e^x`, relative error below 3e-7, `x` cut to [-87, 88].
///
/// Cody-Waite reduction `x = k ln2 + r`, then Taylor's series to degree 7. `k` is rounded by adding
/// 1.5 * 2^23, whose low bits then hold it.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let k = shifted - MAGIC;
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_std() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0 + 0.0037;
            let (found, wanted) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found - wanted).abs() / wanted < 3e-7, "x {x}: {found} {wanted}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) < 2e-38 && exp(1e9).is_finite());
    }

    #[test]
    fn sums_are_those_of_a_plain_loop_bit_for_bit() {
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for (depth, columns) in [(1, 1), (3, 16), (27, 33), (144, 80)] {
            let weights: Vec<f32> = (0..depth * columns).map(|_| random()).collect();
            let x: Vec<f32> = (0..ROWS * depth).map(|_| random()).collect();
            let panels = pack(&weights, columns);
            let rows: [&[f32]; ROWS] = std::array::from_fn(|m| &x[m * depth..][..depth]);
            for (p, panel) in panels.chunks_exact(depth * COLUMNS).enumerate() {
                let mut sums = [[0.25; COLUMNS]; ROWS];
                accumulate(&rows, panel, &mut sums);
                for n in 0..COLUMNS.min(columns - p * COLUMNS) {
                    for (m, row) in rows.iter().enumerate() {
                        let mut sum = 0.25f32;
                        for k in 0..depth {
                            sum += row[k] * weights[k * columns + p * COLUMNS + n];
                        }
                        assert_eq!(sums[m][n].to_bits(), sum.to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn silu_is_silu() {
        let mut values: Vec<f32> = (-900..900).map(|i| i as f32 / 90.0).collect();
        let wanted: Vec<f64> = values.iter().map(|&v| f64::from(v) / (1.0 + f64::from(-v).exp())).collect();
        silu(&mut values);
        for (found, wanted) in values.iter().zip(wanted) {
            assert!((f64::from(*found) - wanted).abs() < 1e-6);
        }
    }
}
