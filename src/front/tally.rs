//! What the thread counts, for everybody to read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::tally::tally;

tally! {
    /// Connections whose requests go to a `[[proxy]]`, from the shard's hand to their end.
    connections = "proxy_connections",
    /// Those of them that have been upgraded: sockets of another server.
    tunnels = "proxy_tunnels",
    /// Requests that went to a server.
    requests = "proxy_requests_total",
    /// Upgrades that a server has agreed to.
    upgrades = "proxy_upgrades_total",
    /// Requests refused because a place or an address has as many connections as it may.
    refused = "proxy_refused_total",
    /// Requests whose server could not be reached, was late, or gave no answer that can be handed on.
    failed = "proxy_failed_total",
    /// Connections ended because nothing passed for too long.
    idle = "proxy_idle_total",
    /// Requests and answers cut because they had more bytes than they may.
    cut = "proxy_cut_total",
    /// Connections closed because a worker found no space to hand them on.
    lost = "proxy_lost_total",
    /// Connections ended because the node drains.
    drained = "proxy_drained_total",
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn less(gauge: &AtomicU64) {
    gauge.fetch_sub(1, Ordering::Relaxed);
}

/// One of those that a gauge counts, for as long as this lives.
pub(super) struct Counted<'t>(&'t AtomicU64);

impl<'t> Counted<'t> {
    pub(super) fn new(gauge: &'t AtomicU64) -> Self {
        count(gauge);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        less(self.0);
    }
}
