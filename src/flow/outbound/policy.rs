//! What a queue does with a publication that it has no room for.
//!
//! `drop_oldest` makes space from the head, where what may be dropped usually stands. Where it does
//! not, at most 64 frames are passed over per push; after that the new publication is the one
//! dropped. So a push is never longer than the drops that earlier pushes have paid for.
//!
//! `conflate` looks the older publication up in an index that exists only while the queue is
//! congested: one walk builds it, after that every change of the queue keeps it. What is replaced
//! keeps its place and age, so a key that changes all the time is still delivered, and a reader that
//! stopped is still found out by age. The price is that order holds per room and key, not per room.

use super::arena::NIL;
use super::limits::{OutboundLimits, Pushed};
use super::losses::How;
use super::queue::{GAPS, INDEXED, Outbound};
use super::store::Store;
use crate::base::shared::{Overflow, Shared};
use crate::base::time::Tick;

impl Outbound {
    pub(super) fn push_dropping(
        &mut self,
        store: &mut Store,
        key: u32,
        item: Shared,
        now: Tick,
        limits: &OutboundLimits,
    ) -> Pushed {
        let mut dropped = 0;
        let mut passed = 0;
        let mut prev = self.last_control(&store.arena);
        while limits.is_over(self.bytes, self.messages()) && passed < MAX_PASSED {
            let index = self.after(&store.arena, prev);
            if index == NIL {
                break;
            }
            if !is_droppable(store.arena.node(index).item.as_ref()) {
                prev = index;
                passed += 1;
                continue;
            }
            self.unlink_after(&mut store.arena, prev);
            if let Some(old) = store.arena.remove(index) {
                self.unindex(store, key, &old, index);
                self.forget(store, Some(&old));
                self.lose(store, key, &old, limits);
                dropped += old.frames();
            }
        }
        // What is in flight cannot be dropped; when nothing else is left, the newest waits behind it.
        let is_alone = self.after(&store.arena, self.last_control(&store.arena)) == NIL
            && !limits.is_full(self.bytes, self.messages());
        if limits.is_over(self.bytes, self.messages()) && !is_alone {
            self.lose(store, key, &item, limits);
            return Pushed::DroppedAll(dropped + item.frames());
        }
        self.append(store, key, item, now);
        Pushed::DroppedOldest(dropped)
    }

    pub(super) fn push_conflating(
        &mut self,
        store: &mut Store,
        key: u32,
        item: Shared,
        now: Tick,
        limits: &OutboundLimits,
    ) -> Pushed {
        if !self.has(INDEXED) {
            self.build_index(store, key);
        }
        let older = item.mark().and_then(|mark| store.indexed(key, mark));
        if let Some(index) = older {
            let old = store.arena.node(index).item.as_ref().map_or(0, Shared::size);
            let grown = (self.bytes() - old).saturating_add(item.size());
            // Replacing small publications by large ones must not lift the queue over its limit.
            if grown <= self.bytes().max(limits.high_water as usize) {
                self.exchange(store, Some(key), index, item);
                return Pushed::Conflated;
            }
        }
        self.push_dropping(store, key, item, now, limits)
    }

    /// One walk per time of congestion; from there on the index is kept.
    fn build_index(&mut self, store: &mut Store, key: u32) {
        store.open_index(key);
        self.set(INDEXED);
        let mut index = self.after(&store.arena, self.last_control(&store.arena));
        while index != NIL {
            let node = store.arena.node(index);
            let next = node.next;
            if let Some(item) = node.item.clone() {
                self.note(store, key, &item, index);
            }
            index = next;
        }
    }

    pub(super) fn lose(
        &mut self,
        store: &mut Store,
        key: u32,
        item: &Shared,
        limits: &OutboundLimits,
    ) {
        if let Some(mark) = item.mark() {
            store.lose(key, &mark.room, item.frames(), limits.gap_rooms);
            store.losses.note(Some(item), How::Dropped(mark.overflow));
            self.set(GAPS);
        }
    }

    pub(super) fn note(&self, store: &mut Store, key: u32, item: &Shared, index: u32) {
        if self.has(INDEXED)
            && let Some(mark) = item.mark().filter(|mark| mark.overflow == Overflow::Conflate)
        {
            store.index(key, mark, index);
        }
    }

    pub(super) fn unindex(&self, store: &mut Store, key: u32, item: &Shared, index: u32) {
        if self.has(INDEXED)
            && let Some(mark) = item.mark().filter(|mark| mark.overflow == Overflow::Conflate)
        {
            store.unindex(key, mark, index);
        }
    }
}

fn is_droppable(item: Option<&Shared>) -> bool {
    let overflow = item.and_then(Shared::mark).map(|mark| mark.overflow);
    matches!(overflow, Some(Overflow::DropOldest | Overflow::Conflate))
}

/// Frames that one push passes over in search of one that may be dropped.
pub(super) const MAX_PASSED: usize = 64;
