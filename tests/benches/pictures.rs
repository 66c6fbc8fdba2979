//! What lies before the network: frames to its input of 640x640, and JPEG to pixels; one thread.
//!
//! `cargo bench --bench pictures`. `cargo test` runs each once.

#![allow(missing_docs, clippy::unwrap_used)] // a bench may stop at what it did not expect

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ghostlight::frame::{Frame, PixelFormat};
use ghostlight::vision::pixels::{frame_bytes, row_bytes};
use ghostlight::vision::{Letterbox, Pixels, Size, decode_mjpeg, encode_jpeg, to_rgb};
use image::{Rgb, RgbImage};

const INPUT: Size = Size { width: 640, height: 640 };
const HD: Size = Size { width: 1280, height: 720 };

/// A frame of noise.
fn frame(format: PixelFormat, size: Size) -> Frame {
    let stride = row_bytes(format, size.width);
    let bytes = (0..frame_bytes(format, size, stride)).map(|i| (i * 37 % 251) as u8).collect();
    Frame { format, width: size.width, height: size.height, stride, bytes, ..Frame::default() }
}

fn preprocess(c: &mut Criterion) {
    let mut group = c.benchmark_group("preprocess");
    for (width, height) in [(1280, 720), (640, 480), (1920, 1080), (1296, 972), (320, 240)] {
        for format in PixelFormat::RAW {
            let frame = frame(format, Size { width, height });
            let mut letterbox = Letterbox::new();
            let mut out = vec![0; INPUT.width * INPUT.height * 4];
            group.bench_function(BenchmarkId::new(format.to_string(), format!("{width}x{height}")), |b| {
                b.iter(|| letterbox.run(Pixels::from(black_box(&frame)), INPUT, 0, &mut out).unwrap());
            });
        }
    }
}

/// What a snapshot takes before it is drawn on.
fn rgb(c: &mut Criterion) {
    let mut group = c.benchmark_group("rgb");
    for format in [PixelFormat::Yuyv, PixelFormat::Nv12] {
        let frame = frame(format, HD);
        let mut rgb = Vec::new();
        group.bench_function(BenchmarkId::new(format.to_string(), HD), |b| {
            b.iter(|| to_rgb(Pixels::from(black_box(&frame)), &mut rgb).unwrap());
        });
    }
}

/// A picture with edges and gradients, as large a JPEG as a camera's.
fn jpeg(c: &mut Criterion) {
    let picture = RgbImage::from_fn(HD.width as u32, HD.height as u32, |x, y| {
        let edge = if (x / 40 + y / 30) % 2 == 0 { 60 } else { 0 };
        let grain = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(2_246_822_519)) >> 29;
        Rgb([(x / 8 + edge + grain) as u8, (y / 5 + edge) as u8, ((x + y) / 12 + grain) as u8])
    });
    let bytes = encode_jpeg(&picture).unwrap();
    let mut rgb = Vec::new();
    c.bench_function(&format!("decode/MJPEG/{HD}"), |b| {
        b.iter(|| decode_mjpeg(black_box(&bytes), &mut rgb).unwrap());
    });
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(50)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = preprocess, rgb, jpeg }
criterion_main!(benches);
