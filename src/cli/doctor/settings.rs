//! The configuration that `ghostlight run` would use.

use std::path::{Path, PathBuf};

use super::report::Line;
use crate::cli::run;
use crate::config::value::Value;
use crate::config::{self, Loaded, Override, Place, Problem};

const CHECK: &str = "configuration";

/// The configuration, or what is wrong with it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its file; `None` where there is none.
    pub file: Option<PathBuf>,
    /// Values of the file, or the defaults without one; after faults, the defaults with the file's model.
    pub loaded: Loaded,
    problems: Vec<Problem>,
}

impl Settings {
    /// Reads `file`, if there is one; `model` is the flag's. A service's `credentials` stand for the bare names that
    /// it is given them under.
    pub fn read(file: Option<PathBuf>, model: Option<&Path>, credentials: &[(String, PathBuf)]) -> Self {
        let mut overrides: Vec<Override> = match model {
            Some(path) => vec![model_override(path, Place::Flag("--model"))],
            None => run::model_variable().into_iter().collect(),
        };
        let mut read = config::load(file.as_deref(), overrides.clone());
        for (name, path) in credentials {
            let Err(problems) = &read else { break };
            if problems.iter().any(|problem| lacks(problem, name)) {
                let mut overrides = overrides.clone();
                overrides.push(Override {
                    section: "mqtt",
                    key: "password_file",
                    value: Value::Text(path.display().to_string()),
                    place: Place::Flag("LoadCredential="),
                });
                read = config::load(file.as_deref(), overrides);
            }
        }
        let (loaded, problems) = match read {
            Ok(loaded) => (loaded, Vec::new()),
            Err(problems) => {
                let named = file.as_deref().and_then(|file| config::model_path(file).ok().flatten());
                if let Some(path) = named.filter(|_| overrides.is_empty()) {
                    overrides.push(model_override(&path, Place::Flag("[model] path")));
                }
                // Without a file only flags could be wrong, and these are paths.
                match config::load(None, overrides) {
                    Ok(loaded) => (loaded, problems),
                    Err(more) => (defaults(), problems.into_iter().chain(more).collect()),
                }
            }
        };
        Self { file, loaded, problems }
    }

    /// Looks the configuration's classes up in the model's.
    pub fn look_up(&mut self, classes: &[String]) {
        if let (true, Err(problems)) = (self.problems.is_empty(), self.loaded.watch(classes)) {
            self.problems = problems;
        }
    }

    /// Whether there is a file, without a fault.
    pub fn is_sound(&self) -> bool {
        self.file.is_some() && self.problems.is_empty()
    }

    /// Whether another user than this one might read what this one may not.
    pub fn is_denied(&self) -> bool {
        self.problems.iter().any(|problem| problem.cause.to_lowercase().contains("permission denied"))
    }

    /// What is to be said of it.
    pub fn lines(&self) -> Vec<Line> {
        match &self.file {
            None => {
                let text = format!(
                    "none: no --config, no ${}, no {}; 'ghostlight init' writes one",
                    config::VARIABLE,
                    config::USUAL
                );
                vec![Line::warning(CHECK, text)]
            }
            Some(file) if self.problems.is_empty() => {
                vec![Line::ok(CHECK, format!("{} is sound", file.display()))]
            }
            Some(_) => self.problems.iter().map(|p| Line::warning(CHECK, p.to_string())).collect(),
        }
    }
}

fn model_override(path: &Path, place: Place) -> Override {
    Override { section: "model", key: "path", value: Value::Text(path.display().to_string()), place }
}

/// Whether the fault is that the password's file of this name is not there.
fn lacks(problem: &Problem, name: &str) -> bool {
    problem.key == "[mqtt] password_file" && problem.cause.starts_with(&format!("no file {name};"))
}

fn defaults() -> Loaded {
    config::load(None, Vec::new()).expect("the defaults are sound: config's tests hold them so")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("g.toml");
        std::fs::write(&file, text).unwrap();
        (folder, file)
    }

    #[test]
    fn none_sound_and_each_problem() {
        let none = Settings::read(None, None, &[]);
        let [line] = &none.lines()[..] else { panic!("one line") };
        assert!(line.status == Status::Warning && line.text.contains("ghostlight init"), "{line:?}");
        assert!(!none.is_sound());

        let (_folder, file) = written("[source]\ndevice = '/dev/video7'\n");
        let sound = Settings::read(Some(file.clone()), None, &[]);
        assert_eq!(sound.lines(), [Line::ok("configuration", format!("{} is sound", file.display()))]);
        assert!(sound.is_sound());
        assert_eq!(sound.loaded.config.source.address, "/dev/video7");

        let (_folder, file) = written("devise = 'x'\n[model]\npath = '/dev/null'\nconf = 2\n");
        let faulty = Settings::read(Some(file.clone()), None, &[]);
        let lines = faulty.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].text.contains("g.toml:1: devise") && lines[1].text.contains("g.toml:4: [model] conf")
        );
        assert!(!faulty.is_sound());
        assert_eq!(
            faulty.loaded.config.model.path,
            Some("/dev/null".into()),
            "the model is looked at all the same"
        );

        let absent = Settings::read(Some("/absent/g.toml".into()), Some(Path::new("m")), &[]);
        assert!(absent.lines()[0].text.contains("no such file"), "{absent:?}");
        assert_eq!(absent.loaded.config.model.path, Some("m".into()));
    }

    #[test]
    fn what_only_root_may_read_is_told_apart() {
        let (_folder, file) = written("devise = 'x'\n");
        let mut settings = Settings::read(Some(file), None, &[]);
        assert!(!settings.is_denied());
        // As root, who runs some of these tests, nothing is denied.
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        settings.problems[0].cause = format!("/etc/secret: {denied}; check its owner and mode");
        assert!(settings.is_denied());
        let system = std::io::Error::from_raw_os_error(libc::EACCES);
        settings.problems[0].cause = format!("cannot be read: {system}");
        assert!(settings.is_denied());
    }

    #[test]
    fn classes_that_the_model_lacks_are_problems() {
        let (_folder, file) = written("[model]\nclasses = ['car']\n");
        let mut settings = Settings::read(Some(file), None, &[]);
        settings.look_up(&["car".into()]);
        assert!(settings.is_sound());
        settings.look_up(&["person".into()]);
        assert!(!settings.is_sound() && settings.lines()[0].text.contains("no class 'car'"), "{settings:?}");
    }

    #[test]
    fn a_credential_of_the_unit_is_found_outside_of_it() {
        let (folder, file) =
            written("[mqtt]\nenabled = true\nusername = 'camera'\npassword_file = 'absent-password'\n");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "word\n").unwrap();
        let without = Settings::read(Some(file.clone()), None, &[]);
        assert!(!without.is_sound());
        let credentials =
            [("other".into(), "/absent".into()), ("absent-password".to_owned(), secret.clone())];
        let with = Settings::read(Some(file), None, &credentials);
        assert!(with.is_sound(), "{with:?}");
        let credentials = with.loaded.config.mqtt.unwrap().credentials.unwrap();
        assert_eq!(credentials.password_file, Some(secret));
    }
}
