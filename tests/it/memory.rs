//! A budget of memory against readers who do not read, with a limit of the kernel's behind it.
//!
//! The program runs under a limit on its address space, so that one which took in what it is sent would
//! be refused memory and die. Where `THRONG_TEST_CGROUP` names a control group with a limit on memory,
//! which whoever runs the tests has made for them, the program is put into that one instead: a test makes
//! no groups of its own, because the one it runs in belongs to somebody else. Which of the two it was is
//! said aloud. What is judged is what others receive: every message, in order.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;

use crate::process::Program;
use crate::support::{Client, on_both_drivers, wait_until};

const BUDGET: u64 = 4 << 20;
/// Bytes of address space: the program and its threads, its rings, and little else.
const SPACE_KIB: u64 = 1 << 20;
const HOSTILE: usize = 60;
const ROUNDS: u64 = 60;

/// The environment's word for a control group to run in.
const GROUP: &str = "THRONG_TEST_CGROUP";
/// The most that the group may allow: under more than this the test would prove nothing.
const GROUP_BYTES: u64 = 512 << 20;

/// Starts the program where the kernel refuses it memory; the group, if that is what refuses.
fn start(sets: &[&str]) -> (Program, Option<String>) {
    match std::env::var(GROUP) {
        Err(_) => {
            println!("a limit on address space: {GROUP} names no control group");
            (Program::start_small(SPACE_KIB, sets), None)
        }
        Ok(group) => {
            let limit = read(&group, "memory.max", "memory.limit_in_bytes");
            let bytes: u64 = limit.trim().parse().expect("a limit in bytes");
            assert!(bytes <= GROUP_BYTES, "{group} allows {bytes} bytes");
            println!("a limit of {bytes} bytes in {group}");
            (Program::start_grouped(&group, sets), Some(group))
        }
    }
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

/// Frames of so many bytes each.
fn filler() -> String {
    "x".repeat(4000)
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
        let driver = format!("server.driver={driver}");
        let budget = format!("limits.memory_bytes={BUDGET}");
        let sets = [
            driver.as_str(), budget.as_str(), "limits.messages_per_second=0", "server.pin=false",
            "server.max_connections=1000", "tcp.send_buffer_bytes=8192", "tcp.notsent_lowat_bytes=4096",
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let (mut program, group) = start(&sets);
        let before_all = group.as_deref().map(killed);
        let mut good = Client::connect(program.address);
        good.join("good");
        let hostile: Vec<Client> = (0..HOSTILE)
            .map(|at| {
                let mut client = Client::connect_narrow(program.address);
                client.join(&format!("r{at}"));
                client
            })
            .collect();
        let mut publisher = Client::connect(program.address);
        let filler = filler();
        for round in 0..ROUNDS {
            for at in 0..HOSTILE {
                let room = format!("r{at}");
                publisher.send(&json!({"type": "x", "room": room, "payload": filler}));
            }
            publisher.send(&json!({"type": "n", "room": "good", "payload": round}));
            assert_eq!(good.next()["payload"], json!(round), "every message, in order");
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
}
