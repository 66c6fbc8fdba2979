//! Names of classes to the model's numbers.

use super::{Loaded, Place, Problem};
use crate::events::{self, Class};
use crate::nearest::nearest;
use crate::vision::NmsOptions;

/// What to look for, in the model's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// Which detections the network keeps.
    pub nms: NmsOptions,
    /// Names of the watched classes, in the order of [`events::Options::classes`].
    pub names: Vec<String>,
    /// Which of them count, and when they are events.
    pub rules: events::Options,
}

impl Loaded {
    /// What to look for with a model of classes `known`.
    ///
    /// # Errors
    /// Every class that the model does not know.
    pub fn watch(&self, known: &[String]) -> Result<Watch, Vec<Problem>> {
        let config = &self.config;
        let mut problems = Vec::new();
        let mut ids = |names: &[String], header: &str, key: &str| -> Vec<usize> {
            let id = |name: &String| {
                let found = known.iter().position(|k| k == name);
                if found.is_none() {
                    problems.push(self.problem(header, key, unknown(name, known)));
                }
                found
            };
            names.iter().filter_map(id).collect()
        };
        let mut watched = ids(&config.detection.classes, "[model]", "classes");
        watched.sort_unstable();
        watched.dedup();
        if config.detection.classes.is_empty() {
            watched = (0..known.len()).collect();
        }
        let mut least = vec![config.detection.conf; known.len()];
        let mut unwatched = Vec::new();
        for (name, confidence) in &config.events.confidence {
            let header = format!("[classes.{}]", super::value::key(name));
            for id in ids(std::slice::from_ref(name), &header, "confidence") {
                least[id] = *confidence;
                if !watched.contains(&id) {
                    unwatched.push((header.clone(), "confidence", name.clone()));
                }
            }
        }
        let mut zones = Vec::new();
        for (index, zone) in config.events.zones.iter().enumerate() {
            let header = format!("[[zones]] {}", index + 1);
            let classes = ids(&zone.classes, &header, "classes");
            for &id in classes.iter().filter(|id| !watched.contains(id)) {
                unwatched.push((header.clone(), "classes", known[id].clone()));
            }
            zones.push(events::Zone {
                name: zone.name.clone(),
                kind: zone.kind,
                classes,
                points: zone.points.clone(),
            });
        }
        for (header, key, name) in unwatched {
            let cause = format!("'{name}' is not among [model] classes; add it there, or leave it out here");
            problems.push(self.problem(&header, key, cause));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let classes: Vec<Class> = watched.iter().map(|&id| Class { id, min_confidence: least[id] }).collect();
        let nms = NmsOptions {
            confidence: classes.iter().map(|c| c.min_confidence).fold(f32::INFINITY, f32::min).min(1.0),
            iou: config.detection.iou,
            max_detections: config.detection.max_det,
            classes: (watched.len() < known.len()).then(|| watched.clone()),
            ..NmsOptions::default()
        };
        let mut rules = events::Options::new(classes);
        rules.zones = zones;
        rules.frames_on = config.events.min_frames;
        rules.cooldown = config.events.cooldown;
        Ok(Watch { nms, names: watched.iter().map(|&id| known[id].clone()).collect(), rules })
    }

    /// Where a value came from; the header is written as `[model]`.
    pub fn place(&self, header: &str, key: &str) -> Place {
        let entry = self.entries.iter().find(|entry| entry.header == header && entry.key == key);
        entry.map_or(Place::Default, |entry| entry.place.clone())
    }

    fn problem(&self, header: &str, key: &str, cause: String) -> Problem {
        Problem { place: self.place(header, key), key: format!("{header} {key}"), cause }
    }
}

fn unknown(name: &str, known: &[String]) -> String {
    let names = || known.iter().map(String::as_str);
    match nearest(name, names()) {
        Some(near) => format!("this model has no class '{name}'; did you mean '{near}'?"),
        None => {
            let list = names().collect::<Vec<_>>().join(", ");
            format!("this model has no class '{name}'; it knows {list}")
        }
    }
}
