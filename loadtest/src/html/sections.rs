//! The words and tables of the page: headline, tiles, totals, environment, scenario.
//!
//! Whatever comes from outside goes through [`escape`]. Rows of what was not measured are left out, and
//! a table without rows is not there at all.

use super::escape;
use crate::figures;
use crate::human;
use crate::outcome::{Latency, Outcome};
use crate::summary;

/// Name, place and kind of the run, and what to think of it.
pub(super) fn headline(outcome: &Outcome) -> String {
    let about = &outcome.about;
    let (class, word) = verdict(outcome);
    let mut text = format!(
        "<header>\n<p class=\"verdict {class}\">{word}</p>\n<h1>{}</h1>\n<p class=\"about\">",
        escape(&about.scenario)
    );
    let facts = [
        format!("{} clients", human::count(about.clients)),
        about.url.clone(),
        format!("dialect {}", about.dialect),
        summary::loop_kind(about.open_loop).to_owned(),
        human::seconds(figures::duration_s(outcome)),
        human::date(about.started_unix_ms),
    ];
    let facts: Vec<_> = facts.iter().map(|fact| format!("<span>{}</span>", escape(fact))).collect();
    text.push_str(&facts.join(" "));
    text.push_str("</p>\n");
    for (class, title, reasons) in [
        ("bad", "Faults", &outcome.verdict.faults),
        ("doubt", "Doubts: do not believe the figures", &outcome.verdict.doubts),
    ] {
        if !reasons.is_empty() {
            text.push_str(&format!("<div class=\"reasons {class}\"><h2>{title}</h2><ul>"));
            for reason in reasons {
                text.push_str(&format!("<li>{}</li>", escape(reason)));
            }
            text.push_str("</ul></div>\n");
        }
    }
    text.push_str("</header>\n");
    text
}

/// The class and the word of the verdict.
fn verdict(outcome: &Outcome) -> (&'static str, &'static str) {
    match (outcome.verdict.passed, outcome.verdict.void) {
        (true, false) => ("good", "Passed"),
        (true, true) => ("doubt", "Passed, but void"),
        (false, false) => ("bad", "Failed"),
        (false, true) => ("bad", "Failed, and void"),
    }
}

/// The key figures; those that were not measured are left out.
pub(super) fn tiles(outcome: &Outcome) -> String {
    let found = [
        sessions_tile(outcome),
        delivered_tile(outcome),
        rate_tile(outcome),
        latency_tile(outcome),
        processor_tile(outcome),
        memory_tile(outcome),
    ];
    let mut text = String::from("<section class=\"tiles\">\n");
    for (label, value, note) in found.into_iter().flatten() {
        text.push_str(&format!(
            "<div><h2>{}</h2><p>{}</p><small>{}</small></div>\n",
            escape(&label),
            escape(&value),
            escape(&note)
        ));
    }
    text.push_str("</section>\n");
    text
}

/// Label, figure and what qualifies it.
type Tile = Option<(String, String, String)>;

fn tile(label: &str, value: String, note: String) -> Tile {
    Some((label.to_owned(), value, note))
}

fn sessions_tile(outcome: &Outcome) -> Tile {
    let sessions = &outcome.totals.sessions;
    let wrong = sessions.refused + sessions.ended_by_server;
    let note = match (wrong, sessions.ended_by_plan) {
        (0, 0) => "none refused or ended early".to_owned(),
        (0, planned) => format!("{} ended by plan", human::count(planned)),
        (wrong, _) => format!("{} refused or ended by the server", human::count(wrong)),
    };
    tile("Sessions", large(sessions.opened), note)
}

/// A count as exact as a tile is wide.
fn large(count: u64) -> String {
    if count < 100_000_000 { human::count(count) } else { human::compact(count as f64) }
}

fn delivered_tile(outcome: &Outcome) -> Tile {
    let messages = &outcome.totals.messages;
    if messages.expected == 0 {
        return None;
    }
    let note = if messages.received == messages.expected && messages.lost == 0 {
        "all that was expected".to_owned()
    } else {
        let lost = human::count(messages.lost);
        format!("of {} expected, {lost} lost", human::count(messages.expected))
    };
    tile("Received", large(messages.received), note)
}

fn rate_tile(outcome: &Outcome) -> Tile {
    let received = figures::received_per_s(outcome)?;
    let sent = figures::sent_per_s(outcome)
        .map(|sent| format!("received, for {} sent", human::rate(sent)));
    tile("Rate", human::rate(received), sent.unwrap_or_default())
}

fn latency_tile(outcome: &Outcome) -> Tile {
    let latency = figures::main_latency(outcome)?;
    let note =
        format!("p50 {}, max {}", human::micros(latency.p50_us), human::micros(latency.max_us));
    tile(&format!("p99 {}", latency.name), human::micros(latency.p99_us), note)
}

fn processor_tile(outcome: &Outcome) -> Tile {
    let server = outcome.server.as_ref()?;
    let (us, what) = server
        .cpu_us_per_message
        .map(|us| (us, "message"))
        .or_else(|| server.cpu_us_per_session.map(|us| (us, "session")))?;
    let note = format!("of the server; its core {} busy", human::percent(server.core_busy));
    tile(&format!("CPU a {what}"), human::micros(us), note)
}

fn memory_tile(outcome: &Outcome) -> Tile {
    let memory = &outcome.server.as_ref()?.memory;
    let user = memory.user_bytes_per_connection?;
    let note = match memory.kernel_bytes_per_connection {
        Some(kernel) => format!("of the server; kernel {}, both ends", human::exact_bytes(kernel)),
        None => "of the server".to_owned(),
    };
    tile("A connection", human::exact_bytes(user), note)
}

/// A row for each latency that was measured.
pub(super) fn latency_table(latencies: &[Latency]) -> String {
    let filled: Vec<_> = latencies.iter().filter(|latency| latency.count > 0).collect();
    if filled.is_empty() {
        return String::new();
    }
    let heads = ["", "count", "mean", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut text = String::from("<div class=\"wide\"><table class=\"latencies\"><thead><tr>");
    text.extend(heads.map(|head| format!("<th>{head}</th>")));
    text.push_str("</tr></thead><tbody>\n");
    for latency in filled {
        let figures = [
            latency.mean_us,
            latency.min_us,
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p999_us,
            latency.p9999_us,
            latency.max_us,
        ];
        let name = escape(&latency.name);
        text.push_str(&format!("<tr><th>{name}</th><td>{}</td>", human::count(latency.count)));
        text.extend(figures.map(|us| format!("<td>{}</td>", human::micros(us))));
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

/// The scenario, so that the run can be repeated.
pub(super) fn scenario(outcome: &Outcome) -> String {
    if outcome.about.scenario_toml.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>Scenario</h2><pre>{}</pre></section>\n",
        escape(outcome.about.scenario_toml.trim_end())
    )
}
