//! This node's users, as they were told to the others.
//!
//! What changes is put in line, each user once, so that whoever comes and goes while Redis is away costs one
//! place and one change. The line is told in batches; one is under way at a time, and when nobody knows
//! whether Redis took it, it is told again as it was, with the number it had, which does no harm. A batch
//! without changes renews the lease. Without a lease the life is over: the next one begins with all users in
//! line.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Batch, Change, Mark, Name, Pose, Terms};
use crate::base::map::{Map, Seed};
use crate::base::time::Time;

/// Changes in one batch.
const CHANGES: usize = 512;

/// How far the present life has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not at all.
    Unborn,
    /// So many of those in line at its begin are still in line.
    Filling(usize),
    /// All of it.
    Whole,
}

/// A user of this node.
#[derive(Debug)]
struct Mine {
    pose: Pose,
    at: u64,
    last: bool,
    /// The others may know of the user.
    told: bool,
    /// True exactly while the user stands in [`Own::line`].
    queued: bool,
}

/// This node's users.
#[derive(Debug)]
pub(super) struct Own {
    lease: Duration,
    life: u64,
    stage: Stage,
    /// The number of the last batch; never used twice, whatever the life.
    seq: u64,
    users: Map<Name, Mine>,
    line: VecDeque<Name>,
    /// Told, and not known to have been taken.
    under_way: Option<Batch>,
    /// When the lease is to be renewed.
    renewal: Time,
    lost: usize,
}

impl Own {
    pub(super) fn new(terms: &Terms, seed: &Seed) -> Self {
        Self {
            lease: terms.lease,
            life: terms.life,
            stage: Stage::Unborn,
            seq: 0,
            users: seed.map(),
            line: VecDeque::new(),
            under_way: None,
            renewal: Time::ZERO,
            lost: 0,
        }
    }

    pub(super) fn note(&mut self, change: Change) {
        let Change { user, pose, at, last } = change;
        let mine = self.users.entry(Name::clone(&user)).or_insert(Mine {
            pose,
            at,
            last,
            told: false,
            queued: false,
        });
        (mine.pose, mine.at, mine.last) = (pose, at, last);
        if !std::mem::replace(&mut mine.queued, true) {
            self.line.push_back(user);
        }
    }

    /// The next batch to be told, if there is one.
    pub(super) fn next(&mut self, now: Time) -> Option<Batch> {
        if self.under_way.is_none() {
            self.under_way = self.compose(now);
        }
        if self.under_way.is_some() {
            self.renewal = now.plus(self.lease / 3);
        }
        self.under_way.clone()
    }

    fn compose(&mut self, now: Time) -> Option<Batch> {
        if self.stage == Stage::Unborn {
            return Some(self.batch(Some(Mark::Begin), Vec::new()));
        }
        let mut changes = Vec::new();
        let mut taken = 0;
        while changes.len() < CHANGES
            && let Some(user) = self.line.pop_front()
        {
            taken += 1;
            changes.extend(self.take(user));
        }
        if self.line.capacity() > 1024 && self.line.len() < self.line.capacity() / 8 {
            self.line.shrink_to(self.line.len() * 2);
        }
        if let Stage::Filling(left) = &mut self.stage {
            *left = left.saturating_sub(taken);
            if *left == 0 {
                self.stage = Stage::Whole;
                return Some(self.batch(Some(Mark::Whole), changes));
            }
        }
        if !changes.is_empty() {
            return Some(self.batch(None, changes));
        }
        let (life, seq) = (self.life, self.seq);
        (now >= self.renewal).then_some(Batch { life, seq, mark: None, changes })
    }

    /// Takes a user from the line; the change to be told, if there is one.
    fn take(&mut self, user: Name) -> Option<Change> {
        let mine = self.users.get_mut(&user)?;
        mine.queued = false;
        if mine.pose == Pose::Gone && !mine.told {
            self.forget(&user);
            return None;
        }
        mine.told = true;
        let (pose, at, last) = (mine.pose, mine.at, mine.last);
        Some(Change { user, pose, at, last })
    }

    fn batch(&mut self, mark: Option<Mark>, changes: Vec<Change>) -> Batch {
        self.seq += 1;
        Batch { life: self.life, seq: self.seq, mark, changes }
    }

    /// What was told last was taken, by a life with a lease or without one.
    pub(super) fn told(&mut self, held: bool) {
        let Some(batch) = self.under_way.take() else { return };
        if !held {
            return self.begin_again();
        }
        if batch.mark == Some(Mark::Begin) {
            self.stage = Stage::Filling(self.line.len());
        }
        for change in batch.changes.iter().filter(|change| change.pose == Pose::Gone) {
            let is_over = |mine: &Mine| mine.pose == Pose::Gone && !mine.queued;
            if self.users.get(&change.user).is_some_and(is_over) {
                self.forget(&change.user);
            }
        }
    }

    /// The lease has gone, and with it all that was told.
    fn begin_again(&mut self) {
        self.lost += 1;
        self.life += 1;
        self.stage = Stage::Unborn;
        self.users.retain(|_, mine| mine.pose > Pose::Gone);
        self.line.clear();
        for (user, mine) in &mut self.users {
            (mine.told, mine.queued) = (false, true);
            self.line.push_back(Name::clone(user));
        }
    }

    /// When there is something to tell if nothing happens until then.
    pub(super) fn due(&self) -> Time {
        let is_idle =
            self.stage == Stage::Whole && self.line.is_empty() && self.under_way.is_none();
        if is_idle { self.renewal } else { Time::ZERO }
    }

    pub(super) fn farewell(&mut self) -> Option<Batch> {
        (self.stage != Stage::Unborn).then(|| self.batch(Some(Mark::Bye), Vec::new()))
    }

    /// Users of this node, and some who have gone and are still to be told.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Times the lease had gone.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    fn forget(&mut self, user: &str) {
        self.users.remove(user);
        if self.users.capacity() > 1024 && self.users.len() < self.users.capacity() / 8 {
            self.users.shrink_to(self.users.len() * 2);
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let queued = self.users.values().filter(|mine| mine.queued).count();
        assert_eq!(queued, self.line.len(), "users in line");
        for (user, mine) in &self.users {
            let under_way = self.under_way.iter().flat_map(|batch| &batch.changes);
            let is_moving = mine.queued || under_way.into_iter().any(|change| change.user == *user);
            assert!(is_moving || (mine.told && mine.pose > Pose::Gone), "{user} waits for ever");
        }
    }
}
