//! The one command that comes next.

use std::path::{Path, PathBuf};

use super::camera::Sight;
use super::service::Service;
use crate::config;

/// A command, and why this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// As a shell takes it.
    pub command: String,
    /// In a few words.
    pub why: String,
}

/// All that it depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Whether the model works.
    pub model: bool,
    /// The configuration's file.
    pub config: Option<&'a Path>,
    /// Whether it is without a fault.
    pub sound: bool,
    /// Whether its fault is that this user may not read it.
    pub denied: bool,
    /// What came of the source; `None` where there is nothing to try.
    pub sight: Option<Sight>,
    /// Whether the source is a camera.
    pub camera: bool,
    /// Whether the broker lets us in, or there is none.
    pub broker: bool,
    /// The service.
    pub service: &'a Service,
    /// Pictures to try the model with.
    pub samples: Option<PathBuf>,
    /// Whether this user is root.
    pub root: bool,
}

/// What to do first: the earliest step of the way to a running service that is not done.
pub fn next(facts: &Facts) -> Next {
    let sudo = if facts.root { "" } else { "sudo " };
    let given = facts.config.filter(|path| *path != Path::new(config::USUAL));
    let with = given.map_or_else(String::new, |path| format!(" --config {}", quoted(path)));
    let next = |command: String, why: &str| Next { command, why: why.into() };
    if !facts.model {
        return next(
            "ghostlight doctor --model FILE".into(),
            "with a whole model's FILE: nothing works without one",
        );
    }
    if facts.sight == Some(Sight::Denied) {
        return next(
            format!("{sudo}usermod -aG video \"$USER\""),
            "then log in anew: only the group may use cameras",
        );
    }
    if facts.config.is_none() {
        // The service reads root's file.
        let sudo = if facts.service.unit.is_some() { sudo } else { "" };
        return next(format!("{sudo}ghostlight init"), "there is no configuration yet");
    }
    if facts.denied && !facts.root {
        return next(format!("sudo ghostlight doctor{with}"), "this user may not read the files above");
    }
    // Outside of its service the daemon lacks the service's credentials.
    if !facts.sound && !facts.service.credentials.is_empty() {
        return next(
            format!("{sudo}ghostlight doctor{with}"),
            "again, once the lines above are put right in the file",
        );
    }
    if !facts.sound {
        return next(
            format!("ghostlight run{with} --check"),
            "once the lines above are put right in the file",
        );
    }
    if facts.sight == Some(Sight::Nothing) {
        return match &facts.samples {
            Some(samples) if facts.camera => next(
                format!("ghostlight detect {}", quoted(samples)),
                "the model works without a camera; the source above is to be put right",
            ),
            _ => next(format!("ghostlight doctor{with}"), "again, once the source above is put right"),
        };
    }
    if !facts.broker {
        return next(format!("ghostlight doctor{with}"), "again, once the broker above is put right");
    }
    let service = facts.service;
    if service.unit.is_none() || facts.config != Some(&service.config) {
        return next(format!("ghostlight run{with}"), "all is well");
    }
    match (service.is_active(), service.is_enabled()) {
        _ if service.has_failed() => {
            next("journalctl -eu ghostlight".into(), "its last words tell what is wrong")
        }
        (true, true) => next("journalctl -fu ghostlight".into(), "all is well, and it runs"),
        (true, false) => {
            next(format!("{sudo}systemctl enable ghostlight"), "it runs, and is to start at boot")
        }
        (false, _) => {
            next(format!("{sudo}systemctl enable --now ghostlight"), "all is well, and it does not run yet")
        }
    }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::root::Root;

    /// A service in a state, or none.
    fn service(states: Option<(&str, &str)>) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let Some((enabled, active)) = states else { return Service::look(&root, &|_| None) };
        std::fs::create_dir_all(root.path("/etc/systemd/system")).unwrap();
        std::fs::write(root.path("/etc/systemd/system/ghostlight.service"), "").unwrap();
        Service::look(&root, &|verb| Some(if verb == "is-enabled" { enabled } else { active }.to_owned()))
    }

    fn command(change: impl FnOnce(&mut Facts), states: Option<(&str, &str)>) -> String {
        let service = service(states);
        let mut facts = Facts {
            model: true,
            config: Some(Path::new(config::USUAL)),
            sound: true,
            denied: false,
            sight: Some(Sight::Seen),
            camera: true,
            broker: true,
            service: &service,
            samples: Some("models/samples".into()),
            root: false,
        };
        change(&mut facts);
        next(&facts).command
    }

    #[test]
    fn the_earliest_step_that_is_not_done() {
        let none = None;
        let all = |f: &mut Facts| {
            *f = Facts { model: false, config: None, sound: false, sight: Some(Sight::Nothing), ..f.clone() }
        };
        assert_eq!(command(all, none), "ghostlight doctor --model FILE");
        assert_eq!(command(|f| f.config = None, none), "ghostlight init");
        assert_eq!(command(|f| f.config = None, Some(("enabled", "failed"))), "sudo ghostlight init");
        assert_eq!(command(|f| f.sound = false, none), "ghostlight run --check");
        let denied = |f: &mut Facts| (f.sound, f.denied) = (false, true);
        assert_eq!(command(denied, none), "sudo ghostlight doctor");
        let other = Some(Path::new("my file.toml"));
        let faulty = |f: &mut Facts| (f.config, f.sound) = (other, false);
        assert_eq!(command(faulty, none), "ghostlight run --config 'my file.toml' --check");
        assert_eq!(command(|f| f.sight = Some(Sight::Denied), none), "sudo usermod -aG video \"$USER\"");
        assert_eq!(command(|f| f.sight = Some(Sight::Nothing), none), "ghostlight detect models/samples");
        let bare = |f: &mut Facts| (f.sight, f.samples) = (Some(Sight::Nothing), None);
        assert_eq!(command(bare, none), "ghostlight doctor");
        let stream = |f: &mut Facts| (f.sight, f.camera) = (Some(Sight::Nothing), false);
        assert_eq!(command(stream, none), "ghostlight doctor");
        assert_eq!(command(|f| f.broker = false, none), "ghostlight doctor");
    }

    #[test]
    fn when_all_is_well_it_is_the_service_s() {
        let states = |enabled, active| Some((enabled, active));
        assert_eq!(command(|_| (), None), "ghostlight run");
        assert_eq!(command(|_| (), states("disabled", "inactive")), "sudo systemctl enable --now ghostlight");
        assert_eq!(
            command(|f| f.root = true, states("disabled", "inactive")),
            "systemctl enable --now ghostlight"
        );
        assert_eq!(command(|_| (), states("enabled", "inactive")), "sudo systemctl enable --now ghostlight");
        assert_eq!(command(|_| (), states("enabled", "active")), "journalctl -fu ghostlight");
        assert_eq!(command(|_| (), states("disabled", "active")), "sudo systemctl enable ghostlight");
        assert_eq!(command(|_| (), states("enabled", "failed")), "journalctl -eu ghostlight");
        // The service has another configuration than the one that was looked at.
        let other = |f: &mut Facts| f.config = Some(Path::new("g.toml"));
        assert_eq!(command(other, states("enabled", "inactive")), "ghostlight run --config g.toml");
    }
}
