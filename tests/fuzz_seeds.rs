//! Writes the first inputs of the fuzz targets: `cargo test --test fuzz_seeds -- --ignored`, then
//! `cargo fuzz run checkpoint` (or `model_file`, `jpeg`).

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::models::{self, GHOST};

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

#[test]
#[ignore = "writes into fuzz/corpus, by hand"]
fn seeds() {
    let whole = common::Checkpoint::default();
    seed("checkpoint", "plain", &whole.write());
    seed("checkpoint", "half", &common::Checkpoint { storage: "HalfStorage", ..whole.clone() }.write());
    seed("checkpoint", "list", &common::Checkpoint { names_as_list: true, ..whole }.write());
    seed("model_file", "tiny", &models::tiny_bytes());
    seed("model_file", "mixed", &models::mixed_bytes());
    let ghost = models::graph(GHOST);
    seed("model_file", "ghost", &models::parts(&ghost, &models::fixed_ranges(&ghost)).to_bytes().unwrap());
    for (name, format) in [
        ("jpeg", image::ImageFormat::Jpeg),
        ("png", image::ImageFormat::Png),
        ("bmp", image::ImageFormat::Bmp),
    ] {
        let image = image::RgbImage::from_fn(40, 24, |x, y| image::Rgb([x as u8 * 6, y as u8 * 9, 90]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        seed("jpeg", name, &bytes.into_inner());
    }
}

/// Every target is declared, and does something.
#[test]
fn targets_are_declared() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in ["checkpoint", "model_file", "jpeg"] {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        let text = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(text.contains("fuzz_target!"), "{target}");
    }
}
