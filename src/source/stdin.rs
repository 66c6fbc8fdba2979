//! Standard input as a source: what a camera program writes into a pipe.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::SourceError;
use super::pump::{Gate, Pump, STEP, read};
use super::stream::{Asked, Decoder, StreamError};

const NAME: &str = "standard input";
/// Longest that opening waits for the first bytes.
const FIRST: Duration = Duration::from_secs(1);
/// Bytes read at once: what a pipe holds.
const PIECE: usize = 64 << 10;

/// Where an earlier reader stopped: bytes that were read do not come again.
static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);

/// Opens standard input.
///
/// # Errors
/// It is a terminal, nothing comes, or what comes is unknown.
pub(super) fn open(asked: Asked) -> Result<Pump, SourceError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let cause = "this is a terminal; send pictures into it, as in: rpicam-vid -t 0 --codec mjpeg -o - | \
                     ghostlight run --source -";
        return Err(SourceError::Unfit { name: NAME.into(), cause: cause.into() });
    }
    let fd = stdin.as_fd().try_clone_to_owned().map_err(fault)?;
    open_fd(fd, asked, &LEFT)
}

fn fault(error: io::Error) -> SourceError {
    SourceError::Read { name: NAME.into(), error }
}

fn open_fd(fd: OwnedFd, asked: Asked, left: &'static Mutex<Option<Decoder>>) -> Result<Pump, SourceError> {
    // Looks without taking anything.
    if read(&fd, &mut [], FIRST).map_err(fault)?.is_none() {
        let cause = "nothing comes; is the program before the pipe at work?".into();
        return Err(SourceError::Absent { name: NAME.into(), cause });
    }
    let earlier = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let decoder = match earlier.filter(|earlier| earlier.asked() == asked) {
        Some(earlier) => earlier,
        None => Decoder::new(asked).map_err(|error| error.of(NAME))?,
    };
    let file = rustix::fs::fstat(&fd).map_err(|error| fault(error.into()))?;
    // A file waits for whoever reads it.
    let live = !rustix::fs::FileType::from_raw_mode(file.st_mode).is_file();
    Pump::start(NAME.into(), live, move |gate| {
        let (decoder, end) = pump(gate, &fd, decoder);
        if gate.closed() && end.is_ok() {
            *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(decoder);
        }
        end
    })
}

fn pump(gate: &Gate, fd: &OwnedFd, mut decoder: Decoder) -> (Decoder, Result<(), SourceError>) {
    let mut buffer = vec![0; PIECE];
    while !gate.closed() {
        let end = match read(fd, &mut buffer, STEP) {
            Ok(None) => continue,
            Ok(Some(0)) if decoder.count() == 0 => {
                let cause = "it ended before the first picture".into();
                Err(SourceError::Unfit { name: NAME.into(), cause })
            }
            Ok(Some(0)) => Ok(()),
            Ok(Some(count)) => match decoder.take(&buffer[..count], |frame| gate.put(frame)) {
                Ok(()) => {
                    // The header alone tells already.
                    gate.opened(|| decoder.describe());
                    continue;
                }
                // What comes behind it means nothing, and what came before does not come again.
                Err(error @ StreamError::Lost(_)) if decoder.count() > 0 => {
                    log::warn!("{NAME}: {error}");
                    Ok(())
                }
                Err(error) => Err(error.of(NAME)),
            },
            Err(error) => Err(fault(error)),
        };
        return (decoder, end);
    }
    (decoder, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::frame::{Frame, PixelFormat};
    use crate::source::{Next, Source};

    const LONG: Duration = Duration::from_secs(60);

    fn grey() -> Asked {
        Asked { format: Some(PixelFormat::Grey), width: Some(2), height: Some(2) }
    }

    #[test]
    fn a_pipe_gives_its_frames_then_the_end() {
        static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcd").unwrap();
        let mut pump = open_fd(reader.into(), Asked::default(), &LEFT).unwrap();
        assert!(pump.live());
        let mut frame = Frame::default();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!(pump.describe(), "standard input: GREY 2x2");
        assert_eq!(frame.bytes, b"abcd");
        assert_eq!(pump.next(&mut frame, Duration::ZERO).unwrap(), Next::Nothing);
        drop(writer);
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::End);
    }

    #[test]
    fn a_stream_that_breaks_ends() {
        static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcdgarbage").unwrap();
        let mut pump = open_fd(reader.into(), Asked::default(), &LEFT).unwrap();
        let mut frame = Frame::default();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::End);
        assert!(LEFT.lock().unwrap().is_none());
    }

    #[test]
    fn opening_anew_goes_on_where_reading_stopped() {
        static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);
        let (reader, mut writer) = io::pipe().unwrap();
        let again = reader.try_clone().unwrap();
        writer.write_all(b"abcdef").unwrap();
        let mut frame = Frame::default();
        let mut pump = open_fd(reader.into(), grey(), &LEFT).unwrap();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        drop(pump);
        while LEFT.lock().unwrap().is_none() {
            std::thread::sleep(STEP);
        }
        writer.write_all(b"gh").unwrap();
        let mut pump = open_fd(again.into(), grey(), &LEFT).unwrap();
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
        assert_eq!((frame.bytes.as_slice(), frame.sequence), (&b"efgh"[..], 1));
    }

    #[test]
    fn a_file_waits_and_loses_nothing() {
        static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        std::fs::write(&path, (0..200u8).flat_map(|n| [n; 4]).collect::<Vec<u8>>()).unwrap();
        let mut pump = open_fd(std::fs::File::open(path).unwrap().into(), grey(), &LEFT).unwrap();
        assert!(!pump.live());
        let mut frame = Frame::default();
        for n in 0..200 {
            assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::Frame);
            assert_eq!((frame.sequence, frame.bytes[3]), (n.into(), n));
        }
        assert_eq!(pump.next(&mut frame, LONG).unwrap(), Next::End);
    }

    #[test]
    fn what_gives_nothing_says_why() {
        static LEFT: Mutex<Option<Decoder>> = Mutex::new(None);
        let open = |bytes: &[u8]| {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(bytes).unwrap();
            drop(writer);
            open_fd(reader.into(), Asked::default(), &LEFT).unwrap_err()
        };
        for (bytes, words) in [(&b""[..], "ended before the first"), (b"GIF89a", "format, width and height")]
        {
            let fault = open(bytes);
            assert!(fault.to_string().contains(words) && !fault.may_recover(), "{fault}");
        }
        let (reader, _writer) = io::pipe().unwrap();
        let fault = open_fd(reader.into(), Asked::default(), &LEFT).unwrap_err();
        assert!(fault.to_string().contains("nothing comes") && fault.may_recover(), "{fault}");
    }
}
