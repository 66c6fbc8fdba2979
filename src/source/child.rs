//! What a player decodes: video files and streams of the network, by ffmpeg or GStreamer as a child process.
//!
//! The child writes YUV4MPEG2 into a pipe. It is spawned by the thread that reads it, dies with that thread
//! (`PR_SET_PDEATHSIG`), and is killed with its group and waited for when the source is dropped.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{self, Pid, Signal, WaitId, WaitIdOptions};

use super::pump::{Gate, Pump, STEP, read};
use super::stream::{Asked, Decoder};
use super::{SourceError, address};

/// Bytes read at once.
const PIECE: usize = 64 << 10;
/// Bytes kept of what the child says.
const WORDS: usize = 4096;
/// Lines of it in a message.
const LINES: usize = 3;
/// Longest wait for a child that closed its output, or was killed.
const EXIT: Duration = Duration::from_secs(2);

/// What is played.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// A file, which ends, or begins anew.
    File { path: PathBuf, repeat: bool },
    /// An address, whose stream is not to end.
    Address(String),
}

impl Input {
    fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Address(address) => address::shown(address),
        }
    }
}

/// The program that plays.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Player {
    Ffmpeg(PathBuf),
    Gstreamer(PathBuf),
}

impl Player {
    /// The one given, else the first that `PATH` has.
    fn find(given: Option<&Path>) -> Option<Self> {
        let gstreamer =
            |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"gst-"));
        match given {
            Some(path) if gstreamer(path) => Some(Self::Gstreamer(path.to_path_buf())),
            Some(path) => Some(Self::Ffmpeg(path.to_path_buf())),
            None => {
                in_path("ffmpeg").map(Self::Ffmpeg).or_else(|| in_path("gst-launch-1.0").map(Self::Gstreamer))
            }
        }
    }

    fn path(&self) -> &Path {
        let (Self::Ffmpeg(path) | Self::Gstreamer(path)) = self;
        path
    }

    fn arguments(&self, input: &Input, size: Option<(usize, usize)>) -> Vec<OsString> {
        match self {
            Self::Ffmpeg(_) => ffmpeg(input, size),
            Self::Gstreamer(_) => gstreamer(input, size),
        }
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(runs)
}

fn ffmpeg(input: &Input, size: Option<(usize, usize)>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["-nostdin", "-hide_banner", "-loglevel", "error"].map(Into::into).into();
    let from = match input {
        Input::File { path, repeat } => {
            arguments.extend(["-re"].map(Into::into));
            if *repeat {
                arguments.extend(["-stream_loop", "-1"].map(Into::into));
            }
            // Whatever the name, it is a file's.
            let mut from = OsString::from("file:");
            from.push(path);
            from
        }
        Input::Address(address) => {
            if address::scheme(address).is_some_and(|scheme| scheme.starts_with("rtsp")) {
                arguments.extend(["-rtsp_transport", "tcp"].map(Into::into));
            }
            arguments.extend(["-fflags", "nobuffer"].map(Into::into));
            address.into()
        }
    };
    arguments.extend(["-i".into(), from]);
    arguments.extend(["-map", "0:v:0"].map(Into::into));
    if let Some((width, height)) = size {
        arguments.extend(["-vf".into(), format!("scale={width}:{height}").into()]);
    }
    arguments.extend(["-f", "yuv4mpegpipe", "-pix_fmt", "yuv420p", "-"].map(Into::into));
    arguments
}

fn gstreamer(input: &Input, size: Option<(usize, usize)>) -> Vec<OsString> {
    let uri = match input {
        Input::File { path, .. } => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("file://{}", address::encode(path.as_os_str().as_bytes()))
        }
        // GStreamer's own names for RTSP over TCP.
        Input::Address(address) => match address.split_once("://") {
            Some((scheme @ ("rtsp" | "rtsps"), rest)) => format!("{scheme}t://{rest}"),
            _ => address.clone(),
        },
    };
    let mut caps = "video/x-raw,format=I420".to_owned();
    if let Some((width, height)) = size {
        caps += &format!(",width={width},height={height}");
    }
    let uri = format!("uri={uri}");
    let pipeline = ["-q", "uridecodebin", &uri, "!", "videoconvert", "!", "videoscale", "!", &caps, "!"];
    let end = ["identity", "sync=true", "!", "y4menc", "!", "fdsink", "fd=1"];
    pipeline.into_iter().chain(end).map(Into::into).collect()
}

/// Plays `input`.
///
/// # Errors
/// There is no player, or it fails at once.
pub(super) fn open(input: Input, asked: Asked, player: Option<&Path>) -> Result<Pump, SourceError> {
    let name = input.name();
    let unfit = |cause: &str| SourceError::Unfit { name: name.clone(), cause: cause.into() };
    let Some(player) = Player::find(player) else {
        return Err(unfit(
            "neither ffmpeg nor gst-launch-1.0 is installed, one of which plays it; apt install ffmpeg",
        ));
    };
    if matches!((&player, &input), (Player::Gstreamer(_), Input::File { repeat: true, .. })) {
        return Err(unfit("GStreamer does not begin a file anew; apt install ffmpeg, or leave out loop"));
    }
    if asked.format.is_some_and(|format| format != crate::frame::PixelFormat::Yu12) {
        return Err(unfit("a player gives yu12; leave out format"));
    }
    let size = match (asked.width, asked.height) {
        (None, None) => None,
        (Some(width), Some(height)) => Some((width, height)),
        _ => return Err(unfit("width and height go together; give both, or none")),
    };
    let play = Play { arguments: player.arguments(&input, size), player, input, name: name.clone() };
    Pump::start(name, true, move |gate| play.run(gate))
}

/// What ffmpeg and GStreamer say of a camera that wants another password.
const REFUSALS: [&str; 2] = ["401 Unauthorized", "Unauthorized (401)"];

/// One run of a player.
struct Play {
    player: Player,
    arguments: Vec<OsString>,
    input: Input,
    name: String,
}

impl Play {
    fn run(&self, gate: &Gate) -> Result<(), SourceError> {
        let mut running = Running::start(self.player.path(), &self.arguments).map_err(|error| {
            let cause = format!("{} does not start: {error}", self.player.path().display());
            SourceError::Unfit { name: self.name.clone(), cause }
        })?;
        let mut decoder = Decoder::new(Asked::default()).map_err(|error| error.of(&self.name))?;
        let mut buffer = vec![0; PIECE];
        while !gate.closed() {
            running.listen();
            match running.read(&mut buffer) {
                Ok(None) => {}
                Ok(Some(0)) => {
                    let status = running.ended();
                    return self.verdict(status, decoder.count() > 0, &running.words);
                }
                Ok(Some(count)) => {
                    let player = self.player.path().display();
                    let taken = decoder.take(&buffer[..count], |frame| {
                        gate.opened(|| Some(format!("{}, by {player}", frame.layout())));
                        gate.put(frame);
                    });
                    taken.map_err(|error| error.of(&self.name))?;
                }
                Err(error) => return Err(SourceError::Read { name: self.name.clone(), error }),
            }
        }
        Ok(())
    }

    /// What the end of the child means.
    fn verdict(&self, status: Option<ExitStatus>, any: bool, words: &[u8]) -> Result<(), SourceError> {
        let name = self.name.clone();
        let said = self.last_words(words);
        let ending = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(0), _)) => "ended".to_owned(),
            Some((Some(code), _)) => format!("ended with code {code}"),
            Some((_, Some(signal))) => format!("was ended by signal {signal}"),
            _ => "closed its output".to_owned(),
        };
        let cause = format!("{} {ending}{said}", self.player.path().display());
        let success = status.is_some_and(|status| status.success());
        match self.input {
            // Played again from its start, it would break at the same place.
            Input::File { .. } if any => {
                if !success {
                    log::warn!("{name}: {cause}");
                }
                Ok(())
            }
            Input::File { .. } => Err(SourceError::Unfit { name, cause: format!("no picture; {cause}") }),
            Input::Address(_) if REFUSALS.iter().any(|words| cause.contains(words)) => {
                Err(SourceError::Unfit {
                    name,
                    cause: format!("{cause}; check user and password in the address"),
                })
            }
            Input::Address(_) if !any => Err(SourceError::Absent { name, cause }),
            Input::Address(_) => Err(SourceError::Read { name, error: io::Error::other(cause) }),
        }
    }

    fn last_words(&self, words: &[u8]) -> String {
        let words = String::from_utf8_lossy(words);
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("; ");
        let plain = without_pointers(&last.chars().filter(|c| !c.is_control()).collect::<String>());
        match &self.input {
            _ if plain.is_empty() => plain,
            Input::File { .. } => format!(": {plain}"),
            Input::Address(address) => format!(": {}", address::hide(&plain, address)),
        }
    }
}

/// Words without ffmpeg's ` @ 0x55…`, which differ from run to run: the same fault is to have the same words.
fn without_pointers(words: &str) -> String {
    let mut parts = words.split(" @ 0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

/// A child and the group that it leads. Dropping it ends both.
struct Running {
    child: Child,
    pid: Pid,
    /// The end of what it said.
    words: Vec<u8>,
    reaped: bool,
}

impl Running {
    fn start(program: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let parent = process::getpid();
        let die_with_parent = move || {
            process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have died before.
            match process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(rustix::io::Errno::SRCH.into()),
            }
        };
        // SAFETY: between fork and exec it makes two system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, words: Vec::new(), reaped: false })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let output = self.child.stdout.as_ref().expect("its output is a pipe");
        read(output.as_fd(), buffer, STEP)
    }

    /// Takes what it says, so that it never waits for that. Nothing is lost by an error: it says no more then.
    fn listen(&mut self) {
        let mut buffer = [0; 1024];
        // Bounded: a child that says more than this between two pieces of its output is to wait.
        for _ in 0..64 {
            let words = self.child.stderr.as_ref().map(|words: &ChildStderr| words.as_fd());
            match words.map(|words| read(words, &mut buffer, Duration::ZERO)) {
                Some(Ok(Some(count))) if count > 0 => {
                    self.words.extend_from_slice(&buffer[..count]);
                    let excess = self.words.len().saturating_sub(WORDS);
                    self.words.drain(..excess);
                }
                Some(Ok(None)) | None => return,
                _ => self.child.stderr = None,
            }
        }
    }

    /// Waits for the end of a child that closed its output.
    fn ended(&mut self) -> Option<ExitStatus> {
        let exited = self.wait_exit();
        self.listen();
        self.end();
        exited.then(|| self.child.try_wait().ok().flatten()).flatten()
    }

    /// Waits until it has exited, without taking its status: its number stays its own until then.
    fn wait_exit(&self) -> bool {
        let end = Instant::now() + EXIT;
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match process::waitid(WaitId::Pid(self.pid), options) {
                Ok(Some(_)) => return true,
                Err(error) if error != rustix::io::Errno::INTR => return false,
                _ if Instant::now() > end => return false,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Kills the group and takes the child's status.
    fn end(&mut self) {
        if self.reaped {
            return;
        }
        // It may be gone, or be another user's: no more can be done.
        let _ = process::kill_process_group(self.pid, Signal::KILL);
        // One that hangs in the kernel is left there, and init takes it.
        if self.wait_exit() {
            let _ = self.child.wait();
            self.reaped = true;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
