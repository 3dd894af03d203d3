//! The page of a run: one file that can be attached, archived and opened anywhere.
//!
//! Everything is in it, style and plots included; it asks for nothing over the network and runs no
//! script, so that it looks in ten years as it does today and may be opened where scripts are forbidden.
//! It follows the reader's choice of light or dark. What it shows it takes from the outcome alone.
//!
//! - [`sections`]: headline, tiles, the table of latencies, the scenario.
//! - [`tables`]: totals, costs, the environment.
//! - [`spectrum`]: latency by percentile.
//! - [`charts`]: rates, latency, processor, memory and connections over time.
//! - [`plot`]: a plot as SVG; [`scale`]: the arithmetic of its axes.

mod charts;
mod plot;
mod scale;
mod sections;
mod spectrum;
mod tables;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use crate::outcome::Outcome;

/// The whole page.
pub(crate) fn page(outcome: &Outcome) -> String {
    let title = escape(&outcome.about.scenario);
    let body = [
        sections::headline(outcome),
        sections::tiles(outcome),
        "<section class=\"plots\">\n".to_owned(),
        spectrum::plot(outcome),
        sections::latency_table(&outcome.latencies),
        charts::over_time(outcome),
        "</section>\n".to_owned(),
        tables::all(outcome),
        sections::scenario(outcome),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} \u{2013} throng-load</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}<footer>throng-load {}</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Text as it may stand between tags and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What HTML has no way to write: control characters other than white space.
            control if control.is_control() && !"\n\t".contains(control) => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}

const STYLE: &str = include_str!("style.css");
