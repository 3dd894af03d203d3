//! The home side of users: who is there, who has just gone, and when somebody was last seen.
//!
//! Each user has one home shard, as rooms have. The shards tell it how they stand with the user, and only
//! when that changes: nobody there, all of them idle, or somebody active. The user is the sum of that. So a
//! user who is there costs one small entry, in [`places`](super::places).
//! Names are kept only of those who have just gone and of those who are watched.
//!
//! Who has gone from everywhere is still shown as before until a grace period is over. A return within
//! it tells nobody anything. After it the user is offline since the moment the last connection
//! ended, which is remembered of so many users; the one seen the longest time ago is forgotten first.
//!
//! Where several nodes work as one, a node counts as one more shard, behind those of this node. So a user who
//! is on another node is there, and a grace is one for all of them. What changes about a user in this node is
//! put down for the others; and of what nobody should hear twice the node tells that the user was on last.
//!
//! News go to the shards that watch a user, once per change and turn. Nothing here knows who observes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::places::Places;
use super::remembered::Remembered;
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::pool::is_sparse;
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

/// How a user stands in this node now, for the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The room of the user's own.
    pub user: Arc<str>,
    /// How it stands.
    pub stand: Stand,
    /// Since when, in milliseconds since 1970.
    pub unix_ms: u64,
    /// True when no other node has the user.
    pub last: bool,
}

/// How a user stands in another node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Afar {
    /// The room of the user's own.
    pub user: Arc<str>,
    /// The number of the node here, from zero.
    pub node: u16,
    /// How the user stands there.
    pub stand: Stand,
    /// Since when it is not there, in milliseconds since 1970.
    pub unix_ms: u64,
    /// True when this node is to tell that the user is offline, if it is then.
    pub speaks: bool,
    /// True when the node fell silent so long ago that any grace is over.
    pub ended: bool,
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
    /// True when the last connection was to this node.
    own: bool,
    /// True when this node tells that the user is offline.
    speaks: bool,
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
    /// Who is there.
    places: Places,
    graces: Map<u64, Grace>,
    /// The graces in the order of their begin, and some that a return has ended.
    line: VecDeque<(Time, u64)>,
    remembered: Remembered,
    watched: Map<u64, Watched>,
    /// Watched users of whom there may be news.
    changed: VecDeque<u64>,
    /// Who has come and gone, and when, while somebody fetches that.
    passages: Option<VecDeque<Passage>>,
    /// Users who are in this node.
    here: usize,
    /// Where there are other nodes: how many shards this one has, and what the others are to be told.
    nodes: Option<(u16, VecDeque<Here>)>,
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
            places: Places::new(seed),
            graces: seed.map(),
            line: VecDeque::new(),
            remembered: Remembered::new(seed),
            watched: seed.map(),
            changed: VecDeque::new(),
            passages: None,
            here: 0,
            nodes: None,
            counts: RosterCounts::default(),
        }
    }

    /// From now on there are other nodes, and this one has so many shards.
    pub fn join_nodes(&mut self, shards: u16) {
        self.nodes.get_or_insert_with(|| (shards, VecDeque::new()));
    }

    /// Notes how `shard`, one of this node, stands with the user now, at `now`, which is `unix_ms` milliseconds
    /// since 1970. True when the user was offline before and is not any more.
    pub fn set(
        &mut self,
        user: &Arc<str>,
        shard: ShardId,
        stand: Stand,
        (now, unix_ms): (Time, u64),
    ) -> bool {
        let key = self.key(user);
        let (here_before, before) = self.stands(key);
        let seen = self.put(key, shard, stand);
        let (here, after) = self.stands(key);
        let mut came = false;
        if before == Stand::Gone && after > Stand::Gone {
            let grace = self.end_grace(key, now);
            if grace.as_ref().is_none_or(|grace| !grace.own) {
                self.pass(user, unix_ms, true);
            }
            let is_back = seen.is_some_and(|at| unix_ms.saturating_sub(at) <= RETURN_MS);
            self.counts.returned += u64::from(is_back || grace.is_some());
            came = grace.is_none();
        } else if before > Stand::Gone && after == Stand::Gone {
            let user = Arc::clone(user);
            let grace = Grace { user, since: now, unix_ms, stand: before, own: true, speaks: true };
            self.graces.insert(key, grace);
            self.line.push_back((now, key));
        } else if (here_before > Stand::Gone) != (here > Stand::Gone) {
            // Another node has the user all the while.
            self.pass(user, unix_ms, here > Stand::Gone);
        }
        match (here_before, here) {
            (Stand::Gone, Stand::Idle | Stand::Active) => self.here += 1,
            (Stand::Idle | Stand::Active, Stand::Gone) => self.here -= 1,
            _ => {}
        }
        if here_before != here
            && let Some((_, told)) = &mut self.nodes
        {
            let (user, last) = (Arc::clone(user), after == Stand::Gone);
            told.push_back(Here { user, stand: here, unix_ms, last });
        }
        self.note(key);
        came
    }

    /// Notes how a user stands in another node now. Without effect where there are none.
    pub fn set_afar(&mut self, afar: &Afar, now: Time) {
        let Some((shards, _)) = self.nodes else { return };
        let key = self.key(&afar.user);
        let (_, before) = self.stands(key);
        self.put(key, ShardId(shards.saturating_add(afar.node)), afar.stand);
        let (_, after) = self.stands(key);
        if before == Stand::Gone
            && after > Stand::Gone
            && let Some(grace) = self.end_grace(key, now).filter(|grace| grace.own)
        {
            self.pass(&grace.user, grace.unix_ms, false);
        }
        if before > Stand::Gone && after == Stand::Gone {
            // At the head of the line when it is over already.
            let since = if afar.ended { Time::ZERO } else { now };
            let (user, unix_ms, speaks) = (Arc::clone(&afar.user), afar.unix_ms, afar.speaks);
            let grace = Grace { user, since, unix_ms, stand: before, own: false, speaks };
            self.graces.insert(key, grace);
            if afar.ended {
                self.line.push_front((since, key));
            } else {
                self.line.push_back((since, key));
            }
        }
        self.note(key);
    }

    /// The next of what the other nodes are to be told.
    pub fn poll_here(&mut self) -> Option<Here> {
        let (_, told) = self.nodes.as_mut()?;
        let next = told.pop_front();
        if next.is_none() && is_sparse(0, told.capacity()) {
            *told = VecDeque::new();
        }
        next
    }

    /// How the user stands in this node, and in all.
    fn stands(&self, key: u64) -> (Stand, Stand) {
        let Some((shards, _)) = &self.nodes else {
            let all = self.places.stand(key);
            return (all, all);
        };
        self.places.of(key).fold(
            Default::default(),
            |(here, all): (Stand, Stand), (shard, stand)| {
                (if shard.0 < *shards { here.max(stand) } else { here }, all.max(stand))
            },
        )
    }

    /// Notes how a shard stands with the user; when the user was last seen, if it was offline.
    fn put(&mut self, key: u64, shard: ShardId, stand: Stand) -> Option<u64> {
        let came = self.places.set(key, shard, stand);
        came.then(|| self.remembered.forget(key)).flatten()
    }

    /// Ends the user's grace by a return, if there is one.
    fn end_grace(&mut self, key: u64, now: Time) -> Option<Grace> {
        let grace = self.graces.remove(&key)?;
        relax(&mut self.graces);
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.returned = Some(now);
        }
        Some(grace)
    }

    /// Ends the graces that are over, a slice of them, and remembers at most `most` of those who have gone.
    /// `tell` hears who is offline now, and since when, in milliseconds since 1970; where there are several nodes
    /// one of them hears it.
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
            if ended.speaks {
                tell(&ended.user, ended.unix_ms);
            }
            if ended.own {
                self.pass(&ended.user, ended.unix_ms, false);
            }
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
        if !self.places.has(key) && !self.graces.contains_key(&key) {
            self.counts.forgotten += self.remembered.insert(key, unix_ms, most);
        }
    }

    /// Ends all graces at once, as nothing comes after; those who have gone, and when.
    pub fn end(&mut self) -> Vec<(Arc<str>, u64)> {
        self.line.clear();
        let own = self.graces.drain().filter(|(_, grace)| grace.own);
        own.map(|(_, grace)| (grace.user, grace.unix_ms)).collect()
    }

    /// The shards of this node with connections of the user.
    pub fn shards(&self, user: &str) -> impl Iterator<Item = ShardId> {
        let shards = self.places.of(self.key(user)).map(|(shard, _)| shard);
        let most = self.nodes.as_ref().map_or(u16::MAX, |(shards, _)| *shards);
        shards.filter(move |shard| shard.0 < most)
    }

    /// True while the user has a connection to this node.
    #[must_use]
    pub fn has(&self, user: &str) -> bool {
        self.stands(self.key(user)).0 > Stand::Gone
    }

    /// True while the user has a connection to any node, as far as is known here.
    #[must_use]
    pub fn is_somewhere(&self, user: &str) -> bool {
        self.stands(self.key(user)).1 > Stand::Gone
    }

    /// Users with a connection to this node.
    #[must_use]
    pub fn len(&self) -> usize {
        self.here
    }

    /// True when nobody has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.here == 0
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
        self.places.check();
        for key in self.places.users() {
            assert!(!self.graces.contains_key(&key), "somebody is here and in grace");
            assert!(!self.remembered.seen.contains_key(&key), "somebody is here and was last seen");
        }
        let here = self.places.users().filter(|key| self.stands(*key).0 > Stand::Gone).count();
        assert_eq!(here, self.here, "users in this node");
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
        let stand = self.places.stand(key);
        if stand > Stand::Gone {
            let returned = self.watched.get(&key).and_then(|watched| watched.returned);
            return Sight { stand, returned, ..Sight::default() };
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

/// Gives memory back once most entries have gone.
pub(super) fn relax<V>(map: &mut Map<u64, V>) {
    if is_sparse(map.len(), map.capacity()) {
        map.shrink_to(map.len() * 2);
    }
}
