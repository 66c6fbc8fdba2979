//! Exit codes (those of sysexits.h) and the errors that lead to them.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::vision::{DecodeError, SaveError};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// Some inputs failed, the others were done.
    SomeFailed = 1,
    /// Wrong usage.
    Usage = 64,
    /// A broken picture, checkpoint or model.
    Data = 65,
    /// No such input.
    NoInput = 66,
    /// Camera, broker or GPU unavailable.
    Unavailable = 69,
    /// A bug of ours.
    Internal = 70,
    /// Reading or writing failed.
    Io = 74,
    /// Wrong configuration.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What ends a command, or one input of it. `subject` is a file, device or flag.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file holds something else than it should.
    #[error("{subject}: {cause}")]
    Data {
        /// Which file.
        subject: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// An input does not exist.
    #[error("{subject}: {cause}")]
    NoInput {
        /// Which input.
        subject: String,
        /// What was looked for, and what to do.
        cause: String,
    },
    /// A device or service is not there.
    #[error("{subject}: {cause}")]
    Unavailable {
        /// Which one.
        subject: String,
        /// What is missing, and what to do.
        cause: String,
    },
    /// Our own fault.
    #[error("{0}; please report this")]
    Internal(String),
    /// Reading or writing a file failed.
    #[error("{subject}: {cause}")]
    Io {
        /// Which file.
        subject: String,
        /// What the system says.
        cause: String,
    },
    /// The configuration is wrong.
    #[error("{subject}: {cause}")]
    Config {
        /// Which file or key.
        subject: String,
        /// What is wrong, and what to do.
        cause: String,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit code of this error. A reader that closes the pipe is content: that is no failure.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Data { .. } => Exit::Data,
            Self::NoInput { .. } => Exit::NoInput,
            Self::Unavailable { .. } => Exit::Unavailable,
            Self::Internal(_) => Exit::Internal,
            Self::Config { .. } => Exit::Config,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) | Self::Io { .. } => Exit::Io,
        }
    }

    /// What is wrong, without the subject.
    pub fn cause(&self) -> String {
        match self {
            Self::Data { cause, .. }
            | Self::NoInput { cause, .. }
            | Self::Unavailable { cause, .. }
            | Self::Io { cause, .. }
            | Self::Config { cause, .. } => cause.clone(),
            Self::Usage(_) | Self::Internal(_) | Self::Output(_) => self.to_string(),
        }
    }

    /// A file could not be opened or read.
    pub fn reading(path: &Path, error: &io::Error) -> Self {
        let subject = path.display().to_string();
        match error.kind() {
            io::ErrorKind::NotFound => {
                Self::NoInput { subject, cause: "no such file; check the path".into() }
            }
            io::ErrorKind::PermissionDenied => {
                Self::Io { subject, cause: "permission denied; check the file's owner and mode".into() }
            }
            _ => Self::Io { subject, cause: error.to_string() },
        }
    }

    /// A file holds something else than it should; its fault says what and what to do.
    pub fn data(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Data { subject: path.display().to_string(), cause: error.to_string() }
    }

    /// A file could not be written.
    pub fn writing(path: &Path, error: &io::Error) -> Self {
        Self::Io { subject: path.display().to_string(), cause: format!("cannot be written: {error}") }
    }

    /// A picture could not be decoded.
    pub fn picture(path: &Path, error: &DecodeError) -> Self {
        let (subject, cause) = (path.display().to_string(), error.to_string());
        match error {
            DecodeError::Read(error) => Self::reading(path, error),
            DecodeError::Folder
            | DecodeError::Empty
            | DecodeError::FileTooLarge { .. }
            | DecodeError::TooManyPixels { .. }
            | DecodeError::UnknownFormat
            | DecodeError::Jpeg(_)
            | DecodeError::Picture { .. } => Self::Data { subject, cause },
        }
    }

    /// A picture could not be saved.
    pub fn saving(path: &Path, error: &SaveError) -> Self {
        match error {
            SaveError::Write(error) => Self::writing(path, error),
            SaveError::Encode(error) => {
                Self::Io { subject: path.display().to_string(), cause: error.to_string() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(CliError::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Done);
        assert_eq!(CliError::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Io);
    }

    #[test]
    fn files_that_fail_tell_how() {
        let path = Path::new("a.jpg");
        let absent = CliError::reading(path, &io::ErrorKind::NotFound.into());
        assert_eq!(absent.to_string(), "a.jpg: no such file; check the path");
        assert_eq!((absent.exit(), absent.cause().as_str()), (Exit::NoInput, "no such file; check the path"));
        let denied = CliError::picture(path, &DecodeError::Read(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(denied.exit(), Exit::Io);
        assert_eq!(CliError::picture(path, &DecodeError::Empty).exit(), Exit::Data);
    }
}
