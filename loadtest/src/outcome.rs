//! What a run yields: one value, written as JSON, drawn as a page, compared with another.
//!
//! Everything that judges or shows a run reads this and nothing else, so a figure that is not in here is
//! in no report. Durations are microseconds as floating point numbers, memory is bytes, processor time is
//! seconds; field names carry the unit. Gauges that could not be read are absent, never zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this format; a reader refuses others.
pub(crate) const FORMAT: u32 = 1;

/// One run from the first connection to the last close.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) format: u32,
    pub(crate) about: About,
    pub(crate) phases: Vec<PhaseSpan>,
    pub(crate) totals: Totals,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) series: Vec<Second>,
    /// Absent without `--pid`.
    pub(crate) server: Option<ServerUse>,
    pub(crate) generator: GeneratorUse,
    pub(crate) verdict: Verdict,
}

/// What was run, where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// `idle`, `echo`, `fanout` and so on.
    pub(crate) scenario: String,
    pub(crate) url: String,
    /// `throng`, `plain` or `socketio`.
    pub(crate) dialect: String,
    /// True when messages left by a schedule, false when each waited for the one before it.
    pub(crate) open_loop: bool,
    pub(crate) clients: u64,
    pub(crate) threads: u64,
    /// Milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// The whole scenario as TOML, so that the run can be repeated.
    pub(crate) scenario_toml: String,
    pub(crate) environment: Environment,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cores: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) virtualised: bool,
    /// Descriptors per table.
    pub(crate) descriptors: u64,
    pub(crate) port_range: String,
    /// Cores this program was allowed on.
    pub(crate) own_cores: Vec<u32>,
}

/// A named part of the run, on the clock of [`Second::at_s`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhaseSpan {
    /// `connect`, `hold`, `publish`, `settle`, `close`.
    pub(crate) name: String,
    pub(crate) from_s: f64,
    pub(crate) to_s: f64,
}

/// What was counted, over all clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) sessions: Sessions,
    pub(crate) messages: Messages,
    /// What went wrong: each kind of failure in words, with the number of times.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// How sessions began and ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    /// Sessions opened, reconnections included.
    pub(crate) opened: u64,
    /// Attempts that did not become a session.
    pub(crate) refused: u64,
    /// Attempts of a returning client that failed and were made again.
    pub(crate) retried: u64,
    /// Ended early by the scenario itself (churn, storm), or by the server as the scenario expects (slow).
    pub(crate) ended_by_plan: u64,
    /// Ended by the server although it should not have.
    pub(crate) ended_by_server: u64,
    /// Close codes received, each with its number of times.
    pub(crate) close_codes: BTreeMap<String, u64>,
}

/// Messages that ask for delivery (publications, echoes, roll calls) and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Messages {
    pub(crate) sent: u64,
    /// Deliveries that must arrive, reckoned from what was sent and who was there.
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// Losses that the server told of (`throng:gap`).
    pub(crate) dropped_by_policy: u64,
    /// Losses that nothing accounts for.
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// Offsets that a room skipped or repeated, by the server's own numbering.
    pub(crate) offset_breaks: u64,
    /// Payloads whose checksum is wrong.
    pub(crate) corrupt: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// One kind of latency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    /// `delivery` (planned send to receipt), `last` (planned send to the last subscriber's receipt), `echo`,
    /// `connect` (dial to greeting), `join`, `stayed` (delivery to those who stayed through a storm),
    /// `healthy` (delivery to those who read in time), `side` (delivery in an idle crowd's busy room),
    /// `return` (from the storm until a client is back).
    pub(crate) name: String,
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) min_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
    /// The whole histogram of nanoseconds, HdrHistogram V2 with deflate, base64.
    pub(crate) hdr: String,
}

/// One second of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Seconds since the run began, at the end of this interval.
    pub(crate) at_s: f64,
    pub(crate) connected: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    /// Of the latency the scenario is about; absent when nothing arrived.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    /// Cores' worth of processor time that the server used.
    pub(crate) server_cores: Option<f64>,
    pub(crate) server_rss_anon: Option<u64>,
    pub(crate) generator_cores: f64,
}

/// What the run cost the server. "Measured part": from the first message to the last, without connecting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerUse {
    pub(crate) pid: u32,
    pub(crate) command: String,
    /// Processor time of the process in the measured part.
    pub(crate) cpu_s: f64,
    /// The same per delivery, echo or session, whichever the scenario is about.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// Processor time of the process while connecting, per session opened.
    pub(crate) cpu_us_per_session: Option<f64>,
    /// Busy share of the cores the server may run on, 0 to 1 each, averaged; interrupts included.
    pub(crate) core_busy: f64,
    pub(crate) core_busy_us_per_message: Option<f64>,
    pub(crate) memory: Memory,
    /// Growth of the server's own counters in the measured part; empty when it offers none.
    pub(crate) counters: BTreeMap<String, f64>,
    pub(crate) frames_per_write: Option<f64>,
}

/// Memory. Growth per connection is from before the first connection to when all were there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) rss_anon_start: u64,
    pub(crate) rss_anon_connected: u64,
    pub(crate) rss_anon_peak: u64,
    pub(crate) rss_anon_end: u64,
    pub(crate) user_bytes_per_connection: Option<f64>,
    pub(crate) pss_anon_per_connection: Option<f64>,
    /// Both ends, when the generator runs on the same host.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// Growth of each kernel slab in bytes.
    pub(crate) slabs: BTreeMap<String, i64>,
    /// Growth of the lines of `/proc/net/sockstat`, as `TCP.inuse`.
    pub(crate) sockets: BTreeMap<String, i64>,
}

/// What the run cost its generator, and whether it kept to its plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GeneratorUse {
    pub(crate) cpu_s: f64,
    /// Busy share of the cores it may run on, in the measured part; without a publication to everyone at
    /// its end, which is to go as fast as both ends can.
    pub(crate) core_busy: f64,
    /// Processor time per message received, in the measured part.
    pub(crate) cpu_us_per_message: Option<f64>,
    pub(crate) bytes_per_client: Option<f64>,
    /// How late messages left, against their planned time.
    pub(crate) late_p99_us: Option<f64>,
    pub(crate) late_max_us: Option<f64>,
    /// Share of a core that processes other than the server and this one used.
    pub(crate) foreign: f64,
    /// Share of a core that the hypervisor took.
    pub(crate) stolen: f64,
}

/// What to think of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// False when something was lost, repeated, reordered, corrupt or ended, or nothing was checked.
    pub(crate) passed: bool,
    /// Why not.
    pub(crate) faults: Vec<String>,
    /// True when the figures must not be believed, whatever the counts say.
    pub(crate) void: bool,
    /// Why not.
    pub(crate) doubts: Vec<String>,
}
