//! Any bytes as a model file; one that loads must run.
#![no_main]

use std::sync::Arc;

use ghostlight::engine::Engine;
use ghostlight::kernels::detect;
use ghostlight::weights::Model;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    if model.info.input_size.iter().any(|&side| side > 128) {
        return;
    }
    if let Ok(mut engine) = Engine::new(Arc::new(model), detect::best(), 1) {
        engine.run().expect("a checked model runs");
    }
});
