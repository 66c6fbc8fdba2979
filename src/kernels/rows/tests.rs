//! The row kernels of this CPU against the plain loops, bit for bit; bytes around the output stay as they were.

use super::*;
use crate::kernels::tests::Random;

/// Widths around the rounds of 4, 8 and 16 pixels.
const WIDTHS: [usize; 17] = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 15, 16, 17, 31, 33, 48, 75];
/// What lies around the output.
const GUARD: u8 = 0xa5;

#[test]
fn the_fastest_runs_here() {
    let name = Rows::best().name();
    #[cfg(target_arch = "x86_64")]
    assert_eq!(name == "avx2", is_x86_feature_detected!("avx2"));
    #[cfg(target_arch = "aarch64")]
    assert_eq!(name, "neon");
    println!("rows tested: {name}");
}

/// Calls `write` on the middle of a buffer, and gives what it wrote there.
fn guarded<T: Copy + PartialEq>(length: usize, guard: T, write: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut bytes = vec![guard; length + 80];
    write(&mut bytes[40..][..length]);
    assert!(bytes[..40].iter().chain(&bytes[40 + length..]).all(|&byte| byte == guard), "written around");
    bytes[40..][..length].to_vec()
}

/// Rows of each layout, `width` pixels of `bytes` long.
fn layouts(bytes: &[u8], width: usize) -> [Row<'_>; 7] {
    let pairs = width.div_ceil(2);
    let (luma, chroma) = (&bytes[..width], &bytes[width..]);
    [
        Row::Yuyv(&bytes[..4 * pairs]),
        Row::Uyvy(&bytes[..4 * pairs]),
        Row::SemiPlanar { luma, chroma: &chroma[..2 * pairs] },
        Row::Planar { luma, u: &chroma[..pairs], v: &chroma[pairs..2 * pairs] },
        Row::Rgb(&bytes[..3 * width]),
        Row::Bgr(&bytes[..3 * width]),
        Row::Grey(&bytes[..width]),
    ]
}

#[test]
fn colours_equal_scalar() {
    let mut random = Random::new(3);
    for width in WIDTHS {
        for extreme in [false, true] {
            let mut bytes = random.bytes(4 * width + 8);
            if extreme {
                bytes.iter_mut().for_each(|byte| *byte = if *byte < 128 { 0 } else { 255 });
            }
            for (layout, row) in layouts(&bytes, width).into_iter().enumerate() {
                let [have, want] = [Rows::best(), Rows::scalar()]
                    .map(|rows| guarded(PIXEL * width, GUARD, |out| rows.colours(row, out)));
                assert_eq!(have, want, "layout {layout}, {width} pixels");
            }
        }
    }
}

#[test]
fn every_colour_equals_scalar() {
    // Each U and V with Y around the ends of its range, where clipping begins.
    let lumas = [0, 1, 15, 16, 17, 60, 126, 127, 128, 180, 234, 235, 236, 254, 255, 90];
    let mut bytes = vec![0; 4 * 8];
    for u in 0..=255 {
        for v in 0..=255 {
            for (pair, luma) in bytes.chunks_exact_mut(4).zip(lumas.chunks_exact(2)) {
                pair.copy_from_slice(&[luma[0], u, luma[1], v]);
            }
            let mut out = [0; 4 * 16];
            Rows::best().colours(Row::Yuyv(&bytes), &mut out);
            for (pixel, y) in out.chunks_exact(PIXEL).zip(lumas) {
                let [r, g, b] = yuv_to_rgb(y, u, v);
                assert_eq!(pixel, [r, g, b, 0], "Y {y} U {u} V {v}");
            }
        }
    }
}

#[test]
fn resizing_equals_scalar() {
    let mut random = Random::new(5);
    for width in WIDTHS {
        for scale in 1..4 {
            let pixels = scale * width + 1;
            let row = random.bytes(PIXEL * pixels);
            let mut columns = Columns::default();
            columns.fill((0..width).map(|x| {
                let part = random.within(0, 2048) as i16;
                // Doubled, the shortcut for halves; else any order.
                let first = if scale == 2 { 2 * x as i64 } else { random.within(0, pixels as i64 - 2) };
                (first as u32, [2048 - part, part])
            }));
            let [have, want] = [Rows::best(), Rows::scalar()]
                .map(|rows| guarded(PIXEL * width, -7, |out| rows.across(&columns, &row, out)));
            assert_eq!(have, want, "{width} columns");

            let other: Vec<i16> = have.iter().map(|_| random.within(0, 32640) as i16).collect();
            for part in [0, 1, 1024, 2047, 2048, random.within(0, 2048) as i16] {
                for offset in [0, 128] {
                    let [have, want] = [Rows::best(), Rows::scalar()].map(|rows| {
                        guarded(PIXEL * width, GUARD, |out| {
                            rows.down([&have, &other], [2048 - part, part], offset, out);
                        })
                    });
                    assert_eq!(have, want, "{width} columns, weight {part}");
                }
            }
        }
    }
}

#[test]
fn white_stays_white() {
    let mut columns = Columns::default();
    columns.fill([(0, [1024, 1024]), (0, [2048, 0]), (0, [1, 2047]), (0, [682, 1366])].into_iter());
    let mut strip = [0; 16];
    Rows::best().across(&columns, &[255; 8], &mut strip);
    assert_eq!(strip, [32640; 16]);
    let mut out = [0; 16];
    Rows::best().down([&strip, &strip], [2048, 0], 0, &mut out);
    assert_eq!(out, [255; 16]);
}

/// Whether it panics.
fn refused(call: impl FnOnce() + std::panic::UnwindSafe) -> bool {
    std::panic::catch_unwind(call).is_err()
}

#[test]
fn what_is_too_short_is_refused() {
    let bytes = [0; 64];
    for row in layouts(&bytes, 5) {
        assert!(!refused(|| Rows::best().colours(row, &mut [0; 20])));
        // An odd width's last pair has room for a sixth pixel in the packed layouts, not for a seventh.
        assert!(refused(|| Rows::best().colours(row, &mut [0; 28])));
        assert!(refused(|| Rows::best().colours(row, &mut [0; 19])));
    }
    let columns = || {
        let mut columns = Columns::default();
        columns.fill([(3, [2048, 0])].into_iter());
        columns
    };
    assert!(!refused(|| Rows::best().across(&columns(), &[0; 20], &mut [0; 4])));
    assert!(refused(|| Rows::best().across(&columns(), &[0; 19], &mut [0; 4])));
    assert!(refused(|| Rows::best().across(&columns(), &[0; 20], &mut [0; 8])));
    assert!(refused(|| Rows::best().down([&[0; 8], &[0; 7]], [2048, 0], 0, &mut [0; 8])));
}
