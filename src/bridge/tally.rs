//! What the bridge counts, for everybody to read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::tally::tally;

tally! {
    /// 1 while the link to Redis is up, with all subscriptions made and a canary back, else 0.
    up = "bridge_up",
    /// Channels that are subscribed to.
    subscriptions = "bridge_subscriptions",
    /// Envelopes that wait to be published.
    queued = "bridge_queued",
    /// Envelopes published, each once for all of its channels.
    published = "bridge_published_total",
    /// Envelopes dropped because too many waited.
    dropped = "bridge_dropped_total",
    /// Publications to several targets that went before others which one of their homes had numbered first.
    reordered = "bridge_reordered_total",
    /// Messages of any kind received from channels.
    received = "bridge_received_total",
    /// Those that this node had published itself.
    echoes = "bridge_echoes_total",
    /// Those that had come before by another channel, or again.
    duplicates = "bridge_duplicates_total",
    /// Those handed to the node's shards.
    delivered = "bridge_delivered_total",
    /// Those that are not what may be published there.
    malformed = "bridge_malformed_total",
    /// Those dropped because too much waited for the shards, or for this thread.
    overrun = "bridge_overrun_total",
    /// Times the link came up.
    links = "bridge_links_total",
    /// Times the link was lost or could not be made.
    failures = "bridge_failures_total",
    /// Canaries that came back.
    canaries = "bridge_canaries_total",
    /// Rooms whose members were told that they may have missed something.
    gaps = "bridge_gaps_total",
    /// Publications to rooms with shared histories that wait to be numbered.
    appending = "bridge_shared_queued",
    /// Those that this node has had numbered.
    appended = "bridge_shared_appended_total",
    /// Those that were refused, and reads: too many waited, or Redis did not do it.
    refused = "bridge_shared_refused_total",
    /// Times a message showed that others before it were lost.
    holes = "bridge_shared_holes_total",
    /// Publications read from a stream because they did not come by a channel.
    fetched = "bridge_shared_fetched_total",
    /// Rooms whose members were told to begin anew.
    resets = "bridge_shared_resets_total",
    /// Revocations that wait to be told to other nodes.
    bans_waiting = "bridge_revocations_queued",
    /// Revocations that this node has told.
    bans_told = "bridge_revocations_told_total",
    /// Those heard or read, its own included.
    bans_heard = "bridge_revocations_heard_total",
    /// Those that are not told, because too many waited.
    bans_lost = "bridge_revocations_lost_total",
    /// Events of Socket.IO's emitters that were handed to the node's shards.
    emitted = "bridge_emitted_total",
    /// What they ask of servers of the library and is not done here.
    emitter_unsupported = "bridge_emitter_unsupported_total",
    /// Messages of clients to back ends that wait to be written to the stream.
    records_waiting = "bridge_stream_queued",
    /// Those that were written.
    records_written = "bridge_stream_written_total",
    /// Those that were not: too many waited, or Redis refused them.
    records_refused = "bridge_stream_refused_total",
    /// Publications of which Redis said that no node had taken them before.
    ids_first = "bridge_ids_first_total",
    /// Those of which it said that one had.
    ids_repeated = "bridge_ids_repeated_total",
    /// Those of which nobody could say it: no link, or Redis refused.
    ids_unknown = "bridge_ids_unknown_total",
    /// Other nodes that are known to be there.
    nodes = "bridge_nodes",
    /// Users with a connection to this node, as the others are told of them.
    users_here = "bridge_users_here",
    /// Users with a connection to another node, once for each such node.
    users_elsewhere = "bridge_users_elsewhere",
    /// Times the users of another node were read, because they were not known or something was missed.
    reads = "bridge_reads_total",
    /// Times this node found that its lease had gone, and told all of its users again.
    leases_lost = "bridge_leases_lost_total",
    /// Users and nodes that were not noted because too many are known.
    users_refused = "bridge_users_refused_total",
}

impl Tally {
    /// True while the link to Redis is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) == 1
    }
}

pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

pub(super) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(value as u64, Ordering::Relaxed);
}
