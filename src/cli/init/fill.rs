//! The configuration's text: the example with the lines filled in that are known.

use std::path::PathBuf;

use crate::config::value::quoted;

/// The example, in which every key stands in a comment.
pub const EXAMPLE: &str = include_str!("../../../systemd/ghostlight.toml");

/// What is known of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Name of the device.
    pub device: String,
    /// The model's file, where it is not found without being named.
    pub model: Option<PathBuf>,
    /// All classes of the model.
    pub classes: Vec<String>,
    /// Those to keep; empty keeps all.
    pub kept: Vec<String>,
    /// The camera.
    pub camera: Option<String>,
    /// Whether a broker answers here.
    pub broker: bool,
}

/// The text of the file.
pub fn fill(known: &Known) -> String {
    let mut lines: Vec<String> = EXAMPLE.lines().map(str::to_owned).collect();
    let mut set = |section: &str, key: &str, value: String| {
        replace(&mut lines, section, key, &format!("{key} = {value}"))
    };
    set("", "device", quoted(&known.device));
    if let Some(path) = &known.model {
        set("model", "path", quoted(&path.display().to_string()));
    }
    if let Some(camera) = &known.camera {
        set("source", "device", quoted(camera));
    }
    set("jsonl", "enabled", "true".into());
    set("mqtt", "enabled", known.broker.to_string());
    if known.broker {
        set("mqtt", "host", quoted("localhost"));
        set("mqtt", "port", "1883".into());
    }
    let list =
        |names: &[String]| format!("[{}]", names.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", "));
    match (known.kept.is_empty(), known.classes.is_empty()) {
        (false, _) => set("model", "classes", list(&known.kept)),
        // The names that may be listed stay in the comment.
        (true, false) => {
            let all = format!("#classes = {}", list(&known.classes));
            replace(&mut lines, "model", "classes", &all);
        }
        (true, true) => {}
    }
    lines.join("\n") + "\n"
}

/// Puts `line` in the place of the section's key, commented or not.
fn replace(lines: &mut [String], section: &str, key: &str, line: &str) {
    let mut here = "";
    let mut place = None;
    for (index, text) in lines.iter().enumerate() {
        let bare = text.strip_prefix('#').unwrap_or(text);
        if let Some(name) = bare.strip_prefix('[') {
            here = name.trim_matches(['[', ']']);
        } else if here == section && bare.split(" = ").next() == Some(key) {
            place = Some(index);
            break;
        }
    }
    let place = place.expect("the example has every key: config's tests hold it so");
    line.clone_into(&mut lines[place]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn known() -> Known {
        Known {
            device: "yard".into(),
            classes: ["empty", "occupied", "traffic \"light\""].map(String::from).into(),
            ..Known::default()
        }
    }

    /// The configuration as it is read back.
    fn read(known: &Known) -> config::Loaded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.toml");
        std::fs::write(&path, fill(known)).unwrap();
        let loaded = config::load(Some(&path), Vec::new()).unwrap_or_else(|problems| panic!("{problems:?}"));
        loaded.watch(&known.classes).unwrap_or_else(|problems| panic!("{problems:?}"));
        loaded
    }

    #[test]
    fn what_is_written_is_sound_with_and_without_each() {
        let model = tempfile::NamedTempFile::new().unwrap();
        for camera in [None, Some("/dev/v4l/by-id/usb-Cam_1-video-index0".to_owned())] {
            for broker in [false, true] {
                for kept in [vec![], vec!["occupied".to_owned(), "traffic \"light\"".to_owned()]] {
                    for model in [None, Some(model.path().to_path_buf())] {
                        let known =
                            Known { camera: camera.clone(), broker, kept: kept.clone(), model, ..known() };
                        let config = read(&known).config;
                        assert_eq!(config.device.as_deref(), Some("yard"));
                        assert_eq!(config.source.address, camera.as_deref().unwrap_or("/dev/video0"));
                        assert_eq!(config.detection.classes, kept);
                        assert_eq!(config.model.path, known.model);
                        assert_eq!(
                            config.mqtt.map(|mqtt| mqtt.broker()),
                            broker.then(|| "mqtt://localhost:1883".into())
                        );
                        assert!(config.jsonl.enabled);
                    }
                }
            }
        }
    }

    #[test]
    fn the_rest_stays_as_the_example_has_it() {
        let known = Known { camera: Some("/dev/video2".into()), broker: true, ..known() };
        let text = fill(&known);
        let changed: Vec<&str> =
            text.lines().zip(EXAMPLE.lines()).filter(|(new, old)| new != old).map(|(new, _)| new).collect();
        assert_eq!(text.lines().count(), EXAMPLE.lines().count());
        let expected = [
            "device = \"yard\"",
            "#classes = [\"empty\", \"occupied\", \"traffic \\\"light\\\"\"]",
            "device = \"/dev/video2\"",
            "enabled = true",
            "host = \"localhost\"",
            "port = 1883",
        ];
        assert_eq!(changed, expected);
        // Without a model nothing is known of its classes.
        let bare = fill(&Known { device: "yard".into(), ..Known::default() });
        assert!(
            bare.contains("\n#classes = [\"person\"]\n") && bare.contains("\nenabled = false\n"),
            "{bare}"
        );
    }
}
