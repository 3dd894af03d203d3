//! How amounts are spread, in a fixed number of places.
//!
//! The bounds double, so a place is found by counting leading zeros and a histogram needs no table: an
//! amount costs two additions. It remembers which places have changed since somebody last looked, because
//! the rim copies them into shared atomics once a turn and most turns touch one place or none.

/// Places of a histogram: bounds of 1, 2, 4 and so on to 2^22 grains, and one for what is more.
pub const PLACES: usize = 24;

/// The place of so many grains: the first whose bound is not below them.
#[must_use]
pub fn place(grains: u64) -> usize {
    let place = u64::BITS - grains.saturating_sub(1).leading_zeros();
    (place as usize).min(PLACES - 1)
}

/// The bound of a place in grains; `None` for the last, which has none.
#[must_use]
pub fn bound(place: usize) -> Option<u64> {
    (place + 1 < PLACES).then(|| 1 << place)
}

/// Amounts by size, written by one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; PLACES],
    sum: u64,
    /// One bit for each place that has changed since [`Histogram::take_changes`].
    changed: u32,
}

impl Histogram {
    /// Notes an amount, in any unit; `grain` of it make a grain.
    ///
    /// # Panics
    /// When `grain` is zero.
    pub fn note(&mut self, amount: u64, grain: u64) {
        let place = place(amount.div_ceil(grain));
        self.counts[place] += 1;
        self.sum = self.sum.wrapping_add(amount);
        self.changed |= 1 << place;
    }

    /// Amounts noted in each place.
    #[must_use]
    pub fn counts(&self) -> &[u64; PLACES] {
        &self.counts
    }

    /// The sum of all amounts, in their own unit.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Gives the places that have changed since the last call, with their counts, and the sum if any has.
    pub fn take_changes(&mut self, mut each: impl FnMut(usize, u64)) -> Option<u64> {
        let mut changed = std::mem::take(&mut self.changed);
        if changed == 0 {
            return None;
        }
        while changed != 0 {
            let place = changed.trailing_zeros() as usize;
            each(place, self.counts[place]);
            changed &= changed - 1;
        }
        Some(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_in_the_first_place_whose_bound_is_not_below_it() {
        for grains in (0..5000).chain([1 << 22, (1 << 22) + 1, u64::MAX]) {
            let slow = (0..PLACES).find(|at| bound(*at).is_none_or(|bound| grains <= bound));
            assert_eq!(Some(place(grains)), slow, "{grains}");
        }
    }

    #[test]
    fn changes_are_given_once() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.take_changes(|_, _| panic!("nothing has changed")), None);
        for amount in [1, 1000, 1001, 5000] {
            histogram.note(amount, 1000);
        }
        let mut seen = Vec::new();
        assert_eq!(histogram.take_changes(|at, count| seen.push((at, count))), Some(7002));
        assert_eq!(seen, [(0, 2), (1, 1), (3, 1)]);
        assert_eq!(histogram.take_changes(|_, _| panic!("it was taken")), None);
        histogram.note(1, 1000);
        histogram.take_changes(|at, count| seen.push((at, count)));
        assert_eq!(seen.last(), Some(&(0, 3)));
    }
}
