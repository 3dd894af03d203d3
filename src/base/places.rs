//! Which places of a table are free, lowest first.
//!
//! Whoever takes a place gets the lowest that is free. So a table that was large and is not any more
//! gathers at its beginning as its users come and go, and what lies behind the last of them can be
//! given back. A free place is one bit; a second map has a bit for each word of the first that is not
//! zero, so that a search looks at 4,096 places at a time, and none begins before the lowest word that
//! may hold one.
//!
//! The places behind the last one taken are free as well and have no bits. It is not known here what
//! stands in a place.

/// Free and taken places, counted from zero.
#[derive(Debug, Default)]
pub struct Places {
    /// Bit set exactly for free places below `end`.
    free: Vec<u64>,
    /// Bit set exactly for words of `free` that are not zero.
    words: Vec<u64>,
    /// Words of `words` before this one are zero.
    lowest: usize,
    /// One more than the highest place that is taken.
    end: u32,
    /// Free places below `end`.
    holes: u32,
}

impl Places {
    /// Takes the lowest free place.
    ///
    /// # Panics
    /// When 2^32 - 1 places are taken.
    pub fn take(&mut self) -> u32 {
        if self.holes == 0 {
            let place = self.end;
            assert!(place < u32::MAX, "a table has fewer than 2^32 places");
            self.end += 1;
            return place;
        }
        while self.words[self.lowest] == 0 {
            self.lowest += 1;
        }
        let word = self.lowest * 64 + self.words[self.lowest].trailing_zeros() as usize;
        let bit = self.free[word].trailing_zeros();
        self.fill(word, 1 << bit);
        self.holes -= 1;
        // Below `end`, which fits.
        u32::try_from(word).unwrap_or(u32::MAX) * 64 + bit
    }

    /// Frees a place.
    ///
    /// # Panics
    /// When it is free already.
    pub fn give(&mut self, place: u32) {
        assert!(self.is_taken(place), "place {place} is free already");
        if place + 1 == self.end {
            self.end = place;
            return self.sink();
        }
        let (word, bit) = split(place);
        if word >= self.free.len() {
            self.free.resize(word + 1, 0);
            self.words.resize(word / 64 + 1, 0);
        }
        self.free[word] |= 1 << bit;
        self.words[word / 64] |= 1 << (word % 64);
        self.lowest = self.lowest.min(word / 64);
        self.holes += 1;
    }

    /// True when the place is taken.
    #[must_use]
    pub fn is_taken(&self, place: u32) -> bool {
        let (word, bit) = split(place);
        place < self.end && self.free.get(word).is_none_or(|free| free >> bit & 1 == 0)
    }

    /// One more than the highest place that is taken.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Number of places taken.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.end - self.holes) as usize
    }

    /// True when none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Lets `end` fall to behind the last place that is taken. Each place it passes was passed upwards by
    /// someone who took it.
    fn sink(&mut self) {
        while self.holes > 0 && self.end > 0 {
            let (word, bit) = split(self.end - 1);
            let Some(free) = self.free.get(word) else { return };
            let run = (free << (63 - bit)).leading_ones();
            if run == 0 {
                return;
            }
            self.fill(word, (u64::MAX >> (64 - run)) << (bit + 1 - run));
            self.holes -= run;
            self.end -= run;
        }
    }

    /// Clears bits of a word.
    fn fill(&mut self, word: usize, bits: u64) {
        self.free[word] &= !bits;
        if self.free[word] == 0 {
            self.words[word / 64] &= !(1 << (word % 64));
        }
    }
}

fn split(place: u32) -> (usize, u32) {
    ((place / 64) as usize, place % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn places_equal_a_set_of_which_the_lowest_missing_is_taken(
            steps in prop::collection::vec((0..5u8, any::<u32>(), 1..200usize), 1..60),
        ) {
            let (mut places, mut twin) = (Places::default(), BTreeSet::new());
            for (kind, which, times) in steps {
                for step in 0..times {
                    if kind < 2 || twin.is_empty() {
                        let lowest = (0..).find(|place| !twin.contains(place)).expect("one");
                        prop_assert_eq!(places.take(), lowest);
                        twin.insert(lowest);
                    } else {
                        // From the end, from the front, or from anywhere.
                        let which = which as usize ^ (step * 7919);
                        let at = [twin.len() - 1, 0, which % twin.len()][usize::from(kind - 2)];
                        let place = *twin.iter().nth(at).expect("in range");
                        twin.remove(&place);
                        places.give(place);
                    }
                }
                prop_assert_eq!(places.len(), twin.len());
                prop_assert_eq!(places.is_empty(), twin.is_empty());
                prop_assert_eq!(places.end(), twin.last().map_or(0, |last| last + 1));
                prop_assert!((0..600).all(|at| places.is_taken(at) == twin.contains(&at)));
            }
        }
    }

    #[test]
    fn the_end_of_a_million_falls_past_all_that_were_freed_before_the_last() {
        let mut places = Places::default();
        (0..1_000_000).for_each(|place| assert_eq!(places.take(), place));
        (0..999_999).for_each(|place| places.give(place));
        assert_eq!((places.len(), places.end()), (1, 1_000_000));
        places.give(999_999);
        assert_eq!((places.len(), places.end()), (0, 0));
        assert_eq!(places.take(), 0);
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn a_place_is_not_freed_twice() {
        let mut places = Places::default();
        (0..3).for_each(|_| _ = places.take());
        places.give(1);
        places.give(1);
    }
}
