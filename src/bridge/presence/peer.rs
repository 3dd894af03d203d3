//! Another node and its users.
//!
//! What is known of a user carries the number of the note or page that said so. A page never overrules a
//! later note, and once a reading is complete, whoever was confirmed by nothing since its begin is not there
//! any more. A note whose number does not follow the last one means that something was missed; what it says
//! holds all the same, and the rest is read.

use super::{Batch, Change, Mark, Name, Page, Pose};
use crate::base::map::{Map, Seed};
use crate::base::time::Time;

/// How much of a node's users is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// They are to be read, unless `even` and the last number known is still the last.
    Unread { even: bool },
    /// They are being read.
    Reading(Reading),
    /// Notes tell of them; who was not confirmed since this number when they end is not there.
    Filling { floor: u64 },
    /// All.
    Whole,
    /// The node is not there any more; by itself, or because its lease ended.
    Left { ended: bool },
}

/// A reading under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// The number at which it began, once that is known.
    floor: Option<u64>,
    /// The last number heard meanwhile.
    heard: Option<u64>,
    cursor: u64,
    /// All users of the life had been told.
    whole: bool,
    /// Something was missed meanwhile: it begins again at its end.
    again: bool,
}

/// A user of the node.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pose: Pose,
    last: bool,
    /// True exactly while the user waits to be handed on.
    dirty: bool,
    /// The number of what said so.
    seq: u64,
    at: u64,
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: Name,
    pub(super) place: u16,
    pub(super) life: u64,
    pub(super) seq: u64,
    pub(super) stage: Stage,
    /// When it was last heard.
    pub(super) heard: Time,
    /// When its lease is to be looked at.
    pub(super) check: Time,
    /// True while users of it found no place.
    pub(super) short: bool,
    /// True when there was nothing to be read, until its lease is seen again.
    pub(super) void: bool,
    users: Map<Name, Entry>,
}

/// Where a peer puts users whose standing has changed, and how many more users it may know.
pub(super) struct Desk<'a> {
    pub(super) dirty: &'a mut dyn FnMut(&Name),
    pub(super) space: &'a mut usize,
    pub(super) refused: &'a mut usize,
}

impl Peer {
    pub(super) fn new(node: Name, place: u16, life: u64, seed: &Seed) -> Self {
        Self {
            node,
            place,
            life,
            seq: 0,
            stage: Stage::Unread { even: false },
            heard: Time::ZERO,
            check: Time::ZERO,
            short: false,
            void: false,
            users: seed.map(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    pub(super) fn has_left(&self) -> bool {
        matches!(self.stage, Stage::Left { .. })
    }

    /// A new life begins, of which everything will be heard.
    pub(super) fn begin(&mut self, life: u64, seq: u64) {
        (self.life, self.seq, self.stage) = (life, seq, Stage::Filling { floor: seq });
        (self.short, self.void) = (false, false);
    }

    /// A new life was found that began unheard.
    pub(super) fn find(&mut self, life: u64) {
        (self.life, self.stage) = (life, Stage::Unread { even: false });
    }

    /// Nothing is heard any more.
    pub(super) fn lose(&mut self) {
        if !self.has_left() {
            let even = matches!(self.stage, Stage::Whole | Stage::Unread { even: true });
            self.stage = Stage::Unread { even };
        }
    }

    /// The lease is there, and `seq` was told last. Where that is known already nothing needs to be read.
    pub(super) fn confirm(&mut self, seq: u64, whole: bool) {
        self.void = false;
        if self.stage == (Stage::Unread { even: true }) && whole && seq == self.seq {
            self.stage = Stage::Whole;
            self.drop_gone();
        }
    }

    /// Takes in a note of the present life.
    pub(super) fn hear(&mut self, batch: &Batch, desk: &mut Desk<'_>) {
        let is_renewal = batch.mark.is_none() && batch.changes.is_empty();
        let follows = batch.seq == self.seq + u64::from(!is_renewal);
        let is_old = batch.seq <= self.seq && !(is_renewal && follows);
        match &mut self.stage {
            Stage::Left { .. } => return,
            Stage::Reading(reading) if reading.floor.is_none() => {
                // The number of the first page is not known yet, so only what is heard can be compared.
                let next = reading.heard.map_or(batch.seq, |heard| heard + u64::from(!is_renewal));
                if reading.heard.is_some_and(|heard| batch.seq <= heard) && !is_renewal {
                    return;
                }
                reading.again |= batch.seq != next;
                reading.heard = Some(batch.seq);
                reading.whole |= batch.mark == Some(Mark::Whole);
                batch.changes.iter().for_each(|change| self.set(change, batch.seq, desk));
                return;
            }
            _ if is_old => return,
            Stage::Reading(reading) => {
                reading.again |= !follows;
                reading.whole |= batch.mark == Some(Mark::Whole);
            }
            Stage::Unread { even } => *even &= follows,
            Stage::Filling { .. } | Stage::Whole if !follows => {
                self.stage = Stage::Unread { even: false };
            }
            Stage::Filling { .. } | Stage::Whole => {}
        }
        self.seq = batch.seq;
        batch.changes.iter().for_each(|change| self.set(change, batch.seq, desk));
        if let (Stage::Filling { floor }, Some(Mark::Whole)) = (self.stage, batch.mark) {
            self.sweep(floor, desk);
        }
    }

    /// True when there are users to be read.
    pub(super) fn is_to_be_read(&self) -> bool {
        matches!(self.stage, Stage::Unread { .. } | Stage::Reading(_)) && !self.void
    }

    /// Where the reading goes on, if there is one to be made.
    pub(super) fn next_page(&mut self) -> Option<u64> {
        match self.stage {
            Stage::Unread { .. } => {
                self.stage = Stage::Reading(Reading::default());
                self.short = false;
                Some(0)
            }
            Stage::Reading(reading) => Some(reading.cursor),
            _ => None,
        }
    }

    /// Takes in a page.
    pub(super) fn page(&mut self, page: &Page, desk: &mut Desk<'_>) {
        let Stage::Reading(mut reading) = self.stage else { return };
        if reading.floor.is_none() {
            reading.floor = Some(page.seq);
            self.seq = page.seq.max(reading.heard.unwrap_or(0));
        }
        for (user, pose) in &page.users {
            if self.users.get(user).is_none_or(|entry| entry.seq <= page.seq) {
                let change = Change { user: Name::clone(user), pose: *pose, at: 0, last: false };
                self.set(&change, page.seq, desk);
            }
        }
        reading.cursor = page.cursor;
        reading.whole |= page.whole;
        self.stage = Stage::Reading(reading);
        let floor = reading.floor.unwrap_or_default();
        match (page.cursor, reading.again, reading.whole) {
            (0, true, _) => self.stage = Stage::Unread { even: false },
            (0, false, true) => self.sweep(floor, desk),
            (0, false, false) => self.stage = Stage::Filling { floor },
            _ => {}
        }
    }

    /// The node is not there any more, since `at`.
    pub(super) fn leave(&mut self, ended: bool, at: u64, desk: &mut Desk<'_>) {
        self.stage = Stage::Left { ended };
        for (user, entry) in &mut self.users {
            if entry.pose > Pose::Gone {
                (entry.pose, entry.at, entry.last) = (Pose::Gone, at, false);
                if !std::mem::replace(&mut entry.dirty, true) {
                    (desk.dirty)(user);
                }
            }
        }
        self.drop_gone();
    }

    /// A user's standing, to be handed on: its pose, since when, and whether the node has told that nobody else
    /// had it.
    pub(super) fn take(&mut self, user: &str) -> Option<(Pose, u64, bool)> {
        let entry = self.users.get_mut(user)?;
        entry.dirty = false;
        let (pose, at, last) = (entry.pose, entry.at, entry.last);
        // While it is not known who is there, a later page must not bring back who has gone since.
        let is_settled = matches!(self.stage, Stage::Whole | Stage::Left { .. });
        if pose == Pose::Gone && is_settled {
            self.users.remove(user);
            if self.users.capacity() > 1024 && self.users.len() < self.users.capacity() / 8 {
                self.users.shrink_to(self.users.len() * 2);
            }
        }
        Some((pose, at, last))
    }

    /// Everybody has been told: who was not confirmed since `floor` is not there.
    fn sweep(&mut self, floor: u64, desk: &mut Desk<'_>) {
        self.stage = Stage::Whole;
        for (user, entry) in &mut self.users {
            if entry.seq < floor && entry.pose > Pose::Gone {
                // Its node is there and has told whoever had to know.
                (entry.pose, entry.at, entry.last) = (Pose::Gone, 0, true);
                if !std::mem::replace(&mut entry.dirty, true) {
                    (desk.dirty)(user);
                }
            }
        }
        self.drop_gone();
    }

    fn drop_gone(&mut self) {
        self.users.retain(|_, entry| entry.pose > Pose::Gone || entry.dirty);
        if self.users.capacity() > 1024 && self.users.len() < self.users.capacity() / 8 {
            self.users.shrink_to(self.users.len() * 2);
        }
    }

    fn set(&mut self, change: &Change, seq: u64, desk: &mut Desk<'_>) {
        let Change { user, pose, at, last } = change;
        let Some(entry) = self.users.get_mut(user) else {
            // Who has gone is remembered for the sake of a reading, and only then.
            if *pose == Pose::Gone && !matches!(self.stage, Stage::Reading(_)) {
                return;
            }
            if *desk.space == 0 {
                *desk.refused += 1;
                self.short = true;
                return;
            }
            *desk.space -= 1;
            let dirty = *pose > Pose::Gone;
            let entry = Entry { pose: *pose, last: *last, dirty, seq, at: *at };
            self.users.insert(Name::clone(user), entry);
            if dirty {
                (desk.dirty)(user);
            }
            return;
        };
        // A page may be ahead of the notes.
        if entry.seq > seq {
            return;
        }
        entry.seq = seq;
        if entry.pose == *pose {
            return;
        }
        (entry.pose, entry.at, entry.last) = (*pose, *at, *last);
        if !std::mem::replace(&mut entry.dirty, true) {
            (desk.dirty)(user);
        }
    }

    #[cfg(test)]
    pub(super) fn dirty(&self) -> usize {
        self.users.values().filter(|entry| entry.dirty).count()
    }

    #[cfg(test)]
    pub(super) fn check_settled(&self) {
        if matches!(self.stage, Stage::Whole | Stage::Left { .. }) {
            let kept = |entry: &Entry| entry.pose > Pose::Gone || entry.dirty;
            assert!(self.users.values().all(kept), "{} keeps who has gone", self.node);
        }
    }
}
