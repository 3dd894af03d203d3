//! Rooms read by plain HTTP: one request, one part of a room's history, the end.
//!
//! The request comes through the same door as all others, and is obeyed like the command `throng:history` of somebody
//! who has the right to it: rights, back ends that are asked, exceptions and bounds are the same. It joins no room,
//! is no presence of anybody, and is not told of to back ends. What would be a reply or an error elsewhere is the
//! whole response here; whoever has no answer when the time of a handshake is over is asked to come back.

use std::rc::Rc;

use crate::auth::Identity;
use crate::auth::user_room;
use crate::base::cursor::Cursor;
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::connection::{PageWish, Wish};
use crate::session::{self, Code, CommandError, encode};
use crate::shard::command::overloaded;
use crate::shard::state::Shard;
use crate::shard::trail;
use crate::wire::http;

impl Shard {
    /// True while the connection waits for the one answer that it will get.
    pub(super) fn is_reading(&self, id: ConnId) -> bool {
        let readings = &self.gate.people.readings;
        !readings.is_empty() && readings.contains_key(&id.index)
    }

    /// The request has asked for a page of history, if it has; from here to its end the connection is a reader's.
    pub(super) fn begin_reading(&mut self, conn: ConnId, wish: Option<&Wish>) {
        if let Some(page) = wish.and_then(|wish| wish.page.as_ref()) {
            let origin = page.origin.as_deref().map(Box::from);
            self.gate.people.readings.insert(conn.index, origin);
        }
    }

    /// Somebody reads; its rights are known, and it is nobody's presence.
    pub(super) fn recognise_reader(&mut self, conn: ConnId, identity: Identity) {
        let own = user_room(identity.tenant.as_deref(), &identity.user);
        self.note_person(conn.index, identity, &own);
    }

    /// Does what the request has asked for.
    pub(super) fn read_page(&mut self, id: ConnId, room: &str, page: &PageWish, now: Time) {
        if !self.is_reading(id) {
            return;
        }
        let since = match page.since.as_deref().map(cursor) {
            Some(None) => {
                let message = "since: expected EPOCH.OFFSET, or the id of an event";
                return self.refuse(id, &CommandError::new(Code::BadField, message, None), now);
            }
            Some(since) => since,
            None => None,
        };
        let mut text = Vec::new();
        encode::history(&mut text, room, since, [page.before.as_deref(), page.limit.as_deref()]);
        let Ok(text) = str::from_utf8(&text) else { unreachable!("JSON of strings is text") };
        let settings = Rc::clone(&self.settings);
        match session::parse(text, &settings.commands) {
            Ok(request) => self.consider(id, request, text, None, now),
            Err(error) => self.refuse(id, &error, now),
        }
    }

    /// The answer, and the end.
    pub(super) fn answer_reading(&mut self, id: ConnId, status: u16, text: &[u8], now: Time) {
        let origin = self.gate.people.readings.get(&id.index).and_then(|origin| origin.clone());
        let response = http::document(status, origin.as_deref(), text);
        self.respond(id, response, now);
    }

    /// No answer has come in time.
    pub(super) fn give_up_reading(&mut self, id: ConnId, now: Time) {
        self.refuse(id, &overloaded(None), now);
    }
}

/// The status of an error, by whose fault it is.
pub(super) fn status_of(code: Code) -> u16 {
    match code {
        Code::Unauthorized => 401,
        Code::Forbidden => 403,
        Code::RateLimited => 429,
        Code::Overloaded => 503,
        _ => 400,
    }
}

/// Reads `EPOCH.OFFSET`, with or without the room that stands behind it in the ids of events.
fn cursor(text: &str) -> Option<Cursor> {
    let (_, own) = trail::split(text);
    let mut parts = own.splitn(3, '.');
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let offset = parts.next()?.parse().ok()?;
    Some(Cursor { epoch, offset })
}
