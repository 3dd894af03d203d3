//! `throng doctor`: what this machine would do to the node, before it does.
//!
//! Facts are gathered in one place ([`facts`]) and judged in another ([`checks`]), which touches nothing, so
//! that every judgement is tested with facts of machines that are not here. Each finding says what was found,
//! what is needed, and the exact line that mends it. [`estimate`] tells memory and descriptors for a number of
//! connections from the measured figures of docs/performance.md; [`idle`] watches how long a connection
//! through proxies may be silent, and [`proxy`] whether an upgrade passes them.

mod checks;
mod estimate;
mod facts;
mod idle;
mod proxy;

use std::fmt::Write as _;

use crate::node::config::Config;
use crate::node::doctor::checks::{Finding, Want};
use crate::node::doctor::facts::Facts;
use crate::node::settings;
use crate::shard::OUTCOME_BYTES;
use crate::sys::memory;

pub use idle::{Url, watch_idle};
pub use proxy::try_upgrade;

/// What so many connections would cost with this configuration, as a text.
#[must_use]
pub fn estimate(config: &Config, connections: u64) -> String {
    let shards = u64::from(settings::shards(config)).max(1);
    let remembered = shards * u64::from(config.inside.explain.outcomes) * OUTCOME_BYTES;
    estimate::text(connections, shards, memory::available(), remembered)
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is as it should be.
    Good,
    /// It works and could be better.
    Warning,
    /// It will not work as configured.
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "BAD",
        }
    }
}

/// Examines this machine for the configuration: the report, and the worst that was found.
#[must_use]
pub fn examine(config: &Config) -> (String, Verdict) {
    let findings = checks::findings(&Facts::gather(config), &Want::of(config));
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    (report(&findings), worst)
}

fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { verdict, what, found, needed, fix } = finding;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:8} {what}: found {found}, needed {needed}", verdict.word());
        for line in fix {
            let _ = writeln!(text, "         {line}");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
    let _ = writeln!(text, "{} checks, {bad} bad, {warnings} warnings", findings.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_finding_and_the_lines_that_mend_it() {
        let finding = |verdict, fix: &[&str]| Finding {
            verdict,
            what: "a limit",
            found: "1".to_owned(),
            needed: "2".to_owned(),
            fix: fix.iter().map(|line| (*line).to_owned()).collect(),
        };
        let text = report(&[finding(Verdict::Good, &[]), finding(Verdict::Bad, &["do", "this"])]);
        let expected = "ok       a limit: found 1, needed 2\nBAD      a limit: found 1, needed 2\n         \
                        do\n         this\n2 checks, 1 bad, 0 warnings\n";
        assert_eq!(text, expected);
        assert!(Verdict::Bad > Verdict::Warning && Verdict::Warning > Verdict::Good);
    }
}
