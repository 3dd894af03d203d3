//! Rooms that pause for readers that are behind: row B1.

use serde_json::Value;

use super::history::{remembering, texts};
use super::rig::{Rig, publish, room_of};
use super::rooms::exchange;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::shard::Settings;

/// Rooms that begin with `room` pause, and keep so many publications; none where it is zero.
fn pausing(count: u32) -> Settings {
    let mut settings = remembering(count.max(1));
    let space = &mut settings.rooms.namespaces[0];
    space.overflow = Overflow::Pause;
    if count == 0 {
        space.memory.history = None;
    }
    settings
}

/// Publishes numbers of a hundred bytes each.
fn flood(rig: &mut Rig, author: ConnId, room: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let payload = format!("[{number},\"{}\"]", "x".repeat(100));
        rig.say(author, &publish(&[room], &payload));
        rig.settle();
    }
}

/// The numbers that reached a client, and the types of whatever else did.
fn heard(rig: &mut Rig, conn: ConnId) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for text in texts(rig, conn) {
        match &text["payload"][0] {
            Value::Number(number) => numbers.push(number.as_u64().expect("small")),
            _ => others.push(text["type"].as_str().expect("a type").to_owned()),
        }
    }
    (numbers, others)
}

#[test]
fn a_reader_that_was_behind_gets_all_of_a_room_that_pauses_once_and_in_order() {
    let mut rig = Rig::new(0, 1, pausing(1000));
    let (author, quick, slow) = (rig.open(), rig.member("room"), rig.member("room"));
    rig.bytes(slow);
    rig.bytes(quick);
    rig.stalled.insert(slow);
    flood(&mut rig, author, "room", 0..200);
    let counters = rig.shard.counters();
    assert_eq!((counters.pauses_total, counters.replays), (1, 1));
    assert!(counters.queued_bytes <= 2000 + 300, "the queue is bounded: {}", counters.queued_bytes);
    assert_eq!(
        heard(&mut rig, quick).0,
        (0..200).collect::<Vec<_>>(),
        "nobody waits for the slow one"
    );
    rig.stalled.remove(&slow);
    // It comes in portions, each as soon as the one before it has left.
    for _ in 0..300 {
        rig.turn();
    }
    assert_eq!(heard(&mut rig, slow), ((0..200).collect(), Vec::new()));
    flood(&mut rig, author, "room", 200..203);
    assert_eq!(heard(&mut rig, slow), ((200..203).collect(), Vec::new()));
    let counters = rig.shard.counters();
    assert_eq!((counters.pauses_total, counters.replays, counters.resyncs_total), (1, 0, 0));
    assert_eq!((counters.dropped_new_total, counters.dropped_oldest_total), (0, 0));
}

#[test]
fn it_may_fall_behind_again_and_again_in_rooms_at_other_homes() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, pausing(1000)));
    let room = room_of(1, 2);
    let slow = rigs[0].member(&room);
    let author = rigs[1].open();
    exchange(&mut rigs);
    rigs[0].bytes(slow);
    let (mut all, mut last) = (Vec::new(), 0);
    for round in 0..5 {
        rigs[0].stalled.insert(slow);
        for _ in 0..40 {
            flood(&mut rigs[1], author, &room, last..last + 1);
            exchange(&mut rigs);
            last += 1;
        }
        assert_eq!(rigs[0].shard.counters().pauses_total, round + 1);
        rigs[0].stalled.remove(&slow);
        // What is published meanwhile comes behind it.
        flood(&mut rigs[1], author, &room, last..last + 3);
        last += 3;
        exchange(&mut rigs);
        let (numbers, others) = heard(&mut rigs[0], slow);
        assert!(others.is_empty(), "{others:?}");
        all.extend(numbers);
    }
    assert_eq!(all, (0..u64::from(last)).collect::<Vec<_>>());
}

#[test]
fn where_history_does_not_reach_the_reader_begins_anew_and_knows_it() {
    for count in [0, 10] {
        let mut rig = Rig::new(0, 1, pausing(count));
        let (author, slow) = (rig.open(), rig.member("room"));
        rig.bytes(slow);
        rig.stalled.insert(slow);
        flood(&mut rig, author, "room", 0..100);
        rig.stalled.remove(&slow);
        rig.settle();
        let (numbers, others) = heard(&mut rig, slow);
        assert_eq!(others, ["throng:resync"], "{count}: {numbers:?}");
        let begin: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(numbers, begin, "{count}: what was queued before");
        flood(&mut rig, author, "room", 100..103);
        assert_eq!(heard(&mut rig, slow), ((100..103).collect(), Vec::new()));
    }
}

#[test]
fn who_leaves_or_ends_while_it_is_behind_is_waited_for_no_more() {
    let mut rig = Rig::new(0, 1, pausing(1000));
    let author = rig.open();
    for ends in [false, true] {
        let slow = rig.member("room");
        rig.bytes(slow);
        rig.stalled.insert(slow);
        flood(&mut rig, author, "room", 0..100);
        assert_eq!(rig.shard.counters().replays, 1);
        if ends {
            rig.event(crate::contract::Event::ReceivedEnd { conn: slow });
        } else {
            rig.say(slow, r#"{"type":"throng:leave","room":"room","ref":1}"#);
        }
        rig.stalled.remove(&slow);
        rig.settle();
        assert_eq!(rig.shard.counters().replays, 0);
        flood(&mut rig, author, "room", 100..101);
        if !ends {
            let (numbers, others) = heard(&mut rig, slow);
            assert_eq!(others, ["throng:reply"]);
            assert!(numbers.iter().all(|number| *number < 100), "{numbers:?}");
        }
    }
}

#[test]
fn what_is_said_to_connections_has_no_room_to_pause_and_loses_the_oldest() {
    let mut settings = pausing(1000);
    settings.rooms.overflow = Overflow::Pause;
    let mut rig = Rig::new(0, 1, settings);
    let (author, slow) = (rig.open(), rig.open());
    rig.stalled.insert(slow);
    let address = rig.address(slow).to_string();
    for number in 0..100 {
        let payload = format!("[{number},\"{}\"]", "x".repeat(100));
        let text = format!(r#"{{"type":"t","connections":["{address}"],"payload":{payload}}}"#);
        rig.say(author, &text);
        rig.settle();
    }
    assert!(rig.shard.counters().dropped_oldest_total > 0);
    rig.stalled.remove(&slow);
    rig.settle();
    let (numbers, others) = heard(&mut rig, slow);
    assert_eq!((numbers.last(), others), (Some(&99), vec!["throng:gap".to_owned()]));
}
