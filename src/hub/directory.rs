//! The home side of rooms.
//!
//! Each room has one home shard, derived from its name, so every shard knows it without asking. The
//! home numbers the room's publications, which gives all receivers one order, and knows which shards
//! have members, so that a publication is mailed to those only. It does not know the members.
//!
//! A number means something only together with an epoch. A room ends when its last member has left and
//! nothing of its history is kept, and its numbers with it; if it comes again it begins at 1 under a new epoch, so that a cursor from its
//! earlier life is recognised as such. Epochs count up from the one given at start; give each start of
//! the node a higher one (the wall clock in nanoseconds does), and no two lives of a room share one.
//!
//! The room of a user's own has no entry here: the [`Roster`] knows in which shards the user is, at less
//! cost. What is published to it has no number.

use std::hash::Hash;
use std::sync::Arc;

use smallvec::SmallVec;

use super::history::{History, HistoryLimits, Past, Portion, Slice};
use super::publication::Publication;
use super::roster::Roster;
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::pool::is_sparse;
use crate::base::time::Tick;

/// The rooms whose home this shard is.
#[derive(Debug)]
pub struct Directory {
    rooms: Map<Arc<str>, HomeRoom>,
    /// The epoch of the next room that begins.
    next_epoch: u64,
    /// Holds nothing of a room that is not among `rooms`.
    history: History,
    /// What the store has of rooms, and what is on its way there. Empty where nobody asks for it.
    stored: Map<Arc<str>, Stored>,
    /// Lives of rooms that the store had something of, and that have ended.
    ended: Vec<(Arc<str>, u64)>,
    /// Lives that have ended and that the store may still bring back, with their epochs.
    undead: Map<Arc<str>, u64>,
    /// How many those are; they were not all remembered by name while `many_undead` holds.
    unburied: u64,
    many_undead: bool,
    /// The users whose home this shard is.
    pub users: Roster,
}

/// What the store has of a room.
#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    /// The store knows that numbers up to here may have been given out; zero when it has nothing of the room.
    reserved: u64,
    /// True while it is asked to keep something: the room does not end meanwhile, and nothing else numbers.
    busy: bool,
}

#[derive(Debug)]
struct HomeRoom {
    /// The number of the latest publication; zero before the first.
    offset: u64,
    epoch: u64,
    /// Shards with members and how many each has; none is zero. Empty only while there is history.
    counts: SmallVec<[(ShardId, u32); 2]>,
}

/// Lives that have ended and may come back, by name. With more, every room counts as one of which the store may know.
const MOST_UNDEAD: usize = 65_536;

/// The epochs from here on are given elsewhere, to rooms that are placed.
const SHARED_EPOCHS: u64 = 1 << 63;

/// The shard that is the home of `room`, of `shards` in the node. All shards use one seed.
///
/// # Panics
/// When `shards` is zero.
#[must_use]
pub fn home(seed: &Seed, room: &str, shards: u16) -> ShardId {
    home_of(seed, room, shards)
}

/// The shard that is the home of whatever else is counted in one place.
///
/// # Panics
/// When `shards` is zero.
#[must_use]
pub fn home_of(seed: &Seed, what: impl Hash, shards: u16) -> ShardId {
    assert!(shards > 0, "a node has a shard");
    // The lowest and highest bits of the same hash place the room in the home's map; taking others
    // here keeps that map's keys evenly spread.
    let middle = (seed.hash_one(what) >> 20) & u64::from(u32::MAX);
    let shard = (middle * u64::from(shards)) >> 32;
    ShardId(u16::try_from(shard).unwrap_or(0))
}

impl Directory {
    /// A directory without rooms. `epoch` is higher than any that an earlier run may have used.
    #[must_use]
    pub fn new(seed: &Seed, epoch: u64) -> Self {
        Self {
            rooms: seed.map(),
            next_epoch: epoch,
            history: History::new(seed),
            stored: seed.map(),
            ended: Vec::new(),
            undead: seed.map(),
            unburied: 0,
            many_undead: false,
            users: Roster::new(seed),
        }
    }

    /// Notes how many members `shard` has in `room` now. A room without members anywhere ends, unless it has
    /// history.
    pub fn set_count(&mut self, room: &Arc<str>, shard: ShardId, count: u32) {
        if let Some(home) = self.rooms.get_mut(&**room) {
            let at = home.counts.iter().position(|(known, _)| *known == shard);
            match at {
                Some(at) if count > 0 => home.counts[at].1 = count,
                Some(at) => _ = home.counts.swap_remove(at),
                None if count > 0 => home.counts.push((shard, count)),
                None => {}
            }
            if home.counts.is_empty() && !self.history.holds(room) {
                self.end_if_empty(room);
            }
        } else if count > 0 {
            self.begin(room, SmallVec::from_iter([(shard, count)]));
        }
    }

    /// The epoch and number of a new publication in a room that is to have history, from 1. [`Directory::keep`] is to
    /// follow at once: until then the room may have neither members nor history.
    pub fn number_kept(&mut self, room: &Arc<str>) -> Cursor {
        if !self.rooms.contains_key(room) {
            self.begin(room, SmallVec::new());
        }
        self.number(room).unwrap_or_default()
    }

    /// Keeps a publication that was numbered last in its room. True when that left nothing of the room, which
    /// has ended then.
    ///
    /// # Panics
    /// When the one kept before it has another number than the one before.
    pub fn keep(
        &mut self,
        publication: &Arc<Publication>,
        limits: &HistoryLimits,
        now: Tick,
    ) -> bool {
        !self.history.record(publication, limits, now) && self.end_if_empty(&publication.room)
    }

    /// Forgets the history of a room that is to have none any more. True when the room has ended with it.
    pub fn forget(&mut self, room: &str) -> bool {
        if !self.history.holds(room) {
            return false;
        }
        self.history.forget(room);
        let ends = self.end_if_empty(room);
        // What the store has is not to come back either.
        if !ends && let Some((epoch, _)) = self.position(room) {
            self.note_ended(room, epoch);
        }
        ends
    }

    /// Says where the room stands, and has nothing else change that until [`Directory::release`].
    pub fn hold(&mut self, room: &Arc<str>) -> Cursor {
        if !self.rooms.contains_key(room) {
            self.begin(room, SmallVec::new());
        }
        self.stored.entry(Arc::clone(room)).or_default().busy = true;
        let (epoch, offset) = self.position(room).unwrap_or_default();
        Cursor { epoch, offset }
    }

    /// The store has answered: it knows now that numbers up to `reserved` may be given out, or does not. To be
    /// called when what it keeps has its numbers. True when the room has ended.
    pub fn release(&mut self, room: &str, reserved: Option<u64>) -> bool {
        if let Some(stored) = self.stored.get_mut(room) {
            stored.busy = false;
            stored.reserved = stored.reserved.max(reserved.unwrap_or_default());
            if reserved.is_some() {
                // What the store knows of the room now is of this life.
                self.undead.remove(room);
            }
            if stored.reserved == 0 {
                self.stored.remove(room);
            }
        }
        !self.history.holds(room) && self.end_if_empty(room)
    }

    /// Up to where the store knows of numbers; zero when it has nothing of the room.
    #[must_use]
    pub fn reserved(&self, room: &str) -> u64 {
        self.stored.get(room).map_or(0, |stored| stored.reserved)
    }

    /// True when the store has to know of the room's next number before anybody else does: because it would give
    /// that number out again after a crash, or bring back an earlier life of the room in which nothing was said of it.
    #[must_use]
    pub fn must_reserve(&self, room: &str) -> bool {
        let offset = |room| self.position(room).map_or(0, |(_, offset)| offset);
        let reserved = if self.stored.is_empty() { 0 } else { self.reserved(room) };
        if reserved > 0 {
            return offset(room) >= reserved;
        }
        self.many_undead || !self.undead.is_empty() && self.undead.contains_key(room)
    }

    /// Takes in what an earlier process had stored of a room, whose home this is. False when nothing of it is to
    /// be kept; then the store is to forget it.
    pub fn restore(
        &mut self,
        (room, epoch): (&Arc<str>, u64),
        publications: Vec<(Arc<Publication>, u32)>,
        past: Past,
        limits: &HistoryLimits,
        now: Tick,
    ) -> bool {
        let is_new = !self.rooms.contains_key(room) && epoch < self.next_epoch;
        if !is_new || !self.history.restore(publications, past, limits, now) {
            return false;
        }
        let home = HomeRoom { offset: past.reserved, epoch, counts: SmallVec::new() };
        self.rooms.insert(Arc::clone(room), home);
        let stored = Stored { reserved: past.reserved, busy: false };
        self.stored.insert(Arc::clone(room), stored);
        true
    }

    /// The next life of a room that the store is to forget.
    pub fn poll_ended(&mut self) -> Option<(Arc<str>, u64)> {
        self.ended.pop()
    }

    /// The store is to forget that life of the room.
    pub fn note_forgotten(&mut self, room: Arc<str>, epoch: u64) {
        self.unburied += 1;
        if self.undead.len() < MOST_UNDEAD {
            self.undead.insert(Arc::clone(&room), epoch);
        } else {
            self.many_undead = true;
        }
        self.ended.push((room, epoch));
    }

    /// The store had no space to be asked to forget that.
    pub fn ask_again(&mut self, room: Arc<str>, epoch: u64) {
        self.ended.push((room, epoch));
    }

    /// The store has forgotten that life of the room.
    pub fn note_buried(&mut self, room: &str, epoch: u64) {
        if self.undead.get(room) == Some(&epoch) {
            self.undead.remove(room);
        }
        self.unburied = self.unburied.saturating_sub(1);
        if self.unburied == 0 {
            self.many_undead = false;
            self.undead.shrink_to_fit();
        }
    }

    fn note_ended(&mut self, room: &str, epoch: u64) {
        if let Some((room, _)) = self.stored.remove_entry(room) {
            self.note_forgotten(room, epoch);
        }
    }

    /// Lets go of history that is too old, in at most `most` rooms. The rooms that have ended with theirs.
    #[must_use]
    pub fn expire(&mut self, now: Tick, most: usize) -> Vec<Arc<str>> {
        let mut ended = Vec::new();
        if self.history.due().is_some_and(|due| due <= now) {
            self.history.expire(now, most, &mut ended);
            ended.retain(|room| self.end_if_empty(room));
        }
        ended
    }

    /// Lets go of the oldest history until no more than `bytes` of it are held. The rooms that have ended
    /// with theirs.
    #[must_use]
    pub fn shrink_history(&mut self, bytes: u64, now: Tick) -> Vec<Arc<str>> {
        let mut ended = Vec::new();
        if self.history.bytes() > bytes {
            self.history.shrink_to(bytes, now, &mut ended);
            ended.retain(|room| self.end_if_empty(room));
        }
        ended
    }

    /// Sets the position of a room whose numbers are given elsewhere. `is_next`: a publication has that number, and
    /// [`Directory::keep`] follows where the room has history. What is kept goes when it does not lead there.
    /// False when the room has neither members nor history, or has ended now.
    pub fn place(&mut self, room: &str, cursor: Cursor, is_next: bool) -> bool {
        let Some(home) = self.rooms.get_mut(room) else { return false };
        let leads = home.epoch == cursor.epoch && home.offset + u64::from(is_next) == cursor.offset;
        (home.epoch, home.offset) = (cursor.epoch, cursor.offset);
        leads || !self.forget(room)
    }

    /// What came after a cursor, oldest first.
    ///
    /// # Errors
    /// When that cannot be said: why.
    pub fn missed(
        &self,
        room: &str,
        since: Cursor,
        portion: Portion,
        now: Tick,
    ) -> Result<Slice, Stale> {
        let (epoch, latest) = self.position(room).ok_or(Stale::Epoch)?;
        if since.epoch != epoch {
            return Err(Stale::Epoch);
        }
        if since.offset > latest {
            return Err(Stale::Ahead);
        }
        self.history.after(room, since.offset, latest, portion, now).ok_or(Stale::TooOld)
    }

    /// What is kept of rooms.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The epoch and number of a new publication, from 1; `None` when the room has neither members nor
    /// history. Zeros for the room of a user's own, where nothing is numbered.
    pub fn number(&mut self, room: &str) -> Option<Cursor> {
        let Some(home) = self.rooms.get_mut(room) else {
            return self.users.has(room).then(Cursor::default);
        };
        home.offset += 1;
        Some(Cursor { epoch: home.epoch, offset: home.offset })
    }

    /// The room's epoch and the number of its latest publication, zero before the first.
    #[must_use]
    pub fn position(&self, room: &str) -> Option<(u64, u64)> {
        self.rooms.get(room).map(|home| (home.epoch, home.offset))
    }

    /// The shards with members, each once, in no particular order.
    pub fn shards(&self, room: &str) -> impl Iterator<Item = ShardId> {
        let home = self.rooms.get(room);
        let users = home.is_none().then(|| self.users.shards(room)).into_iter().flatten();
        let counts = home.map_or(&[][..], |home| &home.counts);
        counts.iter().map(|(shard, _)| *shard).chain(users)
    }

    /// True when the room has members in the node.
    #[must_use]
    pub fn has_members(&self, room: &str) -> bool {
        self.rooms.get(room).is_some_and(|home| !home.counts.is_empty())
    }

    /// Members of the room in the whole node.
    #[must_use]
    pub fn members(&self, room: &str) -> u64 {
        let counts = self.rooms.get(room).map_or(&[][..], |home| &home.counts);
        counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Rooms that have members or history, and their home here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// True when no such room exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Rooms for which memory is held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rooms.capacity()
    }

    /// Verifies that no room lives without members or history, and none names a shard twice.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        self.users.check();
        for (name, home) in &self.rooms {
            let busy = self.stored.get(name).is_some_and(|stored| stored.busy);
            let lives = !home.counts.is_empty() || self.history.holds(name) || busy;
            assert!(lives, "{name} has members or history");
            let is_shared = home.epoch >= SHARED_EPOCHS;
            assert!(is_shared || home.epoch < self.next_epoch, "{name} has an epoch of its own");
            for (at, (shard, count)) in home.counts.iter().enumerate() {
                assert!(*count > 0, "{name} has members in {shard:?}");
                let again = home.counts[at + 1..].iter().any(|(other, _)| other == shard);
                assert!(!again, "{name} names {shard:?} once");
            }
        }
        for (name, stored) in &self.stored {
            assert!(self.rooms.contains_key(name), "{name} is stored and lives");
            assert!(stored.busy || stored.reserved > 0, "{name} is stored");
        }
        for (name, latest) in self.history.latest() {
            let offset = self.rooms.get(name).map(|home| home.offset);
            assert_eq!(offset, Some(latest), "{name} keeps what was numbered last");
        }
        self.history.check();
    }

    fn begin(&mut self, room: &Arc<str>, counts: SmallVec<[(ShardId, u32); 2]>) {
        let home = HomeRoom { offset: 0, epoch: self.next_epoch, counts };
        self.next_epoch += 1;
        self.rooms.insert(Arc::clone(room), home);
    }

    /// To be called when nothing of the room's history is left.
    fn end_if_empty(&mut self, room: &str) -> bool {
        let is_empty = self.rooms.get(room).is_some_and(|home| home.counts.is_empty());
        let is_busy = || self.stored.get(room).is_some_and(|stored| stored.busy);
        let is_empty = is_empty && (self.stored.is_empty() || !is_busy());
        if is_empty {
            self.end(room);
        }
        is_empty
    }

    fn end(&mut self, room: &str) {
        let ended = self.rooms.remove(room);
        if !self.stored.is_empty()
            && let Some(ended) = ended
        {
            self.note_ended(room, ended.epoch);
        }
        if is_sparse(self.rooms.len(), self.rooms.capacity()) {
            self.rooms.shrink_to(self.rooms.len() * 2);
        }
    }
}
