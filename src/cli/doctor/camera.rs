//! Cameras, and one picture of the source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::report::Line;
use crate::cli::cameras::Camera;
use crate::cli::root::Root;
use crate::frame::Frame;
use crate::source::{self, Next, SourceError, SourceOptions, v4l2};
use crate::vision::{Pixels, Size, view};

/// Longest wait for a picture.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a source that does not even come back from being opened or closed.
const GRACE: Duration = Duration::from_secs(3);

/// What `list` lists.
pub type Found = Vec<(PathBuf, io::Result<Option<Camera>>)>;

/// Runs `work`, but does not wait for it longer than `patience`: a driver may hang.
pub fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (told, heard) = mpsc::channel();
    // Who does not wait any more does not listen either.
    let work = move || drop(told.send(work()));
    std::thread::Builder::new().name("doctor".into()).spawn(work).ok()?;
    heard.recv_timeout(patience).ok()
}

/// A line for each camera; that there is none is no fault where none is `needed`.
pub fn lines(found: &Found, needed: bool) -> Vec<Line> {
    const CHECK: &str = "camera";
    let mut lines = Vec::new();
    for (path, camera) in found {
        let path = path.display();
        lines.push(match camera {
            Ok(Some(camera)) if camera.formats.is_empty() => Line::warning(
                CHECK,
                format!(
                    "{path} '{}' offers no format; a camera on a ribbon cable needs rpicam-vid",
                    camera.name
                ),
            ),
            Ok(Some(camera)) => {
                Line::ok(CHECK, format!("{path} '{}': {}", camera.name, camera.formats.join("; ")))
            }
            // A camera's metadata node, or a codec.
            Ok(None) => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Line::warning(CHECK, format!("{path}: {}", v4l2::DENIED))
            }
            Err(error) => Line::warning(CHECK, format!("{path}: {error}; unplug it and plug it in")),
        });
    }
    if lines.is_empty() {
        lines.push(match needed {
            true => Line::warning(CHECK, "none found; plug one in, or use picture files"),
            false => Line::ok(CHECK, "none found; the source is another"),
        });
    }
    lines
}

/// The first camera that offers a format.
pub fn first(found: &Found) -> Option<&Path> {
    let usable = |camera: &io::Result<Option<Camera>>| matches!(camera, Ok(Some(c)) if !c.formats.is_empty());
    found.iter().find(|(_, camera)| usable(camera)).map(|(path, _)| path.as_path())
}

/// Whether this user may not open any of the cameras that are there.
pub fn denied(found: &Found) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    first(found).is_none() && found.iter().any(|(_, camera)| camera.as_ref().is_err_and(is))
}

/// What came of trying the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// A picture, or somebody who gets them now.
    Seen,
    /// It is not for a check to read.
    Untried,
    /// This user may not.
    Denied,
    /// No picture.
    Nothing,
}

/// Whether the text means a camera of V4L2.
pub fn is_camera(from: &str) -> bool {
    let named = from != "-" && !from.contains('/');
    from.starts_with("/dev/") || (named && !Path::new(from).exists())
}

/// Takes one picture; `running` is whether the service runs, which holds its camera.
pub fn look(options: &SourceOptions, root: &Root, running: bool) -> (Line, Sight) {
    const CHECK: &str = "source";
    let name = source::shown(&options.from);
    if options.from == "-" {
        return (Line::ok(CHECK, "standard input, which is left alone here"), Sight::Untried);
    }
    let asked = options.clone();
    let warning = |text: String| Line::warning(CHECK, text);
    match within(PATIENCE + GRACE, move || take(&asked, PATIENCE)) {
        Some(Ok(picture)) => (Line::ok(CHECK, picture.to_string()), Sight::Seen),
        Some(Err(Fault::Source(SourceError::Absent { name, cause }))) if cause == v4l2::BUSY => {
            busy(CHECK, &name, holders(root, &name), running)
        }
        Some(Err(Fault::Source(error))) => {
            let denied = matches!(&error, SourceError::Absent { cause, .. } if cause == v4l2::DENIED);
            (warning(error.to_string()), if denied { Sight::Denied } else { Sight::Nothing })
        }
        Some(Err(Fault::Silence { damaged })) => {
            (warning(silence(&name, is_camera(&options.from), damaged)), Sight::Nothing)
        }
        Some(Err(Fault::End)) => (warning(format!("{name}: it ended without a picture")), Sight::Nothing),
        None => (
            warning(format!("{name}: it hangs; unplug the camera and plug it in, or restart")),
            Sight::Nothing,
        ),
    }
}

/// A picture that came.
#[derive(Debug)]
struct Picture {
    source: String,
    size: Size,
    after: Duration,
}

impl std::fmt::Display for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, size: Size { width, height }, after } = self;
        write!(f, "{source}; a picture of {width}x{height} after {:.1} s", after.as_secs_f64())
    }
}

/// Why none came.
#[derive(Debug)]
enum Fault {
    Source(SourceError),
    /// The time is over.
    Silence {
        /// Something came that was no whole picture.
        damaged: bool,
    },
    End,
}

fn take(options: &SourceOptions, patience: Duration) -> Result<Picture, Fault> {
    let began = Instant::now();
    let mut source = source::open(options).map_err(Fault::Source)?;
    let (mut frame, mut rgb) = (Frame::default(), Vec::new());
    let mut damaged = false;
    while let Some(left) = patience.checked_sub(began.elapsed()) {
        match source.next(&mut frame, left).map_err(Fault::Source)? {
            // A camera's first pictures may be broken.
            Next::Frame => match view(&frame, &mut rgb) {
                Ok(Pixels { size, .. }) => {
                    return Ok(Picture { source: source.describe(), size, after: began.elapsed() });
                }
                Err(_) => damaged = true,
            },
            Next::Nothing => {}
            Next::End => return Err(Fault::End),
        }
    }
    Err(Fault::Silence { damaged })
}

fn silence(name: &str, camera: bool, damaged: bool) -> String {
    let seconds = PATIENCE.as_secs();
    let what = if damaged { "only damaged pictures" } else { "no picture" };
    let cure = match camera {
        true => "check its cable, its power (a powered USB hub), or use another port",
        false => "check the address, the camera behind it and the network",
    };
    format!("{name}: {what} for {seconds} s; {cure}")
}

/// A program that has a device open: its name and process.
type Holder = (String, u32);

/// Those who have `device` open, as far as this user may see.
fn holders(root: &Root, device: &str) -> Vec<Holder> {
    let path = root.path(device);
    let device = path.canonicalize().unwrap_or(path);
    let process = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let has = |process: u32| {
        root.entries(format!("/proc/{process}/fd"))
            .iter()
            .any(|fd| std::fs::read_link(fd).is_ok_and(|to| to == device))
    };
    let name =
        |process: u32| root.text(&format!("/proc/{process}/comm")).unwrap_or_else(|| "a program".into());
    let processes = root.entries("/proc").into_iter().filter_map(|path| process(&path));
    processes.filter(|&id| has(id)).map(|id| (name(id), id)).collect()
}

fn busy(check: &'static str, device: &str, holders: Vec<Holder>, running: bool) -> (Line, Sight) {
    let ours = |holder: &&Holder| holder.0 == "ghostlight";
    match holders.first() {
        Some((name, id)) if holders.iter().any(|holder| ours(&holder)) => {
            (Line::ok(check, format!("{device}: {name} (process {id}) gets its pictures now")), Sight::Seen)
        }
        Some((name, id)) => (
            Line::warning(check, format!("{device}: {name} (process {id}) uses it; end that one")),
            Sight::Nothing,
        ),
        // The service is a user of its own, whose files others do not see.
        None if running => {
            (Line::ok(check, format!("{device}: in use, as it seems by the service that runs")), Sight::Seen)
        }
        None => {
            let text = format!(
                "{device}: another program uses it: another ghostlight, rpicam-vid, motion, a browser; \
                 'sudo fuser -v {device}' names it; end that one"
            );
            (Line::warning(check, text), Sight::Nothing)
        }
    }
}

#[cfg(test)]
#[path = "camera_tests.rs"]
mod tests;
