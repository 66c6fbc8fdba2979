//! TOML text to values that know their lines.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A value and the line on which it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Counted from 1.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// A TOML value. Dates are none of ours: they stay text, and are refused as a wrong type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Whole(i64),
    /// A number with a fraction.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
    /// An array, or an array of tables.
    List(Vec<Located>),
    /// A table.
    Table(Table),
    /// A date or a time, or an integer beyond 64 bits, as written.
    Other(&'static str),
}

/// Keys with their lines and values, in the file's order.
pub type Table = Vec<(String, Located)>;

impl Value {
    /// A list of texts that stands on no line.
    pub fn texts(texts: &[String]) -> Self {
        Self::List(texts.iter().map(|text| Located { line: 0, value: Self::Text(text.clone()) }).collect())
    }

    /// What it is, for "expected …, found …".
    pub fn kind(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {}", quoted(text)),
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
            Self::Other(kind) => (*kind).into(),
        }
    }
}

/// A string as TOML writes it. JSON's escapes are a part of TOML's.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A key as TOML writes it: bare where that is allowed.
pub fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if bare { name.to_owned() } else { quoted(name) }
}

/// Parses a file; all its syntax errors at once.
pub fn parse(text: &str, file: &str) -> Result<Table, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    if !errors.is_empty() {
        let mut problems: Vec<Problem> = errors.iter().map(|error| syntax(error, file, &lines)).collect();
        problems.sort_by_key(|problem| problem.place.line());
        return Err(problems);
    }
    Ok(entries(table.into_inner(), &lines))
}

fn syntax(error: &toml::de::Error, file: &str, lines: &Lines) -> Problem {
    let line = error.span().map_or(1, |span| lines.at(span.start));
    let cause = error.message().lines().collect::<Vec<_>>().join("; ");
    Problem {
        place: Place::File { file: file.to_owned(), line },
        key: String::new(),
        cause: format!("not TOML: {cause}"),
    }
}

fn entries(table: DeTable<'_>, lines: &Lines) -> Table {
    let mut entries: Table = table
        .into_iter()
        .map(|(key, value)| {
            let line = lines.at(key.span().start);
            let value = convert(value, lines).value;
            (key.into_inner().into_owned(), Located { line, value })
        })
        .collect();
    entries.sort_by_key(|(_, located)| located.line);
    entries
}

fn convert(value: Spanned<DeValue<'_>>, lines: &Lines) -> Located {
    let line = lines.at(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Whole),
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Value::Other("a number beyond f64"), Value::Number)
        }
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(array) => Value::List(array.into_iter().map(|item| convert(item, lines)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, lines)),
    };
    Located { line, value }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|&start| start <= byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let text = "a = 1\n\n[s]\nb = [1.5,\n  'x']\nc = true\n[[z]]\nd = 0x10\n[[z]]\ne = 1979-05-27\n";
        let table = parse(text, "f").unwrap();
        let names: Vec<(&str, usize)> = table.iter().map(|(k, v)| (k.as_str(), v.line)).collect();
        assert_eq!(names, [("a", 1), ("s", 3), ("z", 7)]);
        let Value::Table(section) = &table[1].1.value else { panic!("{table:?}") };
        let text = Located { line: 5, value: Value::Text("x".into()) };
        let list = vec![Located { line: 4, value: Value::Number(1.5) }, text];
        assert_eq!(section[0], ("b".into(), Located { line: 4, value: Value::List(list) }));
        let Value::List(zones) = &table[2].1.value else { panic!("{table:?}") };
        assert_eq!(zones.iter().map(|z| z.line).collect::<Vec<_>>(), [7, 9]);
    }

    #[test]
    fn every_syntax_error_has_its_line() {
        let problems = parse("a = \nb = 1\nc = [1,\n", "f").unwrap_err();
        assert!(problems.len() >= 2, "{problems:?}");
        assert!(problems[0].to_string().starts_with("f:1: not TOML: "), "{}", problems[0]);
    }

    #[test]
    fn keys_are_bare_where_they_may_be() {
        assert_eq!((key("a-b_1"), key("a b"), key("")), ("a-b_1".into(), "\"a b\"".into(), "\"\"".into()));
        assert_eq!(quoted("a\"\\\n\u{1}ä"), r#""a\"\\\n\u0001ä""#);
    }
}
