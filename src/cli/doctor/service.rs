//! systemd's unit: whether it is there, starts at boot, and runs.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::report::Line;
use crate::cli::root::Root;
use crate::config;

/// Name of the unit's file.
const UNIT: &str = "ghostlight.service";
/// Where systemd looks for it, in its order.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
];
/// Longest wait for systemctl, which waits for systemd.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is known of the service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// The unit's file.
    pub unit: Option<PathBuf>,
    /// The configuration that it runs with.
    pub config: PathBuf,
    /// The program that it runs, if that is not there.
    missing: Option<PathBuf>,
    /// Files that it is given by name, as `LoadCredential=` has them.
    pub credentials: Vec<(String, PathBuf)>,
    /// What systemd says: `enabled`, `disabled`, …
    enabled: Option<String>,
    /// What systemd says: `active`, `inactive`, `failed`, …
    active: Option<String>,
    /// Whether systemd runs this machine.
    booted: bool,
}

impl Service {
    /// Looks for the unit; `systemctl` answers `is-enabled` and `is-active`.
    pub fn look(root: &Root, systemctl: &dyn Fn(&str) -> Option<String>) -> Self {
        let booted = root.path("/run/systemd/system").is_dir();
        let unit = FOLDERS.map(|folder| root.path(folder).join(UNIT)).into_iter().find(|path| path.is_file());
        let Some(unit) = unit else { return Self { booted, ..Self::default() } };
        // What was added to the unit beside it holds as well.
        let mut text = std::fs::read_to_string(&unit).unwrap_or_default();
        for folder in FOLDERS {
            for extra in root.entries(format!("{folder}/{UNIT}.d")) {
                text += "\n";
                text += &std::fs::read_to_string(extra).unwrap_or_default();
            }
        }
        let words: Vec<&str> =
            values(&text, "ExecStart").last().unwrap_or_default().split_whitespace().collect();
        let config = words.iter().position(|&word| word == "--config").and_then(|at| words.get(at + 1));
        let program = words.first().map(|word| word.trim_start_matches(['-', '@', ':', '+', '!']));
        let missing =
            program.map(PathBuf::from).filter(|path| path.is_absolute() && !root.path(path).exists());
        let credentials = values(&text, "LoadCredential")
            .filter_map(|value| value.split_once(':'))
            .map(|(name, path)| (name.to_owned(), root.path(path)))
            .collect();
        Self {
            unit: Some(unit),
            config: PathBuf::from(config.unwrap_or(&config::USUAL)),
            missing,
            credentials,
            enabled: systemctl("is-enabled"),
            active: systemctl("is-active"),
            booted,
        }
    }

    /// Whether it runs now.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_deref(), Some("active" | "reloading"))
    }

    /// Whether it starts at boot.
    pub fn is_enabled(&self) -> bool {
        self.enabled.as_deref().is_some_and(|state| state.starts_with("enabled"))
    }

    /// Whether it was started and did not stay.
    pub fn has_failed(&self) -> bool {
        matches!(self.active.as_deref(), Some("failed" | "activating"))
    }

    /// What is to be said of it.
    pub fn line(&self) -> Line {
        const CHECK: &str = "service";
        let Some(unit) = &self.unit else {
            return match self.booted {
                true => Line::warning(
                    CHECK,
                    "no unit ghostlight.service; it starts at boot only with one: docs/run.md says how to install it",
                ),
                false => Line::ok(CHECK, "systemd does not run here; start 'ghostlight run' by other means"),
            };
        };
        let unit = unit.display();
        if let Some(program) = &self.missing {
            return Line::warning(
                CHECK,
                format!("{unit} runs {}, which is not there; install it", program.display()),
            );
        }
        match (self.active.as_deref(), self.is_enabled()) {
            (None, _) => {
                Line::ok(CHECK, format!("{unit} is installed; systemctl does not tell whether it runs"))
            }
            (Some(_), true) if self.is_active() => Line::ok(CHECK, format!("{unit} is enabled and active")),
            (Some(_), false) if self.is_active() => Line::warning(
                CHECK,
                format!("{unit} is active and not enabled: after a boot it will not start; enable it"),
            ),
            (Some(state @ ("failed" | "activating")), _) => {
                Line::warning(CHECK, format!("{unit} is {state}; 'journalctl -eu ghostlight' tells why"))
            }
            (Some(state), enabled) => {
                let enabled = if enabled { "enabled" } else { "not enabled" };
                Line::warning(
                    CHECK,
                    format!("{unit} is installed, {enabled} and {state}; enable and start it"),
                )
            }
        }
    }
}

/// Values of a unit's key, in their order; an empty one takes back those before it.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let mut found = Vec::new();
    for line in text.lines() {
        match line.split_once('=').filter(|(name, _)| name.trim() == key) {
            Some((_, value)) if value.trim().is_empty() => found.clear(),
            Some((_, value)) => found.push(value.trim()),
            None => {}
        }
    }
    found.into_iter()
}

/// The one word that `systemctl VERB ghostlight` prints; `None` where there is no systemctl, or it says none.
pub fn systemctl(verb: &str) -> Option<String> {
    let mut command = Command::new("systemctl");
    word(command.args([verb, "ghostlight"]), PATIENCE)
}

/// The one word that a program prints; it is killed where it takes longer than `patience`.
fn word(command: &mut Command, patience: Duration) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let end = Instant::now() + patience;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            // It may end at this moment.
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    words.next().filter(|_| words.next().is_none()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::cli::doctor::report::Status;

    const UNIT_TEXT: &str = include_str!("../../../systemd/ghostlight.service");

    fn with_unit(folder: &str, text: &str, program: bool) -> (tempfile::TempDir, Root) {
        let place = tempfile::tempdir().unwrap();
        let root = Root::at(place.path());
        fs::create_dir_all(root.path(folder)).unwrap();
        fs::write(root.path(folder).join(UNIT), text).unwrap();
        fs::create_dir_all(root.path("/usr/bin")).unwrap();
        if program {
            fs::write(root.path("/usr/bin/ghostlight"), "").unwrap();
        }
        (place, root)
    }

    fn states<'a>(enabled: Option<&'a str>, active: Option<&'a str>) -> impl Fn(&str) -> Option<String> + 'a {
        move |verb| if verb == "is-enabled" { enabled } else { active }.map(str::to_owned)
    }

    #[test]
    fn without_a_unit_it_depends_on_systemd() {
        let place = tempfile::tempdir().unwrap();
        let root = Root::at(place.path());
        let silent = |verb: &str| -> Option<String> { panic!("{verb} is not to be asked") };
        let service = Service::look(&root, &silent);
        assert_eq!((&service.unit, service.line().status), (&None, Status::Ok));
        fs::create_dir_all(root.path("/run/systemd/system")).unwrap();
        let line = Service::look(&root, &silent).line();
        assert!(line.status == Status::Warning && line.text.contains("docs/run.md"), "{line:?}");
    }

    #[test]
    fn a_unit_is_found_in_each_place() {
        for folder in FOLDERS {
            let (_place, root) = with_unit(folder, UNIT_TEXT, true);
            let service = Service::look(&root, &states(Some("enabled"), Some("active")));
            assert_eq!(service.unit, Some(root.path(folder).join(UNIT)));
            assert_eq!(service.config, Path::new(config::USUAL));
            assert!(service.is_active() && service.is_enabled() && !service.has_failed());
            assert_eq!(service.line().status, Status::Ok);
        }
    }

    #[test]
    fn each_state_says_what_to_do() {
        let (_place, root) = with_unit(FOLDERS[0], UNIT_TEXT, true);
        for (enabled, active, status, words) in [
            (Some("enabled"), Some("active"), Status::Ok, "enabled and active"),
            (Some("disabled"), Some("active"), Status::Warning, "not enabled: after a boot"),
            (
                Some("disabled"),
                Some("inactive"),
                Status::Warning,
                "not enabled and inactive; enable and start",
            ),
            (Some("enabled"), Some("inactive"), Status::Warning, "enabled and inactive"),
            (Some("enabled"), Some("failed"), Status::Warning, "journalctl -eu ghostlight"),
            (Some("enabled"), Some("activating"), Status::Warning, "journalctl -eu ghostlight"),
            (None, None, Status::Ok, "does not tell"),
        ] {
            let line = Service::look(&root, &states(enabled, active)).line();
            assert!(line.status == status && line.text.contains(words), "{enabled:?} {active:?}: {line:?}");
        }
        let (_place, root) = with_unit(FOLDERS[0], UNIT_TEXT, false);
        let line = Service::look(&root, &states(Some("enabled"), Some("failed"))).line();
        assert!(line.text.contains("/usr/bin/ghostlight, which is not there"), "{line:?}");
    }

    #[test]
    fn what_the_unit_says_of_its_files() {
        let text = "[Service]\nExecStart=/usr/bin/ghostlight run --config /etc/other.toml\n";
        let (_place, root) = with_unit(FOLDERS[2], text, true);
        let extra = root.path("/etc/systemd/system/ghostlight.service.d");
        fs::create_dir_all(&extra).unwrap();
        fs::write(extra.join("a.conf"), "[Service]\nLoadCredential=mqtt-password:/etc/ghostlight/secret\n")
            .unwrap();
        let service = Service::look(&root, &states(None, None));
        assert_eq!(service.config, Path::new("/etc/other.toml"));
        assert_eq!(service.credentials, [("mqtt-password".to_owned(), root.path("/etc/ghostlight/secret"))]);
        let both: Vec<&str> = values("A=1\nA=\n#A=2\nA = 3\nB=4", "A").collect();
        assert_eq!(both, ["3"]);
    }

    #[test]
    fn a_program_is_asked_and_not_waited_for_forever() {
        let shell = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            word(&mut command, Duration::from_millis(if text.contains("sleep") { 50 } else { 20_000 }))
        };
        assert_eq!(shell("echo inactive; exit 3").as_deref(), Some("inactive"));
        assert_eq!(shell("echo System has not been booted"), None);
        assert_eq!(shell("exec sleep 60"), None);
        assert_eq!(word(&mut Command::new("/absent/systemctl"), PATIENCE), None);
    }
}
