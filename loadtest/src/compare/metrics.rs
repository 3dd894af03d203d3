//! The figures of an outcome that can be compared.
//!
//! Each has a name, a unit, a direction, one value a run, and where the series allows it one value a
//! second of the measured part. The seconds serve when there are too few runs to resample; they know
//! nothing of how runs differ from each other, which the table says. How figures are compared is not
//! decided here.

use crate::figures::{Interval, main_latency, measured_intervals, received_per_s};
use crate::human;
use crate::outcome::{Latency, Memory, Outcome, Second, ServerUse};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// One figure over the runs of one side.
#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) better: Better,
    pub(super) write: fn(f64) -> String,
    /// One value a run, of the runs that have it.
    pub(super) runs: Vec<f64>,
    /// One value a second, over all runs; empty when the series does not tell.
    pub(super) seconds: Vec<f64>,
}

/// One figure of both sides.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) a: Metric,
    pub(super) b: Metric,
}

/// One figure of one run.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) better: Better,
    pub(crate) write: fn(f64) -> String,
}

/// The figures of one run, in the order of the table.
pub(crate) fn figures(outcome: &Outcome) -> Vec<Figure> {
    let figure = |metric: Metric| {
        let Metric { name, better, write, runs, .. } = metric;
        runs.first().map(|value| Figure { name, value: *value, better, write })
    };
    of_run(outcome).into_iter().filter_map(figure).collect()
}

/// The figures that any of the runs has, in the order of the table.
pub(super) fn collect(runs: &[Outcome]) -> Vec<Metric> {
    let mut found: Vec<Metric> = Vec::new();
    for metric in runs.iter().flat_map(of_run) {
        match found.iter_mut().find(|known| known.name == metric.name) {
            Some(known) => {
                known.runs.extend(metric.runs);
                known.seconds.extend(metric.seconds);
            }
            None => found.push(metric),
        }
    }
    found
}

/// The figures that both sides have, in the order of A.
pub(super) fn pair(a: Vec<Metric>, mut b: Vec<Metric>) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(a.len());
    for a in a {
        if let Some(at) = b.iter().position(|b| b.name == a.name) {
            pairs.push(Pair { a, b: b.swap_remove(at) });
        }
    }
    pairs
}

/// The pairs with the wanted names in that order, or all when none is named.
///
/// # Errors
/// A name that no pair has, with the nearest that one has.
pub(super) fn choose(pairs: Vec<Pair>, wanted: &[String]) -> Result<Vec<Pair>, String> {
    if wanted.is_empty() {
        return Ok(pairs);
    }
    let find = |name: &String| {
        pairs.iter().find(|pair| pair.a.name == *name).cloned().ok_or_else(|| {
            // By its beginning rather than its length: most names end alike.
            let alike = |pair: &Pair| strsim::jaro_winkler(&pair.a.name, name);
            let nearest = pairs.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
            let hint = nearest.map(|pair| format!(", the nearest is {}", pair.a.name));
            format!("--metric {name}: not a figure of both sides{}", hint.unwrap_or_default())
        })
    };
    wanted.iter().map(find).collect()
}

fn of_run(outcome: &Outcome) -> Vec<Metric> {
    let intervals = measured_intervals(outcome);
    let mut found = Gathered { metrics: Vec::new() };
    if let Some(server) = &outcome.server {
        found.server(server, &intervals);
        found.memory(&server.memory);
    }
    let main = main_latency(outcome).map(|latency| latency.name.as_str());
    for latency in outcome.latencies.iter().filter(|latency| latency.count > 0) {
        // The series is of the main latency only.
        let intervals = if main == Some(&latency.name) { intervals.as_slice() } else { &[] };
        found.latency(latency, intervals);
    }
    let received: Vec<_> =
        intervals.iter().map(|interval| interval.per_second(interval.second.received)).collect();
    let rate = received_per_s(outcome);
    found.add("received_per_s", rate, Better::Higher, human::rate, received);
    let generator = &outcome.generator;
    let us = generator.cpu_us_per_message;
    found.time("generator_cpu_us_per_message", us, Vec::new());
    let bytes = generator.bytes_per_client;
    found.add("generator_bytes_per_client", bytes, Better::Lower, human::exact_bytes, Vec::new());
    found.metrics
}

/// The figures of one run while they are gathered.
struct Gathered {
    metrics: Vec<Metric>,
}

impl Gathered {
    /// Adds a figure that the run has, with its values a second where the series has them.
    fn add(
        &mut self,
        name: &str,
        value: Option<f64>,
        better: Better,
        write: fn(f64) -> String,
        seconds: Vec<f64>,
    ) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let (name, runs) = (name.to_owned(), vec![value]);
            self.metrics.push(Metric { name, better, write, runs, seconds });
        }
    }

    /// Adds a time of which less is better.
    fn time(&mut self, name: &str, us: Option<f64>, seconds: Vec<f64>) {
        self.add(name, us, Better::Lower, human::micros, seconds);
    }

    fn server(&mut self, server: &ServerUse, intervals: &[Interval<'_>]) {
        let seconds = intervals.iter().filter_map(Interval::cpu_us_per_message).collect();
        self.time("cpu_us_per_message", server.cpu_us_per_message, seconds);
        self.time("core_busy_us_per_message", server.core_busy_us_per_message, Vec::new());
        self.time("cpu_us_per_session", server.cpu_us_per_session, Vec::new());
        let frames = server.frames_per_write;
        self.add("frames_per_write", frames, Better::Higher, human::digits, Vec::new());
    }

    fn memory(&mut self, memory: &Memory) {
        let figures = [
            ("user_bytes_per_connection", memory.user_bytes_per_connection),
            ("pss_bytes_per_connection", memory.pss_anon_per_connection),
            ("kernel_bytes_per_connection", memory.kernel_bytes_per_connection),
        ];
        for (name, value) in figures {
            self.add(name, value, Better::Lower, human::exact_bytes, Vec::new());
        }
    }

    fn latency(&mut self, latency: &Latency, intervals: &[Interval<'_>]) {
        let gauge = |gauge: fn(&Second) -> Option<f64>| {
            intervals.iter().filter_map(|interval| gauge(interval.second)).collect()
        };
        let figures: [(&str, f64, Vec<f64>); 3] = [
            ("p50", latency.p50_us, gauge(|second| second.p50_us)),
            ("p99", latency.p99_us, gauge(|second| second.p99_us)),
            ("p999", latency.p999_us, Vec::new()),
        ];
        for (percentile, us, seconds) in figures {
            let name = format!("{}_{percentile}_us", latency.name);
            self.time(&name, Some(us), seconds);
        }
    }
}
