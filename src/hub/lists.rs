//! The rooms of each member, within one shard.
//!
//! Most of those who are in a room are in one or two, their own included, so two memberships stand in the entry
//! itself, which is 20 bytes; of more the entry names a list of its own. An entry is never empty.

use smallvec::SmallVec;

use crate::base::pool::Pool;

/// That a connection is in a room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Membership {
    /// The room's number.
    pub(super) room: u32,
    /// Where the member stands in the room.
    pub(super) position: u32,
}

#[derive(Debug)]
enum List {
    One([Membership; 1]),
    Two([Membership; 2]),
    /// The number of a list with at least two.
    Many(u32),
}

/// Lists of memberships, by slot.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: Pool<List>,
    many: Pool<Vec<Membership>>,
}

impl Lists {
    /// A new list with one membership; its slot.
    pub(super) fn begin(&mut self, membership: Membership) -> u32 {
        self.lists.insert(List::One([membership]))
    }

    /// Puts a membership behind the others.
    pub(super) fn push(&mut self, slot: u32, membership: Membership) {
        let list = &mut self.lists[slot];
        match *list {
            List::One([first]) => *list = List::Two([first, membership]),
            List::Two([first, second]) => {
                let many = vec![first, second, membership];
                *list = List::Many(self.many.insert(many));
            }
            List::Many(number) => self.many[number].push(membership),
        }
    }

    /// The memberships in a slot.
    pub(super) fn of(&self, slot: u32) -> &[Membership] {
        match &self.lists[slot] {
            List::One(list) => list,
            List::Two(list) => list,
            List::Many(number) => &self.many[*number],
        }
    }

    /// The same, to be changed.
    pub(super) fn of_mut(&mut self, slot: u32) -> &mut [Membership] {
        match &mut self.lists[slot] {
            List::One(list) => list,
            List::Two(list) => list,
            List::Many(number) => &mut self.many[*number],
        }
    }

    /// Takes a membership out, and the last one takes its place. False when the list has ended with it.
    pub(super) fn take(&mut self, slot: u32, at: usize) -> (Membership, bool) {
        let list = &mut self.lists[slot];
        match list {
            List::One([only]) => {
                let only = *only;
                self.lists.remove(slot);
                (only, false)
            }
            List::Two(two) => {
                let gone = two[at];
                *list = List::One([two[1 - at]]);
                (gone, true)
            }
            List::Many(number) => {
                let number = *number;
                let many = &mut self.many[number];
                let gone = many.swap_remove(at);
                if let [only] = **many {
                    // Not before, or one who joins and leaves would take memory each time.
                    *list = List::One([only]);
                    self.many.remove(number);
                }
                (gone, true)
            }
        }
    }

    /// Ends a list; what was in it.
    pub(super) fn end(&mut self, slot: u32) -> SmallVec<[Membership; 2]> {
        match self.lists.remove(slot) {
            List::One(list) => SmallVec::from_slice(&list),
            List::Two(list) => SmallVec::from_buf(list),
            List::Many(number) => self.many.remove(number).into(),
        }
    }

    /// Entries for which memory is held.
    pub(super) fn capacity(&self) -> usize {
        self.lists.capacity() + self.many.capacity()
    }

    /// Memberships in all lists. Verifies the lists.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub(super) fn check(&self) -> usize {
        self.lists.check();
        self.many.check();
        let many = self.lists.iter().filter(|(_, list)| matches!(list, List::Many(_)));
        assert_eq!(many.count(), self.many.len(), "a long list is of one member");
        assert!(self.many.iter().all(|(_, list)| list.len() > 1), "a long list is not short");
        self.lists.iter().map(|(slot, _)| self.of(slot).len()).sum()
    }
}

const _: () = assert!(Pool::<List>::PLACE == 20);
