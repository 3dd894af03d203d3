//! The text that Prometheus reads: families of samples, version 0.0.4 of the format.
//!
//! Written by hand, because a scrape is a walk over figures that exist already: a metrics library would keep
//! a second copy of each, behind a lock or an atomic of its own. What the format asks for is held here and by
//! a parser in the tests: a family is written once and whole, its help and type come first, no two of its
//! samples have the same labels, and label values are escaped.

use std::fmt::{self, Write as _};

use crate::base::histogram::{PLACES, bound};

/// What a scraper may assume of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, with a sum.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A document of families.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A family under way.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

/// A label's name and value.
pub type Label<'a> = (&'a str, &'a str);

impl Exposition {
    /// The document's media type.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family; each name once.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        for character in help.trim().chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
        self.put(format_args!("\n# TYPE {name} {}\n", kind.as_str()));
        Family { text: &mut self.text, name }
    }

    /// The document.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        put(&mut self.text, text);
    }
}

/// Writing to a string cannot fail.
fn put(to: &mut String, text: fmt::Arguments<'_>) {
    let _ = to.write_fmt(text);
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl fmt::Display) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// Adds a histogram with these counts per place. `scale` grains are one unit, of which the bounds and the
    /// sum are told.
    pub fn histogram(
        &mut self,
        labels: &[Label<'_>],
        counts: &[u64; PLACES],
        scale: f64,
        sum: f64,
    ) -> &mut Self {
        let mut total = 0_u64;
        for (place, count) in counts.iter().enumerate() {
            total += count;
            match bound(place) {
                #[expect(clippy::cast_precision_loss, reason = "bounds are powers of two")]
                Some(bound) => {
                    let bound = (bound as f64 / scale).to_string();
                    self.line("_bucket", labels, Some(&bound), total);
                }
                None => _ = self.line("_bucket", labels, Some("+Inf"), total),
            }
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, total)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Label<'_>],
        bound: Option<&str>,
        value: impl fmt::Display,
    ) -> &mut Self {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut open = '{';
        for (name, value) in labels {
            self.text.push(open);
            open = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if open == ',' {
            self.text.push('}');
        }
        put(self.text, format_args!(" {value}\n"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_help_type_and_escaped_labels() {
        let mut out = Exposition::default();
        out.family("a_total", Kind::Counter, " Of \\ and\nmore. ")
            .sample(&[("x", "1\"2\\3\n4"), ("y", "")], 7)
            .sample(&[], 8);
        let expected = "# HELP a_total Of \\\\ and\\nmore.\n# TYPE a_total counter\n\
            a_total{x=\"1\\\"2\\\\3\\n4\",y=\"\"} 7\na_total 8\n";
        assert_eq!(out.finish(), expected);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut counts = [0; PLACES];
        (counts[0], counts[3], counts[PLACES - 1]) = (2, 1, 4);
        let mut out = Exposition::default();
        out.family("h", Kind::Histogram, "H.").histogram(&[("s", "0")], &counts, 1e6, 0.5);
        let text = out.finish();
        for line in [
            "h_bucket{s=\"0\",le=\"0.000001\"} 2\n",
            "h_bucket{s=\"0\",le=\"0.000004\"} 2\n",
            "h_bucket{s=\"0\",le=\"0.000008\"} 3\n",
            "h_bucket{s=\"0\",le=\"4.194304\"} 3\n",
            "h_bucket{s=\"0\",le=\"+Inf\"} 7\n",
            "h_sum{s=\"0\"} 0.5\n",
            "h_count{s=\"0\"} 7\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
