//! The part of YAML that model files use, read without a dependency.
//!
//! Block mappings and sequences by indentation, flow lists and maps (over several lines too),
//! plain and quoted scalars, comments. Anchors, tags and block scalars are refused by name: no
//! model file needs them, and leaving them out leaves nothing that can expand.

use thiserror::Error;

/// Deepest nesting read; model files reach 4.
const MAX_DEPTH: usize = 16;
/// Longest text read; model files have some 2 KiB.
const MAX_BYTES: usize = 1 << 20;

/// A YAML value. Checkpoints' `model.yaml` dictionaries are turned into it as well.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `True`, `false`, `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text, quoted or not.
    Str(String),
    /// `[a, b]` or lines with `-`.
    List(Vec<Value>),
    /// `key: value` in the order of the text; keys as text.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value under `key`, for a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// A whole number.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }
}

/// Why a text is not the YAML that this reader knows.
#[derive(Debug, Error, PartialEq)]
pub enum YamlError {
    /// Text longer than any model file.
    #[error("the text has {found} bytes, a model file has at most {MAX_BYTES}; is it the right file?")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Lists or maps nested too deeply.
    #[error("line {line}: nested deeper than {MAX_DEPTH}; flatten it")]
    TooDeep {
        /// Where.
        line: usize,
    },
    /// A YAML feature that this reader leaves out.
    #[error("line {line}: {what} is not supported; write the value out")]
    Unsupported {
        /// Where.
        line: usize,
        /// The feature.
        what: &'static str,
    },
    /// Anything else that does not parse.
    #[error("line {line}: expected {expected}, found `{found}`")]
    Syntax {
        /// Where.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A key given twice.
    #[error("line {line}: key `{key}` given twice; remove one")]
    DuplicateKey {
        /// Where the second one stands.
        line: usize,
        /// The key.
        key: String,
    },
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError::TooLong { found: text.len() });
    }
    let lines = logical_lines(text)?;
    let mut block = Block { lines: &lines, next: 0 };
    let value = match lines.first() {
        None => Value::Null,
        Some(first) => block.value(first.indent, 0)?,
    };
    match lines.get(block.next) {
        Some(line) => Err(syntax(line.number, "less indentation or the end", &line.text)),
        None => Ok(value),
    }
}

/// One line of content: comment gone, a flow value that spans lines joined.
struct Line {
    number: usize,
    indent: usize,
    text: String,
}

fn syntax(line: usize, expected: &'static str, found: &str) -> YamlError {
    YamlError::Syntax { line, expected, found: found.chars().take(40).collect() }
}

fn logical_lines(text: &str) -> Result<Vec<Line>, YamlError> {
    let mut lines: Vec<Line> = Vec::new();
    let mut open = 0i64;
    for (at, raw) in text.lines().enumerate() {
        let number = at + 1;
        let (content, change) = strip_comment(raw);
        let trimmed = content.trim();
        if trimmed.is_empty() || (open == 0 && (trimmed == "---" || trimmed == "...")) {
            continue;
        }
        if open > 0 {
            if let Some(last) = lines.last_mut() {
                last.text.push(' ');
                last.text.push_str(trimmed);
            }
        } else {
            let indent = content.len() - content.trim_start_matches(' ').len();
            if content[indent..].starts_with('\t') {
                return Err(syntax(number, "spaces as indentation", "a tab"));
            }
            lines.push(Line { number, indent, text: trimmed.to_string() });
        }
        open = (open + change).max(0);
    }
    Ok(lines)
}

/// The line up to its comment, and by how much it opens (or closes) brackets. Quotes protect both.
fn strip_comment(line: &str) -> (&str, i64) {
    let mut quote = None;
    let mut before = ' ';
    let mut change = 0;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (None, '#') if before.is_whitespace() => return (&line[..at], change),
            (None, '[' | '{') => change += 1,
            (None, ']' | '}') => change -= 1,
            _ => {}
        }
        before = c;
    }
    (line, change)
}

/// Reader of blocks by indentation.
struct Block<'a> {
    lines: &'a [Line],
    next: usize,
}

impl Block<'_> {
    fn value(&mut self, indent: usize, depth: usize) -> Result<Value, YamlError> {
        let Some(line) = self.lines.get(self.next) else { return Ok(Value::Null) };
        if depth > MAX_DEPTH {
            return Err(YamlError::TooDeep { line: line.number });
        }
        if is_item(&line.text) {
            self.sequence(indent, depth)
        } else if split_key(&line.text).is_some() {
            self.mapping(indent, depth)
        } else {
            self.next += 1;
            flow(&line.text, line.number)
        }
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        while let Some(line) = self.lines.get(self.next) {
            if line.indent != indent || !is_item(&line.text) {
                break;
            }
            self.next += 1;
            let rest = line.text[1..].trim_start();
            let item = if rest.is_empty() {
                self.nested(indent, depth)?
            } else if is_item(rest) || split_key(rest).is_some() {
                return Err(YamlError::Unsupported { line: line.number, what: "a block inside a list line" });
            } else {
                flow(rest, line.number)?
            };
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        while let Some(line) = self.lines.get(self.next) {
            if line.indent != indent || is_item(&line.text) {
                break;
            }
            let Some((key, rest)) = split_key(&line.text) else {
                return Err(syntax(line.number, "`key: value`", &line.text));
            };
            let key = key_text(key, line.number)?;
            if entries.iter().any(|(k, _)| *k == key) {
                return Err(YamlError::DuplicateKey { line: line.number, key });
            }
            self.next += 1;
            let value = if rest.is_empty() {
                match self.lines.get(self.next) {
                    // YAML lets a list stand at its key's own indentation.
                    Some(l) if l.indent == indent && is_item(&l.text) => self.sequence(indent, depth + 1)?,
                    _ => self.nested(indent, depth)?,
                }
            } else {
                flow(rest, line.number)?
            };
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }

    /// The block below a line at `indent`: null where nothing is indented further.
    fn nested(&mut self, indent: usize, depth: usize) -> Result<Value, YamlError> {
        match self.lines.get(self.next) {
            Some(line) if line.indent > indent => self.value(line.indent, depth + 1),
            _ => Ok(Value::Null),
        }
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Splits `key: rest` outside brackets and quotes.
fn split_key(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['[', '{']) {
        return None;
    }
    let from = match text.chars().next()? {
        q @ ('"' | '\'') => text[1..].find(q)? + 2,
        _ => 0,
    };
    for (at, _) in text[from..].match_indices(':') {
        let end = from + at;
        let rest = &text[end + 1..];
        if rest.is_empty() || rest.starts_with(' ') {
            return Some((text[..end].trim_end(), rest.trim_start()));
        }
    }
    None
}

fn key_text(key: &str, line: usize) -> Result<String, YamlError> {
    match flow(key, line)? {
        Value::Str(_) | Value::Int(_) | Value::Bool(_) | Value::Float(_) => Ok(unquote(key).to_string()),
        _ => Err(syntax(line, "a plain key", key)),
    }
}

fn unquote(text: &str) -> &str {
    let quoted = text.len() >= 2 && text.starts_with(['"', '\'']) && text.ends_with(&text[..1]);
    if quoted { &text[1..text.len() - 1] } else { text }
}

/// Reads a flow value that fills the whole text.
fn flow(text: &str, line: usize) -> Result<Value, YamlError> {
    if !text.starts_with(['[', '{']) {
        return scalar(text, line);
    }
    let mut reader = Flow { text, at: 0, line };
    let value = reader.value(0)?;
    reader.skip_spaces();
    if reader.at < text.len() {
        return Err(syntax(line, "the end of the line", &text[reader.at..]));
    }
    Ok(value)
}

/// Reader of flow lists and maps.
struct Flow<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Flow<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip_spaces();
        let found = self.rest().starts_with(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(YamlError::TooDeep { line: self.line });
        }
        if self.eat('[') {
            self.list(depth)
        } else if self.eat('{') {
            self.map(depth)
        } else {
            let token = self.token()?.to_string();
            scalar(&token, self.line)
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            if self.eat(']') {
                return Ok(Value::List(items));
            }
            items.push(self.value(depth + 1)?);
            if !self.eat(',') && !self.rest().starts_with(']') {
                return Err(syntax(self.line, "`,` or `]`", self.rest()));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        loop {
            if self.eat('}') {
                return Ok(Value::Map(entries));
            }
            let token = self.token()?.to_string();
            let key = unquote(&token).to_string();
            if !self.eat(':') {
                return Err(syntax(self.line, "`:`", self.rest()));
            }
            if entries.iter().any(|(k, _)| *k == key) {
                return Err(YamlError::DuplicateKey { line: self.line, key });
            }
            entries.push((key, self.value(depth + 1)?));
            if !self.eat(',') && !self.rest().starts_with('}') {
                return Err(syntax(self.line, "`,` or `}`", self.rest()));
            }
        }
    }

    /// A scalar's text, quotes included, up to the next `,`, `]`, `}` or `: `.
    fn token(&mut self) -> Result<&str, YamlError> {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        let end = match rest.chars().next() {
            Some(q @ ('"' | '\'')) => rest[1..].find(q).map(|end| end + 2),
            Some(',' | ']' | '}') | None => None,
            Some(_) => Some(rest.find([',', ']', '}', ':', '[', '{']).unwrap_or(rest.len())),
        };
        let end = end.filter(|&end| end > 0).ok_or_else(|| syntax(self.line, "a value", rest))?;
        self.at += end;
        Ok(rest[..end].trim_end())
    }
}

fn scalar(text: &str, line: usize) -> Result<Value, YamlError> {
    let refused = match text.chars().next() {
        Some('&') => Some("an anchor (&)"),
        Some('*') => Some("an alias (*)"),
        Some('!') => Some("a tag (!)"),
        Some('|' | '>') => Some("a block scalar"),
        _ => None,
    };
    if let Some(what) = refused {
        return Err(YamlError::Unsupported { line, what });
    }
    if text.starts_with(['"', '\'']) {
        let inner = unquote(text);
        if inner.len() == text.len() || inner.contains('\\') {
            return Err(syntax(line, "a closed quote without escapes", text));
        }
        return Ok(Value::Str(inner.to_string()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Str(text.to_string())),
    })
}

fn number(text: &str) -> Option<Value> {
    // Rust reads `inf` and `nan` as numbers, YAML does not.
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().map(Value::Int).ok().or_else(|| text.parse().map(Value::Float).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(text: &str) -> Value {
        Value::Str(text.into())
    }

    #[test]
    fn reads_what_model_files_use() {
        let text = "# top\nnc: 80 # classes\nscales: # c\n  n: [0.33, 0.25, 1024]\nbackbone:\n  # rows\n  - [-1, 1, Conv, [64, 3, 2]] # 0\n  - [[-1, 6],\n     1, nn.Upsample, [None, 2, \"near # est\"]]\nnames: {0: person, 1: 'traffic light'}\nlist:\n- a\n- 1.5\nempty:\nyes: True\n";
        let v = parse(text).unwrap();
        assert_eq!(v.get("nc"), Some(&Value::Int(80)));
        let n = v.get("scales").and_then(|s| s.get("n")).unwrap();
        assert_eq!(n, &Value::List(vec![Value::Float(0.33), Value::Float(0.25), Value::Int(1024)]));
        let rows = v.get("backbone").and_then(Value::as_list).unwrap();
        assert_eq!(rows[0].as_list().unwrap()[2], s("Conv"));
        assert_eq!(rows[1].as_list().unwrap()[0], Value::List(vec![Value::Int(-1), Value::Int(6)]));
        assert_eq!(rows[1].as_list().unwrap()[3].as_list().unwrap()[2], s("near # est"));
        assert_eq!(v.get("names").and_then(|n| n.get("1")), Some(&s("traffic light")));
        assert_eq!(v.get("list"), Some(&Value::List(vec![s("a"), Value::Float(1.5)])));
        assert_eq!(v.get("empty"), Some(&Value::Null));
        assert_eq!(v.get("yes"), Some(&Value::Bool(true)));
    }

    #[test]
    fn each_fault_has_its_error() {
        assert!(matches!(parse(&"a".repeat(MAX_BYTES + 1)), Err(YamlError::TooLong { .. })));
        assert_eq!(parse(&"[".repeat(40)), Err(YamlError::TooDeep { line: 1 }));
        let deep: String = (0..40).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(matches!(parse(&deep), Err(YamlError::TooDeep { .. })));
        for text in ["a: &x 1", "a: *x", "a: !!python/object:os.system", "a: |"] {
            assert!(matches!(parse(text), Err(YamlError::Unsupported { line: 1, .. })), "{text}");
        }
        for text in ["a: [1 2]x", "a: [1", "a: {1, 2}", "a: 'x", "a: 1\n  b: 2", "\ta: 1", "a: [,]"] {
            assert!(matches!(parse(text), Err(YamlError::Syntax { .. })), "{text}: {:?}", parse(text));
        }
        assert_eq!(parse("a: 1\na: 2"), Err(YamlError::DuplicateKey { line: 2, key: "a".into() }));
    }
}
