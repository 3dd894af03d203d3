//! A number that several shards have in common.
//!
//! Each shard counts its own part of it, tells the key's home how much that is, and hears how much all others have
//! together. So it is decided at once, by what is known, and nobody waits for mail. A shard tells when its part
//! differs from what it told last by more than a *grain*, which the caller names, and when nothing is left of it; it
//! does so when it is asked, which is once a turn. Whoever has told nothing is told nothing.
//!
//! Two shards that count at the same moment do not know of each other yet, and one that has none of a key does not
//! know what the others have before its first was told. So a limit on the sum may be passed by what is let through
//! in between, and by a grain for each shard; it does not stay passed, as nothing is let through until the sum is
//! below it again.
//!
//! What one shard tells a home has to arrive there in order, and so has what the home tells it. Nothing else is
//! asked of the mail.

use std::hash::Hash;

use smallvec::SmallVec;

use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};

/// Numbers that shards have in common, from both sides.
#[derive(Debug)]
pub struct Sums<K> {
    /// Keys of which this shard has a part, or has had one in this turn.
    views: Map<K, View>,
    /// Keys whose part has changed since they were asked for last; each once.
    changed: Vec<K>,
    /// The parts as they were told, of keys whose home this shard is; never zero, and no list is empty.
    homes: Map<K, Parts>,
    /// The sum of `others` over all views.
    elsewhere: u64,
}

#[derive(Debug, Default)]
struct View {
    own: u32,
    /// What the home was told last.
    told: u32,
    /// What others have, as the home has said; zero unless something was told.
    others: u32,
    /// True while it stands in `changed`.
    is_listed: bool,
}

/// A part for each shard that has one.
type Parts = SmallVec<[(ShardId, u32); 2]>;

impl<K: Copy + Eq + Hash> Sums<K> {
    /// No numbers yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { views: seed.map(), changed: Vec::new(), homes: seed.map(), elsewhere: 0 }
    }

    /// This shard has so many more.
    pub fn add(&mut self, key: K, count: u32) {
        let view = self.views.entry(key).or_default();
        view.own = view.own.saturating_add(count);
        if !std::mem::replace(&mut view.is_listed, true) {
            self.changed.push(key);
        }
    }

    /// This shard has so many less.
    pub fn take(&mut self, key: K, count: u32) {
        let Some(view) = self.views.get_mut(&key) else { return };
        view.own = view.own.saturating_sub(count);
        if !std::mem::replace(&mut view.is_listed, true) {
            self.changed.push(key);
        }
    }

    /// The sum over all shards, as far as it is known here.
    #[must_use]
    pub fn of(&self, key: K) -> u32 {
        self.views.get(&key).map_or(0, |view| view.own.saturating_add(view.others))
    }

    /// What others have of all keys that this shard has a part of, as far as it is known here.
    #[must_use]
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere
    }

    /// Keys of which something is kept, on either side.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.views.len() + self.homes.len()
    }

    /// The next key whose home is to be told of the part that this shard has, and that part. To be called until there
    /// is none, once a turn.
    pub fn poll_told(&mut self, grain: impl Fn(K) -> u32) -> Option<(K, u32)> {
        while let Some(key) = self.changed.pop() {
            let Some(view) = self.views.get_mut(&key) else { continue };
            view.is_listed = false;
            let (own, told) = (view.own, view.told);
            let is_news = own.abs_diff(told) > grain(key) || own == 0 && told > 0;
            if own == 0 {
                self.elsewhere -= u64::from(view.others);
                self.views.remove(&key);
                relax(&mut self.views);
            } else if is_news {
                view.told = own;
            }
            if is_news {
                return Some((key, own));
            }
        }
        if self.changed.capacity() > KEPT {
            self.changed = Vec::new();
        }
        None
    }

    /// As the home: that shard has so many now. Whom to tell how many others have.
    pub fn note(&mut self, key: K, from: ShardId, count: u32) -> Parts {
        let parts = self.homes.entry(key).or_default();
        let at = parts.iter().position(|(shard, _)| *shard == from);
        match at {
            Some(at) if count == 0 => _ = parts.swap_remove(at),
            Some(at) => parts[at].1 = count,
            None if count > 0 => parts.push((from, count)),
            None => {}
        }
        let all = parts.iter().fold(0_u32, |sum, (_, part)| sum.saturating_add(*part));
        // Whoever has told before has heard of every change since.
        let told = parts.iter().filter(|(shard, _)| *shard != from || at.is_none());
        let words = told.map(|(shard, part)| (*shard, all - part)).collect();
        if parts.is_empty() {
            self.homes.remove(&key);
            relax(&mut self.homes);
        }
        words
    }

    /// The home has said how many others have. What it said before this shard's part had ended is of no meaning.
    pub fn hear(&mut self, key: K, others: u32) {
        let Some(view) = self.views.get_mut(&key).filter(|view| view.told > 0) else { return };
        self.elsewhere = self.elsewhere - u64::from(view.others) + u64::from(others);
        view.others = others;
    }

    /// Verifies that everything is listed that has to be, and the sums.
    ///
    /// # Panics
    /// When it is not so.
    pub fn check(&self) {
        let kept = |view: &View| view.own > 0 || view.is_listed;
        assert!(self.views.values().all(kept), "a part of nothing is kept");
        let listed = self.views.values().filter(|view| view.is_listed).count();
        assert_eq!(listed, self.changed.len(), "parts that have changed");
        let unheard = |view: &View| view.told > 0 || view.others == 0;
        assert!(self.views.values().all(unheard), "who has told nothing is told nothing");
        let elsewhere: u64 = self.views.values().map(|view| u64::from(view.others)).sum();
        assert_eq!(elsewhere, self.elsewhere, "what others have");
        let parts = self.homes.values();
        let is_sound = |parts: &Parts| !parts.is_empty() && parts.iter().all(|(_, part)| *part > 0);
        assert!(parts.into_iter().all(is_sound), "a home of nothing");
    }
}

/// Changed keys for which space stays.
const KEPT: usize = 1024;

/// Gives memory back once most entries have gone.
fn relax<K: Eq + Hash, V>(map: &mut Map<K, V>) {
    if map.capacity() > 64 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const HOME: usize = 0;
    const SHARDS: usize = 3;

    /// Three shards, the first of which is the home of all keys, and the mail between them.
    struct World {
        shards: [Sums<u8>; SHARDS],
        /// What each has in truth.
        own: [[u32; 2]; SHARDS],
        to_home: [VecDeque<(u8, u32)>; SHARDS],
        from_home: [VecDeque<(u8, u32)>; SHARDS],
        grain: u32,
    }

    impl World {
        fn new(grain: u32) -> Self {
            let shards = [(); SHARDS].map(|()| Sums::new(&Seed::new(1)));
            let lanes = || [(); SHARDS].map(|()| VecDeque::new());
            let (to_home, from_home) = (lanes(), lanes());
            Self { shards, own: [[0; 2]; SHARDS], to_home, from_home, grain }
        }

        fn set(&mut self, at: usize, key: u8, count: u32) {
            let own = &mut self.own[at][usize::from(key)];
            if count > *own {
                self.shards[at].add(key, count - *own);
            } else {
                self.shards[at].take(key, *own - count);
            }
            *own = count;
        }

        fn tell(&mut self, at: usize) {
            while let Some(told) = self.shards[at].poll_told(|_| self.grain) {
                self.to_home[at].push_back(told);
            }
        }

        /// A piece of mail arrives; false when there is none in that lane.
        fn deliver(&mut self, at: usize, to_home: bool) -> bool {
            if !to_home {
                let word = self.from_home[at].pop_front();
                return word.map(|(key, others)| self.shards[at].hear(key, others)).is_some();
            }
            let Some((key, count)) = self.to_home[at].pop_front() else { return false };
            let from = ShardId(u16::try_from(at).expect("few"));
            for (shard, others) in self.shards[HOME].note(key, from, count) {
                self.from_home[usize::from(shard.0)].push_back((key, others));
            }
            true
        }

        fn deliver_all(&mut self) {
            (0..SHARDS).for_each(|at| self.tell(at));
            for to_home in [true, false] {
                for at in 0..SHARDS {
                    while self.deliver(at, to_home) {}
                }
            }
            self.shards.iter().for_each(Sums::check);
        }
    }

    proptest! {
        #[test]
        fn every_shard_that_has_a_part_knows_the_sum_when_all_mail_has_arrived(
            grain in 0..3u32,
            deeds in prop::collection::vec((0..4u8, 0..SHARDS, 0..2u8, 0..9u32), 0..200),
        ) {
            let mut world = World::new(grain);
            for (deed, at, key, count) in deeds {
                match deed {
                    0 => world.set(at, key, count),
                    1 => world.tell(at),
                    deed => _ = world.deliver(at, deed == 2),
                }
                world.shards[at].check();
            }
            world.deliver_all();
            for key in 0..2u8 {
                let own = world.own.map(|own| own[usize::from(key)]);
                let sum: u32 = own.iter().sum();
                for (at, own) in own.into_iter().enumerate() {
                    let known = world.shards[at].of(key);
                    // Whoever has no more than a grain may have told nothing.
                    prop_assert!(known >= own, "{known} of {own}");
                    if own > grain {
                        prop_assert!(known.abs_diff(sum) <= 2 * grain, "{known} of {sum}");
                    }
                }
            }
            for at in 0..SHARDS {
                world.set(at, 0, 0);
                world.set(at, 1, 0);
            }
            world.deliver_all();
            prop_assert!(world.shards.iter().all(|sums| sums.kept() == 0 && sums.elsewhere() == 0));
        }
    }

    #[test]
    fn who_is_alone_is_answered_once_and_a_grain_is_told_to_nobody() {
        let mut world = World::new(2);
        world.set(1, 0, 2);
        world.tell(1);
        assert!(world.to_home[1].is_empty());
        for count in [3, 7, 5, 4, 0] {
            world.set(1, 0, count);
            world.tell(1);
        }
        assert_eq!(world.to_home[1], [(0, 3), (0, 7), (0, 4), (0, 0)]);
        world.deliver_all();
        assert_eq!(world.shards[HOME].kept(), 0);
        // What was said while it had a part finds nothing of it any more.
        world.set(1, 0, 5);
        world.set(2, 0, 3);
        world.tell(1);
        world.tell(2);
        (1..3).for_each(|at| assert!(world.deliver(at, true)));
        world.set(1, 0, 0);
        world.tell(1);
        world.set(1, 0, 1);
        while world.deliver(1, false) {}
        assert_eq!(world.shards[1].of(0), 1);
    }
}
