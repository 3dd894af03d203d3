//! What a member has missed, sent to it before anything new.
//!
//! A member that comes back with a cursor stays unconfirmed, and so receives nothing live, until the last
//! part of what it missed is in its queue. The home answers with as much as a calm queue takes. When that
//! was not all, the rest is asked for when the queue has drained, from where it ended. Meanwhile live
//! publications need no place of their own to wait in: the home keeps them in the room's ring, where the
//! next part comes from. The answer with the end of the ring confirms the member, and what the home
//! numbers afterwards comes behind it. So however long the history is, a connection holds a portion of it
//! at a time, and nothing is sent twice.
//!
//! One question of a connection is under way at a time, however many rooms it comes back to. A reader
//! that is slower than the room's history ages is told to begin anew, by one `throng:resync`. What is
//! replayed is never dropped from a queue: it only gets in when there is space for it.
//!
//! A member that is too slow for a room whose policy is to pause comes back in the same way, without having been away: from
//! the first publication on that its queue has no space for it is behind, and nothing live reaches it until it is not.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::plain;
use crate::base::cursor::{Cursor, Stale};
use crate::base::fate::Fate;
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::shared::{Shared, Trace};
use crate::base::time::Time;
use crate::connection::Form;
use crate::hub::{Publication, Slice, Standing};
use crate::session::Code;
use crate::session::encode::{self, Push, Reply, Restoration};
use crate::shard::fanout::{Item, push_of};
use crate::shard::forms;
use crate::shard::mail::{Answer, Asked, Found, Joining};
use crate::shard::outcomes::Note;
use crate::shard::recall::Recalls;
use crate::shard::state::Shard;
use crate::shard::trail::{FIELD, Sign, Step, Trails};

/// A room of which a connection has not had everything.
#[derive(Debug)]
struct Room {
    name: Arc<str>,
    /// Up to where it was sent.
    after: Cursor,
    /// The connection's other rooms have other numbers, and so has the same room at another time.
    number: u64,
}

/// The rooms of one connection.
#[derive(Debug)]
struct Behind {
    conn: ConnId,
    /// The question that is under way, which is about the first room.
    asked: Option<u64>,
    /// Never empty.
    rooms: VecDeque<Room>,
}

/// The connections that have not had everything.
#[derive(Debug)]
pub(super) struct Replays {
    behind: Map<u32, Behind>,
    next_number: u64,
    /// How far streams of several rooms have come.
    pub(super) trails: Trails,
    /// What clients of Socket.IO were given.
    pub(super) recalls: Recalls,
    /// What was replayed in this turn, by its address: whoever came back at the same time shares it. The mark is set for
    /// the part of an event that follows a trail, and for what is compressed.
    frames: Map<(usize, Form, bool), (Arc<Publication>, Shared)>,
}

impl Replays {
    pub(super) fn new(seed: &Seed, number: u64) -> Self {
        let (trails, recalls) = (Trails::new(seed), Recalls::new(seed, number));
        Self { behind: seed.map(), next_number: 0, trails, recalls, frames: seed.map() }
    }

    /// True while the connection has not had everything.
    pub(super) fn waits(&self, index: u32) -> bool {
        !self.behind.is_empty() && self.behind.contains_key(&index)
    }

    /// Connections that have not had everything.
    pub(super) fn len(&self) -> usize {
        self.behind.len()
    }

    pub(super) fn is_behind(&self, index: u32, room: &str) -> bool {
        let behind = self.behind.get(&index);
        behind.is_some_and(|behind| behind.rooms.iter().any(|other| *other.name == *room))
    }

    /// True while the room says nothing to the connection, which gets it from the room's history.
    pub(super) fn is_paused(&self, index: u32, room: &str) -> bool {
        self.waits(index) && self.is_behind(index, room)
    }

    fn add(&mut self, conn: ConnId, room: &Arc<str>, after: Cursor) {
        let number = self.next_number;
        self.next_number += 1;
        let behind = self.behind.entry(conn.index);
        let behind = behind.or_insert_with(|| Behind { conn, asked: None, rooms: VecDeque::new() });
        behind.rooms.push_back(Room { name: Arc::clone(room), after, number });
    }

    /// What is to be asked next for the connection; nothing while an answer is awaited.
    fn ask(&mut self, index: u32) -> Option<(Arc<str>, Cursor, u64)> {
        let behind = self.behind.get_mut(&index).filter(|behind| behind.asked.is_none())?;
        let room = behind.rooms.front()?;
        behind.asked = Some(room.number);
        Some((Arc::clone(&room.name), room.after, room.number))
    }

    /// Notes an answer; false when nobody waits for it any more.
    fn answered(&mut self, conn: ConnId, number: u64) -> bool {
        let behind = self.behind.get_mut(&conn.index);
        let behind = behind.filter(|behind| behind.conn == conn && behind.asked == Some(number));
        behind.map(|behind| behind.asked = None).is_some()
    }

    /// The connection has had the room up to there.
    fn advance(&mut self, index: u32, offset: u64) {
        let behind = self.behind.get_mut(&index);
        if let Some(room) = behind.and_then(|behind| behind.rooms.front_mut()) {
            room.after.offset = offset;
        }
    }

    /// The connection has nothing to catch up with in that room any more.
    pub(super) fn leave(&mut self, index: u32, room: &str) {
        let Some(behind) = self.behind.get_mut(&index) else { return };
        let Some(at) = behind.rooms.iter().position(|other| *other.name == *room) else { return };
        if let Some(room) = behind.rooms.remove(at)
            && behind.asked == Some(room.number)
        {
            behind.asked = None;
        }
        if behind.rooms.is_empty() {
            self.behind.remove(&index);
        }
    }

    /// The connection has ended.
    pub(super) fn forget(&mut self, index: u32) {
        self.behind.remove(&index);
        self.trails.forget(index);
    }

    /// The turn is over.
    pub(super) fn relax(&mut self) {
        if !self.frames.is_empty() {
            self.frames.clear();
            self.frames.shrink_to(KEPT);
        }
    }

    fn frame(
        &mut self,
        index: u32,
        publication: &Arc<Publication>,
        (form, small, places): (Form, Option<Arc<[u8]>>, bool),
        trace: Trace,
    ) -> Shared {
        let is_led = form == Form::Event && self.trails.has(index);
        let address = Arc::as_ptr(publication).addr();
        let mark = is_led || small.is_some();
        let make = || {
            // What is kept of a room is an event with an id.
            let from = if is_led { FIELD.len() } else { 0 };
            let bytes =
                small.unwrap_or_else(|| Arc::clone(forms::bytes(publication, form, places)));
            (Arc::clone(publication), Shared::tail(bytes, from, None).traced(trace))
        };
        let body = self.frames.entry((address, form, mark)).or_insert_with(make).1.clone();
        if !is_led {
            return body;
        }
        let sign = Sign::of(plain(&publication.room));
        self.trails.lead(index, &Step { body, sign, at: publication.cursor })
    }

    /// The connections that have not had everything, each with its rooms.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, impl Iterator<Item = &Arc<str>>)> {
        self.behind.values().map(|behind| (behind.conn, behind.rooms.iter().map(|room| &room.name)))
    }
}

/// Frames for which space is kept from turn to turn.
const KEPT: usize = 256;

impl Shard {
    /// The home knows of the membership, and has said what was missed.
    pub(super) fn handle_joined(&mut self, answer: &Answer, joining: Joining, now: Time) {
        let (id, room) = (answer.question.to.conn, &answer.question.room);
        if matches!(answer.found, Found::Away) {
            return self.refuse_away(&answer.question, now);
        }
        let standing = match self.table.get(id) {
            Some(connection) => self.rooms.hub.standing(&connection.member, room),
            None => Standing::Outside,
        };
        // It has left meanwhile; if not by itself, it must not believe that it is in the room.
        if standing == Standing::Outside && !self.may_join(id.index, plain(room)) {
            let message = "the right to join in that room is missing";
            return self.refuse_join(&answer.question, Code::Forbidden, message, now);
        }
        // Whoever is in the room already has its place in the stream, and keeps it.
        let begins = standing == Standing::Pending && !self.rooms.replays.is_behind(id.index, room);
        let lost = matches!(&answer.found, Found::Slice(slice) if slice.lost);
        let follows = begins && !lost && matches!(answer.found, Found::Slice(_));
        let since = joining.since.filter(|_| follows || lost);
        let at = begins.then(|| since.unwrap_or(answer.position));
        if let Some(at) = at {
            self.rooms.replays.recalls.join(id.index, room, at);
        }
        self.tell_joined(answer, joining, (joining.since.map(|_| follows), at), now);
        match (&answer.found, joining.since) {
            _ if !begins => {}
            (Found::Slice(slice), Some(since)) => {
                self.counters.resumes_total += 1;
                if lost {
                    // It is told once, before what is left of that follows.
                    self.tell_resync(id, room, Stale::Lost, since, now);
                }
                if !self.is_calm(id) {
                    self.fall_behind(id, room, since);
                } else if let Some(offset) = self.replay(id, slice, now) {
                    self.fall_behind(id, room, Cursor { offset, ..since });
                } else {
                    self.confirm(id, room, now);
                }
            }
            (Found::Stale(reason), _) => self.resync(id, answer, *reason, now),
            _ => self.confirm(id, room, now),
        }
    }

    fn tell_joined(
        &mut self,
        answer: &Answer,
        joining: Joining,
        (recovered, at): (Option<bool>, Option<Cursor>),
        now: Time,
    ) {
        let Answer { question, members, position, .. } = answer;
        let (members, position, room) = (*members, *position, plain(&question.room));
        if let Some(part) = joining.part {
            let restoration = Restoration { members, position, recovered };
            return self.note_restored(part, Ok(restoration), now);
        }
        let Cursor { epoch, offset } = position;
        let reply = Reply::Joined { room, members, offset, epoch, recovered };
        let (id, reference) = (question.to.conn, question.reference.as_deref());
        match at.filter(|_| self.table.get(id).is_some_and(|connection| connection.is_stream())) {
            Some(at) => self.reply_from(id, reference, &reply, (room, at), now),
            None => self.reply(id, reference, &reply, now),
        }
    }

    /// The home has said what more was missed.
    pub(super) fn handle_missed(&mut self, answer: &Answer, number: u64, now: Time) {
        let (id, room) = (answer.question.to.conn, &answer.question.room);
        if !self.rooms.replays.answered(id, number) {
            return;
        }
        match &answer.found {
            // It is asked for again when there is space.
            Found::Slice(_) if !self.is_calm(id) => {}
            Found::Slice(slice) => match self.replay(id, slice, now) {
                Some(offset) => self.rooms.replays.advance(id.index, offset),
                None => {
                    self.rooms.replays.leave(id.index, room);
                    self.confirm(id, room, now);
                }
            },
            Found::Stale(reason) => {
                self.rooms.replays.leave(id.index, room);
                self.resync(id, answer, *reason, now);
            }
            Found::Away => {
                self.rooms.replays.leave(id.index, room);
                self.resync(id, answer, Stale::TooOld, now);
            }
            Found::Nothing
            | Found::Anew(_)
            | Found::Repeat
            | Found::Stored(_)
            | Found::Refused(_) => {}
        }
    }

    /// The room says nothing more to these connections, from this publication on, until it is their turn in its history.
    pub(super) fn pause_in(&mut self, item: &Item, paused: &[u32]) {
        let Some((room, at)) = item.pauses() else { return };
        let after = Cursor { offset: at.offset.saturating_sub(1), ..*at };
        for index in paused {
            if let Some((id, _)) = self.table.at(*index) {
                self.fall_behind(id, room, after);
                self.counters.pauses_total += 1;
            }
        }
    }

    /// Asks for more of what a connection has missed, while its queue has space for it.
    pub(super) fn catch_up(&mut self, id: ConnId, now: Time) {
        while self.rooms.replays.waits(id.index) && self.is_calm(id) {
            let Some((room, after, number)) = self.rooms.replays.ask(id.index) else { return };
            self.ask(id, &room, Asked::Missed { after, number }, None, now);
        }
    }

    /// Queues a part of what was missed; up to where, when there is more.
    fn replay(&mut self, id: ConnId, slice: &Slice, now: Time) -> Option<u64> {
        let limits = self.settings.queue.clone();
        let reader = self.table.get(id).map(|connection| (connection.form(), connection.window()));
        let (form, window) = reader.unwrap_or((Form::Frame, None));
        for publication in &slice.publications {
            let trace = self.trace(publication);
            if self.excepts(publication, id) {
                self.measures.outcomes.note(trace, 1, id, Note::Fate(Fate::Excepted));
                continue;
            }
            if publication.is_over(now) {
                continue;
            }
            let small = window.and_then(|bits| self.deflated(publication, form, bits));
            let form = (form, small, self.recalls());
            let frame = self.rooms.replays.frame(id.index, publication, form, trace);
            let (room, offset) = (&publication.room, publication.cursor.offset);
            self.push_item(id.index, frame, &limits, now);
            self.rooms.replays.recalls.give(id.index, room, offset);
            self.counters.replayed_total += 1;
        }
        let last = slice.publications.last().map(|publication| publication.cursor.offset);
        last.filter(|_| slice.more)
    }

    /// True when a publication is not for the connection, by its address or by a room that it is in.
    fn excepts(&self, publication: &Publication, id: ConnId) -> bool {
        let Some(except) = &publication.to.except else { return false };
        let Some(connection) = self.table.peek(id.index) else { return true };
        // One who reads by plain HTTP is in no room, not even in that of its own.
        let own = self.gate.people.get(id.index).map(|person| person.own());
        let mut rooms = except.rooms.iter();
        publication.excepts(self.address(id))
            || rooms
                .any(|room| own == Some(room) || self.rooms.hub.is_member(&connection.member, room))
    }

    fn fall_behind(&mut self, id: ConnId, room: &Arc<str>, after: Cursor) {
        if self.table.get(id).is_some_and(|connection| connection.open().is_some()) {
            self.rooms.replays.add(id, room, after);
        }
    }

    fn confirm(&mut self, id: ConnId, room: &str, now: Time) {
        let Some(connection) = self.table.get(id) else { return };
        let hub = &mut self.rooms.hub;
        let before = hub.standing(&connection.member, room);
        if hub.confirm(&connection.member, room) && before == Standing::Pending {
            self.report_joined(id, room, now);
        }
    }

    /// Tells a member that it has to begin anew, from the newest publication on.
    fn resync(&mut self, id: ConnId, answer: &Answer, reason: Stale, now: Time) {
        self.confirm(id, &answer.question.room, now);
        self.rooms.replays.recalls.join(id.index, &answer.question.room, answer.position);
        self.tell_resync(id, &answer.question.room, reason, answer.position, now);
    }

    fn tell_resync(&mut self, id: ConnId, room: &str, reason: Stale, from: Cursor, now: Time) {
        self.counters.resyncs_total += 1;
        let mut text = Vec::new();
        encode::resync(&mut text, plain(room), reason, from);
        self.push_text(id, &text, now);
    }

    /// True when a portion of history fits into the connection's queue.
    fn is_calm(&mut self, id: ConnId) -> bool {
        let limits = self.queue_limits();
        let Some(connection) = self.table.get(id).filter(|c| c.is_living()) else { return false };
        let low = limits.low_water.min(limits.high_water / 2) as usize;
        let queue = &connection.outbound;
        queue.bytes() <= low && queue.len() <= limits.max_messages as usize / 4
    }

    /// The home has looked up a page of history.
    pub(super) fn handle_page(&mut self, answer: &Answer, was_since: bool, now: Time) {
        let (slice, is_whole) = match &answer.found {
            Found::Slice(slice) => (slice, !slice.lost),
            Found::Anew(slice) => (slice, false),
            Found::Away => return self.refuse_away(&answer.question, now),
            Found::Nothing
            | Found::Stale(_)
            | Found::Repeat
            | Found::Stored(_)
            | Found::Refused(_) => return,
        };
        let (id, Cursor { epoch, offset }) = (answer.question.to.conn, answer.position);
        let shown = |publication: &&Arc<Publication>| {
            !self.excepts(publication, id) && !publication.is_over(now)
        };
        let messages: Vec<Push<'_>> = slice
            .publications
            .iter()
            .filter(shown)
            .map(|publication| push_of(publication))
            .collect();
        let room = plain(&answer.question.room);
        let (more, recovered) = (slice.more, was_since.then_some(is_whole));
        let page = Reply::History { room, offset, epoch, messages: &messages, more, recovered };
        self.counters.history_pages_total += 1;
        self.reply(id, answer.question.reference.as_deref(), &page, now);
    }
}
