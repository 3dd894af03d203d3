//! How old a thing is, told by its number.
//!
//! Connections are numbered as they come. Keeping the time of each with it would cost a million idle ones
//! four bytes each for a figure that is asked for once, at the end. So what is kept is a short list of marks:
//! the first number of every tick that had newcomers. When the list is full, marks that stand closer
//! together than a 64th of their age are dropped. Ages are exact (to the tick) for those who came lately,
//! and otherwise too long by a 32nd at most.

use crate::base::time::Tick;

/// Marks at most; 16 KiB. Ten years need 1,400 at the density that is kept.
const MOST: usize = 2048;
/// Marks may stand this part of their age apart.
const PART: u32 = 64;

/// When things came that are numbered in the order of their coming. Numbers wrap around.
#[derive(Debug)]
pub struct Ages {
    /// The first number of a tick, and the tick; both grow.
    marks: Vec<(u32, Tick)>,
    /// The last number that was noted.
    newest: u32,
}

impl Default for Ages {
    fn default() -> Self {
        Self { marks: Vec::with_capacity(MOST), newest: 0 }
    }
}

impl Ages {
    /// The thing of this number has come; each number follows the one before.
    pub fn note(&mut self, number: u32, now: Tick) {
        self.newest = number;
        if self.marks.last().is_some_and(|(_, tick)| *tick == now) {
            return;
        }
        if self.marks.len() == MOST {
            self.thin(now);
        }
        self.marks.push((number, now));
    }

    /// When the thing of this number came; `None` before the first.
    #[must_use]
    pub fn came(&self, number: u32) -> Option<Tick> {
        let age = self.newest.wrapping_sub(number);
        let after =
            self.marks.partition_point(|(first, _)| self.newest.wrapping_sub(*first) >= age);
        self.marks.get(after.checked_sub(1)?).map(|(_, tick)| *tick)
    }

    fn thin(&mut self, now: Tick) {
        let mut kept = 1;
        for at in 1..self.marks.len() - 1 {
            let (before, next) = (self.marks[kept - 1].1, self.marks[at + 1].1);
            if next.0.saturating_sub(before.0) > now.0.saturating_sub(next.0) / PART {
                self.marks[kept] = self.marks[at];
                kept += 1;
            }
        }
        self.marks[kept] = self.marks[self.marks.len() - 1];
        kept += 1;
        self.marks.truncate(kept);
        if self.marks.len() == MOST {
            // Not within ten years; then the oldest share a mark.
            self.marks.remove(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_came_lately_are_known_to_the_tick() {
        let mut ages = Ages::default();
        assert_eq!(ages.came(0), None);
        for number in 0..3000_u32 {
            ages.note(number, Tick(10 + number / 3));
        }
        for number in 0..3000 {
            assert_eq!(ages.came(number), Some(Tick(10 + number / 3)));
        }
    }

    #[test]
    fn an_age_is_never_too_short_and_too_long_by_little_however_many_came() {
        let mut ages = Ages::default();
        let start = u32::MAX - 70_000;
        let numbers = || (0..200_000_u32).map(|at| (start.wrapping_add(at), Tick(at / 2 * 3)));
        for (number, tick) in numbers() {
            ages.note(number, tick);
            assert!(ages.marks.len() <= MOST);
        }
        let now = Tick(99_999 * 3);
        for (number, tick) in numbers() {
            let (age, told) = (now.0 - tick.0, now.0 - ages.came(number).expect("a time").0);
            assert!((age..=age + age / 32 + 3).contains(&told), "{age} is told as {told}");
        }
        assert_eq!(ages.marks.capacity(), MOST, "nothing was allocated after the start");
    }
}
