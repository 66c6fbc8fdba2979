//! The kernels' machine code on disk: compiling takes seconds, reading it a millisecond.
//!
//! A file is named by all that its content depends on (GPU, driver, source, options) and holds its own hash: a broken
//! or foreign one is made anew.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::driver::GpuInfo;
use crate::weights::write::write_atomically;

/// First bytes of a file.
const MAGIC: &[u8] = b"ghostlight-cuda\n";
/// Bytes of a hash.
const HASH: usize = 32;
/// Longest file that is read.
const LONGEST: u64 = 64 << 20;

/// The folder: systemd's `CacheDirectory=`, else the user's.
pub fn folder() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folders) = var("CACHE_DIRECTORY") {
        return std::env::split_paths(&folders).next();
    }
    let user = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")))?;
    Some(user.join("ghostlight"))
}

/// The file for a GPU and a source with its options.
pub fn file(folder: &Path, gpu: &GpuInfo, source: &str, options: &[&str]) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n{}\n{}\n", gpu.name, gpu.capability, gpu.driver, options.join(" ")));
    hash.update(source);
    let name: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("cuda-sm{}-{name}.bin", gpu.capability))
}

/// The machine code in a file; none where it is not there, or not whole.
pub fn read(file: &Path) -> Option<Vec<u8>> {
    if std::fs::metadata(file).ok().is_none_or(|meta| !meta.is_file() || meta.len() > LONGEST) {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let (hash, code) = bytes.strip_prefix(MAGIC)?.split_at_checked(HASH)?;
    (!code.is_empty() && Sha256::digest(code).as_slice() == hash).then(|| code.to_vec())
}

/// Writes machine code to a file, whole or not at all.
///
/// # Errors
/// What the system says; the kernels then serve this process alone.
pub fn write(file: &Path, code: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    write_atomically(file, &[MAGIC, Sha256::digest(code).as_slice(), code].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn gpu() -> GpuInfo {
        GpuInfo { name: "Orin".into(), capability: 87, driver: 12_020 }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder.path().join("deeper"), &gpu(), "source", &["-x"]);
        assert_eq!(read(&path), None);
        write(&path, b"code").unwrap();
        assert_eq!(read(&path).unwrap(), b"code");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no sibling stays");
    }

    #[test]
    fn broken_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        write(&path, b"code").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for broken in [&whole[..0], &whole[..10], &whole[..whole.len() - 1], &whole[..48], &whole[1..]] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(read(&path), None, "{} bytes", broken.len());
        }
        let mut bent = whole.clone();
        *bent.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bent).unwrap();
        assert_eq!(read(&path), None);
        assert_eq!(read(folder.path()), None, "a folder");
    }

    #[test]
    fn names_differ_with_what_the_code_depends_on() {
        let folder = Path::new("/cache");
        let names = [
            file(folder, &gpu(), "a", &["-x"]),
            file(folder, &gpu(), "b", &["-x"]),
            file(folder, &gpu(), "a", &["-y"]),
            file(folder, &GpuInfo { driver: 12_060, ..gpu() }, "a", &["-x"]),
            file(folder, &GpuInfo { name: "Xavier".into(), ..gpu() }, "a", &["-x"]),
            file(folder, &GpuInfo { capability: 72, ..gpu() }, "a", &["-x"]),
        ];
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{}", name.display());
        }
    }
}
