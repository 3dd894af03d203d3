//! A budget of memory against readers who do not read, with a limit of the kernel's behind it.
//!
//! The program is a process of its own, to which the kernel gives no more data than it has at its start and
//! a few MiB (`RLIMIT_DATA`). What its readers are sent is three times that: a second run, whose budget is
//! practically none, is refused memory under the same load and dies of it, so the limit is a real one.
//! Where `THRONG_TEST_CGROUP` names a control group with a limit on memory, which whoever runs the tests has
//! made for them, the first run is put into that as well: a test makes no groups of its own, because the
//! one it runs in belongs to somebody else. What is judged is what others receive: every message, in order.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::process::Program;
use crate::support::{Client, on_both_drivers, wait_until};

const BUDGET: u64 = 4 << 20;
/// Practically no budget: the most that the configuration takes is 2 to the 50th.
const NO_BUDGET: u64 = 1 << 50;
/// Bytes of data that the program gets beyond what it has when it serves.
const SPARE: u64 = 24 << 20;
const HOSTILE: usize = 250;
/// Each sends every hostile reader a message of so many bytes: three times the spare data.
const ROUNDS: u64 = 80;
const FILLER: usize = 4000;

/// The environment's word for a control group to run in.
const GROUP: &str = "THRONG_TEST_CGROUP";
/// The most that the group may allow: under more than this it would prove nothing.
const GROUP_BYTES: u64 = 512 << 20;

/// What both runs have in common. The queues are as they are by default.
fn sets(driver: &str, budget: u64) -> Vec<String> {
    let own = [
        "limits.messages_per_second=0",
        "server.pin=false",
        "server.max_connections=1000",
        "tcp.send_buffer_bytes=8192",
        "tcp.notsent_lowat_bytes=4096",
    ];
    let more = [format!("server.driver={driver}"), format!("limits.memory_bytes={budget}")];
    let all = own.iter().map(|set| (*set).to_owned()).chain(more);
    all.flat_map(|set| ["--set".to_owned(), set]).collect()
}

/// Starts the program in the group, if there is one, and gives back its name.
fn start(sets: &[&str]) -> (Program, Option<String>) {
    let Ok(group) = std::env::var(GROUP) else {
        println!("a limit on data only: {GROUP} names no control group");
        return (Program::start_sparing(sets), None);
    };
    let limit = read(&group, "memory.max", "memory.limit_in_bytes");
    let bytes: u64 = limit.trim().parse().expect("a limit in bytes");
    assert!(bytes <= GROUP_BYTES, "{group} allows {bytes} bytes");
    println!("a limit of {bytes} bytes in {group}");
    (Program::start_grouped(&group, sets), Some(group))
}

/// A file of a control group, by its name in version 2 or in version 1.
fn read(group: &str, new: &str, old: &str) -> String {
    let new = std::fs::read_to_string(format!("{group}/{new}"));
    new.or_else(|_| std::fs::read_to_string(format!("{group}/{old}"))).expect("a control group")
}

/// How many processes of the group the kernel has ended for want of memory.
fn killed(group: &str) -> u64 {
    let events = read(group, "memory.events", "memory.oom_control");
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.expect("a count").trim().parse().expect("a number")
}

/// Readers who do not read, one who does, and somebody who publishes to all of them.
struct Crowd {
    good: Client,
    hostile: Vec<Client>,
    publisher: Client,
    filler: String,
}

impl Crowd {
    fn gather(address: SocketAddr) -> Self {
        let mut good = Client::connect(address);
        good.join("good");
        let hostile = (0..HOSTILE)
            .map(|at| {
                let mut client = Client::connect_narrow(address);
                client.join(&format!("r{at}"));
                client
            })
            .collect();
        Self { good, hostile, publisher: Client::connect(address), filler: "x".repeat(FILLER) }
    }

    /// A message to everybody who does not read, then one to who does; an error where nobody takes them.
    fn publish(&mut self, round: u64) -> Result<(), tungstenite::Error> {
        for at in 0..HOSTILE {
            let room = format!("r{at}");
            let message = json!({"type": "x", "room": room, "payload": self.filler});
            self.publisher.try_send(&message.to_string())?;
        }
        let message = json!({"type": "n", "room": "good", "payload": round});
        self.publisher.try_send(&message.to_string())
    }
}

/// A message that is begun, goes on for so long, and never ends.
fn begin_message(mut stream: &TcpStream, bytes: u16) {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend((bytes + 1000).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + usize::from(bytes), b' ');
    // One that was closed by now has done its part.
    let _ = stream.write_all(&frame);
}

on_both_drivers! {
    fn hostile_readers_cost_no_more_than_the_budget_and_others_are_served_as_before(driver) {
        let sets = sets(driver, BUDGET);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let (mut program, group) = start(&sets);
        let before_all = group.as_deref().map(killed);
        program.confine(SPARE);
        let mut crowd = Crowd::gather(program.address);
        for round in 0..ROUNDS {
            crowd.publish(round).expect("somebody who takes it");
            assert_eq!(crowd.good.next()["payload"], json!(round), "every message, in order");
            if round % 8 == 0 {
                let counters = program.counters();
                // What one read brings is obeyed before the budget is looked at.
                assert!(counters.charged_bytes < BUDGET + (1 << 20), "{counters:?}");
            }
        }
        let before = program.counters();
        assert!(before.memory_pauses_total > 0, "{before:?}");
        // What is half-read cannot be dropped: now somebody has to go.
        let hoarders: Vec<Client> = (0..HOSTILE).map(|_| Client::connect(program.address)).collect();
        for client in &hoarders {
            begin_message(client.stream(), 60_000);
        }
        let mut after = before;
        wait_until("the heaviest are closed", || {
            after = program.counters();
            after.memory_shed_total > before.memory_shed_total && after.charged_bytes < BUDGET * 9 / 10
        });
        assert!(after.charged_bytes < BUDGET, "{after:?}");
        let Crowd { mut good, hostile, mut publisher, .. } = crowd;
        for number in 0..50 {
            publisher.send(&json!({"type": "n", "room": "good", "payload": number}));
            assert_eq!(good.next()["payload"], json!(number));
        }
        assert_eq!((after.panics_total, after.heartbeat_lost_total), (0, 0));
        drop((hostile, hoarders));
        wait_until("memory is there again", || {
            program.counters().connections == 2
        });
        Client::connect(program.address).expect_silence();
        program.signal("-TERM");
        assert_eq!(program.exit_code(), Some(0), "it lives to the end");
        assert_eq!(group.as_deref().map(killed), before_all, "the kernel had to end nobody");
    }

    /// The same load, and so the proof that what it meets above is a limit.
    fn without_a_budget_the_same_readers_are_the_end_of_the_process(driver) {
        let sets = sets(driver, NO_BUDGET);
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let mut program = Program::start_sparing(&sets);
        program.confine(SPARE);
        let mut crowd = Crowd::gather(program.address);
        // Who is there no longer takes nothing any more, sooner or later.
        let _ = (0..ROUNDS).try_for_each(|round| crowd.publish(round));
        wait_until("it is refused memory and dies", || program.has_ended());
        let (status, log) = program.end();
        assert!(status.code().is_none(), "{status}");
        assert!(log.contains("memory allocation of"), "{log}");
    }
}
