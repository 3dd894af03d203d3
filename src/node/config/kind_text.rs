//! More of what a value may be: text, secrets, and lists of values.

use super::kind::{Kind, Pattern, Value};
use crate::base::glob::Glob;
use crate::base::secret::Secret;

/// Text on one line.
pub(super) struct Text {
    longest: usize,
    empty: Option<&'static str>,
}

/// Text of 1 to `longest` bytes, without control characters.
pub(super) fn text(longest: usize) -> Text {
    Text { longest, empty: None }
}

impl Text {
    /// The path of a file, or an empty string for none.
    pub(super) fn path() -> Self {
        text(4096).or_empty("none")
    }

    /// Accepts no text too, with the meaning given.
    pub(super) fn or_empty(self, meaning: &'static str) -> Self {
        Self { empty: Some(meaning), ..self }
    }
}

impl Kind for Text {
    type Value = String;

    fn read(&self, value: &Value) -> Option<String> {
        let Value::Text(text) = value else { return None };
        let fits = text.len() <= self.longest && !text.chars().any(char::is_control);
        (fits && (!text.is_empty() || self.empty.is_some())).then(|| text.clone())
    }

    fn write(&self, value: &String) -> Value {
        Value::Text(value.clone())
    }

    fn expectation(&self) -> String {
        let text = format!("text of 1 to {} bytes on one line", self.longest);
        self.empty.map_or(text.clone(), |meaning| format!("{text}, or \"\" ({meaning})"))
    }
}

/// Types of messages.
pub(super) struct Types;

impl Kind for Types {
    type Value = Glob;

    fn read(&self, value: &Value) -> Option<Glob> {
        Pattern.read(value)
    }

    fn write(&self, value: &Glob) -> Value {
        Pattern.write(value)
    }

    fn expectation(&self) -> String {
        "a type in which * stands for any characters, as \"order.*\"".to_owned()
    }
}

/// Text that is printed nowhere, or an empty string for none.
pub(super) struct Hidden;

impl Kind for Hidden {
    type Value = Secret;

    fn read(&self, value: &Value) -> Option<Secret> {
        let Value::Text(text) = value else { return None };
        // What `print-config` prints in its place is no secret; taking it would open the door to anyone.
        (text.len() <= MAX_SECRET && text != "***").then(|| Secret::new(text))
    }

    fn write(&self, value: &Secret) -> Value {
        Value::Text(value.expose().to_owned())
    }

    fn expectation(&self) -> String {
        format!("text of at most {MAX_SECRET} bytes, which is never printed, or \"\" (none)")
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// Bytes of a secret; a PEM text of a key is one.
const MAX_SECRET: usize = 16_384;

/// Several values of one kind, none twice.
pub(super) struct ListOf<K> {
    of: K,
    longest: usize,
}

/// At most `longest` values of a kind, none twice.
pub(super) fn list_of<K>(longest: usize, of: K) -> ListOf<K> {
    ListOf { of, longest }
}

impl<K: Kind<Value: PartialEq>> Kind for ListOf<K> {
    type Value = Vec<K::Value>;

    fn read(&self, value: &Value) -> Option<Self::Value> {
        let Value::List(values) = value else { return None };
        if values.len() > self.longest {
            return None;
        }
        let values: Vec<K::Value> =
            values.iter().map(|value| self.of.read(value)).collect::<Option<_>>()?;
        let twice = values.iter().enumerate().any(|(at, value)| values[..at].contains(value));
        (!twice).then_some(values)
    }

    fn write(&self, value: &Self::Value) -> Value {
        Value::List(value.iter().map(|value| self.of.write(value)).collect())
    }

    fn expectation(&self) -> String {
        let each = self.of.expectation();
        format!("a list in [ ] of at most {}, none twice, each {each}", self.longest)
    }

    fn words(&self) -> Vec<&'static str> {
        self.of.words()
    }

    fn is_secret(&self) -> bool {
        self.of.is_secret()
    }
}
