//! The model: opened and run once.

use std::path::{Path, PathBuf};

use super::report::Line;
use crate::cli::backend::Runner;
use crate::cli::error::CliError;
use crate::cli::model_path;
use crate::cli::run;
use crate::config::Loaded;
use crate::vision::{NmsOptions, Pixels, Size};

/// What later checks need of a model that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Works {
    /// Names of its classes.
    pub classes: Vec<String>,
    /// Size of its input.
    pub input: Size,
}

/// Opens the configuration's model as `run` does and times a picture.
pub fn look(loaded: &Loaded) -> (Line, Option<Works>) {
    let model = &loaded.config.model;
    let opened = run::find_model(loaded)
        .and_then(|path| run::open_model(&path, model).map(|runner| (path, runner)))
        .and_then(|(path, mut runner)| time(runner.as_mut()).map(|ms| (path, runner, ms)));
    match opened {
        Ok((path, runner, ms)) => {
            let works = Works { classes: runner.classes().to_vec(), input: runner.input() };
            (Line::ok("model", describe(&path, runner.as_ref(), ms)), Some(works))
        }
        Err(CliError::NoInput { subject, cause }) if subject == "model" => {
            (Line::warning("model", cause), None)
        }
        Err(error) => (Line::warning("model", error.to_string()), None),
    }
}

/// Milliseconds of a blank picture of the input's size, the second one: the first fills caches.
fn time(runner: &mut dyn Runner) -> Result<f64, CliError> {
    let size = runner.input();
    let bytes = vec![0; 3 * size.width * size.height];
    let picture = Pixels::rgb(size, &bytes);
    runner.detect(picture, &NmsOptions::default())?;
    let answer = runner.detect(picture, &NmsOptions::default())?;
    Ok(answer.preprocess_ms + answer.inference_ms + answer.postprocess_ms)
}

fn describe(path: &Path, runner: &dyn Runner, ms: f64) -> String {
    let Size { width, height } = runner.input();
    let classes = match runner.classes().len() {
        1 => "1 class".to_owned(),
        count => format!("{count} classes"),
    };
    let decimals = usize::from(ms < 10.0);
    let path = path.display();
    format!("{path}: {}, {classes}, {height}x{width}, {ms:.decimals$} ms a picture here", runner.model())
}

/// A folder of sample pictures to try the model with.
pub fn samples() -> Option<PathBuf> {
    samples_near(model_path::folders())
}

/// Samples lie in the models' folder, as in a checkout, or beside it, as packages have it.
fn samples_near(mut models: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    models.find_map(|folder| {
        let beside = folder.parent().map(|parent| parent.join("samples"));
        [Some(folder.join("samples")), beside].into_iter().flatten().find(|path| path.is_dir())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_in_the_models_folder_or_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let [checkout, package] = ["checkout/models", "share/models"].map(|name| root.path().join(name));
        let (inside, beside) = (checkout.join("samples"), root.path().join("share/samples"));
        let find = || samples_near([checkout.clone(), package.clone()].into_iter());
        assert_eq!(find(), None);
        std::fs::create_dir_all(&beside).unwrap();
        assert_eq!(find(), Some(beside));
        std::fs::create_dir_all(&inside).unwrap();
        assert_eq!(find(), Some(inside));
    }
}
