//! Memory that runs short: what is done, in which order, and that it helps.

use std::time::Duration;

use serde_json::Value;

use crate::base::id::{ConnId, ShardId};
use crate::flow::outbound::OutboundLimits;
use crate::shard::tests::rig::{HEAD, Heard, Rig, Seen, frame, publish, room_of, settings};
use crate::shard::{Mail, Settings};

const KIB: u64 = 1024;
const MILLI: Duration = Duration::from_millis(1);

/// A budget, queues that may hold 64 KiB each, and messages of as much.
fn budget(bytes: u64) -> Settings {
    let mut settings = settings();
    settings.capacity.memory = bytes;
    settings.messages.message_bytes = 65_536;
    settings.queue = OutboundLimits {
        high_water: 65_536,
        low_water: 16_384,
        max_bytes: 1 << 20,
        ..OutboundLimits::default()
    };
    settings
}

fn kilobyte(room: &str) -> String {
    publish(&[room], &format!("{:?}", "x".repeat(1000)))
}

fn charged(rig: &Rig) -> u64 {
    rig.shard.counters().charged_bytes
}

/// Members of rooms of their own who do not read.
fn laggards(rig: &mut Rig, count: usize) -> Vec<ConnId> {
    let members: Vec<ConnId> = (0..count).map(|at| rig.member(&format!("r{at}"))).collect();
    rig.stalled.extend(&members);
    members
}

#[test]
fn a_frame_is_charged_once_however_many_wait_for_it_and_given_back_in_the_end() {
    let mut rig = Rig::new(0, 1, budget(64 << 20));
    let publisher = rig.open();
    let members: Vec<ConnId> = (0..50).map(|_| rig.member("r")).collect();
    rig.settle();
    let before = charged(&rig);
    rig.stalled.extend(&members);
    rig.say(publisher, &kilobyte("r"));
    rig.settle();
    let grown = charged(&rig) - before;
    assert!((1000..2 * KIB).contains(&grown), "{grown} bytes for one frame");
    rig.stalled.clear();
    rig.settle();
    assert_eq!(charged(&rig), before);
}

#[test]
fn the_nearer_the_budget_the_more_is_done_and_who_reads_loses_nothing() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let (publisher, reader) = (rig.open(), rig.member("good"));
    let lagging = laggards(&mut rig, 40);
    let (mut heard, mut paused_at, mut dropped_at) = (0, None, None);
    for round in 0..64_u64 {
        for at in 0..lagging.len() {
            rig.say(publisher, &kilobyte(&format!("r{at}")));
        }
        rig.say(publisher, &kilobyte("good"));
        rig.settle();
        heard += rig.published(reader).len();
        let counters = rig.shard.counters();
        assert!(counters.charged_bytes < 1024 * KIB, "{round}: {}", counters.charged_bytes);
        if counters.memory_pauses_total > 0 && paused_at.is_none() {
            paused_at = Some(round);
            assert_eq!(counters.dropped_oldest_total, 0);
        }
        if counters.dropped_oldest_total > 0 && dropped_at.is_none() {
            dropped_at = Some(round);
        }
    }
    assert!(paused_at < dropped_at && paused_at.is_some(), "{paused_at:?} {dropped_at:?}");
    assert_eq!(heard, 64, "who keeps up is served as before");
    // Half-read messages cannot be dropped: those who hold most are closed, and it is enough.
    for conn in &lagging {
        let message = frame(0x81, &[b' '; 60_000]);
        rig.receive(*conn, &message[..30_000]);
        rig.turn();
    }
    let counters = rig.shard.counters();
    assert!(counters.memory_shed_total > 0 && counters.memory_shed_total < 40, "{counters:?}");
    rig.say(publisher, &kilobyte("good"));
    rig.settle();
    assert_eq!(rig.published(reader).len(), 1);
    rig.stalled.clear();
    rig.settle();
    assert!(charged(&rig) < 1024 * KIB * 85 / 100);
}

#[test]
fn those_who_hold_most_go_first_and_no_more_than_must() {
    let mut rig = Rig::new(0, 1, budget(200 * KIB));
    let hoarders: Vec<ConnId> = (0..8).map(|_| rig.open()).collect();
    for (at, conn) in hoarders.iter().enumerate() {
        let message = frame(0x81, &[b' '; 65_000]);
        rig.receive(*conn, &message[..if at == 5 { 60_000 } else { 14_000 }]);
    }
    rig.turn();
    rig.settle();
    assert_eq!(rig.shard.counters().memory_shed_total, 1, "{}", charged(&rig));
    assert_eq!(rig.heard(hoarders[5]), [Heard::Close(1013)]);
    assert!(charged(&rig) < 170 * KIB, "what was half-read is forgotten at once");
}

/// A publisher that is not read from, with a message of 60,000 bytes that has not ended, and the rest of that.
fn held_up(rig: &mut Rig) -> (ConnId, Vec<u8>) {
    let publisher = rig.open();
    let whole = frame(0x81, format!("{:>60000}", r#"{"type":"throng:ping","ref":7}"#).as_bytes());
    let (begin, rest) = whole.split_at(59_000);
    rig.receive(publisher, &[&frame(0x81, kilobyte("r").as_bytes()), begin].concat());
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(publisher)), "{:?}", rig.ops);
    (publisher, rest.to_vec())
}

#[test]
fn what_a_publisher_cannot_end_because_the_node_does_not_read_goes_last() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    rig.shard.note_others(520 * KIB);
    rig.settle();
    let (publisher, _) = held_up(&mut rig);
    rig.heard(publisher);
    let hoarder = rig.open();
    rig.receive(hoarder, &frame(0x81, &[b' '; 60_000])[..20_000]);
    rig.settle();
    assert_eq!(rig.shard.counters().memory_shed_total, 0, "{}", charged(&rig));
    // A little more than 85 %, whatever the two have been charged.
    let beyond = |rig: &mut Rig| {
        let others = 875 * KIB - charged(rig);
        rig.shard.note_others(others);
        rig.settle();
    };
    beyond(&mut rig);
    let words = rig.unheard(hoarder);
    assert!(words.ends_with("reads too slowly, come back later"), "{words}");
    assert_eq!(rig.heard(hoarder), [Heard::Close(1013)], "{}", charged(&rig));
    assert_eq!(rig.heard(publisher), [], "the heavier one is not to blame");
    assert_eq!(rig.shard.counters().memory_shed_total, 1);
    // Where nobody else is left it is its turn.
    beyond(&mut rig);
    let words = rig.unheard(publisher);
    assert!(words.ends_with("the rest of a message was not taken, come back later"), "{words}");
    assert_eq!(rig.heard(publisher), [Heard::Close(1013)], "{}", charged(&rig));
    assert_eq!(rig.shard.counters().memory_shed_total, 2);
}

#[test]
fn waiting_in_vain_is_no_reason_to_close_who_is_not_read_from() {
    let mut rig = Rig::new(0, 1, budget(200 * KIB));
    rig.shard.note_others(45 * KIB);
    rig.settle();
    let hoarder = rig.open();
    rig.receive(hoarder, &frame(0x81, &[b' '; 60_000])[..59_000]);
    rig.turn();
    let (publisher, rest) = held_up(&mut rig);
    rig.heard(publisher);
    rig.shard.note_others(30 * KIB);
    for _ in 0..100 {
        rig.later(10 * MILLI);
        rig.turn();
    }
    assert_eq!(rig.heard(hoarder), [Heard::Close(1013)], "it could have ended its message");
    assert_eq!(rig.shard.counters().memory_shed_total, 1);
    // It is read from again, and its message is whole.
    rig.receive(publisher, &rest);
    rig.settle();
    assert_eq!(rig.told(publisher, "throng:pong").len(), 1);
}

#[test]
fn a_publisher_waits_while_memory_is_short_and_goes_on_after() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let (publisher, quiet) = (rig.open(), rig.open());
    rig.shard.note_others(600 * KIB);
    rig.settle();
    rig.say(publisher, &kilobyte("r"));
    rig.say(quiet, r#"{"type":"throng:ping"}"#);
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(publisher)), "{:?}", rig.ops);
    assert!(!rig.ops.contains(&Seen::Pause(quiet)), "who asks is answered");
    rig.shard.note_others(500 * KIB);
    rig.settle();
    assert!(!rig.ops.contains(&Seen::Resume(publisher)), "not at the first relief");
    assert!(rig.shard.poll_timeout(rig.now).is_some(), "it is looked at again");
    rig.shard.note_others(0);
    rig.turn();
    assert!(rig.ops.contains(&Seen::Resume(publisher)), "{:?}", rig.ops);
}

#[test]
fn readers_who_never_read_do_not_hold_publishers_up_for_long() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let (publisher, reader) = (rig.open(), rig.member("good"));
    let lagging = laggards(&mut rig, 12);
    while rig.shard.counters().memory_pauses_total == 0 {
        for at in 0..lagging.len() {
            rig.say(publisher, &kilobyte(&format!("r{at}")));
        }
        rig.settle();
    }
    let (start, mut resumed) = (rig.now, false);
    while !resumed {
        rig.later(rig.shard.poll_timeout(rig.now).expect("it is looked at again"));
        rig.turn();
        resumed = rig.ops.contains(&Seen::Resume(publisher));
    }
    let waited = rig.now.since(start);
    assert!(waited >= 500 * MILLI && waited < 600 * MILLI, "{waited:?}");
    let shed = rig.shard.counters().memory_shed_total;
    assert!((1..6).contains(&shed), "{shed} of twelve");
    rig.say(publisher, &kilobyte("good"));
    rig.settle();
    assert_eq!(rig.published(reader).len(), 1);
}

#[test]
fn what_another_shard_frees_halfway_leaves_no_publisher_waiting() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let publisher = rig.open();
    let lagging = laggards(&mut rig, 6);
    for at in 0..lagging.len() {
        for _ in 0..50 {
            rig.say(publisher, &kilobyte(&format!("r{at}")));
        }
    }
    rig.settle();
    let own = charged(&rig);
    assert!((200 * KIB..400 * KIB).contains(&own), "{own}");
    rig.shard.note_others(600 * KIB - own);
    rig.turn();
    rig.say(publisher, &kilobyte("x"));
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(publisher)));
    // Less than where waiting begins, and more than where it ends.
    rig.shard.note_others(450 * KIB - own);
    let mut resumed = false;
    for _ in 0..100 {
        rig.later(10 * MILLI);
        rig.turn();
        resumed |= rig.ops.contains(&Seen::Resume(publisher));
    }
    assert!(resumed, "{} held", charged(&rig));
    assert!(rig.shard.counters().memory_shed_total < 6);
}

#[test]
fn no_publisher_waits_for_what_other_shards_hold_and_will_not_let_go() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let (publisher, reader) = (rig.open(), rig.member("good"));
    rig.shard.note_others(600 * KIB);
    rig.turn();
    rig.say(publisher, &kilobyte("good"));
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(publisher)));
    // Another shard has dropped some and sees no need to do more; here is nobody who lags.
    rig.shard.note_others(450 * KIB);
    let start = rig.now;
    let mut resumed = false;
    while !resumed {
        rig.later(rig.shard.poll_timeout(rig.now).expect("it is looked at again"));
        rig.turn();
        resumed = rig.ops.contains(&Seen::Resume(publisher));
        assert!(rig.now.since(start) < 1000 * MILLI, "it waits for ever");
    }
    rig.say(publisher, &kilobyte("good"));
    rig.settle();
    assert_eq!(rig.published(reader).len(), 2);
    let counters = rig.shard.counters();
    assert_eq!((counters.memory_shed_total, counters.memory_pauses_total), (0, 1));
    // At the mark everybody waits, as before.
    rig.shard.note_others(600 * KIB);
    rig.turn();
    rig.say(publisher, &kilobyte("good"));
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(publisher)));
}

#[test]
fn with_the_budget_spent_nobody_comes_in_until_there_is_enough() {
    let mut rig = Rig::new(0, 1, budget(1024 * KIB));
    let halfway = rig.accept().expect("let in");
    rig.shard.note_others(1000 * KIB);
    rig.turn();
    assert_eq!(rig.accept(), None);
    rig.receive(halfway, HEAD);
    rig.settle();
    let response = rig.response(halfway);
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert_eq!(rig.shard.counters().memory_refused_total, 2);
    rig.shard.note_others(0);
    rig.turn();
    rig.open();
}

#[test]
fn mail_that_waits_is_charged_until_it_leaves() {
    let mut rig = Rig::new(0, 2, budget(64 << 20));
    let conn = rig.open();
    let room = room_of(1, 2);
    let before = charged(&rig);
    rig.full = [ShardId(1)].into();
    for _ in 0..4 {
        rig.say(conn, &kilobyte(&room));
        rig.turn();
    }
    assert!(charged(&rig) - before > 4 * KIB, "{}", charged(&rig));
    rig.full.clear();
    rig.settle();
    assert_eq!(rig.post.iter().filter(|(_, mail)| matches!(mail, Mail::Publish { .. })).count(), 4);
    assert_eq!(charged(&rig), before);
    assert_eq!(rig.told(conn, "throng:error"), Vec::<Value>::new());
}
