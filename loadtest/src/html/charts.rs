//! What is plotted over time: rates, latency, processor time, memory, connections.
//!
//! All plots share the axis of the run's seconds and its phases. A run longer than a plot is wide has
//! several seconds to a point: means of rates, the worst of latencies and memory, so that no stall is
//! averaged away. Two rates share a plot only when one scale does justice to both. A plot of nothing is
//! not drawn.

use super::plot::{Band, Line, Plot};
use super::scale::{Scale, time_ticks};
use crate::figures::{self, Interval};
use crate::human;
use crate::outcome::{Outcome, Second};

/// The plots over time, one below the other.
pub(super) fn over_time(outcome: &Outcome) -> String {
    let time = Time::new(outcome);
    let mut page = time.rates();
    page.push_str(&time.latency());
    page.push_str(&time.processor());
    page.push_str(&time.memory());
    page.push_str(&time.connections());
    page
}

/// One point in time, which may be several seconds.
struct Point<'a> {
    from_s: f64,
    to_s: f64,
    intervals: Vec<Interval<'a>>,
}

/// What a line shows of a point; absent where nothing was measured.
type Value<'v> = &'v dyn Fn(&Point<'_>) -> Option<f64>;

/// The axis that the plots share, and the run in points of it.
struct Time<'a> {
    end_s: f64,
    /// Seconds to a point.
    together: usize,
    points: Vec<Point<'a>>,
    bands: Vec<Band>,
}

/// How one plot reads.
struct Look {
    title: &'static str,
    note: String,
    /// The step of the unit's prefixes.
    base: f64,
    write: fn(f64) -> String,
    logarithmic: bool,
}

/// A line: its label, its class, its values.
type Named = (&'static str, &'static str, Vec<Option<f64>>);

impl Point<'_> {
    /// The rate of a count over the point's time.
    fn rate(&self, count: impl Fn(&Second) -> u64) -> Option<f64> {
        let counted: u64 = self.intervals.iter().map(|interval| count(interval.second)).sum();
        Some(counted as f64 / (self.to_s - self.from_s))
    }

    /// The mean of a gauge over the seconds that have it, each by its length.
    fn mean(&self, gauge: impl Fn(&Second) -> Option<f64>) -> Option<f64> {
        let (mut sum, mut length) = (0.0, 0.0);
        for interval in &self.intervals {
            if let Some(value) = gauge(interval.second) {
                sum += value * interval.length_s;
                length += interval.length_s;
            }
        }
        (length > 0.0).then(|| sum / length)
    }

    /// The largest value of a gauge.
    fn worst(&self, gauge: impl Fn(&Second) -> Option<f64>) -> Option<f64> {
        self.intervals.iter().filter_map(|interval| gauge(interval.second)).reduce(f64::max)
    }
}

impl<'a> Time<'a> {
    fn new(outcome: &'a Outcome) -> Self {
        let end_s = figures::duration_s(outcome).max(0.001);
        let intervals = figures::intervals(outcome);
        let together = intervals.len().div_ceil(POINTS).max(1);
        let point = |intervals: &[Interval<'a>]| {
            let (first, last) = (intervals.first()?, intervals.last()?);
            let from_s = first.second.at_s - first.length_s;
            Some(Point { from_s, to_s: last.second.at_s, intervals: intervals.to_vec() })
        };
        let points = intervals.chunks(together).filter_map(point).collect();
        let bands = outcome.phases.iter().map(|phase| Band {
            from: phase.from_s / end_s,
            to: phase.to_s / end_s,
            label: phase.name.clone(),
        });
        Self { end_s, together, points, bands: bands.collect() }
    }

    fn rates(&self) -> String {
        let sent = self.values(&|point| point.rate(|second| second.sent));
        let received = self.values(&|point| point.rate(|second| second.received));
        let alike = peak(&received) <= LIKE * peak(&sent) && peak(&sent) <= LIKE * peak(&received);
        let look = |title| Look {
            title,
            note: self.note("per second", "mean"),
            base: 1000.0,
            write: human::compact,
            logarithmic: false,
        };
        let (sent, received) = (("sent", "s2", sent), ("received", "s1", received));
        if alike {
            return self.plot(look("Messages"), vec![received, sent]);
        }
        let mut plots = self.plot(look("Messages received"), vec![received]);
        plots.push_str(&self.plot(look("Messages sent"), vec![sent]));
        plots
    }

    fn latency(&self) -> String {
        let look = Look {
            title: "Latency",
            note: self.note("of each second, logarithmic", "worst"),
            base: 10.0,
            write: human::micros,
            logarithmic: true,
        };
        let p50 = self.values(&|point| point.worst(|second| second.p50_us));
        let p99 = self.values(&|point| point.worst(|second| second.p99_us));
        let max = self.values(&|point| point.worst(|second| second.max_us));
        self.plot(look, vec![("max", "quiet", max), ("p99", "s2", p99), ("p50", "s1", p50)])
    }

    fn processor(&self) -> String {
        let look = Look {
            title: "Processor time",
            note: self.note("cores' worth", "mean"),
            base: 1000.0,
            write: human::digits,
            logarithmic: false,
        };
        let server = self.values(&|point| point.mean(|second| second.server_cores));
        let generator = self.values(&|point| point.mean(|second| Some(second.generator_cores)));
        self.plot(look, vec![("generator", "s2", generator), ("server", "s1", server)])
    }

    fn memory(&self) -> String {
        let look = Look {
            title: "Memory of the server",
            note: self.note("anonymous resident", "worst"),
            base: 1024.0,
            write: human::bytes,
            logarithmic: false,
        };
        let memory = |second: &Second| second.server_rss_anon.map(|bytes| bytes as f64);
        let memory = self.values(&|point| point.worst(memory));
        self.plot(look, vec![("RssAnon", "s1", memory)])
    }

    fn connections(&self) -> String {
        let look = Look {
            title: "Connections",
            note: self.note("open at the end of each second", "most"),
            base: 1000.0,
            write: human::compact,
            logarithmic: false,
        };
        let connected = self.values(&|point| point.worst(|second| Some(second.connected as f64)));
        self.plot(look, vec![("connected", "s1", connected)])
    }

    fn values(&self, value: Value<'_>) -> Vec<Option<f64>> {
        self.points.iter().map(value).collect()
    }

    /// What is plotted, and of how many seconds a point is what where it is of several.
    fn note(&self, what: &str, of_several: &str) -> String {
        match self.together {
            1 => what.to_owned(),
            seconds => format!("{what}; {of_several} of every {seconds} seconds"),
        }
    }

    fn plot(&self, look: Look, lines: Vec<Named>) -> String {
        let values = || lines.iter().flat_map(|line| line.2.iter().flatten().copied());
        let most = values().fold(0.0, f64::max);
        if most <= 0.0 {
            return String::new();
        }
        let scale = if look.logarithmic {
            let least = values().filter(|value| *value > 0.0).fold(most, f64::min);
            Scale::logarithmic(least, most)
        } else {
            Scale::from_zero(most, look.base)
        };
        let tick = |value: f64| {
            let text = if value == 0.0 { "0".to_owned() } else { (look.write)(value) };
            (scale.share(value), human::short(&text))
        };
        let up = scale.ticks(look.base, Plot::room(HEIGHT)).into_iter().map(tick).collect();
        let alone = lines.len() == 1;
        let strips = self.strips(&lines, look.write);
        let drawn = lines.into_iter().filter(|line| line.2.iter().any(Option::is_some));
        let drawn = drawn.map(|(label, class, values)| {
            let place = |(point, value): (&Point<'_>, Option<f64>)| {
                value.map(|value| (self.middle(point), scale.share(value)))
            };
            // A line on its own is named by the title; its highest point is what is asked next.
            let (label, label_at) = if alone {
                (format!("peak {}", human::short(&(look.write)(most))), scale.share(most))
            } else {
                (label.to_owned(), scale.share(usual(&values)))
            };
            let points = self.points.iter().zip(values).map(place).collect();
            Line { label, class, points, label_at, filled: alone }
        });
        let across = time_ticks(self.end_s);
        Plot {
            height: HEIGHT,
            title: look.title.to_owned(),
            note: look.note,
            across: across.into_iter().map(|(at, text)| (at / self.end_s, text)).collect(),
            up,
            bands: self.bands.clone(),
            lines: drawn.collect(),
            strips,
        }
        .render()
    }

    fn middle(&self, point: &Point<'_>) -> f64 {
        f64::midpoint(point.from_s, point.to_s) / self.end_s
    }

    /// The figures of each point, shown under the pointer.
    fn strips(&self, lines: &[Named], write: fn(f64) -> String) -> Vec<(f64, f64, String)> {
        let mut strips = Vec::with_capacity(self.points.len());
        for (at, point) in self.points.iter().enumerate() {
            let middle = self.middle(point);
            let within = |band: &&Band| band.from <= middle && middle < band.to;
            let phase = self.bands.iter().find(within).map_or("", |band| &band.label);
            let mut text = format!("{:.0} to {:.0} s {phase}", point.from_s, point.to_s);
            for (label, _, values) in lines {
                if let Some(value) = values.get(at).copied().flatten() {
                    text.push_str(&format!("\n{label} {}", write(value)));
                }
            }
            let width = (point.to_s - point.from_s) / self.end_s;
            strips.push((point.from_s / self.end_s, width, text));
        }
        strips
    }
}

fn peak(values: &[Option<f64>]) -> f64 {
    values.iter().flatten().copied().fold(0.0, f64::max)
}

/// The median of what was measured, near which most of a line runs.
fn usual(values: &[Option<f64>]) -> f64 {
    let mut values: Vec<f64> = values.iter().flatten().copied().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Points across a plot, about two units of its width each.
const POINTS: usize = 360;
const HEIGHT: f64 = 144.0;
/// How many times as high one rate may be as another that shares its plot.
const LIKE: f64 = 4.0;
