//! The program's shape: modules depend downward only, and files stay readable in one sitting.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test may stop at what it did not expect

#[path = "support/sources.rs"]
mod sources;

use std::fs;
use std::path::Path;

use sources::source_files;

/// Modules from the bottom up; a module may use those of a lower level, and itself.
const LEVELS: &[&[&str]] = &[
    &["math", "kernels", "frame", "nearest", "backoff"],
    &["model"],
    &["weights", "vision"],
    &["engine", "reference", "sink", "source"],
    &["events", "metrics"],
    &["detector", "eval"],
    &["quant", "config"],
    &["daemon"],
    &["cli"],
];

/// Lines after which a file is too long to be read in one sitting.
const LINES: usize = 550;

/// The top-level module of a file: `src/engine/place.rs` is `engine`.
fn module(path: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|l| l.contains(&module))
}

/// Modules named behind `crate::` in code, not in comments.
fn uses(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|l| !l.starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let list = rest.strip_prefix('{').and_then(|r| r.split('}').next());
            let heads = list.map_or_else(|| vec![rest], |l| l.split(',').collect());
            names.extend(heads.iter().map(|h| {
                h.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            }));
        }
    }
    names
}

#[test]
fn modules_depend_downward_only() {
    let mut checked = 0;
    for path in source_files() {
        let own = module(&path);
        if own == "main" || own == "lib" {
            continue;
        }
        let own_level = level(&own).unwrap_or_else(|| panic!("{own} has no level: add it to LEVELS"));
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            let Some(used_level) = level(&used) else { continue };
            assert!(
                used == own || used_level < own_level,
                "{}: `{own}` must not use `{used}`",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} uses found: the test reads nothing");
}

#[test]
fn candle_stays_in_the_reference() {
    for path in source_files() {
        let text = fs::read_to_string(&path).unwrap();
        let allowed = ["reference", "quant"].contains(&module(&path).as_str());
        assert!(allowed || !text.contains("candle_"), "{}", path.display());
    }
}

#[test]
fn files_are_read_in_one_sitting() {
    for path in source_files() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES, "{} has {lines} lines: split it", path.display());
    }
}

#[test]
fn unsafe_stays_where_it_must() {
    for path in source_files() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe "));
        let place = module(&path);
        assert!(
            !code
                || place == "kernels"
                || place == "source"
                || path.ends_with("weights/file.rs")
                || path.parent().unwrap().ends_with("engine/cuda/driver"),
            "{path:?}"
        );
    }
}

/// `rust-version` is a promise: no crate in the tree asks for more. (clippy's `incompatible_msrv` holds our own code to it.)
#[test]
fn no_dependency_wants_a_newer_rust() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        // Those of other systems need not be there.
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .output()
        .unwrap();
    let Ok(metadata) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let version = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let packages = metadata["packages"].as_array().unwrap();
    let newer: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let wanted = package["rust_version"].as_str()?;
            (version(wanted) > [version(promised), vec![0]].concat())
                .then(|| format!("{} {wanted}", package["name"].as_str().unwrap_or("?")))
        })
        .collect();
    assert!(newer.is_empty(), "Rust {promised} is promised, but: {newer:?}");
    assert!(packages.len() > 100, "{}", packages.len());
}
