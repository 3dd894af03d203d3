//! One deadline per connection, for a million connections.
//!
//! A hashed wheel of 1,024 slots of one [`Tick`] (69 seconds in all). A key is a slab index, its node
//! lies at that index in one dense array (12 bytes each), and each slot is the head of a list through
//! those nodes, so setting, moving and cancelling touch three nodes and allocate nothing. A bitmap of
//! slots in use finds the next one without walking the others.
//!
//! A deadline beyond the horizon waits in the farthest slot and moves on when that slot comes round.
//! An entry is never put into the slot that is being emptied, so emptying ends, and it can stop at any
//! entry when the budget is spent and go on there next time. After a stall of any length each slot is
//! emptied once.
//!
//! The wheel does not know what a deadline is for; the owner of the key decides when it fires.

use crate::base::spare::{Release, cut};
use crate::base::time::Tick;

/// Deadlines by key.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    /// The first key of each slot's list.
    heads: Box<[u32; SLOTS]>,
    /// Bit set exactly for slots whose list is not empty.
    used: [u64; WORDS],
    /// The tick that the round of slots starts at; every slot stands for one tick from here on.
    from: Tick,
    /// The latest tick that was expired, perhaps not to its end. Each entry is in the slot of a tick
    /// no later than its deadline, or than this one if that is past.
    now: Tick,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    /// The previous key; [`HEAD`] plus the slot for the first of a list; [`NONE`] without a deadline.
    prev: u32,
    at: Tick,
}

impl Wheel {
    /// An empty wheel with memory for keys below `capacity_keys`; it grows when larger ones come.
    #[must_use]
    pub fn new(capacity_keys: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity_keys),
            heads: Box::new([NONE; SLOTS]),
            used: [0; WORDS],
            from: Tick(0),
            now: Tick(0),
            len: 0,
        }
    }

    /// Sets or moves the deadline of `key`. One in the past fires at the next [`Self::expire`].
    ///
    /// # Panics
    /// When the key is 2^31 or more.
    pub fn set(&mut self, key: u32, at: Tick) {
        assert!(key < HEAD, "a key is a slab index");
        if key as usize >= self.nodes.len() {
            self.nodes.resize(key as usize + 1, Node { next: NONE, prev: NONE, at: Tick(0) });
        }
        self.cancel(key);
        self.link(key, at, self.from);
        self.len += 1;
    }

    /// Removes the deadline of `key`; returns whether there was one.
    pub fn cancel(&mut self, key: u32) -> bool {
        let was_set = self.node(key).is_some();
        if was_set {
            self.unlink(key);
            self.len -= 1;
        }
        was_set
    }

    /// Gives back what keys from `from` on cost; none of them has a deadline.
    ///
    /// # Panics
    /// When one has.
    pub fn trim(&mut self, from: u32, to: &mut impl Release) {
        if let Some(rest) = self.nodes.get(from as usize..) {
            assert!(
                rest.iter().all(|node| node.prev == NONE),
                "a key from {from} on has a deadline"
            );
            cut(&mut self.nodes, from as usize, to);
        }
    }

    /// Removes the keys whose deadline is `now` or earlier and appends them to `out`, visiting at
    /// most `budget` entries. Returns true when the budget ended before the work; what is left comes
    /// first next time.
    pub fn expire(&mut self, now: Tick, budget: usize, out: &mut Vec<u32>) -> bool {
        self.now = self.now.max(now);
        if now.0.saturating_sub(self.from.0) >= SLOTS32 {
            // Longer than a round: one round ending now meets every entry.
            self.from = Tick(now.0 - (SLOTS32 - 1));
        }
        let mut visits = 0;
        while let Some(tick) = self.next().filter(|tick| *tick <= now) {
            self.from = tick;
            let key = self.heads[slot(tick)];
            if visits == budget {
                return true;
            }
            visits += 1;
            let at = self.nodes[key as usize].at;
            self.unlink(key);
            if at <= now {
                self.len -= 1;
                out.push(key);
            } else {
                self.link(key, at, tick);
            }
        }
        self.from = self.from.max(now);
        false
    }

    /// The earliest tick at which something may fire: never later than the earliest deadline, earlier
    /// when that is beyond the horizon; deadlines in the past count as the last expired tick.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        let start = slot(self.from);
        let (word, bit) = (start / 64, start % 64);
        let late = self.used[word] >> bit << bit;
        let early = self.used[word] ^ late;
        let round = (1..WORDS).map(|ahead| (word + ahead) % WORDS).map(|at| (at, self.used[at]));
        let mut words = std::iter::once((word, late)).chain(round).chain([(word, early)]);
        let (word, bits) = words.find(|(_, bits)| *bits != 0)?;
        let found = word * 64 + bits.trailing_zeros() as usize;
        let distance = (found + SLOTS - start) % SLOTS;
        Some(Tick(self.from.0.saturating_add(u32::try_from(distance).unwrap_or(u32::MAX))))
    }

    /// The deadline of `key`.
    #[must_use]
    pub fn deadline(&self, key: u32) -> Option<Tick> {
        self.node(key).map(|node| node.at)
    }

    /// Number of deadlines set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no deadline is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Verifies lists, bitmap and count against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let mut linked = 0;
        for (at, head) in self.heads.iter().enumerate() {
            assert_eq!(
                self.used[at / 64] >> (at % 64) & 1 == 1,
                *head != NONE,
                "slot {at} in the map"
            );
            let (mut key, mut prev) = (*head, HEAD + u32::try_from(at).unwrap_or(NONE));
            while key != NONE {
                let node = &self.nodes[key as usize];
                assert_eq!(node.prev, prev, "key {key} is linked both ways");
                let latest = node.at.max(self.now);
                assert!(self.stands_for(at) <= latest, "key {key} fires too late");
                (prev, key) = (key, node.next);
                linked += 1;
            }
        }
        assert_eq!(linked, self.len, "deadlines set");
        let set = self.nodes.iter().filter(|node| node.prev != NONE).count();
        assert_eq!(set, self.len, "keys with a deadline");
    }

    /// The tick that a slot stands for.
    fn stands_for(&self, at: usize) -> Tick {
        let distance = (at + SLOTS - slot(self.from)) % SLOTS;
        Tick(self.from.0.saturating_add(u32::try_from(distance).unwrap_or(u32::MAX)))
    }

    fn node(&self, key: u32) -> Option<&Node> {
        self.nodes.get(key as usize).filter(|node| node.prev != NONE)
    }

    /// Links a key into the slot of its deadline, as far as the round that starts at `from` reaches.
    fn link(&mut self, key: u32, at: Tick, from: Tick) {
        let farthest = Tick(from.0.saturating_add(SLOTS32 - 1));
        let slot = slot(at.clamp(from, farthest));
        let next = self.heads[slot];
        if next != NONE {
            self.nodes[next as usize].prev = key;
        }
        self.heads[slot] = key;
        self.used[slot / 64] |= 1 << (slot % 64);
        let prev = HEAD + u32::try_from(slot).unwrap_or(0);
        self.nodes[key as usize] = Node { next, prev, at };
    }

    fn unlink(&mut self, key: u32) {
        let Node { next, prev, .. } = self.nodes[key as usize];
        self.nodes[key as usize].prev = NONE;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev < HEAD {
            self.nodes[prev as usize].next = next;
            return;
        }
        let slot = (prev - HEAD) as usize;
        self.heads[slot] = next;
        if next == NONE {
            self.used[slot / 64] &= !(1 << (slot % 64));
        }
    }
}

fn slot(tick: Tick) -> usize {
    tick.0 as usize % SLOTS
}

const SLOTS: usize = 1024;
const SLOTS32: u32 = 1024;
const WORDS: usize = SLOTS / 64;
/// No key, no deadline.
const NONE: u32 = u32::MAX;
/// In `prev`: the first of a list, plus the slot's number.
const HEAD: u32 = 1 << 31;

const _: () = assert!(size_of::<Node>() == 12);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, i64),
        Cancel(u32),
        /// Time passes, and everything due is taken.
        Expire(u32),
        /// Time passes, and one slice is taken.
        Slice(u32, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let wait = || prop_oneof![6 => 0..3u32, 2 => 0..1200u32, 1 => 900..100_000u32];
        let ahead = prop_oneof![5 => -3..40i64, 2 => 0..5000i64, 1 => 1000..1050i64];
        let step = prop_oneof![
            6 => (0..60u32, ahead).prop_map(|(key, ahead)| Step::Set(key, ahead)),
            1 => (0..60u32).prop_map(Step::Cancel),
            2 => wait().prop_map(Step::Expire),
            2 => (wait(), 0..9usize).prop_map(|(wait, budget)| Step::Slice(wait, budget)),
        ];
        prop::collection::vec(step, 1..300)
    }

    fn take(twin: &mut BTreeMap<u32, Tick>, out: &[u32], now: Tick) {
        for key in out {
            let at = twin.remove(key).expect("only what was set fires");
            assert!(at <= now, "nothing fires early");
        }
    }

    proptest! {
        #[test]
        fn the_wheel_equals_a_map_of_deadlines(steps in steps(), start in 0..10_000u32) {
            let (mut wheel, mut twin) = (Wheel::new(0), BTreeMap::new());
            let (mut now, mut out) = (Tick(start), Vec::new());
            for step in steps {
                out.clear();
                match step {
                    Step::Set(key, ahead) => {
                        let at = i64::from(now.0) + ahead;
                        let at = Tick(u32::try_from(at.max(0)).expect("in range"));
                        wheel.set(key, at);
                        twin.insert(key, at);
                    }
                    Step::Cancel(key) => {
                        prop_assert_eq!(wheel.cancel(key), twin.remove(&key).is_some());
                    }
                    Step::Expire(wait) => {
                        now = Tick(now.0 + wait);
                        prop_assert!(!wheel.expire(now, usize::MAX, &mut out));
                        take(&mut twin, &out, now);
                        prop_assert!(twin.values().all(|at| *at > now), "everything due fires");
                    }
                    Step::Slice(wait, budget) => {
                        now = Tick(now.0 + wait);
                        let more = wheel.expire(now, budget, &mut out);
                        take(&mut twin, &out, now);
                        prop_assert!(out.len() <= budget);
                        prop_assert!(more || twin.values().all(|at| *at > now));
                    }
                }
                wheel.check();
                prop_assert_eq!(wheel.len(), twin.len());
                prop_assert!((0..60).all(|key| wheel.deadline(key) == twin.get(&key).copied()));
                let earliest = twin.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                if let (Some(next), Some(earliest)) = (wheel.next(), earliest) {
                    prop_assert!(next <= earliest.max(now), "a wait until `next` misses nothing");
                }
            }
        }
    }

    #[test]
    fn slices_of_a_budget_find_everything_after_a_stall_of_hours() {
        let mut wheel = Wheel::new(5000);
        for key in 0..5000 {
            wheel.set(key, Tick(key));
        }
        let (mut out, mut slices) = (Vec::new(), 1);
        while wheel.expire(Tick(1_000_000), 256, &mut out) {
            slices += 1;
            assert!(slices < 100, "each entry is visited at most twice");
        }
        out.sort_unstable();
        assert_eq!(out, (0..5000).collect::<Vec<_>>());
    }

    #[test]
    fn a_deadline_of_this_very_tick_fires_in_it() {
        let (mut wheel, mut out) = (Wheel::new(1), Vec::new());
        wheel.expire(Tick(10), 9, &mut out);
        wheel.set(0, Tick(10));
        wheel.set(1, Tick(3));
        assert_eq!(wheel.next(), Some(Tick(10)));
        wheel.expire(Tick(10), 9, &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_deadline_far_beyond_the_horizon_fires_once_at_its_tick() {
        let (mut wheel, mut out) = (Wheel::new(1), Vec::new());
        wheel.set(0, Tick(5000));
        for tick in 0..5000 {
            wheel.expire(Tick(tick), 256, &mut out);
            assert!(out.is_empty(), "early at {tick}");
        }
        wheel.expire(Tick(5000), 256, &mut out);
        assert_eq!(out, [0]);
    }
}
