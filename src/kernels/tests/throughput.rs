//! Speed of each kernel on layers of the model, one thread:
//! `cargo test --release --lib kernels::tests::throughput -- --ignored --nocapture`

use super::*;
use crate::kernels::ops::{ConvJob, MixJob, Mixed, Window, conv, mix};
use std::time::Instant;

/// `(kernel, stride, c_in, c_out, output side)`
const LAYERS: [(usize, usize, usize, usize, usize); 17] = [
    (3, 2, 4, 16, 320),
    (3, 2, 16, 32, 160),
    (3, 1, 16, 16, 160),
    (1, 1, 48, 32, 160),
    (3, 2, 32, 64, 80),
    (3, 1, 32, 32, 80),
    (3, 1, 64, 64, 80),
    (3, 1, 64, 80, 80),
    (3, 1, 80, 80, 80),
    (1, 1, 128, 64, 80),
    (1, 1, 80, 80, 80),
    (3, 1, 64, 64, 40),
    (3, 2, 64, 128, 40),
    (1, 1, 384, 128, 40),
    (3, 1, 128, 128, 20),
    (3, 2, 128, 256, 20),
    (1, 1, 512, 256, 20),
];

fn best_seconds(mut f: impl FnMut()) -> f64 {
    let once = |f: &mut dyn FnMut()| {
        let began = Instant::now();
        f();
        began.elapsed().as_secs_f64()
    };
    let first = once(&mut f);
    let rounds = (0.15 / first.max(1e-6)).clamp(3.0, 200.0) as usize;
    (0..rounds).map(|_| once(&mut f)).fold(first, f64::min)
}

/// Multiplications per second, in 10^9, of one layer.
fn gmacs(k: &dyn Kernels, (kernel, stride, c_in, c_out, side): (usize, usize, usize, usize, usize)) -> f64 {
    let mut random = Random::new(1);
    let input = View::dense(0, side * stride, side * stride, c_in);
    let output = View::dense(input.end().next_multiple_of(64), side, side, c_out);
    let mut arena = Arena::new(output.end());
    let noise = random.bytes(arena.len());
    arena.bytes_mut().copy_from_slice(&noise);
    let terms = c_in * kernel * kernel;
    let weights = Arena::of_weights(&random.weights(k.layout().packed_len(c_out, kernel * kernel, c_in)));
    let requant = requant(&mut random, c_out, terms, SILU, Kind::Plain);
    let job = ConvJob {
        input,
        output,
        window: Window { kernel, stride, dilation: 1, pad_top: kernel / 2, pad_left: kernel / 2 },
        weights: weights.signed(),
        pad_row: &[0; 512],
        requant: &requant,
        residual: None,
    };
    let mut team = Team::new(1).expect("no thread");
    let seconds = team.frame(|crew| best_seconds(|| conv(k, crew, &mut arena, &job).expect("a good job")));
    (terms * c_out * side * side) as f64 / seconds / 1e9
}

/// Milliseconds of the model's largest mixing, and the experts' bytes by 10^9 a second.
fn mixing() -> (f64, f64) {
    let mut random = Random::new(1);
    let (c_out, taps, depth, count) = (256, 9, 128, 4);
    let experts = random.weights(count * c_out * taps * depth);
    let alpha: Vec<i32> = (0..count * c_out).map(|_| random.within(0, 4096) as i32).collect();
    let layout = Layout::N16K4;
    let job =
        MixJob { layout, c_out, taps, depth, count, experts: &experts, alpha: &alpha, pad_row: &[7; 128] };
    let (mut weights, mut maxima, mut zero_sums) =
        (vec![0; experts.len() / count], vec![0; 256], vec![0; 256]);
    let seconds = Team::new(1).expect("no thread").frame(|crew| {
        best_seconds(|| {
            let out = Mixed { weights: &mut weights, maxima: &mut maxima, zero_sums: &mut zero_sums };
            mix(crew, &job, out).expect("a good job");
        })
    });
    (seconds * 1e3, experts.len() as f64 / seconds / 1e9)
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let kernels: Vec<_> = here().into_iter().filter(|k| !k.name().starts_with("scalar")).collect();
    println!(
        "{:28}{}",
        "GMAC/s, one thread",
        kernels.iter().map(|k| format!("{:>14}", k.name())).collect::<String>()
    );
    for layer in LAYERS {
        let (kernel, stride, c_in, c_out, side) = layer;
        let figures: String = kernels.iter().map(|k| format!("{:14.1}", gmacs(*k, layer))).collect();
        println!("{:28}{figures}", format!("{c_in}->{c_out} {kernel}x{kernel}/{stride} @{side}"));
    }
    let (ms, reads) = mixing();
    println!("mixing 4 experts of 256 x 128 3x3: {ms:.3} ms, {reads:.1} GB/s");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the CPU has the feature.
        println!("{:28}{:14.1}", "peak of vpdpbusd zmm", unsafe { peak() });
    }
}

/// GMAC/s of 16 independent chains of `vpdpbusd`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn peak() -> f64 {
    use std::arch::x86_64::*;
    const ROUNDS: usize = 1 << 20;
    let one = std::hint::black_box(_mm512_set1_epi32(0x0101_0101));
    let mut acc = [_mm512_setzero_si512(); 16];
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, one, one);
        }
        std::hint::black_box(());
    }
    let seconds = began.elapsed().as_secs_f64();
    std::hint::black_box(acc);
    (ROUNDS * 16 * 64) as f64 / seconds / 1e9
}
