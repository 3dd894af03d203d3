//! News of inboxes over nodes, where these share a store: what one node has kept, or was told is read, the connections of its
//! user to the others are told too.
//!
//! It crosses as an envelope on the channel of all nodes, so it is taken once, and by no node that told it. The
//! notification itself is in the store before, so what is lost on the way is in the list still. What waits for the
//! bridge is bounded; more is not told.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::is_user_room;
use crate::base::inbox::Note;
use crate::bridge::{Channel, Parcel, Refused};
use crate::hub::Encoded;
use crate::mesh::{Lane, Port};
use crate::node::crossing::ALL;
use crate::node::link::{Link, bridge_port};
use crate::shard::{Mail, News, Notice};

/// Pieces of news that may wait for the bridge.
const MOST: usize = 4096;
/// By which an envelope of this kind is known: its first field.
const MARK: &str = "{\"notice\":";

/// What crosses, in place of an order.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    notice: Told,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// The name of the user's own room.
    owner: String,
    /// How many are unread now.
    unread: u64,
    /// What was kept, where that is the news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<Kept>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: u64,
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Box<RawValue>>,
    payload: Box<RawValue>,
}

/// News on the way to the bridge.
#[derive(Debug, Default)]
pub(super) struct Across {
    /// Whether there is anybody to tell.
    is_wanted: bool,
    waiting: VecDeque<Arc<Notice>>,
}

impl Across {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    pub(super) fn push(&mut self, notice: &Arc<Notice>) {
        if self.is_wanted && self.waiting.len() < MOST {
            self.waiting.push_back(Arc::clone(notice));
        }
    }

    /// Posts what the bridge has space for; true when nothing waits any more.
    pub(super) fn offer(&mut self, port: &Port<Mail>, shards: u16) -> bool {
        let to = bridge_port(usize::from(shards));
        while let Some(notice) = self.waiting.pop_front() {
            if port.post(to, Lane::Delivery, Mail::Notice(Arc::clone(&notice))).is_err() {
                self.waiting.push_front(notice);
                return false;
            }
        }
        true
    }
}

/// What is published of it.
pub(super) fn parcel(notice: &Notice) -> Option<Parcel> {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).ok();
    let (unread, note) = match &notice.news {
        News::Unread(unread) => (*unread, None),
        News::Note(note, unread) => {
            let (kind, payload) = (raw(&note.kind), raw(&note.payload)?);
            (*unread, Some(Kept { id: note.id, at: note.at, kind, payload }))
        }
    };
    let told = Envelope { notice: Told { owner: notice.owner.to_string(), unread, note } };
    let order = serde_json::to_vec(&told).ok()?;
    let channels = vec![Channel::from(ALL)];
    Some(Parcel { channels, order, from: None, in_turn: true, count: None })
}

/// What another node has told; nothing where that is an order.
fn read(order: &str) -> Option<Result<Notice, String>> {
    if !order.starts_with(MARK) {
        return None;
    }
    let told = match serde_json::from_str::<Envelope>(order) {
        Ok(Envelope { notice }) => notice,
        Err(error) => return Some(Err(error.to_string())),
    };
    if !is_user_room(&told.owner) {
        return Some(Err("expected the name of a user's own room".to_owned()));
    }
    let news = match told.note {
        None => News::Unread(told.unread),
        Some(Kept { id, at, kind, payload }) => {
            let kind = kind.map_or_else(Box::default, |kind| Box::from(kind.get()));
            let payload = Box::from(payload.get());
            News::Note(Note { id, at, kind, payload }, told.unread)
        }
    };
    let owner = Arc::from(told.owner);
    Some(Ok(Notice { owner, news, except: None, receipt: None, encoded: Encoded::default() }))
}

impl Link {
    /// Takes in what another node has told of an inbox; nothing where that is an order.
    pub(super) fn take_notice(&mut self, order: &str) -> Option<Result<(), Refused>> {
        let notice = match read(order)? {
            Ok(notice) => Arc::new(notice),
            Err(why) => return Some(Err(Refused::Malformed(why))),
        };
        for waiting in &mut self.waiting.lines {
            waiting.push_back(Mail::Notice(Arc::clone(&notice)));
        }
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::user_room;

    fn notice(news: News) -> Notice {
        let owner = Arc::from(user_room(Some("acme"), "a\"da"));
        Notice { owner, news, except: None, receipt: Some(1), encoded: Encoded::default() }
    }

    #[test]
    fn news_arrives_as_it_was_told_and_nothing_else_is_any() {
        let note =
            |kind: &str| Note { id: 7, at: 9, kind: kind.into(), payload: "{\"a\": 1.0}".into() };
        let all = [News::Unread(3), News::Note(note("\"mail\""), 2), News::Note(note(""), 1)];
        for news in all {
            let before = format!("{news:?}");
            let told = notice(news);
            let sent = parcel(&told).expect("a parcel");
            assert_eq!(&*sent.channels[0], ALL);
            let text = String::from_utf8(sent.order).expect("a text");
            let read = read(&text).expect("news").expect("of an inbox");
            assert_eq!((format!("{:?}", read.news), &read.owner), (before, &told.owner));
            assert_eq!((read.except, read.receipt), (None, None));
        }
        assert!(read(r#"{"type":"x"}"#).is_none());
        for wrong in [
            r#"{"notice":{}}"#,
            r#"{"notice":{"owner":"lobby","unread":1}}"#,
            r#"{"notice":{"owner":"lobby","unread":1,"more":2}}"#,
        ] {
            assert!(read(wrong).expect("no order").is_err(), "{wrong}");
        }
    }
}
