//! What the outbound queues of one shard share: nodes, side tables, totals.
//!
//! The side tables exist for connections in trouble only. A gap entry appears with a connection's
//! first loss and goes when the losses have been told. A conflation index appears when a queue first
//! has to conflate, and goes when the queue is relieved; it is keyed by the hash of room and key,
//! and whoever finds something through it compares the mark itself.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::arena::Arena;
use super::losses::Losses;
use super::payers::Payers;
use crate::base::histogram::{self, PLACES};
use crate::base::map::{Map, Seed};
use crate::base::shared::{Gauge, Mark};
use crate::base::time::{Tick, Time};

/// Rooms with the number of publications lost in each. The empty name stands for all rooms beyond
/// [`OutboundLimits::gap_rooms`](super::OutboundLimits::gap_rooms).
pub type Gaps = SmallVec<[(Arc<str>, u64); 1]>;

/// Queues by their bytes, in places of KiB as a [histogram](crate::base::histogram) has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Queues in each place; those of the first, at most a KiB, are not counted: they are all the others.
    pub places: [u32; PLACES],
    /// Goes up with every change, so that whoever copies them knows when to.
    pub version: u32,
}

/// What the shortest queues have at most.
const SHORT: u32 = 1024;

impl Lengths {
    /// The place of a queue of so many bytes.
    #[must_use]
    pub fn place(bytes: u32) -> usize {
        histogram::place(u64::from(bytes.div_ceil(SHORT)))
    }
}

/// The memory of all outbound queues of a shard.
#[derive(Debug)]
pub struct Store {
    pub(super) arena: Arena,
    seed: Seed,
    gaps: Map<u32, Gaps>,
    /// Per congested connection: hash of room and key, to the newest such node in its queue.
    indexes: Map<u32, Map<u64, u32>>,
    /// What the frames in all queues and in flight cost, each counted once.
    pub(super) gauge: Gauge,
    /// For whom they are there.
    pub payers: Payers,
    /// Bytes in all queues, in flight included.
    pub(super) bytes: u64,
    /// Frames in all queues, in flight excluded.
    pub(super) frames: u64,
    /// How many queues are how long.
    lengths: Lengths,
    /// What queues have lost, for whoever remembers it.
    pub losses: Losses,
    /// When the current period of [`Store::relax`] ends.
    period_end: Tick,
}

impl Store {
    /// An empty store. It allocates with the first push.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            arena: Arena::default(),
            seed: seed.clone(),
            gaps: seed.map(),
            indexes: seed.map(),
            gauge: Gauge::default(),
            payers: Payers::new(seed),
            bytes: 0,
            frames: 0,
            lengths: Lengths::default(),
            losses: Losses::default(),
            period_end: Tick(0),
        }
    }

    /// Bytes in all queues, in flight included.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.bytes
    }

    /// How many queues are how long.
    #[must_use]
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// A queue had so many bytes and has so many now. Most queues are short before and after, and cost a
    /// comparison.
    pub(super) fn resize(&mut self, before: u32, after: u32) {
        if before.max(after) > SHORT {
            self.resize_long(Lengths::place(before), Lengths::place(after));
        }
    }

    fn resize_long(&mut self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let lengths = &mut self.lengths;
        if before > 0 {
            lengths.places[before] -= 1;
        }
        if after > 0 {
            lengths.places[after] += 1;
        }
        lengths.version = lengths.version.wrapping_add(1);
    }

    /// Bytes of memory that the frames in all queues and in flight cost, each counted once however many
    /// queues refer to it.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.gauge.bytes()
    }

    /// Frames in all queues, in flight excluded.
    #[must_use]
    pub fn queued_frames(&self) -> u64 {
        self.frames
    }

    /// Frames for which memory is held, 16 bytes each.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.arena.capacity()
    }

    /// Gives memory back after a burst: once per second of calls, at most 1 MiB. To be called every
    /// turn; most calls compare two numbers.
    pub fn relax(&mut self, now: Tick) {
        if now >= self.period_end {
            self.period_end = now.plus(PERIOD);
            self.arena.relax();
            shrink(&mut self.gaps);
            shrink(&mut self.indexes);
            self.losses.relax();
        }
    }

    /// When [`Store::relax`] has to be called, even if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.arena.has_spare().then(|| self.period_end.start())
    }

    /// Remembers the loss of so many publications.
    pub(super) fn lose(&mut self, key: u32, room: &Arc<str>, count: u32, rooms: u32) {
        let count = u64::from(count);
        let gaps = self.gaps.entry(key).or_default();
        let known = |(name, _): &(Arc<str>, u64)| Arc::ptr_eq(name, room) || name == room;
        if let Some(at) = gaps.iter().position(known) {
            gaps[at].1 += count;
            // The room that loses most is found first.
            gaps.swap(0, at);
        } else if gaps.len() < rooms as usize {
            gaps.push((Arc::clone(room), count));
        } else if let Some((_, lost)) = gaps.iter_mut().find(|(name, _)| name.is_empty()) {
            *lost += count;
        } else {
            gaps.push((Arc::from(""), count));
        }
    }

    pub(super) fn take_gaps(&mut self, key: u32) -> Gaps {
        self.gaps.remove(&key).unwrap_or_default()
    }

    pub(super) fn open_index(&mut self, key: u32) {
        let index = self.seed.map();
        self.indexes.insert(key, index);
    }

    pub(super) fn close_index(&mut self, key: u32) {
        self.indexes.remove(&key);
    }

    /// Notes that `node` is the newest of its room and key in the queue.
    pub(super) fn index(&mut self, key: u32, mark: &Mark, node: u32) {
        let hash = self.hash(mark);
        if let Some(index) = self.indexes.get_mut(&key) {
            index.insert(hash, node);
        }
    }

    /// Forgets `node`, if it is the one noted for its room and key.
    pub(super) fn unindex(&mut self, key: u32, mark: &Mark, node: u32) {
        let hash = self.hash(mark);
        if let Some(index) = self.indexes.get_mut(&key)
            && index.get(&hash) == Some(&node)
        {
            index.remove(&hash);
        }
    }

    /// The newest queued node of the same room and key.
    pub(super) fn indexed(&self, key: u32, mark: &Mark) -> Option<u32> {
        let node = *self.indexes.get(&key)?.get(&self.hash(mark))?;
        let queued = self.arena.node(node).item.as_ref()?.mark()?;
        (queued.key == mark.key && queued.room == mark.room).then_some(node)
    }

    fn hash(&self, mark: &Mark) -> u64 {
        self.seed.hash_one((&*mark.room, mark.key))
    }

    /// The nodes indexed for a connection, and whether it has losses to be told of.
    pub(super) fn side_entries(&self, key: u32) -> (Option<Vec<u32>>, bool) {
        let nodes = self.indexes.get(&key).map(|index| index.values().copied().collect());
        (nodes, self.gaps.contains_key(&key))
    }

    /// Verifies the arena; the queues verify their own part with
    /// [`Outbound::check`](super::Outbound::check).
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        self.arena.check();
        self.payers.check();
        assert!(self.arena.live() > 0 || self.frames == 0, "a queued frame has a node");
        assert!(self.bytes > 0 || self.arena.live() == 0, "a queued frame has bytes");
    }

    /// Connections with an entry in a side table; zero when nobody is in trouble.
    #[must_use]
    pub fn troubled(&self) -> usize {
        self.gaps.len().max(self.indexes.len())
    }
}

fn shrink<V>(map: &mut Map<u32, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

/// Long enough that a fan-out every few hundred milliseconds keeps its memory.
const PERIOD: Duration = Duration::from_secs(1);
