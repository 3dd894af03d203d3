//! Corners where something could be lost or last for ever.
//!
//! Two mechanisms meet in each of these: a queue that drops and reads that stopped for it, an overload
//! and a publisher who never waited, a drain and a handshake under way, a close frame and the end of
//! the stream in one read. Each mechanism by itself has its theme elsewhere; here stands what is easily
//! forgotten between the two: a pause that nobody lifts, an answer that nobody writes, a crowd that
//! arrives together and would be served together for ever after.

use std::time::Duration;

use crate::base::id::{ConnId, ShardId};
use crate::contract::{Event, ListenerId, Op, SocketTicket};
use crate::shard::Mail;
use crate::shard::tests::rig::{HEAD, Rig, Seen, frame, room_of, settings};

const MILLI: Duration = Duration::from_millis(1);
const CLOSE: u8 = 0x88;

/// All that reached the client, and is taken; what is no text in it is replaced.
fn text(rig: &mut Rig, conn: ConnId) -> String {
    String::from_utf8_lossy(&rig.bytes(conn)).into_owned()
}

#[test]
fn a_queue_relieved_by_dropping_is_read_from_again() {
    let mut settings = settings();
    settings.queue.high_water = 1000;
    let mut rig = Rig::new(0, 1, settings);
    let (slow, publisher) = (rig.open(), rig.open());
    rig.stalled.insert(slow);
    rig.say(slow, r#"{"type":"throng:join","room":"r","ref":1}"#);
    rig.turn();
    assert_eq!(rig.writes(slow), [1], "the reply is in flight");
    let large = format!(r#"{{"type":"x","room":"r","payload":"{}"}}"#, "x".repeat(2000));
    rig.say(publisher, &large);
    rig.turn();
    assert_eq!(rig.ops, [Seen::Pause(slow)]);
    // The large one waits behind what is in flight, and the small one takes its place.
    rig.say(publisher, r#"{"type":"x","room":"r"}"#);
    rig.turn();
    rig.stalled.clear();
    rig.turn();
    assert!(rig.ops.contains(&Seen::Resume(slow)), "{:?}", rig.ops);
    rig.turn();
    assert_eq!(rig.ops, [], "and nothing stops them again");
    assert_eq!(rig.shard.counters().dropped_oldest_total, 1);
    assert!(text(&mut rig, slow).contains("throng:gap"));
}

#[test]
fn whoever_publishes_into_an_overload_is_not_read_from_until_it_is_over() {
    let mut settings = settings();
    settings.capacity.parked_mail = 1;
    let mut rig = Rig::new(0, 2, settings);
    let (first, second) = (rig.open(), rig.open());
    rig.full.insert(ShardId(1));
    let publish = format!(r#"{{"type":"x","room":"{}","ref":1}}"#, room_of(1, 2));
    rig.say(first, &publish);
    rig.turn();
    rig.say(second, &publish);
    rig.turn();
    assert!(text(&mut rig, second).contains("overloaded"));
    assert!(rig.ops.contains(&Seen::Pause(second)), "{:?}", rig.ops);
    rig.turn();
    assert_eq!(rig.ops, [], "it is not over");
    rig.full.clear();
    // The mail leaves at the end of this turn.
    rig.turn();
    rig.turn();
    assert_eq!(rig.ops, [Seen::Resume(second)]);
    rig.turn();
    assert_eq!(rig.ops, []);
}

#[test]
fn an_echoing_connection_hears_nothing_but_its_echo_before_the_close_frame() {
    let mut rig = Rig::alone();
    let (echo, session) = (rig.open_at("/echo"), rig.open());
    rig.take(Mail::Drain(Duration::from_secs(1)));
    rig.settle();
    assert!(text(&mut rig, session).contains("throng:reload"));
    assert_eq!(text(&mut rig, echo), "");
}

#[test]
fn a_handshake_that_completes_during_a_drain_is_answered_503() {
    let mut rig = Rig::alone();
    let (_stays, late) = (rig.open(), rig.accept().expect("let in"));
    rig.take(Mail::Drain(Duration::from_secs(1)));
    rig.settle();
    rig.receive(late, HEAD);
    rig.settle();
    let response = text(&mut rig, late);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
}

/// The rig's check after every step walks over everybody, so thousands are led past it.
fn crowd(rig: &mut Rig, clients: usize) {
    for _ in 0..clients {
        let accepted =
            Event::Accepted { socket: SocketTicket(0), listener: ListenerId(0), peer: None };
        rig.shard.handle_event(accepted, rig.now);
        let Some(Op::Open { conn, .. }) = rig.shard.poll_op() else { panic!("not let in") };
        rig.shard.handle_event(Event::Received { conn, bytes: &mut HEAD.to_vec() }, rig.now);
    }
    rig.shard.check();
}

#[test]
fn a_drain_of_many_closes_them_all_within_its_window_and_not_in_one_go() {
    const CLIENTS: u16 = 4000;
    let window = 100 * MILLI;
    let mut settings = settings();
    settings.capacity.connections = 10_000;
    let mut rig = Rig::new(0, 1, settings);
    crowd(&mut rig, usize::from(CLIENTS));
    assert_eq!(rig.shard.counters().open_connections, u64::from(CLIENTS));
    rig.take(Mail::Drain(window));
    let start = rig.now;
    let mut most = 0;
    while rig.shard.counters().open_connections > 0 {
        let before = rig.shard.counters().open_connections;
        rig.shard.handle_timeout(rig.now);
        most = most.max(before - rig.shard.counters().open_connections);
        rig.shard.begin_writes(false, rig.now);
        while rig.shard.poll_op().is_some() {}
        rig.later(rig.shard.poll_timeout(rig.now).expect("a drain is a deadline"));
        assert!(rig.now.since(start) <= window, "{before} are left");
    }
    assert!(most <= 256, "{most} in one turn");
    rig.shard.check();
}

#[test]
fn connections_that_arrive_together_are_asked_apart_even_when_other_deadlines_are_shorter() {
    let mut settings = settings();
    settings.timeouts.message = Duration::from_secs(5);
    let mut rig = Rig::new(0, 1, settings);
    for _ in 0..64 {
        rig.open();
    }
    let mut most = 0;
    for _ in 0..300 {
        let before = rig.shard.counters().pings_total;
        rig.later(100 * MILLI);
        rig.turn();
        most = most.max(rig.shard.counters().pings_total - before);
    }
    assert!(rig.shard.counters().pings_total >= 64);
    assert!(most < 32, "{most} pings within 100 ms");
}

#[test]
fn the_peers_close_frame_in_the_read_of_its_request_is_answered() {
    let mut rig = Rig::alone();
    rig.confirms = false;
    let conn = rig.accept().expect("let in");
    rig.receive(conn, &[HEAD, &frame(CLOSE, &1000_u16.to_be_bytes())].concat());
    rig.event(Event::ReceivedEnd { conn });
    rig.turn();
    rig.turn();
    assert_eq!(rig.ops.last(), Some(&Seen::Close(conn, false)));
    rig.turn();
    assert_eq!(rig.ops, []);
    let bytes = rig.bytes(conn);
    assert!(bytes.ends_with(&[CLOSE, 2, 3, 0xe8]), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(rig.shard.counters().closed_total, 1);
    rig.confirm(conn);
    assert_eq!(rig.shard.counters().connections, 0);
}
