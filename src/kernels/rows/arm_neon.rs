//! Row kernels for NEON, which every aarch64 CPU has.
//!
//! Colours: 16 pixels a round, their even and odd Y apart, since a pair shares its U and V; structured loads
//! take pairs apart, structured stores make pixels. Across: 4 columns a round. Down: 16 bytes a round.
//! Test: `kernels::rows::tests`.

use std::arch::aarch64::*;

use super::{
    BASE, Columns, FRACTION_BITS, PIXEL, Row, RowKernels, U_TO_B, U_TO_G, V_TO_G, V_TO_R, Y_GAIN, scalar,
};

/// The kernels of this file.
#[derive(Debug)]
pub(super) struct Neon;

impl RowKernels for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    unsafe fn colours(&self, row: Row<'_>, out: &mut [u8]) {
        // SAFETY: the same duties.
        unsafe { colours(row, out) }
    }

    unsafe fn across(&self, columns: &Columns, row: &[u8], out: &mut [i16]) {
        // SAFETY: the same duties.
        unsafe { across(columns, row, out) }
    }

    unsafe fn down(&self, rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
        // SAFETY: the same duties.
        unsafe { down(rows, weights, offset, out) }
    }
}

/// Pixels of a round.
const STEP: usize = 16;

/// R, G and B of 16 pixels.
type Colours = [uint8x16_t; 3];

/// # Safety
/// - Duties of [`RowKernels::colours`].
unsafe fn colours(row: Row<'_>, out: &mut [u8]) {
    // SAFETY: the row reaches as many pixels as `out` has, and each closure reads 16 of them, from `x` on.
    let done = unsafe {
        match row {
            Row::Yuyv(bytes) => rounds(out, |x| {
                let uint8x8x4_t(y0, u, y1, v) = vld4_u8(bytes.as_ptr().add(2 * x));
                pixels([y0, y1], u, v)
            }),
            Row::Uyvy(bytes) => rounds(out, |x| {
                let uint8x8x4_t(u, y0, v, y1) = vld4_u8(bytes.as_ptr().add(2 * x));
                pixels([y0, y1], u, v)
            }),
            Row::SemiPlanar { luma, chroma } => rounds(out, |x| {
                let uint8x8x2_t(y0, y1) = vld2_u8(luma.as_ptr().add(x));
                let uint8x8x2_t(u, v) = vld2_u8(chroma.as_ptr().add(x));
                pixels([y0, y1], u, v)
            }),
            Row::Planar { luma, u, v } => rounds(out, |x| {
                let uint8x8x2_t(y0, y1) = vld2_u8(luma.as_ptr().add(x));
                pixels([y0, y1], vld1_u8(u.as_ptr().add(x / 2)), vld1_u8(v.as_ptr().add(x / 2)))
            }),
            Row::Rgb(bytes) => rounds(out, |x| {
                let uint8x16x3_t(r, g, b) = vld3q_u8(bytes.as_ptr().add(3 * x));
                [r, g, b]
            }),
            Row::Bgr(bytes) => rounds(out, |x| {
                let uint8x16x3_t(b, g, r) = vld3q_u8(bytes.as_ptr().add(3 * x));
                [r, g, b]
            }),
            Row::Grey(bytes) => rounds(out, |x| [vld1q_u8(bytes.as_ptr().add(x)); 3]),
        }
    };
    scalar::colours(row.skip(done), &mut out[PIXEL * done..]);
}

/// Fills `out` with 16 pixels a round. Returns how many it has filled.
#[inline(always)]
fn rounds(out: &mut [u8], make: impl Fn(usize) -> Colours) -> usize {
    let done = out.len() / PIXEL / STEP * STEP;
    for x in (0..done).step_by(STEP) {
        let [r, g, b] = make(x);
        // SAFETY: NEON is part of aarch64; 16 pixels from `x` on are within `out`.
        unsafe { vst4q_u8(out.as_mut_ptr().add(PIXEL * x), uint8x16x4_t(r, g, b, vdupq_n_u8(0))) };
    }
    done
}

/// Colours of the even and the odd pixels of 8 pairs, in the order of pixels.
#[inline(always)]
fn pixels(luma: [uint8x8_t; 2], u: uint8x8_t, v: uint8x8_t) -> Colours {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let wide = |bytes| vreinterpretq_s16_u16(vmovl_u8(bytes));
        let (u, v) = (wide(u), wide(v));
        let luma = luma.map(|luma| {
            let luma = wide(luma);
            [vmull_n_s16(vget_low_s16(luma), Y_GAIN), vmull_high_n_s16(luma, Y_GAIN)]
        });
        let colour = |[low, high]: [int32x4_t; 2]| {
            let [even, odd] = luma.map(|luma| {
                // Both saturate, which clips to 0..=255.
                const SHIFT: i32 = FRACTION_BITS as i32;
                let low = vqshrun_n_s32::<SHIFT>(vaddq_s32(luma[0], low));
                vqmovn_u16(vqshrun_high_n_s32::<SHIFT>(low, vaddq_s32(luma[1], high)))
            });
            vcombine_u8(vzip1_u8(even, odd), vzip2_u8(even, odd))
        };
        let plus = |[low, high]: [int32x4_t; 2], x: int16x8_t, factor: i16| {
            [vmlal_n_s16(low, vget_low_s16(x), factor), vmlal_high_n_s16(high, x, factor)]
        };
        let base = BASE.map(|base| [vdupq_n_s32(base); 2]);
        [
            colour(plus(base[0], v, V_TO_R)),
            colour(plus(plus(base[1], u, U_TO_G), v, V_TO_G)),
            colour(plus(base[2], u, U_TO_B)),
        ]
    }
}

/// # Safety
/// - Duties of [`RowKernels::across`].
unsafe fn across(columns: &Columns, row: &[u8], out: &mut [i16]) {
    let done = columns.len() / 4 * 4;
    for x in (0..done).step_by(4) {
        // SAFETY: columns `x` to `x + 3` are there, `row` has two pixels from each one's first on, and `out` has the
        // four columns' 16 numbers.
        unsafe {
            let weights = vld1q_s16(columns.weights.as_ptr().add(x).cast());
            let wide = |pixels| vreinterpretq_s16_u16(vmovl_u8(pixels));
            let [p, q, r, s] = if columns.halves {
                let [low, high] = [x, x + 2].map(|x| vld1q_u8(row.as_ptr().add(2 * PIXEL * x)));
                [vget_low_u8(low), vget_high_u8(low), vget_low_u8(high), vget_high_u8(high)].map(wide)
            } else {
                let firsts = columns.firsts.as_ptr().add(x);
                [0, 1, 2, 3].map(|i| wide(vld1_u8(row.as_ptr().add(PIXEL * *firsts.add(i) as usize))))
            };
            let first = column::<0, 1>(p, weights);
            let second = column::<2, 3>(q, weights);
            vst1q_s16(
                out.as_mut_ptr().add(PIXEL * x),
                vshrn_high_n_s32::<4>(vshrn_n_s32::<4>(first), second),
            );
            let third = column::<4, 5>(r, weights);
            let fourth = column::<6, 7>(s, weights);
            let at = out.as_mut_ptr().add(PIXEL * (x + 2));
            vst1q_s16(at, vshrn_high_n_s32::<4>(vshrn_n_s32::<4>(third), fourth));
        }
    }
    scalar::across(columns, done, row, &mut out[PIXEL * done..]);
}

/// Two pixels by the weights in lanes `A` and `B`.
#[inline(always)]
fn column<const A: i32, const B: i32>(pixels: int16x8_t, weights: int16x8_t) -> int32x4_t {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let first = vmull_laneq_s16::<A>(vget_low_s16(pixels), weights);
        vmlal_high_laneq_s16::<B>(first, pixels, weights)
    }
}

/// # Safety
/// - Duties of [`RowKernels::down`].
unsafe fn down(rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
    let done = out.len() / 16 * 16;
    for x in (0..done).step_by(16) {
        // SAFETY: both rows and `out` are as long, and 16 of each are left.
        unsafe {
            // SQDMULH doubles; what it cuts off, and the halving after it, is what `>> 16` cuts off.
            let double = |row: &[i16], x, weight| vqdmulhq_n_s16(vld1q_s16(row.as_ptr().add(x)), weight);
            let sum = |x| {
                let first = vshrq_n_s16::<1>(double(rows[0], x, weights[0]));
                vreinterpretq_u16_s16(vsraq_n_s16::<1>(first, double(rows[1], x, weights[1])))
            };
            let bytes = vrshrn_high_n_u16::<2>(vrshrn_n_u16::<2>(sum(x)), sum(x + 8));
            vst1q_u8(out.as_mut_ptr().add(x), vsubq_u8(bytes, vdupq_n_u8(offset)));
        }
    }
    scalar::down(rows.map(|row| &row[done..]), weights, offset, &mut out[done..]);
}
