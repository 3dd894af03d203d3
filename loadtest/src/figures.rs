//! Figures that follow from an outcome and are shown in more than one place.
//!
//! A rate needs a span of time, and which span is a decision: the measured part, from the first
//! publication to the last, and of its seconds only those that lie wholly within it. The terminal, the
//! page and the comparison take both from here, so that they cannot disagree. Nothing is judged here.

use crate::outcome::{Latency, Outcome, Second};

/// A second of the series together with its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) second: &'a Second,
    /// Seconds; above zero.
    pub(crate) length_s: f64,
}

impl Interval<'_> {
    /// A count of this interval as a rate.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.length_s
    }

    /// Processor time of the server per message received; absent when it was not sampled or nothing
    /// was received.
    pub(crate) fn cpu_us_per_message(&self) -> Option<f64> {
        let cores = self.second.server_cores?;
        let received = self.second.received;
        (received > 0).then(|| cores * self.length_s * 1e6 / received as f64)
    }
}

/// The series with the length of each interval; those of no length are left out.
pub(crate) fn intervals(outcome: &Outcome) -> Vec<Interval<'_>> {
    let mut before = 0.0;
    let mut found = Vec::with_capacity(outcome.series.len());
    for second in &outcome.series {
        let length_s = second.at_s - before;
        before = second.at_s;
        if length_s > 0.0 {
            found.push(Interval { second, length_s });
        }
    }
    found
}

/// When the measured part began and ended, in seconds of the run: the publishing, or in a run that
/// publishes nothing what lies between connecting and closing.
pub(crate) fn measured(outcome: &Outcome) -> (f64, f64) {
    let end = duration_s(outcome);
    let first = |name: &str| outcome.phases.iter().find(|phase| phase.name == name);
    let last = |name: &str| outcome.phases.iter().rfind(|phase| phase.name == name);
    if let (Some(first), Some(last)) = (first("publish"), last("publish")) {
        return (first.from_s, last.to_s);
    }
    let from = last("connect").map_or(0.0, |phase| phase.to_s);
    let to = first("close").map_or(end, |phase| phase.from_s);
    if to > from { (from, to) } else { (0.0, end) }
}

/// The intervals that lie wholly within the measured part.
pub(crate) fn measured_intervals(outcome: &Outcome) -> Vec<Interval<'_>> {
    let (from, to) = measured(outcome);
    let within = |interval: &Interval<'_>| {
        let end = interval.second.at_s;
        end - interval.length_s >= from - SLACK_S && end <= to + SLACK_S
    };
    intervals(outcome).into_iter().filter(within).collect()
}

/// How long the run lasted, in seconds.
pub(crate) fn duration_s(outcome: &Outcome) -> f64 {
    let phases = outcome.phases.iter().map(|phase| phase.to_s);
    let series = outcome.series.iter().map(|second| second.at_s);
    phases.chain(series).fold(0.0, f64::max)
}

/// The mean rate of what `count` takes from a second, over the measured part. A part too short for a
/// whole second takes `total` over its length. Absent when it has no length.
pub(crate) fn mean_rate(
    outcome: &Outcome,
    total: u64,
    count: impl Fn(&Second) -> u64,
) -> Option<f64> {
    let intervals = measured_intervals(outcome);
    let length: f64 = intervals.iter().map(|interval| interval.length_s).sum();
    if length > 0.0 {
        let counted: u64 = intervals.iter().map(|interval| count(interval.second)).sum();
        return Some(counted as f64 / length);
    }
    let (from, to) = measured(outcome);
    (to > from).then(|| total as f64 / (to - from))
}

/// Messages received per second over the measured part.
pub(crate) fn received_per_s(outcome: &Outcome) -> Option<f64> {
    let total = outcome.totals.messages.received;
    mean_rate(outcome, total, |second| second.received).filter(|_| total > 0)
}

/// Messages sent per second over the measured part.
pub(crate) fn sent_per_s(outcome: &Outcome) -> Option<f64> {
    let total = outcome.totals.messages.sent;
    mean_rate(outcome, total, |second| second.sent).filter(|_| total > 0)
}

/// The latency the scenario is about: that of deliveries or echoes, otherwise the first there is.
pub(crate) fn main_latency(outcome: &Outcome) -> Option<&Latency> {
    let filled = || outcome.latencies.iter().filter(|latency| latency.count > 0);
    let named = |name: &str| filled().find(|latency| latency.name == name);
    named("delivery").or_else(|| named("echo")).or_else(|| filled().next())
}

/// How far a second may stick out of a phase: they are clocked by different hands.
const SLACK_S: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::PhaseSpan;

    fn phase(name: &str, from_s: f64, to_s: f64) -> PhaseSpan {
        PhaseSpan { name: name.into(), from_s, to_s }
    }

    fn run(phases: Vec<PhaseSpan>) -> Outcome {
        let second = |at: u32| Second {
            at_s: f64::from(at),
            received: if at > 2 { 100 } else { 0 },
            server_cores: Some(0.5),
            ..Second::default()
        };
        Outcome { phases, series: (1..=6).map(second).collect(), ..Outcome::default() }
    }

    #[test]
    fn rates_are_of_whole_seconds_within_the_publishing() {
        let mut outcome = run(vec![phase("connect", 0.0, 2.0), phase("publish", 2.0, 4.5)]);
        outcome.totals.messages.received = 400;
        assert_eq!(measured(&outcome), (2.0, 4.5));
        assert_eq!(measured_intervals(&outcome).len(), 2);
        assert_eq!(received_per_s(&outcome), Some(100.0));
        assert_eq!(measured_intervals(&outcome)[0].cpu_us_per_message(), Some(5000.0));
        outcome.series.clear();
        assert_eq!(received_per_s(&outcome), Some(160.0));
    }

    #[test]
    fn a_run_that_publishes_nothing_is_measured_between_connecting_and_closing() {
        let outcome = run(vec![phase("connect", 0.0, 2.0), phase("close", 5.0, 6.0)]);
        assert_eq!(measured(&outcome), (2.0, 5.0));
        assert_eq!(received_per_s(&outcome), None);
        assert_eq!(measured(&run(Vec::new())), (0.0, 6.0));
        assert_eq!(measured(&Outcome::default()), (0.0, 0.0));
    }

    #[test]
    fn the_main_latency_is_of_deliveries_where_there_are_any() {
        let latency =
            |name: &str, count| Latency { name: name.into(), count, ..Latency::default() };
        let latencies = vec![latency("connect", 5), latency("delivery", 7)];
        let mut outcome = Outcome { latencies, ..Outcome::default() };
        assert_eq!(main_latency(&outcome).map(|latency| latency.count), Some(7));
        outcome.latencies[1].count = 0;
        assert_eq!(main_latency(&outcome).map(|latency| latency.count), Some(5));
    }
}
