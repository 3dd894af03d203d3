//! Schemas of payloads: what the operator wants of the publications of some types in some rooms.
//!
//! A payload is opaque to the engine unless a `[[schema]]` speaks of its publication. Then it is parsed, once
//! however many speak of it, and each must hold. What that may cost is bounded from both sides: there are only so
//! many schemas of so many bytes, a payload above the size that a schema names is refused unread, its depth and
//! keys are bounded like every message's, and patterns in schemas are matched in time linear in the text. Schemas
//! refer to nothing outside of themselves, so nothing is fetched. Where there are none, nothing is parsed.

use std::fmt;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::command::Publish;
use super::error::{Code, CommandError};
use crate::base::glob::Glob;

/// Schemas there may be.
pub const MOST_SCHEMAS: usize = 256;
/// Bytes of a schema.
pub const MOST_BYTES: usize = 65_536;
/// Bytes of what an error says of a value, and of a path.
const MOST_SAID: usize = 256;
/// Bytes that a pattern in a schema may become.
const MOST_PATTERN: usize = 1 << 20;

/// A schema, and of what it speaks.
pub struct Schema {
    rooms: Glob,
    types: Glob,
    most_bytes: usize,
    validator: Validator,
}

impl Schema {
    /// Compiles a schema for payloads of at most `most_bytes` in publications of these types to these rooms.
    /// Where `rooms` is `*` it speaks of those to users, connections and everyone too.
    ///
    /// # Errors
    /// What is wrong with the text, for the operator.
    pub fn new(rooms: Glob, types: Glob, most_bytes: usize, text: &str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            let bytes = text.len();
            return Err(format!("a schema of {bytes} bytes; expected at most {MOST_BYTES}"));
        }
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| format!("the schema is not JSON: {error}; expected a JSON schema"))?;
        let patterns = PatternOptions::regex().size_limit(MOST_PATTERN);
        let options = jsonschema::options().offline().with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(|error| {
            let at = pointer(error.instance_path().as_str());
            let why = cut(error.to_string());
            format!("at {at} the schema will not do: {why}; expected a JSON schema")
        })?;
        Ok(Self { rooms, types, most_bytes, validator })
    }

    fn speaks_of(&self, kind: &str, publish: &Publish<'_>) -> bool {
        let targets = &publish.targets;
        let is_for_all = self.rooms.as_str() == "*";
        self.types.matches(kind)
            && (is_for_all || targets.rooms.iter().any(|room| self.rooms.matches(room)))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} in {})", self.types.as_str(), self.rooms.as_str())
    }
}

/// All schemas.
#[derive(Debug, Default)]
pub struct Schemas(Vec<Schema>);

impl Schemas {
    /// The schemas, of which every one that speaks of a publication has to hold.
    #[must_use]
    pub fn new(all: Vec<Schema>) -> Self {
        Self(all)
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks the payload of a publication; one without a payload is taken for `null`. True when a schema speaks
    /// of it.
    ///
    /// # Errors
    /// The first thing that does not fit, with the place in the payload.
    pub fn check(
        &self,
        publish: &Publish<'_>,
        reference: Option<&RawValue>,
    ) -> Result<bool, CommandError> {
        if self.is_empty() {
            return Ok(false);
        }
        let kind = publish.type_name();
        let mut speaking = self.0.iter().filter(|schema| schema.speaks_of(&kind, publish));
        let Some(first) = speaking.next() else { return Ok(false) };
        let text = publish.payload.map_or("null", RawValue::get);
        let wrong = |path: &str, message: String| {
            CommandError::new(Code::InvalidPayload, message, reference).about("payload").at(path)
        };
        let mut value = None;
        for schema in std::iter::once(first).chain(speaking) {
            let (bytes, most) = (text.len(), schema.most_bytes);
            if bytes > most {
                let message =
                    format!("`payload` has {bytes} bytes; expected at most {most} for this type");
                return Err(wrong("", message));
            }
            // What nests no deeper than a message may has been scanned before, and is JSON.
            let value =
                &*value.get_or_insert_with(|| serde_json::from_str(text).unwrap_or(Value::Null));
            schema.validator.validate(value).map_err(|error| {
                let path = cut(error.instance_path().as_str().to_owned());
                let why = cut(error.masked_with("the value").to_string());
                let message =
                    format!("`payload` does not fit its schema at {}: {why}", pointer(&path));
                wrong(&path, message)
            })?;
        }
        Ok(true)
    }
}

/// How a message names a place.
fn pointer(path: &str) -> String {
    if path.is_empty() { "its root".to_owned() } else { format!("`{path}`") }
}

/// A text shortened to what an error may say.
fn cut(mut text: String) -> String {
    if text.len() > MOST_SAID {
        let end = (0..=MOST_SAID).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('\u{2026}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Command, CommandLimits, parse};

    fn schema(rooms: &str, types: &str, most: usize, text: &str) -> Result<Schema, String> {
        Schema::new(Glob::new(rooms), Glob::new(types), most, text)
    }

    fn all(list: &[(&str, &str, usize, &str)]) -> Schemas {
        let compile = |(rooms, types, most, text): &(&str, &str, usize, &str)| {
            schema(rooms, types, *most, text).expect("a schema")
        };
        Schemas::new(list.iter().map(compile).collect())
    }

    /// Whether a schema speaks of the message; or the place that does not fit, and why.
    fn check(schemas: &Schemas, message: &str) -> Result<bool, (String, String)> {
        let request = parse(message, &CommandLimits::default()).expect("a message");
        let Command::Publish(publish) = request.command else { panic!("a publication") };
        schemas.check(&publish, request.reference).map_err(|error| {
            assert_eq!(
                (error.code, error.field.as_deref()),
                (Code::InvalidPayload, Some("payload"))
            );
            (error.path.expect("a place").into(), error.message)
        })
    }

    const ORDER: &str = r#"{"type":"object","required":["items"],"additionalProperties":false,
        "properties":{"items":{"type":"array","maxItems":3,"items":{"type":"object",
        "properties":{"price":{"type":"number","minimum":0},"a/b~c":{"type":"string"}}}}}}"#;

    #[test]
    fn what_does_not_fit_is_named_by_its_place_and_not_repeated() {
        let schemas = all(&[("shop:*", "order", 1000, ORDER)]);
        let of = |payload: &str| {
            check(&schemas, &format!(r#"{{"type":"order","room":"shop:1","payload":{payload}}}"#))
        };
        assert_eq!(of(r#"{"items":[{"price":1}]}"#), Ok(true));
        for (payload, place) in [
            (r#"{"items":[{"price":1},{"price":"a secret"}]}"#, "/items/1/price"),
            (r#"{"items":[{"price":-1}]}"#, "/items/0/price"),
            (r#"{"items":[{"a/b~c":1}]}"#, "/items/0/a~1b~0c"),
            (r#"{"items":[1,2,3,4]}"#, "/items"),
            ("{}", ""),
            (r#"{"items":[],"more":1}"#, ""),
            ("[]", ""),
        ] {
            let (path, message) = of(payload).expect_err(payload);
            assert_eq!(path, place, "{payload}");
            assert!(message.starts_with("`payload` does not fit its schema at "), "{message}");
            assert!(!message.contains("a secret") && message.len() < 400, "{message}");
        }
        let without = check(&schemas, r#"{"type":"order","room":"shop:1"}"#).expect_err("null");
        assert_eq!(without.0, "");
    }

    #[test]
    fn a_schema_speaks_of_its_types_in_its_rooms_and_every_one_that_does_must_hold() {
        let no = "false";
        let schemas = all(&[
            ("shop:*", "order", 99, no),
            ("*", "say*", 99, r#"{"type":"string"}"#),
            ("*", "say.loud", 99, r#"{"maxLength":3}"#),
        ]);
        for (message, fits) in [
            (r#"{"type":"order","room":"shop:1"}"#, Err(())),
            (r#"{"type":"order","rooms":["a","shop:1"]}"#, Err(())),
            (r#"{"type":"\u006frder","room":"shop:1"}"#, Err(())),
            (r#"{"type":"order","room":"shop"}"#, Ok(false)),
            (r#"{"type":"order","users":["ada"]}"#, Ok(false)),
            (r#"{"type":"orders","room":"shop:1"}"#, Ok(false)),
            (r#"{"type":"say","room":"a","payload":"x"}"#, Ok(true)),
            (r#"{"type":"say","users":["ada"],"payload":1}"#, Err(())),
            (r#"{"type":"say.loud","everyone":true,"payload":"abc"}"#, Ok(true)),
            (r#"{"type":"say.loud","everyone":true,"payload":"abcd"}"#, Err(())),
        ] {
            assert_eq!(check(&schemas, message).map_err(|_| ()), fits, "{message}");
        }
    }

    #[test]
    fn a_payload_above_the_size_is_refused_before_it_is_parsed() {
        let schemas = all(&[("*", "*", 8, "true")]);
        let of =
            |text: &str| check(&schemas, &format!(r#"{{"type":"a","room":"r","payload":{text}}}"#));
        assert_eq!(of("[1,2,3]"), Ok(true));
        let (path, message) = of("[1,2,3,4]").expect_err("nine bytes");
        assert_eq!((path.as_str(), message.contains("9 bytes")), ("", true), "{message}");
    }

    #[test]
    fn a_schema_that_will_not_do_is_refused_with_its_place() {
        for (text, why) in [
            ("{", "not JSON"),
            ("7", "its root"),
            (r#"{"type":"strin"}"#, "/type"),
            (r#"{"properties":{"a":{"minimum":"x"}}}"#, "/properties/a/minimum"),
            (r#"{"pattern":"("}"#, "regex"),
            // Patterns that would need to go back are not in the engine's expressions.
            (r#"{"pattern":"^(?=a)b"}"#, "regex"),
            (r#"{"$ref":"https://example.com/a.json"}"#, "example.com"),
            (r#"{"$ref":"file:///etc/passwd"}"#, "passwd"),
            (r##"{"$ref":"#/$defs/none"}"##, "none"),
        ] {
            let error = schema("*", "*", 9, text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains("expected a JSON schema"), "{error}");
        }
        let long = format!("{}true", " ".repeat(MOST_BYTES));
        assert!(schema("*", "*", 9, &long).expect_err("too long").contains("at most 65536"));
    }

    #[test]
    fn a_schema_may_refer_to_itself_and_a_circle_ends() {
        let tree = r##"{"type":"object","properties":{"next":{"$ref":"#"}},"additionalProperties":false}"##;
        let schemas = all(&[("*", "*", 1000, tree)]);
        let deep = |leaf: &str| {
            let (open, close) = (r#"{"next":"#.repeat(20), "}".repeat(20));
            check(&schemas, &format!(r#"{{"type":"a","room":"r","payload":{open}{leaf}{close}}}"#))
        };
        assert_eq!(deep("{}"), Ok(true));
        assert_eq!(deep("1").expect_err("a number").0, "/next".repeat(20));
        for circle in [
            r##"{"$ref":"#"}"##,
            r##"{"allOf":[{"$ref":"#"}]}"##,
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
        ] {
            if let Ok(schema) = schema("*", "*", 99, circle) {
                let message = r#"{"type":"a","room":"r","payload":[1]}"#;
                let _ = check(&Schemas::new(vec![schema]), message);
            }
        }
    }
}
