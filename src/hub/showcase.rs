//! The home side of rooms that are observed: who is in them, as it is told.
//!
//! A room's home knows how many members a room has and in which shards, but not who they are; as long as
//! nobody observes the room nobody needs to. While somebody does, a change opens a window, and at its end the
//! home calls the roll: each shard with members names its users, each once. The difference to what was told
//! last is the next diff. So nothing is counted up and down that could drift, whoever comes and goes within a
//! window costs nothing, and a user is in the room once however many connections there are.
//!
//! How the users stand comes from their own homes. A user whose last connection has just ended stays listed
//! until the grace is over, and as long after a return, which joins the room a moment after it is there. The roll may know of that end before the user's home has told of it, so the home
//! is asked about those whom the roll misses and who seem to be there, and the diff waits for the answer. A room with more members than a limit has no list: its observers are told the
//! number alone, and no member costs anything beyond it.
//!
//! Nothing here sends: a roll to be called and a diff to be told are values.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::roster::{Sight, Stand};
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::pool::is_sparse;
use crate::base::time::Time;

/// What observers of a room are told: of a change, or all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Display {
    /// The room.
    pub room: Arc<str>,
    /// Its members: connections, whoever they are.
    pub members: u64,
    /// True for a room with a list, false for one of which only the number is told.
    pub listed: bool,
    /// True when this is all there is, and no change.
    pub whole: bool,
    /// Users who have come, or who are there, by name.
    pub joined: Vec<(Arc<str>, Stand)>,
    /// Users who have gone.
    pub left: Vec<Arc<str>>,
    /// Users who stand otherwise than before.
    pub states: Vec<(Arc<str>, Stand)>,
}

/// A roll under way.
#[derive(Debug)]
struct Roll {
    number: u64,
    /// Shards that have not answered.
    waiting: SmallVec<[ShardId; 8]>,
    users: BTreeSet<Arc<str>>,
    /// A shard alone has more members than a list may have.
    over: bool,
}

/// What was told last.
#[derive(Debug)]
enum Told {
    /// Nothing yet.
    Nothing,
    /// A number.
    Number(u64),
    /// A number and a list.
    List(u64, BTreeMap<Arc<str>, Stand>),
}

/// A room that is observed.
#[derive(Debug)]
struct Shown<A> {
    /// Shards with observers.
    watchers: SmallVec<[ShardId; 4]>,
    told: Told,
    /// Who is in the room, by the last roll.
    present: BTreeSet<Arc<str>>,
    /// Users noted as of interest: those who are present, and those who were told.
    noted: BTreeSet<Arc<str>>,
    /// True when, by the last roll, there are too many for a list.
    over: bool,
    /// Those of them of whom nothing is known yet.
    unknown: usize,
    /// Users who were told and are not in the last roll: left, or gone as nobody here knows yet.
    doubted: BTreeSet<Arc<str>>,
    roll: Option<Roll>,
    /// The membership may have changed since the last roll began.
    stale: bool,
    /// When the next diff is due, if there is one.
    window: Option<Time>,
    /// Observers who have yet to get the room as it is.
    asks: Vec<A>,
}

/// What is to be done for a room whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call the roll under this number.
    Roll(u64),
    /// Tell the difference.
    Tell,
}

/// When a room is told.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Now.
    pub now: Time,
    /// The end of a window that begins now.
    pub until: Time,
    /// How long who has gone, or has come back, stays listed.
    pub grace: Duration,
}

/// What came of telling a room: the diff, if there is any, whom to give all of it, and the users whom the room
/// lists no more.
#[derive(Debug)]
pub struct Outcome<A> {
    /// For the shards with observers.
    pub diff: Option<Display>,
    /// Observers who wait for the whole.
    pub asks: Vec<A>,
    /// Users of no more interest to the room.
    pub gone: Vec<Arc<str>>,
}

/// The rooms that are observed and whose home this shard is. `A` says who asks.
#[derive(Debug)]
pub struct Showcase<A> {
    rooms: Map<Arc<str>, Shown<A>>,
    /// Windows by their end.
    windows: BTreeSet<(Time, Arc<str>)>,
    /// Rooms whose roll is complete, or of whose users the last unknown one is known.
    ready: VecDeque<Arc<str>>,
    next_roll: u64,
}

impl<A> Showcase<A> {
    /// A showcase of nothing.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { rooms: seed.map(), windows: BTreeSet::new(), ready: VecDeque::new(), next_roll: 0 }
    }

    /// A shard has observers of the room from now on, or none any more. The users that the room listed, when it
    /// is not shown any more.
    pub fn watch(&mut self, room: &Arc<str>, shard: ShardId, on: bool, now: Time) -> Vec<Arc<str>> {
        if on {
            let shown = self.rooms.entry(Arc::clone(room)).or_insert_with(|| Shown {
                watchers: SmallVec::new(),
                told: Told::Nothing,
                present: BTreeSet::new(),
                noted: BTreeSet::new(),
                over: false,
                unknown: 0,
                doubted: BTreeSet::new(),
                roll: None,
                stale: true,
                window: None,
                asks: Vec::new(),
            });
            if !shown.watchers.contains(&shard) {
                shown.watchers.push(shard);
            }
            if matches!(shown.told, Told::Nothing) {
                self.open(room, now);
            }
            return Vec::new();
        }
        let Some(shown) = self.rooms.get_mut(room) else { return Vec::new() };
        shown.watchers.retain(|other| *other != shard);
        if !shown.watchers.is_empty() {
            return Vec::new();
        }
        let Some(shown) = self.rooms.remove(room) else { return Vec::new() };
        if let Some(window) = shown.window {
            self.windows.remove(&(window, Arc::clone(room)));
        }
        if is_sparse(self.rooms.len(), self.rooms.capacity()) {
            self.rooms.shrink_to(self.rooms.len() * 2);
        }
        shown.noted.into_iter().collect()
    }

    /// The shards with observers of the room.
    pub fn watchers(&self, room: &str) -> &[ShardId] {
        self.rooms.get(room).map_or(&[], |shown| &shown.watchers)
    }

    /// Somebody has joined or left the room: its observers are told at `until`, if there are any.
    pub fn touch(&mut self, room: &Arc<str>, until: Time) {
        if let Some(shown) = self.rooms.get_mut(&**room) {
            shown.stale = true;
            self.open(room, until);
        }
    }

    /// The home of a user whom the room lists has told how the user stands. `first`: nothing was known before.
    pub fn note(&mut self, room: &Arc<str>, user: &str, first: bool, until: Time) {
        let Some(shown) = self.rooms.get_mut(&**room) else { return };
        let is_met = first && shown.unknown > 0;
        shown.unknown -= usize::from(is_met);
        let is_cleared = shown.doubted.remove(user);
        if (is_met || is_cleared) && !shown.awaits() {
            self.ready.push_back(Arc::clone(room));
            return;
        }
        self.open(room, until);
    }

    /// An observer asks for the room as it is. The answer, or `None` when it comes with the next outcome.
    pub fn ask(&mut self, room: &Arc<str>, asker: A) -> Option<(A, Display)> {
        let shown = self.rooms.get_mut(&**room)?;
        match shown.whole(room) {
            Some(whole) => Some((asker, whole)),
            None => {
                shown.asks.push(asker);
                None
            }
        }
    }

    /// The next room whose window is over, with what is to be done.
    pub fn poll_due(&mut self, now: Time) -> Option<(Arc<str>, Next)> {
        loop {
            if let Some(room) = self.ready.pop_front() {
                if self.rooms.contains_key(&room) {
                    return Some((room, Next::Tell));
                }
                continue;
            }
            let (end, room) = self.windows.first()?;
            if *end > now {
                return None;
            }
            let room = Arc::clone(room);
            self.windows.pop_first();
            let Some(shown) = self.rooms.get_mut(&room) else { continue };
            shown.window = None;
            if shown.roll.is_some() || shown.awaits() {
                // What is awaited comes first, and opens another window if there is need.
                continue;
            }
            if !std::mem::take(&mut shown.stale) {
                return Some((room, Next::Tell));
            }
            let number = self.next_roll;
            self.next_roll += 1;
            return Some((room, Next::Roll(number)));
        }
    }

    /// When there is something to do next; nothing that waits for mail.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        if !self.ready.is_empty() {
            return Some(Time::ZERO);
        }
        self.windows.first().map(|(end, _)| *end)
    }

    /// The roll of that number was called in these shards. `over`: the room has no list.
    pub fn begin(
        &mut self,
        room: &Arc<str>,
        number: u64,
        shards: impl IntoIterator<Item = ShardId>,
        over: bool,
    ) {
        let Some(shown) = self.rooms.get_mut(&**room) else { return };
        let waiting: SmallVec<[ShardId; 8]> = shards.into_iter().collect();
        let is_complete = waiting.is_empty();
        shown.roll = Some(Roll { number, waiting, users: BTreeSet::new(), over });
        if is_complete {
            self.ready.push_back(Arc::clone(room));
        }
    }

    /// A shard has answered the roll: its users in the room, or `None` when its members are too many.
    pub fn answer(
        &mut self,
        room: &Arc<str>,
        number: u64,
        shard: ShardId,
        users: Option<Vec<Arc<str>>>,
    ) {
        let Some(roll) = self.rooms.get_mut(&**room).and_then(|shown| shown.roll.as_mut()) else {
            return;
        };
        let before = roll.waiting.len();
        roll.waiting.retain(|other| *other != shard || roll.number != number);
        if roll.waiting.len() == before {
            return;
        }
        match users {
            Some(users) => roll.users.extend(users),
            None => roll.over = true,
        }
        if roll.waiting.is_empty() {
            self.ready.push_back(Arc::clone(room));
        }
    }

    /// Takes over a complete roll. `list` notes a user of interest to the room and says what is known of the
    /// user; `ask` is told whose home has to say it again. False while something is awaited before the room can
    /// be told.
    pub fn take_roll(
        &mut self,
        room: &Arc<str>,
        limit: usize,
        mut list: impl FnMut(&Arc<str>) -> Option<Sight>,
        mut ask: impl FnMut(&Arc<str>),
    ) -> bool {
        let Some(shown) = self.rooms.get_mut(&**room) else { return false };
        if shown.roll.as_ref().is_some_and(|roll| !roll.waiting.is_empty()) {
            return false;
        }
        if let Some(roll) = shown.roll.take() {
            shown.over = roll.over || roll.users.len() > limit;
            shown.present = if shown.over { BTreeSet::new() } else { roll.users };
            shown.unknown = shown.present.iter().filter(|user| list(user).is_none()).count();
            shown.noted.extend(shown.present.iter().cloned());
            shown.doubted = shown.missed(&mut list);
            shown.doubted.iter().for_each(&mut ask);
        }
        !shown.awaits()
    }

    /// Compares the room, which has so many members, with what was told last. What has changed meanwhile is told
    /// at the end of the next window.
    pub fn tell(
        &mut self,
        room: &Arc<str>,
        members: u64,
        times: Times,
        mut seen: impl FnMut(&str) -> Option<Sight>,
    ) -> Outcome<A> {
        let nothing = Outcome { diff: None, asks: Vec::new(), gone: Vec::new() };
        let Some(shown) = self.rooms.get_mut(&**room) else { return nothing };
        let (diff, again) = if shown.over {
            (shown.compare_number(room, members), None)
        } else {
            shown.compare_list(room, members, times, &mut seen)
        };
        let outcome =
            Outcome { diff, asks: std::mem::take(&mut shown.asks), gone: shown.drop_noted() };
        let next = if shown.stale { Some(times.until) } else { again };
        if let Some(next) = next {
            self.open(room, next);
        }
        outcome
    }

    /// The room as it was told last; `None` before that.
    #[must_use]
    pub fn whole(&self, room: &Arc<str>) -> Option<Display> {
        self.rooms.get(&**room)?.whole(room)
    }

    /// Rooms that are observed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Verifies the windows and that every room has observers.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let mut windows = 0;
        for (name, shown) in &self.rooms {
            assert!(!shown.watchers.is_empty(), "{name} is shown to nobody");
            assert!(shown.unknown <= shown.present.len(), "{name} awaits strangers");
            assert!(shown.doubted.is_disjoint(&shown.present), "{name} doubts who is there");
            assert!(shown.doubted.is_subset(&shown.noted), "{name} doubts whom it does not watch");
            if let Some(window) = shown.window {
                windows += 1;
                assert!(self.windows.contains(&(window, Arc::clone(name))), "{name} has no end");
            }
            let is_moving = shown.window.is_some()
                || shown.roll.is_some()
                || shown.awaits()
                || self.ready.contains(name);
            assert!(is_moving || shown.asks.is_empty(), "{name}: somebody asks for ever");
            assert!(is_moving || !shown.stale, "{name} stays stale");
        }
        assert_eq!(windows, self.windows.len(), "windows");
    }

    /// Opens a window of the room, if none is open.
    fn open(&mut self, room: &Arc<str>, until: Time) {
        if let Some(shown) = self.rooms.get_mut(&**room)
            && shown.window.is_none()
        {
            shown.window = Some(until);
            self.windows.insert((until, Arc::clone(room)));
        }
    }
}

impl<A> Shown<A> {
    /// All there is, as it was told last.
    fn whole(&self, room: &Arc<str>) -> Option<Display> {
        let display = Display { room: Arc::clone(room), whole: true, ..Display::default() };
        match &self.told {
            Told::Nothing => None,
            Told::Number(members) => Some(Display { members: *members, ..display }),
            Told::List(members, users) => {
                let joined = users.iter().map(|(user, stand)| (Arc::clone(user), *stand));
                Some(Display {
                    members: *members,
                    listed: true,
                    joined: joined.collect(),
                    ..display
                })
            }
        }
    }

    /// True while homes of users have to tell something before the room can be told.
    fn awaits(&self) -> bool {
        self.unknown > 0 || !self.doubted.is_empty()
    }

    /// Those who were told, whom the roll misses, and who seem to be there.
    fn missed(&self, list: &mut dyn FnMut(&Arc<str>) -> Option<Sight>) -> BTreeSet<Arc<str>> {
        let Told::List(_, told) = &self.told else { return BTreeSet::new() };
        let absent = told.keys().filter(|user| !self.over && !self.present.contains(*user));
        let seems_there = |sight: Sight| sight.stand > Stand::Gone && !sight.lingers;
        absent.filter(|user| list(user).is_some_and(seems_there)).cloned().collect()
    }

    /// Forgets those who are neither present nor told.
    fn drop_noted(&mut self) -> Vec<Arc<str>> {
        let is_told = |user: &Arc<str>| match &self.told {
            Told::List(_, told) => told.contains_key(user),
            Told::Nothing | Told::Number(_) => false,
        };
        let present = &self.present;
        let is_gone = |user: &Arc<str>| !present.contains(user) && !is_told(user);
        self.noted.extract_if(.., |user| is_gone(user)).collect()
    }

    /// The news of a room without a list.
    fn compare_number(&mut self, room: &Arc<str>, members: u64) -> Option<Display> {
        let before = std::mem::replace(&mut self.told, Told::Number(members));
        let same = matches!(before, Told::Number(before) if before == members);
        let display = Display { room: Arc::clone(room), members, ..Display::default() };
        (!same).then_some(display)
    }

    /// The news of a room with a list: all of it when no list was told before; and when the time for somebody to
    /// join again is over.
    fn compare_list(
        &mut self,
        room: &Arc<str>,
        members: u64,
        times: Times,
        seen: &mut dyn FnMut(&str) -> Option<Sight>,
    ) -> (Option<Display>, Option<Time>) {
        let (before, told) = match std::mem::replace(&mut self.told, Told::Nothing) {
            Told::List(before, told) => (Some(before), told),
            Told::Nothing | Told::Number(_) => (None, BTreeMap::new()),
        };
        let (mut now, mut again) = (BTreeMap::new(), None);
        for user in self.present.iter().chain(told.keys()) {
            let Some(sight) = seen(user).filter(|sight| sight.stand > Stand::Gone) else {
                continue;
            };
            let present = sight.lingers || self.present.contains(user);
            let over = sight.returned.map(|at| at.plus(times.grace)).filter(|at| *at > times.now);
            if !present && over.is_some() {
                again = again.min(over).or(over);
            }
            if present || over.is_some() {
                now.insert(Arc::clone(user), sight.stand);
            }
        }
        let whole = before.is_none();
        let mut diff =
            Display { room: Arc::clone(room), members, listed: true, whole, ..Display::default() };
        for (user, stand) in &now {
            match told.get(user) {
                None => diff.joined.push((Arc::clone(user), *stand)),
                Some(before) if before != stand => diff.states.push((Arc::clone(user), *stand)),
                Some(_) => {}
            }
        }
        diff.left.extend(told.into_keys().filter(|user| !now.contains_key(user)));
        self.told = Told::List(members, now);
        let changed = !(diff.joined.is_empty() && diff.left.is_empty() && diff.states.is_empty());
        ((changed || before != Some(members)).then_some(diff), again)
    }
}
