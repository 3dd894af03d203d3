//! Memory going back after a crowd has gone.
//!
//! Two kinds, judged apart because a single connection with a high index holds the first and not the
//! second. *Places* are what the tables cost that have an entry per index: the slab of connections moves
//! to a smaller one, the others are released from their end, a slice a turn, so that a million of them
//! are no stall. *Heap* is what was allocated
//! for what connections did: memberships, queued frames, half-read messages. Most of it frees itself
//! as it goes, but the allocator keeps it until it is asked. It keeps as well what tables were before they
//! grew, so it is asked once more when a crowd has come.
//!
//! Nothing here calls the kernel: what to do is handed to the worker.

use crate::base::spare::Release;
use crate::base::time::Time;
use crate::flow::ebb::{Ebb, Rise};
use crate::shard::state::Shard;

/// What a turn gave back, for the worker to do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relieved {
    /// The tables' places from this index on: the driver has some as well.
    Places {
        /// No connection has this index or a higher one.
        from: u32,
    },
    /// Much was freed, or outgrown: the allocator is to give back what it can.
    Heap,
}

/// What is known of the need for memory.
#[derive(Debug)]
pub(super) struct Relief {
    /// Counts places.
    places: Ebb,
    /// Counts bytes.
    heap: Ebb,
    /// Counts connections and memberships.
    growth: Rise,
    /// Down to where places are being released, while they are.
    target: Option<u32>,
    /// Places released in one turn.
    slice: u32,
}

impl Default for Relief {
    fn default() -> Self {
        Self::new(PLACES_KEPT, SLICE)
    }
}

impl Relief {
    pub(super) fn new(places_kept: u64, slice: u32) -> Self {
        let heap_kept = places_kept * HEAP_PER_CONNECTION;
        Self {
            places: Ebb::new(places_kept),
            heap: Ebb::new(heap_kept),
            growth: Rise::new(places_kept),
            target: None,
            slice,
        }
    }

    /// When to look again, even if nothing happens until then.
    pub(super) fn due(&self) -> Option<Time> {
        if self.target.is_some() {
            return Some(Time::ZERO);
        }
        [self.places.due(), self.heap.due(), self.growth.due()].into_iter().flatten().min()
    }
}

/// Places that are never given back: 370 KB of tables.
const PLACES_KEPT: u64 = 4096;

/// Places released in one turn: about 1.5 MB, which takes the kernel some 100 microseconds.
const SLICE: u32 = 16_384;

/// What a connection may have on the heap, roughly: a room or two, a reply on its way.
const HEAP_PER_CONNECTION: u64 = 128;

/// Bytes of a place in the queues' arena, and how many of them it keeps when nothing is queued.
const NODE: u64 = 16;
const NODES_KEPT: usize = 2048;

impl Shard {
    /// Gives memory back, if it is time: releases places by `to`, and says what else is to be done. To be
    /// called once a turn.
    pub fn relieve(&mut self, now: Time, to: &mut impl Release) -> Option<Relieved> {
        if self.relief.places.note(self.table.len() as u64, now) {
            self.table.shrink();
            let bound = self.table.bound();
            // One who stays at a high index keeps all this, and it is looked for again.
            self.relief.places.keep(u64::from(bound));
            self.relief.target = Some(bound).filter(|bound| *bound < self.table.touched());
        }
        if let Some(target) = self.relief.target {
            let end = target.max(self.table.bound());
            let from = end.max(self.table.touched().saturating_sub(self.relief.slice));
            if from == end {
                self.relief.target = None;
            }
            self.table.trim(from, to);
            self.gate.people.trim(from, to);
            self.gate.layers.trim(from, to);
            self.gate.seats.trim(from, to);
            self.measures.farewells.trim(from, to);
            self.measures.ledger.trim(from);
            self.queues.payers.trim(from);
            return Some(Relieved::Places { from });
        }
        let nodes = self.queues.capacity().saturating_sub(NODES_KEPT) as u64 * NODE;
        let connections = self.table.len() as u64 * HEAP_PER_CONNECTION;
        let kept = self.rooms.directory.history().bytes() + self.rooms.repeats.bytes();
        if self.relief.heap.note(nodes + connections + kept + self.queues.queued_bytes(), now) {
            self.writes.relax();
            self.rooms.groups.relax();
            self.gate.people.purge(self.unix(now), now);
            self.table.codec.packings.purge();
            self.gate.layers.relax();
            return Some(Relieved::Heap);
        }
        let entries = self.table.len() + self.rooms.hub.memberships();
        self.relief.growth.note(entries as u64, now).then_some(Relieved::Heap)
    }
}
