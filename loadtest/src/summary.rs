//! The table at the end of a run, for a terminal of 80 to 100 columns.
//!
//! What ran, what was counted, how long it took, what it cost, and what to think of it, the last line
//! being the verdict alone so that it is the last thing read. What a run did not measure is left out;
//! the five ways in which a message can go wrong are always there, because their zeros are the point.
//! Judging is done before; this only words it.

use std::collections::BTreeMap;

use crate::figures;
use crate::human;
use crate::outcome::{GeneratorUse, Latency, Outcome, ServerUse, Verdict};

/// The summary, ending in a line feed.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut text = heading(outcome);
    text.push('\n');
    text.push_str(&sessions(outcome));
    text.push_str(&messages(outcome));
    text.push_str(&latencies(&outcome.latencies));
    text.push('\n');
    if let Some(server) = &outcome.server {
        text.push_str(&server_use(server));
    }
    text.push_str(&generator_use(&outcome.generator));
    text.push_str(&judgement(&outcome.verdict));
    text
}

/// The verdict in one line: `passed`, `passed, but VOID: ...` or `FAILED`.
pub(crate) fn verdict(verdict: &Verdict) -> String {
    match (verdict.passed, verdict.void) {
        (false, _) => "FAILED".to_owned(),
        (true, false) => "passed".to_owned(),
        (true, true) => format!("passed, but VOID: {}", verdict.doubts.join("; ")),
    }
}

/// Whether messages left by a schedule.
pub(crate) fn loop_kind(open: bool) -> &'static str {
    if open { "open loop" } else { "closed loop" }
}

fn heading(outcome: &Outcome) -> String {
    let about = &outcome.about;
    let threads = if about.threads == 1 { "thread" } else { "threads" };
    format!(
        "{} at {}, dialect {}, {}\n{} clients on {} {threads}, {}\n",
        about.scenario,
        about.url,
        about.dialect,
        loop_kind(about.open_loop),
        human::count(about.clients),
        about.threads,
        human::seconds(figures::duration_s(outcome)),
    )
}

fn sessions(outcome: &Outcome) -> String {
    let sessions = &outcome.totals.sessions;
    let mut parts = vec![format!("{} opened", human::count(sessions.opened))];
    let others = [
        (sessions.refused, "refused"),
        (sessions.ended_by_plan, "ended by plan"),
        (sessions.ended_by_server, "ended by the server"),
    ];
    for (number, what) in others {
        parts.extend((number > 0).then(|| format!("{} {what}", human::count(number))));
    }
    let mut text = row("sessions", &parts.join(", "));
    text.push_str(&tally("close codes", &sessions.close_codes));
    text.push_str(&tally("failures", &outcome.totals.failures));
    text
}

/// Names with their numbers of times, a line each.
fn tally(label: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    for (at, (name, number)) in counts.iter().take(SHOWN).enumerate() {
        let label = if at == 0 { label } else { "" };
        text.push_str(&row(label, &format!("{} x {name}", human::count(*number))));
    }
    if let Some(more @ 1..) = counts.len().checked_sub(SHOWN) {
        text.push_str(&row("", &format!("and {more} kinds more")));
    }
    text
}

fn messages(outcome: &Outcome) -> String {
    let messages = &outcome.totals.messages;
    if messages.sent == 0 && messages.expected == 0 && messages.received == 0 {
        return String::new();
    }
    let line = |number: u64, bytes: u64, rate: Option<f64>| {
        let mut text = format!("{:>14}", human::count(number));
        if bytes > 0 {
            text.push_str(&format!("  {:>9}", human::bytes(bytes as f64)));
        }
        if let Some(rate) = rate {
            text.push_str(&format!("  {:>9}", human::rate(rate)));
        }
        text
    };
    let mut text =
        row("sent", &line(messages.sent, messages.sent_bytes, figures::sent_per_s(outcome)));
    text.push_str(&row("expected", &line(messages.expected, 0, None)));
    let rate = figures::received_per_s(outcome);
    text.push_str(&row("received", &line(messages.received, messages.received_bytes, rate)));
    if messages.dropped_by_policy > 0 {
        text.push_str(&row(
            "dropped",
            &format!("{} by policy", line(messages.dropped_by_policy, 0, None)),
        ));
    }
    let wrongs = [
        (messages.lost, "lost"),
        (messages.duplicates, "duplicates"),
        (messages.reordered, "reordered"),
        (messages.offset_breaks, "offset breaks"),
        (messages.corrupt, "corrupt"),
    ];
    let wrongs = wrongs.map(|(number, what)| format!("{} {what}", human::count(number)));
    text.push_str(&row("of these", &wrongs.join(", ")));
    text
}

fn latencies(latencies: &[Latency]) -> String {
    let filled: Vec<_> = latencies.iter().filter(|latency| latency.count > 0).collect();
    if filled.is_empty() {
        return String::new();
    }
    let heads = ["latency", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for latency in filled {
        let mut cells = vec![latency.name.clone(), human::count(latency.count)];
        let percentiles = [
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p999_us,
            latency.p9999_us,
            latency.max_us,
        ];
        cells.extend(percentiles.map(human::micros));
        rows.push(cells);
    }
    format!("\n{}", human::columns(&rows))
}

fn server_use(server: &ServerUse) -> String {
    let busy = human::percent(server.core_busy);
    let mut text = row("server", &format!("{}, core {busy} busy", human::seconds(server.cpu_s)));
    let time = |us: Option<f64>, what: &str| us.map(|us| format!("{}{what}", human::micros(us)));
    let bytes = |bytes: Option<f64>, what: &str| {
        bytes.map(|bytes| format!("{} {what}", human::exact_bytes(bytes)))
    };
    let memory = &server.memory;
    let frames = server.frames_per_write.map(human::digits);
    let rows: [(&str, Vec<Option<String>>); 4] = [
        (
            "a message",
            vec![
                time(server.cpu_us_per_message, ""),
                time(server.core_busy_us_per_message, " of the core"),
            ],
        ),
        ("a session", vec![time(server.cpu_us_per_session, "")]),
        ("a write", vec![frames.map(|frames| format!("{frames} frames"))]),
        (
            "a connection",
            vec![
                bytes(memory.user_bytes_per_connection, "user"),
                bytes(memory.pss_anon_per_connection, "Pss"),
                bytes(memory.kernel_bytes_per_connection, "kernel, both ends"),
            ],
        ),
    ];
    for (label, parts) in rows {
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            text.push_str(&row(label, &parts.join(", ")));
        }
    }
    let moments = [
        (memory.rss_anon_start, "before"),
        (memory.rss_anon_connected, "connected"),
        (memory.rss_anon_peak, "at most"),
        (memory.rss_anon_end, "after"),
    ];
    let moments = moments.map(|(bytes, when)| format!("{} {when}", human::bytes(bytes as f64)));
    text.push_str(&row("memory", &moments.join(", ")));
    text
}

fn generator_use(generator: &GeneratorUse) -> String {
    let mut parts = vec![
        human::seconds(generator.cpu_s),
        format!("core {} busy", human::percent(generator.core_busy)),
    ];
    parts.extend(generator.cpu_us_per_message.map(|us| format!("{} a message", human::micros(us))));
    parts.extend(generator.bytes_per_client.map(|b| format!("{} a client", human::exact_bytes(b))));
    let mut text = row("generator", &parts.join(", "));
    let mut late = Vec::new();
    late.extend(generator.late_p99_us.map(|us| format!("p99 {}", human::micros(us))));
    late.extend(generator.late_max_us.map(|us| format!("max {}", human::micros(us))));
    if !late.is_empty() {
        text.push_str(&row("behind plan", &late.join(", ")));
    }
    let others = format!(
        "{} of a core by other processes, {} by the hypervisor",
        human::percent(generator.foreign),
        human::percent(generator.stolen),
    );
    text.push_str(&row("taken", &others));
    text
}

fn judgement(verdict: &Verdict) -> String {
    let mut text = String::from("\n");
    for doubt in &verdict.doubts {
        text.push_str(&row("doubt", doubt));
    }
    for fault in &verdict.faults {
        text.push_str(&row("fault", fault));
    }
    text.push_str(&self::verdict(verdict));
    text.push('\n');
    text
}

fn row(label: &str, value: &str) -> String {
    format!("{label:<14}{value}\n")
}

/// Close codes and failures shown; the rest is counted.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::sample;

    #[test]
    fn a_summary_fits_a_terminal_and_ends_in_the_verdict() {
        for (outcome, last) in
            [(sample::fanout(), "passed"), (sample::idle(), "passed"), (sample::failed(), "FAILED")]
        {
            let text = render(&outcome);
            assert_eq!(text.lines().last(), Some(last), "{text}");
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest.is_some_and(|widest| widest <= 100), "{text}");
        }
    }

    #[test]
    fn a_void_run_says_why_in_its_last_line() {
        let mut outcome = sample::fanout();
        outcome.verdict.void = true;
        outcome.verdict.doubts = vec!["a".into(), "b".into()];
        assert!(render(&outcome).ends_with("\npassed, but VOID: a; b\n"));
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let text = render(&sample::idle());
        assert!(!text.contains("received") && !text.contains("a write"), "{text}");
        let text = render(&sample::failed());
        assert!(!text.contains("\nmemory") && text.contains("12 lost"), "{text}");
        assert!(text.contains("fault         12 messages were lost"), "{text}");
    }

    #[test]
    fn the_kind_of_loop_is_stated() {
        let mut outcome = sample::fanout();
        assert!(render(&outcome).contains("open loop"));
        outcome.about.open_loop = false;
        assert!(render(&outcome).contains("closed loop"));
    }

    #[test]
    fn failures_beyond_eight_kinds_are_counted() {
        let mut outcome = sample::fanout();
        outcome.totals.failures = (10..22).map(|n| (format!("failure {n}"), n)).collect();
        assert!(render(&outcome).contains("and 4 kinds more"));
    }
}
