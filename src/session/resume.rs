//! The fields by which a client comes back: cursors, lists of rooms, pages of history.
//!
//! They nest, where other fields are flat, so they are read by visitors of their own; what is not listed
//! is refused here as it is at the top level. An epoch is a string to be compared and nothing else: one
//! that the engine never writes is an epoch that no room has.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use super::command::CommandLimits;
use super::envelope::{Field, bad, shown};
use super::error::CommandError;
use crate::base::cursor::Cursor;

/// A room to come back to, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return<'a> {
    /// The room's name, not checked in any way.
    pub room: Cow<'a, str>,
    /// Everything up to here has been seen; `None` to begin with what comes.
    pub since: Option<Cursor>,
}

/// The epoch that no room has.
const NO_EPOCH: u64 = u64::MAX;

/// Bytes of an epoch as the engine writes it.
const EPOCH_DIGITS: usize = 16;

/// The longest that a publication may ask to be delivered: a year.
const MAX_TTL_MS: u64 = 31_536_000_000;

/// Reads a cursor.
pub(super) fn since(value: &RawValue) -> Result<Cursor, CommandError> {
    serde_json::from_str(value.get()).map(|Since(cursor)| cursor).map_err(|_| {
        bad(Field::Since, value.get(), "an object with the `epoch` and the `offset` of a reply")
    })
}

/// Reads the list of rooms that a client comes back to.
pub(super) fn returns<'a>(
    value: &'a RawValue,
    limits: &CommandLimits,
) -> Result<Vec<Return<'a>>, CommandError> {
    let list: Vec<Return<'a>> = serde_json::from_str(value.get()).map_err(|_| {
        bad(Field::Rooms, value.get(), "an array of objects with `room` and perhaps `since`")
    })?;
    if list.is_empty() || list.len() > limits.max_restore {
        let expected = format!("1 to {} rooms", limits.max_restore);
        return Err(bad(Field::Rooms, &format!("a list of {}", list.len()), &expected));
    }
    Ok(list)
}

/// Reads an offset.
pub(super) fn offset(field: Field, value: &RawValue) -> Result<u64, CommandError> {
    serde_json::from_str(value.get()).map_err(|_| bad(field, value.get(), "an offset"))
}

/// Reads how many publications a page is to have.
pub(super) fn limit(value: &RawValue, limits: &CommandLimits) -> Result<usize, CommandError> {
    let most = limits.max_history;
    match serde_json::from_str(value.get()) {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(bad(Field::Limit, value.get(), &format!("a whole number from 1 to {most}"))),
    }
}

/// Reads how long a publication is worth delivering.
pub(super) fn ttl(value: &RawValue) -> Result<Duration, CommandError> {
    match serde_json::from_str(value.get()) {
        Ok(millis @ 1..=MAX_TTL_MS) => Ok(Duration::from_millis(millis)),
        _ => {
            let expected = format!("milliseconds, a whole number from 1 to {MAX_TTL_MS}");
            Err(bad(Field::TtlMs, shown(value.get()).as_ref(), &expected))
        }
    }
}

/// A cursor as clients write it.
struct Since(Cursor);

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [epoch, offset] = deserializer.deserialize_map(Strict::new(["epoch", "offset"]))?;
        let (epoch, offset) = (read::<Word<'_>, _>(epoch)?, read(offset)?);
        let is_ours = |text: &str| {
            text.len() <= EPOCH_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let epoch = Some(&*epoch.0).filter(|text| is_ours(text));
        let epoch = epoch.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(NO_EPOCH);
        Ok(Self(Cursor { epoch, offset }))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Return<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [room, since] = deserializer.deserialize_map(Strict::new(["room", "since"]))?;
        let Word(room) = read(room)?;
        let since = since.map(|value| serde_json::from_str(value.get())).transpose();
        let since = since.map_err(D::Error::custom)?.map(|Since(cursor)| cursor);
        Ok(Self { room, since })
    }
}

fn read<'a, T: Deserialize<'a>, E: Error>(value: Option<&'a RawValue>) -> Result<T, E> {
    let value = value.ok_or_else(|| E::custom("a field is missing"))?;
    serde_json::from_str(value.get()).map_err(E::custom)
}

/// A string that borrows where it can.
#[derive(Deserialize)]
struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object that has no fields but these, each once at most.
struct Strict<'a, const N: usize> {
    names: [&'static str; N],
    lifetime: PhantomData<&'a ()>,
}

impl<const N: usize> Strict<'_, N> {
    fn new(names: [&'static str; N]) -> Self {
        Self { names, lifetime: PhantomData }
    }
}

impl<'de: 'a, 'a, const N: usize> Visitor<'de> for Strict<'a, N> {
    type Value = [Option<&'a RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.names.join(" and "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(Word(name)) = map.next_key()? {
            let at = self.names.iter().position(|known| *known == name);
            let at = at.ok_or_else(|| de::Error::custom("an unknown field"))?;
            let value: &'de RawValue = map.next_value()?;
            if values[at].replace(value).is_some() {
                return Err(de::Error::custom("a field is given twice"));
            }
        }
        Ok(values)
    }
}
