//! The fields of a message, and the values they may have.
//!
//! A message is read in two steps. First its top level is split into known fields, each left as the
//! raw text of its value; then a command takes the fields it has and reads those. So the `ref` is at
//! hand whatever else is wrong, a payload is never looked into, and a field that does not belong is
//! found and named: a misspelled `excpet` must not silently publish to everyone.
//!
//! Values borrow from the message. A string with escapes in it is the only one that is copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::error::{Code, CommandError};

/// Bytes of a wrong value that an error message repeats.
const SHOWN_BYTES: usize = 40;

/// A name that a field may have at the top level of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    Room,
    Rooms,
    Payload,
    Id,
    Ref,
    Key,
    Except,
    Status,
    Token,
    After,
    Until,
    Limit,
    Ids,
    All,
    Since,
    Before,
    TtlMs,
    Users,
    Connections,
    Everyone,
    Tenant,
    Count,
    Persist,
}

impl Field {
    const ALL: [Self; 24] = [
        Self::Type,
        Self::Room,
        Self::Rooms,
        Self::Payload,
        Self::Id,
        Self::Ref,
        Self::Key,
        Self::Except,
        Self::Status,
        Self::Token,
        Self::After,
        Self::Until,
        Self::Limit,
        Self::Ids,
        Self::All,
        Self::Since,
        Self::Before,
        Self::TtlMs,
        Self::Users,
        Self::Connections,
        Self::Everyone,
        Self::Tenant,
        Self::Count,
        Self::Persist,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Room => "room",
            Self::Rooms => "rooms",
            Self::Payload => "payload",
            Self::Id => "id",
            Self::Ref => "ref",
            Self::Key => "key",
            Self::Except => "except",
            Self::Status => "status",
            Self::Token => "token",
            Self::After => "after",
            Self::Until => "until",
            Self::Limit => "limit",
            Self::Ids => "ids",
            Self::All => "all",
            Self::Since => "since",
            Self::Before => "before",
            Self::TtlMs => "ttlMs",
            Self::Users => "users",
            Self::Connections => "connections",
            Self::Everyone => "everyone",
            Self::Tenant => "tenant",
            Self::Count => "count",
            Self::Persist => "persist",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// The top level of a message.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    values: [Option<&'a RawValue>; Field::ALL.len()],
    /// The first name that is no field at all.
    stranger: Option<Cow<'a, str>>,
    /// The first field that came twice; its first value stands in `values`.
    repeated: Option<Field>,
}

impl<'a> Envelope<'a> {
    /// Splits a message into its fields.
    pub(super) fn read(text: &'a str) -> Result<Self, CommandError> {
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                let message = format!("the message is {}, not an object", shown(text.trim()));
                return CommandError::new(Code::NotAnObject, message, None);
            }
            CommandError::new(Code::BadJson, format!("the message is not JSON: {error}"), None)
        })
    }

    pub(super) fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.values[field as usize]
    }

    /// Checks that no field came twice and that none but `allowed` came at all. `kind` is the type of
    /// the message.
    pub(super) fn only(&self, kind: &str, allowed: &[Field]) -> Result<(), CommandError> {
        if let Some(field) = self.repeated {
            let message = format!("`{}` is given more than once", field.name());
            let error = CommandError::new(Code::RepeatedField, message, None);
            return Err(error.about(field.name()));
        }
        let misplaced = Field::ALL
            .into_iter()
            .find(|field| self.get(*field).is_some() && !allowed.contains(field))
            .map(Field::name);
        let Some(name) = misplaced.or(self.stranger.as_deref()) else { return Ok(()) };
        let names: Vec<&str> = allowed.iter().map(|field| field.name()).collect();
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it has {}", names.join(", ")),
        };
        let message = format!("{} has no field `{}`; {hint}", shown(kind), shown(name));
        Err(CommandError::new(Code::UnknownField, message, None).about(&shown(name)))
    }

    pub(super) fn require(&self, field: Field, kind: &str) -> Result<&'a RawValue, CommandError> {
        self.get(field).ok_or_else(|| {
            let message = format!("{} needs the field `{}`", shown(kind), field.name());
            CommandError::new(Code::MissingField, message, None).about(field.name())
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope::default();
                while let Some(Text(name)) = map.next_key()? {
                    let value: &'de RawValue = map.next_value()?;
                    let Some(field) = Field::named(&name) else {
                        envelope.stranger.get_or_insert(name);
                        continue;
                    };
                    if envelope.get(field).is_some() {
                        envelope.repeated.get_or_insert(field);
                    } else {
                        envelope.values[field as usize] = Some(value);
                    }
                }
                Ok(envelope)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A string that borrows from the message unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Any)
    }
}

/// Reads an array of strings and keeps the first `limit`; the rest is counted only.
struct Texts {
    limit: usize,
}

/// The strings of an array, and how many it had.
pub(super) struct List<'a> {
    pub(super) kept: SmallVec<[Cow<'a, str>; 2]>,
    pub(super) count: usize,
}

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = List<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = List<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = List { kept: SmallVec::new(), count: 0 };
        while list.count < self.limit {
            let Some(Text(text)) = seq.next_element()? else { return Ok(list) };
            list.kept.push(text);
            list.count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.count += 1;
        }
        Ok(list)
    }
}

/// Reads a string value.
pub(super) fn text(field: Field, value: &RawValue) -> Result<Cow<'_, str>, CommandError> {
    match serde_json::from_str(value.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err(bad(field, value.get(), "a string")),
    }
}

/// Reads an array of strings, of which at most `limit` are kept.
pub(super) fn texts(
    field: Field,
    value: &RawValue,
    limit: usize,
) -> Result<List<'_>, CommandError> {
    let mut reader = serde_json::Deserializer::from_str(value.get());
    de::DeserializeSeed::deserialize(Texts { limit }, &mut reader)
        .map_err(|_| bad(field, value.get(), "an array of strings"))
}

/// Reads `true` or `false`; false when it is left out.
pub(super) fn flag(field: Field, value: Option<&RawValue>) -> Result<bool, CommandError> {
    match value.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(bad(field, other, "true or false")),
    }
}

/// Checks a value that is echoed as it was written: a string or a number of at most `limit` bytes.
pub(super) fn token(
    field: Field,
    value: &RawValue,
    limit: usize,
) -> Result<&RawValue, CommandError> {
    let raw = value.get();
    if raw.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) && raw.len() <= limit {
        return Ok(value);
    }
    Err(bad(field, raw, &format!("a string or number of at most {limit} bytes as written")))
}

/// The error of a field whose value is not what was expected.
pub(super) fn bad(field: Field, value: &str, expected: &str) -> CommandError {
    let message = format!("`{}` is {}; expected {expected}", field.name(), shown(value));
    CommandError::new(Code::BadField, message, None).about(field.name())
}

/// A value for an error message, shortened at a character boundary.
pub(super) fn shown(value: &str) -> Cow<'_, str> {
    if value.len() <= SHOWN_BYTES {
        return Cow::Borrowed(value);
    }
    let end = value.floor_char_boundary(SHOWN_BYTES);
    Cow::Owned(format!("{}...", &value[..end]))
}

/// The candidate a misspelled name was probably meant to be.
pub(super) fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    // The distance is quadratic in the length, and no candidate is long.
    if name.len() > SHOWN_BYTES {
        return None;
    }
    let (distance, near) = candidates
        .iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), *candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the name may be wrong; more than that is another word.
    (distance <= near.len().div_ceil(3)).then_some(near)
}
