//! What `/metrics` says: every figure of the board, once, in bounded families.
//!
//! A scrape reads atomics that the shards have posted anyway, so it costs a shard nothing. Names begin with
//! `throng_` and carry their unit; what is counted by reason is one family with a label. Series that grow with
//! the machine are those with a `shard` label, a fixed number for each; nothing is labelled by room, user
//! or address, at most 34 rows stand for namespaces, and no more for tenants than the configuration says. docs/metrics.md lists the families.

mod families;
mod spreads;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::admin::{Exposition, Kind};
use crate::base::counters::Counters;
use crate::base::id::ShardId;
use crate::bridge;
use crate::front;
use crate::node::board::Board;
use crate::node::config::Config;
use crate::node::settings;
use crate::shard::{NAMESPACES, REFUSE};
use crate::sys::memory;

/// Said of a node that the others do not hear, and of one that cannot keep what it is to keep.
const CUT_OFF: &str = "the link to other nodes is down";
const BROKEN: &str = "the store fails";

/// What is fixed or changes with the configuration only.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// Connections the node takes at most, and its memory budget in bytes.
    connections: usize,
    budget: u64,
    /// The kernel interface in use.
    driver: String,
    started_unix_ms: u64,
    /// What the bridge counts, where there is one, and since when Redis remembers used tickets.
    pub(super) bridge: Option<Arc<bridge::Tally>>,
    pub(super) era: Option<Arc<bridge::Era>>,
    /// Whose users are not known, where other nodes' users are known at all.
    pub(super) absent: Option<Arc<bridge::Absent>>,
    /// What is counted of requests that other servers answer, where there are any.
    pub(super) front: Option<Arc<front::Tally>>,
    /// The node is fit for new clients without the other nodes, and without a store that works.
    ready_without: [bool; 2],
    /// The patterns of the namespaces that have a row of their own.
    namespaces: Vec<String>,
}

impl About {
    /// What is fixed.
    pub(super) fn new(connections: usize, driver: String, started_unix_ms: u64) -> Self {
        Self { connections, driver, started_unix_ms, ..Self::default() }
    }

    /// What does not work though the node serves. `broken`: the store fails.
    pub(super) fn troubles(&self, broken: bool) -> Vec<&'static str> {
        let all = [(self.is_cut_off(), CUT_OFF), (broken, BROKEN)];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, trouble)| trouble).collect()
    }

    fn is_cut_off(&self) -> bool {
        self.bridge.as_ref().is_some_and(|tally| !tally.is_up())
    }

    /// Why the node should be given no new clients, by its figures.
    pub(super) fn shortages(&self, total: &Counters, broken: bool) -> Vec<&'static str> {
        let is_full = total.open_connections >= self.connections as u64;
        let is_short = total.charged_bytes / (self.budget / 100).max(1) >= REFUSE;
        let all = [
            (is_full, "it has as many connections as it takes"),
            (is_short, "memory is short"),
            (self.is_cut_off() && !self.ready_without[0], CUT_OFF),
            (broken && !self.ready_without[1], BROKEN),
        ];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect()
    }

    /// Takes over what a configuration says.
    pub(super) fn adopt(&mut self, config: &Config) {
        let named = config.lists.namespaces.iter().take(NAMESPACES);
        self.namespaces = named.map(|namespace| namespace.pattern.as_str().to_owned()).collect();
        self.budget = settings::budget(config);
        let without_store = config.admin.ready_without_store;
        self.ready_without = [config.inside.bridge.ready_without, without_store];
    }
}

/// Writes everything. `inboxes` holds the pieces of mail that wait for each shard: requests, deliveries.
pub(super) fn expose(out: &mut Exposition, board: &Board, about: &About, inboxes: &[[usize; 2]]) {
    let total = board.total();
    let shards: Vec<Counters> =
        (0..).map(ShardId).zip(inboxes).map(|(shard, _)| board.shard(shard)).collect();
    node(out, board, about);
    families::expose(out, &total);
    families::expose_shards(out, &shards, inboxes);
    let measured: Vec<_> =
        (0..).map(ShardId).zip(inboxes).map(|(shard, _)| board.measured(shard)).collect();
    spreads::expose(out, &total, &measured, &about.namespaces);
    board.tenants().expose(out);
}

/// Writes what a thread beside the shards counts: rows of its tally, under the names of `/v1/counters` with
/// `throng_` before them.
pub(super) fn expose_tally(
    out: &mut Exposition,
    rows: impl Iterator<Item = (&'static str, &'static str, u64)>,
) {
    for (name, meaning, value) in rows {
        let kind = if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        out.family(&format!("throng_{name}"), kind, meaning.trim()).sample(&[], value);
    }
}

fn node(out: &mut Exposition, board: &Board, about: &About) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.family(name, Kind::Gauge, help).sample(&[], value);
    };
    let usage = memory::usage();
    let ready = f64::from(u8::from(!board.is_draining()));
    gauge("throng_accepting", "1 while newcomers are accepted, 0 while the node drains.", ready);
    let limit = float(about.connections as u64);
    gauge("throng_connections_limit", "Connections that the node takes at most.", limit);
    let help = "Bytes that queues, half-read messages and mail may take; beyond half of it measures begin.";
    gauge("throng_memory_budget_bytes", help, float(about.budget));
    let help = "Bytes of memory that the program has asked for and uses (RssAnon).";
    gauge("throng_memory_anonymous_bytes", help, float(usage.anonymous));
    let help = "Bytes of memory that the process uses, files included.";
    gauge("process_resident_memory_bytes", help, float(usage.resident));
    let started = float(about.started_unix_ms) / 1000.0;
    gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        started,
    );
    let help = "Processor time of all threads, user and system.";
    out.family("process_cpu_seconds_total", Kind::Counter, help)
        .sample(&[], usage.processor.as_secs_f64());
    let labels = [("driver", about.driver.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
    out.family("throng_build_info", Kind::Gauge, "1, with what is running.").sample(&labels, 1);
}

/// A figure as Prometheus keeps it; beyond 2^53 the last digits are lost, there as here.
#[expect(clippy::cast_precision_loss, reason = "the receiver knows no other numbers")]
fn float(figure: u64) -> f64 {
    figure as f64
}
