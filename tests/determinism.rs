//! The same model and picture give the same bits: on every kernel, thread count, plan and architecture.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::models::{self, GHOST, TINY};
use ghostlight::detector::{Detector, Fit};
use ghostlight::engine::Engine;
use ghostlight::kernels::{Kernels, detect};
use ghostlight::model::graph::Graph;
use ghostlight::quant::report::Noise;
use ghostlight::quant::{Request, convert};
use ghostlight::reference::Reference;
use ghostlight::vision::{NmsOptions, Pixels, Size, decode_image};
use ghostlight::weights::Model;

/// Name, graph, and FNV-1a over the model file and over the bits of the heads' outputs at 64x64.
fn cases() -> [(&'static str, Graph, [u64; 2]); 4] {
    [
        ("tiny", models::graph(TINY), [0x95ab_db60_79da_3ea8, 0xfb2c_bd78_ea7a_27e5]),
        ("ghost", models::graph(GHOST), [0x8ef7_8c0e_b850_faa5, 0x0881_92bf_5e1d_8f84]),
        (
            "dynamicconv",
            models::builtin("yolov8n-dynamicconv"),
            [0xfb78_6d10_57e7_1d18, 0xe5da_2447_1851_2cfc],
        ),
        (
            "c2f-dynamicconv",
            models::builtin("yolov8n-c2f-dynamicconv"),
            [0x987b_8726_6045_c797, 0xb36a_0803_3130_753b],
        ),
    ]
}

fn bytes(graph: &Graph) -> Vec<u8> {
    models::parts(graph, &models::fixed_ranges(graph)).to_bytes().unwrap()
}

fn model(graph: &Graph) -> Arc<Model> {
    Arc::new(Model::from_bytes(&bytes(graph)).unwrap())
}

fn scalar() -> &'static dyn Kernels {
    detect::by_name("scalar").unwrap()
}

fn run(engine: &mut Engine, size: [usize; 2]) -> Vec<u32> {
    engine.resize(size[0], size[1]).unwrap();
    models::fill(engine, &models::picture(1, size));
    engine.run().unwrap();
    models::head_bits(engine)
}

fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// x86-64 and aarch64 are held to the same numbers. The first changes with the seeded weights and the
/// quantiser; where only the second changes, the engine computes something else than before.
#[test]
fn every_architecture_gives_the_stored_bits() {
    let mut wrong = Vec::new();
    for (name, graph, expected) in cases() {
        let bits = run(&mut Engine::new(model(&graph), scalar(), 1).unwrap(), [64, 64]);
        let distinct: std::collections::HashSet<_> = bits.iter().collect();
        assert!(distinct.len() > bits.len() / 4, "{name}: only {} values differ", distinct.len());
        let found = [fnv(bytes(&graph)), fnv(bits.iter().flat_map(|b| b.to_le_bytes()))];
        if found != expected {
            wrong.push(format!("{name}: {found:#x?}, not {expected:#x?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// FNV-1a over the model that a whole conversion gives, its ladder climbed to the top.
const CONVERTED: u64 = 0xc131_6c8b_d946_6cb9;

#[test]
fn a_conversion_gives_the_stored_bytes_with_any_number_of_threads() {
    let size = [64, 64];
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<_> = (0..8).map(|seed| folder.path().join(format!("{seed}.png"))).collect();
    for (seed, path) in pictures.iter().enumerate() {
        models::save_picture(path, seed, size);
    }
    for threads in [1, 3] {
        let request = Request {
            pictures: &pictures,
            size,
            source_sha256: "of a checkpoint".into(),
            license: "none".into(),
            threads,
            target_drop: Some(0.0),
        };
        let converted = convert(models::graph(GHOST), &request, &mut |_| {}).unwrap();
        let found = fnv(converted.parts.to_bytes().unwrap());
        assert!(found == CONVERTED, "{threads} threads: {found:#x}");
    }
}

/// Of four pictures the last is held out. Where it or the others cannot be read, what is left does for both.
#[test]
fn pictures_that_cannot_be_read_are_made_up_for() {
    let size = [64, 64];
    for broken in [&[3][..], &[0, 1, 2]] {
        let folder = tempfile::tempdir().unwrap();
        let pictures: Vec<_> = (0..4).map(|seed| folder.path().join(format!("{seed}.png"))).collect();
        for (seed, path) in pictures.iter().enumerate() {
            if broken.contains(&seed) {
                std::fs::write(path, "no picture").unwrap();
            } else {
                models::save_picture(path, seed, size);
            }
        }
        let request = Request {
            pictures: &pictures,
            size,
            source_sha256: "of a checkpoint".into(),
            license: "none".into(),
            threads: 1,
            target_drop: None,
        };
        let report = convert(models::graph(TINY), &request, &mut |_| {}).unwrap().report;
        assert_eq!((report.calibration_pictures, report.held_out_pictures), (4 - broken.len(), 1));
        assert!(report.outputs.class_logits_db > 10.0, "{broken:?}: {:?}", report.outputs);
    }
}

#[test]
fn kernels_threads_and_plans_give_the_same_bits() {
    let mut ran = Vec::new();
    for (name, graph, _) in cases() {
        let model = model(&graph);
        for size in [[64, 64], [96, 160], [128, 32]] {
            let expected = run(&mut Engine::new(model.clone(), scalar(), 1).unwrap(), size);
            for kernels in detect::all().into_iter().filter_map(|c| c.kernels) {
                for threads in 1..=3 {
                    let mut engine = Engine::new(model.clone(), kernels, threads).unwrap();
                    let what = format!("{name}, {size:?}, {}, {threads} threads", kernels.name());
                    assert!(run(&mut engine, size) == expected, "{what}");
                    // Another size in between leaves nothing behind.
                    run(&mut engine, [32, 96]);
                    assert!(run(&mut engine, size) == expected, "{what}, again");
                }
                let mut keeping = Engine::keeping_all(model.clone(), kernels, 1).unwrap();
                assert!(run(&mut keeping, size) == expected, "{name}, {size:?}: memory is reused too early");
                ran.push(kernels.name());
            }
        }
    }
    assert!(ran.contains(&detect::best().name()), "only {ran:?}");
}

/// Boxes of cells that have a class above a floor are those of a run that computes all; the others are not computed,
/// which shows by the picture before.
#[test]
fn boxes_are_computed_where_a_class_passes() {
    let size = [96, 160];
    for (name, graph, _) in cases() {
        let model = model(&graph);
        let classes = graph.info.classes.len();
        for kernels in detect::all().into_iter().filter_map(|c| c.kernels) {
            for threads in 1..=3 {
                let mut engine = Engine::keeping_all(model.clone(), kernels, threads).unwrap();
                engine.resize(size[0], size[1]).unwrap();
                let mut run = |seed: usize, floor: Option<f32>| {
                    models::fill(&mut engine, &models::picture(seed, size));
                    match floor {
                        Some(floor) => engine.run_above(floor).unwrap(),
                        None => engine.run().unwrap(),
                    }
                    let levels = 0..engine.levels();
                    let heads = levels.map(|level| engine.head(level));
                    heads
                        .map(|h| (h.boxes.to_vec(), h.classes.to_vec(), h.passing.map(<[u32]>::to_vec)))
                        .collect::<Vec<_>>()
                };
                let (before, all) = (run(1, None), run(2, None));
                let mut logits: Vec<f32> = all.iter().flat_map(|(_, classes, _)| classes.clone()).collect();
                logits.sort_by(f32::total_cmp);
                let mut left_out = Vec::new();
                for floor in [0, 500, 950, 990].map(|share| logits[logits.len() * share / 1000]) {
                    run(1, None);
                    let some = run(2, Some(floor));
                    let what = format!("{name}, {}, {threads} threads, above {floor}", kernels.name());
                    let mut left = 0;
                    for ((some, all), before) in some.iter().zip(&all).zip(&before) {
                        assert!(some.1 == all.1, "{what}: classes");
                        assert_eq!(all.2, None, "{what}: no floor");
                        let passing = some.2.as_deref().unwrap_or_default();
                        assert!(passing.is_sorted(), "{what}");
                        for (at, logits) in all.1.chunks(classes).enumerate() {
                            let row = at * 64..at * 64 + 64;
                            let (some, all, before) =
                                (&some.0[row.clone()], &all.0[row.clone()], &before.0[row]);
                            let passes = logits.iter().any(|&logit| logit > floor);
                            assert!(some == all || !passes, "{what}: {at}");
                            assert_eq!(passing.contains(&(at as u32)), passes, "{what}: {at}");
                            left += usize::from(some == before && some != all);
                        }
                    }
                    left_out.push(left);
                }
                assert_eq!(left_out[0], 0, "{name}: most pass");
                assert!(left_out[3] > 0, "{name}, {}: all are computed, {left_out:?}", kernels.name());
            }
        }
    }
}

#[test]
fn detections_are_those_of_every_box() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut most = 0;
    for name in ["coco", "parking"] {
        let path = folder.join(format!("{name}-yolov8n-dynamicconv.safetensors"));
        let model = Arc::new(Model::open(&path).unwrap());
        let mut detectors = [true, false].map(|every_box| {
            let engine = Engine::new(model.clone(), detect::best(), 2).unwrap();
            let mut detector = Detector::new(engine, Fit::Rectangle(Size { width: 320, height: 320 }));
            detector.compute_every_box(every_box);
            detector
        });
        for picture in ["person", "parking-sunny", "parking-rainy"] {
            let image = decode_image(&folder.join(format!("samples/{picture}.jpg"))).unwrap();
            for confidence in [0.25, 0.001] {
                let options = NmsOptions { confidence, ..NmsOptions::default() };
                let found = detectors
                    .each_mut()
                    .map(|d| d.detect(Pixels::from(&image), &options).unwrap().0.to_vec());
                assert_eq!(found[0], found[1], "{name}, {picture}, above {confidence}");
                most = most.max(found[0].len());
            }
        }
    }
    assert!(most > 20, "at most {most} found");
}

#[test]
fn int8_heads_follow_the_reference() {
    for (name, graph, _) in cases() {
        let size = [64, 64];
        let parts = models::parts(&graph, &models::observed_ranges(&graph, size));
        let model = Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap());
        let mut engine = Engine::new(model, detect::best(), 1).unwrap();
        let rgb = models::picture(1, size);
        models::fill(&mut engine, &rgb);
        engine.run().unwrap();
        let expected = Reference::new(&graph).unwrap().run_u8(&rgb, size[0], size[1]).unwrap();
        let mut noise = Noise::default();
        for (index, level) in expected.levels.iter().enumerate() {
            let head = engine.head(index);
            noise.add(&level.boxes, head.boxes);
            noise.add(&level.classes, head.classes);
        }
        let db = noise.sqnr_db();
        eprintln!("{name}: {db:.1} dB");
        assert!(db >= 20.0, "{name}: {db:.1} dB");
    }
}
