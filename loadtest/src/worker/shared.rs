//! What all threads see.
//!
//! Facts of the run, fixed before the first thread starts, and figures in atomics: each thread has a row of
//! gauges that only it writes, so counting never contends. Orders travel the other way, by a watch channel.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::payload::Stamp;
use crate::socket::Target;
use crate::spec::{Layout, Spec};

/// What the coordinator asks for, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Nothing yet.
    Wait,
    /// Connect and join; an idle crowd only connects.
    Connect,
    /// An idle crowd joins its rooms.
    Join,
    /// Send, from [`Shared::start_ns`] on.
    Publish,
    /// Nothing more is sent; await what is under way.
    Settle,
    /// Close and report.
    Close,
}

/// What a thread counts for others to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gauge {
    /// Sessions that are ready, now.
    Ready,
    /// Clients of an idle crowd that are in their rooms.
    Joined,
    /// Messages sent.
    Sent,
    SentBytes,
    /// Deliveries, echoes and answers received.
    Received,
    ReceivedBytes,
    /// Clients that have had everything they wait for.
    Finished,
    /// Drivers and publishers that have sent everything.
    Done,
    Failures,
    /// Tasks that are still at work.
    Tasks,
}

const GAUGES: usize = Gauge::Tasks as usize + 1;

/// One thread's gauges. Only that thread adds.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauges([AtomicU64; GAUGES]);

impl Gauges {
    pub(super) fn add(&self, gauge: Gauge, value: u64) {
        let cell = &self.0[gauge as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, gauge: Gauge, value: u64) {
        self.add(gauge, value.wrapping_neg());
    }

    fn get(&self, gauge: Gauge) -> u64 {
        self.0[gauge as usize].load(Ordering::Relaxed)
    }
}

/// What is known of one stream of publications.
#[derive(Debug, Default)]
pub(crate) struct StreamState {
    /// Its last sequence number; 0 while it goes on.
    pub(super) total: AtomicU64,
    /// Deliveries so far, kept in closed loops only.
    pub(super) delivered: AtomicU64,
}

/// What all threads see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) spec: Spec,
    pub(crate) layout: Layout,
    pub(crate) target: Target,
    pub(crate) sources: Vec<IpAddr>,
    /// Tells this run's payloads from another's.
    pub(crate) run: u32,
    /// The rooms' names by number.
    pub(crate) names: Vec<String>,
    pub(crate) gauges: Vec<Gauges>,
    pub(crate) streams: Vec<StreamState>,
    /// When the first message is to leave, nanoseconds of the monotonic clock.
    pub(crate) start_ns: AtomicU64,
}

impl Shared {
    /// Prepares a run of so many threads.
    pub(crate) fn new(
        spec: Spec,
        target: Target,
        sources: Vec<IpAddr>,
        threads: usize,
        run: u32,
    ) -> Self {
        let layout = Layout::new(&spec);
        let prefix = match spec.rooms.prefix.as_str() {
            "" => format!("load-{run:08x}-"),
            prefix => prefix.to_owned(),
        };
        let rooms = layout.streams.iter().copied().max().map_or(0, |most| most + 1);
        Self {
            names: (0..rooms).map(|room| format!("{prefix}{room}")).collect(),
            gauges: (0..threads).map(|_| Gauges::default()).collect(),
            streams: layout.streams.iter().map(|_| StreamState::default()).collect(),
            start_ns: AtomicU64::new(u64::MAX),
            spec,
            layout,
            target,
            sources,
            run,
        }
    }

    /// A gauge, summed over the threads.
    pub(crate) fn total(&self, gauge: Gauge) -> u64 {
        self.gauges.iter().fold(0, |sum, row| sum.wrapping_add(row.get(gauge)))
    }

    /// The name of a room.
    pub(super) fn name(&self, room: u32) -> &str {
        usize::try_from(room).ok().and_then(|at| self.names.get(at)).map_or("", String::as_str)
    }

    /// The room of a stream.
    pub(super) fn room_of(&self, stream: u32) -> Option<u32> {
        self.layout.streams.get(usize::try_from(stream).ok()?).copied()
    }

    /// The streams of a room.
    pub(super) fn streams_of(&self, room: u32) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.layout.streams)
            .filter(move |(_, of)| **of == room)
            .map(|(stream, _)| stream)
    }

    /// The last sequence number of a stream that has ended.
    pub(super) fn total_of(&self, stream: u32) -> Option<u64> {
        let state = self.streams.get(usize::try_from(stream).ok()?)?;
        Some(state.total.load(Ordering::Acquire)).filter(|total| *total > 0)
    }

    /// True when the stamp belongs to this run.
    pub(super) fn is_ours(&self, stamp: &Stamp) -> bool {
        stamp.run == self.run
    }

    /// When the first message is to leave.
    pub(super) fn start(&self) -> u64 {
        self.start_ns.load(Ordering::Acquire)
    }

    /// When a scenario of fixed length is over; never for others.
    pub(super) fn end(&self) -> u64 {
        match self.spec.load.duration_s {
            0.0 => u64::MAX,
            seconds => self.start().saturating_add(nanos(seconds)),
        }
    }
}

/// Seconds as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be positive"
)]
pub(crate) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
