//! Counters as families.
//!
//! A counter that nothing is said of here is a family of its own: its name with `throng_` before it, its
//! documentation as help. So a counter that is added anywhere is exported from then on. Said here is which
//! ones are one family told apart by a label, and which are left out because another family says the same.

use crate::admin::{Exposition, Kind, Label};
use crate::base::counters::Counters;

/// Counters that are one family.
struct Grouped {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    label: &'static str,
    /// The value of the label, and the counter.
    members: &'static [(&'static str, &'static str)],
}

const GROUPED: &[Grouped] = &[
    Grouped {
        name: "throng_refusals_total",
        kind: Kind::Counter,
        help: "Newcomers that were not let in, by reason. Those refused in their handshake are in \
               throng_handshakes_refused_total as well.",
        label: "reason",
        members: &[
            ("full", "shed_total"),
            ("memory", "memory_refused_total"),
            ("party", "parties_refused_total"),
            ("busy", "handshakes_deferred_total"),
            ("origin", "origin_refused_total"),
            ("unannounced", "unannounced_total"),
        ],
    },
    Grouped {
        name: "throng_handshakes_refused_total",
        kind: Kind::Counter,
        help: "Handshakes that were refused, by the status of the answer. 1013 are those of browsers, which see no \
               status: made to tell them by a close frame when to come back.",
        label: "status",
        members: &[
            ("400", "refused_400_total"),
            ("401", "refused_401_total"),
            ("403", "refused_403_total"),
            ("404", "refused_404_total"),
            ("405", "refused_405_total"),
            ("408", "refused_408_total"),
            ("411", "refused_411_total"),
            ("413", "refused_413_total"),
            ("414", "refused_414_total"),
            ("426", "refused_426_total"),
            ("431", "refused_431_total"),
            ("503", "refused_503_total"),
            ("1013", "refused_later_total"),
            ("other", "refused_otherwise_total"),
        ],
    },
    Grouped {
        name: "throng_auth_refusals_total",
        kind: Kind::Counter,
        help: "Tokens and tickets that were refused, in the handshake and later, by reason.",
        label: "reason",
        members: &[
            ("missing", "auth_missing_total"),
            ("expired", "auth_expired_total"),
            ("revoked", "auth_revoked_total"),
            ("unknown_key", "auth_unknown_key_total"),
            ("ticket", "auth_ticket_total"),
            ("untrusted", "auth_untrusted_total"),
            ("unsuited", "auth_unsuited_total"),
            ("malformed", "auth_malformed_total"),
            ("vetoed", "auth_vetoed_total"),
            ("unsure", "tickets_unsure_total"),
        ],
    },
    Grouped {
        name: "throng_disconnects_total",
        kind: Kind::Counter,
        help: "Connections whose end has begun, by reason.",
        label: "reason",
        members: &[
            ("closed", "closed_total"),
            ("lost", "lost_total"),
            ("heartbeat", "heartbeat_lost_total"),
            ("violation", "violations_total"),
            ("slow_consumer", "slow_consumers_total"),
            ("rate", "rate_closed_total"),
            ("limit", "limit_closed_total"),
            ("memory", "memory_shed_total"),
            ("denied", "auth_closed_total"),
            ("expired", "expired_total"),
            ("revoked", "revoked_total"),
            ("dismissed", "dismissed_total"),
            ("handed_over", "handed_over_total"),
            ("tls", "tls_failed_total"),
            ("panic", "panics_total"),
        ],
    },
    Grouped {
        name: "throng_history_evicted_total",
        kind: Kind::Counter,
        help: "Publications that left a history, by reason.",
        label: "reason",
        members: &[
            ("count", "history_evicted_count_total"),
            ("bytes", "history_evicted_bytes_total"),
            ("age", "history_evicted_age_total"),
            ("share", "history_evicted_share_total"),
        ],
    },
    Grouped {
        name: "throng_socketio_refused_total",
        kind: Kind::Counter,
        help: "Requests for Socket.IO that no connection came of, by reason.",
        label: "reason",
        members: &[
            ("eio_version", "socketio_version_refused_total"),
            ("transport", "socketio_transport_refused_total"),
            ("request", "socketio_request_refused_total"),
        ],
    },
    Grouped {
        name: "throng_reconnects_total",
        kind: Kind::Counter,
        help: "Clients that were here before, as far as something tells it: a user whose last connection ended a \
               moment ago, a TLS session that went on, and rooms that were joined with a cursor, each for itself, \
               be it good or too old.",
        label: "known_by",
        members: &[
            ("user", "users_returned_total"),
            ("tls_ticket", "tls_resumed_total"),
            ("cursor", "resumes_total"),
            ("old_cursor", "resyncs_total"),
        ],
    },
];

/// Counters that are in no family under their own name, and why.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    ("connections", "throng_connections tells them apart by transport"),
    ("tls_connections", "throng_connections tells them apart by transport"),
    ("packet_connections", "throng_sessions tells them apart by transport"),
    ("stream_connections", "throng_sessions tells them apart by transport"),
    ("handshakes_refused_total", "the sum of the family of that name"),
    ("auth_refused_total", "the sum of throng_auth_refusals_total"),
    ("dropped_new_total", "throng_dropped_total tells them apart by namespace and policy"),
    ("dropped_oldest_total", "throng_dropped_total tells them apart by namespace and policy"),
    ("conflated_total", "throng_dropped_total tells them apart by namespace and policy"),
    ("queued_bytes", "the sum of throng_queue_bytes"),
];

/// Counters that are told of each shard as well.
const BY_SHARD: &[(&str, &str)] = &[
    ("connections", "throng_shard_connections"),
    ("queued_bytes", "throng_shard_queued_bytes"),
    ("parked_mail", "throng_shard_parked_mail"),
    ("turns_total", "throng_shard_turns_total"),
    ("received_messages_total", "throng_shard_received_messages_total"),
    ("deliveries_total", "throng_shard_deliveries_total"),
];

/// The counter of that name; zero when there is none.
fn value(counters: &Counters, name: &str) -> u64 {
    let at = Counters::NAMES.iter().position(|known| *known == name);
    at.map_or(0, |at| counters.values()[at])
}

fn kind(name: &str) -> Kind {
    if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge }
}

/// Writes the counters over all shards.
pub(super) fn expose(out: &mut Exposition, total: &Counters) {
    let of = |name| value(total, name);
    let secure = of("tls_connections");
    out.family("throng_connections", Kind::Gauge, "Connections, by transport.")
        .sample(&[("transport", "ws")], of("connections").saturating_sub(secure))
        .sample(&[("transport", "wss")], secure);
    let (streams, packets) = (of("stream_connections"), of("packet_connections"));
    let frames = of("open_connections").saturating_sub(streams + packets);
    out.family("throng_sessions", Kind::Gauge, "Open connections, by what they speak.")
        .sample(&[("transport", "websocket")], frames)
        .sample(&[("transport", "sse")], streams)
        .sample(&[("transport", "socketio")], packets);
    for group in GROUPED {
        let mut family = out.family(group.name, group.kind, group.help);
        for (label, counter) in group.members {
            family.sample(&[(group.label, label)], of(counter));
        }
    }
    let is_said = |name: &str| {
        let mut grouped = GROUPED.iter().flat_map(|group| group.members);
        LEFT_OUT.iter().any(|(left, _)| *left == name) || grouped.any(|(_, own)| *own == name)
    };
    for ((name, meaning), value) in
        Counters::NAMES.iter().zip(Counters::MEANINGS).zip(total.values())
    {
        if !is_said(name) {
            let help = meaning.trim().trim_start_matches("Gauge: ");
            out.family(&format!("throng_{name}"), kind(name), help).sample(&[], value);
        }
    }
}

/// Writes what is told of each shard.
pub(super) fn expose_shards(out: &mut Exposition, shards: &[Counters], inboxes: &[[usize; 2]]) {
    let numbers: Vec<String> = (0..shards.len()).map(|shard| shard.to_string()).collect();
    for (counter, name) in BY_SHARD {
        let at = Counters::NAMES.iter().position(|known| known == counter);
        let meaning = at.map_or("", |at| Counters::MEANINGS[at]);
        let help = format!("Of each shard: {}", meaning.trim().trim_start_matches("Gauge: "));
        let mut family = out.family(name, kind(name), &help);
        for (number, counters) in numbers.iter().zip(shards) {
            family.sample(&[("shard", number)], value(counters, counter));
        }
    }
    let help = "Pieces of mail that wait for each shard, by the lane of its inbox.";
    let mut family = out.family("throng_shard_inbox_mail", Kind::Gauge, help);
    for (number, lanes) in numbers.iter().zip(inboxes) {
        for (lane, depth) in ["request", "delivery"].iter().zip(lanes) {
            let labels: [Label<'_>; 2] = [("shard", number), ("lane", lane)];
            family.sample(&labels, depth);
        }
    }
}

/// The counters that are in a group, for the test that none is missing.
#[cfg(test)]
pub(super) fn grouped() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let of = |group: &'static Grouped| {
        group.members.iter().map(|(label, counter)| (group.name, *label, *counter))
    };
    GROUPED.iter().flat_map(of)
}
