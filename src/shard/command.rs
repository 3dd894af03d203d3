//! What a command does.
//!
//! Commands arrive parsed; every one that cannot be obeyed is answered with a typed error and changes
//! nothing. Replies go to the connection's own queue; what concerns a room goes to the room's home,
//! which may be this shard.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::auth::{Right, is_user_room, plain, room};
use crate::base::id::{ConnId, ShardId};
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::connection::{Disconnect, Pause};
use crate::hub::{self, Change, Origin, Publication};
use crate::session::encode::{self, Connected, Reply};
use crate::session::{Code, Command, CommandError, Protocol, Publish, Request};
use crate::shard::inbox::Task;
use crate::shard::ledger::Figure;
use crate::shard::mail::{Answer, Asked, Found, Joining, Mail, Question};
use crate::shard::over_http::status_of;
use crate::shard::state::{Identity, Shard, enlist};
use crate::shard::stream;
use crate::shard::targets::{Author, CONNECTIONS, EVERYONE, Parts, Places, user_right};

impl Shard {
    /// The first push: who you are and what the limits are.
    pub(super) fn greet(&mut self, id: ConnId, protocol: Protocol, now: Time) {
        if protocol == Protocol::Packets {
            if self.begin_memo(id, now) {
                return;
            }
            self.say_entered(id, now);
        }
        let settings = &self.settings;
        let heartbeat = &settings.timeouts.heartbeat;
        let (most_rooms, _) = self.room_limit(id);
        let most_bytes = self.message_limit(id, settings.messages.message_bytes);
        let mut text = Vec::new();
        let fields = Connected {
            client: self.address(id),
            user: self.gate.people.get(id.index).map(|person| person.names().1),
            session_epoch: self.identity.epoch,
            ping_interval_ms: millis(heartbeat.interval),
            ping_timeout_ms: millis(heartbeat.timeout),
            max_message_bytes: most_bytes as u64,
            max_rooms: most_rooms as u64,
            max_rooms_per_publish: settings.commands.max_rooms as u64,
            protocol,
        };
        encode::connected(&mut text, &fields);
        self.push_greeting(id, &text, now);
    }

    /// Answers a command that is not obeyed.
    pub(super) fn refuse(&mut self, id: ConnId, error: &CommandError, now: Time) {
        self.counters.command_errors_total += 1;
        let is_late = error.code == Code::RateLimited;
        let figure = if is_late { Figure::OverRate } else { Figure::Refused };
        self.measures.ledger.count(id.index, figure, 1);
        let mut text = Vec::new();
        encode::error(&mut text, error);
        if self.is_reading(id) {
            return self.answer_reading(id, status_of(error.code), &text, now);
        }
        self.push_text(id, &text, now);
        if error.is_excess {
            self.close_excess(id, now);
        }
    }

    /// Closes who is over a limit that is no rate, where that is the rule. It has been told which.
    pub(super) fn close_excess(&mut self, id: ConnId, now: Time) {
        if self.settings.limits.closes_excess {
            self.close(id, Disconnect::OverLimit, now);
        }
    }

    /// Does what a request asks.
    pub(super) fn obey(&mut self, id: ConnId, request: Request<'_>, now: Time) {
        let reference = request.reference;
        match request.command {
            Command::Join { room, since } => {
                let joining = Joining { since, part: None };
                if let Err(error) = self.join(id, &room, joining, reference, now) {
                    self.refuse(id, &error, now);
                }
                self.catch_up(id, now);
            }
            Command::Restore { rooms } => self.restore(id, rooms, reference, now),
            Command::History { room, since, before, limit } => {
                let asked = Asked::Page { since, before, limit };
                if let Err(error) = self.page(id, &room, asked, reference, now) {
                    self.refuse(id, &error, now);
                }
            }
            Command::Leave { room } => self.leave(id, &room, reference, now),
            Command::Members { .. } if self.is_overloaded() => {
                self.refuse(id, &overloaded(reference), now);
            }
            Command::Members { room } => {
                match self.room_for(id, &room, Right::Presence, reference) {
                    Ok(_) if self.has_asked_enough(id) => {
                        self.refuse(id, &CommandError::outstanding(reference), now);
                    }
                    Ok(room) => self.ask(id, &Arc::from(&*room), Asked::Members, reference, now),
                    Err(error) => self.refuse(id, &error, now),
                }
            }
            Command::Watch(subjects) => self.watch_subjects(id, &subjects, reference, now),
            Command::Unwatch(subjects) => self.unwatch_subjects(id, &subjects, reference, now),
            Command::Whois(whois) => self.whois(id, &whois, reference, now),
            Command::Auth { token } => self.login(id, &token, reference, None, now),
            Command::Inbox(span) => self.run_errand(id, Task::List(span), reference, now),
            Command::Read(marked) => self.run_errand(id, Task::Read(marked), reference, now),
            Command::Publish(publish) => self.publish_or_report(id, publish, reference, now),
            Command::Ping => {
                let unix_ms = self.identity.started_unix_ms + millis(now.since(Time::ZERO));
                let mut text = Vec::new();
                encode::pong(&mut text, reference, unix_ms);
                self.push_text(id, &text, now);
            }
            Command::Status(status) => {
                self.note_status(id, status);
                self.reply(id, reference, &Reply::Status(status), now);
            }
            Command::Panic => panic!("asked to by a debug command"),
        }
    }

    pub(super) fn reply(
        &mut self,
        id: ConnId,
        reference: Option<&RawValue>,
        reply: &Reply<'_>,
        now: Time,
    ) {
        let mut text = Vec::new();
        if !encode::reply(&mut text, reference, reply) {
            return;
        }
        if self.is_reading(id) {
            return self.answer_reading(id, 200, &text, now);
        }
        self.push_text(id, &text, now);
    }

    pub(super) fn join(
        &mut self,
        id: ConnId,
        room: &str,
        joining: Joining,
        reference: Option<&RawValue>,
        now: Time,
    ) -> Result<(), CommandError> {
        if self.is_overloaded() {
            return Err(overloaded(reference));
        }
        let room = self.room_for(id, room, Right::Join, reference)?;
        if self.has_asked_enough(id) {
            return Err(CommandError::outstanding(reference));
        }
        let enough = self.is_in_enough(id);
        let (limit, with_own) = self.room_limit(id);
        let Some(connection) = self.table.get(id) else { return Ok(()) };
        if enough && !self.rooms.hub.is_member(&connection.member, &room) {
            let most = self.settings.limits.user.rooms;
            let message = format!("all connections of one user may be in {most} rooms together");
            return Err(CommandError::new(Code::RoomLimit, message, reference));
        }
        if self.rooms.hub.join(&mut connection.member, id.index, &room, with_own).is_err() {
            let message = format!("one connection may be in {limit} rooms at most");
            return Err(CommandError::new(Code::RoomLimit, message, reference));
        }
        self.note_rooms(id.index);
        // The count goes first, and the question always follows it: whoever is counted learns it.
        self.push_counts(now);
        self.ask(id, &Arc::from(&*room), Asked::Join(joining), reference, now);
        Ok(())
    }

    /// Asks for a part of the history of a room that the connection is in.
    fn page(
        &mut self,
        id: ConnId,
        room: &str,
        asked: Asked,
        reference: Option<&RawValue>,
        now: Time,
    ) -> Result<(), CommandError> {
        if self.is_overloaded() {
            return Err(overloaded(reference));
        }
        let room = self.room_for(id, room, Right::History, reference)?;
        let connection = self.table.get(id);
        let is_in = connection.is_some_and(|c| self.rooms.hub.is_member(&c.member, &room));
        if !is_in && !self.is_reading(id) {
            return Err(not_member(reference));
        }
        if self.has_asked_enough(id) {
            return Err(CommandError::outstanding(reference));
        }
        self.ask(id, &Arc::from(&*room), asked, reference, now);
        Ok(())
    }

    fn leave(&mut self, id: ConnId, room: &str, reference: Option<&RawValue>, now: Time) {
        self.settle(now);
        let inner = self.inner_name(id, room);
        self.report_left(id, &inner, now);
        let Some(connection) = self.table.get(id) else { return };
        if self.rooms.hub.leave(&mut connection.member, &inner) {
            self.note_rooms(id.index);
            self.rooms.replays.leave(id.index, &inner);
            self.rooms.replays.recalls.part(id.index, &inner);
            self.reply(id, reference, &Reply::Left { room }, now);
        } else {
            self.refuse(id, &not_member(reference), now);
        }
    }

    /// The name within the node of the room that the connection calls `name`.
    pub(super) fn inner_name<'a>(&self, id: ConnId, name: &'a str) -> Cow<'a, str> {
        let person = self.gate.people.get(id.index);
        room(person.and_then(|person| person.names().0), name)
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.outbox.len() >= self.settings.capacity.parked_mail
    }

    pub(super) fn home(&self, room: &str) -> ShardId {
        hub::home(&self.identity.seed, room, self.identity.shards)
    }

    /// Tells the homes what changed in this shard's membership, each room once with its present count.
    pub(super) fn push_counts(&mut self, now: Time) {
        while let Some(change) = self.rooms.hub.poll_change() {
            let Change { room, members, stand, before } = change;
            if is_user_room(&room) {
                // How many connections a user has matters to nobody elsewhere.
                if stand != before {
                    self.tell_stand(room, stand, now);
                }
                continue;
            }
            let (home, shard) = (self.home(&room), self.identity.id);
            if home == shard {
                self.set_count(&room, shard, members, now);
            } else {
                self.outbox.push(home, Mail::Count { room, shard, members });
            }
        }
    }

    fn question(
        &self,
        id: ConnId,
        room: &Arc<str>,
        asked: Asked,
        reference: Option<&RawValue>,
    ) -> Question {
        let reference = reference.map(RawValue::to_owned);
        Question { to: self.address(id), asked, reference, room: Arc::clone(room) }
    }

    pub(super) fn ask(
        &mut self,
        id: ConnId,
        room: &Arc<str>,
        asked: Asked,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let question = self.question(id, room, asked, reference);
        let home = self.home(room);
        self.note_asked(id);
        if home == self.identity.id {
            self.push_counts(now);
            self.answer(question, now);
        } else {
            self.outbox.push(home, Mail::Ask(Box::new(question)));
        }
    }

    pub(super) fn handle_answer(&mut self, answer: &Answer, now: Time) {
        let question = &answer.question;
        self.note_answered(question.to.conn);
        // What was delivered before the answer is not for a new member. The home's mail comes in order:
        // all it numbered after this answer is still to come.
        self.settle(now);
        let reply = match question.asked {
            Asked::Join(joining) => return self.handle_joined(answer, joining, now),
            Asked::Missed { number, .. } => return self.handle_missed(answer, number, now),
            Asked::Reach { .. } => return self.handle_reach(answer, now),
            Asked::Page { since, .. } => return self.handle_page(answer, since.is_some(), now),
            Asked::Members => {
                Reply::Members { room: plain(&question.room), members: answer.members }
            }
            Asked::Once => match &answer.found {
                Found::Repeat => Reply::Repeated,
                Found::Stored(id) => {
                    let (room, position) = (plain(&question.room), answer.position);
                    Reply::Stored { room, position, id: id.as_deref() }
                }
                Found::Refused(why) => {
                    let reference = question.reference.as_deref();
                    let error = CommandError::new(why.code, why.message, reference);
                    return self.refuse(question.to.conn, &error, now);
                }
                Found::Nothing
                | Found::Away
                | Found::Slice(_)
                | Found::Anew(_)
                | Found::Stale(_) => Reply::Published,
            },
        };
        self.reply(question.to.conn, question.reference.as_deref(), &reply, now);
    }

    pub(super) fn publish(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        if self.is_overloaded() {
            self.counters.publishes_refused_total += 1;
            if self.outbox.is_blocked() {
                self.pause_publisher(id);
            }
            return self.refuse(id, &overloaded(reference), now);
        }
        if let Err(error) = self.check_targets(id, publish, reference) {
            return self.refuse(id, &error, now);
        }
        match self.settings.rooms.schemas.check(publish, reference) {
            Ok(is_checked) => self.counters.payloads_checked_total += u64::from(is_checked),
            Err(error) => {
                self.counters.payloads_refused_total += 1;
                return self.refuse(id, &error, now);
            }
        }
        self.push_counts(now);
        let person = self.gate.people.get(id.index);
        let tenant = person.and_then(|person| person.names().0);
        let author =
            Author { tenant, origin: Origin::Connection(self.address(id)), at: now, across: true };
        let Identity { seed, shards, node, .. } = &self.identity;
        let places = Places { seed, shards: *shards, rules: &self.settings.rooms, node: *node };
        let mut parts = places
            .parts(publish, &author, &|room| self.terms_of(id, publish, reference, room, now));
        if publish.persist
            && let Err(why) = self.can_store(&parts.homes[0].1[0].room)
        {
            return self.refuse(id, &CommandError::new(why.code, why.message, reference), now);
        }
        // Whether it is stored its author is told in any case.
        let is_answered = !publish.persist && (reference.is_none() || !is_once(&parts));
        let is_numbered_elsewhere = parts.is_numbered_elsewhere();
        let awaits_number = parts.awaits_number();
        if (!is_answered || awaits_number) && self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(reference), now);
        }
        if awaits_number {
            self.note_asked(id);
        }
        let groups = &mut self.rooms.groups;
        let group = parts.group(self.identity.id.0, || groups.make());
        let mut whole = parts.take_whole(group.as_ref());
        if parts.homeless {
            self.send_part(whole.take());
        }
        for (home, mut drafts) in parts.homes {
            if !is_answered && let Some(draft) = drafts.pop() {
                self.send_once(id, home, draft, reference, now);
            } else if home == self.identity.id {
                self.take_in_turn(drafts, group, whole.clone(), now);
            } else {
                let (drafts, across) = (drafts.into_vec(), whole.clone());
                self.outbox.push(home, Mail::Publish { drafts, group, across });
            }
        }
        if self.outbox.is_blocked() {
            self.pause_publisher(id);
        }
        self.slow_publisher(id);
        if is_answered && !is_numbered_elsewhere {
            self.reply(id, reference, &Reply::Published, now);
        }
    }

    /// Sends the home a publication of which it is to say whether it was taken before.
    fn send_once(
        &mut self,
        id: ConnId,
        home: ShardId,
        draft: Publication,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let question = self.question(id, &draft.room, Asked::Once, reference);
        self.note_asked(id);
        if home == self.identity.id {
            self.handle_once(draft, question, now);
        } else {
            self.outbox.push(home, Mail::Once(Box::new((draft, question))));
        }
    }

    /// Whether the connection may publish to all of these.
    pub(super) fn check_targets(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        reference: Option<&RawValue>,
    ) -> Result<(), CommandError> {
        let targets = &publish.targets;
        for name in &targets.rooms {
            self.room_for(id, name, Right::Publish, reference)?;
            self.fits(name, publish, reference)?;
        }
        for user in targets.users() {
            self.may_reach(id, &user_right(user), false, reference)?;
        }
        let rules = &self.settings.rooms;
        let (by_id, by_all) = (rules.open_connections, rules.open_everyone);
        if !targets.connections().is_empty() {
            self.may_reach(id, CONNECTIONS, by_id, reference)?;
        }
        if targets.everyone {
            self.may_reach(id, EVERYONE, by_all, reference)?;
            if self.rooms.walks.is_long() {
                self.counters.publishes_refused_total += 1;
                return Err(overloaded(reference));
            }
        }
        Ok(())
    }

    /// Whether the payload is no larger than the room's namespace allows.
    fn fits(
        &self,
        room: &str,
        publish: &Publish<'_>,
        reference: Option<&RawValue>,
    ) -> Result<(), CommandError> {
        let bytes = publish.payload.map_or(0, |payload| payload.get().len());
        let most = self.settings.rooms.payload_limit(room);
        if bytes <= most {
            return Ok(());
        }
        let message = format!("the payload has {bytes} bytes; in this room it may have {most}");
        Err(CommandError::new(Code::TooLarge, message, reference).about("payload"))
    }

    fn pause_publisher(&mut self, id: ConnId) {
        if let Some(connection) = self.table.get(id) {
            if connection.set_pause(Pause::Mail, true) {
                self.outbox.paused.push(id);
            }
            enlist(connection, id.index, &mut self.writes);
        }
    }

    pub(super) fn push_text(&mut self, id: ConnId, text: &[u8], now: Time) {
        // Beside its answer there is no place for anything.
        if self.is_reading(id) {
            return;
        }
        if let Some(frame) = self.table.get(id).map(|connection| stream::framed(connection, text)) {
            self.push_kept(id, frame, now);
        }
    }

    /// Queues what must not be dropped: a reply, a notice, an echo.
    pub(super) fn push_kept(&mut self, id: ConnId, frame: Vec<u8>, now: Time) {
        let frame = self.deflated_for(id, frame);
        let settings = Rc::clone(&self.settings);
        if let Some(connection) = self.table.get(id).filter(|connection| connection.is_living()) {
            let limits = settings.queue_of(connection);
            self.push_item(id.index, Shared::kept(frame), limits, now);
        }
    }
}

/// True for one publication that is to be taken once only. Of several rooms each home decides for itself,
/// and nobody knows it of all.
fn is_once(parts: &Parts) -> bool {
    let homes = &parts.homes[..];
    matches!(homes, [(_, drafts)] if matches!(&drafts[..], [draft] if draft.terms.once.is_some()))
}

fn not_member(reference: Option<&RawValue>) -> CommandError {
    let message = "the connection is not a member of that room";
    CommandError::new(Code::NotMember, message, reference)
}

pub(super) fn overloaded(reference: Option<&RawValue>) -> CommandError {
    let message = "mail between shards is backed up; send the same again after a pause";
    CommandError::new(Code::Overloaded, message, reference)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
