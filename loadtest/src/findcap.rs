//! The highest rate that a server sustains.
//!
//! Doubles the rate until a run misses the limit, then halves the distance between the highest rate that kept
//! it and the lowest that did not, until they are close. Each rate is a whole run with connections of its own,
//! so that one that went wrong leaves nothing behind. A run keeps the limit when it passed, did not fall behind
//! its own plan and its 99th percentile is within the limit.

use crate::coordinator::{Options, run};
use crate::outcome::Outcome;
use crate::spec::Spec;

/// What a rate must keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cap {
    /// The 99th percentile of the scenario's latency, in microseconds.
    pub(crate) p99_us: f64,
}

/// The rates tried are this close in the end.
const CLOSE: f64 = 1.06;
/// A search ends after so many runs in any case.
const RUNS: u32 = 24;

/// Searches from the scenario's rate. Returns the rate in messages a second with its run, or the first run when not even that rate was kept.
///
/// # Errors
/// When a run cannot begin.
pub(crate) fn find(spec: &Spec, options: &Options, cap: Cap) -> Result<(f64, Outcome), String> {
    if spec.load.rate <= 0.0 {
        return Err(
            "--find-cap needs an open loop: give the rate to begin with by --rate".to_owned()
        );
    }
    let mut search = Search::new(spec.load.rate);
    let mut best = None;
    let mut first = None;
    for _ in 0..RUNS {
        let Some(rate) = search.next() else { break };
        let mut spec = spec.clone();
        spec.load.rate = rate;
        let outcome = run(&spec, options)?;
        let kept = keeps(&outcome, cap);
        let p99 = outcome.latencies.first().map_or(0.0, |latency| latency.p99_us / 1000.0);
        let word = if kept { "kept" } else { "missed" };
        crate::say(&format!("{rate:.0}/s: {word}, p99 {p99:.2} ms"));
        search.note(rate, kept);
        if kept {
            best = Some((rate, outcome));
        } else if first.is_none() {
            first = Some((0.0, outcome));
        }
    }
    best.or(first).ok_or_else(|| "no run was made".to_owned())
}

fn keeps(outcome: &Outcome, cap: Cap) -> bool {
    let behind = outcome.generator.late_p99_us.is_some_and(|late| late > cap.p99_us);
    let within = outcome.latencies.first().is_some_and(|latency| latency.p99_us <= cap.p99_us);
    let dropped = outcome.totals.messages.dropped_by_policy > 0;
    outcome.verdict.passed && !behind && within && !dropped
}

/// Where to look next.
#[derive(Clone, Copy, Debug)]
struct Search {
    begin: f64,
    kept: Option<f64>,
    missed: Option<f64>,
}

impl Search {
    fn new(begin: f64) -> Self {
        Self { begin, kept: None, missed: None }
    }

    fn next(&self) -> Option<f64> {
        match (self.kept, self.missed) {
            (None, None) => Some(self.begin),
            (Some(kept), None) => Some(kept * 2.0),
            (None, Some(missed)) if missed < 1.0 => None,
            (None, Some(missed)) => Some(missed / 2.0),
            (Some(kept), Some(missed)) if missed / kept <= CLOSE => None,
            (Some(kept), Some(missed)) => Some((kept * missed).sqrt()),
        }
    }

    fn note(&mut self, rate: f64, kept: bool) {
        if kept {
            self.kept = Some(self.kept.map_or(rate, |before| before.max(rate)));
        } else {
            self.missed = Some(self.missed.map_or(rate, |before| before.min(rate)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(begin: f64, truth: f64) -> Option<f64> {
        let mut search = Search::new(begin);
        for _ in 0..RUNS {
            let Some(rate) = search.next() else { break };
            search.note(rate, rate <= truth);
        }
        search.kept
    }

    #[test]
    fn the_search_ends_close_below_the_truth_from_either_side() {
        for (begin, truth) in [(100.0, 7_777.0), (50_000.0, 1_234.0), (500.0, 500.0)] {
            let rate = found(begin, truth).expect("a rate");
            assert!(rate <= truth && rate * CLOSE * 1.001 >= truth, "{rate} for {truth}");
        }
    }

    #[test]
    fn a_server_that_keeps_nothing_is_given_up() {
        assert_eq!(found(100.0, 0.0), None);
    }
}
