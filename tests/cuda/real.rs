//! On a real GPU: `cargo test --release --test cuda -- --ignored --nocapture --test-threads 1`.
//!
//! Without one these tests fail: whoever asks for them wants to know.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ghostlight::engine::Engine;
use ghostlight::engine::cuda::CudaEngine;
use ghostlight::kernels::detect;
use ghostlight::weights::Model;

use crate::common::models;
use crate::{compare, compare_heads, fill};

/// Frames of the leak check.
const FRAMES: usize = 10_000;
/// Pages that a process may grow by over them.
const GROWTH: usize = 2048;

fn coco() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/coco-yolov8n-dynamicconv.safetensors");
    Arc::new(Model::open(&path).unwrap())
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_layers_equal_the_cpu_at_640() {
    compare("coco", &coco(), [640, 640]);
    compare("coco", &coco(), [384, 640]);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_latency() {
    let size = [640, 640];
    let picture = models::picture(1, size);
    let mut cpu = Engine::new(coco(), detect::best(), num_threads()).unwrap();
    let mut gpu = CudaEngine::new(coco()).unwrap();
    cpu.resize(size[0], size[1]).unwrap();
    gpu.resize(size[0], size[1]).unwrap();
    // In turns, so that both see the same machine.
    let (mut times, mut rounds) = ([Vec::new(), Vec::new()], 0);
    while rounds < 200 {
        models::fill(&mut cpu, &picture);
        fill(&mut gpu, &picture);
        for (which, times) in times.iter_mut().enumerate() {
            let started = Instant::now();
            if which == 0 {
                cpu.run().unwrap()
            } else {
                gpu.run(-1.1).unwrap()
            }
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        rounds += 1;
    }
    let [cpu_ms, gpu_ms] = times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[all.len() * 9 / 10])
    });
    println!("{}: {} launches", gpu.gpu(), gpu.launches());
    println!(
        "640x640, median and 90 %: CPU {:.2} {:.2} ms, GPU {:.2} {:.2} ms",
        cpu_ms.0, cpu_ms.1, gpu_ms.0, gpu_ms.1
    );
}

fn num_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pages of this process in memory. A Jetson's GPU uses the same memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_frames_leak_nothing() {
    let size = [320, 320];
    let picture = models::picture(1, size);
    let mut cpu = Engine::new(coco(), detect::best(), 1).unwrap();
    let mut gpu = CudaEngine::new(coco()).unwrap();
    cpu.resize(size[0], size[1]).unwrap();
    models::fill(&mut cpu, &picture);
    cpu.run().unwrap();
    let mut before = 0;
    for frame in 0..FRAMES {
        // Other sizes now and then, as in a folder of pictures.
        if frame % 100 == 99 {
            gpu.resize(256, 320).unwrap();
            fill(&mut gpu, &models::picture(2, [256, 320]));
            gpu.run(-1.1).unwrap();
        }
        gpu.resize(size[0], size[1]).unwrap();
        fill(&mut gpu, &picture);
        gpu.run(-6.0).unwrap();
        if frame % 1000 == 0 {
            println!("frame {frame}: {} rows, {} pages", compare_heads("coco", &cpu, &gpu, -6.0), resident());
        }
        if frame == FRAMES / 10 {
            before = resident();
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} pages more after {FRAMES} frames");
}
