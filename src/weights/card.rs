//! What people say of a model: words that nothing is computed from.

use serde::{Deserialize, Serialize};

/// Most characters of one entry.
const MOST: usize = 400;

/// A model's card; an entry that nobody wrote is `None`. Readers pass over entries that they do not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// How good it is, and measured on what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<String>,
    /// What it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Who made it, from what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl Card {
    /// Names of the entries.
    pub const KEYS: [&str; 3] = ["accuracy", "data", "origin"];

    /// Whether nobody wrote anything.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }

    /// The entries that there are, with their names.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [&self.accuracy, &self.data, &self.origin];
        Self::KEYS.into_iter().zip(texts).filter_map(|(key, text)| Some((key, text.as_deref()?)))
    }

    /// The entry of this name; `None` where there is no such entry.
    pub fn entry(&mut self, key: &str) -> Option<&mut Option<String>> {
        match key {
            "accuracy" => Some(&mut self.accuracy),
            "data" => Some(&mut self.data),
            "origin" => Some(&mut self.origin),
            _ => None,
        }
    }

    /// Checks every entry as [`check_text`] does.
    pub(super) fn check(&self) -> Result<(), String> {
        self.entries().try_for_each(|(key, text)| check_text(text).map_err(|cause| format!("{key}: {cause}")))
    }
}

/// What is wrong with an entry's text: it is one line, short and not empty.
///
/// # Errors
/// The fault, in words.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("empty".into());
    }
    match text.chars().count() {
        count if count > MOST => Err(format!("{count} characters, expected at most {MOST}")),
        _ if text.chars().any(char::is_control) => Err("holds a line break or control character".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_an_entry() {
        let mut card = Card::default();
        assert!(card.is_empty());
        for key in Card::KEYS {
            *card.entry(key).unwrap() = Some(format!("of {key}"));
        }
        assert_eq!(card.entry("licence"), None);
        let entries: Vec<_> = card.entries().collect();
        assert_eq!(entries, [("accuracy", "of accuracy"), ("data", "of data"), ("origin", "of origin")]);
        let text = serde_json::to_string(&card).unwrap();
        assert_eq!(serde_json::from_str::<Card>(&text).unwrap(), card);
        assert_eq!(serde_json::to_string(&Card::default()).unwrap(), "{}");
    }

    #[test]
    fn texts_are_one_short_line() {
        assert_eq!(check_text("mAP50-95 37.1 on COCO val2017"), Ok(()));
        assert_eq!(check_text(&"ä".repeat(MOST)), Ok(()));
        for (text, hint) in [
            ("", "empty"),
            ("  ", "empty"),
            ("a\nb", "line break"),
            ("\u{1b}[2J", "control"),
            (&"ä".repeat(MOST + 1), "at most 400"),
        ] {
            assert!(check_text(text).unwrap_err().contains(hint), "{text:?}");
        }
        let card = Card { data: Some("a\u{7f}".into()), ..Card::default() };
        assert!(card.check().unwrap_err().starts_with("data: "));
    }
}
