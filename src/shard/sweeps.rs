//! The search for connections whose token was taken back by its name.
//!
//! Nothing leads from a token's name to its connection, so all who are known are looked at, a slice a turn, round
//! and round while something is looked for. All that is looked for is looked for at once: a name that
//! joins in the middle of a round is found or given up when the search is there again. So how long one takes, in
//! turns, follows from how many connections there are, and not from how many other tokens are taken back
//! meanwhile. Whoever comes in or shows a new token later is asked about at the door.

use std::collections::VecDeque;
use std::ops::Range;

use crate::base::map::{Map, Seed};

/// A token's name, as a person's record has it.
pub(super) type TokenHash = [u8; 7];

/// What is looked for, and how far.
#[derive(Debug)]
pub(super) struct Sweeps {
    /// Where the search must have come for each to be given up.
    wanted: Map<TokenHash, Place>,
    /// The same in the order of their coming; a name may stand here more than once.
    line: VecDeque<(TokenHash, Place)>,
    /// Where the search is.
    at: Place,
}

/// How many rounds were begun, and the index that is next in this one.
type Place = (u64, usize);

impl Sweeps {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { wanted: seed.map(), line: VecDeque::new(), at: (0, 0) }
    }

    /// Looks for one more, from here to here again.
    pub(super) fn begin(&mut self, token: TokenHash) {
        let end = (self.at.0 + 1, self.at.1);
        self.wanted.insert(token, end);
        self.line.push_back((token, end));
    }

    /// True when nothing is looked for.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// True when this one is looked for.
    pub(super) fn wants(&self, token: TokenHash) -> bool {
        self.wanted.contains_key(&token)
    }

    /// The places to look at now, of `bound` there are and `most` at once; then [`Self::end`] is called.
    pub(super) fn next(&mut self, bound: usize, most: usize) -> Range<usize> {
        if self.at.1 >= bound {
            self.at = (self.at.0 + 1, 0);
        }
        let slice = self.at.1..bound.min(self.at.1 + most);
        self.at.1 = slice.end;
        slice
    }

    /// Gives up what was looked for everywhere; without places that is all.
    pub(super) fn end(&mut self, bound: usize) {
        while let Some((token, end)) = self.line.front()
            && (*end <= self.at || bound == 0)
        {
            if self.wanted.get(token) == Some(end) {
                self.wanted.remove(token);
            }
            self.line.pop_front();
        }
        if self.line.is_empty() {
            self.line = VecDeque::new();
            self.wanted.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every place that was there when a name came is looked at for it, within the turns of a round, whatever
        /// else is looked for; also while connections come and go.
        #[test]
        fn each_is_looked_for_in_every_place_whatever_else_is(
            starts in prop::collection::vec((0..40u8, 0..30usize, 1..500usize), 1..60),
            most in 1..64usize,
        ) {
            let mut sweeps = Sweeps::new(&Seed::new(1));
            // The name, the places not looked at yet, and the turns that are left for them.
            let mut open: Vec<(TokenHash, Vec<usize>, usize)> = Vec::new();
            let (mut wait, mut bound) = (0, 1);
            let mut starts = starts.into_iter().peekable();
            while starts.peek().is_some() || !sweeps.is_empty() {
                while wait == 0 && let Some((name, pause, places)) = starts.next() {
                    (wait, bound) = (pause, places);
                    // A round may be cut into one slice more at its end and at its beginning.
                    let turns = 500_usize.div_ceil(most) + 2;
                    sweeps.begin([name; 7]);
                    open.push(([name; 7], (0..bound).collect(), turns));
                }
                wait = wait.saturating_sub(1);
                let slice = sweeps.next(bound, most);
                prop_assert!(slice.len() <= most && slice.end <= bound);
                for (token, left, turns) in &mut open {
                    prop_assert!(sweeps.wants(*token), "it is looked for until it was everywhere");
                    // Whoever was in a place that is there no more has gone.
                    left.retain(|at| !slice.contains(at) && *at < bound);
                    *turns -= 1;
                    prop_assert!(*turns > 0 || left.is_empty(), "a round has an end");
                }
                sweeps.end(bound);
                open.retain(|(_, left, _)| !left.is_empty());
            }
            prop_assert_eq!(open.len(), 0);
            prop_assert!(sweeps.wanted.is_empty());
        }
    }

    #[test]
    fn where_nobody_is_known_nothing_is_looked_for() {
        let mut sweeps = Sweeps::new(&Seed::new(1));
        sweeps.begin([1; 7]);
        assert_eq!(sweeps.next(0, 8), 0..0);
        sweeps.end(0);
        assert!(sweeps.is_empty() && !sweeps.wants([1; 7]));
    }
}
