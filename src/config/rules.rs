//! `[events]`, `[classes.NAME]` and `[[zones]]`.

use std::time::Duration;

use super::scope::{Findings, Scope};
use super::{Events, Zone};
use crate::events::{self, Kind, Point};

/// What makes a detection an event.
pub fn events(root: &mut Scope, findings: &mut Findings) -> Events {
    let mut scope = root.section("events", findings);
    let min_frames = scope.whole_or("min_frames", 1..=1000, 3, findings) as u32;
    let cooldown = Duration::from_secs_f64(scope.number_or("cooldown", 0.0..=86_400.0, 10.0, findings));
    let snapshot = scope.flag("snapshot", false, findings);
    scope.close(findings);
    let confidence = classes(root, findings);
    let zones = zone_list(root, findings);
    Events { min_frames, cooldown, snapshot, confidence, zones }
}

fn classes(root: &mut Scope, findings: &mut Findings) -> Vec<(String, f32)> {
    let mut confidences = Vec::new();
    for (name, mut scope) in root.named_sections("classes", findings) {
        if let Some(confidence) = scope.number("confidence", 0.0..=1.0, "[model] conf", findings) {
            confidences.push((name, confidence as f32));
        }
        scope.close(findings);
    }
    confidences
}

fn zone_list(root: &mut Scope, findings: &mut Findings) -> Vec<Zone> {
    let mut list: Vec<Zone> = Vec::new();
    for mut scope in root.list_sections("zones", findings) {
        let name = scope.text("name", "", findings);
        let kinds = [("include", Kind::Include), ("exclude", Kind::Exclude)];
        let kind = scope.choice("kind", &kinds, 0, findings);
        let faults = findings.problems.len();
        let points = scope.points("points", findings);
        let points: Vec<Point> = points.into_iter().map(|[x, y]| Point { x, y }).collect();
        // Points that could not be read are told already.
        if findings.problems.len() == faults {
            let outline =
                events::Zone { name: String::new(), kind, classes: Vec::new(), points: points.clone() };
            if let Err(cause) = outline.check() {
                scope.fault("points", cause.to_string(), findings);
            }
        }
        let classes = scope.texts("classes", "all", findings);
        match name {
            None => scope.fault("name", "give each zone a name".into(), findings),
            Some(name) if list.iter().any(|zone| zone.name == name) => {
                scope.fault("name", format!("another zone is called '{name}'; rename one"), findings);
            }
            Some(name) => list.push(Zone { name, kind, points, classes }),
        }
        scope.close(findings);
    }
    list
}
