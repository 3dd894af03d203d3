//! Rooms whose publications wait to be written: how many writes there are, never how long they took.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::history::remembering;
use super::rig::{Heard, Rig, publish};
use crate::base::id::ConnId;
use crate::contract::Event;

const DELAY: Duration = Duration::from_millis(50);

/// Rooms whose names begin with `room` wait, others do not.
fn rig() -> Rig {
    let mut settings = remembering(100);
    settings.rooms.namespaces[0].write_delay = DELAY;
    Rig::new(0, 1, settings)
}

fn say(rig: &mut Rig, author: ConnId, room: &str, number: u64) {
    rig.say(author, &publish(&[room], &number.to_string()));
    rig.turn();
}

fn payloads(rig: &mut Rig, conn: ConnId) -> Vec<u64> {
    rig.published(conn).iter().filter_map(Value::as_u64).collect()
}

#[test]
fn what_is_published_within_the_delay_leaves_in_one_write_for_each_member() {
    let mut rig = rig();
    let members = [(); 3].map(|()| rig.member("room"));
    let author = rig.open();
    rig.settle();
    members.iter().for_each(|member| _ = rig.heard(*member));
    for number in 1..=20 {
        say(&mut rig, author, "room", number);
        assert!(members.iter().all(|member| rig.writes(*member).is_empty()), "{number}");
        rig.later(DELAY / 40);
    }
    assert!(
        rig.shard.poll_timeout(rig.now).is_some_and(|due| due <= DELAY),
        "the worker wakes for it"
    );
    rig.later(DELAY);
    rig.turn();
    assert!(members.iter().all(|member| rig.writes(*member) == [20]));
    let all: Vec<u64> = (1..=20).collect();
    assert!(members.iter().all(|member| payloads(&mut rig, *member) == all));
    let writes = rig.shard.counters().writes_total;
    say(&mut rig, author, "room", 21);
    rig.later(DELAY);
    rig.turn();
    assert_eq!(rig.shard.counters().writes_total - writes, 3, "the next one waits anew");
}

#[test]
fn where_nothing_waits_each_publication_is_written_in_its_turn() {
    let mut rig = rig();
    let member = rig.member("elsewhere");
    let author = rig.open();
    rig.settle();
    for number in 1..=5 {
        say(&mut rig, author, "elsewhere", number);
        assert_eq!(rig.writes(member), [1]);
    }
}

#[test]
fn a_reply_and_another_room_take_along_what_waits_in_its_order() {
    let mut rig = rig();
    let member = rig.member("room");
    rig.say(member, r#"{"type":"throng:join","room":"other"}"#);
    let author = rig.open();
    rig.settle();
    rig.heard(member);
    say(&mut rig, author, "room", 1);
    say(&mut rig, author, "room", 2);
    say(&mut rig, author, "other", 3);
    assert_eq!(rig.writes(member), [3]);
    assert_eq!(payloads(&mut rig, member), [1, 2, 3]);
    say(&mut rig, author, "room", 4);
    rig.say(member, r#"{"type":"throng:leave","room":"room","ref":1}"#);
    rig.turn();
    assert_eq!(rig.writes(member), [2], "who leaves has what was said before");
    rig.later(DELAY);
    rig.settle();
    let heard = rig.heard(member);
    assert!(matches!(&heard[0], Heard::Text(text) if text["payload"] == 4), "{heard:?}");
}

#[test]
fn a_queue_that_is_full_waits_for_nothing() {
    let mut rig = rig();
    let member = rig.member("room");
    let author = rig.open();
    rig.settle();
    let mut number = 0;
    while rig.writes(member).is_empty() {
        number += 1;
        say(&mut rig, author, "room", number);
        assert!(number < 10_000, "the queue never filled");
    }
    assert!(number > 1, "it waited before");
}

#[test]
fn the_end_of_a_member_and_of_the_room_leave_nothing_behind() {
    let mut rig = rig();
    let member = rig.member("room");
    let author = rig.open();
    rig.settle();
    say(&mut rig, author, "room", 1);
    rig.event(Event::ReceivedEnd { conn: member });
    rig.settle();
    rig.later(DELAY);
    rig.settle();
    assert_eq!(rig.shard.counters().queued_bytes, 0);
    let due = rig.shard.poll_timeout(rig.now);
    assert!(due.is_none_or(|due| due > DELAY), "nothing is due any more: {due:?}");
}

proptest! {
    #[test]
    fn a_delay_changes_neither_what_arrives_nor_its_order(
        steps in prop::collection::vec((0..3_usize, 0..80_u64), 1..60),
    ) {
        const ROOMS: [&str; 3] = ["room-a", "room-b", "other"];
        let mut rig = rig();
        let member = rig.member(ROOMS[0]);
        for room in &ROOMS[1..] {
            rig.say(member, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
        }
        let author = rig.open();
        rig.settle();
        rig.heard(member);
        for (number, (room, wait)) in (0..).zip(&steps) {
            say(&mut rig, author, ROOMS[*room], number);
            rig.later(Duration::from_millis(*wait));
            rig.turn();
        }
        rig.later(DELAY);
        rig.settle();
        prop_assert_eq!(payloads(&mut rig, member), (0..steps.len() as u64).collect::<Vec<_>>());
    }
}
