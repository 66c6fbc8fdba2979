//! `ghostlight init`: a configuration from what this machine has.

use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cameras;
use super::doctor::{camera, quoted};
use super::error::CliError;
use super::root::Root;
use super::{Outcome, backend, model_path};
use crate::config;
use crate::daemon;
use crate::sink::mqtt::{self, Options};
use crate::weights::write::write_atomically;

mod ask;
mod fill;

use ask::Asker;
use fill::Known;

/// Where the file goes when the user is not root, who writes the service's.
const HERE: &str = "ghostlight.toml";
/// Longest wait for a broker of this machine.
const BROKER: Duration = Duration::from_secs(1);
/// Longest wait for that broker's answer.
const ENTERING: Duration = Duration::from_secs(5);
/// Longest wait for all cameras to tell what they offer.
const LISTING: Duration = Duration::from_secs(5);

/// Write a configuration from what this machine has: camera, model, broker
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight init\n  ghostlight init -o yard.toml --yes\n\nWithout a terminal nothing is asked, as with --yes: the first camera, all classes. A broker is set where port 1883 of this machine answers. A file that is there already is kept, with exit code 74, unless it is the example as a package brings it."
)]
pub struct Args {
    /// Where to write [default: /etc/ghostlight/ghostlight.toml as root, else ghostlight.toml here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub yes: bool,
    /// Model file [default: as 'ghostlight detect' finds it]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
}

/// Looks around, asks, writes the file and says what comes next.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let path = output(args)?;
    let mut answers = io::stdin().lock();
    let asks = !args.yes && io::stdin().is_terminal();
    let mut asker = Asker { answers: asks.then_some(&mut answers), words: &mut io::stderr() };

    let mut known = Known { device: daemon::host_name(), ..Known::default() };
    let mut notes = Vec::new();
    look_at_model(args.model.as_deref(), &mut known, &mut notes)?;
    let found = camera::within(LISTING, cameras::list).unwrap_or_default();
    if camera::denied(&found) {
        notes.push(
            "no camera may be opened; add this user to the group 'video' and run it again with --force"
                .into(),
        );
    }
    let cameras = choices(&found, &Root::system());
    let shown: Vec<String> = cameras.iter().map(|(path, name)| format!("{name} ({path})")).collect();
    let chosen = asker.choose("Which camera?", &shown)?;
    known.camera = cameras.get(chosen).map(|(path, _)| path.clone());
    known.kept = asker.some_of("Which classes?", &known.classes)?;
    known.broker = answers_there(("localhost", 1883));
    if known.broker {
        let anonymous = Options::new(known.device.clone(), Vec::new());
        notes.extend(mqtt::probe(&anonymous, ENTERING).err().map(|e| format!("{}: {e}", anonymous.broker())));
    }

    write_file(&path, fill::fill(&known).as_bytes(), args.force)?;
    tell(&path, &known, &notes, out)?;
    Ok(Outcome::Done)
}

/// Where the file goes, if it may.
fn output(args: &Args) -> Result<PathBuf, CliError> {
    let path = args.output.clone().unwrap_or_else(|| match rustix::process::geteuid().is_root() {
        true => config::USUAL.into(),
        false => HERE.into(),
    });
    if args.output.is_none() && path == Path::new(config::USUAL) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|error| CliError::writing(folder, &error))?;
    }
    // Asked before any question is.
    may_write(&path, args.force)?;
    Ok(path)
}

fn may_write(path: &Path, force: bool) -> Result<(), CliError> {
    let refuse = |cause: &str| Err(CliError::Io { subject: path.display().to_string(), cause: cause.into() });
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => refuse("it is a folder; name a file with -o"),
        // A package brings the example: nobody's work is lost.
        Ok(_) if std::fs::read(path).is_ok_and(|bytes| bytes == fill::EXAMPLE.as_bytes()) => Ok(()),
        Ok(_) if !force => refuse("it is there already; give --force to replace it, or another name with -o"),
        _ => Ok(()),
    }
}

fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<(), CliError> {
    // Somebody else may have written it while questions were asked.
    may_write(path, force)?;
    write_atomically(path, bytes).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CliError::Io {
            subject: path.display().to_string(),
            cause: "no such folder; make it, or give another name with -o".into(),
        },
        io::ErrorKind::PermissionDenied => CliError::Io {
            subject: path.display().to_string(),
            cause: "permission denied; use sudo, or give another name with -o".into(),
        },
        _ => CliError::writing(path, &error),
    })
}

/// The model's path and classes. One that is asked for and cannot be opened is an error; to have none yet is not.
fn look_at_model(flag: Option<&Path>, known: &mut Known, notes: &mut Vec<String>) -> Result<(), CliError> {
    let path = match model_path::find(flag) {
        Ok(path) => path,
        Err(error) if flag.is_some() => return Err(error),
        Err(error) => {
            notes.push(format!("the model's classes are not known: {error}"));
            return Ok(());
        }
    };
    match backend::open_model(&path) {
        Ok(model) => known.classes = model.info.classes.clone(),
        Err(error) if flag.is_some() => return Err(error),
        Err(error) => notes.push(format!("the model's classes are not known: {error}")),
    }
    if path != Path::new(model_path::SYSTEM) {
        // The daemon may start in another folder.
        known.model = Some(std::path::absolute(&path).map_err(|error| CliError::reading(&path, &error))?);
    }
    Ok(())
}

/// Cameras that offer a format: by which path to open them, and their names.
fn choices(found: &camera::Found, root: &Root) -> Vec<(String, String)> {
    let usable = found.iter().filter_map(|(path, camera)| match camera {
        Ok(Some(camera)) if !camera.formats.is_empty() => Some((path, camera)),
        _ => None,
    });
    usable.map(|(path, camera)| (stable(path, root).display().to_string(), camera.name.clone())).collect()
}

/// The link in `/dev/v4l/by-id` that means this camera after a reboot, too; the node itself where there is none.
fn stable(node: &Path, root: &Root) -> PathBuf {
    const LINKS: &str = "/dev/v4l/by-id";
    let Ok(meant) = root.path(node).canonicalize() else { return node.to_path_buf() };
    let link = root.entries(LINKS).into_iter().find(|link| link.canonicalize().is_ok_and(|to| to == meant));
    link.and_then(|link| Some(Path::new(LINKS).join(link.file_name()?))).unwrap_or_else(|| node.to_path_buf())
}

/// Whether anybody listens there.
fn answers_there(place: impl ToSocketAddrs) -> bool {
    let listens = |address: SocketAddr| TcpStream::connect_timeout(&address, BROKER).is_ok();
    place.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(listens))
}

fn tell(path: &Path, known: &Known, notes: &[String], out: &mut dyn Write) -> io::Result<()> {
    for note in notes {
        log::warn!("{note}");
    }
    let model = known.model.as_deref().filter(|model| hidden(model) && path.starts_with("/etc"));
    if let Some(model) = model {
        log::warn!(
            "the service sees nothing below /home and /root: copy {} to {} and run it again with --force",
            model.display(),
            model_path::SYSTEM
        );
    }
    writeln!(out, "wrote    {}", path.display())?;
    writeln!(out, "device   {}", known.device)?;
    writeln!(
        out,
        "camera   {}",
        known.camera.as_deref().unwrap_or("none found; set [source] device or url")
    )?;
    let classes = if known.kept.is_empty() { &known.classes } else { &known.kept };
    let all = if known.kept.is_empty() { "all: " } else { "" };
    match classes.len() {
        0 => writeln!(out, "classes  all of the model's")?,
        1..=10 => writeln!(out, "classes  {all}{}", classes.join(", "))?,
        count => writeln!(out, "classes  {all}{count}")?,
    }
    let broker = if known.broker { "localhost:1883" } else { "none answers on localhost:1883; set [mqtt]" };
    writeln!(out, "broker   {broker}")?;
    let with = match path == Path::new(config::USUAL) {
        true => String::new(),
        false => format!(" --config {}", quoted(path)),
    };
    writeln!(out, "next     ghostlight doctor{with}  # tries all of it")
}

/// Whether systemd's `ProtectHome=` hides it.
fn hidden(path: &Path) -> bool {
    ["/home", "/root", "/run/user"].iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
