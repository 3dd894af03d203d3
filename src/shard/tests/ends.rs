//! How it ends: late events, panics, the graceful end of the whole shard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::base::id::ConnId;
use crate::contract::{Event, ListenerId, SendBatch, SocketTicket};
use crate::shard::tests::rig::{Heard, Rig, Seen, frame, publish, settings};
use crate::shard::{Mail, Progress};

fn reset(conn: ConnId) -> Event<'static> {
    Event::Lost { conn, error: std::io::ErrorKind::ConnectionReset.into() }
}

#[test]
fn late_events_of_a_connection_do_not_reach_the_next_user_of_its_index() {
    let mut rig = Rig::alone();
    let old = rig.member("r");
    rig.event(reset(old));
    rig.settle();
    let new = rig.member("r");
    assert_eq!(new.index, old.index);
    rig.heard(new);
    let before = rig.shard.counters();
    rig.receive(old, &frame(0x81, publish(&["r"], "1").as_bytes()));
    rig.event(Event::ReceivedEnd { conn: old });
    rig.event(Event::Sent { conn: old, batch: SendBatch::new(), bytes: 3 });
    rig.event(reset(old));
    rig.event(Event::Closed { conn: old });
    rig.shard.handle_panic(Some(old), rig.now);
    rig.settle();
    assert_eq!(rig.heard(new), []);
    let after = rig.shard.counters();
    assert_eq!(after.connections, 1);
    assert_eq!((after.lost_total, after.panics_total), (before.lost_total, 0));
}

/// Between the close and the driver's last word anything may still be reported.
#[test]
fn events_between_close_and_closed_leave_nothing_behind_for_the_next_user() {
    let mut rig = Rig::alone();
    rig.confirms = false;
    let old = rig.open();
    rig.stalled.insert(old);
    rig.say(old, r#"{"type":"throng:ping"}"#);
    rig.turn();
    rig.event(reset(old));
    rig.turn();
    assert_eq!(rig.ops, [Seen::Close(old, true)]);
    // The write ends after all, more bytes and the FIN are found in the ring.
    rig.stalled.clear();
    rig.complete();
    rig.receive(old, &frame(0x89, b""));
    rig.event(Event::ReceivedEnd { conn: old });
    rig.event(reset(old));
    rig.confirm(old);
    let accepted =
        Event::Accepted { socket: SocketTicket(99), listener: ListenerId(0), peer: None };
    rig.event(accepted);
    rig.turn();
    assert!(matches!(rig.ops[..], [Seen::Open(new)] if new.index == old.index), "{:?}", rig.ops);
}

#[test]
fn a_panic_ends_its_connection_with_1011_and_everyone_else_goes_on() {
    let mut rig = Rig::alone();
    let (guilty, other) = (rig.member("r"), rig.member("r"));
    let panic = frame(0x81, br#"{"type":"throng:panic"}"#);
    let ping = frame(0x81, br#"{"type":"throng:ping"}"#);
    // What follows in the same read is lost with it.
    let mut bytes = [panic.as_slice(), &ping[..9]].concat();
    let event = Event::Received { conn: guilty, bytes: &mut bytes };
    assert_eq!(crate::shard::Shard::blame(&event), Some(guilty));
    let (shard, now) = (&mut rig.shard, rig.now);
    let caught = catch_unwind(AssertUnwindSafe(|| shard.handle_event(event, now)));
    assert!(caught.is_err());
    rig.shard.handle_panic(Some(guilty), rig.now);
    rig.shard.check();
    rig.turn();
    assert_eq!(rig.heard(guilty), [Heard::Close(1011)]);
    let ops = [Seen::Send(guilty, 1), Seen::Shutdown(guilty)];
    assert_eq!(rig.ops, ops, "its bytes are not waited for");
    rig.receive(guilty, &ping[9..]);
    rig.turn();
    assert_eq!(rig.ops, []);
    rig.say(other, &publish(&["r"], "1"));
    rig.settle();
    assert_eq!(rig.published(other).len(), 1);
    let counters = rig.shard.counters();
    assert_eq!((counters.panics_total, counters.memberships, counters.open_connections), (1, 1, 1));
}

/// Fifty connections far up in a table that was reserved for many more.
#[test]
fn a_drain_closes_in_a_steady_pace_over_the_middle_of_its_window() {
    let mut rig = Rig::alone();
    let members: Vec<_> = (0..50).map(|_| rig.member("r")).collect();
    rig.take(Mail::Drain(Duration::from_secs(10)));
    let mut told = 0;
    let mut closed_by = Vec::new();
    for _ in 0..11 {
        rig.settle();
        for conn in &members {
            for heard in rig.heard(*conn) {
                match heard {
                    Heard::Text(push) => {
                        assert_eq!(push["type"], "throng:reload");
                        assert!(push["reconnectDelayMs"].as_u64().expect("a delay") <= 4000);
                        told += 1;
                    }
                    Heard::Close(code) => {
                        assert_eq!(code, 1012);
                        rig.receive(*conn, &frame(0x88, &code.to_be_bytes()));
                        rig.event(Event::ReceivedEnd { conn: *conn });
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(told, 50, "everybody is told at once and once");
        closed_by.push(rig.shard.counters().closed_total);
        rig.later(Duration::from_secs(1));
    }
    assert_eq!(closed_by.last(), Some(&50));
    assert_eq!(closed_by[8], 50, "four fifths of the window: {closed_by:?}");
    assert_eq!(closed_by[2], 0, "what is under way has a fifth of the window to arrive");
    for second in closed_by[2..=8].windows(2) {
        assert!((7..=10).contains(&(second[1] - second[0])), "unsteady: {closed_by:?}");
    }
    rig.settle();
    assert_eq!(rig.shard.progress(), Progress::Drained);
}

/// Two of them read nothing before all of the closes have begun.
#[test]
fn what_was_queued_before_a_drain_is_sent_before_its_close() {
    let mut rig = Rig::alone();
    let members: Vec<_> = (0..3).map(|_| rig.member("r")).collect();
    let author = rig.open();
    members.iter().for_each(|conn| _ = rig.heard(*conn));
    rig.stalled.extend(&members[1..]);
    for number in 0..20 {
        rig.say(author, &publish(&["r"], &number.to_string()));
        rig.turn();
    }
    rig.take(Mail::Drain(Duration::from_secs(10)));
    for _ in 0..90 {
        rig.later(Duration::from_millis(100));
        rig.turn();
    }
    assert_eq!(rig.shard.counters().closed_total, 4, "nobody is left out for its queue");
    let still = rig.shard.counters().queued_bytes;
    assert!(still > 0, "something waits for those that read nothing");
    rig.stalled.clear();
    rig.settle();
    for conn in members {
        let mut heard = rig.heard(conn);
        assert_eq!(heard.pop(), Some(Heard::Close(1012)));
        let Some(Heard::Text(reload)) = heard.pop() else { panic!("{heard:?}") };
        assert_eq!(reload["type"], "throng:reload");
        let numbers = heard.iter().map(|heard| match heard {
            Heard::Text(push) => push["payload"].as_u64().expect("a number"),
            other => panic!("{other:?}"),
        });
        assert!(numbers.eq(0..20), "{heard:?}");
    }
}

#[test]
fn no_turn_of_a_drain_looks_at_more_than_a_slice() {
    let mut rig = Rig::alone();
    for _ in 0..600 {
        rig.member("r");
    }
    rig.take(Mail::Drain(Duration::ZERO));
    let mut turns = 0;
    while rig.shard.counters().closed_total < 600 {
        let before = rig.shard.counters().closed_total;
        rig.turn();
        assert!(rig.shard.counters().closed_total - before <= 256);
        turns += 1;
        assert!(turns < 20, "the end does not come");
    }
}

#[test]
fn who_does_not_answer_is_released_when_the_window_is_over_and_nobody_new_is_let_in() {
    let mut settings = settings();
    settings.timeouts.close = Duration::from_secs(60);
    let mut rig = Rig::new(0, 1, settings);
    let members: Vec<_> = (0..5).map(|_| rig.member("r")).collect();
    rig.stalled.insert(members[2]);
    rig.take(Mail::Drain(Duration::from_secs(2)));
    rig.turn();
    assert!(rig.ops.contains(&Seen::StopAccepting));
    assert_eq!(rig.accept(), None);
    assert_eq!(rig.shard.progress(), Progress::Draining);
    for _ in 0..25 {
        rig.later(Duration::from_millis(100));
        rig.turn();
    }
    rig.settle();
    assert_eq!(rig.shard.progress(), Progress::Drained);
}

#[test]
fn a_shard_told_to_stop_says_so_whatever_it_still_has() {
    let mut rig = Rig::alone();
    rig.open();
    rig.take(Mail::Drain(Duration::from_secs(9)));
    rig.take(Mail::Stop);
    assert_eq!(rig.shard.progress(), Progress::Stopped);
}

#[test]
fn a_goodbye_is_answered_however_long_the_shard_takes_to_write() {
    let mut rig = Rig::alone();
    let leaving: Vec<ConnId> = (0..200).map(|_| rig.open()).collect();
    for conn in &leaving {
        rig.receive(*conn, &frame(0x88, &[3, 232]));
    }
    rig.turn();
    let late = rig.ops.len();
    assert!(late < 200, "one turn writes to a part of them");
    for _ in 0..8 {
        rig.later(settings().timeouts.close * 2);
        rig.turn();
    }
    rig.settle();
    for conn in leaving {
        assert_eq!(rig.heard(conn), [Heard::Close(1000)]);
    }
}
