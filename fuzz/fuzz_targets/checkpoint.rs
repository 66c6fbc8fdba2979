//! Any bytes as a PyTorch checkpoint.
#![no_main]

use std::io::Cursor;

use ghostlight::model::blocks::BuildOptions;
use ghostlight::model::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = checkpoint::read(Cursor::new(bytes), BuildOptions::default());
});
