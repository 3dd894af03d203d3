//! Outcomes made up for tests: a whole run of one room, a run that only connects, one that failed.
//!
//! The figures are invented but hang together, so that a page of them looks like a page of a run. A fixed
//! seed makes them the same every time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hdr::Hist;
use crate::outcome::{
    About, Environment, FORMAT, GeneratorUse, Latency, Memory, Messages, Outcome, PhaseSpan,
    Second, ServerUse, Sessions, Totals, Verdict,
};

const TOML: &str = "\
scenario = \"fanout\"
url = \"ws://127.0.0.1:8080/ws\"
clients = 10000
cores = [1]
src = \"127.0.0.1-4\"

[publish]
schedule = \"poisson\"
rate = 20.0
duration = \"60s\"
size = 128
";

/// One room of 10,000, published to for a minute; passed.
pub(crate) fn fanout() -> Outcome {
    let mut random = fastrand::Rng::with_seed(7);
    let mut outcome = Outcome {
        format: FORMAT,
        about: about("fanout"),
        phases: phases(&[
            ("connect", 0.0, 4.2),
            ("hold", 4.2, 6.0),
            ("publish", 6.0, 66.0),
            ("settle", 66.0, 66.8),
            ("close", 66.8, 69.0),
        ]),
        latencies: vec![
            latency(&mut random, "delivery", 60_000, 2.1),
            latency(&mut random, "last", 1200, 9.0),
            latency(&mut random, "connect", 10_000, 0.6),
        ],
        series: (1..=69).map(|at| second(&mut random, at)).collect(),
        server: Some(server()),
        generator: generator(),
        verdict: Verdict { passed: true, ..Verdict::default() },
        ..Outcome::default()
    };
    let sent: u64 = outcome.series.iter().map(|second| second.sent).sum();
    let received = outcome.series.iter().map(|second| second.received).sum();
    outcome.totals = Totals {
        sessions: Sessions {
            opened: 10_000,
            close_codes: BTreeMap::from([("1000".into(), 10_000)]),
            ..Sessions::default()
        },
        messages: Messages {
            sent,
            expected: received,
            received,
            sent_bytes: sent * 128,
            received_bytes: received * 173,
            ..Messages::default()
        },
        failures: BTreeMap::new(),
    };
    outcome
}

/// A million that connect and stay; no message, so that many figures are absent.
pub(crate) fn idle() -> Outcome {
    let mut outcome = fanout();
    outcome.about.scenario = "idle".into();
    outcome.about.clients = 1_000_000;
    outcome.totals.sessions.opened = 1_000_000;
    outcome.totals.messages = Messages::default();
    outcome.latencies.retain(|latency| latency.name == "connect");
    outcome.phases = phases(&[("connect", 0.0, 38.4), ("hold", 38.4, 68.4), ("close", 68.4, 69.0)]);
    for (second, at) in outcome.series.iter_mut().zip(1..) {
        (second.sent, second.received, second.received_bytes) = (0, 0, 0);
        (second.p50_us, second.p99_us, second.max_us) = (None, None, None);
        second.connected = (26_041 * at).min(1_000_000);
    }
    if let Some(server) = &mut outcome.server {
        server.cpu_us_per_message = None;
        server.core_busy_us_per_message = None;
        server.frames_per_write = None;
    }
    outcome
}

/// A run that lost messages on a machine that was busy with something else, seen by nobody's sampler.
pub(crate) fn failed() -> Outcome {
    let mut outcome = fanout();
    outcome.totals.messages.received -= 12;
    outcome.totals.messages.lost = 12;
    outcome.totals.sessions.ended_by_server = 2;
    outcome.totals.failures.insert("connection reset <by> the \"peer\" & gone".into(), 2);
    outcome.server = None;
    for second in &mut outcome.series {
        (second.server_cores, second.server_rss_anon) = (None, None);
    }
    outcome.verdict = Verdict {
        passed: false,
        faults: vec!["12 messages were lost".into(), "2 sessions were ended by the server".into()],
        void: true,
        doubts: vec!["other processes used 7.2 % of a core".into()],
    };
    outcome
}

fn about(scenario: &str) -> About {
    About {
        scenario: scenario.into(),
        url: "ws://127.0.0.1:8080/ws".into(),
        dialect: "throng".into(),
        open_loop: true,
        clients: 10_000,
        threads: 1,
        started_unix_ms: 1_767_225_600_000,
        scenario_toml: TOML.into(),
        environment: Environment {
            kernel: "Linux 6.18.3".into(),
            processor: "AMD EPYC 9B14".into(),
            cores: 2,
            memory_bytes: 16 << 30,
            virtualised: true,
            descriptors: 20_000,
            port_range: "32768 to 60999".into(),
            own_cores: vec![1],
        },
    }
}

fn phases(spans: &[(&str, f64, f64)]) -> Vec<PhaseSpan> {
    let span =
        |&(name, from_s, to_s): &(&str, f64, f64)| PhaseSpan { name: name.into(), from_s, to_s };
    spans.iter().map(span).collect()
}

/// A long-tailed latency around `ms` milliseconds.
fn latency(random: &mut fastrand::Rng, name: &str, count: u64, ms: f64) -> Latency {
    let mut hist = Hist::fine();
    for _ in 0..count {
        let tail = if random.f64() < 0.002 { 3.5 } else { 1.0 };
        let took = Duration::from_secs_f64(ms / 1000.0 * tail * spread(random));
        hist.record_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    hist.latency(name)
}

/// A factor around one, skewed upwards.
fn spread(random: &mut fastrand::Rng) -> f64 {
    let sum: f64 = (0..6).map(|_| random.f64()).sum();
    ((sum - 3.0) * 0.55).exp()
}

fn second(random: &mut fastrand::Rng, at: u32) -> Second {
    let at_s = f64::from(at);
    let publishing = (7..=66).contains(&at);
    let sent = if publishing { random.u64(15..=25) } else { 0 };
    // One second in which the server stalled, so that the tail shows on the page.
    let stall = if at == 41 { 9.0 } else { 1.0 };
    let around = |random: &mut fastrand::Rng, us: f64| publishing.then(|| us * spread(random));
    let connected = match at {
        0..=4 => u64::from(at) * 2380,
        5..=67 => 10_000,
        _ => 0,
    };
    let mut calm = |us: f64| publishing.then(|| us * (0.94 + 0.12 * random.f64()));
    let (p50_us, p99_us) = (calm(2100.0), calm(5600.0).map(|us| us * stall));
    Second {
        at_s,
        connected,
        sent,
        received: sent * connected,
        received_bytes: sent * connected * 173,
        p50_us,
        p99_us,
        max_us: around(random, 9000.0 * stall).map(|us| us.max(p99_us.unwrap_or(0.0) * 1.05)),
        server_cores: Some(if publishing { 0.048 * sent as f64 } else { 0.03 * f64::from(at % 3) }),
        server_rss_anon: Some(
            7_000_000 + connected * 280 + if publishing { random.u64(0..400_000) } else { 0 },
        ),
        generator_cores: if publishing { 0.029 * sent as f64 } else { 0.22 },
    }
}

fn server() -> ServerUse {
    ServerUse {
        pid: 4242,
        command: "throng --config throng.toml".into(),
        cpu_s: 57.4,
        cpu_us_per_message: Some(4.81),
        cpu_us_per_session: Some(31.2),
        core_busy: 0.962,
        core_busy_us_per_message: Some(4.92),
        memory: Memory {
            rss_anon_start: 7_000_000,
            rss_anon_connected: 9_800_000,
            rss_anon_peak: 10_190_000,
            rss_anon_end: 8_100_000,
            user_bytes_per_connection: Some(280.0),
            pss_anon_per_connection: Some(283.5),
            kernel_bytes_per_connection: Some(8104.0),
            slabs: BTreeMap::from([
                ("TCP".into(), 47_185_920),
                ("filp".into(), 5_120_000),
                ("sock_inode_cache".into(), 16_777_216),
            ]),
            sockets: BTreeMap::from([("TCP.inuse".into(), 20_000), ("TCP.mem".into(), 4)]),
        },
        counters: BTreeMap::from([
            ("throng_frames_sent_total".into(), 12_010_000.0),
            ("throng_writes_total".into(), 11_830_000.0),
        ]),
        frames_per_write: Some(1.02),
    }
}

fn generator() -> GeneratorUse {
    GeneratorUse {
        cpu_s: 35.1,
        core_busy: 0.61,
        cpu_us_per_message: Some(2.93),
        bytes_per_client: Some(1312.0),
        late_p99_us: Some(38.0),
        late_max_us: Some(412.0),
        foreign: 0.004,
        stolen: 0.001,
    }
}
