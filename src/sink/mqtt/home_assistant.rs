//! Home Assistant's MQTT discovery of a whole device: one retained message describes all entities.

use serde_json::{Map, Value, json};

use super::options::{Options, slugs, topic};

const URL: &str = env!("CARGO_PKG_REPOSITORY");

/// `PREFIX/device/ghostlight_DEVICE/config`
pub fn config_topic(prefix: &str, device: &str) -> String {
    format!("{prefix}/device/{}/config", identifier(device))
}

/// The discovery message: for each class a count, a presence and, with snapshots, a picture; the frame rate,
/// latency, dropped frames and, where it can be read, the temperature as diagnostics.
pub fn discovery(options: &Options, has_temperature: bool) -> Value {
    let mut components = Components::of(options);
    for (name, slug) in options.classes.iter().zip(slugs(&options.classes)) {
        components.of_class(name, &slug, options.snapshots);
    }
    components.diagnostic("fps", "Frame rate", json!({"unit_of_measurement": "fps"}));
    components.diagnostic(
        "latency_ms",
        "Latency",
        json!({"unit_of_measurement": "ms", "device_class": "duration"}),
    );
    components.diagnostic("dropped_frames", "Dropped frames", json!({"state_class": "total_increasing"}));
    if has_temperature {
        components.diagnostic(
            "temperature_c",
            "Temperature",
            json!({"unit_of_measurement": "°C", "device_class": "temperature"}),
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut origin = json!({"name": "Ghostlight", "sw_version": version});
    if !URL.is_empty() {
        origin["support_url"] = json!(URL);
    }
    json!({
        "device": {
            "identifiers": [identifier(&options.device)],
            "name": options.device,
            "manufacturer": "Ghostlight",
            "model": "YOLOv8 detector",
            "sw_version": version,
        },
        "origin": origin,
        "components": components.all,
    })
}

/// `ghostlight_DEVICE`
fn identifier(device: &str) -> String {
    format!("ghostlight_{device}")
}

struct Components<'a> {
    device: &'a str,
    all: Map<String, Value>,
}

impl<'a> Components<'a> {
    fn of(options: &'a Options) -> Self {
        Self { device: &options.device, all: Map::new() }
    }

    fn of_class(&mut self, name: &str, slug: &str, snapshots: bool) {
        // A JSON string is one of the template language, whatever the class is called.
        let key = Value::from(name);
        self.add(
            &format!("{slug}_count"),
            json!({
                "platform": "sensor",
                "name": format!("{name} count"),
                "state_topic": topic(self.device, "state"),
                "value_template": format!("{{{{ value_json.counts[{key}] }}}}"),
                "state_class": "measurement",
                "icon": "mdi:counter",
            }),
        );
        self.add(
            &format!("{slug}_presence"),
            json!({
                "platform": "binary_sensor",
                "name": name,
                "state_topic": topic(self.device, "state"),
                "value_template": format!("{{{{ 'ON' if value_json.presence[{key}] else 'OFF' }}}}"),
                "device_class": "occupancy",
            }),
        );
        if snapshots {
            self.add(
                &format!("{slug}_snapshot"),
                json!({
                    "platform": "image",
                    "name": format!("{name} snapshot"),
                    "image_topic": topic(self.device, &format!("event/{slug}/snapshot")),
                    "content_type": "image/jpeg",
                }),
            );
        }
    }

    /// A sensor of the state's `key`.
    fn diagnostic(&mut self, key: &str, name: &str, more: Value) {
        let mut sensor = json!({
            "platform": "sensor",
            "name": name,
            "state_topic": topic(self.device, "state"),
            "value_template": format!("{{{{ value_json.{key} }}}}"),
            "state_class": "measurement",
            "entity_category": "diagnostic",
        });
        if let (Value::Object(sensor), Value::Object(more)) = (&mut sensor, more) {
            sensor.extend(more);
        }
        self.add(key, sensor);
    }

    fn add(&mut self, id: &str, mut component: Value) {
        component["unique_id"] = json!(format!("{}_{id}", identifier(self.device)));
        component["availability_topic"] = json!(topic(self.device, "availability"));
        self.all.insert(id.to_owned(), component);
    }
}

#[cfg(test)]
#[path = "home_assistant_tests.rs"]
mod tests;
