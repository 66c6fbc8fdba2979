//! Row kernels in plain loops: what the others must equal, and what they leave their rows' ends to.

use super::{BASE, Columns, FRACTION_BITS, PIXEL, Row, RowKernels, U_TO_B, U_TO_G, V_TO_G, V_TO_R, Y_GAIN};

/// The kernels of this file, which always run.
#[derive(Debug)]
pub(super) struct Scalar;

impl RowKernels for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    unsafe fn colours(&self, row: Row<'_>, out: &mut [u8]) {
        colours(row, out);
    }

    unsafe fn across(&self, columns: &Columns, row: &[u8], out: &mut [i16]) {
        across(columns, 0, row, out);
    }

    unsafe fn down(&self, rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
        down(rows, weights, offset, out);
    }
}

/// One pixel, BT.601 of limited range, rounded to nearest and clipped.
#[inline]
pub fn yuv_to_rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let [y, u, v] = [y, u, v].map(i32::from);
    let sum = |base: i32, from_u: i16, from_v: i16| {
        base + i32::from(Y_GAIN) * y + i32::from(from_u) * u + i32::from(from_v) * v
    };
    [sum(BASE[0], 0, V_TO_R), sum(BASE[1], U_TO_G, V_TO_G), sum(BASE[2], U_TO_B, 0)]
        .map(|sum| (sum >> FRACTION_BITS).clamp(0, 255) as u8)
}

/// [`super::Rows::colours`].
pub(super) fn colours(row: Row<'_>, out: &mut [u8]) {
    match row {
        Row::Yuyv(bytes) => packed(bytes, [0, 1, 2, 3], out),
        Row::Uyvy(bytes) => packed(bytes, [1, 0, 3, 2], out),
        Row::SemiPlanar { luma, chroma } => {
            planar(luma, chroma.chunks_exact(2).map(|uv| (uv[0], uv[1])), out);
        }
        Row::Planar { luma, u, v } => planar(luma, u.iter().copied().zip(v.iter().copied()), out),
        Row::Rgb(bytes) => each(bytes.chunks_exact(3), out, |p| [p[0], p[1], p[2]]),
        Row::Bgr(bytes) => each(bytes.chunks_exact(3), out, |p| [p[2], p[1], p[0]]),
        Row::Grey(bytes) => each(bytes.iter(), out, |&grey| [grey; 3]),
    }
}

fn set(out: &mut [u8], [r, g, b]: [u8; 3]) {
    out.copy_from_slice(&[r, g, b, 0]);
}

fn each<T>(pixels: impl Iterator<Item = T>, out: &mut [u8], rgb: impl Fn(T) -> [u8; 3]) {
    for (out, pixel) in out.chunks_exact_mut(PIXEL).zip(pixels) {
        set(out, rgb(pixel));
    }
}

/// A row of pixel pairs; `order` says where in a pair's 4 bytes Y0, U, Y1 and V lie.
fn packed(pairs: &[u8], order: [usize; 4], out: &mut [u8]) {
    for (pair, out) in pairs.chunks_exact(4).zip(out.chunks_mut(2 * PIXEL)) {
        let [y0, u, y1, v] = order.map(|at| pair[at]);
        // Behind an odd width's last pixel the pair goes on, the row does not.
        for (out, y) in out.chunks_exact_mut(PIXEL).zip([y0, y1]) {
            set(out, yuv_to_rgb(y, u, v));
        }
    }
}

/// A row of Y with a row of chroma, one pair of which serves two pixels.
fn planar(luma: &[u8], chroma: impl Iterator<Item = (u8, u8)>, out: &mut [u8]) {
    for ((luma, out), (u, v)) in luma.chunks(2).zip(out.chunks_mut(2 * PIXEL)).zip(chroma) {
        for (out, &y) in out.chunks_exact_mut(PIXEL).zip(luma) {
            set(out, yuv_to_rgb(y, u, v));
        }
    }
}

/// [`super::Rows::across`] for the columns from `start` on, which `out` begins with.
pub(super) fn across(columns: &Columns, start: usize, row: &[u8], out: &mut [i16]) {
    let columns = columns.firsts[start..].iter().zip(&columns.weights[start..]);
    for (out, (&first, weights)) in out.chunks_exact_mut(PIXEL).zip(columns) {
        let pixels = &row[PIXEL * first as usize..][..2 * PIXEL];
        let [a, b] = weights.map(i32::from);
        for (channel, out) in out.iter_mut().enumerate() {
            let sum = i32::from(pixels[channel]) * a + i32::from(pixels[PIXEL + channel]) * b;
            *out = (sum >> 4) as i16;
        }
    }
}

/// [`super::Rows::down`].
pub(super) fn down(rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
    let high = |value: i16, weight: i16| (i32::from(value) * i32::from(weight)) >> 16;
    for ((out, &a), &b) in out.iter_mut().zip(rows[0]).zip(rows[1]) {
        // At most (255 * 4 + 2) >> 2 = 255: no clamp is needed.
        let value = (high(a, weights[0]) + high(b, weights[1]) + 2) >> 2;
        *out = (value as u8).wrapping_sub(offset);
    }
}
