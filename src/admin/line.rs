//! Questions that wait to be posted, and when they have waited too long.
//!
//! First come, first served, and no more than there are places for. Patience counts from the arrival, so a
//! question that waited has less of it left for its answer, and one that has none is not posted at all: who
//! asked has given up on it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Time;

/// A question, and since when it waits.
#[derive(Debug)]
struct Waiting<Q> {
    question: Q,
    since: Time,
}

/// Questions in the order they came.
#[derive(Debug)]
pub(super) struct Line<Q> {
    waiting: VecDeque<Waiting<Q>>,
}

/// What is to be done with the first of the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<Q> {
    /// Post it; so much of its patience is left.
    Post(Q, Duration),
    /// Give it up.
    Late(Q),
}

impl<Q> Line<Q> {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a question in, unless `most` wait already.
    pub(super) fn push(&mut self, question: Q, now: Time, most: usize) -> Result<(), Q> {
        if self.waiting.len() >= most {
            return Err(question);
        }
        self.waiting.push_back(Waiting { question, since: now });
        Ok(())
    }

    /// The first of the line, if there is one.
    pub(super) fn next(&mut self, now: Time, patience: Duration) -> Option<Next<Q>> {
        let Waiting { question, since } = self.waiting.pop_front()?;
        if self.waiting.is_empty() && self.waiting.capacity() > 64 {
            self.waiting = VecDeque::new();
        }
        let left = patience.saturating_sub(now.since(since));
        Some(if left.is_zero() { Next::Late(question) } else { Next::Post(question, left) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO.plus(Duration::from_millis(millis))
    }

    #[test]
    fn the_line_is_bounded_in_order_and_in_time() {
        let patience = Duration::from_millis(100);
        let mut line = Line::new();
        assert_eq!(line.push('a', at(0), 2), Ok(()));
        assert_eq!(line.push('b', at(60), 2), Ok(()));
        assert_eq!(line.push('c', at(60), 2), Err('c'));
        assert_eq!(line.len(), 2);
        assert_eq!(line.next(at(100), patience), Some(Next::Late('a')));
        let left = Duration::from_millis(60);
        assert_eq!(line.next(at(100), patience), Some(Next::Post('b', left)));
        assert_eq!(line.next(at(100), patience), None);
    }
}
