//! The simulated network step by step.

use std::collections::BTreeMap;

use super::*;
use crate::base::id::ConnId;
use crate::contract::{Driver, Event, Op};

/// A driver and what it has reported, for tests that go step by step.
struct Host {
    driver: SimDriver,
    events: Vec<String>,
    input: BTreeMap<u32, Vec<u8>>,
    opened: u32,
}

impl Host {
    fn new(net: &Net) -> Self {
        let driver = net.driver();
        Self { driver, events: Vec::new(), input: BTreeMap::new(), opened: 0 }
    }

    /// One turn; opens what is accepted at indices counted from 0. Returns what was reported.
    fn turn(&mut self) -> Vec<String> {
        let mut sockets = Vec::new();
        let (events, input) = (&mut self.events, &mut self.input);
        events.clear();
        let report = &mut |event: Event<'_>| {
            if let Event::Accepted { socket, .. } = event {
                sockets.push(socket);
            }
            note(event, events, input);
        };
        self.driver.wait(None, report).expect("a simulated wait");
        for socket in sockets {
            let conn = ConnId { index: self.opened, generation: 0 };
            self.opened += 1;
            assert!(self.driver.submit(Op::Open { conn, socket }).is_none());
        }
        std::mem::take(&mut self.events)
    }

    fn submit(&mut self, op: Op) -> Vec<String> {
        let event = self.driver.submit(op);
        let mut events = Vec::new();
        event.into_iter().for_each(|event| note(event, &mut events, &mut self.input));
        events
    }
}

fn note(event: Event<'_>, events: &mut Vec<String>, input: &mut BTreeMap<u32, Vec<u8>>) {
    events.push(match event {
        Event::Accepted { peer, .. } => format!("accepted {}", peer.is_some()),
        Event::AcceptFailed { error } => format!("accept failed {:?}", error.raw_os_error()),
        Event::Received { conn, bytes } => {
            assert!(!bytes.is_empty(), "an empty Received");
            input.entry(conn.index).or_default().extend_from_slice(bytes);
            format!("{} received {}", conn.index, bytes.len())
        }
        Event::ReceivedEnd { conn } => format!("{} end", conn.index),
        Event::Sent { conn, batch, bytes } => {
            assert!(batch.is_done() && batch.parts() == 0, "the batch comes back empty");
            format!("{} sent {bytes}", conn.index)
        }
        Event::Lost { conn, .. } => format!("{} lost", conn.index),
        Event::Looked { conn, unread } => format!("{} looked {unread}", conn.index),
        Event::HandedOver { conn, .. } => format!("{} handed over", conn.index),
        Event::Closed { conn } => format!("{} closed", conn.index),
    });
}

const CONN: ConnId = ConnId { index: 0, generation: 0 };

/// A network without faults and one connection over it.
fn calm() -> (Net, Host, Peer) {
    let net = Net::new(1, Faults::none());
    let mut host = Host::new(&net);
    let peer = net.connect(0);
    assert_eq!(host.turn(), ["accepted true"]);
    (net, host, peer)
}

#[test]
fn bytes_go_both_ways() {
    let (_net, mut host, mut peer) = calm();
    assert_eq!(host.turn(), [""; 0]);
    assert_eq!(peer.write(b"hello"), 5);
    assert_eq!(host.turn().concat().matches("received").count(), 1);
    assert_eq!(host.submit(Op::Send { conn: CONN, batch: batch(b"world") }), ["0 sent 5"]);
    assert_eq!((read(&mut peer), &host.input[&0][..]), (b"world".to_vec(), &b"hello"[..]));
}

#[test]
fn a_reader_that_stops_fills_the_window_and_holds_the_write() {
    let (_net, mut host, mut peer) = calm();
    peer.set_reading(false);
    let whole = pattern(100_000);
    assert_eq!(host.submit(Op::Send { conn: CONN, batch: batch(&whole) }), [""; 0]);
    for _ in 0..10 {
        assert_eq!(host.turn(), [""; 0]);
        assert!(read(&mut peer).is_empty());
    }
    peer.set_reading(true);
    let mut got = read(&mut peer);
    assert_eq!(got.len(), 64 * 1024);
    assert_eq!(host.turn(), ["0 sent 100000"]);
    got.extend(read(&mut peer));
    assert_eq!(got, whole);
}

#[test]
fn a_host_that_pauses_fills_the_window_of_its_peer() {
    let (_net, mut host, mut peer) = calm();
    host.submit(Op::PauseReads { conn: CONN });
    assert_eq!(peer.write(&pattern(100_000)), 64 * 1024);
    assert_eq!((host.turn(), peer.write(b"x")), (vec![], 0));
    host.submit(Op::ResumeReads { conn: CONN });
    assert!(!host.turn().is_empty());
    assert!(peer.write(b"x") > 0);
}

#[test]
fn each_end_may_finish_and_still_read() {
    let (_net, mut host, mut peer) = calm();
    peer.write(b"last");
    peer.finish();
    assert_eq!(peer.write(b"more"), 0);
    let mut events = Vec::new();
    for _ in 0..6 {
        events.extend(host.turn());
    }
    assert_eq!(
        (events.last().map(String::as_str), &host.input[&0][..]),
        (Some("0 end"), &b"last"[..])
    );
    assert_eq!(host.submit(Op::Send { conn: CONN, batch: batch(b"answer") }), ["0 sent 6"]);
    host.submit(Op::ShutdownWrite { conn: CONN });
    assert_eq!((read(&mut peer), peer.saw_end()), (b"answer".to_vec(), true));
    assert!(!peer.is_closed());
    assert_eq!(host.submit(Op::Close { conn: CONN, abort: false }), ["0 closed"]);
    assert!(peer.is_closed() && !peer.saw_reset());
}

#[test]
fn the_end_is_written_after_what_is_in_flight() {
    let (_net, mut host, mut peer) = calm();
    let whole = pattern(70_000);
    host.submit(Op::Send { conn: CONN, batch: batch(&whole) });
    host.submit(Op::ShutdownWrite { conn: CONN });
    let mut got = read(&mut peer);
    assert!(!peer.saw_end());
    assert_eq!(host.turn(), ["0 sent 70000"]);
    got.extend(read(&mut peer));
    assert!(got == whole && peer.saw_end());
}

#[test]
fn a_write_after_the_end_was_written_loses_the_connection() {
    let (_net, mut host, _peer) = calm();
    host.submit(Op::ShutdownWrite { conn: CONN });
    assert_eq!(host.submit(Op::Send { conn: CONN, batch: batch(b"late") }), [""; 0]);
    assert_eq!(host.turn(), ["0 lost"]);
}

#[test]
fn a_reset_is_reported_once_and_closing_is_still_due() {
    let (_net, mut host, mut peer) = calm();
    peer.reset();
    assert_eq!(host.turn(), ["0 lost"]);
    assert_eq!(host.turn(), [""; 0]);
    assert_eq!(host.submit(Op::Send { conn: CONN, batch: batch(b"ignored") }), [""; 0]);
    host.submit(Op::PauseReads { conn: CONN });
    host.submit(Op::ShutdownWrite { conn: CONN });
    assert_eq!(host.submit(Op::Close { conn: CONN, abort: false }), ["0 closed"]);
    assert_eq!((host.turn(), host.driver.connections()), (vec![], 0));
}

#[test]
fn a_graceful_close_delivers_what_was_taken_and_an_abort_need_not() {
    for abort in [false, true] {
        let faults = Faults { max_delay: 3, ..Faults::none() };
        let net = Net::new(4, faults);
        let mut host = Host::new(&net);
        let mut peer = net.connect(0);
        host.turn();
        host.submit(Op::Send { conn: CONN, batch: batch(b"goodbye") });
        host.submit(Op::Close { conn: CONN, abort });
        let mut got = Vec::new();
        for _ in 0..5 {
            host.turn();
            peer.read(&mut got);
        }
        assert_eq!((peer.saw_reset(), peer.saw_end()), (abort, !abort));
        assert!(abort || got == b"goodbye");
    }
}

#[test]
fn closing_over_unread_bytes_resets_the_peer() {
    let (_net, mut host, mut peer) = calm();
    peer.write(b"unread");
    host.submit(Op::Close { conn: CONN, abort: false });
    read(&mut peer);
    assert!(peer.saw_reset() && !peer.saw_end());
    assert_eq!(peer.write(b"more"), 0);
}

#[test]
fn writing_to_a_host_that_has_closed_is_answered_with_a_reset() {
    let (_net, mut host, mut peer) = calm();
    host.submit(Op::Close { conn: CONN, abort: false });
    read(&mut peer);
    assert!(peer.saw_end() && !peer.saw_reset());
    assert_eq!(peer.write(b"hello?"), 6);
    read(&mut peer);
    assert!(peer.saw_reset());
}

#[test]
fn a_peer_that_is_dropped_ends_and_then_resets() {
    let (_net, mut host, peer) = calm();
    drop(peer);
    assert_eq!(host.turn(), ["0 end"]);
    host.submit(Op::Send { conn: CONN, batch: batch(b"anyone?") });
    assert_eq!(host.turn(), ["0 lost"]);
}

#[test]
fn a_socket_that_is_refused_sees_the_end() {
    let net = Net::new(1, Faults::none());
    let mut driver = net.driver();
    let mut peer = net.connect(0);
    let mut sockets = Vec::new();
    let mut accept = |event: Event<'_>| match event {
        Event::Accepted { socket, peer, .. } => sockets.push((socket, peer)),
        other => panic!("{other:?}"),
    };
    driver.wait(None, &mut accept).expect("a turn");
    let (socket, address) = sockets[0];
    assert_eq!(address, Some(peer.address()));
    driver.submit(Op::Refuse { socket });
    read(&mut peer);
    assert!(peer.is_closed() && peer.saw_end());
}

#[test]
fn a_failed_accept_stops_accepting_until_it_is_resumed() {
    let net = Net::new(1, Faults { accept_failure: 1000, ..Faults::none() });
    let mut host = Host::new(&net);
    let _peer = net.connect(0);
    let events = host.turn();
    assert!(events.len() == 1 && events[0].starts_with("accept failed"), "{events:?}");
    net.set_faults(Faults::none());
    assert_eq!(host.turn(), [""; 0]);
    host.submit(Op::ResumeAccept);
    assert_eq!(host.turn(), ["accepted true"]);
}

#[test]
fn nobody_is_accepted_after_accepting_has_stopped() {
    let net = Net::new(1, Faults::none());
    let mut host = Host::new(&net);
    let mut early = net.connect(0);
    host.submit(Op::StopAccepting);
    let mut late = net.connect(0);
    assert!(!net.is_listening(0));
    assert_eq!(host.turn(), [""; 0]);
    for peer in [&mut early, &mut late] {
        read(peer);
        assert!(peer.saw_reset());
    }
}

#[test]
fn a_driver_that_is_dropped_resets_those_it_held_and_delivers_what_was_closed() {
    let net = Net::new(3, Faults { max_delay: 5, ..Faults::none() });
    let mut host = Host::new(&net);
    let (mut closed, mut open) = (net.connect(0), net.connect(0));
    host.turn();
    host.submit(Op::Send { conn: CONN, batch: batch(b"bye") });
    host.submit(Op::Close { conn: CONN, abort: false });
    drop(host);
    assert_eq!((read(&mut closed), closed.saw_end()), (b"bye".to_vec(), true));
    read(&mut open);
    assert!(open.saw_reset());
}

#[test]
#[should_panic(expected = "a second batch was submitted")]
fn a_second_batch_in_flight_is_the_cores_fault() {
    let (_net, mut host, _peer) = calm();
    host.submit(Op::Send { conn: CONN, batch: batch(&pattern(70_000)) });
    host.submit(Op::Send { conn: CONN, batch: batch(b"x") });
}

#[test]
#[should_panic(expected = "is not open")]
fn an_operation_on_a_closed_connection_is_the_cores_fault() {
    let (_net, mut host, _peer) = calm();
    host.submit(Op::Close { conn: CONN, abort: false });
    host.submit(Op::PauseReads { conn: CONN });
}

#[test]
fn a_rough_network_delivers_everything_in_order_both_ways() {
    for seed in 0..20 {
        let net = Net::new(seed, Faults::rough());
        let mut host = Host::new(&net);
        let mut peer = net.connect(0);
        let whole = pattern(300_000);
        let (mut written, mut got, mut sent, mut opened) = (0, Vec::new(), false, false);
        let mut turns = 0;
        while !sent
            || got.len() < whole.len()
            || host.input.get(&0).map_or(0, Vec::len) < whole.len()
        {
            turns += 1;
            assert!(turns < 20_000, "seed {seed}: stuck at {written} written, {} read", got.len());
            written += peer.write(&whole[written..]);
            let mut events = host.turn();
            if events.iter().any(|event| event.starts_with("accept failed")) {
                host.submit(Op::ResumeAccept);
            }
            if !opened && host.opened > 0 {
                opened = true;
                events.extend(host.submit(Op::Send { conn: CONN, batch: batch(&whole) }));
            }
            sent |= events.iter().any(|event| event == "0 sent 300000");
            peer.read(&mut got);
        }
        assert!(got == whole && host.input[&0] == whole, "seed {seed}");
    }
}
