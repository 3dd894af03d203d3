//! Rooms whose history all nodes share, as their homes here see them.
//!
//! A publication to such a room goes to the bridge without a number and comes back with one, here as on every
//! other node; only then is it kept and delivered, and its author answered. The home still keeps a ring, out of
//! which whoever comes back is served; what the ring no longer holds is looked up in the stream, by way of the
//! bridge.
//!
//! A home knows its place in such a room once the bridge has told it, and for as long as the room has members.
//! Questions about the room wait until then, and so does whoever has seen more on another node than has come
//! here yet. How many wait is bounded, and the bridge answers for sure: that Redis cannot be asked, if it must be.
//! No shard waits for it.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::plain;
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::hub::{Keep, Portion, Publication, Receipt, Slice, Standing, Terms};
use crate::session::encode::{self, Reply};
use crate::session::{Code, CommandError, Publish};
use crate::shard::mail::{Asked, Found, Joining, Mail, Question};
use crate::shard::orders::Report;
use crate::shard::state::Shard;

/// What shards and the bridge tell each other about rooms with shared histories.
#[derive(Debug)]
pub enum Joint {
    /// To the bridge: have this numbered.
    Keep(Publication),
    /// To the bridge: say where the room is.
    Follow(Arc<str>),
    /// To the bridge: look up what came after the question's cursor, so much at most.
    Fetch(Question, Portion),
    /// To a home: the room is there; `None`: Redis cannot be asked.
    Followed(Arc<str>, Option<Cursor>),
    /// To a home: this is the room's next number, and what has it; `None` where that is no publication.
    Arrived(Arc<str>, Cursor, Option<Publication>),
    /// To a home: the room goes on from there, and why.
    Reset(Arc<str>, Cursor, Stale),
    /// To a home: what was looked up.
    Fetched(Question, Fetched),
    /// To a shard with members: they have to begin anew from there, and why.
    Resync(Arc<str>, Cursor, Stale),
    /// To the shard of a connection, or to any shard for a back end: what became of a publication.
    Told(Receipt, Told),
}

/// What was looked up.
#[derive(Debug)]
pub enum Fetched {
    /// What came after the cursor, each with its number and none missing; not always up to the newest.
    Publications(Vec<Publication>),
    /// Nobody can go on from there.
    Stale(Stale),
    /// Redis cannot be asked.
    Away,
}

/// What became of a publication that is numbered elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has this number in that room; with an offset of zero nobody knows any more which.
    Taken(Arc<str>, Cursor),
    /// It was taken before, under this number.
    Repeat(Arc<str>, Cursor),
    /// It was not taken, for this reason.
    Refused(Arc<str>, &'static str),
}

impl Joint {
    /// True for what may produce other mail.
    #[must_use]
    pub fn is_request(&self) -> bool {
        !matches!(self, Self::Resync(..) | Self::Told(..))
    }

    /// What it costs while it waits, about, in bytes.
    pub(super) fn cost(&self) -> usize {
        let of = |publication: &Publication| {
            let payload = publication.payload.as_ref().map_or(0, |payload| payload.get().len());
            size_of::<Publication>() + payload
        };
        let extra = match self {
            Self::Keep(draft) | Self::Arrived(_, _, Some(draft)) => of(draft),
            Self::Fetched(_, Fetched::Publications(list)) => list.iter().map(of).sum(),
            _ => 0,
        };
        size_of::<Self>() + extra
    }
}

/// A home's rooms with shared histories.
#[derive(Debug)]
pub(super) struct Joints {
    rooms: Map<Arc<str>, Following>,
    /// Questions that wait, of all rooms.
    waiting: usize,
}

/// A room with members.
#[derive(Debug, Default)]
struct Following {
    /// The directory's position is the room's.
    is_known: bool,
    /// The bridge was asked and has not answered.
    is_asked: bool,
    /// Questions that wait, some until the room has come that far.
    waiting: Vec<(Question, Option<Cursor>)>,
}

/// Questions that may wait in a shard.
const MOST_WAITING: usize = 16_384;

impl Joints {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { rooms: seed.map(), waiting: 0 }
    }

    /// Takes out the questions that need not wait any more, the room being there now.
    fn due(&mut self, room: &str, at: Cursor) -> Vec<Question> {
        let following = self.rooms.get_mut(room).filter(|following| !following.waiting.is_empty());
        let Some(following) = following else { return Vec::new() };
        let is_due = |until: &Option<Cursor>| {
            until.is_none_or(|until| until.epoch != at.epoch || until.offset <= at.offset)
        };
        let due: Vec<_> = following.waiting.extract_if(.., |(_, until)| is_due(until)).collect();
        self.waiting -= due.len();
        due.into_iter().map(|(question, _)| question).collect()
    }

    /// Takes out all questions about the room.
    fn all(&mut self, room: &str) -> Vec<Question> {
        let Some(following) = self.rooms.get_mut(room) else { return Vec::new() };
        let all = std::mem::take(&mut following.waiting);
        self.waiting -= all.len();
        all.into_iter().map(|(question, _)| question).collect()
    }

    /// Verifies the count.
    ///
    /// # Panics
    /// When it does not hold.
    pub(super) fn check(&self) {
        let waiting: usize = self.rooms.values().map(|following| following.waiting.len()).sum();
        assert_eq!(waiting, self.waiting, "questions about shared histories that wait");
        let is_awaited = |following: &Following| {
            following.is_known || following.is_asked || following.waiting.is_empty()
        };
        assert!(self.rooms.values().all(is_awaited), "what waits is waited for");
    }
}

impl Shard {
    /// True for a room whose history all nodes share.
    pub(super) fn is_shared(&self, room: &str) -> bool {
        self.is_linked() && self.settings.rooms.shares(room)
    }

    fn joint(&mut self, joint: Joint) {
        self.push_across(Mail::Joint(Box::new(joint)));
    }

    /// As the home: a publication that has no number and is to get one elsewhere.
    pub(super) fn send_to_be_numbered(&mut self, draft: Publication) {
        self.counters.sent_across_total += 1;
        self.joint(Joint::Keep(draft));
    }

    /// As the home: the question, if it may be answered now.
    pub(super) fn await_place(&mut self, question: Question, now: Time) -> Option<Question> {
        let needs_none =
            matches!(question.asked, Asked::Members | Asked::Once | Asked::Reach { .. });
        if needs_none || !self.is_shared(&question.room) {
            return Some(question);
        }
        let room = Arc::clone(&question.room);
        if self.rooms.joint.rooms.get(&room).is_some_and(|following| following.is_known) {
            return Some(question);
        }
        self.hold_question(question, None, now);
        None
    }

    /// Keeps a question until the place of its room is known, and as far as `until`.
    fn hold_question(&mut self, question: Question, until: Option<Cursor>, now: Time) {
        if self.rooms.joint.waiting >= MOST_WAITING
            || !self.rooms.directory.has_members(&question.room)
        {
            return self.tell(question, Found::Away, now);
        }
        let room = Arc::clone(&question.room);
        let joints = &mut self.rooms.joint;
        let following = joints.rooms.entry(Arc::clone(&room)).or_default();
        following.waiting.push((question, until));
        joints.waiting += 1;
        if !following.is_known && !std::mem::replace(&mut following.is_asked, true) {
            self.joint(Joint::Follow(room));
        }
    }

    /// As the home: what came after a cursor cannot be said from what is kept here.
    pub(super) fn look_further(&mut self, question: Question) {
        let portion = self.portion();
        self.joint(Joint::Fetch(question, portion));
    }

    /// As the home: the room has no members here any more.
    pub(super) fn end_following(&mut self, room: &str, now: Time) {
        if self.rooms.joint.rooms.is_empty() {
            return;
        }
        for question in self.rooms.joint.all(room) {
            self.tell(question, Found::Away, now);
        }
        let rooms = &mut self.rooms.joint.rooms;
        rooms.remove(room);
        if rooms.capacity() > 1024 && rooms.len() < rooms.capacity() / 8 {
            rooms.shrink_to(rooms.len() * 2);
        }
    }

    /// Takes in what the bridge, or a home, says of a room with a shared history.
    pub(super) fn handle_joint(&mut self, joint: Joint, now: Time) {
        match joint {
            // The bridge's, which reads them before they would get here.
            Joint::Keep(_) | Joint::Follow(_) | Joint::Fetch(..) => {}
            Joint::Followed(room, at) => self.handle_followed(&room, at, now),
            Joint::Arrived(room, at, draft) => self.handle_arrived(&room, at, draft, now),
            Joint::Reset(room, at, why) => self.handle_reset(&room, at, why, now),
            Joint::Fetched(question, fetched) => self.handle_fetched(question, fetched, now),
            Joint::Resync(room, at, why) => self.tell_all_resync(&room, at, why, now),
            Joint::Told(receipt, told) => self.handle_told(receipt, told, now),
        }
    }

    fn handle_followed(&mut self, room: &Arc<str>, at: Option<Cursor>, now: Time) {
        let Some(following) = self.rooms.joint.rooms.get_mut(room) else { return };
        following.is_asked = false;
        following.is_known = at.is_some();
        let Some(at) = at else {
            for question in self.rooms.joint.all(room) {
                self.tell(question, Found::Away, now);
            }
            return;
        };
        self.place(room, at, false);
        self.answer_due(room, at, now);
    }

    fn answer_due(&mut self, room: &str, at: Cursor, now: Time) {
        for question in self.rooms.joint.due(room, at) {
            self.answer(question, now);
        }
    }

    fn handle_arrived(
        &mut self,
        room: &Arc<str>,
        at: Cursor,
        draft: Option<Publication>,
        now: Time,
    ) {
        match draft {
            Some(draft) => _ = self.number([Publication { cursor: at, ..draft }], None, now),
            None => {
                // The number is taken; what came before it leads nowhere.
                self.place(room, Cursor { offset: at.offset + 1, ..at }, false);
                self.place(room, at, false);
            }
        }
        self.answer_due(room, at, now);
    }

    /// As the home: takes in a publication with the number that it was given elsewhere.
    pub(super) fn take_numbered(
        &mut self,
        draft: Publication,
        now: Time,
    ) -> Option<Arc<Publication>> {
        if !self.place(&draft.room, draft.cursor, true) {
            return None;
        }
        self.counters.publications_total += 1;
        let limits = self.memory_of(&draft.room).history.filter(|_| self.may_keep(&draft.room));
        let publication = Arc::new(draft);
        match limits {
            Some(limits) => self.keep(&publication, &limits, now),
            None if self.rooms.directory.forget(&publication.room) => {
                self.note_end(&publication.room)
            }
            None => {}
        }
        Some(publication)
    }

    /// Sets the room's position; false where there is no such room, or none any more.
    fn place(&mut self, room: &str, at: Cursor, is_next: bool) -> bool {
        let lived = self.rooms.directory.position(room).is_some();
        let lives = self.rooms.directory.place(room, at, is_next);
        if lived && !lives {
            self.note_end(room);
        }
        lives
    }

    fn handle_reset(&mut self, room: &Arc<str>, at: Cursor, why: Stale, now: Time) {
        self.place(room, at, false);
        let shards: Vec<_> = self.rooms.directory.shards(room).collect();
        for shard in shards {
            if shard == self.identity.id {
                self.tell_all_resync(room, at, why, now);
            } else {
                let resync = Joint::Resync(Arc::clone(room), at, why);
                self.outbox.push(shard, Mail::Joint(Box::new(resync)));
            }
        }
        self.answer_due(room, at, now);
    }

    /// Tells the members in this shard that they have to begin anew. Those that are yet to catch up are told when
    /// they ask for more.
    fn tell_all_resync(&mut self, room: &Arc<str>, at: Cursor, why: Stale, now: Time) {
        let members = self.rooms.hub.members(room);
        self.counters.resyncs_total += members.iter().filter(|m| m.is_confirmed()).count() as u64;
        let mut text = Vec::new();
        encode::resync(&mut text, plain(room), why, at);
        let forms = self.forms_of(&text).map(Shared::kept);
        self.deliver_kept(room, forms, None, now);
    }

    fn handle_fetched(&mut self, question: Question, fetched: Fetched, now: Time) {
        let Some(since) = cursor_of(&question) else { return };
        let mut publications = match fetched {
            Fetched::Publications(publications) => publications,
            Fetched::Stale(stale) => return self.tell(question, Found::Stale(stale), now),
            Fetched::Away => return self.tell(question, Found::Away, now),
        };
        if matches!(question.asked, Asked::Reach { .. }) {
            return self.tell(question, Found::Slice(Slice::default()), now);
        }
        let at = self.rooms.directory.position(&question.room).unwrap_or_default();
        let at = Cursor { epoch: at.0, offset: at.1 };
        let is_known = |f: &Following| f.is_known;
        let is_known = self.rooms.joint.rooms.get(&question.room).is_some_and(is_known);
        if !is_known || at.epoch != since.epoch || at.offset < since.offset {
            // It has seen what has not come here yet, or the room's place is to be told anew.
            return self.hold_question(question, Some(since), now);
        }
        // What the home has not had yet comes by its own mail, behind this.
        publications.retain(|publication| publication.cursor.offset <= at.offset);
        let last = publications.last().map_or(since.offset, |last| last.cursor.offset);
        if publications.is_empty() && last < at.offset {
            // More has come meanwhile.
            return self.answer(question, now);
        }
        let publications = publications.into_iter().map(Arc::new).collect();
        let found = Found::Slice(Slice { publications, more: last < at.offset, lost: false });
        self.tell(question, found, now);
    }

    /// The room's history cannot be reached. Whoever has just joined is out of the room again.
    pub(super) fn refuse_away(&mut self, question: &Question, now: Time) {
        let (id, room) = (question.to.conn, &question.room);
        if matches!(question.asked, Asked::Join(_))
            && !self.rooms.replays.is_behind(id.index, room)
            && let Some(connection) = self.table.get(id)
            && self.rooms.hub.standing(&connection.member, room) == Standing::Pending
        {
            self.rooms.hub.leave(&mut connection.member, room);
            self.note_rooms(id.index);
        }
        let message =
            "the room's history, which nodes share, cannot be reached now; try again after a pause";
        self.refuse_join(question, Code::Overloaded, message, now);
    }

    fn handle_told(&mut self, receipt: Receipt, told: Told, now: Time) {
        let is_awaited = receipt.is_awaited();
        match receipt {
            Receipt::Order { order, item } => {
                let report = Report::Kept { order, item, told };
                self.outbox.reports.push(report, &mut self.counters);
            }
            Receipt::Client { to, reference, waits } => {
                if is_awaited {
                    self.note_answered(to.conn);
                }
                let (position, repeated) = match told {
                    Told::Taken(_, position) => (position, false),
                    Told::Repeat(_, position) => (position, true),
                    Told::Refused(room, why) => {
                        let message = format!("{:?} did not get it: {why}", plain(&room));
                        let reference = reference.as_deref();
                        let error = CommandError::new(Code::Overloaded, message, reference);
                        return self.refuse(to.conn, &error, now);
                    }
                };
                self.counters.repeats_total += u64::from(repeated);
                if waits {
                    let reply = Reply::Numbered { position, repeated };
                    self.reply(to.conn, reference.as_deref(), &reply, now);
                }
            }
        }
    }

    /// What the author of a publication asks for beyond delivery, where the room may be one whose numbers are given
    /// elsewhere. Its answer waits for the number of the one room that it names.
    pub(super) fn terms_of(
        &self,
        id: ConnId,
        publish: &Publish<'_>,
        reference: Option<&RawValue>,
        room: &str,
        now: Time,
    ) -> Terms {
        let mut terms = self.terms(id, publish, room, now);
        let targets = &publish.targets;
        let others =
            targets.everyone || !targets.users().is_empty() || !targets.connections().is_empty();
        let waits = targets.rooms.len() == 1 && !others;
        terms.keep = self.keep_of(id, room, reference, waits);
        // Whether it was taken before is found out where it is numbered.
        terms.once = terms.once.filter(|_| terms.keep.is_none());
        terms
    }

    fn keep_of(
        &self,
        id: ConnId,
        room: &str,
        reference: Option<&RawValue>,
        waits: bool,
    ) -> Option<Box<Keep>> {
        if !self.is_shared(room) {
            return None;
        }
        let to = self.address(id);
        let user = self.gate.people.get(id.index).map(|person| person.names().1);
        let author = match user {
            // A known user is the same over any connection, on any node.
            Some(user) => format!("user {user}"),
            None => format!("connection {to}"),
        };
        let reference = reference.map(RawValue::to_owned);
        let receipt = Receipt::Client { to, reference, waits };
        Some(Box::new(Keep { author: author.into(), receipt }))
    }
}

/// After which the question wants to go on.
fn cursor_of(question: &Question) -> Option<Cursor> {
    match question.asked {
        Asked::Join(Joining { since, .. }) => since,
        Asked::Missed { after, .. } | Asked::Reach { since: after } => Some(after),
        Asked::Members | Asked::Page { .. } | Asked::Once => None,
    }
}
