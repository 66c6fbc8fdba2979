//! Finding the model.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::config;

/// Environment variable that names the model.
pub const VARIABLE: &str = "GHOSTLIGHT_MODEL";
/// The model that is taken when nobody names one, in the working directory.
const HERE: &str = "models/default.safetensors";
/// The same below the prefix where the program is installed.
const SHARED: &str = "share/ghostlight/models/default.safetensors";
/// The same where packages put it.
pub const SYSTEM: &str = "/usr/share/ghostlight/models/default.safetensors";

/// The model's path: the flag, else the variable, else the configuration's, else the first usual place where
/// there is one.
///
/// A model that was asked for is never replaced by another.
pub fn find(flag: Option<&Path>) -> Result<PathBuf, CliError> {
    if flag.is_none()
        && let Some(path) = asked()?
    {
        return Ok(path);
    }
    find_among(flag, None, &places())
}

/// Where a model lies when nobody says so: here, beside the program (`PREFIX/bin`), in the system.
fn places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(HERE)];
    let program = env::current_exe().ok();
    places.extend(program.as_deref().and_then(Path::parent).and_then(Path::parent).map(|p| p.join(SHARED)));
    let system = PathBuf::from(SYSTEM);
    if !places.contains(&system) {
        places.push(system);
    }
    places
}

/// The model that the variable names, else the configuration's; `None` where neither names one.
pub fn asked() -> Result<Option<PathBuf>, CliError> {
    match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(variable) => find_among(None, Some(&variable), &[]).map(Some),
        None => config::find(None).map_or(Ok(None), |file| of_config(&file)),
    }
}

/// The folders of the usual places, whether they are there or not.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    places().into_iter().filter_map(|place| place.parent().map(Path::to_path_buf))
}

/// The model where neither flag, variable nor configuration names one.
pub fn usual() -> Result<PathBuf, CliError> {
    find_among(None, None, &places())
}

/// `[model] path` of the daemon's configuration.
fn of_config(file: &Path) -> Result<Option<PathBuf>, CliError> {
    let subject = file.display().to_string();
    let path = config::model_path(file).map_err(|problems| CliError::Config {
        subject: subject.clone(),
        cause: format!("{}; give --model to do without it", problems[0].cause),
    })?;
    match path {
        Some(path) if !path.exists() => Err(CliError::Config {
            subject,
            cause: format!("[model] path: no such model {}; check the path", path.display()),
        }),
        path => Ok(path),
    }
}

fn find_among(
    flag: Option<&Path>,
    variable: Option<&OsStr>,
    places: &[PathBuf],
) -> Result<PathBuf, CliError> {
    let missing = |subject: String, cause: String| CliError::NoInput { subject, cause };
    if let Some(path) = flag {
        return match path.exists() {
            true => Ok(path.to_path_buf()),
            false => Err(missing(path.display().to_string(), "no such model; check --model".into())),
        };
    }
    if let Some(path) = variable.filter(|path| !path.is_empty()).map(Path::new) {
        return match path.exists() {
            true => Ok(path.to_path_buf()),
            false => Err(missing(path.display().to_string(), format!("no such model; check ${VARIABLE}"))),
        };
    }
    if let Some(place) = places.iter().find(|place| place.exists()) {
        return Ok(place.clone());
    }
    let file = config::find(None).map_or("none".into(), |file| file.display().to_string());
    let mut looked = vec!["--model (not given)".to_owned(), format!("${VARIABLE} (not set)")];
    looked.push(format!("[model] path of the configuration ({file})"));
    looked.extend(places.iter().map(|place| format!("{} (absent)", place.display())));
    Err(missing(
        "model".into(),
        format!(
            "none found; looked at {}; give one with --model, or make one with 'ghostlight convert'",
            looked.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Exit;

    #[test]
    fn the_first_that_is_given_or_there() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, absent] = ["a", "b", "absent"].map(|name| folder.path().join(name));
        std::fs::write(&a, "").unwrap();
        std::fs::write(&b, "").unwrap();
        let places = [absent.clone(), b.clone()];
        let variable = Some(b.as_os_str());
        assert_eq!(find_among(Some(&a), variable, &places).unwrap(), a);
        assert_eq!(find_among(None, Some(a.as_os_str()), &places).unwrap(), a);
        assert_eq!(find_among(None, Some(OsStr::new("")), &places).unwrap(), b);
        assert_eq!(find_among(None, None, &places).unwrap(), b);
        // What was asked for and is absent is an error, although another model is there.
        let flag = find_among(Some(&absent), variable, &places).unwrap_err();
        assert!(flag.to_string().contains("--model") && flag.exit() == Exit::NoInput);
        let variable = find_among(None, Some(absent.as_os_str()), &places).unwrap_err();
        assert!(variable.to_string().contains("$GHOSTLIGHT_MODEL"));
    }

    #[test]
    fn the_error_lists_all_places() {
        let error = find_among(None, None, &["/absent/x", "/absent/y"].map(PathBuf::from)).unwrap_err();
        let text = error.to_string();
        for part in ["--model", "$GHOSTLIGHT_MODEL", "/absent/x", "/absent/y", "ghostlight convert"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
