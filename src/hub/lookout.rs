//! The observers of a shard: which connections watch whom, and what they have yet to be told.
//!
//! A subject is a user, by the name of the user's own room, or a room. What is known of a user is kept once
//! for the shard: as it is now, and as it was last told. Changes are told in windows: the first one opens a
//! window, and at its end the observers of whoever differs from what was told last get one push each. So a
//! burst of comings and goings within a window cancels out, and nobody hears more often than that.
//!
//! A new observer gets what was told last, not what is known now, so that every observer of a user is at the
//! same point. Where nothing is known yet the answer of the user's home is awaited, and what a connection
//! awaits it gets in one piece.
//!
//! The homes of rooms that are observed look out for the rooms' members in the same way. Nothing here says
//! who may watch, and nothing here is encoded.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::room::Member;
use super::rooms::{Hub, Joined, MemberRef, Standing, TooManyRooms};
use super::roster::{Sight, Stand};
use crate::base::map::{Map, Seed};
use crate::base::pool::is_sparse;
use crate::base::time::Time;

/// A user of interest.
#[derive(Debug, Default)]
struct Sighted {
    /// As last heard of the home.
    seen: Option<Sight>,
    /// As last told to the observers.
    told: Option<Sight>,
    /// Observed rooms, whose home is here, that list the user.
    rooms: SmallVec<[Arc<str>; 1]>,
    /// True exactly while the user stands in [`Lookout::dirty`].
    dirty: bool,
}

/// A connection that watches something.
#[derive(Debug, Default)]
struct Observer {
    member: MemberRef,
    /// Users it is to be told of.
    pending: Vec<Arc<str>>,
    /// Users it watches of whom nothing is known yet.
    awaiting: u32,
    /// True exactly while the connection stands in [`Lookout::telling`].
    queued: bool,
}

/// What a shard observes.
#[derive(Debug)]
pub struct Lookout {
    /// Subjects and the connections that watch them.
    hub: Hub,
    observers: Map<u32, Observer>,
    users: Map<Arc<str>, Sighted>,
    /// Users whose observers may have to be told, in the order of their first change.
    dirty: VecDeque<Arc<str>>,
    /// When those are told; present while there are any.
    window: Option<Time>,
    /// Connections to be told now.
    telling: VecDeque<u32>,
    /// Homes to be told that their news are wanted, or not any more.
    wants: VecDeque<(Arc<str>, bool)>,
}

/// A user, by the name of its own room, and what is known of it.
pub type Known = (Arc<str>, Sight);

/// News of a user that a room's home has to act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Rooms that list the user.
    pub rooms: SmallVec<[Arc<str>; 1]>,
    /// True when nothing was known of the user before.
    pub first: bool,
}

/// Marks that one turn may make for observers; one user's are always all made.
const MARKS_PER_TURN: usize = 4096;

impl Lookout {
    /// A shard that observes nothing.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            hub: Hub::new(seed),
            observers: seed.map(),
            users: seed.map(),
            dirty: VecDeque::new(),
            window: None,
            telling: VecDeque::new(),
            wants: VecDeque::new(),
        }
    }

    /// Has a connection watch a user. One who does already is told once more.
    ///
    /// # Errors
    /// When it watches `limit` subjects already.
    pub fn watch_user(
        &mut self,
        conn: u32,
        user: &str,
        limit: usize,
    ) -> Result<Joined, TooManyRooms> {
        let joined = self.enter(conn, user, limit)?;
        let name = self.hub.name(user).map_or_else(|| Arc::from(user), Arc::clone);
        let known = self.sighted(&name).told.is_some();
        let Some(observer) = self.observers.get_mut(&conn) else { return Ok(joined) };
        if known {
            self.hub.confirm(&observer.member, user);
            if !observer.pending.contains(&name) {
                observer.pending.push(name);
            }
        } else {
            observer.awaiting += u32::from(joined == Joined::New);
        }
        self.queue(conn);
        Ok(joined)
    }

    /// Has a connection watch a room. It is told of nothing before [`Lookout::confirm_room`].
    ///
    /// # Errors
    /// When it watches `limit` subjects already.
    pub fn watch_room(
        &mut self,
        conn: u32,
        room: &str,
        limit: usize,
    ) -> Result<Joined, TooManyRooms> {
        self.enter(conn, room, limit)
    }

    /// The connection gets the room as it is now, and whatever follows; false when it does not watch it any
    /// more.
    pub fn confirm_room(&mut self, conn: u32, room: &str) -> bool {
        let Some(observer) = self.observers.get(&conn) else { return false };
        self.hub.confirm(&observer.member, room)
    }

    /// Has a connection watch a subject no more; false when it did not.
    pub fn unwatch(&mut self, conn: u32, subject: &str) -> bool {
        let Some(observer) = self.observers.get_mut(&conn) else { return false };
        let awaited = self.users.contains_key(subject)
            && self.hub.standing(&observer.member, subject) == Standing::Pending;
        if !self.hub.leave(&mut observer.member, subject) {
            return false;
        }
        observer.awaiting -= u32::from(awaited);
        if observer.member.is_none() {
            self.observers.remove(&conn);
            self.relax();
        } else {
            self.queue(conn);
        }
        self.neglect(subject);
        true
    }

    /// A connection has gone.
    pub fn leave(&mut self, conn: u32) {
        let Some(mut observer) = self.observers.remove(&conn) else { return };
        let subjects: Vec<Arc<str>> = self.hub.rooms_of(&observer.member).cloned().collect();
        self.hub.leave_all(&mut observer.member);
        subjects.iter().for_each(|subject| self.neglect(subject));
        self.relax();
    }

    /// An observed room, whose home is here, lists a user from now on. What is known of the user.
    pub fn list(&mut self, user: &Arc<str>, room: &Arc<str>) -> Option<Sight> {
        let sighted = self.sighted(user);
        if !sighted.rooms.contains(room) {
            sighted.rooms.push(Arc::clone(room));
        }
        sighted.seen
    }

    /// It does not any more.
    pub fn unlist(&mut self, user: &str, room: &str) {
        if let Some(sighted) = self.users.get_mut(user) {
            sighted.rooms.retain(|other| &**other != room);
            self.neglect(user);
        }
    }

    /// The home of a user has told what it knows. Observers hear of it a window later, the first time at once.
    pub fn hear(&mut self, user: &Arc<str>, sight: Sight, until: Time) -> Heard {
        let nothing = Heard { rooms: SmallVec::new(), first: false };
        let Some(sighted) = self.users.get_mut(user) else { return nothing };
        let first = sighted.seen.replace(sight).is_none();
        let heard = Heard { rooms: sighted.rooms.clone(), first };
        if sighted.told.is_none() {
            sighted.told = Some(sight);
            self.introduce(user);
        } else if sighted.told.map(Sight::shown) != Some(sight.shown()) && !sighted.dirty {
            sighted.dirty = true;
            self.dirty.push_back(Arc::clone(user));
            self.window.get_or_insert(until);
        }
        heard
    }

    /// What is known of a user of interest.
    #[must_use]
    pub fn seen(&self, user: &str) -> Option<Sight> {
        self.users.get(user)?.seen
    }

    /// Lets time pass: at the end of a window the observers are put in line, a slice of them in one turn.
    pub fn expire(&mut self, now: Time) {
        if self.window.is_none_or(|at| at > now) {
            return;
        }
        let mut marks = 0;
        while marks < MARKS_PER_TURN
            && let Some(user) = self.dirty.pop_front()
        {
            let Some(sighted) = self.users.get_mut(&user) else { continue };
            sighted.dirty = false;
            let before = std::mem::replace(&mut sighted.told, sighted.seen);
            if before.map(Sight::shown) == sighted.seen.map(Sight::shown) {
                continue;
            }
            for member in self.hub.members(&user).iter().filter(|member| member.is_confirmed()) {
                marks += 1;
                let Some(observer) = self.observers.get_mut(&member.conn) else { continue };
                if !observer.pending.contains(&user) {
                    observer.pending.push(Arc::clone(&user));
                }
                if observer.awaiting == 0 && !std::mem::replace(&mut observer.queued, true) {
                    self.telling.push_back(member.conn);
                }
            }
        }
        if self.dirty.is_empty() {
            self.window = None;
        }
    }

    /// When there is something to do next; nothing that waits for mail.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        if self.telling.is_empty() { self.window } else { Some(Time::ZERO) }
    }

    /// The next connection to be told something, and of whom.
    pub fn poll_told(&mut self) -> Option<(u32, Vec<Known>)> {
        while let Some(conn) = self.telling.pop_front() {
            let Some(observer) = self.observers.get_mut(&conn) else { continue };
            observer.queued = false;
            if observer.awaiting > 0 {
                continue;
            }
            let pending = std::mem::take(&mut observer.pending).into_iter();
            let told: Vec<Known> = pending
                .filter(|user| self.hub.is_member(&observer.member, user))
                .filter_map(|user| self.users.get(&user)?.told.map(|sight| (user, sight)))
                .collect();
            if !told.is_empty() {
                return Some((conn, told));
            }
        }
        if is_sparse(0, self.telling.capacity()) {
            self.telling = VecDeque::new();
        }
        None
    }

    /// What the homes of subjects are to be told: of which news are wanted, and of which not any more.
    /// `is_user` tells names of users from those of rooms.
    pub fn poll_wants(&mut self, is_user: fn(&str) -> bool, mut tell: impl FnMut(&Arc<str>, bool)) {
        while let Some((user, on)) = self.wants.pop_front() {
            tell(&user, on);
        }
        while let Some(change) = self.hub.poll_change() {
            let on = change.stand > Stand::Gone;
            if !is_user(&change.room) && on != (change.before > Stand::Gone) {
                tell(&change.room, on);
            }
        }
    }

    /// The observers of a room; those that are not confirmed have yet to get it as it is.
    #[must_use]
    pub fn observers(&self, room: &str) -> &[Member] {
        self.hub.members(room)
    }

    /// Pairs of subject and observer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hub.memberships()
    }

    /// True when nothing is observed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hub.is_empty()
    }

    /// Users of interest.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The subjects that a connection watches.
    pub fn subjects_of(&self, conn: u32) -> impl Iterator<Item = &Arc<str>> {
        let observer = self.observers.get(&conn).into_iter();
        observer.flat_map(|observer| self.hub.rooms_of(&observer.member))
    }

    /// How many subjects a connection watches.
    #[must_use]
    pub fn count_of(&self, conn: u32) -> usize {
        self.observers.get(&conn).map_or(0, |observer| self.hub.count_of(&observer.member))
    }

    /// Verifies that all is of interest to somebody.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        self.hub.check();
        for (user, sighted) in &self.users {
            let watched = !self.hub.members(user).is_empty();
            assert!(watched || !sighted.rooms.is_empty(), "{user} interests nobody");
            assert!(sighted.told.is_some() || sighted.seen.is_none(), "{user} was not told");
        }
        let dirty = self.users.values().filter(|sighted| sighted.dirty).count();
        assert!(dirty <= self.dirty.len(), "a change waits in no line");
        assert_eq!(self.dirty.is_empty(), self.window.is_none(), "changes and their window");
        for (conn, observer) in &self.observers {
            assert!(!observer.member.is_none(), "{conn} observes nothing");
            assert!(!observer.queued || self.telling.contains(conn), "{conn} waits in no line");
        }
    }

    fn enter(&mut self, conn: u32, subject: &str, limit: usize) -> Result<Joined, TooManyRooms> {
        let observer = self.observers.entry(conn).or_default();
        let joined = self.hub.join(&mut observer.member, conn, subject, limit);
        if observer.member.is_none() {
            self.observers.remove(&conn);
        }
        joined
    }

    /// A user of interest, whose home is asked when that is new.
    fn sighted(&mut self, user: &Arc<str>) -> &mut Sighted {
        self.users.entry(Arc::clone(user)).or_insert_with(|| {
            self.wants.push_back((Arc::clone(user), true));
            Sighted::default()
        })
    }

    /// Something is known of a user for the first time: whoever waits for it may be told.
    fn introduce(&mut self, user: &Arc<str>) {
        let waiting = self.hub.members(user).iter().filter(|member| !member.is_confirmed());
        let waiting: Vec<u32> = waiting.map(|member| member.conn).collect();
        for conn in waiting {
            let Some(observer) = self.observers.get_mut(&conn) else { continue };
            self.hub.confirm(&observer.member, user);
            observer.pending.push(Arc::clone(user));
            observer.awaiting -= 1;
            self.queue(conn);
        }
    }

    /// Puts a connection in line if it is to be told something now.
    fn queue(&mut self, conn: u32) {
        if let Some(observer) = self.observers.get_mut(&conn)
            && observer.awaiting == 0
            && !observer.pending.is_empty()
            && !std::mem::replace(&mut observer.queued, true)
        {
            self.telling.push_back(conn);
        }
    }

    /// Forgets a user who interests nobody any more.
    fn neglect(&mut self, subject: &str) {
        let nobody = self.hub.members(subject).is_empty();
        let is_over = |sighted: &Sighted| nobody && sighted.rooms.is_empty();
        if self.users.get(subject).is_some_and(is_over)
            && let Some((user, _)) = self.users.remove_entry(subject)
        {
            self.wants.push_back((user, false));
            if is_sparse(self.users.len(), self.users.capacity()) {
                self.users.shrink_to(self.users.len() * 2);
            }
        }
    }

    fn relax(&mut self) {
        if is_sparse(self.observers.len(), self.observers.capacity()) {
            self.observers.shrink_to(self.observers.len() * 2);
        }
    }
}
