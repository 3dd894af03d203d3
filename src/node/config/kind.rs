//! What a value may be.
//!
//! A [`Kind`] reads a TOML value into a Rust value or refuses it, writes it back, and says in words what
//! it accepts. The words are the error message, the comment in `print-config` and the documentation, so
//! the three cannot disagree with the check.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::glob::Glob;

/// A value as TOML has it, as far as any key takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Whole(i64),
    /// A boolean.
    Flag(bool),
    /// An array.
    List(Vec<Self>),
    /// What no key takes: a float, a date, a table.
    Other,
}

impl fmt::Display for Value {
    /// Writes the value as TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(Self::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Self::Other => f.write_str("?"),
        }
    }
}

/// What a key accepts.
pub(super) trait Kind {
    /// What the value is in code.
    type Value;

    /// The value in code; `None` when it is not acceptable.
    fn read(&self, value: &Value) -> Option<Self::Value>;

    /// The value as TOML has it.
    fn write(&self, value: &Self::Value) -> Value;

    /// What is accepted, to follow the word "expected".
    fn expectation(&self) -> String;

    /// The words among which a misspelled one is looked up.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// True when the value must not be printed anywhere.
    fn is_secret(&self) -> bool {
        false
    }
}

/// A whole number of a range, optionally 0 with a meaning of its own.
pub(super) struct Whole<T> {
    low: u64,
    high: u64,
    zero: Option<&'static str>,
    power_of_two: bool,
    is: PhantomData<T>,
}

/// A whole number from `low` to `high`.
pub(super) fn whole<T>(low: u64, high: u64) -> Whole<T> {
    Whole { low, high, zero: None, power_of_two: false, is: PhantomData }
}

/// A power of two from `low` to `high`.
pub(super) fn power<T>(low: u64, high: u64) -> Whole<T> {
    Whole { power_of_two: true, ..whole(low, high) }
}

impl<T> Whole<T> {
    /// Accepts 0 too, with the meaning given.
    pub(super) fn or_zero(self, meaning: &'static str) -> Self {
        Self { zero: Some(meaning), ..self }
    }

    fn accepted(&self, value: &Value) -> Option<u64> {
        let Value::Whole(number) = value else { return None };
        let number = u64::try_from(*number).ok()?;
        let in_range = (self.low..=self.high).contains(&number)
            && (!self.power_of_two || number.is_power_of_two());
        (in_range || number == 0 && self.zero.is_some()).then_some(number)
    }
}

impl<T: TryFrom<u64> + Into<u64> + Copy> Kind for Whole<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        self.accepted(value)?.try_into().ok()
    }

    fn write(&self, value: &T) -> Value {
        Value::Whole(i64::try_from((*value).into()).unwrap_or(i64::MAX))
    }

    fn expectation(&self) -> String {
        let noun = if self.power_of_two { "a power of two" } else { "a whole number" };
        let range = format!("{noun} from {} to {}", self.low, self.high);
        self.zero.map_or(range.clone(), |meaning| format!("{range}, or 0 ({meaning})"))
    }
}

/// A duration, as a whole number of a unit that the key's name carries.
pub(super) struct Span {
    count: Whole<u64>,
    unit: Duration,
}

/// A duration in milliseconds.
pub(super) fn millis(low: u64, high: u64) -> Span {
    Span { count: whole(low, high), unit: Duration::from_millis(1) }
}

/// A duration in microseconds.
pub(super) fn micros(low: u64, high: u64) -> Span {
    Span { count: whole(low, high), unit: Duration::from_micros(1) }
}

impl Span {
    /// Accepts 0 too, with the meaning given.
    pub(super) fn or_zero(self, meaning: &'static str) -> Self {
        Self { count: self.count.or_zero(meaning), ..self }
    }
}

impl Kind for Span {
    type Value = Duration;

    fn read(&self, value: &Value) -> Option<Duration> {
        let nanos = u64::try_from(self.unit.as_nanos()).ok()?;
        Some(Duration::from_nanos(nanos.checked_mul(self.count.accepted(value)?)?))
    }

    fn write(&self, value: &Duration) -> Value {
        Value::Whole(i64::try_from(value.as_nanos() / self.unit.as_nanos()).unwrap_or(i64::MAX))
    }

    fn expectation(&self) -> String {
        self.count.expectation()
    }
}

/// A boolean.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(&self, value: &Value) -> Option<bool> {
        if let Value::Flag(flag) = value { Some(*flag) } else { None }
    }

    fn write(&self, value: &bool) -> Value {
        Value::Flag(*value)
    }

    fn expectation(&self) -> String {
        "true or false".to_owned()
    }
}

/// An enum whose cases have names in TOML.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Every case with its name.
    const ALL: &'static [(Self, &'static str)];
}

/// One of the names of a [`Word`].
pub(super) struct OneOf<T>(PhantomData<T>);

/// One of the names of `T`.
pub(super) fn one_of<T: Word>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T: Word> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        let Value::Text(text) = value else { return None };
        T::ALL.iter().find(|(_, name)| name == text).map(|(word, _)| *word)
    }

    fn write(&self, value: &T) -> Value {
        let name = T::ALL.iter().find(|(word, _)| word == value).map_or("", |(_, name)| name);
        Value::Text(name.to_owned())
    }

    fn expectation(&self) -> String {
        let names: Vec<String> = self.words().iter().map(|name| format!("{name:?}")).collect();
        match names.as_slice() {
            [head @ .., last] if !head.is_empty() => format!("{} or {last}", head.join(", ")),
            _ => names.concat(),
        }
    }

    fn words(&self) -> Vec<&'static str> {
        T::ALL.iter().map(|(_, name)| *name).collect()
    }
}

/// An IP address with a port.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn read(&self, value: &Value) -> Option<SocketAddr> {
        if let Value::Text(text) = value { text.parse().ok() } else { None }
    }

    fn write(&self, value: &SocketAddr) -> Value {
        Value::Text(value.to_string())
    }

    fn expectation(&self) -> String {
        "an IP address and a port, as \"0.0.0.0:8080\" or \"[::1]:8080\"".to_owned()
    }
}

/// An [`Address`], or an empty string for none.
pub(super) struct OptionalAddress;

impl Kind for OptionalAddress {
    type Value = Option<SocketAddr>;

    fn read(&self, value: &Value) -> Option<Option<SocketAddr>> {
        match value {
            Value::Text(text) if text.is_empty() => Some(None),
            _ => Address.read(value).map(Some),
        }
    }

    fn write(&self, value: &Option<SocketAddr>) -> Value {
        Value::Text(value.map_or(String::new(), |address| address.to_string()))
    }

    fn expectation(&self) -> String {
        format!("{}, or \"\" (off)", Address.expectation())
    }
}

/// The path of a request target (RFC 3986, section 3.3), without query or fragment.
pub(super) struct UrlPath;

impl Kind for UrlPath {
    type Value = String;

    fn read(&self, value: &Value) -> Option<String> {
        let Value::Text(text) = value else { return None };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
        (text.starts_with('/') && text.len() <= 256 && text.chars().all(plain))
            .then(|| text.clone())
    }

    fn write(&self, value: &String) -> Value {
        Value::Text(value.clone())
    }

    fn expectation(&self) -> String {
        "a path of at most 256 characters that begins with / and has no query, as \"/ws\""
            .to_owned()
    }
}

/// A [`UrlPath`], or an empty string for none.
pub(super) struct OptionalPath;

impl Kind for OptionalPath {
    type Value = Option<String>;

    fn read(&self, value: &Value) -> Option<Option<String>> {
        match value {
            Value::Text(text) if text.is_empty() => Some(None),
            _ => UrlPath.read(value).map(Some),
        }
    }

    fn write(&self, value: &Option<String>) -> Value {
        Value::Text(value.clone().unwrap_or_default())
    }

    fn expectation(&self) -> String {
        format!("{}, or \"\" (off)", UrlPath.expectation())
    }
}

/// A pattern of room names.
pub(super) struct Pattern;

impl Kind for Pattern {
    type Value = Glob;

    fn read(&self, value: &Value) -> Option<Glob> {
        let Value::Text(text) = value else { return None };
        (!text.is_empty() && text.len() <= 1024).then(|| Glob::new(text))
    }

    fn write(&self, value: &Glob) -> Value {
        Value::Text(value.as_str().to_owned())
    }

    fn expectation(&self) -> String {
        "a room name in which * stands for any characters, as \"ticker:*\"".to_owned()
    }
}
