//! Where a node stands in the numbers of a room, what is next, and what is missing.
//!
//! A message whose number follows is delivered. One that was had is dropped. One beyond the next is not
//! delivered: the stream is read from where the node stands, and so it is after every new subscription, as
//! what was lost last leaves no hole. What was read is delivered up to its end; where it does not begin with
//! the next number, or is of another epoch, or far more is missing than can be caught up with, the node goes on
//! from the newest and the members are told to begin anew.
//!
//! A read is always of what Redis had when it answered. What is heard meanwhile and does not follow makes
//! another read, so nothing heard is forgotten.

use crate::base::cursor::{Cursor, Stale};

/// How far a node may be behind and still catch up.
pub(super) const MOST_BEHIND: u64 = 65_536;

/// Where a node stands in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::bridge) struct Follower {
    /// Up to where the node has everything; `None` until it is known.
    at: Option<Cursor>,
    /// The last that was heard since the last read began and could not be delivered.
    beyond: Option<Cursor>,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bridge) enum Heard {
    /// It is next: deliver it, and say so by [`Follower::took`].
    Next,
    /// It was had.
    Known,
    /// It is not next. Read the stream.
    Beyond,
}

/// What to do with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bridge) enum Read {
    /// The node's place was not known, and is this.
    Begin(Cursor),
    /// Deliver what was read, from this place in it on; none may be left.
    From(usize),
    /// Go on from there, and tell the members why.
    Reset(Cursor, Stale),
}

impl Follower {
    /// Up to where the node has everything.
    pub(in crate::bridge) fn at(&self) -> Option<Cursor> {
        self.at
    }

    /// A message has come.
    pub(in crate::bridge) fn heard(&mut self, cursor: Cursor) -> Heard {
        if let Some(at) = self.at
            && at.epoch == cursor.epoch
        {
            if cursor.offset <= at.offset {
                return Heard::Known;
            }
            if cursor.offset == at.offset + 1 {
                return Heard::Next;
            }
        }
        self.beyond = self.beyond.filter(|known| known.epoch == cursor.epoch).max(Some(cursor));
        Heard::Beyond
    }

    /// The next was delivered.
    ///
    /// # Panics
    /// When it does not follow.
    pub(in crate::bridge) fn took(&mut self, cursor: Cursor) {
        let follows =
            self.at.is_some_and(|at| at.epoch == cursor.epoch && at.offset + 1 == cursor.offset);
        assert!(follows, "{cursor:?} follows {:?}", self.at);
        self.at = Some(cursor);
    }

    /// A read begins, after which?
    pub(in crate::bridge) fn begin_read(&mut self) -> Option<Cursor> {
        self.beyond = None;
        self.at
    }

    /// What was read: the room's newest, and the numbers of what came after the place at which it began.
    pub(in crate::bridge) fn read(&mut self, newest: Cursor, offsets: &[u64]) -> Read {
        let Some(at) = self.at else {
            self.at = Some(newest);
            return Read::Begin(newest);
        };
        let stale = if newest.epoch != at.epoch {
            Some(Stale::Epoch)
        } else if newest.offset.saturating_sub(at.offset) > MOST_BEHIND {
            Some(Stale::TooOld)
        } else {
            None
        };
        let from = offsets.partition_point(|offset| *offset <= at.offset);
        let begins = match offsets.get(from) {
            Some(first) => *first == at.offset + 1,
            // All of a part was had meanwhile, and the next part is yet to be read; or nothing was there.
            None => !offsets.is_empty() || newest.offset <= at.offset,
        };
        match stale.or_else(|| (!begins).then_some(Stale::TooOld)) {
            None => Read::From(from),
            Some(why) => {
                self.at = Some(newest);
                Read::Reset(newest, why)
            }
        }
    }

    /// True when there is more than was read, up to `newest`, or was heard meanwhile.
    pub(in crate::bridge) fn wants_more(&self, newest: Cursor) -> bool {
        let is_beyond = |cursor: Cursor| match self.at {
            Some(at) => cursor.epoch != at.epoch || cursor.offset > at.offset,
            None => true,
        };
        is_beyond(newest) || self.beyond.is_some_and(is_beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Cursor {
        Cursor { epoch: 7, offset }
    }

    fn begun(offset: u64) -> Follower {
        let mut follower = Follower::default();
        assert_eq!(follower.begin_read(), None);
        assert_eq!(follower.read(at(offset), &[]), Read::Begin(at(offset)));
        follower
    }

    #[test]
    fn the_next_is_delivered_what_was_had_is_dropped_and_a_hole_is_read() {
        let mut follower = begun(3);
        assert!(!follower.wants_more(at(3)));
        assert_eq!(follower.heard(at(3)), Heard::Known);
        assert_eq!(follower.heard(at(4)), Heard::Next);
        follower.took(at(4));
        assert_eq!(follower.heard(at(6)), Heard::Beyond);
        assert!(follower.wants_more(at(4)));
        assert_eq!(follower.begin_read(), Some(at(4)));
        assert_eq!(follower.heard(at(5)), Heard::Next, "it may come late");
        follower.took(at(5));
        assert_eq!(follower.read(at(6), &[5, 6]), Read::From(1));
        follower.took(at(6));
        assert!(!follower.wants_more(at(6)));
    }

    #[test]
    fn what_is_heard_while_a_read_is_under_way_is_read_again() {
        let mut follower = begun(3);
        follower.begin_read();
        assert_eq!(follower.heard(at(9)), Heard::Beyond);
        assert_eq!(follower.read(at(3), &[]), Read::From(0));
        assert!(follower.wants_more(at(3)));
        let mut fresh = Follower::default();
        fresh.begin_read();
        assert_eq!(fresh.heard(at(9)), Heard::Beyond);
        assert_eq!(fresh.read(at(8), &[]), Read::Begin(at(8)));
        assert!(fresh.wants_more(at(8)));
    }

    #[test]
    fn a_part_that_was_had_meanwhile_is_no_hole() {
        let mut follower = begun(3);
        follower.begin_read();
        for offset in 4..=8 {
            assert_eq!(follower.heard(at(offset)), Heard::Next);
            follower.took(at(offset));
        }
        assert_eq!(follower.read(at(27), &[4, 5, 6]), Read::From(3));
        assert!(follower.wants_more(at(27)));
    }

    #[test]
    fn where_the_stream_no_longer_reaches_or_has_another_life_the_members_begin_anew() {
        let other = Cursor { epoch: 8, offset: 2 };
        let cases: [(Cursor, &[u64], Stale); 4] = [
            (at(9), &[6, 7, 8, 9], Stale::TooOld),
            (at(9), &[], Stale::TooOld),
            (at(4 + MOST_BEHIND), &[4, 5], Stale::TooOld),
            (other, &[], Stale::Epoch),
        ];
        for (newest, offsets, why) in cases {
            let mut follower = begun(3);
            follower.begin_read();
            assert_eq!(follower.read(newest, offsets), Read::Reset(newest, why), "{newest:?}");
            assert_eq!(follower.at(), Some(newest));
        }
        let mut follower = begun(3);
        assert_eq!(follower.heard(other), Heard::Beyond);
        assert!(follower.wants_more(at(3)), "another life is looked into");
    }
}
