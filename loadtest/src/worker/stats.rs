//! What one thread measures.
//!
//! Histograms are the thread's own and are added up when it has ended; once a second a copy of that second's
//! goes to the coordinator, through a bounded channel, and is lost rather than waited for.

use crate::hdr::Hist;

/// The histograms of a run.
#[derive(Clone, Debug)]
pub(crate) struct Hists {
    /// Planned send to receipt: deliveries or echoes.
    pub(crate) delivery: Hist,
    /// The same for those whom the scenario leaves alone (storm, slow).
    pub(crate) spared: Hist,
    /// Dial to greeting.
    pub(crate) connect: Hist,
    /// Join to its reply.
    pub(crate) join: Hist,
    /// From being dropped to being back.
    pub(crate) back: Hist,
    /// How late messages left.
    pub(crate) late: Hist,
}

impl Default for Hists {
    fn default() -> Self {
        Self {
            delivery: Hist::fine(),
            spared: Hist::fine(),
            connect: Hist::fine(),
            join: Hist::fine(),
            back: Hist::fine(),
            late: Hist::fine(),
        }
    }
}

impl Hists {
    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.delivery.merge(&other.delivery);
        self.spared.merge(&other.spared);
        self.connect.merge(&other.connect);
        self.join.merge(&other.join);
        self.back.merge(&other.back);
        self.late.merge(&other.late);
    }
}

/// One thread's latencies of one second.
#[derive(Debug)]
pub(crate) struct SecondReport {
    pub(crate) latencies: Hist,
}

/// When each publication reached its last subscriber, by stream and sequence number.
///
/// Every `stride`-th publication is followed, so that long runs stay within memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastSeen {
    stride: u64,
    /// Microseconds after the planned moment plus one; 0 for not seen.
    streams: Vec<Vec<u32>>,
}

/// Publications of one stream that are followed at most.
const FOLLOWED: u64 = 1 << 18;

impl LastSeen {
    /// Follows so many streams of about so many messages.
    pub(crate) fn new(streams: usize, messages: u64) -> Self {
        let per_stream = (FOLLOWED / (streams.max(1) as u64)).max(16);
        let stride = (messages / streams.max(1) as u64 / per_stream).max(1);
        Self { stride, streams: vec![Vec::new(); streams] }
    }

    /// Notes a receipt.
    pub(crate) fn note(&mut self, stream: u32, seq: u64, latency_ns: u64) {
        if !seq.is_multiple_of(self.stride) {
            return;
        }
        let Some(of) = usize::try_from(stream).ok().and_then(|at| self.streams.get_mut(at)) else {
            return;
        };
        let at = usize::try_from((seq / self.stride).min(4 * FOLLOWED)).unwrap_or(0);
        if of.len() <= at {
            of.resize(at + 1, 0);
        }
        let micros = u32::try_from(latency_ns / 1000 + 1).unwrap_or(u32::MAX);
        of[at] = of[at].max(micros);
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.streams.len() < other.streams.len() {
            self.streams.resize(other.streams.len(), Vec::new());
        }
        for (mine, theirs) in self.streams.iter_mut().zip(&other.streams) {
            if mine.len() < theirs.len() {
                mine.resize(theirs.len(), 0);
            }
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine = (*mine).max(*theirs);
            }
        }
    }

    /// The latencies to the last subscriber.
    pub(crate) fn hist(&self) -> Hist {
        let mut hist = Hist::fine();
        for micros in self.streams.iter().flatten().filter(|micros| **micros > 0) {
            hist.record_ns(u64::from(micros - 1) * 1000);
        }
        hist
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_receipt_on_any_thread_counts() {
        let mut one = LastSeen::new(2, 100);
        let mut other = one.clone();
        one.note(0, 1, 5_000);
        other.note(0, 1, 9_000_000);
        other.note(1, 7, 1_000);
        one.note(5, 1, 1);
        one.merge(&other);
        let latency = one.hist().latency("last");
        assert_eq!(latency.count, 2);
        assert!((8_990.0..9_010.0).contains(&latency.max_us), "{}", latency.max_us);
    }

    #[test]
    fn long_streams_are_sampled() {
        let mut seen = LastSeen::new(1, FOLLOWED * 10);
        for seq in 1..=100 {
            seen.note(0, seq, 1_000);
        }
        assert_eq!(seen.hist().latency("last").count, 10);
    }
}
