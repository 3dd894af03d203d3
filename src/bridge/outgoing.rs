//! What waits to be published, and what was dropped.
//!
//! While Redis is away envelopes wait, up to a number and up to so many bytes; then the newest is dropped and
//! its channels are remembered, so that whoever is subscribed to them can be told once the link is back. As
//! many channels are remembered as have a place; beyond that nobody knows whom to tell, which is counted.

use std::collections::{BTreeSet, VecDeque};

use super::side::Channel;

/// Channels remembered of which something was dropped.
const MOST_LOST: usize = 16_384;

/// An envelope ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) channels: Vec<Channel>,
    pub(super) bytes: Vec<u8>,
}

impl Sealed {
    /// What it costs while it waits, about.
    fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>() + self.channels.len() * size_of::<Channel>()
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    waiting: VecDeque<Sealed>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    lost: BTreeSet<Channel>,
}

impl Outgoing {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, most, most_bytes, lost: BTreeSet::new() }
    }

    fn has_space(&self, cost: usize) -> bool {
        self.waiting.len() < self.most && self.bytes + cost <= self.most_bytes
    }

    /// Takes a question about the envelope before it, which nobody misses where there is no space; false then.
    pub(super) fn push_question(&mut self, sealed: Sealed) -> bool {
        self.has_space(sealed.cost()) && self.push(sealed)
    }

    /// Takes an envelope; false when there is no space for it.
    pub(super) fn push(&mut self, sealed: Sealed) -> bool {
        let cost = sealed.cost();
        if !self.has_space(cost) {
            for channel in sealed.channels {
                if self.lost.len() < MOST_LOST {
                    self.lost.insert(channel);
                }
            }
            return false;
        }
        self.bytes += cost;
        self.waiting.push_back(sealed);
        true
    }

    /// The next envelopes, at most `most`.
    pub(super) fn take(&mut self, most: usize) -> Vec<Sealed> {
        let count = most.min(self.waiting.len());
        let batch: Vec<Sealed> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(Sealed::cost).sum::<usize>();
        if self.waiting.is_empty() && self.waiting.capacity() > 4096 {
            self.waiting = VecDeque::new();
        }
        batch
    }

    /// Puts envelopes back in front of the others, whatever the bounds.
    pub(super) fn put_back(&mut self, batch: Vec<Sealed>) {
        self.bytes += batch.iter().map(Sealed::cost).sum::<usize>();
        for sealed in batch.into_iter().rev() {
            self.waiting.push_front(sealed);
        }
    }

    /// The channels of which something was dropped, each once.
    pub(super) fn take_lost(&mut self) -> BTreeSet<Channel> {
        std::mem::take(&mut self.lost)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(number: usize) -> Sealed {
        Sealed { channels: vec![(number % 3).to_string().into()], bytes: vec![0; 100] }
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_bytes_and_remembers_whom_it_failed() {
        let cost = sealed(0).cost();
        for (most, most_bytes) in [(10, usize::MAX), (usize::MAX, 10 * cost)] {
            let mut outgoing = Outgoing::new(most, most_bytes);
            let taken = (0..12).filter(|number| outgoing.push(sealed(*number))).count();
            assert_eq!((taken, outgoing.len()), (10, 10));
            let lost: Vec<Channel> = outgoing.take_lost().into_iter().collect();
            assert_eq!(lost, ["1", "2"].map(Channel::from));
            assert!(outgoing.take_lost().is_empty());
        }
    }

    #[test]
    fn what_is_put_back_goes_first_and_is_counted() {
        let mut outgoing = Outgoing::new(100, usize::MAX);
        (0..5).for_each(|number| assert!(outgoing.push(sealed(number))));
        let batch = outgoing.take(3);
        assert_eq!(outgoing.len(), 2);
        outgoing.put_back(batch.clone());
        assert_eq!(outgoing.take(3), batch);
        assert_eq!(outgoing.take(9).len(), 2);
        assert_eq!((outgoing.len(), outgoing.bytes), (0, 0));
    }
}
