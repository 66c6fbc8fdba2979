//! Any bytes as a picture file and as a camera's frame.
#![no_main]

use ghostlight::vision::decode::{decode_bytes, decode_mjpeg};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_bytes(bytes);
    let _ = decode_mjpeg(bytes, &mut Vec::new());
});
