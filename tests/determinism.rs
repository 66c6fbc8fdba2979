//! The same model and picture give the same bits: on every kernel, thread count, plan and architecture.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::models::{self, GHOST, TINY};
use ghostlight::engine::Engine;
use ghostlight::kernels::{Kernels, detect};
use ghostlight::model::graph::Graph;
use ghostlight::quant::report::Noise;
use ghostlight::quant::{Request, convert};
use ghostlight::reference::Reference;
use ghostlight::weights::Model;

/// Name, graph, and FNV-1a over the model file and over the bits of the heads' outputs at 64x64.
fn cases() -> [(&'static str, Graph, [u64; 2]); 4] {
    [
        ("tiny", models::graph(TINY), [0xd376_c34d_aaf7_b1b6, 0xca5b_aee2_f855_83dc]),
        ("ghost", models::graph(GHOST), [0x2849_966a_05e3_0076, 0x3ee0_d6ce_446f_cfc0]),
        (
            "dynamicconv",
            models::builtin("yolov8n-dynamicconv"),
            [0x9b38_d1d1_9bf5_b8c9, 0xf75b_cabb_4151_527d],
        ),
        (
            "c2f-dynamicconv",
            models::builtin("yolov8n-c2f-dynamicconv"),
            [0x4fab_27e3_10ef_452a, 0x8f80_0566_26a2_0494],
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
const CONVERTED: u64 = 0x7c31_cc4b_a879_0832;

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
