//! TOML and `--set` to assignments, each with its place and its text as it was written.
//!
//! The file is parsed into values with spans, not into structs: a struct forgets the line a value came
//! from and stops at its first problem. What an assignment means is `load`'s business.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::Value;
use super::problem::{Place, Problem};
use super::values::LISTS;

/// A value given to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The section; empty for a key outside of any.
    pub(super) section: String,
    /// The key; empty for a section that holds none.
    pub(super) key: String,
    pub(super) value: Value,
    /// The value as it was written.
    pub(super) written: String,
    pub(super) place: Place,
}

impl Assignment {
    /// The key with its section.
    pub(super) fn path(&self) -> String {
        let dot = if self.section.is_empty() || self.key.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.section, self.key)
    }

    /// A problem with this assignment. The value of a `secret` key is not told.
    pub(super) fn problem(&self, secret: bool, what: &str) -> Problem {
        let written = if secret { HIDDEN } else { &self.written };
        let text = if self.key.is_empty() {
            format!("[{}]: {what}", self.section)
        } else {
            format!("{} = {written}: {what}", self.path())
        };
        Problem { place: self.place.clone(), text }
    }
}

/// One `[[section]]`: where it begins and what it assigns.
pub(super) type Entry = (Place, Vec<Assignment>);

/// What a source assigns: single keys, and the lists that it gives, each whole.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    pub(super) keys: Vec<Assignment>,
    /// The section and the entries of each list.
    pub(super) lists: Vec<(String, Vec<Entry>)>,
}

/// What stands where a secret would stand.
pub(super) const HIDDEN: &str = "\"***\"";

/// Reads a file's text.
pub(super) fn file(name: &str, text: &str, problems: &mut Vec<Problem>) -> Assignments {
    let reader = Reader { text, place: &|at| line(name, text, at) };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return reader.document(table.get_ref(), problems);
    }
    problems.extend(errors.iter().map(|error| Problem {
        place:
            error.span().map_or(Place::File(name.to_owned()), |span| line(name, text, span.start)),
        text: error.message().replace('\n', ", "),
    }));
    Assignments::default()
}

/// Reads the `order`-th `--set`, of the form `section.key=value`.
pub(super) fn set(order: usize, text: &str, problems: &mut Vec<Problem>) -> Assignments {
    let place = Place::Set(order);
    let pair = text.split_once('=').map(|(path, raw)| (path.trim(), raw.trim()));
    let Some((path, raw)) = pair.filter(|(path, _)| !path.is_empty()) else {
        let text = format!("{text:?}: expected section.key=value, as server.shards=2");
        problems.push(Problem { place, text });
        return Assignments::default();
    };
    let reader = Reader { text: raw, place: &|_| place.clone() };
    let parsed = DeValue::parse(raw);
    let mut found = Assignments::default();
    match &parsed {
        Ok(value) if is_list(path) => reader.list(path, value, &mut found, problems),
        Ok(value) => found.keys.push(reader.assignment(path, "", value)),
        Err(_) => {
            let value = Value::Text(raw.to_owned());
            let written = veil(&value.to_string(), WHOLE);
            let (section, key) = (String::new(), path.to_owned());
            found.keys.push(Assignment { section, key, value, written, place });
        }
    }
    for assignment in &mut found.keys {
        if let Some((section, key)) = path.split_once('.') {
            (assignment.section, assignment.key) = (section.to_owned(), key.to_owned());
        }
    }
    found
}

fn line(name: &str, text: &str, at: usize) -> Place {
    let before = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    Place::Line { file: name.to_owned(), line: before + 1 }
}

/// A text whose parsed values are to be turned into assignments.
struct Reader<'a> {
    text: &'a str,
    place: &'a dyn Fn(usize) -> Place,
}

impl Reader<'_> {
    fn document(&self, table: &DeTable<'_>, problems: &mut Vec<Problem>) -> Assignments {
        let mut found = Assignments::default();
        for (name, value) in table {
            match value.get_ref() {
                _ if is_list(name.get_ref()) => {
                    self.list(name.get_ref(), value, &mut found, problems);
                }
                DeValue::Table(keys) if keys.is_empty() => {
                    let place = (self.place)(name.span().start);
                    let (section, key) = (name.get_ref().to_string(), String::new());
                    let (value, written) = (Value::Other, String::new());
                    found.keys.push(Assignment { section, key, value, written, place });
                }
                DeValue::Table(keys) => found.keys.extend(self.section(name.get_ref(), keys)),
                _ => found.keys.push(self.assignment(name.get_ref(), "", value)),
            }
        }
        found
    }

    fn section(&self, name: &str, keys: &DeTable<'_>) -> Vec<Assignment> {
        keys.iter().map(|(key, value)| self.assignment(key.get_ref(), name, value)).collect()
    }

    fn list(
        &self,
        section: &str,
        value: &Spanned<DeValue<'_>>,
        found: &mut Assignments,
        problems: &mut Vec<Problem>,
    ) {
        let entries = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| self.entry(section, item)).collect(),
            _ => None,
        };
        if let Some(entries) = entries {
            found.lists.push((section.to_owned(), entries));
            return;
        }
        let mut given = self.assignment(section, "", value);
        given.written = match value.get_ref() {
            DeValue::Table(keys) => format!("a table of {} keys", keys.len()),
            DeValue::Array(_) => "an array of other things".to_owned(),
            _ => given.written,
        };
        let expected = format!("expected a list of tables, as [[{section}]]");
        problems.push(given.problem(false, &expected));
    }

    fn entry(&self, section: &str, item: &Spanned<DeValue<'_>>) -> Option<Entry> {
        let keys = item.get_ref().as_table()?;
        Some(((self.place)(item.span().start), self.section(section, keys)))
    }

    fn assignment(&self, key: &str, section: &str, value: &Spanned<DeValue<'_>>) -> Assignment {
        let span = value.span();
        let value = plain(value.get_ref());
        let place = (self.place)(span.start);
        let written = shorten(&veil(self.text.get(span).unwrap_or_default(), WHOLE));
        Assignment { section: section.to_owned(), key: key.to_owned(), value, written, place }
    }
}

/// A parsed value, as far as any key takes it.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Other, Value::Whole)
        }
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| plain(item.get_ref())).collect())
        }
        _ => Value::Other,
    }
}

/// True when the section of that name is a list.
fn is_list(section: &str) -> bool {
    LISTS.iter().any(|list| list.name == section)
}

/// Where the part of a URL ends that may name a user: with the authority (RFC 3986, section 3.2).
pub(super) const AUTHORITY: &[char] = &['/', '?', '#', '"', '\'', ' '];
/// The same for a text that is no URL yet, whose password may hold what it must not: with the text.
const WHOLE: &[char] = &['"', '\'', ' '];

/// A text with `***` in place of the user and the password of each URL in it.
pub(super) fn veil(text: &str, ends: &[char]) -> String {
    let mut veiled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("://").map(|at| at + "://".len()) {
        let end = rest[begin..].find(ends).map_or(rest.len(), |length| begin + length);
        let named = rest[begin..end].rfind('@').map(|length| begin + length);
        veiled.push_str(&rest[..begin]);
        veiled.push_str(if named.is_some() { "***" } else { "" });
        veiled.push_str(&rest[named.unwrap_or(begin)..end]);
        rest = &rest[end..];
    }
    veiled + rest
}

/// A value as written, on one line of at most 60 characters.
fn shorten(written: &str) -> String {
    let line = written.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(60).collect();
    if short.len() < line.len() {
        short.push_str("...");
    }
    short
}
