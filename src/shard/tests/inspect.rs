//! What back ends ask about rooms and connections, and whom they send away.

use std::sync::Arc;
use std::time::Duration;

use crate::shard::tests::rig::{Heard, Rig, head_with};
use crate::shard::{Attendance, Inquire, Inspect, Inspected, Mail, Whom};
use crate::wire::websocket::CloseCode;

/// Asks, with few places a turn.
fn ask(rig: &mut Rig, number: u64, what: Inspect) {
    let inspections = &mut rig.shard.measures.inspections;
    (inspections.slice, inspections.closes) = (8, 3);
    rig.take(Mail::Inquire(number, Arc::new(Inquire::Inspect(Arc::new(what)))));
}

/// The next answer.
fn reply(rig: &mut Rig) -> Option<(u64, Inspected)> {
    let mut found = None;
    rig.shard.poll_replies(&mut |reply| match &reply.found {
        Attendance::Inspected(inspected) if found.is_none() => {
            found = Some((reply.number, inspected.clone()));
            Ok(())
        }
        _ => Err(reply),
    });
    found
}

/// Turns until the question is answered, and how many that took.
fn answer(rig: &mut Rig, what: Inspect) -> (Inspected, u32) {
    ask(rig, 7, what);
    for turns in 0..10_000 {
        if let Some((number, found)) = reply(rig) {
            assert_eq!(number, 7);
            return (found, turns);
        }
        let due = rig.shard.poll_timeout(rig.now);
        assert_eq!(due, Some(Duration::ZERO), "the next slice is due");
        rig.turn();
        rig.shard.check();
    }
    panic!("no answer");
}

fn rooms(prefix: &str, after: Option<&str>, largest: bool, limit: usize) -> Inspect {
    let after = after.map(Arc::from);
    Inspect::Rooms { tenant: None, prefix: prefix.into(), after, largest, limit }
}

fn names(found: &Inspected) -> Vec<(&str, u64)> {
    found.rooms.iter().map(|seen| (&*seen.room, seen.members)).collect()
}

/// A shard with rooms `r00` to `r29`, of which the n-th has n/10 + 1 members, and `x`.
fn crowded() -> Rig {
    let mut rig = Rig::alone();
    for at in 0..30 {
        for _ in 0..=at / 10 {
            rig.member(&format!("r{at:02}"));
        }
    }
    rig.member("x");
    rig
}

#[test]
fn rooms_are_found_in_slices_by_name_in_pages_and_by_size() {
    let mut rig = crowded();
    let (found, turns) = answer(&mut rig, rooms("r", None, false, 3));
    assert_eq!(names(&found), [("r00", 1), ("r01", 1), ("r02", 1)]);
    assert!(turns >= 3, "31 rooms, 8 a turn: {turns}");
    let (found, _) = answer(&mut rig, rooms("r", Some("r28"), false, 3));
    assert_eq!(names(&found), [("r29", 3)]);
    let (found, _) = answer(&mut rig, rooms("", None, true, 4));
    assert_eq!(names(&found), [("r20", 3), ("r21", 3), ("r22", 3), ("r23", 3)]);
    let (found, _) = answer(&mut rig, rooms("y", None, true, 4));
    assert_eq!(names(&found), []);
    let counts = ["x", "nobody's", "r29"].map(Arc::from).to_vec();
    let (found, _) = answer(&mut rig, Inspect::Counts(counts));
    assert_eq!(names(&found), [("x", 1), ("nobody's", 0), ("r29", 3)]);
    let known: Vec<bool> = found.rooms.iter().map(|seen| seen.position.is_some()).collect();
    assert_eq!(known, [true, false, true], "the home knows where the room is");
}

#[test]
fn rooms_of_another_tenant_are_not_told_of() {
    let mut rig = crowded();
    let what = Inspect::Rooms {
        tenant: Some("acme".into()),
        prefix: "".into(),
        after: None,
        largest: false,
        limit: 9,
    };
    assert_eq!(answer(&mut rig, what).0.rooms, []);
}

#[test]
fn members_are_found_through_their_room_or_by_a_walk_in_the_order_of_their_ids() {
    for count in [8, 9, 40] {
        let mut rig = Rig::alone();
        let others: Vec<_> = (0..5).map(|_| rig.open()).collect();
        let members: Vec<_> = (0..count).map(|_| rig.member("r")).collect();
        let ids: Vec<_> = members.iter().map(|conn| rig.address(*conn)).collect();
        let page = |after, limit| Inspect::Connections { room: "r".into(), after, limit };
        let (found, turns) = answer(&mut rig, page(None, 100));
        let told: Vec<_> = found.connections.iter().map(|seen| seen.conn).collect();
        assert_eq!((&told, found.members), (&ids, count), "{turns} turns");
        assert!(count == 8 || turns > 1, "a walk takes turns");
        let (found, _) = answer(&mut rig, page(Some(ids[3]), 2));
        let told: Vec<_> = found.connections.iter().map(|seen| seen.conn).collect();
        assert_eq!(told, ids[4..6]);
        let other = Inspect::Connection(rig.address(others[0]), None);
        let (found, _) = answer(&mut rig, other);
        assert_eq!((found.connections[0].rooms, found.connections[0].transport), (0, "websocket"));
        let other = Inspect::Connection(rig.address(others[0]), Some("acme".into()));
        assert_eq!(answer(&mut rig, other).0.connections, [], "it is nobody's of that tenant");
    }
}

fn dismiss(whom: Whom) -> Inspect {
    let code = CloseCode::new(4100).expect("a code");
    Inspect::Dismiss { whom, code, words: Some("go home".into()) }
}

#[test]
fn members_are_sent_away_so_many_a_turn_and_newcomers_stay() {
    for count in [7, 40] {
        let mut rig = Rig::alone();
        let outside = rig.open();
        let members: Vec<_> = (0..count).map(|_| rig.member("r")).collect();
        ask(&mut rig, 7, dismiss(Whom::Members("r".into())));
        // Nobody goes before the newcomer is a member.
        rig.shard.measures.inspections.closes = 0;
        let newcomer = rig.accept().expect("let in");
        rig.receive(newcomer, &head_with("/ws", ""));
        rig.say(newcomer, r#"{"type":"throng:join","room":"r"}"#);
        let mut found = None;
        let mut before = 0;
        assert_eq!(rig.shard.counters().memberships, count + 1, "the newcomer joins in time");
        rig.shard.measures.inspections.closes = 3;
        while found.is_none() {
            rig.turn();
            let gone = rig.shard.counters().dismissed_total;
            assert!(gone - before <= 3, "three a turn");
            before = gone;
            found = reply(&mut rig);
        }
        assert_eq!(found.map(|(_, found)| found.dismissed), Some(count));
        assert_eq!(rig.shard.counters().dismissed_total, count);
        rig.settle();
        for member in members {
            let bytes = rig.bytes(member);
            assert!(bytes.ends_with(b"go home"), "{bytes:?}");
            assert_eq!(rig.frames(&bytes).last(), Some(&Heard::Close(4100)));
        }
        for conn in [outside, newcomer] {
            let id = rig.address(conn);
            let (found, _) = answer(&mut rig, Inspect::Connection(id, None));
            assert_eq!(found.connections.len(), 1, "it stays");
        }
    }
}

#[test]
fn one_is_sent_away_by_its_id_and_nobody_who_came_to_its_place() {
    let mut rig = Rig::alone();
    let conn = rig.member("r");
    let id = rig.address(conn);
    let (found, _) = answer(&mut rig, dismiss(Whom::Connection(id, Some("acme".into()))));
    assert_eq!(found.dismissed, 0, "it is not theirs");
    let (found, _) = answer(&mut rig, dismiss(Whom::Connection(id, None)));
    assert_eq!(found.dismissed, 1);
    let (found, _) = answer(&mut rig, dismiss(Whom::Connection(id, None)));
    assert_eq!(found.dismissed, 0, "it is going already");
}

#[test]
fn the_line_of_questions_is_bounded() {
    let mut rig = crowded();
    for number in 0..70 {
        ask(&mut rig, number, rooms("", None, false, 1));
    }
    assert_eq!(rig.shard.counters().replies_lost_total, 6);
    let mut answered = 0;
    while rig.shard.is_inspecting() {
        rig.turn();
        answered += u64::from(reply(&mut rig).is_some());
    }
    assert_eq!(answered, 64);
}
