//! What waits to be numbered.
//!
//! In the order in which the node gave it, up to a number and up to so many bytes; what comes then is refused at
//! once, so that its author hears of it. What was under way when a link broke goes again, with the number of
//! writing that it had: by that Redis knows whether it has it already. What Redis has surely not done goes under
//! a new one.

use std::collections::VecDeque;

use super::side::Append;

/// A publication on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct Waiting {
    pub(super) append: Append,
    /// Its number of writing, from the moment it first leaves.
    pub(super) written: Option<u64>,
}

/// The queue.
#[derive(Debug)]
pub(in crate::bridge) struct Appends {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    written: u64,
}

impl Appends {
    pub(in crate::bridge) fn new(most: usize, most_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, most, most_bytes, written: 0 }
    }

    /// Takes a publication.
    ///
    /// # Errors
    /// Its ticket, when there is no space for it.
    pub(in crate::bridge) fn push(&mut self, append: Append) -> Result<(), u64> {
        let cost = cost(&append);
        if self.waiting.len() >= self.most || self.bytes + cost > self.most_bytes {
            return Err(append.ticket);
        }
        self.bytes += cost;
        self.waiting.push_back(Waiting { append, written: None });
        Ok(())
    }

    /// The next, at most `most`, each with its number of writing. These rise.
    pub(in crate::bridge) fn take(&mut self, most: usize) -> Vec<Waiting> {
        let count = most.min(self.waiting.len());
        let mut batch: Vec<Waiting> = self.waiting.drain(..count).collect();
        for waiting in &mut batch {
            self.bytes -= cost(&waiting.append);
            waiting.written.get_or_insert_with(|| {
                self.written += 1;
                self.written
            });
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 4096 {
            self.waiting = VecDeque::new();
        }
        batch
    }

    /// Puts them back in front of the others, whatever the bounds. `undone`: Redis has surely not done them.
    pub(super) fn put_back(&mut self, batch: Vec<Waiting>, undone: bool) {
        for mut waiting in batch.into_iter().rev() {
            self.bytes += cost(&waiting.append);
            waiting.written = waiting.written.filter(|_| !undone);
            self.waiting.push_front(waiting);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// What it costs while it waits, about.
fn cost(append: &Append) -> usize {
    let names = append.from.as_ref().map_or(0, String::len)
        + append.once.as_ref().map_or(0, |(once, _)| once.len());
    append.order.len() + names + size_of::<Waiting>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bridge::streams::Bound;

    fn append(ticket: u64) -> Append {
        Append {
            channel: "room:r".into(),
            order: vec![0; 100],
            from: None,
            once: None,
            bound: Bound { count: 1, bytes: 1, age: Duration::ZERO },
            ticket,
        }
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_bytes_and_says_whom_it_refuses() {
        let cost = cost(&append(0));
        for (most, most_bytes) in [(10, usize::MAX), (usize::MAX, 10 * cost)] {
            let mut appends = Appends::new(most, most_bytes);
            let refused: Vec<u64> =
                (0..12).filter_map(|ticket| appends.push(append(ticket)).err()).collect();
            assert_eq!((refused, appends.len()), (vec![10, 11], 10));
            assert_eq!(appends.take(99).len(), 10);
            assert_eq!((appends.len(), appends.bytes), (0, 0));
        }
    }

    #[test]
    fn what_goes_again_keeps_its_number_of_writing_unless_it_was_surely_not_done() {
        let mut appends = Appends::new(100, usize::MAX);
        (0..5).for_each(|ticket| assert_eq!(appends.push(append(ticket)), Ok(())));
        let numbers = |batch: &[Waiting]| -> Vec<(u64, u64)> {
            let number = |one: &Waiting| (one.append.ticket, one.written.unwrap_or(0));
            batch.iter().map(number).collect()
        };
        let batch = appends.take(3);
        assert_eq!(numbers(&batch), [(0, 1), (1, 2), (2, 3)]);
        appends.put_back(batch, false);
        let batch = appends.take(4);
        assert_eq!(numbers(&batch), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        appends.put_back(batch, true);
        assert_eq!(numbers(&appends.take(9)), [(0, 5), (1, 6), (2, 7), (3, 8), (4, 9)]);
        assert_eq!(appends.bytes, 0);
    }
}
