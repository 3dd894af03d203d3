//! Want of descriptors: accepting pauses, says so once, and goes on when told.
//!
//! The limit on descriptors belongs to the whole process, so each of these tests runs in a process of
//! its own: the test starts this program again with its own name and a sign in the environment.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use throng::contract::{ListenerId, Op};
use throng::driver::uring::Idle;

use crate::tcp;
use crate::world::{Rig, Seen, World};

const SIGN: &str = "THRONG_CONTRACT_SHORTAGE";
const WAITING: usize = 12;

#[test]
fn epoll_pauses_accepting_and_resumes() {
    alone("shortage::epoll_pauses_accepting_and_resumes", tcp::epoll);
}

#[test]
fn uring_pauses_accepting_and_resumes() {
    alone("shortage::uring_pauses_accepting_and_resumes", || tcp::uring(Idle::MultishotRecv));
}

fn alone(name: &str, rig: fn() -> Option<Box<dyn Rig>>) {
    if std::env::var_os(SIGN).is_some() {
        if let Some(rig) = rig() {
            accepting_pauses_for_want_of_descriptors(&mut World::new(rig));
        }
        return;
    }
    let this = std::env::current_exe().expect("a path");
    let output = Command::new(this)
        .args(["--exact", name, "--nocapture"])
        .env(SIGN, "1")
        .output()
        .expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn failures(w: &World) -> usize {
    w.seen.iter().filter(|seen| matches!(seen, Seen::AcceptFailed(_))).count()
}

fn accepting_pauses_for_want_of_descriptors(w: &mut World) {
    let peers: Vec<_> =
        (0..WAITING).map(|at| w.rig.connect_to(ListenerId(u8::from(at % 2 == 1)))).collect();
    let before = getrlimit(Resource::Nofile);
    // The lowest free number is what the next socket gets; three more fit.
    let free = std::fs::File::open("/dev/null").expect("a descriptor");
    let lowest = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&free)).expect("not negative");
    drop(free);
    let tight = Rlimit { current: Some(lowest + 3), maximum: before.maximum };
    setrlimit(Resource::Nofile, tight).expect("lowering is permitted");

    w.until("the shortage", |w| failures(w) > 0);
    assert_eq!(w.accepted(), 3);
    // The other listener's request is cancelled, and its answers end a wait or two.
    w.linger();
    let turns = 20;
    let start = w.now();
    for _ in 0..turns {
        w.turn(Some(Duration::from_millis(1)));
    }
    assert_eq!((failures(w), w.accepted()), (1, 3), "it is said once: {:?}", w.seen);
    let passed = w.now().since(start);
    assert!(passed >= Duration::from_millis(turns), "the loop spins: {passed:?}");

    w.submit(Op::ResumeAccept);
    w.until("the shortage again", |w| failures(w) == 2);
    setrlimit(Resource::Nofile, before).expect("back to what it was");
    w.submit(Op::ResumeAccept);
    w.until("everybody", |w| w.accepted() == WAITING);
    let (conn, mut peer) = (w.open_at(0), peers);
    for peer in &mut peer {
        w.peer_writes(&mut **peer, b"x");
    }
    w.until_received(conn, 1);
}
