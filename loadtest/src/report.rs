//! What arrived, and whether that is what was sent.
//!
//! Each client keeps a [`Ledger`] of sequence numbers; the [`Report`] adds them up. A message is lost when
//! it never arrived, duplicated when it arrived again, reordered when it arrived after a later one.

use std::fmt;
use std::time::Duration;

/// The sequence numbers one client has seen. They count from 1.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// One bit a number.
    seen: Vec<u64>,
    messages: u64,
    highest: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
}

impl Ledger {
    /// An empty ledger for numbers from 1 to `messages`.
    pub(crate) fn new(messages: u64) -> Self {
        let words = usize::try_from(messages / 64 + 1).unwrap_or(usize::MAX);
        Self {
            seen: vec![0; words],
            messages,
            highest: 0,
            delivered: 0,
            duplicates: 0,
            reordered: 0,
        }
    }

    /// Notes an arrival. False when the number is not one of those expected.
    pub(crate) fn note(&mut self, seq: u64) -> bool {
        if seq == 0 || seq > self.messages {
            return false;
        }
        let Some(word) = usize::try_from(seq / 64).ok().and_then(|at| self.seen.get_mut(at)) else {
            return false;
        };
        let bit = 1 << (seq % 64);
        if *word & bit != 0 {
            self.duplicates += 1;
            return true;
        }
        *word |= bit;
        self.delivered += 1;
        self.reordered += u64::from(seq < self.highest);
        self.highest = self.highest.max(seq);
        true
    }

    /// The highest number seen.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) clients: u64,
    pub(crate) joined: u64,
    pub(crate) published: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// Messages the server itself said it dropped, by `throng:gap`.
    pub(crate) gaps: u64,
    /// How long it took until all had joined.
    pub(crate) joining: Duration,
    /// From the first publication to the last delivery.
    pub(crate) delivering: Duration,
    /// What went wrong, in words.
    pub(crate) failures: Vec<String>,
}

impl Report {
    /// Deliveries that never came.
    pub(crate) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }

    /// True when everything arrived once and in order, and nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost() == 0
            && self.duplicates == 0
            && self.reordered == 0
            && self.gaps == 0
            && self.failures.is_empty()
    }
}

/// Failures printed; the rest is counted.
const SHOWN_FAILURES: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.delivering.as_nanos().max(1);
        let rate = u128::from(self.delivered) * 1_000_000_000 / nanos;
        writeln!(f, "{:<22}{:>12} of {}", "clients joined", self.joined, self.clients)?;
        writeln!(f, "{:<22}{:>12} ms", "time to join", self.joining.as_millis())?;
        writeln!(f, "{:<22}{:>12}", "messages published", self.published)?;
        writeln!(f, "{:<22}{:>12} of {}", "deliveries", self.delivered, self.expected)?;
        writeln!(f, "{:<22}{:>12} ms", "time to deliver", self.delivering.as_millis())?;
        writeln!(f, "{:<22}{rate:>12} per second", "delivery rate")?;
        writeln!(f, "{:<22}{:>12}", "lost", self.lost())?;
        writeln!(f, "{:<22}{:>12}", "said to be dropped", self.gaps)?;
        writeln!(f, "{:<22}{:>12}", "duplicates", self.duplicates)?;
        writeln!(f, "{:<22}{:>12}", "reordered", self.reordered)?;
        for failure in self.failures.iter().take(SHOWN_FAILURES) {
            writeln!(f, "failure: {failure}")?;
        }
        if let Some(more @ 1..) = self.failures.len().checked_sub(SHOWN_FAILURES) {
            writeln!(f, "and {more} failures more")?;
        }
        write!(f, "{}", if self.is_clean() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_tells_lost_duplicated_and_reordered_apart() {
        let mut ledger = Ledger::new(130);
        for seq in (1..=130).filter(|seq| ![7, 64].contains(seq)) {
            assert!(ledger.note(seq));
        }
        assert!(ledger.note(64) && ledger.note(128) && ledger.note(64));
        assert!(!ledger.note(0) && !ledger.note(131));
        assert_eq!((ledger.duplicates, ledger.reordered), (2, 1));
        assert_eq!((ledger.delivered, ledger.highest()), (129, 130));
    }

    #[test]
    fn one_fault_of_any_kind_fails_the_report() {
        let clean = Report { expected: 4, delivered: 4, ..Report::default() };
        assert!(clean.is_clean() && clean.to_string().ends_with("passed"));
        let faults = [
            Report { delivered: 3, ..clean.clone() },
            Report { duplicates: 1, ..clean.clone() },
            Report { reordered: 1, ..clean.clone() },
            Report { gaps: 1, ..clean.clone() },
            Report { failures: vec!["x".into()], ..clean },
        ];
        for report in faults {
            assert!(!report.is_clean() && report.to_string().ends_with("FAILED"), "{report}");
        }
    }

    #[test]
    fn failures_beyond_ten_are_counted() {
        let report = Report { failures: vec!["x".into(); 12], ..Report::default() };
        assert!(report.to_string().contains("and 2 failures more"), "{report}");
    }
}
