//! A publication as it is kept in the store, and as it comes back.
//!
//! A row is JSON of its own kind, as type, payload and identifier are JSON already and go in as they came. What
//! has no meaning in another process stays behind: queues' marks, the author's wish to be told, and connections
//! that were excepted, as another process gives their addresses to others. Names of users and rooms keep their
//! meaning. Times are of the calendar.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::publication::{
    Audience, By, Durable, Encoded, Except, Origin, Publication, Target, Terms,
};
use crate::base::cursor::Cursor;
use crate::base::shared::Overflow;
use crate::base::time::Time;

/// What a row says.
#[derive(Debug, Deserialize, Serialize)]
struct Row<'a> {
    #[serde(borrow, rename = "t")]
    kind: &'a RawValue,
    /// None or one: a payload may be null.
    #[serde(borrow, rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    payload: Vec<&'a RawValue>,
    #[serde(borrow, rename = "i", default, skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    /// The connection that published it, as clients see it.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// From then on nobody receives it any more, in milliseconds since 1970.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    /// Rooms that are excepted, by their names within the node.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
    /// Where its identifier counts: who published it.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    by: Option<By>,
}

/// A publication that was kept.
#[derive(Debug)]
pub struct Recalled {
    /// Itself, with the number it was given.
    pub publication: Publication,
    /// Who published it, where its identifier counts.
    pub by: Option<By>,
}

/// The row of a publication. `unix_ms` is the time of the calendar at `now`.
#[must_use]
pub fn write(publication: &Publication, unix_ms: u64, now: Time) -> Box<[u8]> {
    let millis = |until: Time| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
    let except = publication.to.except.as_ref();
    let row = Row {
        kind: &publication.kind,
        payload: publication.payload.as_deref().into_iter().collect(),
        id: publication.id.as_deref(),
        from: publication.origin.connection().map(|address| address.to_string()),
        until: publication.terms.until.map(|until| unix_ms.saturating_add(millis(until))),
        except: except.map_or_else(Vec::new, |except| {
            except.rooms.iter().map(|room| String::from(&**room)).collect()
        }),
        by: publication.terms.once.as_ref().map(|once| once.by.clone()),
    };
    // Nothing in it can fail: it is made of texts, numbers and JSON.
    serde_json::to_vec(&row).unwrap_or_default().into()
}

/// The publication that a row was made of. `unix_ms` is the time of the calendar at `now`. `None` for a row that
/// cannot be understood.
#[must_use]
pub fn read(
    room: &Arc<str>,
    cursor: Cursor,
    row: &[u8],
    unix_ms: u64,
    now: Time,
) -> Option<Recalled> {
    let row: Row<'_> = serde_json::from_slice(row).ok()?;
    let until = row
        .until
        .map(|until| now.plus(std::time::Duration::from_millis(until.saturating_sub(unix_ms))));
    let rooms: Box<[Arc<str>]> = row.except.iter().map(|room| Arc::from(room.as_str())).collect();
    let except =
        (!rooms.is_empty()).then(|| Arc::new(Except { connections: Box::default(), rooms }));
    let from = row.from.map(|from| from.parse()).transpose().ok()?;
    let publication = Publication {
        room: Arc::clone(room),
        to: Audience { target: Target::Room, except },
        cursor,
        at: now,
        kind: row.kind.to_owned(),
        payload: row.payload.first().map(|payload| Arc::from((*payload).to_owned())),
        id: row.id.map(RawValue::to_owned),
        overflow: Overflow::default(),
        key: 0,
        origin: from.map_or(Origin::BackEnd(None), Origin::Connection),
        terms: Terms { until, durable: Durable::Stored, ..Terms::default() },
        encoded: Encoded::default(),
    };
    Some(Recalled { publication, by: row.by })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::base::id::{ConnAddress, ConnId, ShardId};
    use crate::hub::publication::Once;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    proptest! {
        #[test]
        fn a_publication_comes_back_as_it_was_kept(
            payload in prop::option::of(prop::sample::select(vec!["null", "1.50", "{ \"a\" : [1, \"\\u00e9\"] }", "\"x\""])),
            id in prop::option::of(prop::sample::select(vec!["\"a\\nb\"", "77", "1e3"])),
            from in prop::option::of((0..9u16, any::<u32>())),
            left in prop::option::of(1..100_000u64),
            excepted in prop::collection::vec("[a-z\u{1}]{1,9}", 0..3),
            by in prop::sample::select(vec![
                None,
                Some(By::BackEnd),
                Some(By::User(None, "ada \"x\"".into())),
                Some(By::User(Some("t".into()), "bob".into())),
            ]),
        ) {
            let room: Arc<str> = Arc::from("room");
            let now = Time::ZERO.plus(Duration::from_secs(1000));
            let cursor = Cursor { epoch: 4, offset: 7 };
            let address = |(shard, index)| {
                ConnAddress::alone(ShardId(shard), ConnId { index, generation: 3 })
            };
            let except = (!excepted.is_empty()).then(|| Arc::new(Except {
                connections: Box::new([address((1, 2))]),
                rooms: excepted.iter().map(|room| Arc::from(room.as_str())).collect(),
            }));
            let publication = Publication {
                room: Arc::clone(&room),
                to: Audience { target: Target::Room, except },
                cursor: Cursor::default(),
                at: now,
                kind: raw("\"chat\""),
                payload: payload.map(|json| Arc::from(raw(json))),
                id: id.map(raw),
                overflow: Overflow::Conflate,
                key: 8,
                origin: from.map_or(Origin::BackEnd(None), |from| Origin::Connection(address(from))),
                terms: Terms {
                    until: left.map(|left| now.plus(Duration::from_millis(left))),
                    once: by.clone().map(|by| Box::new(Once { name: 5, by })),
                    across: true,
                    foreign: false,
                    keep: None,
                    durable: Durable::Asked,
                },
                encoded: Encoded::default(),
            };
            let row = write(&publication, 1_000_000, now);
            // Half a second later, in a process that has begun meanwhile.
            let then = Time::ZERO;
            let Recalled { publication: back, by: author } =
                read(&room, cursor, &row, 1_000_500, then).expect("a row");
            prop_assert_eq!(back.cursor, cursor);
            prop_assert_eq!(back.kind.get(), publication.kind.get());
            let text = |p: &Publication| p.payload.as_ref().map(|payload| payload.get().to_owned());
            prop_assert_eq!(text(&back), text(&publication));
            let name = |p: &Publication| p.id.as_ref().map(|id| id.get().to_owned());
            prop_assert_eq!(name(&back), name(&publication));
            prop_assert_eq!(back.origin, publication.origin);
            let until = left.map(|left| then.plus(Duration::from_millis(left.saturating_sub(500))));
            prop_assert_eq!(back.terms.until, until);
            prop_assert_eq!(author, by);
            let kept = |p: &Publication| {
                p.to.except.as_ref().map(|except| except.rooms.to_vec()).unwrap_or_default()
            };
            prop_assert_eq!(kept(&back), kept(&publication));
            prop_assert!(back.to.except.is_none_or(|except| except.connections.is_empty()));
        }

        #[test]
        fn any_row_is_understood_or_not_without_a_panic(row: Vec<u8>) {
            let _ = read(&Arc::from("room"), Cursor::default(), &row, 0, Time::ZERO);
        }
    }
}
