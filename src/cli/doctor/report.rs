//! What was found, as lines or as JSON.

use std::io::Write;

use serde::Serialize;

use super::next::Next;
use crate::cli::error::CliError;

/// Whether something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Ok,
    /// It does not; the text says what to do.
    Warning,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at.
    pub check: &'static str,
    /// Whether it works.
    pub status: Status,
    /// What was found, and what to do.
    pub text: String,
}

impl Line {
    /// It works.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, text: text.into() }
    }

    /// It does not.
    pub fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, text: text.into() }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    checks: &'a [Line],
    next: &'a str,
    why: &'a str,
}

/// Writes a line each, `ok       CHECK: TEXT` or `warning  CHECK: TEXT`, the next command last; or one line of JSON.
///
/// # Errors
/// Those of `out`.
pub fn write(lines: &[Line], next: &Next, json: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let Next { command, why } = next;
    if json {
        let text = serde_json::to_string(&Json { checks: lines, next: command, why });
        writeln!(out, "{}", text.map_err(|error| CliError::Internal(error.to_string()))?)?;
        return Ok(());
    }
    for Line { check, status, text } in lines {
        let status = match status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
        };
        writeln!(out, "{status}  {check}: {text}")?;
    }
    // A shell takes the line as it stands.
    writeln!(out, "next     {command}  # {why}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json() {
        let lines = [Line::ok("cpu", "fast"), Line::warning("model", "none \"found\"")];
        let next = Next { command: "ghostlight init".into(), why: "there is no configuration".into() };
        let text = |json| {
            let mut out = Vec::new();
            write(&lines, &next, json, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "ok       cpu: fast\nwarning  model: none \"found\"\n\
                        next     ghostlight init  # there is no configuration\n";
        assert_eq!(text(false), expected);
        let json: serde_json::Value = serde_json::from_str(&text(true)).unwrap();
        assert_eq!(json["next"], "ghostlight init");
        assert_eq!(json["checks"][0], serde_json::json!({"check": "cpu", "status": "ok", "text": "fast"}));
        assert_eq!(json["checks"][1]["status"], "warning");
    }
}
