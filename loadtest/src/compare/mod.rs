//! `throng-load compare`: is B slower than A?
//!
//! Reads the outcomes of two sides, takes from each the figures that both have, and tells how they stand
//! to each other with an interval, because a ratio without one invites belief in noise. The exit code is
//! for CI: only a change for the worse that the whole interval agrees on fails.
//!
//! - [`metrics`]: which figures, where they are found, which way is better.
//! - [`stats`]: medians and the bootstrap; numbers only.
//! - [`table`]: what is printed.
//!
//! Failed and void runs are left out and named: what they measured must not be believed.

mod metrics;
mod stats;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use metrics::{Better, figures};

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::outcome::{FORMAT, Outcome};

/// Compares the outcomes of two sides, as runs before and after a change.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Outcomes of the side that is the measure, as `--json` wrote them.
    #[arg(long, value_name = "JSON", num_args = 1.., required = true)]
    a: Vec<PathBuf>,
    /// Outcomes of the side that is judged.
    #[arg(long, value_name = "JSON", num_args = 1.., required = true)]
    b: Vec<PathBuf>,
    /// Only these figures; all that both sides have when none is named.
    #[arg(long = "metric", value_name = "NAME", num_args = 1..)]
    metrics: Vec<String>,
    /// How many times worse a figure of B may be before the comparison fails.
    #[arg(long, value_name = "RATIO", default_value_t = 1.05, value_parser = ratio)]
    worse: f64,
}

impl Args {
    /// Prints the comparison. True when no figure is worse than allowed.
    ///
    /// # Errors
    /// A file cannot be read or is of another format, the runs are of different scenarios, nothing can be
    /// compared, or a named figure is not there; in words.
    pub(crate) fn run(self) -> Result<bool, String> {
        let (a, b) = (side("A", &self.a)?, side("B", &self.b)?);
        let (lines, notes) = compare(&a, &b, &self.metrics)?;
        for note in a.left_out.iter().chain(&b.left_out).chain(&notes) {
            let _ = writeln!(io::stderr(), "throng-load: {note}");
        }
        let text = table::render(&lines, self.worse);
        io::stdout().write_all(text.as_bytes()).map_err(|error| format!("output: {error}"))?;
        Ok(lines.iter().all(|line| line.finding(self.worse) != table::Finding::Worse))
    }
}

/// The runs of one side that may be believed.
struct Side {
    runs: Vec<Outcome>,
    /// A sentence for each run that may not.
    left_out: Vec<String>,
}

fn side(name: &str, files: &[PathBuf]) -> Result<Side, String> {
    let mut side = Side { runs: Vec::new(), left_out: Vec::new() };
    for path in files {
        let run = read(path)?;
        let why = match (run.verdict.passed, run.verdict.void) {
            (true, false) => {
                side.runs.push(run);
                continue;
            }
            (false, _) => "failed",
            (true, true) => "is void",
        };
        side.left_out.push(format!("{}: left out, because the run {why}", path.display()));
    }
    if side.runs.is_empty() {
        return Err(format!("side {name} has no run to believe: {}", side.left_out.join("; ")));
    }
    Ok(side)
}

fn read(path: &Path) -> Result<Outcome, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read(path).map_err(|error| wrong(&error))?;
    // The version first: of another format nothing else can be relied on.
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    if version.format != FORMAT {
        return Err(wrong(&format!("format {}, this reads {FORMAT}", version.format)));
    }
    serde_json::from_slice(&text).map_err(|error| wrong(&error))
}

/// The lines of the table, and notes on what the reader should know.
fn compare(
    a: &Side,
    b: &Side,
    wanted: &[String],
) -> Result<(Vec<table::Line>, Vec<String>), String> {
    let mut notes = Vec::new();
    alike(a.runs.iter().chain(&b.runs), &mut notes)?;
    let (a, b) = (metrics::collect(&a.runs), metrics::collect(&b.runs));
    let both = metrics::pair(a, b);
    let chosen = metrics::choose(both, wanted)?;
    let lines: Vec<_> = chosen.iter().map(table::Line::new).collect();
    if lines.is_empty() {
        return Err("the two sides have no figure in common".to_owned());
    }
    Ok((lines, notes))
}

/// Refuses runs that measured different things; notes those that differ in size.
fn alike<'a>(
    mut runs: impl Iterator<Item = &'a Outcome>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let Some(first) = runs.next().map(|run| &run.about) else { return Ok(()) };
    for about in runs.map(|run| &run.about) {
        if about.scenario != first.scenario {
            return Err(format!("different scenarios, {} and {}", first.scenario, about.scenario));
        }
        if about.open_loop != first.open_loop {
            return Err("one run is an open loop, another a closed one".to_owned());
        }
        if about.clients != first.clients {
            let note = format!("clients differ, {} and {}", first.clients, about.clients);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    Ok(())
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (1.0..=1000.0).contains(&ratio) => Ok(ratio),
        _ => Err("a ratio of at least 1, as 1.05".to_owned()),
    }
}
