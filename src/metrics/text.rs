//! Metrics as Prometheus text, format 0.0.4.

use std::fmt::{self, Write};
use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use super::histogram::ENDS;
use super::{Histogram, Metrics, Reason};

/// Content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics.
pub(super) fn render(metrics: &Metrics) -> String {
    let mut page = Page(String::with_capacity(8192));
    // Writing to a string does not fail.
    let _ = page.all(metrics);
    page.0
}

struct Page(String);

impl Page {
    fn all(&mut self, metrics: &Metrics) -> fmt::Result {
        self.head("build_info", "gauge", "1, labelled with the version.")?;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(self.0, "ghostlight_build_info{{version=\"{version}\"}} 1")?;
        self.one(
            "frames_total",
            "counter",
            "Frames that went through the detector.",
            count(&metrics.frames),
        )?;
        self.head("detections_total", "counter", "Objects detected.")?;
        for (class, total) in metrics.classes.iter().zip(&metrics.detections) {
            let (class, total) = (escaped(class), count(total));
            writeln!(self.0, "ghostlight_detections_total{{class=\"{class}\"}} {total}")?;
        }
        self.head("dropped_frames_total", "counter", "Frames without detections, by reason.")?;
        for reason in Reason::ALL {
            let (label, total) = (reason.label(), count(&metrics.dropped[reason as usize]));
            writeln!(self.0, "ghostlight_dropped_frames_total{{reason=\"{label}\"}} {total}")?;
        }
        self.one("fps", "gauge", "Frames a second.", f64::from_bits(count(&metrics.fps)))?;
        self.histogram("latency_seconds", "From capture to publishing.", &metrics.latency)?;
        self.histogram("inference_seconds", "In the network.", &metrics.inference)?;
        let up = u8::from(metrics.camera_up.load(Relaxed));
        self.one("camera_up", "gauge", "Whether the source is open.", up)?;
        let reconnects = count(&metrics.reconnects);
        self.one("camera_reconnects_total", "counter", "Times the source was opened once more.", reconnects)?;
        self.mqtt(metrics)?;
        if let Some(bytes) = resident_bytes() {
            self.one("resident_memory_bytes", "gauge", "Memory of the process.", bytes)?;
        }
        Ok(())
    }

    fn mqtt(&mut self, metrics: &Metrics) -> fmt::Result {
        let Some(read) = metrics.mqtt.get() else { return Ok(()) };
        let counts = read();
        self.one("mqtt_connected", "gauge", "Whether the broker is connected.", u8::from(counts.connected))?;
        self.one("mqtt_connections_total", "counter", "Connections made.", counts.connections)?;
        self.one("mqtt_queued", "gauge", "Messages that wait.", counts.queued)?;
        self.one("mqtt_in_flight", "gauge", "Messages sent, not confirmed yet.", counts.in_flight)?;
        self.one("mqtt_accepted_total", "counter", "Detection messages to publish.", counts.accepted)?;
        self.one("mqtt_resent_total", "counter", "Messages sent once more.", counts.resent)?;
        self.head("mqtt_messages_total", "counter", "What became of detection messages.")?;
        for (outcome, total) in [
            ("delivered", counts.delivered),
            ("dropped", counts.dropped),
            ("refused", counts.refused),
            ("unconfirmed", counts.unconfirmed),
        ] {
            writeln!(self.0, "ghostlight_mqtt_messages_total{{outcome=\"{outcome}\"}} {total}")?;
        }
        Ok(())
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP ghostlight_{name} {help}\n# TYPE ghostlight_{name} {kind}")
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
        self.head(name, kind, help)?;
        writeln!(self.0, "ghostlight_{name} {value}")
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.head(name, "histogram", help)?;
        let counts = histogram.cumulative();
        for (end, total) in ENDS.iter().zip(counts) {
            let seconds = *end as f64 / 1e6;
            writeln!(self.0, "ghostlight_{name}_bucket{{le=\"{seconds}\"}} {total}")?;
        }
        let all = counts[ENDS.len()];
        writeln!(self.0, "ghostlight_{name}_bucket{{le=\"+Inf\"}} {all}")?;
        writeln!(self.0, "ghostlight_{name}_sum {}\nghostlight_{name}_count {all}", histogram.seconds())
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// A label's value: backslash, quote and line end escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `VmRSS`, which needs no page size.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
