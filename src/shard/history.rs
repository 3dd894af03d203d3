//! The home's side of history: what is kept, what is answered from it, what is not sent twice.
//!
//! A publication is kept in the same step in which it is numbered, before anybody receives it, and an
//! answer is made from the ring and mailed in the same step too. Mail from one home to one shard keeps its
//! order, so an answer holds exactly what was numbered before it, and whatever is numbered afterwards
//! comes behind it. That is the seam between what was missed and what is live; nothing else is needed
//! for it, and the other end (`replay`) only has to act on mail in the order in which it comes.
//!
//! History has a share of the node's memory that no number of rooms can exceed: an eighth, divided by the
//! shards. It so never makes publishers wait or costs a laggard its connection.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{is_user_room, plain};
use crate::base::cursor::Cursor;
use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::hub::{
    By, Class, Durable, HistoryLimits, Once, Portion, Publication, Repeats, Target, Terms,
};
use crate::session::Publish;
use crate::shard::fanout::encode_ws_json;
use crate::shard::mail::{Asked, Found, Joining, Mail, Question};
use crate::shard::settings::RoomMemory;
use crate::shard::state::Shard;

/// The part of the memory budget that history may have.
const SHARE: u64 = 8;

/// Rooms, and identifiers, whose end is looked at in one turn.
const ENDS_PER_TURN: usize = 256;

/// Identifiers of publications remembered in one shard.
pub(super) const MOST_REPEATS: usize = 1 << 18;

impl Shard {
    /// What is remembered of a room, by its name within the node. Of a user's own room nothing is.
    pub(super) fn memory_of(&self, room: &str) -> RoomMemory {
        let memory = self.settings.rooms.memory_of(plain(room));
        let remembers = memory.history.is_some() || !memory.repeats.is_zero();
        if remembers && is_user_room(room) { RoomMemory::default() } else { memory }
    }

    /// What the author of a publication asks for beyond delivery.
    pub(super) fn terms(&self, id: ConnId, publish: &Publish<'_>, room: &str, now: Time) -> Terms {
        let until = publish.ttl.map(|ttl| now.plus(ttl));
        let once = publish.id.filter(|_| !self.memory_of(room).repeats.is_zero()).map(|written| {
            // A known user is the same over any of its connections.
            let user = self.gate.people.get(id.index).map(|person| person.names());
            let connection = user.is_none().then(|| self.address(id));
            let by = match user {
                Some((tenant, user)) => By::User(tenant.map(Box::from), user.into()),
                None => By::Connection,
            };
            let name = Repeats::key(&self.identity.seed, (user, connection, room, written.get()));
            Box::new(Once { name, by })
        });
        let durable = if publish.persist { Durable::Asked } else { Durable::No };
        Terms { until, once, durable, ..Terms::default() }
    }

    /// The same for a back end's: all of them are one author to each room.
    pub(super) fn terms_of_order(
        &self,
        draft: &Publication,
        ttl: Option<Duration>,
        now: Time,
    ) -> Terms {
        let room = &*draft.room;
        let counts = draft.to.target == Target::Room && !self.memory_of(room).repeats.is_zero();
        let once = draft.id.as_ref().filter(|_| counts).map(|written| {
            let name = Repeats::key(&self.identity.seed, ("back end", room, written.get()));
            Box::new(Once { name, by: By::BackEnd })
        });
        let Terms { across, foreign, keep, durable, .. } = draft.terms.clone();
        // What another node has taken is no repeat of what this one took.
        let once = once.filter(|_| keep.is_none() && !foreign);
        Terms { until: ttl.map(|ttl| now.plus(ttl)), once, across, foreign, keep, durable }
    }

    /// As the room's home: gives a draft its number and keeps it, if it is to be sent at all. What it is to
    /// send on to other nodes goes there whether anybody here receives it or not.
    pub(super) fn number_one(
        &mut self,
        mut draft: Publication,
        now: Time,
    ) -> Option<Arc<Publication>> {
        if draft.terms.keep.is_some() {
            self.send_to_be_numbered(draft);
            return None;
        }
        let is_stored = draft.terms.durable == Durable::Stored;
        if draft.cursor != Cursor::default() && !is_stored {
            return self.take_numbered(draft, now);
        }
        // What the store has in the room's order has its place there, whatever the time is.
        if draft.is_over(now) && !is_stored {
            self.counters.outdated_total += 1;
            return None;
        }
        let memory = self.memory_of(&draft.room);
        if self.is_repeat(&mut draft, memory, now) && !is_stored {
            return None;
        }
        if !draft.terms.across {
            return self.number_known(draft, memory, now);
        }
        // The copy has a frame of its own to make nothing of; the rest is shared or small.
        let copy = draft.copy();
        let publication = self.number_known(draft, memory, now);
        self.send_across(publication.as_ref().map_or_else(|| Arc::new(copy), Arc::clone));
        publication
    }

    fn number_known(
        &mut self,
        mut draft: Publication,
        memory: RoomMemory,
        now: Time,
    ) -> Option<Arc<Publication>> {
        match draft.to.target {
            Target::Room => {}
            Target::User => {
                let Some(cursor) = self.rooms.directory.number(&draft.room) else {
                    self.report_undelivered(&draft, now);
                    return None;
                };
                draft.cursor = cursor;
                self.counters.publications_total += 1;
                return Some(Arc::new(draft));
            }
            Target::Connections(_) | Target::Everyone => {
                self.counters.publications_total += 1;
                return Some(Arc::new(draft));
            }
        }
        let history = memory.history.filter(|_| self.may_keep(&draft.room));
        let Some(limits) = history else {
            if self.rooms.directory.forget(&draft.room) {
                self.note_end(&draft.room);
            }
            draft.cursor = self.rooms.directory.number(&draft.room)?;
            self.counters.publications_total += 1;
            return Some(Arc::new(draft));
        };
        draft.cursor = self.rooms.directory.number_kept(&draft.room);
        self.counters.publications_total += 1;
        let publication = Arc::new(draft);
        self.keep(&publication, &limits, now);
        Some(publication)
    }

    /// Keeps what was numbered last in its room.
    pub(super) fn keep(
        &mut self,
        publication: &Arc<Publication>,
        limits: &HistoryLimits,
        now: Time,
    ) {
        // What it costs to keep is known once it is encoded; and nobody has to wait for that later.
        publication.bytes(Class::WS_JSON, encode_ws_json);
        if self.rooms.directory.keep(publication, limits, now.tick()) {
            self.note_end(&publication.room);
        }
        let ended = self.rooms.directory.shrink_history(self.history_share(), now.tick());
        ended.iter().for_each(|room| self.note_end(room));
    }

    /// True when the same was taken before; otherwise it is remembered.
    fn is_repeat(&mut self, draft: &mut Publication, memory: RoomMemory, now: Time) -> bool {
        let Some(once) = draft.terms.once.take().filter(|_| !memory.repeats.is_zero()) else {
            return false;
        };
        let (until, now) = (now.tick().plus(memory.repeats), now.tick());
        let is_repeat = !self.rooms.repeats.first(once.name, until, now);
        self.counters.repeats_total += u64::from(is_repeat);
        is_repeat
    }

    /// As the room's home: takes a publication whose author wants to know whether it was taken before.
    pub(super) fn take_once(&mut self, mut draft: Publication, question: Question, now: Time) {
        let memory = self.memory_of(&draft.room);
        if self.is_repeat(&mut draft, memory, now) {
            return self.tell(question, Found::Repeat, now);
        }
        self.number([draft], None, now);
        self.tell(question, Found::Nothing, now);
    }

    /// As the room's home: answers a question about it.
    pub(super) fn answer(&mut self, question: Question, now: Time) {
        let question = self.hold_back(question, now).and_then(|q| self.await_place(q, now));
        let Some(question) = question else { return };
        let (directory, tick) = (&self.rooms.directory, now.tick());
        let found = match question.asked {
            Asked::Join(Joining { since: Some(since), .. })
            | Asked::Missed { after: since, .. }
            | Asked::Reach { since } => {
                match directory.missed(&question.room, since, self.portion(), tick) {
                    Ok(slice) => Found::Slice(slice),
                    Err(_) if self.is_shared(&question.room) => return self.look_further(question),
                    Err(stale) => Found::Stale(stale),
                }
            }
            Asked::Page { since, before, limit } => {
                let portion = Portion { count: limit, ..self.portion() };
                let page =
                    |before| directory.history().before(&question.room, before, portion, tick);
                let missed =
                    since.map(|since| directory.missed(&question.room, since, portion, tick));
                match missed {
                    Some(Ok(slice)) => Found::Slice(slice),
                    Some(Err(_)) => Found::Anew(page(None)),
                    None => Found::Slice(page(before)),
                }
            }
            Asked::Join(_) | Asked::Members | Asked::Once => Found::Nothing,
        };
        self.tell(question, found, now);
    }

    pub(super) fn tell(&mut self, question: Question, found: Found, now: Time) {
        let directory = &self.rooms.directory;
        let members = directory.members(&question.room);
        // A room that its last member has left by now has no position; (0, 0) is before all others.
        let (epoch, offset) = directory.position(&question.room).unwrap_or_default();
        let shard = question.to.shard;
        let position = Cursor { epoch, offset };
        let answer = crate::shard::Answer { question, members, position, found };
        if shard == self.identity.id {
            self.handle_answer(&answer, now);
        } else {
            self.outbox.push(shard, Mail::Answer(Box::new(answer)));
        }
    }

    /// How much of a history one answer holds: what a queue that has fallen to its low water mark takes
    /// without coming near the high one.
    pub(super) fn portion(&self) -> Portion {
        let limits = self.queue_limits();
        Portion {
            count: (limits.max_messages as usize / 8).max(1),
            bytes: limits.high_water as usize / 4,
        }
    }

    /// Bytes that this shard may keep of history.
    pub(super) fn history_share(&self) -> u64 {
        self.settings.capacity.memory / SHARE / u64::from(self.identity.shards.max(1))
    }

    /// Lets go of what is too old, some of it in each turn.
    pub(super) fn age_history(&mut self, now: Time) {
        let ended = self.rooms.directory.expire(now.tick(), ENDS_PER_TURN);
        ended.iter().for_each(|room| self.note_end(room));
        self.expire_memos(now);
        if self.rooms.repeats.due().is_some_and(|due| due <= now.tick()) {
            self.rooms.repeats.purge(now.tick(), ENDS_PER_TURN);
        }
    }

    /// When [`Shard::age_history`] is to be called, even if nothing happens until then.
    pub(super) fn history_due(&self) -> Option<Time> {
        let memos = self.rooms.replays.recalls.due();
        let due = [self.rooms.directory.history().due(), self.rooms.repeats.due(), memos];
        due.into_iter().flatten().min().map(|tick| tick.start())
    }
}
