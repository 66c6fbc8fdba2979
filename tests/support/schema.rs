//! A checker for the part of JSON Schema that `detections.schema.json` uses. Other keywords are an error,
//! so that the schema cannot outgrow the check unseen.

use serde_json::Value;

/// Checks one line of JSON text against a schema's text.
pub fn check(schema: &str, line: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(schema).map_err(|e| format!("schema: {e}"))?;
    let value: Value = serde_json::from_str(line).map_err(|e| format!("line: {e}"))?;
    node(&schema, &schema, &value, "line")
}

fn node(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(allowed) = schema.as_bool() {
        return if allowed { Ok(()) } else { Err(format!("{at} must be absent")) };
    }
    let keywords = schema.as_object().ok_or("a schema is an object")?;
    for (keyword, rule) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let pointer = rule.as_str().and_then(|r| r.strip_prefix('#')).unwrap_or("?");
                let target = root.pointer(pointer).ok_or(format!("{rule} leads nowhere"))?;
                node(root, target, value, at)?;
                true
            }
            "const" => value == rule,
            "type" => match rule.as_str().unwrap_or("?") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64() || value.is_i64(),
                "number" => value.is_number(),
                other => return Err(format!("unknown type {other}")),
            },
            "minimum" => number(value) >= number(rule),
            "maximum" => number(value) <= number(rule),
            "pattern" => is_time(value.as_str().unwrap_or("")),
            "required" => rule
                .as_array()
                .into_iter()
                .flatten()
                .all(|key| key.as_str().is_some_and(|key| value.get(key).is_some())),
            "properties" => {
                for (key, schema) in rule.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(key) {
                        node(root, schema, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => value
                .as_object()
                .into_iter()
                .flatten()
                .all(|(key, _)| schema.pointer("/properties").and_then(|known| known.get(key)).is_some()),
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    node(root, rule, value, &format!("{at}[{index}]"))?;
                }
                true
            }
            "oneOf" => {
                let choices = rule.as_array().into_iter().flatten();
                choices.filter(|choice| node(root, choice, value, at).is_ok()).count() == 1
            }
            other => return Err(format!("keyword {other} is not checked here; add it")),
        };
        if !holds {
            return Err(format!("{at}: {value} breaks {keyword} {rule}"));
        }
    }
    Ok(())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// The one pattern in use: `YYYY-MM-DDThh:mm:ss.uuuuuuZ`.
fn is_time(text: &str) -> bool {
    let shape = "0000-00-00T00:00:00.000000Z";
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(c, s)| if s == b'0' { c.is_ascii_digit() } else { c == s })
}
