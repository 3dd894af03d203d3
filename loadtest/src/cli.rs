//! The command line: one command a scenario, with the same flags.
//!
//! A flag is named like the key of a scenario file that it overrides, and what no flag sets keeps the file's
//! value or the scenario's default. `--set key=value` reaches every key. Of a flag given twice the last counts,
//! so that whoever runs this from a script can add to its flags.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::coordinator::Options;
use crate::dialect::Dialect;
use crate::findcap::Cap;
use crate::spec::{Kind, Shape, Sizes, SlowKind, Spec};
use crate::{calibrate, compare, floor};

/// Puts load on a server of live connections and checks what comes back.
#[derive(Debug, Parser)]
#[command(name = "throng-load", version, arg_required_else_help = true, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect and hold; then each client calls, and a busy room and broadcasts may be added.
    Idle(Flags),
    /// Every message comes back to its sender: closed loop, or open with --rate.
    Echo(Flags),
    /// Publications to one room.
    Fanout(Flags),
    /// Many rooms of Zipf sizes and several publishers.
    Rooms(Flags),
    /// Clients come and go while others publish.
    Churn(Flags),
    /// A share of the clients drops at once and returns.
    Storm(Flags),
    /// A share of the clients reads badly or not at all.
    Slow(Flags),
    /// Many rooms, messages of many sizes, random arrivals.
    Mixed(Flags),
    /// Run a scenario file.
    Run {
        /// The file; see loadtest/scenarios.
        file: PathBuf,
        #[command(flatten)]
        flags: Flags,
    },
    /// Serve the least that a correct server could: what others are compared with.
    Floor(floor::Args),
    /// Measure what this machine's kernel costs.
    Calibrate(calibrate::Args),
    /// Compare runs: ratios with their confidence.
    Compare(compare::Args),
}

/// The flags of a scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    target: TargetFlags,
    #[command(flatten)]
    crowd: CrowdFlags,
    #[command(flatten)]
    load: LoadFlags,
    #[command(flatten)]
    trouble: TroubleFlags,
    /// Any key of a scenario file, as --set rooms.count=20.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A figure and what it may be at most (of rates: at least), as --budget delivery_p99_us=5000.
    #[arg(long, value_name = "FIGURE=LIMIT")]
    budget: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
    /// Find the highest rate whose 99th percentile keeps within so many milliseconds, without loss.
    #[arg(long, value_name = "MS")]
    find_cap: Option<f64>,
}

#[derive(Args, Clone, Debug)]
struct TargetFlags {
    /// Where to connect.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What the server speaks.
    #[arg(long, value_name = "throng|plain|socketio")]
    dialect: Option<Dialect>,
    /// IPv4 address to connect from, or a range of them in the last number, as 127.0.0.1-4.
    #[arg(long, value_name = "ADDRESS[-K]")]
    src: Option<String>,
    /// How long a phase may go without progress.
    #[arg(long, value_name = "MS")]
    patience_ms: Option<u64>,
    /// For wss://: a PEM file with the authorities that are believed.
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// For wss://: believe anybody.
    #[arg(long)]
    insecure: bool,
    /// Give each client a token signed with this secret by HS256, as a user of its own in every room.
    #[arg(long, value_name = "SECRET")]
    token_secret: Option<String>,
}

#[derive(Args, Clone, Debug)]
struct CrowdFlags {
    /// Clients; publishers are connections besides.
    #[arg(long)]
    clients: Option<u32>,
    /// Threads for the clients; 0 for as many as the descriptor limit asks for.
    #[arg(long)]
    threads: Option<u32>,
    /// Cores to run on, as 1 or 2,3.
    #[arg(long, value_delimiter = ',', value_name = "CORES")]
    cores: Option<Vec<usize>>,
    /// Connections a second; 0 for as fast as they go.
    #[arg(long, value_name = "PER_S")]
    ramp: Option<f64>,
    /// Idle: pause between the last connection and the first message.
    #[arg(long, value_name = "S")]
    hold: Option<f64>,
    /// Share of the clients that read now and then: counted, but without latency.
    #[arg(long, value_name = "SHARE")]
    lazy: Option<f64>,
    /// Share of the clients that listen by event streams.
    #[arg(long, value_name = "SHARE")]
    streams: Option<f64>,
    /// Number of rooms.
    #[arg(long)]
    rooms: Option<u32>,
    /// Number of publishers.
    #[arg(long)]
    publishers: Option<u32>,
    /// Idle: members of a room that is published to.
    #[arg(long, value_name = "CLIENTS")]
    side: Option<u32>,
    /// Idle: publications to everyone at the end.
    #[arg(long, value_name = "N")]
    broadcast: Option<u64>,
}

#[derive(Args, Clone, Debug)]
struct LoadFlags {
    /// Messages a second of all publishers together.
    #[arg(long, value_name = "PER_S")]
    rate: Option<f64>,
    /// The rate at the end of a step or a ramp.
    #[arg(long, value_name = "PER_S")]
    rate_to: Option<f64>,
    /// How messages are spread over time.
    #[arg(long, value_enum)]
    schedule: Option<Shape>,
    /// Messages that leave together.
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Messages to send; 0 for as many as fit the duration.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Seconds to send for; 0 until all messages are sent.
    #[arg(long, value_name = "S")]
    duration: Option<f64>,
    /// Payload bytes, as 64 or 64:9,4096:1 with weights.
    #[arg(long, value_name = "BYTES")]
    size: Option<Sizes>,
    /// Closed loop: messages that a publisher may be ahead of its members.
    #[arg(long, value_name = "N")]
    window: Option<u64>,
    /// Echo, closed loop: messages that each client has under way.
    #[arg(long, value_name = "N")]
    depth: Option<u32>,
}

#[derive(Args, Clone, Debug)]
struct TroubleFlags {
    /// Churn: mean length of a session.
    #[arg(long, value_name = "S")]
    stay: Option<f64>,
    /// Churn: share of the sessions that end without a close frame.
    #[arg(long, value_name = "SHARE")]
    abort: Option<f64>,
    /// Storm: share of the clients that drops.
    #[arg(long, value_name = "SHARE")]
    drop: Option<f64>,
    /// Storm: when they drop.
    #[arg(long, value_name = "S")]
    drop_at: Option<f64>,
    /// Storm: within which time they return; 0 for at once.
    #[arg(long, value_name = "S")]
    return_within: Option<f64>,
    /// Storm: return by exponential back-off with full jitter.
    #[arg(long)]
    back_off: bool,
    /// Storm: drop again every so many seconds.
    #[arg(long, value_name = "S")]
    again: Option<f64>,
    /// Storm: come back with cursors, and count what is missing from before as lost. The engine's rooms need
    /// history.
    #[arg(long)]
    resume: bool,
    /// Slow: share of the clients.
    #[arg(long, value_name = "SHARE")]
    slow: Option<f64>,
    /// Slow: what is wrong with them.
    #[arg(long, value_enum)]
    slow_kind: Option<SlowKind>,
}

/// What is watched, and where the results go.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutputFlags {
    /// Process of the server, to be sampled.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Log of the server, from which its counters are read after a SIGUSR1.
    #[arg(long, value_name = "FILE")]
    server_log: Option<PathBuf>,
    /// Write the outcome as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the outcome as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write the latencies as an HdrHistogram log.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// No live view.
    #[arg(long)]
    quiet: bool,
}

fn put<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

impl Flags {
    /// The scenario `kind` with these flags.
    ///
    /// # Errors
    /// Names the key, its value and what was expected.
    pub(crate) fn spec(&self, kind: Kind) -> Result<Spec, String> {
        self.over(Spec::new(kind))
    }

    /// The scenario of a file with these flags over it.
    ///
    /// # Errors
    /// Names the file and the key, its value and what was expected.
    pub(crate) fn spec_of(&self, file: &PathBuf) -> Result<Spec, String> {
        let wrong = |error: String| format!("{}: {error}", file.display());
        let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        self.over(Spec::from_toml(&text).map_err(wrong)?)
    }

    fn over(&self, mut spec: Spec) -> Result<Spec, String> {
        for set in &self.set {
            spec = spec.with(set)?;
        }
        for limit in &self.budget {
            spec = spec
                .with(&format!("budget.{limit}"))
                .map_err(|error| format!("--budget: {error}"))?;
        }
        let target = self.target.clone();
        put(&mut spec.target.url, target.url);
        put(&mut spec.target.dialect, target.dialect);
        put(&mut spec.target.src, target.src);
        put(&mut spec.target.patience_ms, target.patience_ms);
        put(&mut spec.target.ca, target.ca);
        spec.target.insecure |= target.insecure;
        put(&mut spec.target.token_secret, target.token_secret);
        let crowd = self.crowd.clone();
        put(&mut spec.crowd.clients, crowd.clients);
        put(&mut spec.crowd.threads, crowd.threads);
        put(&mut spec.crowd.cores, crowd.cores);
        put(&mut spec.crowd.ramp_per_s, crowd.ramp);
        put(&mut spec.crowd.hold_s, crowd.hold);
        put(&mut spec.crowd.lazy, crowd.lazy);
        put(&mut spec.crowd.streams, crowd.streams);
        put(&mut spec.rooms.count, crowd.rooms);
        put(&mut spec.rooms.publishers, crowd.publishers);
        put(&mut spec.rooms.side, crowd.side);
        put(&mut spec.rooms.broadcast, crowd.broadcast);
        let load = self.load.clone();
        put(&mut spec.load.rate, load.rate);
        put(&mut spec.load.rate_to, load.rate_to);
        put(&mut spec.load.schedule, load.schedule);
        put(&mut spec.load.burst, load.burst);
        put(&mut spec.load.messages, load.messages);
        put(&mut spec.load.duration_s, load.duration);
        put(&mut spec.load.size, load.size);
        put(&mut spec.load.window, load.window);
        put(&mut spec.load.depth, load.depth);
        let trouble = self.trouble.clone();
        put(&mut spec.trouble.stay_s, trouble.stay);
        put(&mut spec.trouble.abort, trouble.abort);
        put(&mut spec.trouble.drop, trouble.drop);
        put(&mut spec.trouble.drop_at_s, trouble.drop_at);
        put(&mut spec.trouble.return_within_s, trouble.return_within);
        spec.trouble.back_off |= trouble.back_off;
        put(&mut spec.trouble.again_s, trouble.again);
        spec.trouble.resume |= trouble.resume;
        put(&mut spec.trouble.slow, trouble.slow);
        put(&mut spec.trouble.slow_kind, trouble.slow_kind);
        spec.check()?;
        Ok(spec)
    }

    /// What is watched.
    pub(crate) fn options(&self) -> Options {
        let output = self.output.clone();
        Options { pid: output.pid, server_log: output.server_log, quiet: output.quiet }
    }

    /// The limit that the highest rate is to keep, when that is asked for.
    pub(crate) fn cap(&self) -> Option<Cap> {
        self.find_cap.map(|p99_ms| Cap { p99_us: p99_ms * 1000.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        let words = std::iter::once("throng-load").chain(line.split_whitespace());
        match Cli::try_parse_from(words).expect("a command line").command {
            Command::Fanout(flags) | Command::Run { flags, .. } => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_override_the_scenario() {
        let line =
            "fanout --clients 7 --rate 5 --size 64:9,4096:1 --set rooms.count=2 --set load.size=9";
        let spec = flags(line).spec(Kind::Fanout).expect("a scenario");
        assert_eq!((spec.crowd.clients, spec.load.rate, spec.rooms.count), (7, 5.0, 2));
        assert_eq!(spec.load.size.to_string(), "64:9,4096:1");
    }

    #[test]
    fn of_a_flag_given_twice_the_last_counts_and_every_set_does() {
        let line = "fanout --clients 7 --set rooms.count=2 --clients 9 --set load.burst=3";
        let spec = flags(line).spec(Kind::Fanout).expect("a scenario");
        assert_eq!((spec.crowd.clients, spec.rooms.count, spec.load.burst), (9, 2, 3));
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        for (line, key) in [
            ("fanout --clients 0", "crowd.clients"),
            ("fanout --set crowd.clinets=3", "did you mean crowd.clients?"),
            ("fanout --set crowd", "KEY=VALUE"),
            ("fanout --set load.size=big", "expected bytes"),
        ] {
            let error = flags(line).spec(Kind::Fanout).expect_err(line);
            assert!(error.contains(key), "{line}: {error}");
        }
    }

    #[test]
    fn every_shipped_scenario_is_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut seen = 0;
        for entry in fs::read_dir(folder).expect("the folder of scenarios") {
            let path = entry.expect("an entry").path();
            let spec = flags("run x").spec_of(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(spec.check(), Ok(()), "{path:?}");
            seen += 1;
        }
        assert!(seen >= 8, "{seen}");
    }
}
