//! The program with CUDA's libraries missing, broken, old or unwilling: what it says, and that it goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shim::{Shim, shim};

const DRIVERS: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
const COMPILERS: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];

/// A folder for the loader to look into first, and one for the cache.
struct Machine {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Machine {
    /// One whose libraries are no libraries.
    fn bare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in DRIVERS.iter().chain(&COMPILERS) {
            std::fs::write(folder.path().join(name), "not a library").unwrap();
        }
        Self { folder, settings: Vec::new() }
    }

    /// One with these libraries of the shim.
    fn with(shim: &Shim, names: &[&str]) -> Self {
        let machine = Self::bare();
        for name in names {
            std::fs::copy(shim.folder.join(name), machine.folder.path().join(name)).unwrap();
        }
        machine
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// Standard output, standard error and exit code of `detect` on a picture.
    fn detect(&self, engine: &str) -> (String, String, i32) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostlight"));
        for name in ["GHOSTLIGHT_MODEL", "GHOSTLIGHT_CONFIG", "RUST_LOG", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("LD_LIBRARY_PATH", self.folder.path()).env("CACHE_DIRECTORY", self.cache());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.args(["-v", "detect", "--format", "jsonl", "--imgsz", "192", "--engine", engine]);
        command.arg("--model").arg(root.join("models/parking-yolov8n-dynamicconv.safetensors"));
        let output = command.arg(root.join("models/samples/parking-sunny.jpg")).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().expect("it exits"))
    }

    /// What `--engine cuda` and `auto` say of why there is no GPU; one line each.
    fn refuses(&self, words: &[&str]) {
        let (out, err, code) = self.detect("cuda");
        assert_eq!((out.as_str(), code), ("", 69), "{err}");
        let lines: Vec<&str> = err.lines().filter(|line| line.contains("--engine cuda")).collect();
        assert_eq!(lines.len(), 1, "{err}");
        let (out, err, code) = self.detect("auto");
        assert_eq!((found(&out).len() > 10, code), (true, 0), "{err}");
        let stays: Vec<&str> = err.lines().filter(|line| line.contains("stays on the CPU")).collect();
        assert_eq!(stays.len(), 1, "{err}");
        for word in words {
            assert!(
                lines[0].contains(word) && stays[0].contains(word),
                "no '{word}' in\n{}\n{}",
                lines[0],
                stays[0]
            );
        }
    }
}

/// A line's detections, as text.
fn found(line: &str) -> String {
    let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return String::new() };
    line["detections"].to_string()
}

#[test]
fn each_missing_piece_has_its_message() {
    Machine::bare().refuses(&["no NVIDIA driver", "libcuda.so.1"]);
    let Some((shim, _turn)) = shim() else { return };
    let both = || Machine::with(shim, &["libcuda.so.1", "libnvrtc.so.12"]);
    both().set("FAKE_CUDA_VERSION", "10020").refuses(&["too old", "CUDA 10.2", "11.4"]);
    both().set("FAKE_CUDA_DEVICES", "0").refuses(&["finds no GPU"]);
    both().set("FAKE_CUDA_DEVICES", "-1").refuses(&["finds no GPU", "CUDA_ERROR_NO_DEVICE"]);
    both().set("FAKE_CUDA_CAPABILITY", "53").refuses(&["Shim", "5.3", "6.1"]);
    both().set("FAKE_CUDA_MEMORY", "100000").refuses(&["memory", "weights"]);
    both().set("FAKE_CUDA_MEMORY", "5500000").refuses(&["memory left for"]);
    both().set("FAKE_NVRTC_FAULT", "error: bad\nword").refuses(&["sm_87", "12.6", "error: bad; word"]);
    Machine::with(shim, &["libcuda.so.1"]).refuses(&["NVRTC is not there", "libnvrtc.so.11.2"]);
    // A library of that name that is something else.
    let machine = both();
    let nvrtc = std::fs::read(machine.folder.path().join("libnvrtc.so.12")).unwrap();
    let bent = String::from_utf8_lossy(&nvrtc).contains("cuGraphLaunch");
    assert!(bent, "the shim has all functions in one file");
    let other: Vec<u8> = replace(&nvrtc, b"cuGraphLaunch", b"cuGraphLaunhc");
    std::fs::write(machine.folder.path().join("libcuda.so.1"), other).unwrap();
    machine.refuses(&["libcuda.so.1 has no cuGraphLaunch"]);
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

#[test]
fn the_program_finds_the_same_on_both() {
    let Some((shim, _turn)) = shim() else { return };
    let machine = Machine::with(shim, &["libcuda.so.1", "libnvrtc.so.12"]);
    let (cpu, _, _) = machine.detect("cpu");
    // Dot products, and two kinds of tensor cores.
    for (engine, capability) in [("auto", "61"), ("cuda", "72"), ("cuda", "87")] {
        let machine = Machine::with(shim, &["libcuda.so.1", "libnvrtc.so.12"]);
        let (gpu, err, code) = machine.set("FAKE_CUDA_CAPABILITY", capability).detect(engine);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains(&format!("Shim (sm_{capability}, driver for CUDA 12.6)")), "{err}");
        assert!(found(&cpu).len() > 100, "{cpu}");
        assert_eq!(found(&gpu), found(&cpu), "{engine}");
    }
}

#[test]
fn kernels_are_compiled_once() {
    let Some((shim, _turn)) = shim() else { return };
    let machine = Machine::with(shim, &["libcuda.so.1", "libnvrtc.so.12"]);
    let log = machine.folder.path().join("compilations");
    let machine = machine.set("FAKE_NVRTC_COUNT", log.to_str().unwrap());
    let compilations = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let start = |machine: &Machine, wanted: usize, what: &str| {
        let (_, err, code) = machine.detect("cuda");
        assert_eq!((code, compilations()), (0, wanted), "{what}: {err}");
    };
    start(&machine, 1, "the first start");
    start(&machine, 1, "the second start");
    let cache = machine.cache();
    let files = || std::fs::read_dir(&cache).unwrap().map(|f| f.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let whole = std::fs::read(file).unwrap();
    std::fs::write(file, &whole[..whole.len() / 2]).unwrap();
    start(&machine, 2, "a broken file");
    assert!(std::fs::read(file).unwrap() == whole, "it is whole again");
    let machine = machine.set("FAKE_CUDA_VERSION", "12070");
    start(&machine, 3, "another driver");
    assert_eq!(files().len(), 2);
    // Without a compiler, what is cached serves.
    for name in COMPILERS {
        std::fs::write(machine.folder.path().join(name), "not a library").unwrap();
    }
    start(&machine, 3, "no compiler any more");
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_not_needed() {
    let Some((shim, _turn)) = shim() else { return };
    let machine = Machine::with(shim, &["libcuda.so.1", "libnvrtc.so.12"]);
    // A file where the folder should be.
    std::fs::write(machine.cache(), "").unwrap();
    let (out, err, code) = machine.detect("cuda");
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("kernels are not kept for the next start") && found(&out).len() > 10, "{err}");
}
