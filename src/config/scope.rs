//! Typed reading of one table: each key that is asked for is checked, recorded with where its value came
//! from, and thereby known; what is left over is unknown.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::problem::{Place, Problem};
use super::value::{self, Located, Table, Value};
use crate::nearest::nearest;

/// A value of a flag or of the environment, which goes before the file's.
#[derive(Debug, Clone)]
pub struct Override {
    /// Name of the table; empty for the root.
    pub section: &'static str,
    /// Name of the key.
    pub key: &'static str,
    /// The value.
    pub value: Value,
    /// The flag or variable.
    pub place: Place,
}

/// An effective value, for `--print-config`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The table's header as written, `[model]`; empty for the root.
    pub header: String,
    /// The key.
    pub key: String,
    /// The value as TOML; `None` where the key is not set.
    pub value: Option<String>,
    /// Where it came from.
    pub place: Place,
    /// What an absent value means.
    pub note: &'static str,
}

/// What all tables of one configuration share.
#[derive(Debug, Default)]
pub struct Findings {
    /// The file's path as given; `None` if there is no file.
    pub file: Option<String>,
    /// All faults so far.
    pub problems: Vec<Problem>,
    /// All values so far.
    pub entries: Vec<Entry>,
    /// Flags and environment.
    pub overrides: Vec<Override>,
}

impl Findings {
    fn at(&self, line: usize) -> Place {
        Place::File { file: self.file.clone().unwrap_or_default(), line }
    }
}

/// One table that is being read.
#[derive(Debug)]
pub struct Scope {
    /// `[model]`, `[[zones]] 2`, or nothing for the root.
    header: String,
    /// Name by which overrides mean it.
    section: &'static str,
    /// Where it begins, for faults of keys that are absent.
    start: Place,
    table: Table,
    asked: Vec<&'static str>,
    places: Vec<(&'static str, Place)>,
}

impl Scope {
    /// The root.
    pub fn root(table: Table) -> Self {
        Self::new(String::new(), "", Place::Default, table)
    }

    fn new(header: String, section: &'static str, start: Place, table: Table) -> Self {
        Self { header, section, start, table, asked: Vec::new(), places: Vec::new() }
    }

    /// The table `name` below this one; empty where the file has none.
    pub fn section(&mut self, name: &'static str, findings: &mut Findings) -> Self {
        let table = self.sub_table(name, findings);
        Self::new(format!("[{name}]"), name, self.place(name), table)
    }

    /// The tables below the table `name`, by the names that the file gives them.
    pub fn named_sections(&mut self, name: &'static str, findings: &mut Findings) -> Vec<(String, Self)> {
        let mut scopes = Vec::new();
        for (key, Located { line, value }) in self.sub_table(name, findings) {
            let header = format!("[{name}.{}]", value::key(&key));
            match value {
                Value::Table(table) => {
                    scopes.push((key, Self::new(header, name, findings.at(line), table)));
                }
                other => findings.problems.push(Problem {
                    place: findings.at(line),
                    key: header,
                    cause: format!("expected a table, found {}", other.kind()),
                }),
            }
        }
        scopes
    }

    /// The tables of the array `name`, `[[name]]` in the file.
    pub fn list_sections(&mut self, name: &'static str, findings: &mut Findings) -> Vec<Self> {
        let Some((value, place)) = self.take(name, findings) else { return Vec::new() };
        let Value::List(items) = value else {
            self.wrong(name, place, &format!("tables, each with the header [[{name}]]"), &value, findings);
            return Vec::new();
        };
        let mut scopes = Vec::new();
        for (index, Located { line, value }) in items.into_iter().enumerate() {
            match value {
                Value::Table(table) => {
                    let header = format!("[[{name}]] {}", index + 1);
                    scopes.push(Self::new(header, name, findings.at(line), table));
                }
                other => self.wrong(name, findings.at(line), "a table", &other, findings),
            }
        }
        scopes
    }

    fn sub_table(&mut self, name: &'static str, findings: &mut Findings) -> Table {
        match self.take(name, findings) {
            None => Table::new(),
            Some((Value::Table(table), _)) => table,
            Some((other, place)) => {
                self.wrong(name, place, &format!("a table: write [{name}]"), &other, findings);
                Table::new()
            }
        }
    }

    /// A text; `note` says what its absence means.
    pub fn text(&mut self, key: &'static str, note: &'static str, findings: &mut Findings) -> Option<String> {
        let text = match self.take(key, findings) {
            None => None,
            Some((Value::Text(text), _)) if !text.is_empty() => Some(text),
            Some((other, place)) => {
                self.wrong(key, place, "a text in quotes", &other, findings);
                None
            }
        };
        self.record(key, text.as_deref().map(value::quoted), note, findings);
        text
    }

    /// A text with a default.
    pub fn text_or(&mut self, key: &'static str, default: &str, findings: &mut Findings) -> String {
        let text = self.text(key, "", findings);
        self.default(value::quoted(default), text.is_none(), findings);
        text.unwrap_or_else(|| default.to_owned())
    }

    /// One of some words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        default: usize,
        findings: &mut Findings,
    ) -> T {
        let text = self.text_or(key, choices[default].0, findings);
        match choices.iter().find(|(name, _)| *name == text) {
            Some(&(_, choice)) => choice,
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| value::quoted(name)).collect();
                let cause = format!("no {} here; write {}", value::quoted(&text), names.join(" or "));
                self.fault(key, cause, findings);
                choices[default].1
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool, findings: &mut Findings) -> bool {
        let flag = match self.take(key, findings) {
            None => None,
            Some((Value::Flag(flag), _)) => Some(flag),
            Some((other, place)) => {
                self.wrong(key, place, "true or false", &other, findings);
                None
            }
        };
        let flag = flag.unwrap_or(default);
        self.record(key, Some(flag.to_string()), "", findings);
        flag
    }

    /// A whole number; `note` says what its absence means.
    pub fn whole<T: TryFrom<i64> + Display + PartialOrd + Copy>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        note: &'static str,
        findings: &mut Findings,
    ) -> Option<T> {
        let number = match self.take(key, findings) {
            None => None,
            Some((Value::Whole(number), place)) => {
                let found = T::try_from(number).ok().filter(|number| range.contains(number));
                if found.is_none() {
                    let wanted = format!("a whole number from {} to {}", range.start(), range.end());
                    self.wrong(key, place, &wanted, &Value::Whole(number), findings);
                }
                found
            }
            Some((other, place)) => {
                let wanted = format!("a whole number from {} to {}", range.start(), range.end());
                self.wrong(key, place, &wanted, &other, findings);
                None
            }
        };
        self.record(key, number.map(|n| n.to_string()), note, findings);
        number
    }

    /// A whole number with a default.
    pub fn whole_or<T: TryFrom<i64> + Display + PartialOrd + Copy>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        default: T,
        findings: &mut Findings,
    ) -> T {
        let number = self.whole(key, range, "", findings);
        self.default(default.to_string(), number.is_none(), findings);
        number.unwrap_or(default)
    }

    /// A number; `note` says what its absence means.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
        note: &'static str,
        findings: &mut Findings,
    ) -> Option<f64> {
        let number = match self.take(key, findings) {
            None => None,
            Some((value, place)) => {
                let number = match value {
                    Value::Whole(number) => Some(number as f64),
                    Value::Number(number) => Some(number),
                    _ => None,
                };
                let found = number.filter(|number| range.contains(number));
                if found.is_none() {
                    let wanted = format!("a number from {} to {}", range.start(), range.end());
                    self.wrong(key, place, &wanted, &value, findings);
                }
                found
            }
        };
        self.record(key, number.map(|n| format!("{n:?}")), note, findings);
        number
    }

    /// A number with a default.
    pub fn number_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
        default: f64,
        findings: &mut Findings,
    ) -> f64 {
        let number = self.number(key, range, "", findings);
        self.default(format!("{default:?}"), number.is_none(), findings);
        number.unwrap_or(default)
    }

    /// A list of texts; `note` says what its absence means.
    pub fn texts(&mut self, key: &'static str, note: &'static str, findings: &mut Findings) -> Vec<String> {
        let wanted = "a list of texts in quotes";
        let mut texts = Vec::new();
        match self.take(key, findings) {
            None => {}
            Some((Value::List(items), _)) => {
                for Located { line, value } in items {
                    match value {
                        Value::Text(text) => texts.push(text),
                        other => self.wrong(key, findings.at(line), wanted, &other, findings),
                    }
                }
            }
            Some((other, place)) => self.wrong(key, place, wanted, &other, findings),
        }
        let list = texts.iter().map(|text| value::quoted(text)).collect::<Vec<_>>().join(", ");
        self.record(key, (!texts.is_empty()).then(|| format!("[{list}]")), note, findings);
        texts
    }

    /// A text or a whole number that `parse` understands; `note` says what its absence means.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        note: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        findings: &mut Findings,
    ) -> Option<T> {
        let (value, place) = match self.take(key, findings) {
            None => {
                self.record(key, None, note, findings);
                return None;
            }
            Some(given) => given,
        };
        let (text, shown) = match &value {
            Value::Text(text) => (text.clone(), value::quoted(text)),
            Value::Whole(number) => (number.to_string(), number.to_string()),
            other => {
                self.wrong(key, place, "a number or a text", other, findings);
                return None;
            }
        };
        self.record(key, Some(shown), note, findings);
        parse(&text).map_err(|cause| self.fault(key, cause, findings)).ok()
    }

    /// A list of points `[[x, y], …]`.
    pub fn points(&mut self, key: &'static str, findings: &mut Findings) -> Vec<[f64; 2]> {
        let wanted = "a list of points, [[x, y], …]";
        let mut points = Vec::new();
        match self.take(key, findings) {
            None => {}
            Some((Value::List(items), _)) => {
                for Located { line, value } in items {
                    match point(&value) {
                        Some(point) => points.push(point),
                        None => self.wrong(key, findings.at(line), wanted, &value, findings),
                    }
                }
            }
            Some((other, place)) => self.wrong(key, place, wanted, &other, findings),
        }
        let list = points.iter().map(|[x, y]| format!("[{x:?}, {y:?}]")).collect::<Vec<_>>().join(", ");
        self.record(key, Some(format!("[{list}]")), "", findings);
        points
    }

    /// A fault of a value that was read.
    pub fn fault(&self, key: &'static str, cause: String, findings: &mut Findings) {
        let place = match self.place(key) {
            Place::Default => self.start.clone(),
            place => place,
        };
        findings.problems.push(Problem { place, key: self.name(key), cause });
    }

    /// Where a value that was read came from.
    pub fn place(&self, key: &str) -> Place {
        let found = self.places.iter().rev().find(|(name, _)| *name == key);
        found.map_or(Place::Default, |(_, place)| place.clone())
    }

    /// Ends reading: keys that nobody asked for are unknown.
    pub fn close(self, findings: &mut Findings) {
        for (key, Located { line, .. }) in &self.table {
            let cause = match nearest(key, self.asked.iter().copied()) {
                Some(near) => format!("no such key; did you mean '{near}'?"),
                None => format!("no such key; known here are {}", self.asked.join(", ")),
            };
            findings.problems.push(Problem { place: findings.at(*line), key: self.name(key), cause });
        }
    }

    fn name(&self, key: &str) -> String {
        let key = value::key(key);
        if self.header.is_empty() { key } else { format!("{} {key}", self.header) }
    }

    /// The value of a key: an override's, else the file's.
    fn take(&mut self, key: &'static str, findings: &Findings) -> Option<(Value, Place)> {
        self.asked.push(key);
        let of_file = self.table.iter().position(|(name, _)| name == key).map(|at| self.table.remove(at).1);
        let of_file = of_file.map(|located| (located.value, findings.at(located.line)));
        let wanted = |o: &&Override| o.section == self.section && o.key == key;
        let given = findings.overrides.iter().find(wanted).map(|o| (o.value.clone(), o.place.clone()));
        let (value, place) = given.or(of_file)?;
        self.places.push((key, place.clone()));
        Some((value, place))
    }

    fn record(
        &mut self,
        key: &'static str,
        value: Option<String>,
        note: &'static str,
        findings: &mut Findings,
    ) {
        let entry =
            Entry { header: self.header.clone(), key: key.into(), value, place: self.place(key), note };
        findings.entries.push(entry);
    }

    /// Puts a default in the last entry where nothing was given.
    fn default(&self, default: String, absent: bool, findings: &mut Findings) {
        if let Some(last) = findings.entries.last_mut().filter(|_| absent) {
            last.value = Some(default);
        }
    }

    fn wrong(&self, key: &str, place: Place, wanted: &str, found: &Value, findings: &mut Findings) {
        let cause = format!("expected {wanted}, found {}", found.kind());
        findings.problems.push(Problem { place, key: self.name(key), cause });
    }
}

fn point(value: &Value) -> Option<[f64; 2]> {
    let Value::List(items) = value else { return None };
    let number = |located: &Located| match located.value {
        Value::Whole(number) => Some(number as f64),
        Value::Number(number) => Some(number),
        _ => None,
    };
    match items.as_slice() {
        [x, y] => Some([number(x)?, number(y)?]),
        _ => None,
    }
}
