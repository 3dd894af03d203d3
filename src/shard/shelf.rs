//! The home's side of publications that are stored before anybody has them.
//!
//! Such a publication stands in its room's line (`hub::lines`) until it can go to the store with what stands
//! beside it, goes there with the number that it will have, and is numbered, kept, delivered and acknowledged
//! when the store has it. What is published in the room meanwhile, to be stored or not, waits behind it: that
//! keeps each author's order and the room's, and nobody sees a number that is not certain. A request is kept as
//! a whole or not at all, so nothing is numbered that was refused.
//!
//! Numbers of what is not stored die with the process, and must not be given out again by the next one in the
//! same life of the room. So in a room of which something is stored, the store is told in advance up to where
//! they may go, many at a time; where everything is stored, that is nowhere beyond the last one. The same holds for
//! the first number of a room's new life while the store may still have the one before: a crash would bring that
//! back, and those who know it would skip in silence what was said since.
//!
//! What waits is bounded by number and bytes. Beyond that, what was to be stored is refused, and what was not is
//! given up, counted, and told to the members as a gap. Nobody waits for ever: an author is told after a while
//! that it is not known what came of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{is_user_room, plain};
use crate::base::cursor::Cursor;
use crate::base::id::{ConnAddress, ShardId};
use crate::base::map::{Map, Seed};
use crate::base::saved::{Bounds, Save, SavedRoom, SavedRow};
use crate::base::time::{Tick, Time};
use crate::hub::saved::{self, Recalled};
use crate::hub::{
    Asks, By, Class, Durable, Group, HistoryLimits, Lines, Names, Past, Publication, Repeats,
    Target, Turn,
};
use crate::session::Code;
use crate::shard::fanout::encode_ws_json;
use crate::shard::inbox::Errands;
use crate::shard::mail::{Found, Mail, Question, Refusal, Saved, Whole};
use crate::shard::orders::{Report, elsewhere};
use crate::shard::settings::ShelfLimits;
use crate::shard::state::Shard;

/// Numbers that the store is told of in advance.
const RESERVED: u64 = 10_000;

/// Lives of rooms that the store is asked to forget in one turn.
const FORGOTTEN_PER_TURN: usize = 64;

/// Drafts of one command, or of one publication of an order, for this home.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) drafts: SmallVec<[Publication; 1]>,
    pub(super) group: Option<Group>,
    pub(super) across: Option<Arc<Whole>>,
    pub(super) then: Then,
}

/// Who is told what came of it.
#[derive(Debug)]
pub(super) enum Then {
    /// Nobody.
    Nothing,
    /// A client that has asked.
    Tell(Box<Question>),
    /// The node.
    Report {
        /// The order.
        order: u64,
        /// Which of its publications it is.
        item: u32,
    },
}

/// What the store was asked about a room.
#[derive(Debug)]
struct Batch {
    /// With the numbers under which they stood in line; true for the repeat of another one of the batch. Empty
    /// when only numbers are to be reserved.
    works: Vec<(u64, Work, bool)>,
    reserved: u64,
}

/// What waits for the store.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) lines: Lines<Work>,
    batches: Map<Arc<str>, Batch>,
    /// What all nodes are asked about, by room.
    pub(super) asked: Map<Arc<str>, Vec<(u64, Work)>>,
    /// When patience ends with what was to be stored, in the order in which it came.
    ends: VecDeque<(Time, u64, Arc<str>)>,
}

impl Shelf {
    pub(super) fn new(seed: &Seed) -> Self {
        let (batches, asked) = (seed.map(), seed.map());
        Self { lines: Lines::new(seed), batches, asked, ends: VecDeque::new() }
    }

    /// When somebody is to be told that it is not known what came of something.
    pub(super) fn due(&self) -> Option<Time> {
        self.ends.front().map(|(at, ..)| *at)
    }

    pub(super) fn check(&self) {
        self.lines.check();
        assert!(self.lines.bytes() > 0 || self.batches.is_empty(), "what is with the store costs");
    }

    fn batched(&mut self, id: u64, room: &str) -> Option<&mut Work> {
        let works = &mut self.batches.get_mut(room)?.works;
        works.iter_mut().find(|(other, ..)| *other == id).map(|(_, work, _)| work)
    }

    /// Patience ends at `end` with the work of that number.
    fn be_patient(&mut self, end: Time, id: u64, room: Arc<str>) {
        // What is done needs none any more.
        while let Some((_, id, room)) = self.ends.front().cloned()
            && !self.lines.waits(id)
            && self.batched(id, &room).is_none()
        {
            self.ends.pop_front();
        }
        self.ends.push_back((end, id, room));
    }
}

/// Why nothing can be stored where nothing outlives the process.
pub const NO_STORE: &str =
    "there is no store that outlives the process: neither store.path nor store.redis is set";
/// Why nothing can be stored in some rooms.
pub const NO_HISTORY: &str = "such rooms have no history: namespace.history_count is 0 for them";
/// Why nothing can be stored in rooms whose histories are shared.
pub const SHARED: &str =
    "the history of such rooms is kept in Redis for all nodes: bridge.shared_rooms has them";
const NOT_GRANTED: &str =
    "a tenant's room begins with a member, and has history when it has been granted";
const TOO_LARGE: &str = "it is larger than the history of the room: namespace.history_bytes";
const BEHIND: &str = "too much waits for the store; send the same again after a pause";
const SLOW: &str =
    "the store was too slow, and it is not stored; send the same again after a pause";
const UNKNOWN: &str = "the store has not answered yet: it may be stored, and is published then; with the same id it \
                       can be sent again";
const OUTDATED: &str = "its ttlMs was over before it could be stored";

const fn refusal(code: Code, message: &'static str) -> Refusal {
    Refusal { code, message }
}

/// What a draft costs while it waits, about, in bytes.
pub(super) fn cost(drafts: &[Publication]) -> u64 {
    let text = |draft: &Publication| draft.payload.as_ref().map_or(0, |raw| raw.get().len());
    drafts.iter().map(|draft| (size_of::<Publication>() + text(draft)) as u64).sum::<u64>() + 256
}

impl Shard {
    /// As the home: numbers drafts of one command and sends them out, in its turn in the lines of its rooms.
    pub(super) fn take_in_turn(
        &mut self,
        drafts: SmallVec<[Publication; 1]>,
        group: Option<Group>,
        across: Option<Arc<Whole>>,
        now: Time,
    ) {
        let is_asked = group.is_none() && self.must_ask_nodes(&drafts, now);
        if is_asked || self.must_wait(&drafts) {
            self.line_up(Work { drafts, group, across, then: Then::Nothing }, now);
        } else {
            self.number(drafts, group, now);
            self.send_part(across);
        }
    }

    /// The same for a publication whose author waits for an answer.
    pub(super) fn handle_once(&mut self, draft: Publication, question: Question, now: Time) {
        let stores = draft.terms.durable == Durable::Asked;
        let alone = std::slice::from_ref(&draft);
        if !stores && !self.must_wait(alone) && !self.must_ask_nodes(alone, now) {
            return self.take_once(draft, question, now);
        }
        let then = Then::Tell(Box::new(question));
        let drafts = SmallVec::from_iter([draft]);
        let work = Work { drafts, group: None, across: None, then };
        if stores { self.store(work, now) } else { self.line_up(work, now) }
    }

    /// True when something stands in line before these, or has to be asked for them.
    pub(super) fn must_wait(&self, drafts: &[Publication]) -> bool {
        let (lines, directory) = (&self.rooms.shelf.lines, &self.rooms.directory);
        let stores = self.settings.capacity.shelf.is_some();
        let waits = |draft: &Publication| {
            let must_reserve =
                || draft.to.target == Target::Room && directory.must_reserve(&draft.room);
            // What is numbered elsewhere waits for nothing here.
            draft.terms.keep.is_none() && (lines.has(&draft.room) || stores && must_reserve())
        };
        (stores || !lines.is_empty()) && drafts.iter().any(waits)
    }

    /// Whether a publication to the room can be stored, as far as the configuration says.
    pub(super) fn can_store(&self, room: &str) -> Result<ShelfLimits, Refusal> {
        let Some(limits) = self.settings.capacity.shelf else {
            return Err(refusal(Code::CannotPersist, NO_STORE));
        };
        if self.is_shared(room) {
            return Err(refusal(Code::CannotPersist, SHARED));
        }
        let has_history = !is_user_room(room) && self.memory_of(room).history.is_some();
        has_history.then_some(limits).ok_or(refusal(Code::CannotPersist, NO_HISTORY))
    }

    /// Puts a publication that is to be stored in line.
    pub(super) fn store(&mut self, work: Work, now: Time) {
        let room = Arc::clone(&work.drafts[0].room);
        let limits = match self.can_store(&room) {
            Ok(limits) => limits,
            Err(why) => return self.give_up(work.then, why, now),
        };
        if !self.may_keep(&room) {
            return self.give_up(work.then, refusal(Code::CannotPersist, NOT_GRANTED), now);
        }
        let lines = &self.rooms.shelf.lines;
        if lines.waiting_in(&room) >= limits.waiting || lines.bytes() >= self.history_share() {
            return self.give_up(work.then, refusal(Code::Overloaded, BEHIND), now);
        }
        let (shelf, names) = (&mut self.rooms.shelf, Names::from_iter([Arc::clone(&room)]));
        let id = shelf.lines.push(names, Asks::Store, cost(&work.drafts), work);
        shelf.be_patient(now.plus(limits.patience), id, room);
        self.pump(now);
    }

    /// Puts what is not to be stored in line.
    pub(super) fn line_up(&mut self, work: Work, now: Time) {
        let mut names = Names::new();
        for draft in &work.drafts {
            if !names.contains(&draft.room) {
                names.push(Arc::clone(&draft.room));
            }
        }
        let lines = &self.rooms.shelf.lines;
        // Their authors were told that they were taken: they have twice the space before they are given up.
        let capacity = &self.settings.capacity;
        let stored = capacity.shelf.map_or(0, |limits| limits.waiting);
        let most = 2 * stored.max(capacity.ids.unwrap_or(0));
        let is_long = names.iter().any(|name| lines.waiting_in(name) >= most);
        if is_long || lines.bytes() / 2 >= self.history_share() {
            return self.drop_work(work, now);
        }
        let is_asked = work.group.is_none() && self.must_ask_nodes(&work.drafts, now);
        let asks = if is_asked { Asks::Nodes } else { Asks::Nobody };
        self.rooms.shelf.lines.push(names, asks, cost(&work.drafts), work);
        self.pump(now);
    }

    /// Does what stands at the front of lines.
    pub(super) fn pump(&mut self, now: Time) {
        loop {
            let directory = &self.rooms.directory;
            let next = self.rooms.shelf.lines.poll(&|room| directory.must_reserve(room));
            match next {
                None => return,
                Some(Turn::Run(work)) => self.run_work(work, now),
                Some(Turn::Store(room, works)) => self.begin_store(&room, works, now),
                Some(Turn::Claim(room, works)) => self.ask_nodes(&room, works),
                Some(Turn::Reserve(room)) => {
                    let Cursor { epoch, offset } = self.rooms.directory.hold(&room);
                    self.ask_store(&room, epoch, offset + RESERVED, Vec::new(), Vec::new());
                }
            }
        }
    }

    fn run_work(&mut self, work: Work, now: Time) {
        let Work { mut drafts, group, across, then } = work;
        match then {
            Then::Nothing => {
                self.number(drafts, group, now);
                self.send_part(across);
            }
            Then::Tell(question) => {
                if let Some(draft) = drafts.pop() {
                    self.take_once(draft, *question, now);
                }
            }
            Then::Report { order, item } => {
                let kept = elsewhere(&drafts);
                let (publications, copies) = self.number(drafts, group, now);
                self.send_part(across);
                self.report_taken((order, item), &publications, (copies, kept));
            }
        }
    }

    /// Asks the store to keep what stood at the front of a room's line.
    fn begin_store(&mut self, room: &Arc<str>, works: Vec<(u64, Work)>, now: Time) {
        if !self.may_keep(room) {
            // It has ended since.
            let why = refusal(Code::CannotPersist, NOT_GRANTED);
            works.into_iter().for_each(|(_, work)| self.give_up(work.then, why, now));
            return self.rooms.shelf.lines.done(room);
        }
        let memory = self.memory_of(room);
        let Cursor { epoch, mut offset } = self.rooms.directory.hold(room);
        let unix_ms = self.unix_ms(now);
        let (mut rows, mut batch): (Vec<SavedRow>, Vec<_>) = (Vec::new(), Vec::new());
        for (id, work) in works {
            let draft = &work.drafts[0];
            let name = draft.terms.once.as_ref().map(|once| once.name);
            let name = name.filter(|_| !memory.repeats.is_zero());
            if name.is_some_and(|name| self.rooms.repeats.has(name, now.tick())) {
                self.counters.repeats_total += 1;
                self.tell_repeat(work.then, now);
                continue;
            }
            let repeats = |(_, other, _): &(u64, Work, bool)| {
                let other = other.drafts[0].terms.once.as_ref().map(|once| once.name);
                name.is_some() && other == name
            };
            if batch.iter().any(repeats) {
                batch.push((id, work, true));
                continue;
            }
            let bytes = saved::write(draft, unix_ms, now);
            let why = match memory.history {
                None => Some(refusal(Code::CannotPersist, NO_HISTORY)),
                Some(limits) if bytes.len() as u64 > limits.bytes => {
                    Some(refusal(Code::CannotPersist, TOO_LARGE))
                }
                Some(_) if draft.is_over(now) => Some(refusal(Code::Overloaded, OUTDATED)),
                Some(_) => None,
            };
            if let Some(why) = why {
                self.give_up(work.then, why, now);
                continue;
            }
            offset += 1;
            rows.push(SavedRow { offset, at: unix_ms, bytes });
            batch.push((id, work, false));
        }
        if rows.is_empty() {
            self.let_go(room, None);
        } else {
            let reserved = offset.max(self.rooms.directory.reserved(room));
            self.ask_store(room, epoch, reserved, rows, batch);
        }
    }

    fn ask_store(
        &mut self,
        room: &Arc<str>,
        epoch: u64,
        reserved: u64,
        rows: Vec<SavedRow>,
        works: Vec<(u64, Work, bool)>,
    ) {
        let bounds =
            self.memory_of(room).history.map_or(Bounds::default(), |limits| bounds(&limits));
        let save = Save { room: Arc::clone(room), epoch, reserved, rows, bounds };
        self.rooms.shelf.batches.insert(Arc::clone(room), Batch { works, reserved });
        self.outbox.errands.push_back(Errands::Save(Box::new(save)));
    }

    /// The store has no space for the question.
    pub(super) fn refuse_save(&mut self, room: &Arc<str>, now: Time) {
        let kept = Err(refusal(Code::Overloaded, BEHIND));
        self.handle_saved(&Saved { room: Arc::clone(room), kept, forgot: None }, now);
    }

    /// The store has answered about a room.
    pub(super) fn handle_saved(&mut self, saved: &Saved, now: Time) {
        if let Some(epoch) = saved.forgot {
            if saved.kept.is_ok() {
                self.rooms.directory.note_buried(&saved.room, epoch);
            }
            return;
        }
        let Some(batch) = self.rooms.shelf.batches.remove(&saved.room) else { return };
        let only_reserves = batch.works.is_empty();
        for (_, work, repeats) in batch.works {
            match saved.kept {
                Ok(()) if repeats => {
                    self.counters.repeats_total += 1;
                    self.tell_repeat(work.then, now);
                }
                Ok(()) => self.publish_stored(work, now),
                Err(why) => self.give_up(work.then, why, now),
            }
        }
        if only_reserves
            && saved.kept.is_err()
            && let Some(work) = self.rooms.shelf.lines.take_front(&saved.room)
        {
            self.drop_work(work, now);
        }
        self.let_go(&saved.room, saved.kept.is_ok().then_some(batch.reserved));
        self.pump(now);
    }

    /// The room's line goes on.
    fn let_go(&mut self, room: &Arc<str>, reserved: Option<u64>) {
        if self.rooms.directory.release(room, reserved) {
            self.note_end(room);
        }
        self.rooms.shelf.lines.done(room);
    }

    fn publish_stored(&mut self, work: Work, now: Time) {
        let Work { mut drafts, group, then, .. } = work;
        for draft in &mut drafts {
            draft.terms.durable = Durable::Stored;
        }
        let id = drafts.first().and_then(|draft| draft.id.clone());
        let (publications, copies) = self.number(drafts, group, now);
        self.counters.stored_total += 1;
        match then {
            Then::Nothing => {}
            // The room's latest is this one.
            Then::Tell(question) => self.tell(*question, Found::Stored(id), now),
            Then::Report { order, item } => {
                self.report_taken((order, item), &publications, (copies, 0));
            }
        }
    }

    pub(super) fn tell_repeat(&mut self, then: Then, now: Time) {
        match then {
            Then::Nothing => {}
            Then::Tell(question) => self.tell(*question, Found::Repeat, now),
            Then::Report { order, item } => self.report_repeat((order, item)),
        }
    }

    /// Tells an author that nothing is stored, as far as is known.
    fn give_up(&mut self, then: Then, why: Refusal, now: Time) {
        self.counters.stored_refused_total += 1;
        match then {
            Then::Nothing => {}
            Then::Tell(question) => self.tell(*question, Found::Refused(why), now),
            Then::Report { order, item } => {
                let Refusal { code, message } = why;
                self.report_order(Report::Refused { order, item, code: code.as_str(), message });
            }
        }
    }

    /// Gives up what was not to be stored, and tells the members of its rooms that something is missing.
    fn drop_work(&mut self, work: Work, now: Time) {
        let Work { drafts, group, across, then } = work;
        self.counters.unstored_dropped_total += drafts.len() as u64;
        // Other homes' copies are counted with this one, and other nodes lose nothing.
        self.number(SmallVec::<[Publication; 1]>::new(), group, now);
        self.send_part(across);
        let rooms: Vec<Arc<str>> = drafts
            .into_iter()
            .filter(|draft| draft.to.target == Target::Room)
            .map(|draft| draft.room)
            .collect();
        for room in rooms {
            let shards: SmallVec<[ShardId; 8]> = self.rooms.directory.shards(&room).collect();
            for shard in shards {
                if shard == self.identity.id {
                    self.handle_astray(std::slice::from_ref(&room), now);
                } else {
                    self.outbox.push(shard, Mail::Astray(Arc::from([Arc::clone(&room)])));
                }
            }
        }
        if !matches!(then, Then::Nothing) {
            self.give_up(then, refusal(Code::Overloaded, BEHIND), now);
        }
    }

    /// Tells those whose patience is over, and has the store forget what has ended.
    pub(super) fn tend_shelf(&mut self, now: Time) {
        let mut has_moved = false;
        while self.rooms.shelf.due().is_some_and(|due| due <= now) {
            let Some((_, id, room)) = self.rooms.shelf.ends.pop_front() else { break };
            if let Some(work) = self.rooms.shelf.lines.take(id) {
                has_moved = true;
                self.give_up(work.then, refusal(Code::Overloaded, SLOW), now);
            } else if let Some(work) = self.rooms.shelf.batched(id, &room) {
                let then = std::mem::replace(&mut work.then, Then::Nothing);
                self.give_up(then, refusal(Code::Unconfirmed, UNKNOWN), now);
            }
        }
        if has_moved {
            self.pump(now);
        }
        for _ in 0..FORGOTTEN_PER_TURN {
            let Some((room, epoch)) = self.rooms.directory.poll_ended() else { break };
            self.outbox.errands.push_back(Errands::Forget(room, epoch));
        }
    }

    /// Takes in what an earlier process had stored, of the rooms whose home this shard is. To be called once,
    /// before anybody comes.
    pub fn recall_rooms(&mut self, rooms: &[SavedRoom], now: Time) {
        for saved in rooms {
            if self.home(&saved.room) == self.identity.id && !self.recall_room(saved, now) {
                self.rooms.directory.note_forgotten(Arc::clone(&saved.room), saved.epoch);
            }
        }
        let ended = self.rooms.directory.shrink_history(self.history_share(), now.tick());
        ended.iter().for_each(|room| self.note_end(room));
    }

    fn recall_room(&mut self, saved: &SavedRoom, now: Time) -> bool {
        let SavedRoom { room, epoch, reserved, dropped, rows } = saved;
        let (memory, unix_ms) = (self.memory_of(room), self.unix_ms(now));
        let Some(limits) = memory.history else { return false };
        let mut publications = Vec::with_capacity(rows.len());
        for SavedRow { offset, at, bytes } in rows {
            let cursor = Cursor { epoch: *epoch, offset: *offset };
            // One that cannot be read is missing, like one that was not stored.
            let Some(recalled) = saved::read(room, cursor, bytes, unix_ms, now) else { continue };
            let age = Duration::from_millis(unix_ms.saturating_sub(*at));
            self.recall_name(&recalled, memory.repeats.saturating_sub(age), now);
            let publication = Arc::new(Publication {
                overflow: self.settings.rooms.overflow_of(plain(room)),
                ..recalled.publication
            });
            publication.bytes(Class::WS_JSON, encode_ws_json);
            publications.push((publication, Tick::count(age)));
        }
        let past = Past { dropped: *dropped, reserved: *reserved, ahead: 0 };
        let directory = &mut self.rooms.directory;
        let is_kept = directory.restore((room, *epoch), publications, past, &limits, now.tick());
        if is_kept {
            self.note_begin(room, *epoch);
        }
        is_kept
    }

    /// Remembers for that long by what a repeat of the publication is known.
    fn recall_name(&mut self, recalled: &Recalled, left: Duration, now: Time) {
        let Recalled { publication, by: Some(by) } = recalled else { return };
        let (Some(id), room) = (publication.id.as_deref().map(RawValue::get), &*publication.room)
        else {
            return;
        };
        let seed = &self.identity.seed;
        let name = match by {
            By::BackEnd => Repeats::key(seed, ("back end", room, id)),
            By::User(tenant, user) => {
                let user = Some((tenant.as_deref(), &**user));
                Repeats::key(seed, (user, None::<ConnAddress>, room, id))
            }
            By::Connection => return,
        };
        if !left.is_zero() {
            self.rooms.repeats.first(name, now.tick().plus(left), now.tick());
        }
    }
}

fn bounds(limits: &HistoryLimits) -> Bounds {
    let age_ms = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
    Bounds { count: u64::from(limits.count), bytes: limits.bytes, age_ms }
}
