//! Flipped bits, numbers that lie, extreme tensors: refused, or harmless.

use std::sync::Arc;

use ghostlight::engine::Engine;
use ghostlight::kernels::detect;
use ghostlight::weights::Model;
use ghostlight::weights::file::key;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::common::container::{Container, join};
use super::common::models;
use super::{GOOD, MIXED, look};

/// The whole int8 file, or the one with layers in f32.
fn whole(mixed: bool) -> &'static [u8] {
    if mixed { &MIXED } else { &GOOD }
}

/// Every number of a JSON value, counted through; the `index`th is set.
fn set_number(value: &mut Value, index: &mut usize, new: &Value) -> bool {
    let mut each = |v: &mut Value| set_number(v, index, new);
    match value {
        Value::Array(list) => list.iter_mut().any(&mut each),
        Value::Object(map) => map.values_mut().any(&mut each),
        Value::Number(_) if *index == 0 => {
            *value = new.clone();
            true
        }
        Value::Number(_) => {
            *index -= 1;
            false
        }
        _ => false,
    }
}

fn numbers(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(numbers).sum(),
        Value::Object(map) => map.values().map(numbers).sum(),
        other => usize::from(other.is_number()),
    }
}

/// Bits of the heads from each kernel that runs here.
fn heads(model: Model) -> Vec<Vec<u32>> {
    let model = Arc::new(model);
    let kernels = detect::all().into_iter().filter_map(|c| c.kernels);
    let run = |kernels| {
        let mut engine = Engine::new(model.clone(), kernels, 1).unwrap();
        models::fill(&mut engine, &models::picture(1, [64, 64]));
        engine.run().unwrap();
        models::head_bits(&engine)
    };
    kernels.map(run).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6), head in any::<bool>(), mixed in any::<bool>()) {
        let mut bytes = whole(mixed).to_vec();
        let len = if head { bytes.len() - Container::read(&bytes).data.len() } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(len)] ^= 1 << bit;
        }
        if let Ok(model) = Model::from_bytes(&bytes) {
            prop_assert_eq!(look(model), Ok(()));
        }
    }

    #[test]
    fn cut_files_never_load(len in any::<prop::sample::Index>()) {
        prop_assert!(Model::from_bytes(&GOOD[..len.index(GOOD.len())]).is_err());
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Model::from_bytes(&bytes).is_err());
        prop_assert!(Model::from_bytes(&join(&bytes, b"")).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Numbers of the graph that lie: refused, or harmless.
    #[test]
    fn lying_graphs_never_panic(
        lies in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![
            json!(0), json!(1), json!(2), json!(3), json!(5), json!(7), json!(8), json!(16), json!(31), json!(32),
            json!(64), json!(255), json!(4096), json!(-1), json!(u64::MAX), json!(1e-40), json!(1e38),
        ])), 1..3),
        mixed in any::<bool>(),
    ) {
        let mut file = Container::read(whole(mixed));
        let mut graph: Value = serde_json::from_str(&file.text(key::GRAPH)).unwrap();
        let numbers = numbers(&graph);
        for (at, number) in lies {
            set_number(&mut graph, &mut at.index(numbers), &number);
        }
        file.set_text(key::GRAPH, &graph.to_string());
        if let Ok(model) = Model::from_bytes(&file.write()) {
            prop_assert_eq!(look(model), Ok(()));
        }
    }

    /// Numbers of the tensors that lie within what a file may hold.
    #[test]
    fn extreme_tensors_give_the_same_on_every_kernel(
        lies in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![
            f32::MAX, f32::MIN_POSITIVE, 1e-45, 1e30, 1e-30, 1.0,
        ])), 1..4),
        mixed in any::<bool>(),
    ) {
        let mut file = Container::read(whole(mixed));
        let names: Vec<String> = file.header.iter().filter(|(_, v)| v["dtype"] == "F32").map(|(k, _)| k.clone()).collect();
        for (at, number) in lies {
            let range = file.range(&names[at.index(names.len())]);
            for value in file.data[range].chunks_exact_mut(4) {
                value.copy_from_slice(&number.to_le_bytes());
            }
        }
        let model = Model::from_bytes(&file.write());
        prop_assert!(model.is_ok(), "{:?}", model.err());
        if let Ok(model) = model {
            let bits = heads(model);
            prop_assert!(bits.iter().all(|b| b == &bits[0]), "kernels differ");
        }
    }
}
