//! For which rooms a shard's queues hold bytes, where each room has a limit of its own.
//!
//! A room has an account from the first frame that is made for its readers until none of its bytes waits any more, so
//! what is kept here grows with the rooms that somebody has yet to read, and not with those that there are. What a
//! room holds its namespace holds too. Where no namespace limits its rooms nothing is looked up and nothing kept.

use slab::Slab;

use super::payers::{Payer, Stage};
use crate::base::account::{Account, Changed};
use crate::base::map::{Map, Seed};

#[derive(Debug)]
struct Room {
    name: Box<str>,
    payer: Payer,
}

/// The rooms of one shard for which something waits.
#[derive(Debug)]
pub(super) struct Rooms {
    known: Map<Box<str>, usize>,
    rooms: Slab<Room>,
    changed: Changed,
    /// By the place of a namespace, what each of its rooms may hold; zero: as much as it likes.
    limits: Vec<u64>,
    /// Rooms that are not calm.
    uneasy: usize,
}

impl Rooms {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            known: seed.map(),
            rooms: Slab::new(),
            changed: Changed::default(),
            limits: Vec::new(),
            uneasy: 0,
        }
    }

    /// True when some namespace limits its rooms.
    pub(super) fn is_limiting(&self) -> bool {
        !self.limits.is_empty()
    }

    /// What a room of the namespace at that place may hold; zero: as much as it likes.
    pub(super) fn limit(&self, at: usize) -> u64 {
        self.limits.get(at).copied().unwrap_or(0)
    }

    pub(super) fn uneasy(&self) -> usize {
        self.uneasy
    }

    /// The limits of rooms, by the place of their namespace. What waits now counts for no room from here on: it
    /// will soon have gone, and the rooms begin anew.
    pub(super) fn set_limits(&mut self, limits: impl IntoIterator<Item = u64>) {
        self.limits = limits.into_iter().collect();
        if self.limits.iter().all(|limit| *limit == 0) {
            self.limits = Vec::new();
        }
        self.known.clear();
        self.known.shrink_to(0);
        self.rooms = Slab::new();
        // Older accounts keep the old list, so that their numbers are not taken for those of other rooms.
        self.changed = Changed::default();
        self.uneasy = 0;
    }

    /// The account of a room that may hold so much. `space`: its namespace's own.
    pub(super) fn account(&mut self, room: &str, limit: u64, space: Option<&Account>) -> &Account {
        let key = match self.known.get(room) {
            Some(key) => *key,
            None => self.begin(room, limit, space),
        };
        &self.rooms[key].payer.account
    }

    fn begin(&mut self, room: &str, limit: u64, space: Option<&Account>) -> usize {
        let entry = self.rooms.vacant_entry();
        let key = entry.key();
        let number = u32::try_from(key).unwrap_or(u32::MAX);
        let account = Account::within(number, &self.changed, space);
        // So that a room for which nothing comes to wait is forgotten as well.
        account.list();
        entry.insert(Room { name: room.into(), payer: Payer::of(account, limit) });
        self.known.insert(room.into(), key);
        key
    }

    /// Brings the stages of all that have changed up to date, and forgets rooms for which nothing waits.
    pub(super) fn settle(&mut self) {
        // Those that frames still refer to which wait nowhere yet are looked at again.
        let mut again = Vec::new();
        while let Some(number) = self.changed.pop() {
            let Some(room) = self.rooms.get_mut(number as usize) else { continue };
            let before = room.payer.stage;
            let bytes = room.payer.settle();
            let now = room.payer.stage;
            self.uneasy =
                self.uneasy + usize::from(now > Stage::Calm) - usize::from(before > Stage::Calm);
            if bytes > 0 {
                continue;
            }
            if room.payer.account.is_alone() {
                let room = self.rooms.remove(number as usize);
                self.known.remove(&room.name);
            } else {
                again.push(number as usize);
            }
        }
        again.into_iter().for_each(|key| self.rooms[key].payer.account.list());
        if self.rooms.is_empty() && self.rooms.capacity() > FEW {
            self.known.shrink_to(0);
            self.rooms.shrink_to_fit();
        }
    }

    pub(super) fn stage(&self, room: &str) -> Stage {
        let key = self.known.get(room);
        key.map_or(Stage::Calm, |key| self.rooms[*key].payer.stage)
    }

    pub(super) fn bytes(&self, room: &str) -> u64 {
        self.known.get(room).map_or(0, |key| self.rooms[*key].payer.account.bytes())
    }

    /// The rooms that are known.
    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Verifies that names, rows and stages agree.
    ///
    /// # Panics
    /// When they do not.
    pub(super) fn check(&self) {
        assert_eq!(self.known.len(), self.rooms.len(), "rooms by name and by number");
        for (name, key) in &self.known {
            assert_eq!(self.rooms[*key].name, *name, "a room is where its name leads");
        }
        let uneasy = self.rooms.iter().filter(|(_, room)| room.payer.stage > Stage::Calm).count();
        assert_eq!(uneasy, self.uneasy, "rooms near their limits");
    }
}

/// Rooms whose places are not given back.
const FEW: usize = 64;
