//! Flags that several commands share, and how their values are read.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
pub use crate::config::EngineKind;
use crate::config::{MAX_THREADS, parse_size};
use crate::nearest::nearest;
use crate::vision::{NmsOptions, Size};

/// Which model, and what runs it.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model file [default: $GHOSTLIGHT_MODEL, then the configuration's, then models/default.safetensors here,
    /// then the one that is installed with the program]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Size of the network's input in pixels, multiples of 32: one number for a square, or HEIGHTxWIDTH
    /// [default: the model's]
    #[arg(long, value_name = "N|HxW", value_parser = parse_size)]
    pub imgsz: Option<Size>,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<NonZeroUsize>,
    /// What computes
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// Force one set of kernels; `ghostlight doctor` lists them [default: the fastest that this CPU runs]
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

/// Which detections are kept.
#[derive(Debug, Clone, Args)]
pub struct DetectionArgs {
    /// Least confidence, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.25, value_parser = parse_fraction)]
    pub conf: f32,
    /// Most overlap (intersection over union) of two boxes of one class, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.7, value_parser = parse_fraction)]
    pub iou: f32,
    /// Most detections per picture
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub max_det: usize,
    /// Keep only these classes, by name
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub classes: Vec<String>,
}

impl DetectionArgs {
    /// These as options for a model with classes `known`; an unknown name is an error.
    pub fn options(&self, known: &[String]) -> Result<NmsOptions, CliError> {
        let id = |name: &String| {
            known.iter().position(|k| k == name).ok_or_else(|| CliError::Usage(unknown_class(name, known)))
        };
        let classes = match self.classes.as_slice() {
            [] => None,
            names => Some(names.iter().map(id).collect::<Result<Vec<_>, _>>()?),
        };
        Ok(NmsOptions {
            confidence: self.conf,
            iou: self.iou,
            max_detections: self.max_det,
            classes,
            ..NmsOptions::default()
        })
    }
}

fn unknown_class(name: &str, known: &[String]) -> String {
    let names = || known.iter().map(String::as_str);
    match nearest(name, names()) {
        Some(near) => format!("--classes: this model has no class '{name}'; did you mean '{near}'?"),
        None => {
            let list = names().collect::<Vec<_>>().join(", ");
            format!("--classes: this model has no class '{name}'; it knows {list}")
        }
    }
}

pub(super) fn parse_fraction(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("give a number from 0 to 1, like 0.25".into()),
    }
}

pub(super) fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= MAX_THREADS => Ok(threads),
        _ => Err(format!("give a number from 1 to {MAX_THREADS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        assert_eq!(parse_fraction("0.5"), Ok(0.5));
        for text in ["-0.1", "1.1", "NaN", "inf", "x", ""] {
            assert!(parse_fraction(text).is_err(), "{text}");
        }
    }

    #[test]
    fn threads() {
        assert_eq!(parse_threads("1024").map(NonZeroUsize::get), Ok(1024));
        for text in ["0", "1025", "99999999999999999999", "-1", "1.5", ""] {
            assert!(parse_threads(text).is_err(), "{text}");
        }
    }

    #[test]
    fn classes_by_name() {
        let known: Vec<String> = ["person", "car"].map(String::from).into();
        let args = |names: &[&str]| DetectionArgs {
            conf: 0.1,
            iou: 0.2,
            max_det: 3,
            classes: names.iter().map(|&n| n.into()).collect(),
        };
        assert_eq!(args(&[]).options(&known).unwrap().classes, None);
        assert_eq!(args(&["car", "person"]).options(&known).unwrap().classes, Some(vec![1, 0]));
        let error = args(&["persn"]).options(&known).unwrap_err().to_string();
        assert_eq!(error, "--classes: this model has no class 'persn'; did you mean 'person'?");
        let error = args(&["zebra"]).options(&known).unwrap_err().to_string();
        assert_eq!(error, "--classes: this model has no class 'zebra'; it knows person, car");
    }
}
