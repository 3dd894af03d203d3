//! What was published lately, for whoever comes back.
//!
//! A room that is to have history has a ring at its home: the publications themselves, which share their
//! encoded bytes with every queue that still holds them. Offsets in a ring follow each other without a
//! break, but for those that an earlier process gave out and did not store, if the ring was stored. A ring exists exactly while it holds something: a room
//! without history, and one whose history has ended, costs nothing here.
//!
//! Three bounds hold for each ring: how many, how many bytes, how old. The fourth is for all rings of a
//! shard together, and takes from the ring whose oldest publication would end first. Ages are looked at
//! in the order in which they end, by one entry for each ring, never by a walk over the rooms; the entry
//! is behind its time by a sixteenth of the age at most, and what is too old is not handed out meanwhile.
//!
//! Whether a room lives, and how it numbers, is the directory's business.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::publication::Publication;
use crate::base::map::{Map, Seed};
use crate::base::pool::{Pool, is_sparse};
use crate::base::time::Tick;

/// The bounds of one room's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Publications kept; at least 1.
    pub count: u32,
    /// What they may cost, in bytes.
    pub bytes: u64,
    /// How long each is kept.
    pub age: Duration,
}

/// How much of a history is handed out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Publications at most; at least 1.
    pub count: usize,
    /// Bytes of frames after which no further publication is added.
    pub bytes: usize,
}

/// A part of a history, in the order of offsets.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// The publications.
    pub publications: Vec<Arc<Publication>>,
    /// True when there are more in the direction that was asked for.
    pub more: bool,
    /// True when others may have been published among these that an earlier process did not store.
    pub lost: bool,
}

impl Slice {
    /// Takes entries until there is enough, one at least.
    fn fill<'h>(&mut self, entries: impl Iterator<Item = &'h Entry>, portion: Portion) {
        let mut bytes = 0;
        for entry in entries {
            let count = self.publications.len();
            if count > 0 && (count >= portion.count || bytes >= portion.bytes) {
                self.more = true;
                return;
            }
            bytes += entry.publication.frame_bytes();
            self.publications.push(Arc::clone(&entry.publication));
        }
    }
}

/// Publications that were let go, by what made them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The room's count.
    pub count: u64,
    /// The room's bytes.
    pub bytes: u64,
    /// Their age.
    pub age: u64,
    /// The bytes of all rooms together.
    pub share: u64,
}

#[derive(Debug)]
struct Entry {
    publication: Arc<Publication>,
    /// When it was published.
    at: Tick,
    /// What it costs, in bytes.
    cost: u32,
}

#[derive(Debug)]
struct Ring {
    room: Arc<str>,
    /// Never empty between calls; offsets rise by one.
    entries: VecDeque<Entry>,
    /// What the entries cost.
    bytes: u64,
    age: Duration,
    /// Where the ring stands in [`History::line`].
    due: Tick,
    past: Past,
}

/// What stands behind a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The highest offset that is not kept because of the bounds.
    pub dropped: u64,
    /// Up to here an earlier process may have given out offsets that it did not store; zero: none has.
    pub reserved: u64,
    /// Ticks by which the times in the ring are ahead of the process's, so that what is older than the process
    /// has one.
    pub ahead: u32,
}

impl Ring {
    /// The ring's own time.
    fn time(&self, now: Tick) -> Tick {
        Tick(now.0.saturating_add(self.past.ahead))
    }

    /// The process's time at which an entry of that time ends.
    fn ends(&self, at: Tick) -> Tick {
        Tick(at.plus(self.age).0.saturating_sub(self.past.ahead))
    }
}

/// The rings of a shard.
#[derive(Debug)]
pub struct History {
    names: Map<Arc<str>, u32>,
    rings: Pool<Ring>,
    /// Every ring once, by when its oldest entry is to be looked at.
    line: BTreeSet<(Tick, u32)>,
    entries: usize,
    /// What all of it costs, the rings themselves included.
    bytes: u64,
    evicted: Evicted,
}

impl History {
    /// Nothing is kept.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            names: seed.map(),
            rings: Pool::default(),
            line: BTreeSet::new(),
            entries: 0,
            bytes: 0,
            evicted: Evicted::default(),
        }
    }

    /// Keeps a publication whose offset follows that of the one kept before it in its room. False when the
    /// room's bounds leave nothing in the ring, which is gone then.
    ///
    /// # Panics
    /// When the offset does not follow.
    pub fn record(
        &mut self,
        publication: &Arc<Publication>,
        limits: &HistoryLimits,
        now: Tick,
    ) -> bool {
        let key = self.names.get(&publication.room).copied();
        let key = key.unwrap_or_else(|| self.open(&publication.room, limits, now));
        let (ring, offset) = (&mut self.rings[key], publication.cursor.offset);
        let last = ring.entries.back().map(|entry| entry.publication.cursor.offset);
        assert!(
            last.is_none_or(|last| last.max(ring.past.reserved) + 1 == offset),
            "{offset} follows {last:?}"
        );
        if last.is_none() {
            ring.past.dropped = offset.saturating_sub(1);
        }
        ring.age = limits.age;
        let at = ring.time(now);
        self.add(key, publication, at);
        self.bound(key, limits);
        self.settle(key, now)
    }

    /// Takes in what was stored of a room by an earlier process: publications in the order of their offsets, each
    /// with its age in ticks. Nothing of the room may be kept yet. False when the bounds leave nothing of it.
    pub fn restore(
        &mut self,
        publications: Vec<(Arc<Publication>, u32)>,
        past: Past,
        limits: &HistoryLimits,
        now: Tick,
    ) -> bool {
        let Some((first, _)) = publications.first() else { return false };
        assert!(!self.holds(&first.room), "{} is restored once", first.room);
        let oldest = publications.iter().map(|(_, age)| *age).max().unwrap_or_default();
        let ahead = oldest.saturating_sub(now.0);
        let key = self.open(&Arc::clone(&first.room), limits, now);
        self.rings[key].past = Past { ahead, ..past };
        for (publication, age) in &publications {
            let at = self.rings[key].time(now).0.saturating_sub(*age);
            self.add(key, publication, Tick(at));
        }
        self.bound(key, limits);
        self.settle(key, now)
    }

    fn add(&mut self, key: u32, publication: &Arc<Publication>, at: Tick) {
        let cost = cost(publication);
        let ring = &mut self.rings[key];
        ring.entries.push_back(Entry { publication: Arc::clone(publication), at, cost });
        ring.bytes += u64::from(cost);
        self.bytes += u64::from(cost);
        self.entries += 1;
    }

    /// Lets go of what is too much.
    fn bound(&mut self, key: u32, limits: &HistoryLimits) {
        while self.rings[key].entries.len() > limits.count as usize {
            self.drop_oldest(key);
            self.evicted.count += 1;
        }
        while self.rings[key].bytes > limits.bytes {
            self.drop_oldest(key);
            self.evicted.bytes += 1;
        }
    }

    /// True while something of the room is kept.
    #[must_use]
    pub fn holds(&self, room: &str) -> bool {
        !self.names.is_empty() && self.names.contains_key(room)
    }

    /// What came after `offset`, oldest first; `None` when not all of it is kept. `latest` is the room's
    /// latest offset, not below `offset`.
    #[must_use]
    pub fn after(
        &self,
        room: &str,
        offset: u64,
        latest: u64,
        portion: Portion,
        now: Tick,
    ) -> Option<Slice> {
        if offset == latest {
            return Some(Slice::default());
        }
        let (ring, from) = self.kept(room, now)?;
        let first = ring.entries.partition_point(|e| e.publication.cursor.offset <= offset);
        if offset < ring.past.dropped || first < from {
            return None;
        }
        let lost = (ring.entries.len() - first) as u64 != latest - offset;
        if lost && offset >= ring.past.reserved {
            return None;
        }
        let mut slice = Slice { lost, ..Slice::default() };
        slice.fill(ring.entries.range(first..), portion);
        Some(slice)
    }

    /// What came right before `before`, or the newest that is kept, oldest first.
    #[must_use]
    pub fn before(&self, room: &str, before: Option<u64>, portion: Portion, now: Tick) -> Slice {
        let mut slice = Slice::default();
        let Some((Ring { entries, .. }, from)) = self.kept(room, now) else { return slice };
        let end = before.map_or(entries.len(), |before| {
            entries.partition_point(|entry| entry.publication.cursor.offset < before)
        });
        slice.fill(entries.range(from..end.max(from)).rev(), portion);
        slice.publications.reverse();
        slice
    }

    /// Lets go of what is too old, in at most `most` rings. Rooms of which nothing is left go to `ended`.
    pub fn expire(&mut self, now: Tick, most: usize, ended: &mut Vec<Arc<str>>) {
        for _ in 0..most {
            let first = self.line.first().copied().filter(|(due, _)| *due <= now);
            let Some((_, key)) = first else { return };
            let room = Arc::clone(&self.rings[key].room);
            if !self.settle(key, now) {
                ended.push(room);
            }
        }
    }

    /// Lets go of what would end first until no more than `bytes` are held.
    pub fn shrink_to(&mut self, bytes: u64, now: Tick, ended: &mut Vec<Arc<str>>) {
        while self.bytes > bytes {
            let Some((due, key)) = self.line.first().copied() else { return };
            let ring = &self.rings[key];
            let ends = ring.entries.front().map_or(due, |oldest| ring.ends(oldest.at));
            if ends > due {
                // What this place in line stood for has gone already.
                self.place(key, ends);
                continue;
            }
            let room = Arc::clone(&ring.room);
            self.drop_oldest(key);
            self.evicted.share += 1;
            if !self.settle(key, now) {
                ended.push(room);
            }
        }
    }

    /// Lets go of all that is kept of a room.
    pub fn forget(&mut self, room: &str) {
        if let Some(key) = self.names.get(room).copied() {
            self.close(key);
        }
    }

    /// Rooms of which something is kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rings.len()
    }

    /// True when nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Publications kept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// What all of it costs, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Publications that were let go.
    #[must_use]
    pub fn evicted(&self) -> Evicted {
        self.evicted
    }

    /// When [`History::expire`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Tick> {
        self.line.first().map(|(due, _)| *due)
    }

    /// The latest offset of each room, as far as that is known here.
    pub(super) fn latest(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let last =
            |ring: &Ring| ring.entries.back().map_or(0, |entry| entry.publication.cursor.offset);
        self.rings.iter().map(move |(_, ring)| (&ring.room, last(ring).max(ring.past.reserved)))
    }

    /// Verifies rings, line and sums against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let (mut bytes, mut entries) = (0, 0);
        for (key, ring) in self.rings.iter() {
            assert_eq!(self.names.get(&ring.room), Some(&key), "a name leads to its ring");
            assert!(self.line.contains(&(ring.due, key)), "{} stands in line", ring.room);
            assert!(!ring.entries.is_empty(), "{} keeps something", ring.room);
            let sum: u64 = ring.entries.iter().map(|entry| u64::from(entry.cost)).sum();
            assert_eq!(sum, ring.bytes, "bytes of {}", ring.room);
            let offsets = || ring.entries.iter().map(|entry| entry.publication.cursor.offset);
            let reserved = ring.past.reserved;
            let mut pairs = offsets().zip(offsets().skip(1));
            let follows = pairs.all(|(one, next)| one + 1 == next || one < next && one < reserved);
            assert!(follows, "{} has no gap", ring.room);
            assert!(offsets().all(|one| one > ring.past.dropped), "{} dropped them", ring.room);
            bytes += sum + ring_cost(&ring.room);
            entries += ring.entries.len();
        }
        assert_eq!((bytes, entries), (self.bytes, self.entries), "bytes and entries");
        assert_eq!(self.names.len(), self.rings.len(), "each ring has one name");
        assert_eq!(self.line.len(), self.rings.len(), "each ring stands in line once");
    }

    /// What is kept of a room, and from which place on it is not too old.
    fn kept(&self, room: &str, now: Tick) -> Option<(&Ring, usize)> {
        let ring = &self.rings[*self.names.get(room)?];
        let is_old = |entry: &Entry| ring.ends(entry.at) <= now;
        Some((ring, ring.entries.partition_point(is_old)))
    }

    fn open(&mut self, room: &Arc<str>, limits: &HistoryLimits, now: Tick) -> u32 {
        let due = now.plus(limits.age);
        let key = self.rings.insert(Ring {
            room: Arc::clone(room),
            entries: VecDeque::new(),
            bytes: 0,
            age: limits.age,
            due,
            past: Past::default(),
        });
        self.names.insert(Arc::clone(room), key);
        self.line.insert((due, key));
        self.bytes += ring_cost(room);
        key
    }

    fn close(&mut self, key: u32) {
        let ring = self.rings.remove(key);
        self.names.remove(&ring.room);
        self.line.remove(&(ring.due, key));
        self.entries -= ring.entries.len();
        self.bytes -= ring.bytes + ring_cost(&ring.room);
        if is_sparse(self.names.len(), self.names.capacity()) {
            self.names.shrink_to(self.names.len() * 2);
        }
    }

    fn drop_oldest(&mut self, key: u32) {
        let ring = &mut self.rings[key];
        if let Some(entry) = ring.entries.pop_front() {
            let cost = u64::from(entry.cost);
            ring.past.dropped = entry.publication.cursor.offset;
            ring.bytes -= cost;
            self.bytes -= cost;
            self.entries -= 1;
        }
    }

    /// Lets go of what is too old and gives the ring its place in line; false when the ring is gone.
    fn settle(&mut self, key: u32, now: Tick) -> bool {
        let oldest = |ring: &Ring| ring.entries.front().map(|entry| ring.ends(entry.at));
        while oldest(&self.rings[key]).is_some_and(|ends| ends <= now) {
            self.drop_oldest(key);
            self.evicted.age += 1;
        }
        let ring = &mut self.rings[key];
        let Some(ends) = oldest(ring) else {
            self.close(key);
            return false;
        };
        if ring.entries.capacity() > KEPT && ring.entries.len() < ring.entries.capacity() / 4 {
            ring.entries.shrink_to(ring.entries.len() * 2);
        }
        // An entry that ends in a moment is looked at together with those behind it.
        let due = ends.max(now.plus(ring.age / COARSE));
        // The place in line moves when its time has come, and stays where it is when entries merely go.
        if ring.due <= now || due < ring.due {
            self.place(key, due);
        }
        true
    }

    fn place(&mut self, key: u32, due: Tick) {
        let ring = &mut self.rings[key];
        self.line.remove(&(ring.due, key));
        ring.due = due;
        self.line.insert((due, key));
    }
}

/// What a kept publication costs, in bytes: itself, what it was made of, its frame, and its place.
fn cost(publication: &Publication) -> u32 {
    let parts = [
        size_of::<Publication>() + size_of::<Entry>() + COUNTS,
        publication.kind.get().len(),
        publication.payload.as_ref().map_or(0, |payload| payload.get().len() + COUNTS),
        publication.id.as_ref().map_or(0, |id| id.get().len()),
        publication.frame_bytes() + COUNTS,
    ];
    u32::try_from(parts.iter().sum::<usize>()).unwrap_or(u32::MAX)
}

/// What a ring costs without its entries: its places in the maps, here and in the directory.
fn ring_cost(room: &str) -> u64 {
    (room.len() + 2 * size_of::<Ring>() + PLACES) as u64
}

/// The two counts in front of what an [`Arc`] holds.
const COUNTS: usize = 2 * size_of::<usize>();

/// Bytes of a room in two maps and in the line, with the free places that maps keep.
const PLACES: usize = 200;

/// The part of its age by which an entry may be kept longer, so that not each is looked at by itself.
const COARSE: u32 = 16;

/// Places of a ring up to which nothing is given back.
const KEPT: usize = 16;
