//! From a camera's rows to the network's input, row by row: colours to RGB, then linear resizing.
//!
//! A row goes through buffers that stay in L1: [`Rows::colours`] makes pixels `r, g, b, 0` of it,
//! [`Rows::across`] resizes these horizontally, and [`Rows::down`] blends two such rows into one of the
//! input. One table for each architecture, apart from that of the convolutions: there is only one way that is
//! fast, and all ways give the same bytes.
//!
//! YUV is BT.601 of limited range (Y 16..=235, U and V 16..=240). The resizing is OpenCV's `INTER_LINEAR` on
//! bytes: weights of 11 bits, horizontal sums cut to 15 bits, then the vertical sum.
//!
//! Test: `kernels::rows::tests`, `vision::letterbox::tests`.

#[cfg(target_arch = "aarch64")]
mod arm_neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;

#[cfg(test)]
mod tests;

pub use scalar::yuv_to_rgb;

/// Bytes of one pixel `r, g, b, 0`.
pub const PIXEL: usize = 4;
/// Fraction bits of a weight: the two of a column or a row add up to 2048.
pub const WEIGHT_BITS: u32 = 11;

/// Fraction bits of the factors below: few enough that each factor and each sample fits an i16.
const FRACTION_BITS: u32 = 13;
/// What Y counts in R, G and B: `255 / 219`.
const Y_GAIN: i16 = 9539;
/// What V counts in R: `255 / 112 * 0.701`.
const V_TO_R: i16 = 13075;
/// What U counts in G: `-255 / 112 * 0.886 * 0.114 / 0.587`.
const U_TO_G: i16 = -3209;
/// What V counts in G: `-255 / 112 * 0.701 * 0.299 / 0.587`.
const V_TO_G: i16 = -6660;
/// What U counts in B: `255 / 112 * 0.886`.
const U_TO_B: i16 = 16525;

/// What is added to R, G and B's products of Y, U and V: half of the last place, Y's black at 16, and U's and
/// V's grey at 128.
const BASE: [i32; 3] = {
    let luma = (1 << (FRACTION_BITS - 1)) - 16 * Y_GAIN as i32;
    [luma - 128 * V_TO_R as i32, luma - 128 * (U_TO_G as i32 + V_TO_G as i32), luma - 128 * U_TO_B as i32]
};

/// One row of a picture, as a camera lays it out.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    /// Y0, U, Y1, V of each pair of pixels; also behind an odd width's last pixel.
    Yuyv(&'a [u8]),
    /// U, Y0, V, Y1 of each pair.
    Uyvy(&'a [u8]),
    /// Y of each pixel; U and V of each pair.
    SemiPlanar {
        /// Y.
        luma: &'a [u8],
        /// U, V.
        chroma: &'a [u8],
    },
    /// Y of each pixel; U of each pair; V of each pair.
    Planar {
        /// Y.
        luma: &'a [u8],
        /// U.
        u: &'a [u8],
        /// V.
        v: &'a [u8],
    },
    /// R, G, B.
    Rgb(&'a [u8]),
    /// B, G, R.
    Bgr(&'a [u8]),
    /// One sample a pixel.
    Grey(&'a [u8]),
}

impl Row<'_> {
    /// Whether it has `pixels` pixels, or more.
    fn reaches(&self, pixels: usize) -> bool {
        let pairs = pixels.div_ceil(2);
        match self {
            Row::Yuyv(bytes) | Row::Uyvy(bytes) => bytes.len() >= 4 * pairs,
            Row::SemiPlanar { luma, chroma } => luma.len() >= pixels && chroma.len() >= 2 * pairs,
            Row::Planar { luma, u, v } => luma.len() >= pixels && u.len() >= pairs && v.len() >= pairs,
            Row::Rgb(bytes) | Row::Bgr(bytes) => bytes.len() >= 3 * pixels,
            Row::Grey(bytes) => bytes.len() >= pixels,
        }
    }

    /// What follows its first `pixels` pixels, an even number of them that it has.
    fn skip(self, pixels: usize) -> Self {
        let pairs = pixels / 2;
        match self {
            Row::Yuyv(bytes) => Row::Yuyv(&bytes[4 * pairs..]),
            Row::Uyvy(bytes) => Row::Uyvy(&bytes[4 * pairs..]),
            Row::SemiPlanar { luma, chroma } => {
                Row::SemiPlanar { luma: &luma[pixels..], chroma: &chroma[2 * pairs..] }
            }
            Row::Planar { luma, u, v } => {
                Row::Planar { luma: &luma[pixels..], u: &u[pairs..], v: &v[pairs..] }
            }
            Row::Rgb(bytes) => Row::Rgb(&bytes[3 * pixels..]),
            Row::Bgr(bytes) => Row::Bgr(&bytes[3 * pixels..]),
            Row::Grey(bytes) => Row::Grey(&bytes[pixels..]),
        }
    }
}

/// Where each column of a resized row comes from: two neighbouring pixels, and their weights.
#[derive(Debug, Default)]
pub struct Columns {
    firsts: Vec<u32>,
    weights: Vec<[i16; 2]>,
    /// Pixels that a row must have: one more than the largest of `firsts` asks for, at the least.
    reach: usize,
    /// Whether column `x` begins with pixel `2 x`, as where a row is halved.
    halves: bool,
}

impl Columns {
    /// Takes new columns: the first pixel of two, and weights in `0..=2048` that add up to 2048.
    pub fn fill(&mut self, columns: impl Iterator<Item = (u32, [i16; 2])>) {
        self.firsts.clear();
        self.weights.clear();
        for (first, weights) in columns {
            self.firsts.push(first);
            self.weights.push(weights);
        }
        self.reach = self.firsts.iter().max().map_or(0, |&first| first as usize + 2);
        self.halves = self.firsts.iter().enumerate().all(|(x, &first)| first as usize == 2 * x);
    }

    /// Columns of the resized row.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Pixels that a row must have, the second one of the last column included.
    pub fn reach(&self) -> usize {
        self.reach
    }
}

/// What an instruction set owes. Values exist only where the CPU can run them.
trait RowKernels: Send + Sync + std::fmt::Debug {
    /// Its name.
    fn name(&self) -> &'static str;

    /// [`Rows::colours`].
    ///
    /// # Safety
    /// - `out` is of whole pixels, and `row` reaches as many.
    unsafe fn colours(&self, row: Row<'_>, out: &mut [u8]);

    /// [`Rows::across`].
    ///
    /// # Safety
    /// - `row` has `columns.reach()` pixels, `out` `columns.len()`.
    unsafe fn across(&self, columns: &Columns, row: &[u8], out: &mut [i16]);

    /// [`Rows::down`].
    ///
    /// # Safety
    /// - `rows` and `out` are of one length.
    unsafe fn down(&self, rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]);
}

/// The row kernels of one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Rows(&'static dyn RowKernels);

impl Default for Rows {
    fn default() -> Self {
        Self::best()
    }
}

impl Rows {
    /// The best for this CPU.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Self(&x86_avx2::Avx2);
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self(&arm_neon::Neon);
        }
        Self::scalar()
    }

    /// Plain loops.
    pub fn scalar() -> Self {
        Self(&scalar::Scalar)
    }

    /// Name of the instruction set.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Writes the first pixels of a row as `r, g, b, 0`, as many as fill `out`. Chroma is repeated, not
    /// interpolated.
    ///
    /// # Panics
    /// Where `out` is not of whole pixels, or the row is shorter.
    pub fn colours(self, row: Row<'_>, out: &mut [u8]) {
        assert!(out.len().is_multiple_of(PIXEL) && row.reaches(out.len() / PIXEL), "a row that is too short");
        // SAFETY: just checked.
        unsafe { self.0.colours(row, out) }
    }

    /// Resizes a row of pixels `r, g, b, 0`: `out[x] = (row[first] * weights[0] + row[first + 1] * weights[1]) >> 4`
    /// for each of the four bytes.
    ///
    /// # Panics
    /// Where `row` has less than [`Columns::reach`] pixels, or `out` other than [`Columns::len`].
    pub fn across(self, columns: &Columns, row: &[u8], out: &mut [i16]) {
        assert!(row.len() >= PIXEL * columns.reach && out.len() == PIXEL * columns.len(), "other columns");
        // SAFETY: just checked.
        unsafe { self.0.across(columns, row, out) }
    }

    /// Blends two resized rows: `((a * weights[0] >> 16) + (b * weights[1] >> 16) + 2) >> 2`, less `offset`
    /// (wrapping).
    ///
    /// # Panics
    /// Where lengths differ.
    pub fn down(self, rows: [&[i16]; 2], weights: [i16; 2], offset: u8, out: &mut [u8]) {
        assert!(rows.iter().all(|row| row.len() == out.len()), "rows of other lengths");
        // SAFETY: just checked.
        unsafe { self.0.down(rows, weights, offset, out) }
    }
}
