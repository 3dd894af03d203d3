//! Histograms of latencies.
//!
//! Nanoseconds from 100 ns to two minutes, what lies beyond counted at the ends: a latency of more than
//! two minutes is two minutes too long, whatever it was. Three significant digits for what is reported,
//! two for the seconds of the series, of which there are many. The size of a histogram is fixed when it
//! is made, so that recording never allocates. The text form and the log are those of HdrHistogram, so
//! that its tools read both. When to record, and what, is the caller's business.

use std::fs::File;
use std::io::{BufWriter, Cursor, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use crate::figures;
use crate::outcome::{Latency, Outcome};

/// A histogram of nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hist {
    counts: Histogram<u64>,
}

impl Hist {
    /// At three significant digits, for what is reported: about 180 KiB.
    pub(crate) fn fine() -> Self {
        Self::with_digits(3)
    }

    /// At two significant digits, for one second of the series: about 25 KiB.
    pub(crate) fn coarse() -> Self {
        Self::with_digits(2)
    }

    fn with_digits(digits: u8) -> Self {
        match Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, digits) {
            Ok(counts) => Self { counts },
            Err(error) => unreachable!("the bounds are constants that fit: {error}"),
        }
    }

    /// Counts one value; one beyond the bounds counts at the nearer end.
    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.counts.saturating_record(ns);
    }

    /// Adds what another counted. Its values keep the resolution they were counted at.
    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so that everything fits; one read from a file may have others.
        if self.counts.add(&other.counts).is_err() {
            for step in other.counts.iter_recorded() {
                self.counts.saturating_record_n(step.value_iterated_to(), step.count_at_value());
            }
        }
    }

    /// True while nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Values counted.
    pub(crate) fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The value, in microseconds, that the share `quantile` (0 to 1) does not exceed; absent when
    /// nothing was counted.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        (!self.is_empty()).then(|| micros(self.counts.value_at_quantile(quantile)))
    }

    /// The largest value in microseconds; absent when nothing was counted.
    pub(crate) fn max_us(&self) -> Option<f64> {
        (!self.is_empty()).then(|| micros(self.counts.max()))
    }

    /// The figures of an outcome, with the histogram itself as text.
    pub(crate) fn latency(&self, name: &str) -> Latency {
        let quantile = |quantile| micros(self.counts.value_at_quantile(quantile));
        Latency {
            name: name.to_owned(),
            count: self.count(),
            mean_us: self.counts.mean() / 1000.0,
            min_us: micros(self.counts.min()),
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            p9999_us: quantile(0.9999),
            max_us: micros(self.counts.max()),
            hdr: self.to_text(),
        }
    }

    /// The histogram of an outcome's latency.
    ///
    /// # Errors
    /// The text is not a histogram, in words that name the latency.
    pub(crate) fn from_latency(latency: &Latency) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| {
            format!("the histogram of the latency {} cannot be read: {error}", latency.name)
        };
        let bytes = STANDARD.decode(&latency.hdr).map_err(|error| wrong(&error))?;
        let counts =
            Deserializer::new().deserialize(&mut Cursor::new(bytes)).map_err(|e| wrong(&e))?;
        Ok(Self { counts })
    }

    fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        match V2DeflateSerializer::new().serialize(&self.counts, &mut bytes) {
            Ok(_) => STANDARD.encode(bytes),
            Err(error) => unreachable!("writing to memory cannot fail: {error}"),
        }
    }
}

/// Writes an HdrHistogram V2 interval log: one interval for each latency, tagged with its name, over
/// the whole run.
///
/// # Errors
/// The file cannot be written, or a histogram of the outcome cannot be read; in words.
pub(crate) fn write_log(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = BufWriter::new(File::create(path).map_err(|error| wrong(&error))?);
    let began = UNIX_EPOCH + Duration::from_millis(outcome.about.started_unix_ms);
    let length = Duration::try_from_secs_f64(figures::duration_s(outcome)).unwrap_or_default();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("throng-load {}, nanoseconds", outcome.about.scenario))
        .with_start_time(began)
        .with_base_time(began)
        // The column of the maximum is for people, who read milliseconds more easily.
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut file, &mut serializer)
        .map_err(|error| wrong(&error))?;
    for latency in &outcome.latencies {
        let hist = Hist::from_latency(latency)?;
        log.write_histogram(&hist.counts, Duration::ZERO, length, Tag::new(&latency.name))
            .map_err(|error| wrong(&error))?;
    }
    file.flush().map_err(|error| wrong(&error))
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

const LOWEST_NS: u64 = 100;
const HIGHEST_NS: u64 = 120_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn near(found: f64, wanted: f64) {
        assert!((found / wanted - 1.0).abs() < 0.002, "{found} is not {wanted}");
    }

    #[test]
    fn percentiles_are_in_microseconds_and_survive_the_text() {
        let mut hist = Hist::fine();
        for ms in 1..=1000 {
            hist.record_ns(ms * 1_000_000);
        }
        let latency = hist.latency("delivery");
        assert_eq!((latency.name.as_str(), latency.count), ("delivery", 1000));
        near(latency.p50_us, 500_000.0);
        near(latency.p99_us, 990_000.0);
        near(latency.p999_us, 999_000.0);
        near(latency.mean_us, 500_500.0);
        near(latency.max_us, 1_000_000.0);
        let again = Hist::from_latency(&latency).expect("what was written");
        assert_eq!(again.latency("delivery"), latency);
    }

    #[test]
    fn values_beyond_the_bounds_count_at_the_ends() {
        let mut hist = Hist::coarse();
        hist.record_ns(0);
        hist.record_ns(u64::MAX);
        assert_eq!(hist.count(), 2);
        assert!(hist.max_us().is_some_and(|max| max < 140e6), "{hist:?}");
    }

    #[test]
    fn merging_adds_at_any_resolution() {
        let (mut fine, mut coarse) = (Hist::fine(), Hist::coarse());
        assert!(fine.is_empty() && fine.quantile_us(0.5).is_none());
        coarse.record_ns(5_000_000);
        fine.merge(&coarse);
        fine.merge(&fine.clone());
        assert_eq!(fine.count(), 2);
        assert!(fine.quantile_us(0.5).is_some_and(|us| (us / 5000.0 - 1.0).abs() < 0.01));
    }

    #[test]
    fn a_text_that_is_no_histogram_is_refused_by_name() {
        for hdr in ["", "?", "aGVsbG8="] {
            let latency = Latency { name: "echo".into(), hdr: hdr.into(), ..Latency::default() };
            let error = Hist::from_latency(&latency).expect_err(hdr);
            assert!(error.contains("echo"), "{error}");
        }
    }

    #[test]
    fn the_log_holds_one_tagged_interval_for_each_latency() {
        let outcome = crate::html::sample::fanout();
        let path = std::env::temp_dir().join(format!("throng-load-{}.hlog", std::process::id()));
        write_log(&path, &outcome).expect("a log");
        let text = std::fs::read(&path).expect("the log");
        std::fs::remove_file(&path).expect("the log is there");
        let entries: Vec<_> = IntervalLogIterator::new(&text).map(|e| e.expect("entry")).collect();
        let tags: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => interval.tag().map(|tag| tag.as_str().to_owned()),
                _ => None,
            })
            .collect();
        let names: Vec<_> = outcome.latencies.iter().map(|latency| latency.name.clone()).collect();
        assert_eq!(tags, names);
        assert!(entries.iter().any(|entry| matches!(entry, LogEntry::BaseTime(_))));
    }
}
