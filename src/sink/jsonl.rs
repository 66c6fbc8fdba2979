//! One JSON line per picture, `ghostlight.detections/1`; `detections.schema.json` describes it.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;

use super::time::rfc3339;
use crate::vision::{Detection, Size};

/// Name and version of the line's format.
pub const SCHEMA: &str = "ghostlight.detections/1";
/// The line's JSON Schema (draft 2020-12).
pub const JSON_SCHEMA: &str = include_str!("detections.schema.json");

/// Milliseconds that a picture took, by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// File or frame to RGB.
    pub decode: f64,
    /// RGB to the engine's input.
    pub preprocess: f64,
    /// The network.
    pub inference: f64,
    /// Heads to boxes.
    pub postprocess: f64,
    /// From capture (for a file: from opening it) to publishing.
    pub total: f64,
}

/// What was found in a picture.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Size of the original picture.
    pub image: Size,
    /// Detections, the most confident first.
    pub detections: &'a [Detection],
    /// Milliseconds by stage.
    pub timing: Timing,
}

/// All that a line says.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Name of this device.
    pub device: &'a str,
    /// Camera, stream, or file as its path was given.
    pub source: &'a str,
    /// Number of the picture in this run.
    pub seq: u64,
    /// When it was captured; for a file when it was opened.
    pub captured_at: SystemTime,
    /// When this line is written.
    pub published_at: SystemTime,
    /// Name and version of the model.
    pub model: &'a str,
    /// Class names, by class id.
    pub classes: &'a [String],
    /// What was found, or why the picture could not be read.
    pub outcome: Result<Found<'a>, &'a str>,
    /// Frames dropped since the last line, because newer ones came first.
    pub dropped_frames: u64,
}

/// Writes `record` as one line.
pub fn write_record(out: &mut dyn Write, record: &Record<'_>) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Line::of(record)).map_err(io::Error::other)?;
    line.push(b'\n');
    // One call: a reader on a pipe sees whole lines.
    out.write_all(&line)
}

/// The line's keys, in the order in which they are written.
#[derive(Serialize)]
struct Line<'a> {
    schema: &'a str,
    device: &'a str,
    source: &'a str,
    seq: u64,
    captured_at: String,
    published_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageSize>,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detections: Option<Vec<Object<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timing_ms: Option<TimingMs>,
    dropped_frames: u64,
}

#[derive(Serialize)]
struct ImageSize {
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct Object<'a> {
    class_id: usize,
    class: &'a str,
    confidence: f64,
    #[serde(rename = "box")]
    corners: Corners,
}

#[derive(Serialize)]
struct Corners {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
}

#[derive(Serialize)]
struct TimingMs {
    decode: f64,
    preprocess: f64,
    inference: f64,
    postprocess: f64,
    total: f64,
}

impl<'a> Line<'a> {
    fn of(record: &Record<'a>) -> Self {
        let found = record.outcome.ok();
        Self {
            schema: SCHEMA,
            device: record.device,
            source: record.source,
            seq: record.seq,
            captured_at: rfc3339(record.captured_at),
            published_at: rfc3339(record.published_at),
            image: found.map(|f| ImageSize { width: f.image.width, height: f.image.height }),
            model: record.model,
            detections: found.map(|f| f.detections.iter().map(|d| Object::of(d, record.classes)).collect()),
            error: record.outcome.err(),
            timing_ms: found.map(|f| TimingMs {
                decode: round(f.timing.decode, 100.0),
                preprocess: round(f.timing.preprocess, 100.0),
                inference: round(f.timing.inference, 100.0),
                postprocess: round(f.timing.postprocess, 100.0),
                total: round(f.timing.total, 100.0),
            }),
            dropped_frames: record.dropped_frames,
        }
    }
}

impl<'a> Object<'a> {
    fn of(detection: &Detection, classes: &'a [String]) -> Self {
        let tenth = |pixels: f32| round(f64::from(pixels), 10.0);
        Self {
            class_id: detection.class_id,
            class: classes.get(detection.class_id).map_or("", String::as_str),
            confidence: round(f64::from(detection.confidence), 10_000.0),
            corners: Corners {
                x1: tenth(detection.x1),
                y1: tenth(detection.y1),
                x2: tenth(detection.x2),
                y2: tenth(detection.y2),
            },
        }
    }
}

/// `value` to the nearest `1 / steps`.
fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
#[path = "../../tests/support/schema.rs"]
pub(crate) mod schema;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const AT: SystemTime = UNIX_EPOCH;

    fn line(record: &Record<'_>) -> String {
        let mut bytes = Vec::new();
        write_record(&mut bytes, record).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn record<'a>(outcome: Result<Found<'a>, &'a str>, classes: &'a [String]) -> Record<'a> {
        Record {
            device: "yard",
            source: "/dev/video0",
            seq: 1041,
            captured_at: AT + Duration::from_micros(1_795_514_400_123_456),
            published_at: AT + Duration::from_micros(1_795_514_400_171_002),
            model: "yolov8n-dynamicconv@1f3a9c02",
            classes,
            outcome,
            dropped_frames: 3,
        }
    }

    #[test]
    fn a_line_as_promised() {
        let detections =
            [Detection { class_id: 0, confidence: 0.91298, x1: 12.46, y1: 40.0, x2: 220.09, y2: 600.7001 }];
        let found = Found {
            image: Size { width: 1280, height: 720 },
            detections: &detections,
            timing: Timing {
                decode: 1.9,
                preprocess: 0.6,
                inference: 23.104_9,
                postprocess: 0.2,
                total: 47.9,
            },
        };
        let got = line(&record(Ok(found), &["person".into()]));
        let expected = concat!(
            r#"{"schema":"ghostlight.detections/1","device":"yard","source":"/dev/video0","seq":1041,"#,
            r#""captured_at":"2026-11-24T10:00:00.123456Z","published_at":"2026-11-24T10:00:00.171002Z","#,
            r#""image":{"width":1280,"height":720},"model":"yolov8n-dynamicconv@1f3a9c02","#,
            r#""detections":[{"class_id":0,"class":"person","confidence":0.913,"#,
            r#""box":{"x1":12.5,"y1":40.0,"x2":220.1,"y2":600.7}}],"#,
            r#""timing_ms":{"decode":1.9,"preprocess":0.6,"inference":23.1,"postprocess":0.2,"total":47.9},"#,
            r#""dropped_frames":3}"#,
            "\n"
        );
        assert_eq!(got, expected);
        schema::check(JSON_SCHEMA, &got).unwrap();
    }

    #[test]
    fn an_error_takes_the_place_of_detections() {
        let got = line(&record(Err("broken JPEG (\"x\"\n); save it again"), &[]));
        assert!(got.contains(r#""error":"broken JPEG (\"x\"\n); save it again""#), "{got}");
        assert!(!got.contains("detections\":[") && got.matches('\n').count() == 1);
        schema::check(JSON_SCHEMA, &got).unwrap();
    }

    #[test]
    fn the_schema_refuses_what_is_no_line() {
        let good = line(&record(Err("cause"), &[]));
        for (from, to) in [
            ("ghostlight.detections/1", "ghostlight.detections/2"),
            ("\"seq\":1041", "\"seq\":-1"),
            ("\"seq\":1041", "\"seq\":\"1041\""),
            ("\"error\":\"cause\",", ""),
            ("\"error\":\"cause\"", "\"error\":\"cause\",\"detections\":[]"),
            ("\"dropped_frames\":3", "\"dropped_frames\":3,\"extra\":1"),
            (".123456Z", "Z"),
            ("\"device\":\"yard\",", ""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(schema::check(JSON_SCHEMA, &bad).is_err(), "{bad}");
        }
    }
}
