//! One deadline per connection, for a million connections.
//!
//! A hashed wheel of 1,024 slots of one [`Tick`] (69 seconds in all). A key is a slab index, and what is
//! known about it lies at that index in one dense array (8 bytes each). Each slot is a list of chunks of 14
//! keys, a cache line each; only the first chunk of a slot may have places left, and whoever leaves
//! another gives its place to the last of that one. So setting, moving and cancelling touch two chunks and
//! allocate nothing once the wheel has its size. A bitmap of slots in use finds the next one without walking the others.
//!
//! Emptying a slot reads its keys one behind the other and asks of each only what stands at its index, which
//! no earlier key has to name: the processor fetches several at a time. As a list from key to key, which
//! this was before, every one of them waited for the memory of the one before.
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
    chunks: Vec<Chunk>,
    /// The first chunk of each slot.
    heads: Box<[u32; SLOTS]>,
    /// The first of the chunks without keys, which are a list as well.
    free: u32,
    /// Chunks with keys.
    taken: usize,
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
    at: Tick,
    /// The chunk's number and the place in it; [`NONE`] without a deadline.
    place: u32,
}

/// Some keys of one slot.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// The next chunk of the slot, or of those without keys.
    next: u32,
    slot: u16,
    len: u16,
    keys: [u32; KEYS],
}

impl Wheel {
    /// An empty wheel with memory for keys below `capacity_keys`; it grows when larger ones come.
    #[must_use]
    pub fn new(capacity_keys: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity_keys),
            // Every slot may have one that is not full.
            chunks: Vec::with_capacity(capacity_keys / KEYS + SLOTS.min(capacity_keys)),
            free: NONE,
            taken: 0,
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
        assert!(key < MOST_KEYS, "a key is a slab index");
        if key as usize >= self.nodes.len() {
            self.nodes.resize(key as usize + 1, Node { at: Tick(0), place: NONE });
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
                rest.iter().all(|node| node.place == NONE),
                "a key from {from} on has a deadline"
            );
            let least = self.chunks.len().saturating_sub(rest.len());
            cut(&mut self.nodes, from as usize, to);
            // No more of them than of the keys, so that what a slice of keys gives back is bounded as it is.
            self.gather(least.max(self.taken));
            cut(&mut self.chunks, least.max(self.taken), to);
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
            while let Some(key) = self.last(slot(tick)) {
                if visits == budget {
                    return true;
                }
                visits += 1;
                self.pop(slot(tick));
                let node = &mut self.nodes[key as usize];
                node.place = NONE;
                let at = node.at;
                if at <= now {
                    self.len -= 1;
                    out.push(key);
                } else {
                    self.link(key, at, tick);
                }
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

    /// Verifies lists, bitmap and counts against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let (mut linked, mut taken) = (0, 0);
        for (used, (word, heads)) in self.used.iter().zip(self.heads.chunks(64).enumerate()) {
            // Most are empty, and simulations check after every step.
            if *used == 0 {
                assert!(heads == [NONE; 64], "a slot of {word} is not in the map");
                continue;
            }
            for (bit, head) in heads.iter().enumerate() {
                let at = word * 64 + bit;
                assert_eq!(used >> bit & 1 == 1, *head != NONE, "slot {at} in the map");
                let (keys, chunks) = self.check_slot(at, *head);
                (linked, taken) = (linked + keys, taken + chunks);
            }
        }
        assert_eq!((linked, taken), (self.len, self.taken), "deadlines set, and their chunks");
        let set = self.nodes.iter().filter(|node| node.place != NONE).count();
        assert_eq!(set, self.len, "keys with a deadline");
        let mut free = self.free;
        while let Some(chunk) = self.chunks.get(free as usize) {
            assert_eq!(chunk.len, 0, "chunk {free} is free");
            (free, taken) = (chunk.next, taken + 1);
        }
        assert_eq!(taken, self.chunks.len(), "chunks");
    }

    /// The keys and the chunks of a slot.
    fn check_slot(&self, at: usize, head: u32) -> (usize, usize) {
        let (mut linked, mut taken) = (0, 0);
        let mut number = head;
        while number != NONE {
            let chunk = &self.chunks[number as usize];
            let len = usize::from(chunk.len);
            assert_eq!(usize::from(chunk.slot), at, "chunk {number} is of its slot");
            assert!(len > 0, "chunk {number} has a key");
            assert!(number == head || len == KEYS, "only the first chunk has places left");
            for (place, key) in (0..).zip(&chunk.keys[..len]) {
                let node = &self.nodes[*key as usize];
                assert_eq!(node.place, number * PLACES + place, "key {key} is where it stands");
                assert!(self.stands_for(at) <= node.at.max(self.now), "key {key} fires too late");
            }
            (number, linked, taken) = (chunk.next, linked + len, taken + 1);
        }
        (linked, taken)
    }

    /// The tick that a slot stands for.
    fn stands_for(&self, at: usize) -> Tick {
        let distance = (at + SLOTS - slot(self.from)) % SLOTS;
        Tick(self.from.0.saturating_add(u32::try_from(distance).unwrap_or(u32::MAX)))
    }

    fn node(&self, key: u32) -> Option<&Node> {
        self.nodes.get(key as usize).filter(|node| node.place != NONE)
    }

    /// Links a key into the slot of its deadline, as far as the round that starts at `from` reaches.
    fn link(&mut self, key: u32, at: Tick, from: Tick) {
        let farthest = Tick(from.0.saturating_add(SLOTS32 - 1));
        let slot = slot(at.clamp(from, farthest));
        let mut number = self.heads[slot];
        if number == NONE || usize::from(self.chunks[number as usize].len) == KEYS {
            number = self.take(number, slot);
            self.heads[slot] = number;
            self.used[slot / 64] |= 1 << (slot % 64);
        }
        let chunk = &mut self.chunks[number as usize];
        let place = number * PLACES + u32::from(chunk.len);
        chunk.keys[usize::from(chunk.len)] = key;
        chunk.len += 1;
        self.nodes[key as usize] = Node { at, place };
    }

    fn unlink(&mut self, key: u32) {
        let place = std::mem::replace(&mut self.nodes[key as usize].place, NONE);
        let (number, at) = ((place / PLACES) as usize, (place % PLACES) as usize);
        let slot = usize::from(self.chunks[number].slot);
        // The last of the slot takes the place that is left; it may be this very key.
        let Some(last) = self.last(slot) else { return };
        if last != key {
            self.chunks[number].keys[at] = last;
            self.nodes[last as usize].place = place;
        }
        self.pop(slot);
    }

    /// The key of a slot that is taken out first.
    fn last(&self, slot: usize) -> Option<u32> {
        let chunk = self.chunks.get(self.heads[slot] as usize)?;
        Some(chunk.keys[usize::from(chunk.len) - 1])
    }

    /// Takes the last key out of a slot that has one.
    fn pop(&mut self, slot: usize) {
        let number = self.heads[slot];
        let chunk = &mut self.chunks[number as usize];
        chunk.len -= 1;
        if chunk.len > 0 {
            return;
        }
        self.heads[slot] = std::mem::replace(&mut chunk.next, self.free);
        self.free = number;
        self.taken -= 1;
        if self.heads[slot] == NONE {
            self.used[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// A chunk without keys for a slot, ahead of its others.
    fn take(&mut self, next: u32, slot: usize) -> u32 {
        let chunk =
            Chunk { next, slot: u16::try_from(slot).unwrap_or(0), len: 0, keys: [NONE; KEYS] };
        self.taken += 1;
        if let Some(free) = self.chunks.get_mut(self.free as usize) {
            let number = self.free;
            self.free = free.next;
            *free = chunk;
            return number;
        }
        self.chunks.push(chunk);
        u32::try_from(self.chunks.len() - 1).unwrap_or(NONE)
    }

    /// Moves the chunks with keys to the beginning; whoever calls this cuts off all from `keep` on.
    fn gather(&mut self, keep: usize) {
        let bound = u32::try_from(self.taken).unwrap_or(NONE);
        let places: Vec<u32> = (0..bound).filter(|at| self.chunks[*at as usize].len == 0).collect();
        let mut places = places.into_iter();
        for slot in 0..SLOTS {
            let mut before = NONE;
            let mut number = self.heads[slot];
            while number != NONE {
                let chunk = self.chunks[number as usize];
                if number >= bound
                    && let Some(to) = places.next()
                {
                    self.chunks[to as usize] = chunk;
                    for (place, key) in (0..).zip(&chunk.keys[..usize::from(chunk.len)]) {
                        self.nodes[*key as usize].place = to * PLACES + place;
                    }
                    match self.chunks.get_mut(before as usize) {
                        Some(before) => before.next = to,
                        None => self.heads[slot] = to,
                    }
                    number = to;
                }
                (before, number) = (number, chunk.next);
            }
        }
        self.free = NONE;
        for number in (bound..).take(keep - self.taken) {
            let chunk = &mut self.chunks[number as usize];
            (chunk.next, chunk.len) = (self.free, 0);
            self.free = number;
        }
    }
}

fn slot(tick: Tick) -> usize {
    tick.0 as usize % SLOTS
}

const SLOTS: usize = 1024;
const SLOTS32: u32 = 1024;
const WORDS: usize = SLOTS / 64;
/// No key, no chunk, no deadline.
const NONE: u32 = u32::MAX;
const MOST_KEYS: u32 = 1 << 31;
/// Keys of a chunk.
const KEYS: usize = 14;
/// Places are counted as if a chunk had so many.
const PLACES: u32 = 16;

const _: () = assert!(size_of::<Node>() == 8 && size_of::<Chunk>() == 64);

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
        /// What lies behind the last deadline is given back.
        Trim,
    }

    struct Nothing;

    impl Release for Nothing {
        fn release<T>(&mut self, _: &mut [std::mem::MaybeUninit<T>]) {}
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let wait = || prop_oneof![6 => 0..3u32, 2 => 0..1200u32, 1 => 900..100_000u32];
        // Many on few ticks, so that lists are longer than a chunk.
        let ahead = prop_oneof![3 => -3..40i64, 4 => 0..3i64, 2 => 0..5000i64, 1 => 1000..1050i64];
        let step = prop_oneof![
            6 => (0..60u32, ahead).prop_map(|(key, ahead)| Step::Set(key, ahead)),
            1 => (0..60u32).prop_map(Step::Cancel),
            2 => wait().prop_map(Step::Expire),
            2 => (wait(), 0..9usize).prop_map(|(wait, budget)| Step::Slice(wait, budget)),
            1 => Just(Step::Trim),
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
                    Step::Trim => {
                        let bound = twin.keys().next_back().map_or(0, |key| key + 1);
                        wheel.trim(bound, &mut Nothing);
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
    fn what_a_crowd_leaves_is_gathered_and_the_rest_given_back() {
        struct Counted(usize);
        impl Release for Counted {
            fn release<T>(&mut self, spare: &mut [std::mem::MaybeUninit<T>]) {
                self.0 += size_of_val(spare);
            }
        }
        let mut wheel = Wheel::new(20_000);
        for key in 0..20_000 {
            wheel.set(key, Tick(key * 7 % 900));
        }
        (100..20_000).for_each(|key| assert!(wheel.cancel(key)));
        let mut given = Counted(0);
        wheel.trim(100, &mut given);
        wheel.check();
        assert!(wheel.chunks.len() <= 100, "no chunk is kept without a key");
        assert!(given.0 > 19_900 * size_of::<Node>() + 1_300 * size_of::<Chunk>());
        wheel.set(100, Tick(5));
        let mut out = Vec::new();
        wheel.expire(Tick(900), usize::MAX, &mut out);
        wheel.check();
        out.sort_unstable();
        assert_eq!(out, (0..=100).collect::<Vec<_>>());
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
