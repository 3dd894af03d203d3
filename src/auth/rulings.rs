//! Answers that are remembered for a moment.
//!
//! Two generations of half the size each: when the young one is full it becomes the old one, and what was
//! the old one is forgotten. So the set never holds more than it may, forgetting costs nothing, and what
//! was answered lately is there. An answer is good until its end, which whoever keeps it says.

use super::consult::Ruling;
use crate::base::map::{Map, Seed};
use crate::base::time::Time;

#[derive(Debug)]
struct Kept {
    ruling: Ruling,
    until: Time,
}

/// Answers by the keys of their questions.
#[derive(Debug)]
pub struct Rulings {
    young: Map<Box<str>, Kept>,
    old: Map<Box<str>, Kept>,
}

impl Rulings {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { young: seed.map(), old: seed.map() }
    }

    /// The answer to a question, while it is good.
    #[must_use]
    pub fn get(&self, key: &str, now: Time) -> Option<&Ruling> {
        let kept = self.young.get(key).or_else(|| self.old.get(key))?;
        (kept.until > now).then_some(&kept.ruling)
    }

    /// Remembers an answer until then, among `most` at most.
    pub fn keep(&mut self, key: Box<str>, ruling: Ruling, until: Time, most: usize) {
        if most < 2 {
            return;
        }
        if self.young.len() >= most / 2 {
            let hasher = self.young.hasher().clone();
            self.old = std::mem::replace(&mut self.young, Map::with_hasher(hasher));
        }
        self.old.remove(&key);
        self.young.insert(key, Kept { ruling, until });
    }

    /// How many are remembered, those that have ended included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True when nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what has ended, and gives its memory back.
    pub fn purge(&mut self, now: Time) {
        for kept in [&mut self.young, &mut self.old] {
            kept.retain(|_, kept| kept.until > now);
            kept.shrink_to(kept.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Time {
        Time::ZERO.plus(Duration::from_secs(seconds))
    }

    proptest! {
        /// The twin is a list of everything that was ever kept: what is remembered is its latest entry, and
        /// the latest half is always remembered.
        #[test]
        fn what_was_kept_lately_is_there_until_its_end(
            steps in prop::collection::vec((0..20u8, 0..9u64), 1..80), most in 2..9usize,
        ) {
            let mut rulings = Rulings::new(&Seed::new(1));
            let mut twin: Vec<(String, u64)> = Vec::new();
            for (now, (key, life)) in steps.into_iter().enumerate() {
                let now = now as u64;
                let key = key.to_string();
                rulings.keep(key.as_str().into(), Ruling::Allow, at(now + life), most);
                twin.retain(|(kept, _)| *kept != key);
                twin.push((key, now + life));
                prop_assert!(rulings.len() <= most);
                for (age, (key, until)) in twin.iter().rev().enumerate() {
                    let found = rulings.get(key, at(now)).is_some();
                    prop_assert!(!found || *until > now, "{key} has ended");
                    prop_assert!(found || *until <= now || age >= most / 2, "{key} is forgotten");
                }
            }
        }
    }

    #[test]
    fn what_has_ended_is_not_found_and_its_memory_comes_back() {
        let mut rulings = Rulings::new(&Seed::new(1));
        for number in 0..1000 {
            rulings.keep(number.to_string().into(), Ruling::Undecided, at(number), 4000);
        }
        assert_eq!(rulings.get("500", at(499)), Some(&Ruling::Undecided));
        assert_eq!(rulings.get("500", at(500)), None);
        rulings.purge(at(990));
        assert_eq!(rulings.len(), 9);
        assert!(rulings.young.capacity() < 100);
        rulings.keep("a".into(), Ruling::Allow, at(2000), 0);
        assert_eq!(rulings.get("a", at(1)), None, "none are to be remembered");
    }
}
