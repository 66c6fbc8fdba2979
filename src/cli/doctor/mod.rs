//! `ghostlight doctor`: what works on this machine, and what to do about the rest.
//!
//! One file a thing that is looked at; `next` picks the one command that comes next. Files of the machine are
//! reached through [`Root`], so that tests can play another one.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::error::CliError;
use super::root::Root;
use super::{Outcome, cameras, run as daemon};
use crate::config;

mod board;
mod broker;
pub mod camera;
mod machine;
pub mod model;
mod next;
mod report;
mod service;
mod settings;

pub use next::quoted;
use service::Service;
use settings::Settings;

/// Longest wait for all cameras to tell what they offer.
const LISTING: Duration = Duration::from_secs(5);

/// Check this machine: board, model, configuration, camera, broker, service
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  ghostlight doctor\n  ghostlight doctor --config ghostlight.toml --json\n\nEach line is 'ok' or a 'warning' with what to do; the last one is the command that comes next. The exit code is 0 with warnings, too. --json prints {\"checks\": [{\"check\", \"status\": \"ok\" | \"warning\", \"text\"}, …], \"next\", \"why\"}.\nA picture is taken and the broker is entered for a moment; a daemon that runs is not disturbed."
)]
pub struct Args {
    /// Configuration file [default: $GHOSTLIGHT_CONFIG, then /etc/ghostlight/ghostlight.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Model file [default: as 'ghostlight run' finds it]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Looks at everything and prints a line each, then the command that comes next.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let root = Root::system();
    let mut lines = machine::look();
    lines.extend(board::look(&root));
    let service = Service::look(&root, &service::systemctl);
    let file = config::find(args.config.as_deref());
    let mut settings = Settings::read(file, args.model.as_deref(), &service.credentials);
    let (line, works) = model::look(&settings.loaded);
    lines.push(line);
    if let Some(works) = &works {
        settings.look_up(&works.classes);
    }
    lines.extend(settings.lines());

    let found = camera::within(LISTING, cameras::list).unwrap_or_default();
    let mut source = daemon::source_options(
        &settings.loaded.config.source,
        works.as_ref().map_or(daemon::INPUT, |works| works.input),
    );
    let chosen = match settings.is_sound() {
        true => true,
        // Without a configuration that holds, the camera that one would be written for.
        false => camera::first(&found).map(|path| source.from = path.display().to_string()).is_some(),
    };
    let is_camera = camera::is_camera(&source.from);
    lines.extend(camera::lines(&found, is_camera));
    let mut sight = camera::denied(&found).then_some(camera::Sight::Denied);
    if chosen {
        let (line, seen) = camera::look(&source, &root, service.is_active());
        lines.push(line);
        sight = Some(seen);
    }
    let mut entered = true;
    if settings.is_sound() {
        let line = broker::look(&settings.loaded.config);
        entered = line.status == report::Status::Ok;
        lines.push(line);
    }
    lines.push(service.line());
    let next = next::next(&next::Facts {
        model: works.is_some(),
        config: settings.file.as_deref(),
        sound: settings.is_sound(),
        denied: settings.is_denied(),
        sight,
        camera: is_camera,
        broker: entered,
        service: &service,
        samples: model::samples(),
        root: rustix::process::geteuid().is_root(),
    });
    report::write(&lines, &next, args.json, out)?;
    Ok(Outcome::Done)
}
