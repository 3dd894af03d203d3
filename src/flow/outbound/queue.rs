//! One connection's outbound queue.
//!
//! The order in the list is the order on the wire: first, while a batch is in flight, a node without
//! an item that keeps the batch's age; then at most one ping and a few pongs; then data in the order of
//! pushing; last, if the connection is closing, the close frame. A publication that conflates takes
//! the place of the one it replaces, so order holds per room and key, and a key that changes all the
//! time is still delivered.
//!
//! Each ping of the peer gets its pong while few wait. RFC 6455, section 5.5.3 asks only for the newest,
//! which is what a peer gets that pings faster than it reads: its pings cost a bounded queue.
//!
//! What happens to a publication above the high water mark is in `policy`.
//!
//! A queue is inert without its [`Store`] and its connection's slab index; both come with each call.

use super::arena::{Arena, NIL};
use super::limits::{Control, OutboundLimits, Pressure, Pushed};
use super::losses::How;
use super::store::{Gaps, Store};
use crate::base::shared::{Overflow, Shared, Trace};
use crate::base::time::Tick;
use crate::contract::SendBatch;

/// The queue of one connection. It must be emptied with [`Outbound::clear`] before it is dropped;
/// its nodes stay in the store otherwise.
#[derive(Debug)]
pub struct Outbound {
    /// The first node; the one that stands for the batch in flight, while there is one.
    head: u32,
    /// The last node; [`NIL`] exactly when the list has none.
    tail: u32,
    /// Queued and in flight.
    pub(super) bytes: u32,
    /// Queued frames, controls included, in flight excluded.
    pub(super) len: u32,
    flags: u16,
    /// Queued pongs, at most [`MAX_PONGS`].
    pongs: u8,
    /// How many of them are ahead of the queued ping; meaningful while there is one.
    pongs_ahead: u8,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, bytes: 0, len: 0, flags: 0, pongs: 0, pongs_ahead: 0 }
    }
}

impl Outbound {
    /// Queues a reply or a publication, or does what its limits and its room's policy say.
    pub fn push(
        &mut self,
        store: &mut Store,
        key: u32,
        item: Shared,
        now: Tick,
        limits: &OutboundLimits,
    ) -> Pushed {
        if self.has(CLOSING) {
            return Pushed::Closing;
        }
        let Some(size) = self.size_if_countable(&item) else { return Pushed::SlowConsumer };
        if size == 0 {
            return Pushed::Queued;
        }
        let Some(mark) = item.mark() else {
            if limits.is_full(self.bytes, self.messages()) {
                return Pushed::SlowConsumer;
            }
            self.append(store, key, item, now);
            self.settle(store, key, limits);
            return Pushed::Queued;
        };
        if !limits.is_over(self.bytes, self.messages()) {
            self.append(store, key, item, now);
            self.settle(store, key, limits);
            return Pushed::Queued;
        }
        self.set(CONGESTED);
        let pushed = match mark.overflow {
            Overflow::DropNew | Overflow::Pause => {
                self.lose(store, key, &item, limits);
                Pushed::DroppedNew(item.frames())
            }
            Overflow::Disconnect => Pushed::SlowConsumer,
            Overflow::DropOldest => self.push_dropping(store, key, item, now, limits),
            Overflow::Conflate => self.push_conflating(store, key, item, now, limits),
        };
        self.settle(store, key, limits);
        pushed
    }

    /// Queues a control frame regardless of the limits and returns true, or returns false when it is
    /// superfluous: a second ping, or anything once a close frame is queued.
    ///
    /// # Panics
    /// When the item carries a mark: what may be dropped is no control frame.
    pub fn push_control(
        &mut self,
        store: &mut Store,
        item: Shared,
        kind: Control,
        now: Tick,
    ) -> bool {
        assert!(item.mark().is_none(), "a control frame carries no mark");
        let Some(size) = self.size_if_countable(&item) else { return false };
        if self.has(CLOSING) || size == 0 || (kind == Control::Ping && self.has(PING)) {
            return false;
        }
        match kind {
            Control::Close => {
                let index = self.enter(store, None, item, now);
                self.link_after(&mut store.arena, self.tail, index);
                self.set(CLOSING);
            }
            Control::Pong if self.pongs == MAX_PONGS => self.replace_pong(store, item),
            Control::Ping | Control::Pong => {
                let last = self.last_control(&store.arena);
                let index = self.enter(store, None, item, now);
                self.link_after(&mut store.arena, last, index);
                if kind == Control::Pong {
                    self.pongs += 1;
                } else {
                    self.set(PING);
                    self.pongs_ahead = self.pongs;
                }
            }
        }
        true
    }

    /// Moves items from the head into the empty `batch` and returns how many frames they are: as many
    /// items as stay within both limits, but at least one if any is queued. Their bytes stay counted
    /// until [`Self::sent`].
    ///
    /// # Panics
    /// When a batch is in flight already, or `batch` is not empty.
    pub fn take_batch(
        &mut self,
        store: &mut Store,
        key: u32,
        batch: &mut SendBatch,
        max_bytes: usize,
        max_parts: usize,
    ) -> usize {
        assert!(!self.in_flight(), "one batch at a time");
        assert!(batch.is_done(), "a batch is filled from empty");
        let (mut parts, mut frames) = (0, 0);
        let mut since = Tick(u32::MAX);
        let mut index = self.head;
        while index != NIL && parts < max_parts.max(1) {
            let node = store.arena.node_mut(index);
            let size = node.item.as_ref().map_or(0, Shared::size);
            if parts > 0 && batch.left() + size > max_bytes {
                break;
            }
            let (item, next) = (node.item.take(), node.next);
            since = since.min(node.since);
            if parts > 0 {
                store.arena.remove(index);
            }
            if let Some(item) = item {
                self.unindex(store, key, &item, index);
                frames += item.frames();
                let (lead, item) = item.pieces();
                batch.extend(lead.into_iter().chain([item]));
            }
            self.pop_control();
            parts += 1;
            index = next;
        }
        if parts == 0 {
            return 0;
        }
        let marker = store.arena.node_mut(self.head);
        (marker.next, marker.since) = (index, since);
        if index == NIL {
            self.tail = self.head;
        }
        self.len -= frames;
        store.frames -= u64::from(frames);
        self.set(IN_FLIGHT);
        frames as usize
    }

    /// Notes that the kernel took the batch in flight, `bytes` long.
    ///
    /// # Panics
    /// When none is in flight, or it cannot have been that long.
    pub fn sent(&mut self, store: &mut Store, key: u32, bytes: usize, limits: &OutboundLimits) {
        assert!(self.in_flight(), "nothing is in flight");
        let marker = self.unlink_after(&mut store.arena, NIL);
        store.arena.remove(marker);
        self.unset(IN_FLIGHT);
        let rest = u32::try_from(bytes).ok().and_then(|bytes| self.bytes.checked_sub(bytes));
        assert!(rest.is_some(), "{bytes} bytes sent of {}", self.bytes);
        self.set_bytes(store, rest.unwrap_or(0));
        store.bytes -= bytes as u64;
        self.settle(store, key, limits);
    }

    /// The losses per room since the last call, once the queue is relieved; nothing before.
    pub fn take_gaps(&mut self, store: &mut Store, key: u32) -> Gaps {
        if !self.has_gaps() || self.is_congested() {
            return Gaps::new();
        }
        self.unset(GAPS);
        store.take_gaps(key)
    }

    /// The change of congestion that the owner has not been told of yet, if there is one.
    pub fn poll_pressure(&mut self) -> Option<Pressure> {
        let congested = self.is_congested();
        if congested == self.has(REPORTED) {
            return None;
        }
        if congested {
            self.set(REPORTED);
            Some(Pressure::Congested)
        } else {
            self.unset(REPORTED);
            Some(Pressure::Relieved)
        }
    }

    /// Drops everything queued and every loss to be told of, so that a close frame can go out next.
    /// What is in flight stays, and so does a close frame in flight.
    pub fn discard(&mut self, store: &mut Store, key: u32) {
        let marker = self.marker();
        if self.has(CLOSING) && self.len > 0 {
            self.unset(CLOSING);
        }
        loop {
            if self.after(&store.arena, marker) == NIL {
                break;
            }
            let index = self.unlink_after(&mut store.arena, marker);
            let item = store.arena.remove(index);
            self.forget(store, item.as_ref());
            store.losses.note(item.as_ref(), How::Discarded);
        }
        self.unset(PING);
        self.pongs = 0;
        if self.bytes == 0 {
            self.unset(CONGESTED);
        }
        self.drop_side_entries(store, key);
    }

    /// Drops everything, in flight included: the connection is over.
    pub fn clear(&mut self, store: &mut Store, key: u32) {
        self.discard(store, key);
        if self.in_flight() {
            store.arena.remove(self.head);
            store.bytes -= u64::from(self.bytes);
        }
        store.resize(self.bytes, 0);
        *self = Self::default();
    }

    /// When the oldest frame was queued, in flight included.
    #[must_use]
    pub fn oldest(&self, store: &Store) -> Option<Tick> {
        // Ahead of the oldest data stands nothing but the batch in flight and control frames.
        let nodes = self.nodes(&store.arena).take(self.controls() + 2);
        nodes.map(|index| store.arena.node(index).since).min()
    }

    /// True when that publication is queued. Looks at the whole queue.
    #[must_use]
    pub fn holds(&self, store: &Store, trace: Trace) -> bool {
        let mut items =
            self.nodes(&store.arena).filter_map(|at| store.arena.node(at).item.as_ref());
        items.any(|item| item.trace().covers(item.frames(), trace))
    }

    /// What is queued, in its order.
    #[cfg(test)]
    pub(super) fn items<'a>(&self, store: &'a Store) -> impl Iterator<Item = &'a Shared> + use<'a> {
        self.nodes(&store.arena).filter_map(|index| store.arena.node(index).item.as_ref())
    }

    /// Bytes queued and in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Frames queued, in flight excluded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when nothing is queued; a batch may still be in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True from [`Self::take_batch`] to [`Self::sent`].
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.has(IN_FLIGHT)
    }

    /// True while publications meet their room's policy.
    #[must_use]
    pub fn is_over(&self, limits: &OutboundLimits) -> bool {
        limits.is_over(self.bytes, self.messages())
    }

    /// True from rising over the high water mark to falling to the low one.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.has(CONGESTED)
    }

    /// True while there are losses to be told of.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.has(GAPS)
    }

    /// True once a close frame was queued.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.has(CLOSING)
    }

    /// Verifies list, counts, flags and side tables against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self, store: &Store, key: u32) {
        let nodes: Vec<u32> = self.nodes(&store.arena).collect();
        assert_eq!(nodes.last().copied().unwrap_or(NIL), self.tail, "the tail is the last node");
        let queued = &nodes[usize::from(self.in_flight())..];
        let item = |index: &u32| store.arena.node(*index).item.as_ref();
        let frames: u32 = queued.iter().map(|i| item(i).map_or(0, Shared::frames)).sum();
        assert_eq!(frames, self.len, "queued frames");
        let bytes: usize = queued.iter().map(|i| item(i).map_or(0, Shared::size)).sum();
        assert!(queued.iter().all(|index| item(index).is_some()), "a queued node has an item");
        if self.in_flight() {
            assert!(item(&nodes[0]).is_none(), "what is in flight is in the batch");
            assert!(bytes < self.bytes(), "what is in flight is counted");
        } else {
            assert_eq!(bytes, self.bytes(), "queued bytes");
        }
        assert!(self.controls() <= self.len(), "a queued control frame is in the list");
        assert!(self.pongs <= MAX_PONGS, "the pongs that wait are few");
        assert!(!self.has(PING) || self.pongs_ahead <= self.pongs, "a ping has a place");
        let (indexed, gaps) = store.side_entries(key);
        assert_eq!(gaps, self.has_gaps(), "losses are flagged");
        assert_eq!(indexed.is_some(), self.has(INDEXED), "the index is flagged");
        let indexed = indexed.unwrap_or_default();
        assert!(indexed.iter().all(|node| queued.contains(node)), "what is indexed is queued");
    }
}

impl Outbound {
    /// Puts a pong in the place of the newest one.
    fn replace_pong(&mut self, store: &mut Store, item: Shared) {
        let is_last_a_ping = self.has(PING) && self.pongs_ahead == self.pongs;
        let behind = self.controls() - usize::from(is_last_a_ping);
        let index = self.nth(&store.arena, behind);
        self.exchange(store, None, index, item);
    }

    /// Puts `item` in the place of the one that `index` holds. The place keeps its age.
    pub(super) fn exchange(
        &mut self,
        store: &mut Store,
        payer: Option<u32>,
        index: u32,
        item: Shared,
    ) {
        // What stands in front of the new one would be ahead of what is queued behind its place.
        let item = item.behind(store.arena.node(index).item.as_ref());
        let size = item.size();
        item.charge(&store.gauge, || store.payers.account(payer?));
        let old = store.arena.node_mut(index).item.replace(item);
        store.losses.note(old.as_ref(), How::Replaced);
        let old = old.map_or(0, |old| old.size());
        let bytes = (self.bytes() - old).saturating_add(size);
        self.set_bytes(store, u32::try_from(bytes).unwrap_or(u32::MAX));
        store.bytes = store.bytes - old as u64 + size as u64;
    }

    pub(super) fn append(&mut self, store: &mut Store, key: u32, item: Shared, now: Tick) {
        let indexed = self.has(INDEXED).then(|| item.clone());
        let index = self.enter(store, Some(key), item, now);
        self.link_after(&mut store.arena, self.tail, index);
        if let Some(item) = indexed {
            self.note(store, key, &item, index);
        }
    }

    /// Makes a node for an item and counts it. `payer`: the connection whose tenant pays for it, if one does.
    fn enter(&mut self, store: &mut Store, payer: Option<u32>, item: Shared, now: Tick) -> u32 {
        let size = item.size();
        item.charge(&store.gauge, || store.payers.account(payer?));
        self.set_bytes(store, self.bytes + u32::try_from(size).unwrap_or(u32::MAX));
        self.len += item.frames();
        store.bytes += size as u64;
        store.frames += u64::from(item.frames());
        store.arena.insert(item, now)
    }

    /// Uncounts an item that will not be sent.
    pub(super) fn forget(&mut self, store: &mut Store, item: Option<&Shared>) {
        let size = item.map_or(0, Shared::size);
        self.set_bytes(store, self.bytes - u32::try_from(size).unwrap_or(u32::MAX));
        let frames = item.map_or(0, Shared::frames);
        self.len -= frames;
        store.bytes -= size as u64;
        store.frames -= u64::from(frames);
    }

    fn set_bytes(&mut self, store: &mut Store, bytes: u32) {
        store.resize(self.bytes, bytes);
        self.bytes = bytes;
    }

    fn drop_side_entries(&mut self, store: &mut Store, key: u32) {
        if self.has(INDEXED) {
            store.close_index(key);
        }
        if self.has(GAPS) {
            store.take_gaps(key);
        }
        self.unset(INDEXED | GAPS);
    }

    /// Brings congestion up to date after bytes or frames have come or gone.
    fn settle(&mut self, store: &mut Store, key: u32, limits: &OutboundLimits) {
        if limits.is_over(self.bytes, self.messages()) {
            self.set(CONGESTED);
        } else if limits.is_calm(self.bytes, self.messages()) {
            self.unset(CONGESTED);
            if self.has(INDEXED) {
                store.close_index(key);
                self.unset(INDEXED);
            }
        }
    }

    /// The item's size, if the queue's bytes can still be counted with it.
    fn size_if_countable(&self, item: &Shared) -> Option<u32> {
        let size = u32::try_from(item.size()).ok()?;
        self.bytes.checked_add(size).map(|_| size)
    }

    /// The node that stands for the batch in flight.
    fn marker(&self) -> u32 {
        if self.in_flight() { self.head } else { NIL }
    }

    /// The node behind which data starts.
    pub(super) fn last_control(&self, arena: &Arena) -> u32 {
        self.nth(arena, self.controls())
    }

    /// The queued node with that number, counted from 1.
    fn nth(&self, arena: &Arena, number: usize) -> u32 {
        (0..number).fold(self.marker(), |prev, _| self.after(arena, prev))
    }

    /// What the limit on messages is held against: pings and pongs pass it, and use none of it up.
    pub(super) fn messages(&self) -> u32 {
        self.len - u32::from(self.has(PING)) - u32::from(self.pongs)
    }

    /// Queued pings and pongs.
    fn controls(&self) -> usize {
        usize::from(self.has(PING)) + usize::from(self.pongs)
    }

    /// Notes that the first queued frame has left; it was a control frame if any is queued.
    fn pop_control(&mut self) {
        if self.has(PING) && self.pongs_ahead == 0 {
            self.unset(PING);
        } else if self.pongs > 0 {
            self.pongs -= 1;
            self.pongs_ahead = self.pongs_ahead.saturating_sub(1);
        }
    }

    fn nodes<'a>(&self, arena: &'a Arena) -> impl Iterator<Item = u32> + use<'a> {
        let some = |index: u32| (index != NIL).then_some(index);
        std::iter::successors(some(self.head), move |index| some(arena.node(*index).next))
    }

    /// The node behind `prev`; the first one behind [`NIL`].
    pub(super) fn after(&self, arena: &Arena, prev: u32) -> u32 {
        if prev == NIL { self.head } else { arena.node(prev).next }
    }

    fn link_after(&mut self, arena: &mut Arena, prev: u32, index: u32) {
        let next = self.after(arena, prev);
        arena.node_mut(index).next = next;
        if prev == NIL {
            self.head = index;
        } else {
            arena.node_mut(prev).next = index;
        }
        if next == NIL {
            self.tail = index;
        }
    }

    pub(super) fn unlink_after(&mut self, arena: &mut Arena, prev: u32) -> u32 {
        let index = self.after(arena, prev);
        let next = arena.node(index).next;
        if prev == NIL {
            self.head = next;
        } else {
            arena.node_mut(prev).next = next;
        }
        if next == NIL {
            self.tail = prev;
        }
        index
    }

    pub(super) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn set(&mut self, flags: u16) {
        self.flags |= flags;
    }

    fn unset(&mut self, flags: u16) {
        self.flags &= !flags;
    }
}

/// A batch is in flight; the head stands for it.
const IN_FLIGHT: u16 = 1;
/// A ping is queued.
const PING: u16 = 2;
/// A close frame was queued; nothing may follow it.
const CLOSING: u16 = 4;
/// Over the high water mark, and not yet back at the low one.
const CONGESTED: u16 = 8;
/// The owner was told of congestion.
const REPORTED: u16 = 16;
/// The store holds losses to be told of.
pub(super) const GAPS: u16 = 32;
/// The store holds a conflation index.
pub(super) const INDEXED: u16 = 64;

/// Pongs that may wait: more than any client sends pings at once that waits for answers.
pub(super) const MAX_PONGS: u8 = 16;

const _: () = assert!(size_of::<Outbound>() <= 20);
