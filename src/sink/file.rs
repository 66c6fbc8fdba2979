//! Lines to a file or to standard output: each whole or absent, whatever the disk does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between attempts while nothing can be written.
const RETRY: Duration = Duration::from_secs(1);
/// Longest end of a file that is searched for the last line's beginning.
const TAIL: u64 = 1 << 20;
/// How a line of ours begins.
const BEGINNING: &[u8] = b"{\"schema\":\"ghostlight.";

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Whole,
    /// It is lost; the cause is logged once, and later lines are tried again.
    Lost,
    /// The reader went away: no line will ever be read.
    Closed,
}

/// A file of lines.
#[derive(Debug)]
pub struct LineFile {
    /// `None` for standard output.
    path: Option<PathBuf>,
    file: Option<File>,
    /// Bytes of an unfinished line that could not be taken back lie at the end.
    torn: bool,
    retry_at: Option<Instant>,
    lost: u64,
}

impl LineFile {
    /// Opens a file for lines at its end, or standard output for `-`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = Some(path.to_path_buf()).filter(|path| path != Path::new("-"));
        let mut lines = Self { path, file: None, torn: false, retry_at: None, lost: 0 };
        lines.open_file()?;
        Ok(lines)
    }

    fn open_file(&mut self) -> io::Result<()> {
        self.torn = false;
        self.file = Some(match &self.path {
            // Not through `io::stdout`: its lock may be held, and its buffer would keep half lines.
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                if file.metadata()?.is_file() {
                    repair(path, &file)?;
                }
                file
            }
        });
        Ok(())
    }

    /// Opens the file anew, after it was moved away. Standard output stays.
    pub fn reopen(&mut self) {
        if self.path.is_none() {
            return;
        }
        self.file = None;
        self.retry_at = None;
        // At once, for whoever waits for the file; a fault comes again with the next line, and is told then.
        let _ = self.open_file();
    }

    /// Writes a line with its end.
    pub fn write(&mut self, line: &[u8]) -> Written {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            self.lost += 1;
            return Written::Lost;
        }
        match self.try_write(line) {
            Ok(()) => {
                self.retry_at = None;
                if self.lost > 0 {
                    log::info!("{}: written again; {} lines were lost", self.name(), self.lost);
                    self.lost = 0;
                }
                Written::Whole
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Written::Closed,
            Err(error) => {
                if self.lost == 0 {
                    log::error!("{}: {error}; lines are lost until it can be written", self.name());
                }
                self.retry_at = Some(Instant::now() + RETRY);
                self.lost += 1;
                Written::Lost
            }
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut written = 0;
        while written < line.len() {
            match file.write(&line[written..]) {
                Ok(0) => return self.take_back(written, io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.take_back(written, error),
            }
        }
        Ok(())
    }

    /// Takes `written` bytes of an unfinished line out of the file.
    fn take_back(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| written > 0) {
            let length = file.metadata().map(|meta| meta.len()).unwrap_or(0);
            let shortened = length.checked_sub(written as u64).map(|length| file.set_len(length));
            self.torn = !matches!(shortened, Some(Ok(())));
        }
        Err(error)
    }

    fn name(&self) -> String {
        self.path.as_ref().map_or("standard output".into(), |path| path.display().to_string())
    }
}

/// Ends a file's last line, which a power cut may have left unfinished: one of ours goes, another is ended.
fn repair(path: &Path, append: &File) -> io::Result<()> {
    let length = append.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let start = length.saturating_sub(TAIL);
    let mut tail = Vec::new();
    // A file that may only be written is left as it is.
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    file.seek(SeekFrom::Start(start))?;
    file.take(length - start).read_to_end(&mut tail)?;
    if tail.last() == Some(&b'\n') {
        return Ok(());
    }
    let line = tail.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let unfinished = &tail[line..];
    let known = unfinished.len().min(BEGINNING.len());
    if unfinished[..known] == BEGINNING[..known] && (start == 0 || line > 0) {
        return append.set_len(start + line as u64);
    }
    (&*append).write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"{\"schema\":\"ghostlight.detections/1\"}\n";

    #[test]
    fn lines_are_appended_and_a_moved_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a"), folder.path().join("b"));
        let mut lines = LineFile::open(&path).unwrap();
        assert_eq!(lines.write(LINE), Written::Whole);
        std::fs::rename(&path, &moved).unwrap();
        assert_eq!(lines.write(LINE), Written::Whole);
        lines.reopen();
        assert_eq!(lines.write(LINE), Written::Whole);
        assert_eq!(std::fs::read(&moved).unwrap(), [LINE, LINE].concat());
        assert_eq!(std::fs::read(&path).unwrap(), LINE);
    }

    #[test]
    fn an_unfinished_line_of_ours_goes_another_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (before, after) in [
            (&LINE[..20], &b""[..]),
            (&[LINE, &LINE[..5]].concat(), LINE),
            (b"precious", b"precious\n"),
            (b"x\nprecious", b"x\nprecious\n"),
            (b"", b""),
        ] {
            std::fs::write(&path, before).unwrap();
            let mut lines = LineFile::open(&path).unwrap();
            assert_eq!(lines.write(LINE), Written::Whole);
            let expected = [after, LINE].concat();
            assert_eq!(std::fs::read(&path).unwrap(), expected, "{}", String::from_utf8_lossy(before));
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_no_more() {
        let mut lines = LineFile::open(Path::new("/dev/full")).unwrap();
        assert_eq!([lines.write(LINE), lines.write(LINE)], [Written::Lost, Written::Lost]);
        assert_eq!(lines.lost, 2);
        // The disk has room again.
        let folder = tempfile::tempdir().unwrap();
        lines.path = Some(folder.path().join("a"));
        lines.reopen();
        assert_eq!(
            (lines.write(LINE), std::fs::read(folder.path().join("a")).unwrap()),
            (Written::Whole, LINE.into())
        );
    }

    #[test]
    fn a_line_that_did_not_fit_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut lines = LineFile::open(&path).unwrap();
        assert_eq!(lines.write(LINE), Written::Whole);
        lines.file.as_mut().unwrap().write_all(&LINE[..7]).unwrap();
        let error = lines.take_back(7, io::ErrorKind::StorageFull.into()).unwrap_err();
        assert_eq!((error.kind(), lines.torn), (io::ErrorKind::StorageFull, false));
        assert_eq!(std::fs::read(&path).unwrap(), LINE);
    }
}
