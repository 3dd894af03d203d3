//! From two snapshots to figures: pure functions.
//!
//! The measured part of a run is from its first message to its last. What a figure needs and a snapshot does
//! not have (a server that ended, slabs that are not to be read) leaves the figure absent.

use std::collections::BTreeMap;

use super::proc::{ALL_SLABS, Core};
use super::sampler::{Detail, Process, Snapshot};
use crate::outcome::{GeneratorUse, Memory, ServerUse};

/// The borders of a run, all of them full snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks<'a> {
    /// Before the first connection.
    pub(crate) start: &'a Snapshot,
    /// When all were there.
    pub(crate) connected: &'a Snapshot,
    /// Before the first message. May be the same as `connected`.
    pub(crate) measured_from: &'a Snapshot,
    /// After the last message of a paced load, if what follows it goes to everyone at once.
    pub(crate) paced_to: Option<&'a Snapshot>,
    /// After the last message.
    pub(crate) measured_to: &'a Snapshot,
    /// After the last close.
    pub(crate) end: &'a Snapshot,
}

/// What the costs are divided by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Sessions opened between `start` and `connected`, which all are still there then.
    pub(crate) sessions: u64,
    /// Deliveries, echoes or sessions of the measured part, whichever the scenario is about.
    pub(crate) messages: u64,
}

/// Processor time used between two snapshots, in cores: 1.0 is one core all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Absent when there is no server.
    pub(crate) server: Option<f64>,
    pub(crate) own: f64,
}

/// Growth of the engine's counters whose ratio is the frames that one write carries.
const FRAMES: &str = "sent_frames_total";
const WRITES: &str = "writes_total";

/// Processor time used between two snapshots.
pub(crate) fn usage(from: &Snapshot, to: &Snapshot) -> Usage {
    let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
    if seconds <= 0.0 {
        return Usage::default();
    }
    let server = both(from, to).map(|(from, to)| (to.cpu_s - from.cpu_s) / seconds);
    Usage { server, own: (to.own.cpu_s - from.own.cpu_s) / seconds }
}

/// What the run cost the server; absent without one. The process itself is not named, and the peak of its
/// memory is the highest of the borders: the sampler, which has seen more, adds both.
pub(crate) fn server_use(marks: &Marks<'_>, counts: Counts) -> Option<ServerUse> {
    let (from, to) = both(marks.measured_from, marks.measured_to)?;
    let cpu_s = to.cpu_s - from.cpu_s;
    let cores = marks.measured_to.detail.as_ref().map_or(&[][..], |detail| &detail.server_cores);
    let busy = busy(marks.measured_from, marks.measured_to, cores);
    let growth = both(marks.start, marks.connected);
    let connecting = growth.map(|(from, to)| to.cpu_s - from.cpu_s);
    let counters = details(marks.measured_from, marks.measured_to)
        .map(|(from, to)| grown(&from.counters, &to.counters, |from, to| to - from))
        .unwrap_or_default();
    let frames_per_write = match (counters.get(FRAMES), counters.get(WRITES)) {
        (Some(frames), Some(writes)) if *writes > 0.0 => Some(frames / writes),
        _ => None,
    };
    Some(ServerUse {
        cpu_s,
        cpu_us_per_message: each(cpu_s * 1e6, counts.messages),
        cpu_us_per_session: connecting.and_then(|cpu_s| each(cpu_s * 1e6, counts.sessions)),
        core_busy: busy.share,
        core_busy_us_per_message: each(busy.seconds * 1e6, counts.messages),
        memory: memory(marks, counts.sessions),
        counters,
        frames_per_write,
        ..ServerUse::default()
    })
}

/// What the run cost this program. How late messages left is not known here; the caller adds it.
///
/// `messages` of the counts are those received in the measured part.
pub(crate) fn generator_use(marks: &Marks<'_>, counts: Counts) -> GeneratorUse {
    let (from, to) = (marks.measured_from, marks.measured_to);
    let cpu_s = to.own.cpu_s - from.own.cpu_s;
    let cores = to.detail.as_ref().map_or(&[][..], |detail| &detail.own_cores);
    let growth = to_signed(marks.start.own.rss_anon, marks.connected.own.rss_anon);
    let seconds = to.at.saturating_duration_since(from.at).as_secs_f64();
    let per_second = |used: f64| if seconds > 0.0 { used.max(0.0) / seconds } else { 0.0 };
    let others = details(from, to).map_or(0.0, |(from, to)| to.others_cpu_s - from.others_cpu_s);
    let every_core: Vec<u32> = to.cores.keys().copied().collect();
    GeneratorUse {
        cpu_s,
        core_busy: busy(from, marks.paced_to.unwrap_or(to), cores).share,
        cpu_us_per_message: each(cpu_s * 1e6, counts.messages),
        bytes_per_client: each(growth as f64, counts.sessions),
        late_p99_us: None,
        late_max_us: None,
        foreign: per_second(others),
        stolen: busy(from, to, &every_core).stolen_seconds.min(seconds) / seconds.max(1e-9),
    }
}

/// What some cores did between two snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Busy {
    /// 0 to 1, averaged over the cores.
    share: f64,
    /// Of all of the cores together.
    seconds: f64,
    stolen_seconds: f64,
}

fn busy(from: &Snapshot, to: &Snapshot, cores: &[u32]) -> Busy {
    let mut sum = Core::default();
    for core in cores {
        let (Some(from), Some(to)) = (from.cores.get(core), to.cores.get(core)) else { continue };
        sum.busy += to.busy.saturating_sub(from.busy);
        // The kernel may take idle time back.
        sum.idle += to.idle.saturating_sub(from.idle);
        sum.stolen += to.stolen.saturating_sub(from.stolen);
    }
    let all = sum.busy + sum.idle + sum.stolen;
    let second = rustix::param::clock_ticks_per_second() as f64;
    Busy {
        share: each(sum.busy as f64, all).unwrap_or_default(),
        seconds: sum.busy as f64 / second,
        stolen_seconds: sum.stolen as f64 / second,
    }
}

fn memory(marks: &Marks<'_>, sessions: u64) -> Memory {
    let rss = |mark: &Snapshot| mark.server.map_or(0, |server| server.rss_anon);
    let all = [marks.start, marks.connected, marks.measured_from, marks.measured_to, marks.end];
    let per_session = |from: u64, to: u64| each(to_signed(from, to) as f64, sessions);
    let user = both(marks.start, marks.connected);
    let details = details(marks.start, marks.connected);
    let pss = details.and_then(|(from, to)| Some((from.pss_anon?, to.pss_anon?)));
    let slabs = details
        .map(|(from, to)| grown(&from.slabs, &to.slabs, |from: u64, to| to_signed(from, to)))
        .unwrap_or_default();
    Memory {
        rss_anon_start: rss(marks.start),
        rss_anon_connected: rss(marks.connected),
        rss_anon_peak: all.into_iter().map(rss).max().unwrap_or_default(),
        rss_anon_end: rss(marks.end),
        user_bytes_per_connection: user
            .and_then(|(from, to)| per_session(from.rss_anon, to.rss_anon)),
        pss_anon_per_connection: pss.and_then(|(from, to)| per_session(from, to)),
        kernel_bytes_per_connection: slabs
            .get(ALL_SLABS)
            .and_then(|growth| each(*growth as f64, sessions)),
        slabs,
        sockets: details
            .map(|(from, to)| grown(&from.sockets, &to.sockets, |from, to| to - from))
            .unwrap_or_default(),
    }
}

/// The server at two moments, if it was there at both.
fn both(from: &Snapshot, to: &Snapshot) -> Option<(Process, Process)> {
    Some((from.server?, to.server?))
}

fn details<'a>(from: &'a Snapshot, to: &'a Snapshot) -> Option<(&'a Detail, &'a Detail)> {
    Some((from.detail.as_ref()?, to.detail.as_ref()?))
}

/// The growth of every value that the later map has; what the earlier lacks was zero.
fn grown<V: Copy + Default, G>(
    from: &BTreeMap<String, V>,
    to: &BTreeMap<String, V>,
    growth: impl Fn(V, V) -> G,
) -> BTreeMap<String, G> {
    let grown = to.iter().map(|(name, to)| {
        let from = from.get(name).copied().unwrap_or_default();
        (name.clone(), growth(from, *to))
    });
    grown.collect()
}

fn to_signed(from: u64, to: u64) -> i64 {
    let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
    signed(to) - signed(from)
}

/// The share of each, when there are any.
pub(crate) fn each(sum: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests;
