//! Publications to everyone: in slices, in order, and each whole or not at all.

use std::sync::Arc;

use serde_json::{Value, json};
use smallvec::SmallVec;

use crate::hub::{Audience, Origin, Publication, Slip, Target};
use crate::shard::tests::rig::{Heard, Rig, draft, room_of, settings};
use crate::shard::{Mail, Report, Submission, SubmissionItem};

fn to_all(payload: u64) -> String {
    json!({"type": "t", "everyone": true, "payload": payload}).to_string()
}

fn payloads(rig: &mut Rig, conn: crate::base::id::ConnId) -> Vec<Value> {
    let heard = rig.heard(conn).into_iter();
    let push = |frame| match frame {
        Heard::Text(push) if push["everyone"] == json!(true) => Some(push["payload"].clone()),
        _ => None,
    };
    heard.filter_map(push).collect()
}

#[test]
fn a_turn_serves_a_slice_and_the_order_is_kept_and_who_comes_later_gets_nothing() {
    let mut rig = Rig::alone();
    let clients: Vec<_> = (0..1100).map(|_| rig.open()).collect();
    let (first, last) = (clients[0], clients[1099]);
    rig.say(first, &to_all(1));
    rig.turn();
    rig.complete();
    assert_eq!(rig.shard.counters().deliveries_total, 1024, "one slice");
    assert_eq!(rig.shard.poll_timeout(rig.now), Some(std::time::Duration::ZERO));
    assert_eq!(payloads(&mut rig, last), Vec::<Value>::new());
    // This one comes while the first is on its way.
    rig.say(first, &to_all(2));
    rig.shard.rooms.walks.check();
    let socket = crate::contract::SocketTicket(9999);
    let listener = crate::contract::ListenerId(0);
    rig.event(crate::contract::Event::Accepted { socket, listener, peer: None });
    rig.settle();
    assert_eq!(rig.shard.counters().deliveries_total, 2200, "both, and nobody twice");
    for conn in [first, clients[700], last] {
        assert_eq!(payloads(&mut rig, conn), [json!(1), json!(2)]);
    }
    assert_eq!(rig.shard.counters().everyone_waiting, 0);
}

#[test]
fn whoever_is_not_past_the_door_is_not_everyone() {
    let mut rig = Rig::alone();
    let member = rig.open();
    let echo = rig.open_at("/echo");
    let knocking = rig.accept().expect("let in");
    rig.say(member, &to_all(1));
    rig.settle();
    assert_eq!(payloads(&mut rig, member), [json!(1)]);
    assert_eq!((rig.bytes(echo), rig.bytes(knocking)), (Vec::new(), Vec::new()));
}

/// Rooms of two homes and everyone: whoever is in a room has a copy with its number, all others one without.
#[test]
fn everyone_waits_for_the_copies_to_rooms_that_come_from_elsewhere() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, settings()));
    let rooms = [room_of(0, 2), room_of(1, 2)];
    let (member, other) = (rigs[0].member(&rooms[0]), rigs[0].open());
    let far = rigs[1].open();
    rigs[0].heard(member);
    let text = json!({"type": "t", "rooms": rooms, "everyone": true, "payload": 1}).to_string();
    rigs[0].say(other, &text);
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        assert_eq!(payloads(&mut rigs[0], other), Vec::<Value>::new(), "a copy is still to come");
        rigs[from].settle();
        for (_, mail) in std::mem::take(&mut rigs[from].post) {
            rigs[to].take(mail);
        }
    }
    rigs.iter_mut().for_each(Rig::settle);
    assert_eq!(payloads(&mut rigs[0], other), [json!(1)]);
    assert_eq!(payloads(&mut rigs[1], far), [json!(1)]);
    let heard = rigs[0].heard(member);
    let [Heard::Text(push)] = &heard[..] else { panic!("one copy: {heard:?}") };
    assert_eq!((&push["room"], &push["offset"]), (&json!(rooms[0]), &json!(1)));
}

#[test]
fn a_long_line_refuses_clients_and_a_full_one_loses_and_counts() {
    let mut rig = Rig::alone();
    let conn = rig.open();
    for number in 0..65 {
        rig.say(conn, &to_all(number));
    }
    assert_eq!(rig.shard.counters().everyone_waiting, 64);
    rig.settle();
    let refused = rig.told(conn, "throng:error");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["code"], "overloaded");
    assert_eq!(rig.shard.counters().publishes_refused_total, 1);
    assert_eq!(rig.shard.counters().everyone_waiting, 0);
}

/// A publication to everyone whose sender wants to know whom it reaches.
fn asked_for() -> Publication {
    let origin = Origin::BackEnd(Some(Slip { order: 1, item: 0, everywhere: false }));
    draft("", Audience { target: Target::Everyone, except: None }, origin)
}

fn reports(rig: &mut Rig) -> Vec<Report> {
    let mut reports = Vec::new();
    rig.shard.poll_reports(&mut |report| {
        reports.push(report);
        Ok(())
    });
    reports
}

#[test]
fn a_line_to_everyone_that_is_full_loses_what_comes_and_tells_its_sender_that_it_reached_nobody() {
    let mut rig = Rig::alone();
    let publication = Arc::new(asked_for());
    for _ in 0..1024 {
        rig.shard.get_in_line(&publication, None, 0);
    }
    assert_eq!(rig.shard.counters().everyone_dropped_total, 0);
    assert!(reports(&mut rig).is_empty(), "all wait");
    for _ in 0..7 {
        rig.shard.get_in_line(&publication, None, 0);
    }
    rig.shard.check();
    let counters = rig.shard.counters();
    assert_eq!((counters.everyone_waiting, counters.everyone_dropped_total), (1024, 7));
    let told = reports(&mut rig);
    assert_eq!(told.len(), 7);
    assert!(told.iter().all(|report| matches!(report, Report::Reached { connections: 0, .. })));
}

#[test]
fn reports_that_nobody_reads_are_bounded_and_counted_but_what_a_home_has_taken_is_always_told() {
    let mut rig = Rig::alone();
    let publication = asked_for();
    for _ in 0..65_536 {
        rig.shard.report_reached(&publication, 1);
    }
    assert_eq!(rig.shard.counters().reports_dropped_total, 0);
    for _ in 0..5 {
        rig.shard.report_reached(&publication, 1);
    }
    assert_eq!(rig.shard.counters().reports_dropped_total, 5);
    let drafts = SmallVec::new();
    let item = SubmissionItem { index: 0, drafts, group: None, ttl: None, across: None };
    rig.take(Mail::Submit(Box::new(Submission { order: 9, items: vec![item] })));
    assert_eq!(rig.shard.counters().reports_dropped_total, 5);
    let told = reports(&mut rig);
    assert_eq!(told.len(), 65_537);
    assert!(matches!(told.last(), Some(Report::Taken { order: 9, .. })));
}
