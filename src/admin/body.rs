//! Strict JSON objects: every field is asked for by name, and what nobody asked for is refused.
//!
//! A field that is misspelled, comes twice or has another kind of value would otherwise be a wish that was
//! silently not granted. `null` counts as another kind: a field is left out by leaving it out.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::refusal::Refusal;

/// Names in a query whose values are numbers.
const NUMBERS: &[&str] = &["after", "until", "limit", "offset"];

/// An object, as far as it has not been asked for.
#[derive(Debug)]
pub(super) struct Object {
    fields: Vec<(String, Box<RawValue>)>,
    /// The names that were asked for.
    known: Vec<&'static str>,
}

/// The fields in order, repeated ones included.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl Object {
    /// Reads an object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let Fields(fields) = serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                Refusal::bad("not_an_object", "the body is not a JSON object")
            } else {
                let (line, column) = (error.line(), error.column());
                let message = format!("the body is not JSON: see line {line}, column {column}");
                Refusal::bad("bad_json", message)
            }
        })?;
        for (at, (name, _)) in fields.iter().enumerate() {
            if fields[..at].iter().any(|(before, _)| before == name) {
                return Err(Refusal::bad("repeated_field", "a field is given twice").about(name));
            }
        }
        Ok(Self { fields, known: Vec::new() })
    }

    /// Reads the query of a URL as an object: values that are whole numbers are numbers, all others texts.
    pub(super) fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if fields.iter().any(|(before, _)| *before == name) {
                return Err(Refusal::bad("repeated_field", "a field is given twice").about(&name));
            }
            let number = NUMBERS.contains(&&*name).then(|| value.parse::<u64>().ok()).flatten();
            let value = number.map_or_else(|| Value::from(&*value), Value::from);
            let raw = serde_json::value::to_raw_value(&value)
                .map_err(|_| Refusal::field(&name, "it cannot be read"))?;
            fields.push((name.into_owned(), raw));
        }
        Ok(Self { fields, known: Vec::new() })
    }

    /// The value of a field as it was written.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<Box<RawValue>> {
        self.known.push(name);
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(at).1)
    }

    /// Text of 1 to `longest` bytes without control characters.
    pub(super) fn text(
        &mut self,
        name: &'static str,
        longest: usize,
    ) -> Result<Option<String>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let text: Option<String> = serde_json::from_str(raw.get()).ok();
        let fits = |text: &String| {
            (1..=longest).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        let expected = format!("expected text of 1 to {longest} bytes without control characters");
        text.filter(fits).map(Some).ok_or_else(|| Refusal::field(name, expected))
    }

    /// A whole number from `low` to `high`.
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        low: u64,
        high: u64,
    ) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let number: Option<u64> = serde_json::from_str(raw.get()).ok();
        let expected = format!("expected a whole number from {low} to {high}");
        let fits = number.filter(|number| (low..=high).contains(number));
        fits.map(Some).ok_or_else(|| Refusal::field(name, expected))
    }

    /// To be called when all fields have been asked for: refuses those that were not.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let Some((name, _)) = self.fields.first() else { return Ok(()) };
        let far = name.chars().count().div_ceil(3);
        let near = self
            .known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), known))
            .filter(|(distance, _)| *distance <= far)
            .min();
        let message = match near {
            Some((_, near)) => format!("there is no such field; did you mean `{near}`?"),
            None => format!("there is no such field; there are {}", self.known.join(", ")),
        };
        Err(Refusal::bad("unknown_field", message).about(name))
    }
}

/// What to say when a field is missing.
pub(super) fn missing(name: &'static str) -> Refusal {
    Refusal::bad("missing_field", format!("the field `{name}` is missing")).about(name)
}
