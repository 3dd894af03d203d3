//! Descriptors run out: accepting rests, everything else goes on.
//!
//! A node reserves more descriptors than it needs, so under any sensible limit it turns clients away long
//! before the kernel does. Two ways lead past that. Started under a limit below its reserve, it has no
//! place for a session and answers 503, as long as it gets descriptors to answer with. And the limit may
//! be lowered while it runs; that is for epoll only, because io_uring notes the limit when the request to
//! accept is made, which is once.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use throng::base::counters::Counters;

use crate::process::Program;
use crate::support::{Client, exchange, on_both_drivers, wait_until};

/// Descriptors of the program: room for its own and for some clients, but not for all.
const DESCRIPTORS: u64 = 64;

/// Clients who come and say nothing; the kernel's accept queue holds those who do not get in.
const CROWD: usize = 200;

/// How long accepting rests after a refusal (`shard::admission`).
const REST: Duration = Duration::from_millis(100);

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[expect(clippy::disallowed_methods, reason = "bounds how often something may have happened")]
fn clock() -> Instant {
    Instant::now()
}

fn crowd(address: SocketAddr) -> Vec<TcpStream> {
    (0..CROWD).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// Waits until accepting was tried again and again in vain, and sees that it rested in between.
fn see_it_rest(program: &mut Program, since: Instant, mut meanwhile: impl FnMut()) {
    let mut early = Counters::default();
    wait_until("the kernel refuses descriptors", || {
        early = program.counters();
        early.accept_paused_total > 0
    });
    let mut late = early;
    wait_until("it was tried again a few times", || {
        meanwhile();
        late = program.counters();
        late.accept_paused_total >= early.accept_paused_total + 5
    });
    let rests = u128::from(late.accept_paused_total);
    assert!(rests <= since.elapsed().as_millis() / REST.as_millis() + 1, "{rests} rests");
    assert!(late.connections < DESCRIPTORS, "{late:?}");
    let turns = late.turns_total - early.turns_total;
    let asked = late.received_messages_total - early.received_messages_total;
    assert!(turns < 1000 + 10 * asked, "{turns} turns for {asked} commands: it spins");
}

/// Waits until so many connections are left, and sees that there is no shortage any more.
fn see_it_go_on(program: &mut Program, left: u64, again: impl FnOnce()) {
    let mut before = Counters::default();
    wait_until("the crowd has gone", || {
        before = program.counters();
        before.connections == left
    });
    again();
    let after = program.counters();
    assert_eq!(after.accept_paused_total, before.accept_paused_total);
    assert_eq!(after.panics_total, 0);
}

on_both_drivers! {
    fn without_descriptors_accepting_rests_and_comes_back(driver) {
        let driver = format!("server.driver={driver}");
        let start = clock();
        let one_shard = ["--set", &driver, "--set", "server.shards=1"];
        let mut program = Program::start_within(DESCRIPTORS, &one_shard);
        let address = program.address;
        let crowd = crowd(address);
        see_it_rest(&mut program, start, || {});
        drop(crowd);
        let answered = || {
            let answer = exchange(address, HANDSHAKE.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        };
        answered();
        see_it_go_on(&mut program, 0, answered);
        program.signal("-TERM");
        assert_eq!(program.exit_code(), Some(0));
    }
}

#[test]
fn a_shortage_of_descriptors_is_not_noticed_by_those_who_are_in() {
    let start = clock();
    let one_shard = ["--set", "server.driver=epoll", "--set", "server.shards=1"];
    let mut program = Program::start(&one_shard);
    let address = program.address;
    let mut inside = Client::connect(address);
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: hard };
    prlimit(Pid::from_raw(program.pid()), Resource::Nofile, limit).unwrap();
    let crowd = crowd(address);
    see_it_rest(&mut program, start, || inside.expect_silence());
    drop(crowd);
    let mut outside = Client::connect(address);
    see_it_go_on(&mut program, 2, || Client::connect(address).expect_silence());
    outside.expect_silence();
    inside.expect_silence();
    program.signal("-TERM");
    assert_eq!(program.exit_code(), Some(0));
}
