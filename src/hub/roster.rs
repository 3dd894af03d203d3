//! The home side of users: who is there, who has just gone, and when somebody was last seen.
//!
//! Each user has one home shard, as rooms have. The shards tell it how they stand with the user, and only
//! when that changes: nobody there, all of them idle, or somebody active. The user is the sum of that. So a
//! user who is there costs one small entry: a hash instead of a name, which whoever asks brings along.
//! Names are kept only of those who have just gone and of those who are watched.
//!
//! Who has gone from everywhere is still shown as before until a grace period is over. A return within
//! it tells nobody anything. After it the user is offline since the moment the last connection
//! ended, which is remembered of so many users; the one seen the longest time ago is forgotten first.
//!
//! News go to the shards that watch a user, once per change and turn. Nothing here knows who observes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::places::Places;
use super::table::is_sparse;
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::time::Time;

/// How the members of a room, or the connections of a user, stand in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stand {
    /// There are none.
    #[default]
    Gone,
    /// Nobody sits in front of any of them.
    Idle,
    /// Somebody sits in front of one of them.
    Active,
}

/// What others see of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// How the user stands in the whole node; in grace, as before it.
    pub stand: Stand,
    /// True while the user has no connection and the grace is not over.
    pub lingers: bool,
    /// When the last connection ended, in milliseconds since 1970; `None` while there is one, and when nothing
    /// is remembered.
    pub last_seen: Option<u64>,
    /// When a return last ended a grace, of a user who is watched.
    pub returned: Option<Time>,
}

impl Sight {
    /// What observers are told of: a grace is no news to them.
    #[must_use]
    pub fn shown(self) -> (Stand, Option<u64>) {
        (self.stand, self.last_seen)
    }
}

/// A user who has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The room of the user's own.
    pub user: Arc<str>,
    /// When the first connection came, or the last one ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// True for one who has come. A return within the grace is no coming.
    pub here: bool,
}

/// Who has gone from everywhere and is not offline yet.
#[derive(Debug)]
struct Grace {
    user: Arc<str>,
    /// Tells this grace from others of the user.
    since: Time,
    /// The same in milliseconds since 1970.
    unix_ms: u64,
    /// As shown until the grace is over.
    stand: Stand,
}

/// A user whom shards watch.
#[derive(Debug)]
struct Watched {
    user: Arc<str>,
    shards: SmallVec<[ShardId; 4]>,
    told: Sight,
    /// When a return last ended a grace.
    returned: Option<Time>,
    /// True exactly while the user stands in [`Roster::changed`].
    changed: bool,
    /// True when a shard that began to watch has been given something else than `told`, or when one has asked, so
    /// that it has to be told even if the user is as before when it is the user's turn.
    uneven: bool,
}

/// What the roster counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RosterCounts {
    /// Graces cut short because too many were under way.
    pub hurried: u64,
    /// Users of whom it was forgotten when they were last seen.
    pub forgotten: u64,
    /// Moments of coming and going that nobody fetched in time.
    pub lost: u64,
    /// Users who came back within their grace, or within [`RETURN_MS`] of when they were last seen.
    pub returned: u64,
}

/// The users whose home this shard is.
#[derive(Debug)]
pub struct Roster {
    seed: Seed,
    /// Who is there, by the hash of the name.
    places: Map<u64, Places>,
    graces: Map<u64, Grace>,
    /// The graces in the order of their begin, and some that a return has ended.
    line: VecDeque<(Time, u64)>,
    remembered: Remembered,
    watched: Map<u64, Watched>,
    /// Watched users of whom there may be news.
    changed: VecDeque<u64>,
    /// Who has come and gone, and when, while somebody fetches that.
    passages: Option<VecDeque<Passage>>,
    counts: RosterCounts,
}

/// Graces of a shard at a time.
const MOST_GRACES: usize = 1 << 20;

/// Milliseconds within which somebody who comes is one who comes back, where the grace is shorter.
pub const RETURN_MS: u64 = 60_000;

/// Graces that are ended in one turn.
const GRACES_PER_TURN: usize = 2048;

/// Moments of coming and going that wait to be fetched.
const MOST_PASSAGES: usize = 1 << 16;

impl Roster {
    /// A roster of nobody.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            seed: seed.clone(),
            places: seed.map(),
            graces: seed.map(),
            line: VecDeque::new(),
            remembered: Remembered::new(seed),
            watched: seed.map(),
            changed: VecDeque::new(),
            passages: None,
            counts: RosterCounts::default(),
        }
    }

    /// Notes how `shard` stands with the user now, at `now`, which is `unix_ms` milliseconds since 1970. True
    /// when the user was offline before and is not any more.
    pub fn set(
        &mut self,
        user: &Arc<str>,
        shard: ShardId,
        stand: Stand,
        (now, unix_ms): (Time, u64),
    ) -> bool {
        let key = self.key(user);
        let before = self.places.get(&key).map_or(Stand::Gone, Places::stand);
        let mut came = false;
        match (before, stand) {
            (Stand::Gone, Stand::Gone) => return false,
            (Stand::Gone, _) => {
                self.places.insert(key, Places::one(shard, stand));
                let seen = self.remembered.forget(key);
                if self.graces.remove(&key).is_some() {
                    relax(&mut self.graces);
                    self.counts.returned += 1;
                    if let Some(watched) = self.watched.get_mut(&key) {
                        watched.returned = Some(now);
                    }
                } else {
                    self.pass(user, unix_ms, true);
                    came = true;
                    let is_back = seen.is_some_and(|at| unix_ms.saturating_sub(at) <= RETURN_MS);
                    self.counts.returned += u64::from(is_back);
                }
            }
            (_, _) => {
                let Some(places) = self.places.get_mut(&key) else { return false };
                places.set(shard, stand);
                if places.stand() == Stand::Gone {
                    self.places.remove(&key);
                    relax(&mut self.places);
                    let user = Arc::clone(user);
                    self.graces.insert(key, Grace { user, since: now, unix_ms, stand: before });
                    self.line.push_back((now, key));
                }
            }
        }
        self.note(key);
        came
    }

    /// Ends the graces that are over, a slice of them, and remembers at most `most` of those who have gone.
    /// `tell` hears who is offline now, and since when, in milliseconds since 1970.
    pub fn expire(
        &mut self,
        now: Time,
        grace: Duration,
        most: usize,
        tell: &mut dyn FnMut(&Arc<str>, u64),
    ) {
        for _ in 0..GRACES_PER_TURN {
            let Some((since, key)) = self.line.front().copied() else { break };
            let is_crowded = self.line.len() > MOST_GRACES;
            if since.plus(grace) > now && !is_crowded {
                break;
            }
            self.line.pop_front();
            // A return has ended it already, or another grace has begun since.
            let is_this = self.graces.get(&key).is_some_and(|grace| grace.since == since);
            let Some(ended) = is_this.then(|| self.graces.remove(&key)).flatten() else { continue };
            self.counts.hurried += u64::from(since.plus(grace) > now);
            self.counts.forgotten += self.remembered.insert(key, ended.unix_ms, most);
            tell(&ended.user, ended.unix_ms);
            self.pass(&ended.user, ended.unix_ms, false);
            self.note(key);
        }
        relax(&mut self.graces);
        if is_sparse(self.line.len(), self.line.capacity()) {
            self.line.shrink_to(self.line.len() * 2);
        }
    }

    /// When the next grace is over.
    #[must_use]
    pub fn due(&self, grace: Duration) -> Option<Time> {
        self.line.front().map(|(since, _)| since.plus(grace))
    }

    /// What is known of the user now.
    #[must_use]
    pub fn sight(&self, user: &str) -> Sight {
        self.sight_of(self.key(user))
    }

    /// Has `shard` told of the user's changes from now on, or not any more. The first news is what is known
    /// now.
    pub fn watch(&mut self, user: &Arc<str>, shard: ShardId, on: bool) {
        let key = self.key(user);
        if on {
            let told = self.sight_of(key);
            let watched = self.watched.entry(key).or_insert_with(|| {
                let (user, shards) = (Arc::clone(user), SmallVec::new());
                Watched { user, shards, told, returned: None, changed: false, uneven: false }
            });
            watched.uneven |= watched.told != told;
            if !watched.shards.contains(&shard) {
                watched.shards.push(shard);
            }
        } else if let Some(watched) = self.watched.get_mut(&key) {
            watched.shards.retain(|other| *other != shard);
            if watched.shards.is_empty() {
                self.watched.remove(&key);
                relax(&mut self.watched);
            }
        }
    }

    /// Has the shards that watch the user told once more, with the next news.
    pub fn repeat(&mut self, user: &str) {
        let key = self.key(user);
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.uneven = true;
            self.note(key);
        }
    }

    /// Tells each shard that watches a user what has changed since this was last called.
    pub fn poll_news(&mut self, tell: &mut dyn FnMut(ShardId, &Arc<str>, Sight)) {
        while let Some(key) = self.changed.pop_front() {
            let sight = self.sight_of(key);
            let Some(watched) = self.watched.get_mut(&key) else { continue };
            watched.changed = false;
            if std::mem::take(&mut watched.uneven) || watched.told != sight {
                watched.told = sight;
                watched.shards.iter().for_each(|shard| tell(*shard, &watched.user, sight));
            }
        }
    }

    /// Who has come or gone offline next. They are kept for this from the first call on, so many at a time; of
    /// more the earliest are lost, and counted.
    pub fn poll_passage(&mut self) -> Option<Passage> {
        self.passages.get_or_insert_default().pop_front()
    }

    /// Takes over when a user was last seen in an earlier life of the node, and remembers at most `most`. Whoever
    /// is here is not remembered.
    pub fn recall(&mut self, user: &str, unix_ms: u64, most: usize) {
        let key = self.key(user);
        if !self.places.contains_key(&key) && !self.graces.contains_key(&key) {
            self.counts.forgotten += self.remembered.insert(key, unix_ms, most);
        }
    }

    /// Ends all graces at once, as nothing comes after; those who have gone, and when.
    pub fn end(&mut self) -> Vec<(Arc<str>, u64)> {
        self.line.clear();
        self.graces.drain().map(|(_, grace)| (grace.user, grace.unix_ms)).collect()
    }

    /// The shards with connections of the user.
    pub fn shards(&self, user: &str) -> impl Iterator<Item = ShardId> {
        let places = self.places.get(&self.key(user));
        places.into_iter().flat_map(Places::iter).map(|(shard, _)| shard)
    }

    /// True while the user has a connection.
    #[must_use]
    pub fn has(&self, user: &str) -> bool {
        self.places.contains_key(&self.key(user))
    }

    /// Users with a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when nobody has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Users of whom it is remembered when they were last seen.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.remembered.order.len()
    }

    /// Users whom shards watch.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> RosterCounts {
        self.counts
    }

    /// Verifies that a user is in one state only, and the lines.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        for (key, places) in &self.places {
            assert!(places.stand() > Stand::Gone, "somebody is nowhere");
            assert!(!self.graces.contains_key(key), "somebody is here and in grace");
            assert!(!self.remembered.seen.contains_key(key), "somebody is here and was last seen");
        }
        for (key, grace) in &self.graces {
            assert!(!self.remembered.seen.contains_key(key), "{} is gone twice", grace.user);
            assert!(grace.stand > Stand::Gone, "{} was here before its grace", grace.user);
        }
        assert!(self.line.len() >= self.graces.len(), "a grace without an end");
        assert!(self.line.iter().is_sorted_by_key(|(since, _)| *since), "graces in order");
        assert_eq!(self.remembered.order.len(), self.remembered.seen.len(), "the remembered");
        for watched in self.watched.values() {
            assert!(!watched.shards.is_empty(), "{} is watched by nobody", watched.user);
        }
    }

    fn key(&self, user: &str) -> u64 {
        self.seed.hash_one(user)
    }

    fn sight_of(&self, key: u64) -> Sight {
        if let Some(places) = self.places.get(&key) {
            let returned = self.watched.get(&key).and_then(|watched| watched.returned);
            return Sight { stand: places.stand(), returned, ..Sight::default() };
        }
        if let Some(grace) = self.graces.get(&key) {
            return Sight { stand: grace.stand, lingers: true, ..Sight::default() };
        }
        Sight { last_seen: self.remembered.seen.get(&key).copied(), ..Sight::default() }
    }

    /// Puts a watched user in line for news.
    fn note(&mut self, key: u64) {
        if let Some(watched) = self.watched.get_mut(&key)
            && !std::mem::replace(&mut watched.changed, true)
        {
            self.changed.push_back(key);
        }
    }

    fn pass(&mut self, user: &Arc<str>, unix_ms: u64, here: bool) {
        let Some(passages) = &mut self.passages else { return };
        if passages.len() >= MOST_PASSAGES {
            passages.pop_front();
            self.counts.lost += 1;
        }
        passages.push_back(Passage { user: Arc::clone(user), unix_ms, here });
    }
}

/// When users were last seen, in milliseconds since 1970.
#[derive(Debug)]
struct Remembered {
    seen: Map<u64, u64>,
    /// The same the other way round, the longest ago first.
    order: BTreeSet<(u64, u64)>,
}

impl Remembered {
    fn new(seed: &Seed) -> Self {
        Self { seen: seed.map(), order: BTreeSet::new() }
    }

    /// Forgets when the user was last seen, and says when that was.
    fn forget(&mut self, key: u64) -> Option<u64> {
        let unix_ms = self.seen.remove(&key)?;
        self.order.remove(&(unix_ms, key));
        relax(&mut self.seen);
        Some(unix_ms)
    }

    /// Remembers one more; how many were forgotten for it.
    fn insert(&mut self, key: u64, unix_ms: u64, most: usize) -> u64 {
        self.forget(key);
        self.seen.insert(key, unix_ms);
        self.order.insert((unix_ms, key));
        let mut forgotten = 0;
        // Two at a time, so that a limit that was lowered is reached without a stall.
        while forgotten < 2 && self.order.len() > most {
            let Some((_, key)) = self.order.pop_first() else { break };
            self.seen.remove(&key);
            forgotten += 1;
        }
        forgotten
    }
}

/// Gives memory back once most entries have gone.
fn relax<V>(map: &mut Map<u64, V>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(map.len() * 2);
    }
}
