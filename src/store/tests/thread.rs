//! The thread: order, group commit, full queues, faults, the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::*;
use crate::store::{Clerk, Fault, Keeper, Pace};

const PATIENCE: Duration = Duration::from_secs(20);

/// Hands every answer on as it is.
struct Plain {
    out: Sender<(u32, Outcome)>,
    space: Receiver<()>,
}

impl Clerk for Plain {
    type From = u32;
    type Word = u32;

    fn answer(&mut self, from: u32, _: Ask, outcome: Outcome) {
        self.out.send((from, outcome)).expect("somebody listens");
    }

    fn hear(&mut self, word: u32) {
        self.out.send((word, Ok(Answer::Done))).expect("somebody listens");
    }

    fn deliver(&mut self) -> bool {
        true
    }

    /// Until the other end is dropped there is none.
    fn has_space(&self) -> bool {
        self.space.try_recv() != Err(crossbeam_channel::TryRecvError::Empty)
    }
}

/// A disk that takes as long as a test wants, and does as it is told.
struct Slow {
    memory: Memory,
    /// Tells how many requests a transaction has.
    begins: Sender<usize>,
    /// What becomes of it.
    ends: Receiver<bool>,
}

impl Store for Slow {
    fn commit(&mut self, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault> {
        if matches!(asks, [Ask::Prune { .. }]) {
            return self.memory.commit(asks, now);
        }
        self.begins.send(asks.len()).expect("somebody listens");
        if self.ends.recv_timeout(PATIENCE).expect("a word") {
            self.memory.commit(asks, now)
        } else {
            Err(Fault("the disk: writing: it is full".to_owned()))
        }
    }
}

struct Rig {
    keeper: Keeper<Plain>,
    answers: Receiver<(u32, Outcome)>,
    begins: Receiver<usize>,
    ends: Sender<bool>,
    /// Dropped, the clerk has space.
    full: Option<Sender<()>>,
}

impl Rig {
    fn new(queue: usize, window: Duration, full: bool) -> Self {
        let (out, answers) = bounded(4096);
        let (begun, begins) = bounded(16);
        let (ends, ended) = bounded(16);
        let (block, space) = bounded(1);
        let memory = Memory::new(limits(), 1 << 20);
        let store = Box::new(Slow { memory, begins: begun, ends: ended });
        let hour = Duration::from_secs(3600);
        let pace = Pace { queue, window, prune: hour, again: hour, alive: Duration::ZERO };
        let keeper = Keeper::start(store, Plain { out, space }, pace).expect("a thread");
        Self { keeper, answers, begins, ends, full: full.then_some(block) }
    }

    fn append(&self, number: u32) -> bool {
        let ask = Ask::Append(draft("u", &number.to_string(), ""));
        self.keeper.handle().ask(number, ask).is_ok()
    }

    fn begun(&self) -> usize {
        self.begins.recv_timeout(PATIENCE).expect("a transaction")
    }

    fn answer(&self) -> (u32, Outcome) {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }
}

#[test]
fn what_comes_while_the_disk_writes_shares_the_next_transaction_and_answers_keep_the_order() {
    let rig = Rig::new(64, Duration::ZERO, false);
    assert!(rig.append(0));
    assert_eq!(rig.begun(), 1);
    assert!((1..=40).all(|number| rig.append(number)));
    assert!(rig.answers.is_empty(), "nobody is answered before it is done");
    rig.ends.send(true).expect("a thread");
    assert_eq!(rig.begun(), 40);
    rig.ends.send(true).expect("a thread");
    let answers: Vec<(u32, Outcome)> = (0..=40).map(|_| rig.answer()).collect();
    assert!(answers.iter().all(|(_, outcome)| outcome.is_ok()));
    assert!(answers.iter().map(|(number, _)| *number).eq(0..=40));
    let commits = rig.keeper.handle().tally().commits.load(Ordering::Relaxed);
    assert!((2..=3).contains(&commits), "{commits}: two, and perhaps one of pruning");
}

#[test]
fn a_window_gathers_what_comes_a_little_later() {
    let rig = Rig::new(64, PATIENCE, false);
    // With this patience the transaction begins when it is full.
    for number in 0..512 {
        while !rig.append(number) {
            std::thread::yield_now();
        }
    }
    assert_eq!(rig.begun(), 512);
    rig.ends.send(true).expect("a thread");
}

#[test]
fn a_full_queue_gives_the_request_back_at_once_and_counts_it() {
    let rig = Rig::new(3, Duration::ZERO, false);
    assert!(rig.append(0));
    assert_eq!(rig.begun(), 1);
    assert!((1..=3).all(|number| rig.append(number)));
    let handle = rig.keeper.handle();
    let ask = Ask::LastSeen { owner: "u".into() };
    assert_eq!(handle.ask(4, ask.clone()), Err((4, ask)), "it never waits");
    assert!(!handle.tell(5));
    assert_eq!(handle.tally().overloaded.load(Ordering::Relaxed), 1);
    rig.ends.send(true).expect("a thread");
    assert_eq!(rig.begun(), 3);
    rig.ends.send(true).expect("a thread");
    let numbers: Vec<u32> = (0..4).map(|_| rig.answer().0).collect();
    assert_eq!(numbers, [0, 1, 2, 3], "what was taken is done");
    drop(handle);
}

#[test]
fn a_disk_that_fails_refuses_its_requests_and_serves_again_when_it_can() {
    let rig = Rig::new(8, Duration::ZERO, false);
    for (number, works) in [(0, true), (1, false), (2, false), (3, true)] {
        assert!(rig.append(number));
        assert_eq!(rig.begun(), 1);
        rig.ends.send(works).expect("a thread");
        match rig.answer().1 {
            Ok(Answer::Appended(appended)) => {
                assert!(works);
                assert_eq!(appended.unread, u64::from(number).min(1) + 1, "only what was answered");
            }
            Err(Refused::Broken(why)) => assert!(!works && why.contains("it is full"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.keeper.handle().tally().faults.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_is_taken_while_the_answers_do_not_leave() {
    let mut rig = Rig::new(2, Duration::ZERO, true);
    assert!(rig.append(0) && rig.append(1));
    assert!(!rig.append(2), "the queue is the bound");
    assert!(rig.begins.is_empty());
    rig.full = None;
    assert_eq!(rig.begun(), 2);
    rig.ends.send(true).expect("a thread");
}

#[test]
fn the_end_waits_for_what_was_handed_in_and_words_reach_the_clerk() {
    let rig = Rig::new(8, Duration::ZERO, false);
    assert!(rig.append(0));
    assert_eq!(rig.begun(), 1);
    assert!(rig.append(1) && rig.keeper.handle().tell(7));
    let Rig { keeper, answers, begins, ends, full: _full } = rig;
    ends.send(true).expect("a thread");
    ends.send(true).expect("a thread");
    let handle = keeper.handle();
    drop(keeper);
    assert!(handle.ask(2, Ask::Revocations).is_err(), "nobody is there any more");
    let numbers: Vec<u32> = answers.iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 7, 1], "a word needs no transaction");
    drop(begins);
}
