//! A user's notifications: how a client asks for them, and how it is told of them.
//!
//! Ids and counts are JSON numbers that a JavaScript number holds exactly. A page says the id of the newest
//! notification there was when it was made: whatever is pushed after it has a larger one.

use serde_json::value::RawValue;

use super::envelope::{Envelope, Field, bad};
use super::error::{Code, CommandError};
use super::object::Object;
use crate::base::inbox::{LAST_ID, Marked, Note, Page, Span};

/// Ids in one `throng:read`.
const MAX_IDS: usize = 1000;

/// Bytes of the notifications in one answer, but one in any case; far below what a queue holds.
const PAGE_BYTES: u64 = 131_072;

/// Reads which part of the inbox is asked for.
pub(super) fn span(envelope: &Envelope<'_>, max_page: usize) -> Result<Span, CommandError> {
    let number = |field, low, high, otherwise| {
        let value = envelope.get(field).map(|value| whole(field, value, low, high));
        value.transpose().map(|value| value.unwrap_or(otherwise))
    };
    let most = max_page as u64;
    let limit = number(Field::Limit, 0, most, most)?;
    Ok(Span {
        after: number(Field::After, 0, LAST_ID, 0)?,
        until: number(Field::Until, 0, LAST_ID, LAST_ID)?,
        limit: usize::try_from(limit).unwrap_or(max_page),
        bytes: PAGE_BYTES,
    })
}

/// Reads what was read.
pub(super) fn marked(envelope: &Envelope<'_>) -> Result<Marked, CommandError> {
    match (envelope.get(Field::Ids), envelope.get(Field::All)) {
        (Some(ids), None) => {
            let found: Option<Vec<u64>> = serde_json::from_str(ids.get()).ok();
            let fits = |ids: &Vec<u64>| {
                (1..=MAX_IDS).contains(&ids.len()) && ids.iter().all(|id| *id <= LAST_ID)
            };
            let expected = format!("a list of 1 to {MAX_IDS} ids of notifications");
            let ids = found.filter(fits).ok_or_else(|| bad(Field::Ids, ids.get(), &expected))?;
            Ok(Marked::Ids(ids))
        }
        (None, Some(all)) if all.get() == "true" => Ok(Marked::All),
        (None, Some(all)) => Err(bad(Field::All, all.get(), "true")),
        (Some(_), Some(all)) => Err(bad(Field::All, all.get(), "no `all` beside `ids`")),
        (None, None) => {
            let message = "throng:read needs the field `ids`, or `all`";
            Err(CommandError::new(Code::MissingField, message, None))
        }
    }
}

fn whole(field: Field, value: &RawValue, low: u64, high: u64) -> Result<u64, CommandError> {
    let number: Option<u64> = serde_json::from_str(value.get()).ok();
    let fits = number.filter(|number| (low..=high).contains(number));
    let expected = format!("a whole number from {low} to {high}");
    fits.ok_or_else(|| bad(field, value.get(), &expected))
}

/// Appends the answer to `throng:inbox`. It is sent always: it is all the command is for.
pub fn page(out: &mut Vec<u8>, reference: Option<&RawValue>, page: &Page) {
    Object::typed(out, "throng:reply")
        .raw("ref", reference)
        .plain("ok", true)
        .list("items", &page.notes, note)
        .plain("newest", page.newest)
        .plain("unread", page.unread)
        .plain("more", page.more)
        .end();
}

/// Appends the answer to `throng:read`, and says so; without a `ref` there is none.
pub fn read(out: &mut Vec<u8>, reference: Option<&RawValue>, unread: u64) -> bool {
    if reference.is_some() {
        let object = Object::typed(out, "throng:reply").raw("ref", reference).plain("ok", true);
        object.plain("unread", unread).end();
    }
    reference.is_some()
}

/// Appends the push that brings a notification, and says how many are unread with it.
pub fn notification(out: &mut Vec<u8>, new: &Note, unread: u64) {
    note(Object::typed(out, "throng:notification"), new).plain("unread", unread).end();
}

/// Appends the push that says how many are unread, after another connection of the user has read some.
pub fn unread(out: &mut Vec<u8>, unread: u64) {
    Object::typed(out, "throng:unread").plain("unread", unread).end();
}

fn note<'o>(object: Object<'o>, note: &Note) -> Object<'o> {
    let object = object.plain("id", note.id).plain("at", note.at);
    let object = if note.kind.is_empty() { object } else { object.plain("kind", &note.kind) };
    object.plain("payload", &note.payload)
}
