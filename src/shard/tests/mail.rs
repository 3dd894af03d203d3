//! Mail that an inbox has no space for: parked, bounded, and paid for by those who publish.

use crate::base::id::ShardId;
use crate::shard::Mail;
use crate::shard::tests::rig::{Rig, Seen, publish, room_of, room_other_than, settings};

const FULL: ShardId = ShardId(1);

/// Shard 0 of 2 with a client, and the inbox of the other shard full.
fn blocked() -> (Rig, crate::base::id::ConnId, String) {
    let mut rig = Rig::new(0, 2, settings());
    let conn = rig.open();
    rig.full.insert(FULL);
    (rig, conn, room_of(1, 2))
}

#[test]
fn a_publisher_is_paused_while_mail_is_parked_and_resumed_when_it_has_left() {
    let (mut rig, conn, room) = blocked();
    let bystander = rig.open();
    rig.say(conn, &publish(&[&room], "1"));
    rig.turn();
    assert_eq!((rig.shard.counters().parked_mail, rig.post.len()), (1, 0));
    rig.say(conn, &publish(&[&room], "2"));
    rig.settle();
    rig.say(bystander, r#"{"type":"throng:ping"}"#);
    rig.settle();
    assert!(rig.shard.table.get(conn).expect("a connection").is_paused());
    assert!(!rig.shard.table.get(bystander).expect("a connection").is_paused());
    assert_eq!(rig.shard.counters().paused_connections, 1);
    rig.full.clear();
    rig.turn();
    assert_eq!(rig.post.len(), 2, "in order, nothing lost");
    rig.turn();
    assert_eq!(rig.ops, [Seen::Resume(conn)]);
    assert_eq!(rig.shard.counters().paused_connections, 0);
}

#[test]
fn two_publishers_that_take_turns_are_each_paused_and_resumed_once() {
    let (mut rig, first, room) = blocked();
    let second = rig.open();
    rig.say(first, &publish(&[&room], "0"));
    rig.turn();
    for conn in [first, second, first, second] {
        rig.say(conn, &publish(&[&room], "1"));
    }
    rig.turn();
    assert_eq!(rig.ops, [Seen::Pause(first), Seen::Pause(second)]);
    assert_eq!(rig.shard.counters().paused_connections, 2);
    rig.full.clear();
    rig.turn();
    rig.turn();
    assert_eq!(rig.ops, [Seen::Resume(first), Seen::Resume(second)]);
}

#[test]
fn above_the_limit_publishing_and_joining_are_refused_and_change_nothing() {
    let (mut rig, conn, room) = blocked();
    for number in 0..8 {
        rig.say(conn, &publish(&[&room], &number.to_string()));
        rig.turn();
    }
    assert_eq!(rig.shard.counters().parked_mail, 8);
    rig.settle();
    assert_eq!(rig.heard(conn), []);
    rig.say(conn, &publish(&[&room], "9"));
    rig.say(conn, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
    rig.say(conn, r#"{"type":"throng:ping"}"#);
    rig.settle();
    let refused = rig.told(conn, "throng:error");
    assert_eq!(refused.len(), 2, "both commands");
    assert!(refused.iter().all(|error| error["code"] == "overloaded"));
    let counters = rig.shard.counters();
    assert_eq!((counters.parked_mail, counters.memberships), (8, 0));
    assert_eq!(counters.publishes_refused_total, 1);
}

/// Every length of the parked mail is tried, also those a join reaches by its own mail.
#[test]
fn a_join_is_either_refused_or_asked_whatever_is_parked() {
    for parked in 0..=8 {
        let (mut rig, conn, room) = blocked();
        for number in 0..parked {
            rig.say(conn, &publish(&[&room], &number.to_string()));
        }
        rig.turn();
        rig.settle();
        rig.say(conn, &format!(r#"{{"type":"throng:join","room":"{room}","ref":1}}"#));
        rig.settle();
        let refused = !rig.told(conn, "throng:error").is_empty();
        rig.full.clear();
        rig.settle();
        let asked = rig.post.iter().any(|(_, mail)| matches!(mail, Mail::Ask(_)));
        let joined = rig.shard.counters().memberships == 1;
        assert_eq!((asked, joined), (!refused, !refused), "with {parked} parked");
    }
}

#[test]
fn counts_that_change_while_mail_is_parked_are_told_once() {
    let mut rig = Rig::new(0, 2, settings());
    let room = room_of(1, 2);
    let members: Vec<_> = (0..6).map(|_| rig.member(&room)).collect();
    let other = room_other_than(&room, 1, 2);
    rig.post.clear();
    rig.full.insert(FULL);
    rig.say(members[0], &publish(&[&other], "1"));
    rig.turn();
    for conn in &members[1..] {
        rig.say(*conn, &format!(r#"{{"type":"throng:leave","room":"{room}"}}"#));
        rig.settle();
    }
    assert_eq!(rig.shard.counters().parked_mail, 1, "the publication alone");
    rig.full.clear();
    rig.turn();
    rig.turn();
    let counts: Vec<u32> = rig
        .post
        .iter()
        .filter_map(|(_, mail)| match mail {
            Mail::Count { members, .. } => Some(*members),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [1]);
}

#[test]
fn requests_are_not_taken_while_deliveries_are_parked() {
    let mut rig = Rig::new(0, 2, settings());
    let home = room_of(0, 2);
    let publisher = rig.open();
    let count = Mail::Count { room: home.as_str().into(), shard: FULL, members: 3 };
    rig.take(count);
    rig.full.insert(FULL);
    assert!(rig.shard.takes_requests());
    rig.say(publisher, &publish(&[&home], "1"));
    rig.turn();
    assert!(!rig.shard.takes_requests(), "a request could make another delivery");
    rig.full.clear();
    rig.turn();
    assert!(rig.shard.takes_requests());
    assert!(matches!(rig.post.as_slice(), [(FULL, Mail::Deliver { .. })]));
}
