//! What the shards have measured, as histograms, and what readers have lost.

use crate::admin::{Exposition, Kind, Label};
use crate::base::counters::Counters;
use crate::base::histogram;
use crate::node::cells::Measured;
use crate::node::metrics::float;
use crate::shard::{LOSS_ROWS, POLICIES};

const NANOS: f64 = 1e9;
const MILLIS: f64 = 1e3;
const MICROS: f64 = 1e6;
const KIB: f64 = 1024.0;

/// Rooms of no namespace, and of namespaces without a row of their own.
const NONE: &str = "(none)";
const OTHER: &str = "(other)";

/// Writes what each shard has measured.
pub(super) fn expose(
    out: &mut Exposition,
    total: &Counters,
    shards: &[Measured],
    namespaces: &[String],
) {
    let help = "For how long a turn of a shard's loop kept what arrived meanwhile waiting.";
    let mut family = out.family("throng_loop_lag_seconds", Kind::Histogram, help);
    for (shard, measured) in shards.iter().enumerate() {
        let lag = &measured.lag;
        let labels: [Label<'_>; 1] = [("shard", &shard.to_string())];
        family.histogram(&labels, &lag.counts, MICROS, float(lag.sum) / NANOS);
    }
    let Some(all) = shards.iter().copied().reduce(|all, shard| all.and(&shard)) else { return };
    let help = "From a publication's arrival at the node to the end of the round of writes that carried it \
                to its members in a shard; the oldest one of each round counts.";
    out.family("throng_fan_out_seconds", Kind::Histogram, help).histogram(
        &[],
        &all.fan_out.counts,
        MICROS,
        float(all.fan_out.sum) / NANOS,
    );
    let help = "Frames that a write handed to the kernel.";
    let sum = float(all.frames.sum);
    out.family("throng_frames_per_write", Kind::Histogram, help).histogram(
        &[],
        &all.frames.counts,
        1.0,
        sum,
    );
    let help = "How long sessions were open, of those that have ended; a 32nd too long at most.";
    let sum = float(all.lives.sum) / MILLIS;
    out.family("throng_connection_seconds", Kind::Histogram, help).histogram(
        &[],
        &all.lives.counts,
        1.0,
        sum,
    );
    queues(out, total, &all);
    losses(out, &all, namespaces);
}

/// The queues of the moment: what is in no other place is in the first.
fn queues(out: &mut Exposition, total: &Counters, all: &Measured) {
    let mut places = all.lengths;
    places[0] = total.connections.saturating_sub(places[1..].iter().sum());
    let help = "Outbound queues of this moment by their bytes, in flight included. A snapshot: buckets go \
                down as well, so use them without rate().";
    let sum = float(total.queued_bytes);
    out.family("throng_queue_bytes", Kind::Histogram, help).histogram(&[], &places, 1.0 / KIB, sum);
    let longest = places.iter().rposition(|count| *count > 0).unwrap_or(0);
    let most = if total.queued_bytes == 0 {
        0.0
    } else {
        // The last place has no bound, and no queue is that long: its bytes are counted in 32 bits.
        histogram::bound(longest).map_or(f64::from(u32::MAX), |bound| float(bound) * KIB)
    };
    let most = most.min(float(total.queued_bytes));
    let help = "Bytes of the longest outbound queue of this moment, rounded up to a power of two; no more \
                than all queues together.";
    out.family("throng_queue_max_bytes", Kind::Gauge, help).sample(&[], most);
}

fn losses(out: &mut Exposition, all: &Measured, namespaces: &[String]) {
    let help = "Publications that slow readers lost, by the namespace of the room and what its policy did. \
                The namespace is its pattern; (none) are rooms of no namespace, (other) those behind the \
                first 32.";
    let mut family = out.family("throng_dropped_total", Kind::Counter, help);
    let name = |row: usize| match row {
        0 => Some(NONE),
        row if row == LOSS_ROWS - 1 => Some(OTHER),
        // Of namespaces with one pattern the first has all the rooms.
        row => namespaces
            .get(row - 1)
            .map(String::as_str)
            .filter(|own| !namespaces[..row - 1].iter().any(|before| before == own))
            .filter(|own| ![NONE, OTHER].contains(own)),
    };
    let rows = all.losses.iter().enumerate();
    for (namespace, counts) in rows.filter_map(|(row, counts)| Some((name(row)?, counts))) {
        for (policy, count) in POLICIES.iter().zip(counts) {
            family.sample(&[("namespace", namespace), ("policy", policy)], count);
        }
    }
}
