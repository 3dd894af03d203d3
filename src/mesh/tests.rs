//! The mesh under one thread, step by step, and under many, where a lost wake-up shows as a poll that
//! times out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Far longer than any healthy step takes: reaching it is a lost wake-up.
const LOST: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Waits for the port's eventfd and drains it, as a driver does. The number of writes it got.
fn rung<M: Send>(port: &Port<M>, patience: &Timespec) -> u64 {
    let fd = port.wake_fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    if poll(&mut fds, Some(patience)).expect("poll") == 0 {
        return 0;
    }
    let mut count = [0; 8];
    rustix::io::read(fd, &mut count).expect("an eventfd that is readable");
    u64::from_ne_bytes(count)
}

fn pair(capacity: usize) -> (Port<u32>, Port<u32>) {
    let mut ports = mesh(2, capacity).expect("eventfds").into_iter();
    (ports.next().expect("port 0"), ports.next().expect("port 1"))
}

#[test]
fn a_lane_keeps_the_order_and_does_not_mix_with_the_other() {
    let (one, two) = pair(4);
    for mail in 0..4 {
        one.post(1, Lane::Request, mail).expect("space");
        one.post(1, Lane::Delivery, mail + 10).expect("space");
    }
    assert_eq!(one.post(1, Lane::Request, 4), Err(4));
    let requests: Vec<u32> = std::iter::from_fn(|| two.take(Lane::Request)).collect();
    let deliveries: Vec<u32> = std::iter::from_fn(|| two.take(Lane::Delivery)).collect();
    assert_eq!((requests, deliveries), (vec![0, 1, 2, 3], vec![10, 11, 12, 13]));
}

#[test]
fn a_full_lane_gives_the_mail_back_and_leaves_the_other_open() {
    let (one, two) = pair(1);
    one.post(1, Lane::Request, 1).expect("space");
    assert_eq!(one.post(1, Lane::Request, 2), Err(2));
    one.post(1, Lane::Delivery, 3).expect("the other lane has space");
    assert_eq!(two.take(Lane::Request), Some(1));
    one.post(1, Lane::Request, 2).expect("space again");
}

#[test]
fn a_receiver_that_is_awake_costs_its_senders_no_system_call() {
    let (one, two) = pair(8);
    one.post(1, Lane::Request, 1).expect("space");
    assert!(!two.before_sleep(&Lane::ALL), "mail is waiting");
    one.post(1, Lane::Request, 2).expect("space");
    assert_eq!(rung(&two, &NOW), 0);
}

#[test]
fn a_sleeper_is_woken_by_the_first_mail_only() {
    let (one, two) = pair(8);
    assert!(two.before_sleep(&Lane::ALL));
    for mail in 0..5 {
        one.post(1, Lane::Delivery, mail).expect("space");
    }
    assert_eq!(rung(&two, &NOW), 1);
    two.awake();
    while two.take(Lane::Delivery).is_some() {}
    assert!(two.before_sleep(&Lane::ALL));
}

#[test]
fn requests_that_are_refused_for_now_do_not_keep_the_owner_awake() {
    let (one, two) = pair(8);
    one.post(1, Lane::Request, 1).expect("space");
    assert!(two.before_sleep(&[Lane::Delivery]));
    one.post(1, Lane::Delivery, 2).expect("space");
    assert_eq!(rung(&two, &NOW), 1);
    two.awake();
    assert!(!two.before_sleep(&[Lane::Delivery]));
}

#[test]
fn a_sender_that_sleeps_on_a_full_lane_is_woken_when_the_lane_is_empty() {
    let (one, two) = pair(1);
    one.post(1, Lane::Request, 1).expect("space");
    assert_eq!(one.post(1, Lane::Request, 2), Err(2));
    assert!(one.before_sleep(&Lane::ALL));
    assert_eq!(rung(&one, &NOW), 0);
    assert_eq!(two.take(Lane::Request), Some(1));
    assert_eq!(rung(&one, &NOW), 1);
    one.awake();
    one.post(1, Lane::Request, 2).expect("space again");
    assert!(one.before_sleep(&Lane::ALL), "the notice is used up");
}

#[test]
fn space_that_appears_before_a_sender_sleeps_keeps_it_awake_once() {
    let (one, two) = pair(1);
    one.post(1, Lane::Delivery, 1).expect("space");
    assert_eq!(one.post(1, Lane::Delivery, 2), Err(2));
    assert_eq!(two.take(Lane::Delivery), Some(1));
    assert!(!one.before_sleep(&Lane::ALL), "its parked mail would fit now");
    assert_eq!(rung(&one, &NOW), 0, "it was awake");
    assert!(one.before_sleep(&Lane::ALL));
}

#[test]
fn a_waiting_sender_is_told_once_half_a_lane_was_taken() {
    let (one, two) = pair(8);
    for mail in 0..8 {
        one.post(1, Lane::Request, mail).expect("space");
    }
    assert_eq!(one.post(1, Lane::Request, 8), Err(8));
    assert!(one.before_sleep(&Lane::ALL));
    let woken_after = (1..=8).find(|_| {
        assert!(two.take(Lane::Request).is_some());
        rung(&one, &NOW) > 0
    });
    assert_eq!(woken_after, Some(4));
}

#[test]
fn every_waiting_sender_is_told_in_a_mesh_of_more_than_64_ports() {
    let ports = mesh::<u8>(130, 1).expect("eventfds");
    assert_eq!(ports[1].post(0, Lane::Request, 0), Ok(()));
    for port in &ports[1..] {
        assert_eq!(port.post(0, Lane::Request, 1), Err(1));
        assert!(port.before_sleep(&Lane::ALL));
    }
    assert_eq!(ports[0].take(Lane::Request), Some(0));
    assert!(ports[1..].iter().all(|port| rung(port, &NOW) == 1));
}

#[test]
fn a_port_that_is_gone_swallows_mail_and_frees_those_who_waited() {
    let (one, two) = pair(1);
    one.post(1, Lane::Request, 1).expect("space");
    assert_eq!(one.post(1, Lane::Request, 2), Err(2));
    assert!(one.before_sleep(&Lane::ALL));
    drop(two);
    assert_eq!(rung(&one, &NOW), 1);
    one.awake();
    assert_eq!(one.post(1, Lane::Request, 2), Ok(()));
}

/// What the workers of the stress test send each other.
enum Letter {
    /// Asks every port for a delivery to be sent to it.
    Request,
    Delivery,
}

/// A shard in miniature that keeps the rule of the two lanes.
struct Worker {
    port: Port<Letter>,
    /// Requests still to be posted, as targets.
    requests: VecDeque<usize>,
    /// Deliveries still to be posted, as targets.
    parked: VecDeque<usize>,
}

impl Worker {
    /// Takes and posts what it can. The number of deliveries it received.
    fn turn(&mut self) -> usize {
        let mut received = 0;
        while let Some(letter) = self.port.take(Lane::Delivery) {
            assert!(matches!(letter, Letter::Delivery));
            received += 1;
        }
        self.post_parked();
        while self.parked.is_empty() {
            let Some(letter) = self.port.take(Lane::Request) else { break };
            assert!(matches!(letter, Letter::Request));
            self.parked.extend(0..self.port.ports());
            self.post_parked();
        }
        while let Some(to) = self.requests.pop_front() {
            if self.port.post(to, Lane::Request, Letter::Request).is_err() {
                self.requests.push_front(to);
                break;
            }
        }
        received
    }

    fn post_parked(&mut self) {
        while let Some(to) = self.parked.pop_front() {
            if self.port.post(to, Lane::Delivery, Letter::Delivery).is_err() {
                self.parked.push_front(to);
                break;
            }
        }
    }

    fn lanes(&self) -> &'static [Lane] {
        if self.parked.is_empty() { &Lane::ALL } else { &[Lane::Delivery] }
    }
}

/// Every worker sends `each` requests to every port; each request makes its receiver send a delivery
/// to every port. Workers sleep whenever they may, until all deliveries of all have arrived.
fn stress(ports: usize, capacity: usize, each: usize) {
    let expected = ports * ports * each * ports;
    let total = AtomicUsize::new(0);
    let meshed = mesh(ports, capacity).expect("eventfds");
    std::thread::scope(|scope| {
        for port in meshed {
            let total = &total;
            scope.spawn(move || {
                let requests = (0..each).flat_map(|_| 0..ports).collect();
                let mut worker = Worker { port, requests, parked: VecDeque::new() };
                // Every port gets one delivery per request made anywhere.
                let mut left = expected / ports;
                while left > 0 || !worker.parked.is_empty() || !worker.requests.is_empty() {
                    let received = worker.turn();
                    left -= received;
                    total.fetch_add(received, Ordering::Relaxed);
                    let idle = received == 0;
                    if idle && worker.port.before_sleep(worker.lanes()) {
                        let done = left == 0 && worker.parked.is_empty();
                        let woken = done || rung(&worker.port, &LOST) > 0;
                        assert!(woken, "lost wake-up: {left} deliveries missing");
                        worker.port.awake();
                    }
                }
            });
        }
    });
    assert_eq!(total.into_inner(), expected);
}

#[test]
fn nothing_is_lost_and_nobody_sleeps_forever_with_inboxes_of_one() {
    stress(4, 1, 200);
}

#[test]
fn nothing_is_lost_and_nobody_sleeps_forever_with_inboxes_of_seven() {
    stress(3, 7, 1_000);
}
