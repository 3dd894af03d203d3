//! A broken engine is caught in every scenario, and a sound one is not accused.
//!
//! The generator runs each scenario against a real engine through a proxy that loses, repeats, reorders or
//! changes one delivery in 10,000. Such a run must end with exit code 1 and name the very fault; the same run
//! through the same proxy without a fault must pass, with deliveries enough that faults would have struck.
//! Where every session lasts to the end, each fault that struck must be counted. Only counts are judged, no
//! times. The generator needs io_uring: where the kernel forbids it, that is said and the test left out.
//! `secure` is about the door: whom the generator believes, and who its clients are.

#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

mod engine;
mod plan;
mod proxy;
mod secure;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use engine::Engine;
use plan::Fault;
use proxy::Proxy;

/// One fault in so many deliveries.
const EVERY: u64 = 10_000;

/// The faults, each with the count of an outcome that must show it.
const FAULTS: [(Fault, &str); 4] = [
    (Fault::Drop, "lost"),
    (Fault::Duplicate, "duplicates"),
    (Fault::Reorder, "reordered"),
    (Fault::Corrupt, "corrupt"),
];

/// A scenario with its flags, and what can be said of it.
struct Trial {
    scenario: &'static str,
    flags: &'static str,
    path: &'static str,
    /// Configuration of the engine besides its defaults.
    engine: &'static [&'static str],
    /// Whether every session lasts to the end, so that no fault can hide behind one that ended.
    is_exact: bool,
    /// A count that a sound run must show as well, or it was no such scenario.
    reaches: Option<&'static str>,
}

/// A run that is over.
struct Run {
    code: Option<i32>,
    messages: Value,
    verdict: Value,
    deliveries: u64,
    struck: u64,
}

impl Run {
    fn count(&self, name: &str) -> u64 {
        self.messages[name].as_u64().expect("a count")
    }
}

impl Trial {
    const fn new(scenario: &'static str, flags: &'static str) -> Self {
        Self { scenario, flags, path: "/ws", engine: &[], is_exact: true, reaches: None }
    }

    /// Runs the scenario through a proxy with that fault; nothing where the generator cannot run.
    fn run(&self, engine: &Engine, fault: Fault) -> Option<Run> {
        let proxy = Proxy::start(engine.address, fault, EVERY);
        let name = format!("faults-{}-{fault:?}.json", self.scenario);
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let output = Command::new(env!("CARGO_BIN_EXE_throng-load"))
            .args([self.scenario, "--quiet", "--patience-ms", PATIENCE_MS])
            .args(["--url", &format!("ws://{}{}", proxy.address, self.path)])
            .args(self.flags.split_whitespace())
            .arg("--json")
            .arg(&file)
            .output()
            .expect("the generator starts");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(2) {
            assert!(said.contains("io_uring is not available"), "{}: {said}", self.scenario);
            return None;
        }
        let json = fs::read(&file).expect("an outcome");
        let mut outcome: Value = serde_json::from_slice(&json).expect("an outcome in JSON");
        Some(Run {
            code: output.status.code(),
            messages: outcome["totals"]["messages"].take(),
            verdict: outcome["verdict"].take(),
            deliveries: proxy.plan.deliveries(),
            struck: proxy.plan.struck(),
        })
    }

    /// Runs the scenario without a fault and then with each.
    fn hold(&self, faults: &[(Fault, &str)]) {
        let engine = Engine::start(self.engine);
        let Some(sound) = self.run(&engine, Fault::Nothing) else {
            // Past the capture of the test harness, so that whoever runs the tests sees it.
            let line = format!("faults in {}: LEFT OUT, as there is no io_uring\n", self.scenario);
            return io::stderr().write_all(line.as_bytes()).expect("a standard error");
        };
        self.check_sound(&sound);
        for (fault, count) in faults {
            let run = self.run(&engine, *fault).expect("io_uring, which was there before");
            let what = format!("{} {fault:?} x {}: {}", self.scenario, run.struck, run.messages);
            assert!(run.struck >= 1, "{what}");
            assert_eq!(run.code, Some(1), "{what}, {}", run.verdict);
            assert!(run.count(count) >= 1, "{what}");
            if self.is_exact {
                assert_eq!(run.count(count), run.struck, "{what}");
            }
        }
    }

    fn check_sound(&self, run: &Run) {
        let what = format!("{}: {}, {}", self.scenario, run.messages, run.verdict);
        assert_eq!(run.code, Some(0), "{what}");
        for count in ["lost", "duplicates", "reordered", "offset_breaks", "corrupt"] {
            assert_eq!(run.count(count), 0, "{what}");
        }
        let enough = 2 * EVERY;
        assert!(run.deliveries >= enough, "{} deliveries, {what}", run.deliveries);
        // A session that its client ends may leave deliveries on the way.
        let is_right = |received| match self.is_exact {
            true => run.deliveries == received,
            false => run.deliveries >= received,
        };
        assert!(is_right(run.count("received")), "{} deliveries, {what}", run.deliveries);
        assert!(self.reaches.is_none_or(|count| run.count(count) > 0), "{what}");
    }
}

/// How long a phase of a run may stand still. What a lost echo is waited for, so not too long.
const PATIENCE_MS: &str = "5000";

#[test]
fn faults_among_the_answers_to_a_roll_call_are_caught() {
    let trial = Trial::new("idle", "--clients 90 --hold 0 --set crowd.roll_calls=301");
    // An answer has a number and no checksum.
    trial.hold(&FAULTS[..3]);
}

#[test]
fn faults_among_echoes_are_caught() {
    let flags = "--clients 50 --depth 8 --messages 25000 --duration 0";
    Trial { path: "/echo", ..Trial::new("echo", flags) }.hold(&FAULTS);
}

#[test]
fn faults_in_one_room_are_caught() {
    let flags = "--clients 100 --messages 250 --duration 0 --window 8";
    Trial::new("fanout", flags).hold(&FAULTS);
}

#[test]
fn faults_in_event_streams_are_caught() {
    let flags = "--clients 100 --rooms 5 --messages 1200 --duration 0 --window 8 --streams 1";
    Trial::new("rooms", flags).hold(&FAULTS);
}

#[test]
fn faults_in_a_storm_of_streams_that_come_back_with_their_last_events_are_caught() {
    let flags = "--clients 100 --rate 110 --duration 3 --drop-at 0.5 --again 1 --return-within 0.5 --resume --streams 0.5";
    let engine = &["namespace=[{pattern=\"*\", history_count=10000}]"];
    Trial { engine, is_exact: false, ..Trial::new("storm", flags) }.hold(&FAULTS);
}

#[test]
fn a_run_over_its_budget_fails_and_one_within_it_does_not() {
    let engine = Engine::start(&[]);
    let run = |budget: &str| {
        let flags = format!("--clients 10 --messages 100 --duration 0 --window 4 {budget}");
        let command = Command::new(env!("CARGO_BIN_EXE_throng-load"))
            .args(["fanout", "--quiet", "--url", &format!("ws://{}/ws", engine.address)])
            .args(flags.split_whitespace())
            .output()
            .expect("the generator starts");
        (command.status.code(), String::from_utf8_lossy(&command.stdout).into_owned())
    };
    // An hour and a nanosecond: what is tried is the verdict, not how fast anything is.
    let (code, said) = run("--budget delivery_p99_us=3600000000");
    if code == Some(2) {
        return;
    }
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run("--budget delivery_p99_us=0.001 --budget received_per_s=1");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("over budget: delivery_p99_us is") && !said.contains("received_per_s is"),
        "{said}"
    );
    let (code, said) = run("--budget delivery_p99=1");
    assert_eq!((code, said.contains("no budget for delivery_p99")), (Some(1), true), "{said}");
}

#[test]
fn faults_in_many_rooms_are_caught() {
    let flags = "--clients 100 --rooms 5 --messages 1200 --duration 0 --window 8";
    Trial::new("rooms", flags).hold(&FAULTS);
}

#[test]
fn faults_among_clients_that_come_and_go_are_caught() {
    let flags = "--clients 100 --rooms 4 --rate 420 --duration 3 --stay 1";
    Trial { is_exact: false, ..Trial::new("churn", flags) }.hold(&FAULTS);
}

#[test]
fn faults_in_a_storm_are_caught() {
    let flags = "--clients 100 --rate 110 --duration 3 --drop-at 1 --return-within 1";
    Trial { is_exact: false, ..Trial::new("storm", flags) }.hold(&FAULTS);
}

#[test]
fn faults_in_a_storm_whose_clients_come_back_with_cursors_are_caught() {
    let flags = "--clients 100 --rate 110 --duration 3 --drop-at 0.5 --again 1 --return-within 0.5 --resume";
    let engine = &["namespace=[{pattern=\"*\", history_count=10000}]"];
    Trial { engine, is_exact: false, ..Trial::new("storm", flags) }.hold(&FAULTS);
}

#[test]
fn faults_among_slow_readers_are_caught() {
    let flags = "--clients 100 --rate 150 --duration 2 --size 4096";
    let engine = &["queue.high_water_bytes=65536", "queue.low_water_bytes=16384"];
    let told = "dropped_by_policy";
    Trial { engine, reaches: Some(told), ..Trial::new("slow", flags) }.hold(&FAULTS);
}

#[test]
fn faults_among_messages_of_all_sizes_are_caught() {
    let flags = "--clients 100 --rooms 5 --rate 600 --duration 2";
    Trial::new("mixed", flags).hold(&FAULTS);
}
