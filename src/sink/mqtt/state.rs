//! The state topic: counts and presence by class, speed, losses, temperature.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// Name and version of the state's format.
const SCHEMA: &str = "ghostlight.state/1";

/// What the device sees and how it fares. `counts` and `present` follow [`super::Options::classes`].
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// Objects of each class in the last picture.
    pub counts: &'a [u32],
    /// Whether each class is present, by the rules for events.
    pub present: &'a [bool],
    /// Pictures a second.
    pub fps: f64,
    /// Milliseconds from capture to publishing.
    pub latency_ms: f64,
    /// Frames dropped since the start.
    pub dropped_frames: u64,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: &'a str,
    counts: ByClass<'a, u32>,
    presence: ByClass<'a, bool>,
    fps: f64,
    latency_ms: f64,
    dropped_frames: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature_c: Option<f64>,
}

/// An object whose keys are class names.
struct ByClass<'a, T>(&'a [String], &'a [T]);

impl<T: Serialize> Serialize for ByClass<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl State<'_> {
    pub(super) fn to_json(self, classes: &[String], temperature_c: Option<f64>) -> Vec<u8> {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        let json = Json {
            schema: SCHEMA,
            counts: ByClass(classes, self.counts),
            presence: ByClass(classes, self.present),
            fps: tenths(self.fps),
            latency_ms: tenths(self.latency_ms),
            dropped_frames: self.dropped_frames,
            temperature_c: temperature_c.map(tenths),
        };
        serde_json::to_vec(&json).expect("keys are texts and values numbers or booleans")
    }
}

/// The hottest of the kernel's thermal zones.
#[derive(Debug)]
pub struct Thermometer {
    zones: Vec<PathBuf>,
}

impl Thermometer {
    /// None where no zone can be read.
    pub fn find() -> Option<Self> {
        Self::below(Path::new("/sys/class/thermal"))
    }

    /// The zones of another folder than the kernel's.
    pub fn below(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?;
        let zones = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("thermal_zone"))
            .map(|entry| entry.path().join("temp"))
            .collect();
        let thermometer = Self { zones };
        thermometer.celsius().is_some().then_some(thermometer)
    }

    /// Degrees now.
    pub fn celsius(&self) -> Option<f64> {
        let milli = |path: &PathBuf| fs::read_to_string(path).ok()?.trim().parse::<i32>().ok();
        self.zones.iter().filter_map(milli).max().map(|milli| f64::from(milli) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_as_promised() {
        let classes = ["person".to_owned(), "traffic \"light\"".to_owned()];
        let state = State {
            counts: &[2, 0],
            present: &[true, false],
            fps: 14.98,
            latency_ms: 47.91,
            dropped_frames: 3,
        };
        let text = String::from_utf8(state.to_json(&classes, Some(51.234))).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"schema":"ghostlight.state/1","counts":{"person":2,"traffic \"light\"":0},"#,
                r#""presence":{"person":true,"traffic \"light\"":false},"#,
                r#""fps":15.0,"latency_ms":47.9,"dropped_frames":3,"temperature_c":51.2}"#
            )
        );
        let cold = String::from_utf8(state.to_json(&classes, None)).unwrap();
        assert!(!cold.contains("temperature"));
        let nan = State { fps: f64::NAN, ..state };
        assert!(String::from_utf8(nan.to_json(&classes, None)).unwrap().contains("\"fps\":null"));
    }

    #[test]
    fn the_hottest_zone_counts() {
        let folder = tempfile::tempdir().unwrap();
        let zone = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let zones = vec![zone("a", "41000\n"), zone("b", "51234\n"), zone("c", "?"), "absent".into()];
        assert_eq!(Thermometer { zones }.celsius(), Some(51.234));
        assert_eq!(Thermometer { zones: vec![] }.celsius(), None);
    }
}
