//! What is wrong with a configuration, and where each value came from.

use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nobody gave it.
    Default,
    /// A line of the file.
    File {
        /// Its path as given.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// A flag, as `--conf`.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
}

impl Place {
    /// The line in the file; 0 for what is not in it.
    pub fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            Self::Default | Self::Flag(_) | Self::Environment(_) => 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// One fault of a configuration: where, which key, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub place: Place,
    /// `[section] key`; empty for a fault of the whole file.
    pub key: String,
    /// What is wrong, and what to do.
    pub cause: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.key.as_str()) {
            (Place::Default, key) => write!(f, "configuration: {key}: {}", self.cause),
            (place, "") => write!(f, "{place}: {}", self.cause),
            (place, key) => write!(f, "{place}: {key}: {}", self.cause),
        }
    }
}
