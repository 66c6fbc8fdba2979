//! Row kernels for AVX2, in sums of `vpmaddwd` and products of `vpmulhw`, all exact.
//!
//! Colours: 16 pixels a round. A vector holds Y of 16 pixels in 16 bits each, another one U and V of their 8
//! pairs: two products of a sum, no shuffle before them. Across: 4 columns a round. Down: 32 bytes a round.
//! Test: `kernels::rows::tests`.

use std::arch::x86_64::*;

use super::{
    BASE, Columns, FRACTION_BITS, PIXEL, Row, RowKernels, U_TO_B, U_TO_G, V_TO_G, V_TO_R, Y_GAIN, scalar,
};

/// The kernels of this file; [`super::Rows::best`] gives them to CPUs with AVX2 only.
#[derive(Debug)]
pub(super) struct Avx2;

impl RowKernels for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    unsafe fn colours(&self, row: Row<'_>, out: &mut [u8]) {
        // SAFETY: the CPU has AVX2; the same duties.
        unsafe { colours(row, out) }
    }

    unsafe fn across(&self, columns: &Columns, row: &[u8], out: &mut [i16]) {
        // SAFETY: the CPU has AVX2; the same duties.
        unsafe { across(columns, row, out) }
    }

    unsafe fn down(&self, rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
        // SAFETY: the CPU has AVX2; the same duties.
        unsafe { down(rows, weights, offset, out) }
    }
}

/// # Safety
/// - The CPU has AVX2. - Duties of [`RowKernels::colours`].
#[target_feature(enable = "avx2")]
unsafe fn colours(row: Row<'_>, out: &mut [u8]) {
    // SAFETY: the row reaches as many pixels as `out` has, and each closure reads no more of them, from `x` on, than
    // the number before it: 10 pixels of three bytes are 30 bytes, of which 28 are read.
    let done = unsafe {
        match row {
            Row::Yuyv(bytes) => rounds(out, 16, |x| {
                let pairs = _mm256_loadu_si256(bytes.as_ptr().add(2 * x).cast());
                pixels(even_bytes(pairs), _mm256_srli_epi16::<8>(pairs))
            }),
            Row::Uyvy(bytes) => rounds(out, 16, |x| {
                let pairs = _mm256_loadu_si256(bytes.as_ptr().add(2 * x).cast());
                pixels(_mm256_srli_epi16::<8>(pairs), even_bytes(pairs))
            }),
            Row::SemiPlanar { luma, chroma } => rounds(out, 16, |x| {
                let luma = _mm_loadu_si128(luma.as_ptr().add(x).cast());
                let chroma = _mm_loadu_si128(chroma.as_ptr().add(x).cast());
                pixels(_mm256_cvtepu8_epi16(luma), _mm256_cvtepu8_epi16(chroma))
            }),
            Row::Planar { luma, u, v } => rounds(out, 16, |x| {
                let luma = _mm_loadu_si128(luma.as_ptr().add(x).cast());
                let u = _mm_loadl_epi64(u.as_ptr().add(x / 2).cast());
                let v = _mm_loadl_epi64(v.as_ptr().add(x / 2).cast());
                pixels(_mm256_cvtepu8_epi16(luma), _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(u, v)))
            }),
            Row::Rgb(bytes) => rounds(out, 10, |x| [fourths(bytes.as_ptr().add(3 * x), [0, 1, 2])]),
            Row::Bgr(bytes) => rounds(out, 10, |x| [fourths(bytes.as_ptr().add(3 * x), [2, 1, 0])]),
            Row::Grey(bytes) => rounds(out, 8, |x| {
                let grey = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(x).cast()));
                [_mm256_mullo_epi32(grey, _mm256_set1_epi32(0x01_0101))]
            }),
        }
    };
    scalar::colours(row.skip(done), &mut out[PIXEL * done..]);
}

/// Fills `out` with `8 * N` pixels a round, while `needed` pixels are left. Returns how many it has filled.
#[target_feature(enable = "avx2")]
fn rounds<const N: usize>(out: &mut [u8], needed: usize, make: impl Fn(usize) -> [__m256i; N]) -> usize {
    let count = out.len() / PIXEL;
    let mut x = 0;
    while x + needed.max(8 * N) <= count {
        let made = make(x);
        // SAFETY: `8 * N` pixels from `x` on are within `out`, and `made` is as long.
        unsafe { out.as_mut_ptr().add(PIXEL * x).cast::<[__m256i; N]>().write_unaligned(made) };
        x += 8 * N;
    }
    x
}

/// Each even byte in 16 bits.
#[target_feature(enable = "avx2")]
fn even_bytes(bytes: __m256i) -> __m256i {
    _mm256_and_si256(bytes, _mm256_set1_epi16(0xff))
}

/// Factors of neighbouring 16-bit numbers.
#[target_feature(enable = "avx2")]
fn factors(even: i16, odd: i16) -> __m256i {
    _mm256_set1_epi32((i32::from(odd) << 16) | i32::from(even) & 0xffff)
}

/// 16 pixels `r, g, b, 0` of their Y, and U and V of their pairs, all in 16 bits.
#[target_feature(enable = "avx2")]
fn pixels(luma: __m256i, chroma: __m256i) -> [__m256i; 2] {
    let colour = |channel: usize, u: i16, v: i16| {
        _mm256_add_epi32(_mm256_madd_epi16(chroma, factors(u, v)), _mm256_set1_epi32(BASE[channel]))
    };
    let colours = [colour(0, 0, V_TO_R), colour(1, U_TO_G, V_TO_G), colour(2, U_TO_B, 0)];
    let even = four_by_four(_mm256_madd_epi16(luma, factors(Y_GAIN, 0)), colours);
    let odd = four_by_four(_mm256_madd_epi16(luma, factors(0, Y_GAIN)), colours);
    let (first, second) = (_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
    [_mm256_permute2x128_si256::<0x20>(first, second), _mm256_permute2x128_si256::<0x31>(first, second)]
}

/// The pixels of 8 luma products and of what the pairs' chroma makes of R, G and B.
#[target_feature(enable = "avx2")]
fn four_by_four(luma: __m256i, [r, g, b]: [__m256i; 3]) -> __m256i {
    const SHIFT: i32 = FRACTION_BITS as i32;
    let sum = |colour| _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(luma, colour));
    // Both saturate, which clips to 0..=255.
    let planes = _mm256_packus_epi16(
        _mm256_packs_epi32(sum(r), sum(g)),
        _mm256_packs_epi32(sum(b), _mm256_setzero_si256()),
    );
    let transposed = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm256_shuffle_epi8(planes, _mm256_broadcastsi128_si256(transposed))
}

/// 8 pixels of three bytes as pixels of four, the three in another order.
///
/// # Safety
/// - The CPU has AVX2. - 28 bytes are readable.
#[target_feature(enable = "avx2")]
unsafe fn fourths(from: *const u8, [r, g, b]: [i8; 3]) -> __m256i {
    // SAFETY: bytes 0 to 15, and 12 to 27.
    let (low, high) = unsafe { (_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(12).cast())) };
    let order =
        _mm_setr_epi8(r, g, b, -1, 3 + r, 3 + g, 3 + b, -1, 6 + r, 6 + g, 6 + b, -1, 9 + r, 9 + g, 9 + b, -1);
    _mm256_shuffle_epi8(_mm256_set_m128i(high, low), _mm256_broadcastsi128_si256(order))
}

/// # Safety
/// - The CPU has AVX2. - Duties of [`RowKernels::across`].
#[target_feature(enable = "avx2")]
unsafe fn across(columns: &Columns, row: &[u8], out: &mut [i16]) {
    let done = columns.len() / 4 * 4;
    // Two pixels of 8 bytes as 16-bit numbers, bytes of one channel side by side: columns 0 and 2, then 1 and 3.
    let pairs = _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1);
    let even_pairs = _mm256_broadcastsi128_si256(pairs);
    let odd_pairs = _mm256_or_si256(even_pairs, _mm256_set1_epi16(8));
    let even_columns = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
    let odd_columns = _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3);
    for x in (0..done).step_by(4) {
        // SAFETY: columns `x` to `x + 3` are there, and `row` has two pixels from each one's first on.
        let (four, weights) = unsafe {
            let firsts = columns.firsts.as_ptr().add(x);
            let pixels = |i: usize| {
                let at = row.as_ptr().add(PIXEL * *firsts.add(i) as usize);
                _mm_loadl_epi64(at.cast())
            };
            let four = if columns.halves {
                _mm256_loadu_si256(row.as_ptr().add(2 * PIXEL * x).cast())
            } else {
                let low = _mm_unpacklo_epi64(pixels(0), pixels(1));
                _mm256_set_m128i(_mm_unpacklo_epi64(pixels(2), pixels(3)), low)
            };
            (four, _mm256_castsi128_si256(_mm_loadu_si128(columns.weights.as_ptr().add(x).cast())))
        };
        let sums = |pairs, columns| {
            let weights = _mm256_permutevar8x32_epi32(weights, columns);
            _mm256_srai_epi32::<4>(_mm256_madd_epi16(_mm256_shuffle_epi8(four, pairs), weights))
        };
        let resized = _mm256_packs_epi32(sums(even_pairs, even_columns), sums(odd_pairs, odd_columns));
        // SAFETY: `out` has the columns `x` to `x + 3`, 16 numbers.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(PIXEL * x).cast(), resized) };
    }
    scalar::across(columns, done, row, &mut out[PIXEL * done..]);
}

/// # Safety
/// - The CPU has AVX2. - Duties of [`RowKernels::down`].
#[target_feature(enable = "avx2")]
unsafe fn down(rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
    let done = out.len() / 32 * 32;
    let [a, b] = weights.map(|weight| _mm256_set1_epi16(weight));
    let (two, offsets) = (_mm256_set1_epi16(2), _mm256_set1_epi8(offset as i8));
    for x in (0..done).step_by(32) {
        // SAFETY: both rows and `out` are as long, and 32 of each are left.
        unsafe {
            let blend = |x: usize| {
                let first = _mm256_mulhi_epi16(_mm256_loadu_si256(rows[0].as_ptr().add(x).cast()), a);
                let second = _mm256_mulhi_epi16(_mm256_loadu_si256(rows[1].as_ptr().add(x).cast()), b);
                _mm256_srai_epi16::<2>(_mm256_add_epi16(_mm256_add_epi16(first, second), two))
            };
            // Packing takes halves in turns.
            let bytes =
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(blend(x), blend(x + 16)));
            _mm256_storeu_si256(out.as_mut_ptr().add(x).cast(), _mm256_sub_epi8(bytes, offsets));
        }
    }
    scalar::down(rows.map(|row| &row[done..]), weights, offset, &mut out[done..]);
}
