//! Telling the application's back ends what happens here.
//!
//! What somebody wants to hear of is written down where it happens and leaves the shard at the end of the
//! turn, all of it in one piece of mail. Nothing waits for it: what finds no space is counted and forgotten,
//! but for what a client publishes to a back end, which is refused instead. Of one connection a back end
//! hears things in the order in which they happened.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::{Deliver, is_user_room, plain, user_of};
use crate::base::id::ConnId;
use crate::base::tidings::{Tiding, TidingKind};
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::hub::{Publication, Standing};
use crate::session::encode::Reply;
use crate::session::{Code, CommandError, Publish};
use crate::shard::mail::{Mail, Statement};
use crate::shard::state::Shard;

/// Bytes of events that may wait for their way out of the shard.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of events in one piece of mail, about.
const PIECE: usize = 1 << 16;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    waiting: VecDeque<Tiding>,
    /// What it costs.
    bytes: usize,
    /// Numbers the events of the shard.
    next: u64,
    /// One bit for each index: the connection there has been told of. Empty while nobody wants to know.
    told: Vec<u64>,
}

impl Tidings {
    /// True when this much more may wait.
    fn has_space(&self, bytes: usize) -> bool {
        self.bytes + bytes <= MOST_BYTES
    }

    fn push(&mut self, event: Tiding) {
        self.bytes += event.cost();
        self.waiting.push_back(event);
    }

    /// Takes what fits into one piece of mail.
    fn take(&mut self) -> Vec<Tiding> {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE {
            let Some(event) = self.waiting.pop_front() else { break };
            bytes += event.cost();
            piece.push(event);
        }
        self.bytes -= bytes;
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
        piece
    }

    fn give_back(&mut self, piece: Vec<Tiding>) {
        for event in piece.into_iter().rev() {
            self.bytes += event.cost();
            self.waiting.push_front(event);
        }
    }

    /// Notes whether the connection at that index has been told of; whether it was before.
    fn mark(&mut self, index: u32, is_told: bool) -> bool {
        let (word, bit) = (index as usize / 64, 1_u64 << (index % 64));
        if word >= self.told.len() {
            if !is_told {
                return false;
            }
            self.told.resize(word + 1, 0);
        }
        let before = self.told[word] & bit != 0;
        if is_told {
            self.told[word] |= bit;
        } else {
            self.told[word] &= !bit;
        }
        before
    }

    /// Gives back what a crowd has left: places from `bound` on are free.
    pub(super) fn trim(&mut self, bound: u32) {
        self.told.truncate((bound as usize).div_ceil(64));
        self.told.shrink_to_fit();
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Verifies the sum.
    ///
    /// # Panics
    /// When it is wrong.
    pub(super) fn check(&self) {
        let bytes: usize = self.waiting.iter().map(Tiding::cost).sum();
        assert_eq!(bytes, self.bytes, "bytes of events that wait");
    }
}

/// An event as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    event: &'static str,
    id: String,
    at: u64,
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(flatten)]
    more: More<'a>,
}

/// What only some events have.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    life_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
}

impl Shard {
    /// Offers what is to be told to `post`, piece by piece, until it gives one back.
    pub fn poll_tidings(&mut self, post: &mut dyn FnMut(Vec<Tiding>) -> Result<(), Vec<Tiding>>) {
        let reports = &mut self.gate.people.consults.tidings;
        while !reports.waiting.is_empty() {
            if let Err(piece) = post(reports.take()) {
                return reports.give_back(piece);
            }
        }
    }

    pub(super) fn reports(&self, kind: TidingKind) -> bool {
        self.settings.access.report.kinds.has(kind)
    }

    /// Writes an event of a connection down.
    fn compose_event(&mut self, id: ConnId, kind: TidingKind, more: More<'_>, now: Time) -> Tiding {
        let own = self.gate.people.get(id.index).map(|person| Arc::clone(person.own()));
        let client = Some(self.address(id).to_string());
        self.write_down(kind, (own.as_deref(), client), more, now)
    }

    /// Writes an event down: `own` is the name of the room of the user it is about.
    fn write_down(
        &mut self,
        kind: TidingKind,
        (own, client_id): (Option<&str>, Option<String>),
        more: More<'_>,
        now: Time,
    ) -> Tiding {
        self.gate.people.consults.tidings.next += 1;
        let number = self.gate.people.consults.tidings.next;
        let (tenant, user_id) = own.map(user_of).unzip();
        let tenant = tenant.flatten();
        let written = Written {
            event: kind.name(),
            id: format!("{:x}-{}-{number}", self.identity.epoch, self.identity.id.0),
            at: self.unix_ms(now),
            user_id,
            tenant,
            client_id,
            more,
        };
        // Text, and JSON that was read as such: neither can fail to be written.
        let document = serde_json::to_vec(&written).unwrap_or_default();
        Tiding { kind, tenant: tenant.map(Box::from), document: document.into() }
    }

    fn report(&mut self, id: ConnId, kind: TidingKind, more: More<'_>, now: Time) {
        let event = self.compose_event(id, kind, more, now);
        self.put_down(event);
    }

    fn put_down(&mut self, event: Tiding) {
        let reports = &mut self.gate.people.consults.tidings;
        if reports.has_space(event.cost()) {
            self.counters.events_total += 1;
            reports.push(event);
        } else {
            self.counters.events_lost_total += 1;
        }
    }

    /// As the home: a user has come who was offline.
    pub(super) fn report_online(&mut self, user: &str, now: Time) {
        if self.reports(TidingKind::Online) {
            let event =
                self.write_down(TidingKind::Online, (Some(user), None), More::default(), now);
            self.put_down(event);
        }
    }

    /// As the home: a user is offline, since `unix_ms` milliseconds after 1970. To be called only where somebody
    /// wants to hear of it.
    pub(super) fn report_offline(&mut self, user: &str, unix_ms: u64, now: Time) {
        let more = More { last_seen: Some(unix_ms), ..More::default() };
        let event = self.write_down(TidingKind::Offline, (Some(user), None), more, now);
        self.put_down(event);
    }

    /// As the home: something was published to a user who has no connection here, and is gone with this unless
    /// another node has the user. Of several nodes the one that took it tells.
    pub(super) fn report_undelivered(&mut self, draft: &Publication, now: Time) {
        let is_told = self.reports(TidingKind::Undelivered) && !draft.terms.foreign;
        if !is_told || self.rooms.directory.users.is_somewhere(&draft.room) {
            return;
        }
        let more = More {
            kind: Some(&draft.kind),
            payload: draft.payload.as_deref(),
            message_id: draft.id.as_deref(),
            from: draft.origin.connection().map(|address| address.to_string()),
            ..More::default()
        };
        let event = self.write_down(TidingKind::Undelivered, (Some(&draft.room), None), more, now);
        self.put_down(event);
    }

    /// A client has come in.
    pub(super) fn report_arrival(&mut self, id: ConnId, now: Time) {
        if self.reports(TidingKind::Connected) || self.reports(TidingKind::Disconnected) {
            self.gate.people.consults.tidings.mark(id.index, true);
        }
        if self.reports(TidingKind::Connected) {
            let address = self.gate.seats.party(id.index).map(|party| party.to_string());
            self.report(id, TidingKind::Connected, More { address, ..More::default() }, now);
        }
    }

    /// The end of a connection has begun, and it is about to leave its rooms. To be called while it is known
    /// who it is.
    pub(super) fn report_end(&mut self, id: ConnId, why: Disconnect, life: Duration, now: Time) {
        if self.reports(TidingKind::Left)
            && let Some(connection) = self.table.peek(id.index)
        {
            let rooms: Vec<Arc<str>> =
                self.rooms.hub.rooms_of(&connection.member).map(Arc::clone).collect();
            for room in rooms {
                self.report_left(id, &room, now);
            }
        }
        let was_told = self.gate.people.consults.tidings.mark(id.index, false);
        if was_told && self.reports(TidingKind::Disconnected) {
            let life_ms = u64::try_from(life.as_millis()).ok();
            let more = More { reason: Some(why.label()), life_ms, ..More::default() };
            self.report(id, TidingKind::Disconnected, more, now);
        }
    }

    /// The connection has become a member of the room of that name within the node.
    pub(super) fn report_joined(&mut self, id: ConnId, room: &str, now: Time) {
        if self.reports(TidingKind::Joined) && !is_user_room(room) {
            let more = More { room: Some(plain(room)), ..More::default() };
            self.report(id, TidingKind::Joined, more, now);
        }
    }

    /// The connection is about to leave the room of that name within the node. One that was never confirmed
    /// there was no member to anybody.
    pub(super) fn report_left(&mut self, id: ConnId, room: &str, now: Time) {
        if !self.reports(TidingKind::Left) || is_user_room(room) {
            return;
        }
        let Some(connection) = self.table.peek(id.index) else { return };
        if self.rooms.hub.standing(&connection.member, room) == Standing::Confirmed {
            let more = More { room: Some(plain(room)), ..More::default() };
            self.report(id, TidingKind::Left, more, now);
        }
    }

    /// A publication: what goes to back ends goes there, and the rest to the members. All of it or nothing.
    pub(super) fn publish_or_report(
        &mut self,
        id: ConnId,
        mut publish: Publish<'_>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let told = self.told_rooms(&publish);
        if told.is_empty() || self.is_overloaded() {
            return self.publish(id, &publish, reference, now);
        }
        if let Err(error) = self.check_targets(id, &publish, reference) {
            return self.refuse(id, &error, now);
        }
        let (mut events, mut records) = (Vec::new(), Vec::new());
        for (room, deliver) in &told {
            let more = More {
                room: Some(room),
                kind: Some(publish.kind),
                payload: publish.payload,
                message_id: publish.id,
                ..More::default()
            };
            let event = self.compose_event(id, TidingKind::Message, more, now);
            let way = if *deliver == Deliver::Stream { &mut records } else { &mut events };
            way.push(event);
        }
        let only_told = |room: &Cow<'_, str>| {
            told.iter().any(|(name, deliver)| name == room && *deliver != Deliver::Both)
        };
        publish.targets.rooms.retain(|room| !only_told(room));
        let (is_all, is_recorded) = (publish.targets.is_empty(), !records.is_empty());
        if is_all && is_recorded && self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(reference), now);
        }
        let reports = &mut self.gate.people.consults.tidings;
        if !reports.has_space(events.iter().map(Tiding::cost).sum()) {
            self.counters.publishes_refused_total += 1;
            let message = "too much waits for the back end; send the same again after a pause";
            return self.refuse(id, &CommandError::new(Code::Overloaded, message, reference), now);
        }
        self.counters.events_total += events.len() as u64;
        events.into_iter().for_each(|event| reports.push(event));
        self.record(id, records, reference, is_all);
        match (is_all, is_recorded) {
            // The reply comes when Redis has it.
            (true, true) => {}
            (true, false) => self.reply(id, reference, &Reply::Published, now),
            (false, _) => self.publish(id, &publish, reference, now),
        }
    }

    /// Hands on what is for those who read the stream. `asks`: the client is told when all of it is there.
    fn record(
        &mut self,
        id: ConnId,
        records: Vec<Tiding>,
        reference: Option<&RawValue>,
        asks: bool,
    ) {
        if records.is_empty() {
            return;
        }
        let to = asks.then(|| self.address(id));
        let reference = reference.filter(|_| asks).map(RawValue::to_owned);
        if asks {
            self.note_asked(id);
        }
        let documents = records.into_iter().map(|event| event.document).collect();
        let record = Statement { to, reference, documents };
        self.push_across(Mail::Record(Box::new(record)));
    }

    /// What a client has said to those who read the stream was written, or was not.
    pub(super) fn handle_recorded(
        &mut self,
        (id, reference, is_written): (ConnId, Option<Box<RawValue>>, bool),
        now: Time,
    ) {
        if self.table.get(id).is_none() {
            return;
        }
        self.note_answered(id);
        if is_written {
            return self.reply(id, reference.as_deref(), &Reply::Published, now);
        }
        self.counters.publishes_refused_total += 1;
        let message = "too much waits for the back end; send the same again after a pause";
        self.refuse(id, &CommandError::new(Code::Overloaded, message, reference.as_deref()), now);
    }

    /// The rooms of a publication about which back ends are told.
    fn told_rooms(&self, publish: &Publish<'_>) -> Vec<(String, Deliver)> {
        let report = &self.settings.access.report;
        if report.deliver.is_empty() {
            return Vec::new();
        }
        let rooms = publish.targets.rooms.iter().map(|room| (room, report.deliver_of(room)));
        let told = rooms.filter(|(_, deliver)| *deliver != Deliver::Members);
        told.map(|(room, deliver)| (room.to_string(), deliver)).collect()
    }
}
