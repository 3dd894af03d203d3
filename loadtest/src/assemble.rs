//! From what the threads counted and the machine showed to one outcome.

use crate::hdr::Hist;
use crate::outcome::{About, FORMAT, Latency, Messages, Outcome, Totals};
use crate::sample::{self, Sampler, Snapshot, environment};
use crate::spec::{Kind, Spec};
use crate::worker::Harvest;

/// The looks around the parts of a run.
pub(crate) struct Marks {
    pub(crate) start: Snapshot,
    pub(crate) connected: Snapshot,
    pub(crate) measured_from: Snapshot,
    /// When the paced load ended and what goes to everyone began.
    pub(crate) paced_to: Option<Snapshot>,
    pub(crate) measured_to: Snapshot,
    pub(crate) end: Snapshot,
    /// Deliveries and echoes received in the measured part.
    pub(crate) messages: u64,
}

/// Puts an outcome together; series, phases and verdict are still to come.
pub(crate) fn assemble(spec: &Spec, harvest: Harvest, marks: &Marks, sampler: &Sampler) -> Outcome {
    let counts =
        sample::Counts { sessions: u64::from(spec.crowd.clients), messages: marks.messages };
    let looks = sample::Marks {
        start: &marks.start,
        connected: &marks.connected,
        measured_from: &marks.measured_from,
        paced_to: marks.paced_to.as_ref(),
        measured_to: &marks.measured_to,
        end: &marks.end,
    };
    let mut generator = sample::generator_use(&looks, counts);
    let late = &harvest.hists.late;
    if !late.is_empty() {
        generator.late_p99_us = late.quantile_us(0.99);
        generator.late_max_us = late.max_us();
    }
    let mut server = sampler.server_use(&looks, counts);
    if let (Kind::Churn, Some(server)) = (spec.scenario, &mut server) {
        // What this scenario is about is sessions: those opened after the first of each client.
        let again = harvest.sessions.opened.saturating_sub(u64::from(spec.crowd.clients));
        server.cpu_us_per_session = sample::each(server.cpu_s * 1e6, again);
    }
    Outcome {
        format: FORMAT,
        about: About {
            scenario: spec.scenario.name().to_owned(),
            url: spec.target.url.clone(),
            dialect: spec.target.dialect.to_string(),
            open_loop: spec.is_open_loop(),
            clients: u64::from(spec.crowd.clients),
            scenario_toml: spec.to_toml(),
            environment: environment(),
            ..About::default()
        },
        latencies: latencies(spec, &harvest),
        server,
        totals: totals(harvest),
        generator,
        ..Outcome::default()
    }
}

fn latencies(spec: &Spec, harvest: &Harvest) -> Vec<Latency> {
    let hists = &harvest.hists;
    let (main, spared) = match spec.scenario {
        Kind::Echo => ("echo", "spared"),
        Kind::Idle => ("delivery", "side"),
        Kind::Storm => ("delivery", "stayed"),
        _ => ("delivery", "healthy"),
    };
    let last = harvest.last.hist();
    let named: [(&str, &Hist); 6] = [
        (main, &hists.delivery),
        (spared, &hists.spared),
        ("last", &last),
        ("connect", &hists.connect),
        ("join", &hists.join),
        ("return", &hists.back),
    ];
    let seen = named.into_iter().filter(|(_, hist)| !hist.is_empty());
    seen.map(|(name, hist)| hist.latency(name)).collect()
}

fn totals(harvest: Harvest) -> Totals {
    let tally = &harvest.tally;
    Totals {
        messages: Messages {
            sent: harvest.sent,
            expected: tally.expected,
            received: tally.received,
            dropped_by_policy: tally.dropped_by_policy,
            lost: tally.lost,
            duplicates: tally.duplicates,
            reordered: tally.reordered,
            offset_breaks: tally.offset_breaks,
            corrupt: tally.corrupt,
            sent_bytes: harvest.sent_bytes,
            received_bytes: harvest.received_bytes,
        },
        sessions: harvest.sessions,
        failures: harvest.failures,
    }
}
