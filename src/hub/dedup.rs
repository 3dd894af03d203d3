//! One copy for a member of several target rooms.
//!
//! A command may publish to several rooms, and whoever is in two of them receives one copy. The rooms
//! of one home travel in one mail; those of different homes come separately, in any order, with other
//! mail between them. For such a [`Group`] every home mails every shard, so each shard counts the
//! copies: with the first it opens a set of the connections served, with the last it forgets the set.
//! So the number of open sets is bounded by the mail that is under way, without a clock or a limit.
//!
//! A set holds slab indexes. If an index changes hands between two copies, its new owner joined after
//! the command was given and may miss it, as anyone may who joins at that moment.

use crate::base::map::{Map, Seed, Set};
use crate::hub::publication::Group;

/// The connections that were served one command's publications.
#[derive(Debug)]
pub struct Served(Set<u32>);

impl Served {
    /// Notes that a connection is served; true the first time, and only then is it to be sent to.
    pub fn first(&mut self, conn: u32) -> bool {
        self.0.insert(conn)
    }

    /// True when the connection is served.
    #[must_use]
    pub fn has(&self, conn: u32) -> bool {
        self.0.contains(&conn)
    }
}

/// The groups with copies still to come.
#[derive(Debug)]
pub struct Groups {
    seed: Seed,
    /// Copies still to come, never zero, and who is served.
    open: Map<u64, (u16, Served)>,
    /// The set of the last mail that needed none of the open ones; its memory serves the next.
    last: Served,
    /// The number of the last group that was made here.
    made: u64,
}

impl Groups {
    /// No groups.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { seed: seed.clone(), open: seed.map(), last: Served(seed.set()), made: 0 }
    }

    /// A number for a group that is made here, which none before it has had.
    pub fn make(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// To be called once per mail that carries publications to several rooms, whatever their number:
    /// the connections already served by the mail's group, none if it has no group. All rooms of the
    /// mail use the one set.
    pub fn enter(&mut self, group: Option<&Group>) -> &mut Served {
        let group = group.filter(|group| group.homes > 1);
        let Some(group) = group else { return self.recycled() };
        let known = self.open.remove(&group.id);
        let (left, served) = known.unwrap_or_else(|| (group.homes, Served(self.seed.set())));
        if left > 1 {
            let entry = self.open.entry(group.id).insert_entry((left - 1, served));
            return &mut entry.into_mut().1;
        }
        self.last = served;
        &mut self.last
    }

    /// True while copies of the group are still to come.
    #[must_use]
    pub fn awaits(&self, group: &Group) -> bool {
        self.open.contains_key(&group.id)
    }

    /// Who was served by the last mail, and by its whole group if it was the last of one; to be asked only
    /// where no copy is awaited any more. The next mail begins with nobody.
    pub fn take(&mut self) -> Served {
        std::mem::replace(&mut self.last, Served(self.seed.set()))
    }

    /// Gives back the memory that is kept for the next mail.
    pub fn relax(&mut self) {
        self.last = Served(self.seed.set());
    }

    /// Groups with copies still to come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when no copy is awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn recycled(&mut self) -> &mut Served {
        if self.last.0.capacity() > KEPT {
            self.last = Served(self.seed.set());
        } else {
            self.last.0.clear();
        }
        &mut self.last
    }
}

/// Connections up to which a set's memory is kept for the next mail.
const KEPT: usize = 4096;
