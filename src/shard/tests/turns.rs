//! One write per connection and turn, and the window that holds writes back under load.

use std::time::Duration;

use crate::base::time::Time;
use crate::contract::Event;
use crate::flow::outbound::OutboundLimits;
use crate::shard::tests::rig::{Rig, Seen, frame, publish, settings};

#[test]
fn a_turn_makes_one_write_per_connection_that_carries_everything_queued() {
    for burst in [16, 128] {
        let mut settings = settings();
        settings.queue = OutboundLimits::default();
        let mut rig = Rig::new(0, 1, settings);
        let members: Vec<_> = (0..20).map(|_| rig.member("r")).collect();
        let before = rig.shard.counters();
        // All in one read.
        let texts = (0..burst).map(|number| publish(&["r"], &number.to_string()));
        let frames: Vec<u8> = texts.flat_map(|text| frame(0x81, text.as_bytes())).collect();
        rig.receive(members[0], &frames);
        rig.turn();
        assert_eq!(rig.ops.len(), 20);
        for conn in &members {
            assert_eq!(rig.writes(*conn), [burst]);
        }
        let after = rig.shard.counters();
        assert_eq!(after.writes_total - before.writes_total, 20);
        assert_eq!(after.sent_frames_total - before.sent_frames_total, 20 * burst as u64);
        rig.turn();
        assert_eq!(rig.ops, []);
    }
}

#[test]
fn a_long_list_is_written_to_in_slices_and_what_comes_in_between_joins_the_rest() {
    let mut rig = Rig::alone();
    let members: Vec<_> = (0..300).map(|_| rig.member("r")).collect();
    let mut writes: Vec<Vec<usize>> = vec![Vec::new(); members.len()];
    for number in 0..2 {
        rig.say(members[0], &publish(&["r"], &number.to_string()));
        rig.turn();
        assert_eq!(rig.ops.len(), 64);
        assert_eq!(rig.shard.poll_timeout(rig.now), Some(Duration::ZERO), "the rest is due");
        rig.note_writes(&members, &mut writes);
    }
    while {
        rig.turn();
        rig.note_writes(&members, &mut writes);
        !rig.ops.is_empty()
    } {}
    // The second came when 64 had been written to: they get it by itself, in the next walk.
    assert!(writes[..64].iter().all(|frames| *frames == [1, 1]));
    assert!(writes[64..].iter().all(|frames| *frames == [2]));
}

#[test]
fn what_comes_while_a_write_is_in_flight_leaves_together_with_the_next() {
    let mut rig = Rig::alone();
    let (conn, publisher) = (rig.member("r"), rig.open());
    rig.stalled.insert(conn);
    for number in 0..5 {
        rig.say(publisher, &publish(&["r"], &number.to_string()));
        rig.turn();
        assert_eq!(rig.writes(conn), if number == 0 { vec![1] } else { vec![] });
    }
    rig.stalled.clear();
    rig.turn();
    assert_eq!(rig.writes(conn), [4]);
}

#[test]
fn a_busy_shard_whose_writes_carry_company_holds_them_for_the_window_and_no_longer() {
    let window = Duration::from_micros(500);
    let mut settings = settings();
    settings.capacity.flush_window = window;
    let mut rig = Rig::new(0, 1, settings);
    let members: Vec<_> = (0..40).map(|_| rig.member("r")).collect();
    let mut held: Option<Time> = None;
    let (mut holds, mut most) = (0, 0);
    for number in 0..400 {
        for half in ["a", "b"] {
            rig.say(members[0], &publish(&["r"], &format!("\"{number}{half}\"")));
        }
        rig.turn_after(true);
        rig.members_wrote(&members, &mut most);
        if rig.ops.is_empty() {
            let since = *held.get_or_insert(rig.now);
            assert!(rig.now.since(since) < window, "held for longer than the window");
            let timeout = rig.shard.poll_timeout(rig.now);
            assert_eq!(timeout, Some(Duration::ZERO), "a hold does not sleep");
            holds += 1;
        } else {
            held = None;
        }
        rig.later(Duration::from_micros(50));
    }
    assert!(holds > 50, "the window opened: {holds}");
    assert!(most > 2, "a write gathers what came while it was held: {most}");
    assert_eq!(rig.shard.counters().flush_waits_total, holds);
    rig.later(Duration::from_millis(10));
    rig.settle();
    rig.say(members[0], r#"{"type":"throng:ping"}"#);
    rig.turn();
    assert_eq!(rig.writes(members[0]), [1], "an idle shard writes at once");
    assert_eq!(rig.published(members[1]).len(), 800);
}

impl Rig {
    /// Appends to each member's writes those of this turn.
    fn note_writes(&self, members: &[crate::base::id::ConnId], writes: &mut [Vec<usize>]) {
        for (conn, writes) in members.iter().zip(writes) {
            writes.extend(self.writes(*conn));
        }
    }

    /// Raises `most` to the largest number of frames that one write of this turn had.
    fn members_wrote(&self, members: &[crate::base::id::ConnId], most: &mut usize) {
        for conn in members {
            let writes = self.writes(*conn);
            assert!(writes.len() <= 1, "two writes in one turn");
            *most = writes.into_iter().fold(*most, usize::max);
        }
    }
}

#[test]
fn a_shard_with_nothing_to_do_sleeps_until_the_first_heartbeat_may_be_due() {
    let mut rig = Rig::alone();
    assert_eq!(rig.shard.poll_timeout(rig.now), None);
    let conn = rig.open();
    let wait = rig.shard.poll_timeout(rig.now).expect("a heartbeat");
    assert!(wait >= Duration::from_secs(12) && wait <= Duration::from_secs(26), "{wait:?}");
    rig.later(wait);
    rig.turn();
    assert_eq!(rig.writes(conn), [1], "the ping");
}

#[test]
fn accepting_goes_on_a_hundred_milliseconds_after_the_kernel_refused_and_not_before() {
    let mut rig = Rig::alone();
    let error = std::io::ErrorKind::OutOfMemory.into();
    rig.event(Event::AcceptFailed { error });
    for _ in 0..10 {
        rig.turn();
        assert_eq!(rig.ops, []);
        let rest = rig.shard.poll_timeout(rig.now).expect("an end of the rest");
        assert!(rest > Duration::ZERO, "no spinning");
        rig.later(Duration::from_millis(9));
    }
    rig.later(Duration::from_millis(10));
    rig.turn();
    assert_eq!(rig.ops, [Seen::ResumeAccept]);
    rig.later(Duration::from_secs(1));
    rig.turn();
    assert_eq!(rig.ops, [], "once");
    assert_eq!(rig.shard.counters().accept_paused_total, 1);
}

#[test]
fn a_full_shard_answers_503_and_far_beyond_that_closes_sockets_unseen() {
    let mut settings = settings();
    settings.capacity.connections = 2;
    let mut rig = Rig::new(0, 1, settings);
    let (first, _second) = (rig.open(), rig.open());
    let third = rig.accept().expect("let in to be told");
    rig.receive(third, crate::shard::tests::rig::HEAD);
    rig.turn();
    assert!(rig.bytes(third).starts_with(b"HTTP/1.1 503 "));
    let mut let_in = 3;
    while rig.accept().is_some() {
        let_in += 1;
        assert!(let_in < 100, "no limit");
    }
    assert_eq!(rig.ops, [Seen::Refuse]);
    assert_eq!(rig.shard.counters().shed_total, 1);
    let lost = std::io::ErrorKind::ConnectionReset.into();
    rig.event(Event::Lost { conn: first, error: lost });
    rig.settle();
    assert!(rig.accept().is_some(), "one has gone");
}
