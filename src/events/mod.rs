//! From detections to events: which detections count, and when a class appears or leaves.
//!
//! A detection is kept where its class is watched, its confidence reaches the class's threshold, and the middle
//! of its box's lower edge (where an object stands on the ground) lies in the zones. A class is *present* after
//! [`Options::frames_on`] pictures in a row with one, and absent again after [`Options::frames_off`] without.

mod zone;

use std::time::{Duration, Instant};

use crate::vision::{Detection, Size};

pub use zone::{Kind, Point, Zone, ZoneError};

/// A class to watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Its number in the model.
    pub id: usize,
    /// Detections below it do not count. 0 to 1.
    pub min_confidence: f32,
}

/// Options of [`Rules`].
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The classes to watch; others are left out. Their order is that of all results.
    pub classes: Vec<Class>,
    /// Where detections count; everywhere without zones.
    pub zones: Vec<Zone>,
    /// Pictures in a row with a class until it is present; at least 1.
    pub frames_on: u32,
    /// Pictures in a row without it until it is absent; at least 1.
    pub frames_off: u32,
    /// A class appears no sooner after it last appeared.
    pub cooldown: Duration,
}

impl Options {
    /// Defaults: everywhere, on after 3 pictures, off after 15, no cooldown.
    pub fn new(classes: Vec<Class>) -> Self {
        Self { classes, zones: Vec::new(), frames_on: 3, frames_off: 15, cooldown: Duration::ZERO }
    }
}

/// What is wrong with the options.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// A confidence outside 0 to 1.
    #[error("class {class}: a confidence of {found}; give 0 to 1")]
    Confidence {
        /// Number of the class.
        class: usize,
        /// The confidence given.
        found: f32,
    },
    /// A class twice.
    #[error("class {class} is watched twice; once is enough")]
    Twice {
        /// Number of the class.
        class: usize,
    },
    /// No picture at all is too few.
    #[error("0 pictures until a class is {state}; give at least 1")]
    Frames {
        /// `present` or `absent`.
        state: &'static str,
    },
    /// A zone names a class that is not watched.
    #[error("zone {zone:?} names class {class}, which is not watched")]
    ZoneClass {
        /// The zone.
        zone: String,
        /// Number of the class.
        class: usize,
    },
    /// A zone's polygon is none.
    #[error("zone {zone:?}: {source}")]
    Zone {
        /// The zone.
        zone: String,
        /// What is wrong.
        source: ZoneError,
    },
}

/// A class appeared or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Its place in [`Options::classes`].
    pub class: usize,
    /// Whether it is present now.
    pub present: bool,
    /// When.
    pub at: Instant,
}

/// What the rules make of a picture. Lists by class follow [`Options::classes`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<'a> {
    /// Detections that count, in their order.
    pub kept: &'a [Detection],
    /// How many of each class.
    pub counts: &'a [u32],
    /// Whether each class is present.
    pub present: &'a [bool],
    /// Classes that appeared or left with this picture.
    pub transitions: &'a [Transition],
}

/// Checked options, and what was seen so far. Allocates nothing once its lists have grown.
#[derive(Debug)]
pub struct Rules {
    options: Options,
    memory: Vec<Memory>,
    kept: Vec<Detection>,
    counts: Vec<u32>,
    present: Vec<bool>,
    transitions: Vec<Transition>,
}

/// What is remembered of a class.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// Pictures in a row that speak against the present state.
    against: u32,
    appeared: Option<Instant>,
}

impl Rules {
    /// Checks the options.
    pub fn new(options: Options) -> Result<Self, RulesError> {
        check(&options)?;
        let classes = options.classes.len();
        Ok(Self {
            options,
            memory: vec![Memory::default(); classes],
            kept: Vec::new(),
            counts: vec![0; classes],
            present: vec![false; classes],
            transitions: Vec::new(),
        })
    }

    /// Judges the detections of the next picture of size `image`, taken `at`.
    pub fn apply(&mut self, detections: &[Detection], image: Size, at: Instant) -> Verdict<'_> {
        self.kept.clear();
        self.counts.fill(0);
        self.transitions.clear();
        for detection in detections {
            if let Some(class) = self.counted_as(detection, image) {
                self.kept.push(*detection);
                self.counts[class] += 1;
            }
        }
        for class in 0..self.counts.len() {
            self.remember(class, at);
        }
        Verdict {
            kept: &self.kept,
            counts: &self.counts,
            present: &self.present,
            transitions: &self.transitions,
        }
    }

    /// The class as which a detection counts, if it does.
    fn counted_as(&self, detection: &Detection, image: Size) -> Option<usize> {
        let class = self.options.classes.iter().position(|class| class.id == detection.class_id)?;
        let sure = detection.confidence >= self.options.classes[class].min_confidence;
        let placed = || zone::allow(&self.options.zones, detection.class_id, stand(detection, image));
        (sure && placed()).then_some(class)
    }

    fn remember(&mut self, class: usize, at: Instant) {
        let (seen, memory) = (self.counts[class] > 0, &mut self.memory[class]);
        if seen == self.present[class] {
            memory.against = 0;
            return;
        }
        memory.against = memory.against.saturating_add(1);
        let needed = if seen { self.options.frames_on } else { self.options.frames_off };
        let cooling = seen
            && memory.appeared.is_some_and(|last| at.saturating_duration_since(last) < self.options.cooldown);
        if memory.against < needed || cooling {
            return;
        }
        memory.against = 0;
        if seen {
            memory.appeared = Some(at);
        }
        self.present[class] = seen;
        self.transitions.push(Transition { class, present: seen, at });
    }
}

/// Where an object stands: the middle of its box's lower edge, as shares of the picture, inside it.
fn stand(detection: &Detection, image: Size) -> Point {
    let share = |pixels: f32, all: usize| (f64::from(pixels) / all.max(1) as f64).clamp(0.0, 1.0);
    Point {
        x: share(f32::midpoint(detection.x1, detection.x2), image.width),
        y: share(detection.y2, image.height),
    }
}

fn check(options: &Options) -> Result<(), RulesError> {
    for (index, class) in options.classes.iter().enumerate() {
        if !(0.0..=1.0).contains(&class.min_confidence) {
            return Err(RulesError::Confidence { class: class.id, found: class.min_confidence });
        }
        if options.classes[..index].iter().any(|other| other.id == class.id) {
            return Err(RulesError::Twice { class: class.id });
        }
    }
    for (frames, state) in [(options.frames_on, "present"), (options.frames_off, "absent")] {
        if frames == 0 {
            return Err(RulesError::Frames { state });
        }
    }
    for zone in &options.zones {
        zone.check().map_err(|source| RulesError::Zone { zone: zone.name.clone(), source })?;
        let unknown = |id: &&usize| !options.classes.iter().any(|class| class.id == **id);
        if let Some(&class) = zone.classes.iter().find(unknown) {
            return Err(RulesError::ZoneClass { zone: zone.name.clone(), class });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
