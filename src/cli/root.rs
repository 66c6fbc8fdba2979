//! Where the machine's own files lie.

use std::path::{Path, PathBuf};

/// `/`, or a folder that a test filled as if it were that.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// This machine's.
    pub fn system() -> Self {
        Self("/".into())
    }

    /// Another folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The file that `absolute` means below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// The text of a small file of the kernel's, without spaces and NULs around it; `None` where it is absent, not
    /// readable or empty.
    pub fn text(&self, absolute: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(absolute)).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// What a folder holds, sorted; nothing where it is absent.
    pub fn entries(&self, absolute: impl AsRef<Path>) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }
}
