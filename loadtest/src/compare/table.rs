//! The comparison in print: a line for each figure.
//!
//! A line says what its interval was drawn from. Runs are drawn from when each side has three; otherwise
//! the seconds within them, whose spread is smaller than that between runs, so that their intervals are
//! narrower than they ought to be; the foot of the table says so.

use super::metrics::{Better, Metric, Pair};
use super::stats::{self, Interval};
use crate::human;

/// What a line says about B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The whole interval is worse than allowed.
    Worse,
    /// The whole interval is on the better side of no change.
    Better,
    /// Neither; or no interval.
    Open,
}

/// One figure of both sides, compared.
#[derive(Clone, Debug)]
pub(super) struct Line {
    name: String,
    better: Better,
    write: fn(f64) -> String,
    a: Option<f64>,
    b: Option<f64>,
    ratio: Option<f64>,
    interval: Option<Interval>,
    /// What the medians and the interval are of.
    basis: String,
    by_seconds: bool,
}

impl Line {
    /// Compares by runs where both sides have enough, by seconds where they have those, and otherwise
    /// without an interval.
    pub(super) fn new(pair: &Pair) -> Self {
        let (a, b) = (&pair.a, &pair.b);
        let enough =
            |of: fn(&Metric) -> &[f64], least| of(a).len() >= least && of(b).len() >= least;
        let by_runs = enough(|metric| &metric.runs, RUNS);
        let by_seconds = !by_runs && enough(|metric| &metric.seconds, SECONDS);
        let of = |metric: &Metric| {
            if by_seconds { metric.seconds.clone() } else { metric.runs.clone() }
        };
        let (sample_a, sample_b) = (of(a), of(b));
        let interval =
            (by_runs || by_seconds).then(|| stats::interval(&sample_a, &sample_b)).flatten();
        let what = if by_seconds { "seconds" } else { "runs" };
        Self {
            name: a.name.clone(),
            better: a.better,
            write: a.write,
            a: stats::median(&sample_a),
            b: stats::median(&sample_b),
            ratio: stats::ratio(&sample_a, &sample_b),
            interval,
            basis: format!("{} and {} {what}", sample_a.len(), sample_b.len()),
            by_seconds,
        }
    }

    /// What the interval says when a figure may be `worse` times as bad.
    pub(super) fn finding(&self, worse: f64) -> Finding {
        let Some(Interval { low, high }) = self.interval else { return Finding::Open };
        match self.better {
            Better::Lower if low > worse => Finding::Worse,
            Better::Higher if high < 1.0 / worse => Finding::Worse,
            Better::Lower if high < 1.0 => Finding::Better,
            Better::Higher if low > 1.0 => Finding::Better,
            _ => Finding::Open,
        }
    }

    fn cells(&self, worse: f64) -> Vec<String> {
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), self.write);
        let interval = self.interval.map_or_else(
            || "none".to_owned(),
            |interval| format!("{:.3} to {:.3}", interval.low, interval.high),
        );
        let finding = match self.finding(worse) {
            Finding::Worse => "WORSE",
            Finding::Better => "better",
            Finding::Open => "",
        };
        vec![
            self.name.clone(),
            figure(self.a),
            figure(self.b),
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            interval,
            self.basis.clone(),
            finding.to_owned(),
        ]
    }
}

/// The table, what its intervals are worth, and the verdict.
pub(super) fn render(lines: &[Line], worse: f64) -> String {
    let heads = ["figure", "A", "B", "B/A", "95 % interval", "medians of", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(|line| line.cells(worse)));
    let mut text = human::columns(&rows);
    text.push('\n');
    if lines.iter().any(|line| line.by_seconds) {
        text.push_str(
            "Intervals over seconds know nothing of how runs differ; give three runs a side.\n",
        );
    }
    if lines.iter().any(|line| line.interval.is_none()) {
        text.push_str("Without an interval nothing is judged; give three runs a side.\n");
    }
    let names: Vec<_> = lines
        .iter()
        .filter(|line| line.finding(worse) == Finding::Worse)
        .map(|line| line.name.as_str())
        .collect();
    if names.is_empty() {
        text.push_str(&format!("no figure is worse than {worse} times\n"));
    } else {
        text.push_str(&format!("WORSE than {worse} times: {}\n", names.join(", ")));
    }
    text
}

/// Runs a side that the bootstrap needs at least.
const RUNS: usize = 3;
/// Seconds a side that it needs at least.
const SECONDS: usize = 10;
