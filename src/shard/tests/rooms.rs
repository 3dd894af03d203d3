//! Join, publish, deliver: with the home here and with the home elsewhere.

use serde_json::json;

use crate::base::id::ShardId;
use crate::base::shared::Overflow;
use crate::shard::tests::rig::{Heard, Rig, publish, room_of, room_other_than, settings};

/// Two shards of one node; mail travels when a test says so.
fn pair() -> [Rig; 2] {
    [0, 1].map(|id| Rig::new(id, 2, settings()))
}

/// Carries all mail and lets both turn, until there is none.
pub(super) fn exchange(rigs: &mut [Rig; 2]) {
    for _ in 0..32 {
        for at in 0..2 {
            rigs[at].settle();
            for (to, mail) in std::mem::take(&mut rigs[at].post) {
                assert_eq!(usize::from(to.0), 1 - at, "mail to itself");
                rigs[1 - at].take(mail);
            }
        }
        if rigs.iter().all(|rig| rig.post.is_empty() && rig.shard.counters().parked_mail == 0) {
            rigs.iter_mut().for_each(Rig::settle);
            if rigs.iter().all(|rig| rig.post.is_empty()) {
                return;
            }
        }
    }
    panic!("mail goes round in circles");
}

#[test]
fn a_member_hears_what_is_published_in_order_and_a_stranger_does_not() {
    let mut rig = Rig::alone();
    let (member, other, stranger) = (rig.member("r"), rig.member("r"), rig.member("s"));
    for number in 0..3 {
        rig.say(other, &publish(&["r"], &number.to_string()));
    }
    rig.settle();
    assert_eq!(rig.published(member), [json!(0), json!(1), json!(2)]);
    assert_eq!(rig.published(other).len(), 3, "the publisher is a member like others");
    assert_eq!(rig.heard(stranger), []);
    let counters = rig.shard.counters();
    assert_eq!((counters.publications_total, counters.deliveries_total), (3, 6));
}

#[test]
fn joining_twice_delivers_once_and_leaving_ends_it() {
    let mut rig = Rig::alone();
    let conn = rig.member("r");
    rig.say(conn, r#"{"type":"throng:join","room":"r","ref":7}"#);
    rig.say(conn, &publish(&["r"], "1"));
    rig.settle();
    let heard = rig.heard(conn);
    assert_eq!(heard.len(), 2, "the reply and one copy: {heard:?}");
    rig.say(conn, r#"{"type":"throng:leave","room":"r"}"#);
    rig.say(conn, &publish(&["r"], "2"));
    rig.settle();
    assert_eq!(rig.heard(conn), []);
    let counters = rig.shard.counters();
    assert_eq!((counters.rooms, counters.memberships, counters.home_rooms), (0, 0, 0));
}

#[test]
fn whoever_is_excepted_hears_nothing_and_whoever_has_the_same_index_elsewhere_does() {
    let mut rigs = pair();
    let room = room_of(0, 2);
    let members = [0, 1].map(|at| rigs[at].member(&room));
    exchange(&mut rigs);
    rigs.iter_mut().zip(members).for_each(|(rig, conn)| _ = rig.heard(conn));
    assert_eq!(members[0], members[1], "the same index and generation in both shards");
    let except = rigs[1].address(members[1]);
    let text = format!(r#"{{"type":"t","room":"{room}","except":["{except}"],"payload":1}}"#);
    rigs[1].say(members[1], &text);
    exchange(&mut rigs);
    assert_eq!(rigs[0].published(members[0]), [json!(1)]);
    assert_eq!(rigs[1].published(members[1]), Vec::<serde_json::Value>::new());
}

#[test]
fn a_room_with_its_home_elsewhere_delivers_through_that_home() {
    let mut rigs = pair();
    let room = room_of(1, 2);
    let conn = rigs[0].open();
    rigs[0].say(conn, &format!(r#"{{"type":"throng:join","room":"{room}","ref":1}}"#));
    rigs[0].settle();
    assert_eq!(rigs[0].heard(conn), [], "the home has not answered yet");
    let posted: Vec<ShardId> = rigs[0].post.iter().map(|(to, _)| *to).collect();
    assert_eq!(posted, [ShardId(1), ShardId(1)], "the count, then the question");
    exchange(&mut rigs);
    let reply = &rigs[0].told(conn, "throng:reply")[0];
    assert_eq!((&reply["members"], &reply["offset"]), (&json!(1), &json!(0)));
    rigs[0].say(conn, &publish(&[&room], "5"));
    rigs[0].settle();
    assert_eq!(rigs[0].heard(conn), [], "only the home numbers publications");
    exchange(&mut rigs);
    assert_eq!(rigs[0].published(conn), [json!(5)]);
    assert_eq!(rigs[1].shard.counters().publications_total, 1);
}

#[test]
fn a_shard_without_members_gets_no_mail_and_one_with_a_thousand_gets_one() {
    let mut rigs = pair();
    let room = room_of(0, 2);
    let publisher = rigs[0].open();
    rigs[0].say(publisher, &publish(&[&room], "1"));
    rigs[0].settle();
    assert!(rigs[0].post.is_empty());
    for _ in 0..20 {
        rigs[1].member(&room);
    }
    exchange(&mut rigs);
    let before = rigs[1].shard.counters().mail_taken_total;
    rigs[0].say(publisher, &publish(&[&room], "2"));
    exchange(&mut rigs);
    assert_eq!(rigs[1].shard.counters().mail_taken_total, before + 1);
    assert_eq!(rigs[1].shard.counters().deliveries_total, 20);
}

/// The rooms have different homes, so the copies come by different ways.
#[test]
fn a_member_of_several_target_rooms_gets_one_copy_whatever_their_homes() {
    let mut rigs = pair();
    let rooms = [room_of(0, 2), room_of(1, 2), room_other_than(&room_of(0, 2), 0, 2)];
    let both = [0, 1].map(|at| rigs[at].open());
    for (rig, conn) in rigs.iter_mut().zip(both) {
        for room in &rooms {
            rig.say(conn, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
        }
    }
    exchange(&mut rigs);
    let single = rigs[1].member(&rooms[1]);
    exchange(&mut rigs);
    let targets: Vec<&str> = rooms.iter().map(String::as_str).collect();
    for payload in ["1", "2"] {
        rigs[0].say(both[0], &publish(&targets, payload));
    }
    exchange(&mut rigs);
    for (rig, conn) in rigs.iter_mut().zip(both) {
        assert_eq!(rig.published(conn).len(), 2);
    }
    assert_eq!(rigs[1].published(single), [json!(1), json!(2)]);
    assert!(rigs.iter().all(|rig| rig.shard.rooms.groups.is_empty()), "no copy is awaited");
}

#[test]
fn a_slow_reader_is_told_once_what_it_lost_when_it_reads_again() {
    for overflow in [Overflow::DropOldest, Overflow::DropNew] {
        let mut settings = settings();
        settings.rooms.overflow = overflow;
        let mut rig = Rig::new(0, 1, settings);
        let (slow, fast) = (rig.member("r"), rig.open());
        rig.stalled.insert(slow);
        for number in 0..60 {
            rig.say(fast, &publish(&["r"], &format!(r#""{number:0>100}""#)));
            rig.turn();
        }
        assert!(rig.shard.counters().queued_bytes < 2500, "the queue is bounded");
        rig.stalled.clear();
        rig.settle();
        let heard = rig.heard(slow);
        let gaps: Vec<u64> = heard
            .iter()
            .filter_map(|frame| match frame {
                Heard::Text(push) if push["type"] == "throng:gap" => {
                    assert_eq!(push["room"], "r");
                    push["lost"].as_u64()
                }
                _ => None,
            })
            .collect();
        let received = heard.len() - gaps.len();
        assert_eq!(gaps.len(), 1, "{overflow:?}");
        assert_eq!(received as u64 + gaps[0], 60, "{overflow:?}");
        let counters = rig.shard.counters();
        assert_eq!(counters.dropped_new_total + counters.dropped_oldest_total, gaps[0]);
        assert_eq!(
            counters.deliveries_total,
            match overflow {
                // What was queued and dropped later was queued.
                Overflow::DropOldest => 60,
                _ => received as u64,
            }
        );
    }
}

#[test]
fn a_reader_too_slow_for_a_room_that_says_so_is_closed_with_1013_and_nobody_else_is() {
    let mut settings = settings();
    settings.rooms.overflow = Overflow::Disconnect;
    let mut rig = Rig::new(0, 1, settings);
    let members: Vec<_> = (0..5).map(|_| rig.member("r")).collect();
    let publisher = rig.open();
    rig.stalled.extend([members[1], members[3]]);
    for number in 0..40 {
        rig.say(publisher, &publish(&["r"], &format!(r#""{number:0>100}""#)));
        rig.turn();
    }
    assert_eq!(rig.shard.counters().slow_consumers_total, 2);
    rig.stalled.clear();
    rig.settle();
    for (at, conn) in members.iter().enumerate() {
        let heard = rig.heard(*conn);
        if at == 1 || at == 3 {
            assert_eq!(heard.last(), Some(&Heard::Close(1013)));
        } else {
            assert_eq!(heard.len(), 40);
        }
    }
}

#[test]
fn a_question_answered_late_does_not_reach_the_next_user_of_the_index() {
    let mut rigs = pair();
    let room = room_of(1, 2);
    let gone = rigs[0].open();
    rigs[0].say(gone, &format!(r#"{{"type":"throng:join","room":"{room}","ref":1}}"#));
    rigs[0].settle();
    let lost = std::io::ErrorKind::ConnectionReset.into();
    rigs[0].event(crate::contract::Event::Lost { conn: gone, error: lost });
    rigs[0].settle();
    let next = rigs[0].open();
    assert_eq!((next.index, next.generation != gone.generation), (gone.index, true));
    exchange(&mut rigs);
    assert_eq!(rigs[0].heard(next), []);
    assert_eq!(rigs[1].shard.counters().home_rooms, 0, "the home has heard that it left");
}

#[test]
fn what_the_home_numbered_before_the_join_is_not_for_the_new_member() {
    let mut rigs = pair();
    let room = room_of(1, 2);
    let old = rigs[0].member(&room);
    exchange(&mut rigs);
    let late = rigs[0].open();
    let publisher = rigs[1].open();
    rigs[1].say(publisher, &publish(&[&room], "1"));
    rigs[1].settle();
    // The first is on its way while the second asks.
    rigs[0].say(late, &format!(r#"{{"type":"throng:join","room":"{room}","ref":1}}"#));
    exchange(&mut rigs);
    rigs[1].say(publisher, &publish(&[&room], "2"));
    exchange(&mut rigs);
    assert_eq!(rigs[0].published(old), [json!(1), json!(2)]);
    let heard = rigs[0].heard(late);
    let [Heard::Text(reply), Heard::Text(push)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&reply["offset"], &push["offset"]), (&json!(1), &json!(2)));
}
