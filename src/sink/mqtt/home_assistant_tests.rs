use super::*;

fn message(classes: &[&str], snapshots: bool) -> Value {
    let mut options = Options::new("yard", classes.iter().map(|&name| name.into()).collect());
    options.snapshots = snapshots;
    discovery(&options, true)
}

#[test]
fn the_message_keeps_home_assistants_rules() {
    let message = message(&["person", "traffic light"], true);
    // A device needs identifiers or connections; device discovery needs an origin with a name and components.
    assert_eq!(message["device"]["identifiers"], json!(["ghostlight_yard"]));
    assert!(message["origin"]["name"].is_string());
    let components = message["components"].as_object().unwrap();
    assert_eq!(components.len(), 2 * 3 + 4);
    let mut ids = Vec::new();
    for (key, component) in components {
        let platform = component["platform"].as_str().unwrap();
        assert!(["sensor", "binary_sensor", "image"].contains(&platform), "{key}");
        let needed = if platform == "image" { "image_topic" } else { "state_topic" };
        assert!(component[needed].as_str().unwrap().starts_with("ghostlight/yard/"), "{key}");
        assert_eq!(component["availability_topic"], "ghostlight/yard/availability");
        ids.push(component["unique_id"].as_str().unwrap());
        let diagnostic = component.get("entity_category").is_some();
        assert_eq!(diagnostic, !key.starts_with("person") && !key.starts_with("traffic_light"), "{key}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), components.len(), "unique ids are unique");
    assert_eq!(components["person_count"]["value_template"], r#"{{ value_json.counts["person"] }}"#);
    assert_eq!(
        components["traffic_light_presence"]["value_template"],
        r#"{{ 'ON' if value_json.presence["traffic light"] else 'OFF' }}"#
    );
    assert_eq!(config_topic("homeassistant", "yard"), "homeassistant/device/ghostlight_yard/config");
}

#[test]
fn class_names_cannot_break_out_of_the_template() {
    let message = message(&["a\"] }}{{ x"], false);
    let component =
        message["components"].as_object().unwrap().values().find(|c| c["name"] == "a\"] }}{{ x count");
    assert_eq!(component.unwrap()["value_template"], "{{ value_json.counts[\"a\\\"] }}{{ x\"] }}");
}
