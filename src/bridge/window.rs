//! Which envelopes came before.
//!
//! An envelope for several rooms is published on the channel of each, so a node with members in two of them
//! hears it twice; and what was published when the link broke is published again, as nobody knows whether it
//! arrived. Each node numbers its envelopes, and of each the last numbers are remembered as bits. What is
//! older than they reach is taken for known: to lose it is the lesser evil.

use std::collections::BTreeMap;

/// Numbers remembered of each node, in words of 64.
const WORDS: usize = 64;
/// Nodes remembered, each life of a node for itself; the one not heard of for longest goes first.
const MOST_ORIGINS: usize = 1024;

/// What was heard of all nodes.
#[derive(Debug, Default)]
pub(super) struct Windows {
    origins: BTreeMap<(Box<str>, u64), Window>,
    heard: u64,
}

#[derive(Debug)]
struct Window {
    /// One above the highest number seen.
    next: u64,
    /// Bit `n % (64 * WORDS)`: number `n`, of the last so many, was seen.
    bits: [u64; WORDS],
    heard: u64,
}

impl Window {
    const SPAN: u64 = 64 * WORDS as u64;

    fn first(&mut self, number: u64) -> bool {
        if number >= self.next {
            let from = self.next.max(number.saturating_sub(Self::SPAN - 1));
            (from..=number).for_each(|between| self.set(between, false));
            self.next = number.saturating_add(1);
        } else if self.next - number > Self::SPAN || self.has(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn place(number: u64) -> (usize, u64) {
        let bit = number % Self::SPAN;
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.bits[word] & bit != 0
    }

    fn set(&mut self, number: u64, seen: bool) {
        let (word, bit) = Self::place(number);
        if seen {
            self.bits[word] |= bit;
        } else {
            self.bits[word] &= !bit;
        }
    }
}

impl Windows {
    /// True the first time that this number of this life of that node is seen.
    pub(super) fn first(&mut self, node: &str, epoch: u64, number: u64) -> bool {
        self.heard += 1;
        let origin = (Box::from(node), epoch);
        if !self.origins.contains_key(&origin) && self.origins.len() >= MOST_ORIGINS {
            let oldest = self.origins.iter().min_by_key(|(_, window)| window.heard);
            let oldest = oldest.map(|(origin, _)| origin.clone());
            oldest.map(|origin| self.origins.remove(&origin));
        }
        let window =
            self.origins.entry(origin).or_insert(Window { next: 0, bits: [0; WORDS], heard: 0 });
        window.heard = self.heard;
        window.first(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_number_is_new_once_as_a_set_of_the_last_ones_has_it(
            numbers in prop::collection::vec(prop_oneof![0..300_u64, 4000..9000_u64, 0..20_000_u64], 0..400),
        ) {
            let (mut windows, mut seen, mut next) = (Windows::default(), BTreeSet::new(), 0);
            for number in numbers {
                let too_old = number + Window::SPAN < next;
                let expected = !too_old && seen.insert(number);
                prop_assert_eq!(windows.first("a", 1, number), expected, "{}", number);
                next = next.max(number + 1);
            }
        }
    }

    #[test]
    fn nodes_and_their_lives_are_told_apart() {
        let mut windows = Windows::default();
        for (node, epoch) in [("a", 1), ("a", 2), ("b", 1)] {
            assert!(windows.first(node, epoch, 5));
            assert!(!windows.first(node, epoch, 5));
        }
    }

    #[test]
    fn no_number_of_nodes_fills_the_memory() {
        let mut windows = Windows::default();
        for node in 0..5000_u64 {
            assert!(windows.first("stranger", node, 1));
            assert!(windows.first("friend", 0, node), "who is heard of is remembered");
        }
        assert_eq!(windows.origins.len(), MOST_ORIGINS);
        assert!(!windows.first("friend", 0, 4999));
    }
}
