//! After the first picture of a size, detection allocates nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::models::{self, GHOST, TINY};
use ghostlight::detector::{Detector, Fit};
use ghostlight::engine::Engine;
use ghostlight::kernels::detect;
use ghostlight::vision::{NmsOptions, Pixels, Size};
use ghostlight::weights::Model;

/// The system's allocator, counting calls of all threads.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method is the system's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's duty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's duty.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's duty.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of ten pictures after the first, and detections of the last.
fn allocations(
    (yaml, mixed): (&str, bool),
    kernels: &str,
    threads: usize,
    confidence: f32,
) -> (usize, usize) {
    let graph = models::graph(yaml);
    let float = if mixed { models::every_second(&graph) } else { Vec::new() };
    let bytes = models::mixed_parts(&graph, &models::fixed_ranges(&graph), &float).to_bytes().unwrap();
    let model = Arc::new(Model::from_bytes(&bytes).unwrap());
    let engine = Engine::new(model, detect::by_name(kernels).unwrap(), threads).unwrap();
    let mut detector = Detector::new(engine, Fit::Rectangle(Size { width: 96, height: 96 }));
    let rgb = models::picture(1, [90, 150]);
    let picture = Pixels::rgb(Size { width: 150, height: 90 }, &rgb);
    let options = NmsOptions { confidence, ..NmsOptions::default() };
    let found = detector.detect(picture, &options).unwrap().0.len();
    // Other cells of the boxes are computed where fewer pass.
    let fewer = NmsOptions { confidence: 0.9, ..NmsOptions::default() };
    let before = CALLS.load(Ordering::Relaxed);
    for _ in 0..5 {
        detector.detect(picture, &fewer).unwrap();
        assert_eq!(detector.detect(picture, &options).unwrap().0.len(), found);
    }
    let calls = CALLS.load(Ordering::Relaxed) - before;
    drop(detector);
    while kernel_threads() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    (calls, found)
}

/// Threads that compute, those that are just ending included: an engine does not wait for its own to end, and what
/// they tidy up then allocates.
fn kernel_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may be gone between being listed and being asked for its name.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("kernel-")).count()
}

/// One test, so that no other thread of this program allocates meanwhile.
#[test]
fn a_picture_allocates_nothing() {
    let before = CALLS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(CALLS.load(Ordering::Relaxed) > before, "allocations are not counted");
    let mut most = 0;
    for model in [(TINY, false), (GHOST, false), (TINY, true), (GHOST, true)] {
        for kernels in detect::all().into_iter().filter_map(|c| c.kernels) {
            for threads in [1, 2] {
                for confidence in [0.01, 0.9] {
                    let (calls, found) = allocations(model, kernels.name(), threads, confidence);
                    assert_eq!(calls, 0, "{}, {threads} threads, {found} found", kernels.name());
                    most = most.max(found);
                }
            }
        }
    }
    assert!(most > 10, "boxes must be among what is measured, found {most}");
}
