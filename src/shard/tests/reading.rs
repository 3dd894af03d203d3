//! What arrives: pieces, deadlines, reads that stop and go on, answers from the decoder.

use std::time::Duration;

use crate::base::time::Tick;
use crate::contract::Event;
use crate::shard::tests::rig::{HEAD, Heard, Rig, Seen, frame, publish};

#[test]
fn frames_behind_the_head_in_the_same_read_are_obeyed() {
    let mut rig = Rig::alone();
    let conn = rig.accept().expect("let in");
    let ping = frame(0x81, br#"{"type":"throng:ping","ref":1}"#);
    rig.receive(conn, &[HEAD, ping.as_slice()].concat());
    rig.settle();
    let bytes = rig.bytes(conn);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    let hello = text.find("throng:connected").expect("the hello");
    assert!(text.find("throng:pong").expect("the answer") > hello);
}

#[test]
fn a_head_and_messages_byte_by_byte_are_what_they_are_whole() {
    let mut rig = Rig::alone();
    let conn = rig.accept().expect("let in");
    let ping = frame(0x81, br#"{"type":"throng:ping","ref":1}"#);
    for byte in [HEAD, ping.as_slice(), ping.as_slice()].concat() {
        rig.receive(conn, &[byte]);
    }
    rig.settle();
    let text = String::from_utf8_lossy(&rig.bytes(conn)).into_owned();
    assert_eq!(text.matches("throng:pong").count(), 2, "{text}");
}

/// Each read ends in the middle of a message, so the decoder is never empty between reads.
#[test]
fn messages_that_each_take_little_time_may_follow_one_another_without_a_pause() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    let message = frame(0x81, br#"{"type":"throng:status","status":"idle"}"#);
    let (head, tail) = message.split_at(10);
    rig.receive(conn, head);
    for _ in 0..120 {
        rig.later(Duration::from_secs(1));
        rig.receive(conn, &[tail, head].concat());
        rig.turn();
        assert_eq!(rig.shard.counters().violations_total, 0);
    }
    assert_eq!(rig.shard.counters().open_connections, 1);
}

#[test]
fn a_message_that_is_never_finished_ends_its_connection_in_time() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    rig.receive(conn, &frame(0x01, b"{"));
    for _ in 0..29 {
        rig.later(Duration::from_secs(1));
        rig.receive(conn, &frame(0x89, b""));
        rig.settle();
    }
    assert!(rig.heard(conn).iter().all(|heard| matches!(heard, Heard::Pong(_))));
    rig.later(Duration::from_secs(1) + Tick::LENGTH);
    rig.settle();
    assert_eq!(rig.heard(conn), [Heard::Close(1008)]);
}

#[test]
fn a_head_that_is_never_finished_is_answered_408_and_closed() {
    let mut rig = Rig::alone();
    let conn = rig.accept().expect("let in");
    rig.receive(conn, &HEAD[..20]);
    rig.later(Duration::from_secs(10) + Tick::LENGTH);
    rig.turn();
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 408 "));
    assert_eq!(rig.ops, [Seen::Send(conn, 1), Seen::Shutdown(conn)], "its FIN right behind it");
    rig.turn();
    assert_eq!(rig.ops, []);
    rig.event(Event::ReceivedEnd { conn });
    rig.turn();
    assert_eq!(rig.ops, [Seen::Close(conn, false)]);
    rig.settle();
    assert_eq!(rig.shard.counters().connections, 0);
}

#[test]
fn reads_stop_while_the_queue_is_over_its_high_water_mark_and_go_on_at_the_low_one() {
    let mut rig = Rig::alone();
    let slow = rig.member("r");
    let fast = rig.member("r");
    rig.stalled.insert(slow);
    let mut paused = 0;
    for number in 0..40 {
        rig.say(fast, &publish(&["r"], &format!(r#""{number:0>100}""#)));
        rig.turn();
        paused += rig.ops.iter().filter(|op| **op == Seen::Pause(slow)).count();
        assert!(!rig.ops.contains(&Seen::Pause(fast)));
    }
    assert_eq!(paused, 1, "told once");
    rig.stalled.clear();
    rig.turn();
    assert!(!rig.ops.contains(&Seen::Resume(slow)), "still over the low mark: {:?}", rig.ops);
    rig.settle();
    assert_eq!(rig.shard.counters().open_connections, 2);
    assert_eq!(rig.published(fast).len(), 40);
}

#[test]
fn a_violation_while_a_close_frame_is_awaited_ends_the_waiting() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    rig.take(crate::shard::Mail::Drain(Duration::from_secs(10)));
    rig.settle();
    rig.later(Duration::from_secs(9));
    rig.turn();
    assert!(rig.heard(conn).contains(&Heard::Close(1012)));
    rig.turn();
    assert_eq!(rig.ops, []);
    // A reserved opcode: from here on no frame can be found, so none can be awaited.
    rig.receive(conn, &frame(0x83, b""));
    rig.turn();
    assert_eq!(rig.ops, [Seen::Shutdown(conn)]);
}

#[test]
fn a_ping_is_answered_with_its_payload_and_keeps_the_connection() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    for _ in 0..10 {
        rig.later(Duration::from_secs(20));
        rig.receive(conn, &frame(0x89, b"life"));
        rig.settle();
        assert!(rig.heard(conn).contains(&Heard::Pong(b"life".to_vec())));
    }
    assert_eq!(rig.shard.counters().open_connections, 1);
}

#[test]
fn a_peer_whose_words_lie_unread_is_not_taken_for_silent() {
    let mut rig = Rig::alone();
    let (unread, silent) = (rig.open(), rig.open());
    rig.unread.insert(unread);
    let turns = |rig: &mut Rig, seconds: u32| {
        (0..10 * seconds).any(|_| {
            rig.later(Duration::from_millis(100));
            rig.turn();
            rig.ops.iter().any(|op| matches!(op, Seen::Close(conn, true) if *conn == unread))
        })
    };
    assert!(!turns(&mut rig, 120), "its bytes have arrived");
    let counters = rig.shard.counters();
    assert_eq!((counters.heartbeat_lost_total, counters.connections), (1, 1), "not so {silent:?}");
    // It is asked once more, and then looked at once a second, which is what it costs.
    assert!((40..=60).contains(&counters.heartbeat_spared_total), "{counters:?}");
    rig.receive(unread, &frame(0x8a, b""));
    rig.unread.clear();
    assert!(!turns(&mut rig, 20), "it was heard");
    assert!(turns(&mut rig, 60), "and is silent from then on");
}

#[test]
fn a_silent_peer_is_asked_and_then_reset_and_one_that_answers_stays() {
    let mut rig = Rig::alone();
    let (silent, alive) = (rig.open(), rig.open());
    let mut reset = None;
    for step in 0..600 {
        rig.later(Duration::from_millis(100));
        rig.turn();
        if rig.ops.contains(&Seen::Close(silent, true)) {
            reset = Some(step);
        }
        if rig.heard(alive).contains(&Heard::Ping) {
            rig.receive(alive, &frame(0x8a, b""));
        }
    }
    let seconds = f64::from(reset.expect("a reset")) / 10.0;
    assert!((44.8..46.2).contains(&seconds), "after {seconds} s");
    let counters = rig.shard.counters();
    assert_eq!((counters.heartbeat_lost_total, counters.connections), (1, 1));
}
