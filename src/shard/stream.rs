//! Event streams: the same rooms, queues and policies, for clients that only listen.
//!
//! A stream is a connection like any other, but that its bytes have another form and that everything it
//! wants stands in its request. So it is answered like one whose commands came with the handshake: rights,
//! limits and errors are the same, and what is refused is told as an event. Fan-out makes a
//! publication's event where a shard has streams at all, once for all of them; what the id of an event says of
//! a stream's other rooms is in `trail`.

use std::rc::Rc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::auth::{Denied, Place, place};
use crate::base::cursor::Cursor;
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::connection::{Connection, Knock, Verdict, Wish};
use crate::flow::line;
use crate::hub::Publication;
use crate::session::encode::Reply;
use crate::session::{self, encode};
use crate::shard::forms;
use crate::shard::state::Shard;
use crate::shard::trail::{self, Sign};
use crate::wire::http::{Head, Refusal, Upgrade};
use crate::wire::sse;

/// The longest wait for a stream that broke. Where drained clients come back over minutes, one that has lost its way to
/// the node should not be away as long.
const LAST_RETURN: Duration = Duration::from_secs(30);

/// What an event's reader remembers: which numbering, which number, which room. A room's name holds no control
/// characters, so this is one line.
///
/// `None` for what is in no room and has no number: such an event leaves the reader's last id as it was.
pub(super) fn event_id(publication: &Publication) -> Option<String> {
    let Place::Room(room) = place(&publication.room) else { return None };
    Some(place_id(room, publication.cursor))
}

fn place_id(room: &str, Cursor { epoch, offset }: Cursor) -> String {
    format!("{epoch:x}.{offset}.{room}")
}

/// Where one who saw this event last has left off in a room: nowhere known, if the event was of another one
/// and says nothing of it, or the id is none of ours.
fn since(last: Option<&str>, room: &str) -> Option<Cursor> {
    let (others, own) = trail::split(last?);
    let mut parts = own.splitn(3, '.');
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let offset = parts.next()?.parse().ok()?;
    let is_own = parts.next()? == room;
    if is_own { Some(Cursor { epoch, offset }) } else { trail::other(others, room) }
}

/// A message of the server's in the form that this connection reads.
pub(super) fn framed(connection: &Connection, text: &[u8]) -> Vec<u8> {
    forms::framed(connection.form(), text)
}

impl Shard {
    /// Whether a page may send the request that its browser asks about, or go on with a session.
    pub(super) fn judge_page(
        &mut self,
        knock: Knock,
        head: &Head<'_>,
        request: &Upgrade<'_>,
    ) -> Verdict {
        let access = &self.settings.access;
        let judged = match knock {
            Knock::GoesOn | Knock::Probes => access.goes_on(head, request.origin),
            Knock::AsksFirst | Knock::Enters => access.preflight(head, request.origin),
        };
        match judged {
            Err(Denied::Origin(error)) => {
                self.counters.origin_refused_total += 1;
                Verdict::Refuse(Refusal::forbidden(error.public()))
            }
            Ok(()) | Err(Denied::Token(_)) => Verdict::Welcome,
        }
    }

    /// Does what the request of an event stream has asked for.
    pub(super) fn grant(&mut self, id: ConnId, wish: Option<Box<Wish>>, now: Time) {
        let Some(wish) = wish else { return };
        if let (Some(page), [room]) = (&wish.page, &wish.rooms[..]) {
            return self.read_page(id, room, page, now);
        }
        let settings = Rc::clone(&self.settings);
        let (rooms, last) = (wish.rooms.iter().map(String::as_str), wish.last.as_deref());
        self.rooms.replays.trails.begin(id.index, rooms, |room| since(last, room));
        for room in &wish.rooms {
            if !self.table.get(id).is_some_and(|connection| connection.is_living()) {
                return;
            }
            let mut text = Vec::new();
            encode::join(&mut text, room, since(wish.last.as_deref(), room));
            let Ok(text) = str::from_utf8(&text) else { unreachable!("JSON of a string is text") };
            match session::parse(text, &settings.commands) {
                Ok(request) => self.consider(id, request, text, None, now),
                Err(error) => self.refuse(id, &error, now),
            }
        }
    }

    /// Tells a stream that it has joined a room, with an id that says from where it goes on: so one that breaks before
    /// the first publication comes back there as well.
    pub(super) fn reply_from(
        &mut self,
        id: ConnId,
        reference: Option<&RawValue>,
        reply: &Reply<'_>,
        (room, at): (&str, Cursor),
        now: Time,
    ) {
        let mut text = Vec::new();
        if encode::reply(&mut text, reference, reply) {
            let (trails, sign) = (&mut self.rooms.replays.trails, Sign::of(room));
            trails.set(id.index, sign, at);
            let place = trails.others(id.index, sign) + &place_id(room, at);
            self.push_kept(id, sse::event(None, Some(&place), &text), now);
        }
    }

    /// Who the connection is, before all else. A stream hears with it after how long to come back should it break: each
    /// another time, for one node that is lost loses many.
    pub(super) fn push_greeting(&mut self, id: ConnId, text: &[u8], now: Time) {
        let is_stream = self.table.get(id).is_some_and(|connection| connection.is_stream());
        if !is_stream || self.is_reading(id) {
            return self.push_text(id, text, now);
        }
        let last = self.settings.capacity.reconnect_spread.min(LAST_RETURN);
        let first = last.min(line::FIRST);
        let delay = first + (last - first).mul_f64(self.rng.f64());
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.push_kept(id, sse::opening(delay_ms, text), now);
    }

    /// Tells a stream after how long to come back, once it has ended.
    pub(super) fn push_retry(&mut self, id: ConnId, delay_ms: u64, now: Time) {
        if self.table.get(id).is_some_and(|connection| connection.is_stream()) {
            self.push_kept(id, sse::retry(delay_ms), now);
        }
    }
}
