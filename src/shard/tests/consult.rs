//! Rooms about which the application's back end is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Access, Consult, Source, Who};
use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::contract::Event;
use crate::shard::tests::guard::{ask, enter, guarded, join, login};
use crate::shard::tests::rig::{Heard, Rig, room_of};
use crate::shard::{NamespaceRules, Settings};

pub(super) const YES: &str = r#"{"allow":true}"#;
const NO: &str = r#"{"allow":false,"message":"members only"}"#;

pub(super) fn consult() -> Consult {
    Consult {
        connect: false,
        lenient: false,
        most_waiting: 8,
        allowed_for: Duration::from_secs(10),
        refused_for: Duration::from_secs(1),
        remembered: 100,
    }
}

/// A shard that asks about the rooms whose names begin with "w" or "room".
pub(super) fn asking(change: impl FnOnce(&mut Access)) -> Settings {
    let mut settings = guarded(&[Source::Header], |access| {
        access.consult = Some(consult());
        change(access);
    });
    let rule = |pattern| NamespaceRules {
        pattern: Glob::new(pattern),
        overflow: Overflow::DropOldest,
        join: Some(Who::Webhook),
        publish: Some(Who::Webhook),
        origins: None,
        memory: crate::shard::RoomMemory::default(),
        queued: 0,
        write_delay: std::time::Duration::ZERO,
        payload: 0,
    };
    settings.rooms.namespaces = vec![rule("w*"), rule("room*")];
    settings
}

fn alone(change: impl FnOnce(&mut Consult)) -> (Rig, ConnId) {
    let settings = asking(|access| change(access.consult.as_mut().expect("rules")));
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": ["a", "w:own"]}));
    (rig, conn)
}

fn publish(room: &str, reference: u64) -> String {
    json!({"type": "t", "room": room, "payload": reference, "ref": reference}).to_string()
}

/// The `ref`s that were answered, each with the code of its error.
fn answers(rig: &mut Rig, conn: ConnId) -> Vec<(u64, Option<String>)> {
    let heard = rig.heard(conn).into_iter();
    let answer = |frame| match frame {
        Heard::Text(reply) => reply["ref"]
            .as_u64()
            .map(|reference| (reference, reply["code"].as_str().map(str::to_owned))),
        _ => None,
    };
    heard.filter_map(answer).collect()
}

#[test]
fn a_room_is_joined_after_the_back_end_has_said_yes_and_not_before() {
    let (mut rig, conn) = alone(|_| {});
    let before = rig.shard.counters();
    rig.say(conn, &join("w1"));
    rig.settle();
    assert_eq!(rig.heard(conn), [], "nobody has decided yet");
    let asked = rig.asked();
    let [(number, question)] = &asked[..] else { panic!("{asked:?}") };
    let expected = json!({"question": "join", "userId": "ada", "clientId": rig.address(conn).to_string(),
        "room": "w1"});
    assert_eq!(*question, expected);
    let counters = rig.shard.counters();
    assert_eq!(counters.memberships, before.memberships, "no trace in the hub");
    assert_eq!((counters.pending_questions, counters.held_commands), (1, 1));
    rig.rule(*number, YES);
    let heard = rig.heard(conn);
    assert!(matches!(&heard[..], [Heard::Text(reply)] if reply["ok"] == json!(true)), "{heard:?}");
    let counters = rig.shard.counters();
    assert_eq!(counters.memberships, before.memberships + 1);
    assert_eq!((counters.pending_questions, counters.held_commands), (0, 0));
}

#[test]
fn a_no_is_a_typed_error_in_the_back_ends_words_and_leaves_no_trace() {
    let (mut rig, conn) = alone(|_| {});
    let before = rig.shard.counters();
    for text in [
        join("w1"),
        publish("w1", 1),
        r#"{"type":"throng:members","room":"w1","ref":1}"#.to_owned(),
        r#"{"type":"t","rooms":["a","w1"],"ref":1}"#.to_owned(),
    ] {
        rig.say(conn, &text);
        for (number, _) in rig.asked() {
            rig.rule(number, NO);
        }
        rig.settle();
        let heard = rig.heard(conn);
        let [Heard::Text(error)] = &heard[..] else { panic!("{text}: {heard:?}") };
        assert_eq!((&error["code"], &error["ref"]), (&json!("forbidden"), &json!(1)), "{text}");
        assert_eq!(error["message"], "members only");
    }
    let after = rig.shard.counters();
    assert_eq!((after.forbidden_total, after.publications_total), (4, 0));
    assert_eq!((after.rooms, after.home_rooms), (before.rooms, before.home_rooms));
    // The last of the four was known already.
    assert_eq!((after.questions_total, after.questions_remembered_total), (3, 1));
}

#[test]
fn nobody_is_asked_about_what_the_token_grants_or_a_rule_refuses() {
    let (mut rig, conn) = alone(|_| {});
    assert_eq!(ask(&mut rig, conn, &join("w:own"))["ok"], json!(true));
    assert_eq!(ask(&mut rig, conn, &join("a"))["ok"], json!(true));
    assert_eq!(ask(&mut rig, conn, &join("elsewhere"))["code"], "forbidden");
    rig.say(conn, r#"{"type":"t","rooms":["w1","elsewhere"],"ref":1}"#);
    let asked = rig.asked();
    rig.rule(asked[0].0, YES);
    assert_eq!(
        answers(&mut rig, conn),
        [(1, Some("forbidden".to_owned()))],
        "a pass is for its room"
    );
    assert_eq!(rig.shard.counters().publications_total, 0);
}

#[test]
fn answers_are_remembered_for_a_moment_and_what_is_undecided_is_not() {
    let (mut rig, conn) = alone(|_| {});
    let other = enter(&mut rig, &json!({"sub": "ada", "exp": 5000}));
    let bob = enter(&mut rig, &json!({"sub": "bob", "exp": 5000}));
    rig.say(conn, &join("w1"));
    let number = rig.asked()[0].0;
    rig.rule(number, YES);
    rig.heard(conn);
    assert_eq!(ask(&mut rig, other, &join("w1"))["ok"], json!(true), "the user's other connection");
    rig.say(bob, &join("w1"));
    let asked = rig.asked();
    assert_eq!(asked[0].1["userId"], "bob", "another user is asked about");
    rig.rule(asked[0].0, NO);
    assert_eq!(answers(&mut rig, bob), [(1, Some("forbidden".to_owned()))]);
    assert_eq!(ask(&mut rig, bob, &join("w1"))["message"], "members only");
    rig.later(Duration::from_millis(1100));
    rig.say(bob, &join("w1"));
    let asked = rig.asked();
    assert_eq!(asked.len(), 1, "a no is forgotten sooner");
    rig.rule(asked[0].0, "nonsense");
    assert_eq!(answers(&mut rig, bob), [(1, Some("overloaded".to_owned()))]);
    rig.say(bob, &join("w1"));
    assert_eq!(rig.asked().len(), 1, "what is undecided is asked again");
    rig.say(conn, r#"{"type":"throng:leave","room":"w1"}"#);
    rig.later(Duration::from_secs(9));
    rig.say(conn, &join("w1"));
    assert_eq!(rig.asked().len(), 1, "and a yes is forgotten too");
}

#[test]
fn what_names_the_same_room_is_obeyed_in_the_order_said_and_the_rest_passes() {
    let (mut rig, conn) = alone(|consult| consult.allowed_for = Duration::ZERO);
    rig.say(conn, &join("w1"));
    rig.say(conn, &publish("w1", 2));
    rig.say(conn, &publish("a", 3));
    rig.say(conn, r#"{"type":"t","rooms":["a","w1"],"payload":4,"ref":4}"#);
    rig.say(conn, &publish("w2", 5));
    rig.say(conn, r#"{"type":"throng:leave","room":"w1","ref":6}"#);
    rig.say(conn, r#"{"type":"throng:ping","ref":7}"#);
    rig.settle();
    assert_eq!(answers(&mut rig, conn), [(3, None), (7, None)]);
    let asked = rig.asked();
    assert_eq!(asked.iter().map(|(_, q)| &q["room"]).collect::<Vec<_>>(), ["w1", "w2"]);
    rig.rule(asked[1].0, YES);
    assert_eq!(answers(&mut rig, conn), [(5, None)]);
    rig.rule(asked[0].0, YES);
    // The second is asked about only now that its turn has come.
    let second = rig.asked();
    assert_eq!(second.iter().map(|(_, q)| &q["question"]).collect::<Vec<_>>(), ["publish"]);
    assert_eq!(answers(&mut rig, conn), [(1, None)]);
    rig.rule(second[0].0, YES);
    let fourth = rig.asked();
    rig.rule(fourth[0].0, NO);
    let heard = rig.heard(conn);
    let said: Vec<Value> = heard
        .iter()
        .map(|frame| match frame {
            Heard::Text(text) if text["ref"].is_null() => text["payload"].clone(),
            Heard::Text(text) => json!([text["ref"], text["ok"]]),
            other => panic!("{other:?}"),
        })
        .collect();
    // A publication is queued at the end of its turn, so its reply goes first.
    assert_eq!(said, [json!([2, true]), json!(2), json!([4, null]), json!([6, true])]);
    assert_eq!(rig.shard.counters().held_commands, 0);
}

#[test]
fn a_connection_has_a_bounded_number_of_commands_held_and_questions_are_bounded_too() {
    let mut settings = asking(|_| {});
    settings.limits.outstanding = 3;
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000}));
    for number in 1..=5 {
        rig.say(conn, &publish(&format!("w{}", number / 2), number));
    }
    rig.settle();
    let overloaded = || Some("overloaded".to_owned());
    assert_eq!(answers(&mut rig, conn), [(4, overloaded()), (5, overloaded())]);
    let (mut rig, conn) = alone(|consult| consult.most_waiting = 2);
    for number in 1..=3 {
        rig.say(conn, &publish(&format!("w{number}"), number));
    }
    assert_eq!(rig.shard.poll_timeout(rig.now), Some(Duration::ZERO), "one is to be decided");
    rig.settle();
    rig.settle();
    assert_eq!(answers(&mut rig, conn), [(3, overloaded())]);
    let counters = rig.shard.counters();
    assert_eq!((counters.pending_questions, counters.questions_undecided_total), (2, 1));
    // What a full inbox does not take stays, in order.
    rig.shard.poll_inquiries(&mut Err);
    assert_eq!(rig.asked().iter().map(|(_, q)| &q["room"]).collect::<Vec<_>>(), ["w1", "w2"]);
}

#[test]
fn a_client_that_goes_away_takes_with_it_what_it_asked() {
    let (mut rig, conn) = alone(|_| {});
    rig.say(conn, &join("w1"));
    rig.say(conn, &publish("w1", 2));
    let number = rig.asked()[0].0;
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    rig.settle();
    let counters = rig.shard.counters();
    assert_eq!((counters.held_commands, counters.connections), (0, 0));
    // Its place is taken by another before the answer comes.
    let other = enter(&mut rig, &json!({"sub": "bob", "exp": 5000}));
    assert_eq!(other.index, conn.index);
    let before = rig.shard.counters();
    rig.rule(number, YES);
    let after = rig.shard.counters();
    assert_eq!(rig.heard(other), []);
    assert_eq!((after.memberships, after.pending_questions), (before.memberships, 0));
    rig.rule(number, YES);
    rig.rule(999, NO);
}

#[test]
fn a_fresh_token_leaves_those_in_whom_the_back_end_let_in() {
    let (mut rig, conn) = alone(|_| {});
    rig.say(conn, &join("w1"));
    let number = rig.asked()[0].0;
    rig.rule(number, YES);
    assert_eq!(ask(&mut rig, conn, &join("a"))["ok"], json!(true));
    let fresh = login(&json!({"sub": "ada", "exp": 5000}));
    rig.say(conn, &fresh);
    rig.settle();
    let left = |frame: &Heard| match frame {
        Heard::Text(text) if text["type"] == "throng:left" => Some(text["room"].clone()),
        _ => None,
    };
    let left: Vec<Value> = rig.heard(conn).iter().filter_map(left).collect();
    assert_eq!(left, ["a"], "what no token grants any more, and nobody is asked about");
}

#[test]
fn where_it_is_so_configured_what_is_undecided_is_allowed() {
    let (mut rig, conn) = alone(|consult| consult.lenient = true);
    rig.say(conn, &join("w1"));
    let number = rig.asked()[0].0;
    rig.rule(number, "no JSON");
    assert_eq!(answers(&mut rig, conn), [(1, None)]);
    assert_eq!(rig.shard.counters().questions_undecided_total, 1);
}

#[test]
fn without_a_back_end_its_rooms_are_closed_but_to_those_whose_token_grants_them() {
    let mut rig = Rig::new(0, 1, asking(|access| access.consult = None));
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": ["w:own"]}));
    assert_eq!(ask(&mut rig, conn, &join("w1"))["code"], "forbidden");
    assert_eq!(ask(&mut rig, conn, &join("w:own"))["ok"], json!(true));
    assert_eq!(rig.asked(), []);
}

#[test]
fn a_room_whose_home_is_elsewhere_is_asked_about_where_the_client_is() {
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, asking(|_| {})));
    let room = room_of(1, 2);
    let conn = enter(&mut rigs[0], &json!({"sub": "ada", "exp": 5000}));
    rigs[0].say(conn, &join(&room));
    rigs[0].settle();
    let number = rigs[0].asked()[0].0;
    assert_eq!(rigs[1].asked(), []);
    rigs[0].rule(number, YES);
    for _ in 0..4 {
        for at in 0..2 {
            rigs[at].settle();
            for (to, mail) in std::mem::take(&mut rigs[at].post) {
                rigs[usize::from(to.0)].take(mail);
            }
        }
    }
    assert_eq!(answers(&mut rigs[0], conn), [(1, None)]);
    assert_eq!(rigs[1].shard.counters().home_rooms, 1 + u64::from(home_of_ada(&rigs[1])));
}

/// Whether the user's own room has its home there too.
fn home_of_ada(rig: &Rig) -> bool {
    rig.shard.rooms.directory.members("\u{1e}ada") > 0
}

/// Clients that say whatever they like about a few rooms, and answers in any order: what a client said
/// about one room is answered in the order said, all is answered once, and nothing is left.
#[test]
fn whatever_is_said_and_answered_each_room_keeps_its_order_and_nothing_stays_behind() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = asking(|access| {
            let consult = access.consult.as_mut().expect("rules");
            consult.most_waiting = 1 + rng.usize(..6);
            consult.allowed_for = Duration::from_secs(rng.u64(..2) * 60);
            consult.refused_for = Duration::ZERO;
        });
        let mut rig = Rig::new(0, 1, settings);
        let conns: Vec<ConnId> =
            (0..3).map(|n| enter(&mut rig, &json!({"sub": n.to_string(), "exp": 5000}))).collect();
        let mut said: BTreeMap<(ConnId, u64), u64> = BTreeMap::new();
        let mut last: BTreeMap<(ConnId, u64), u64> = BTreeMap::new();
        let mut open: Vec<u64> = Vec::new();
        for number in 1..300 {
            let conn = conns[rng.usize(..conns.len())];
            if number < 250 {
                let room = rng.u64(..3);
                said.insert((conn, number), room);
                let text = match rng.u8(..3) {
                    0 => json!({"type": "throng:join", "room": format!("w{room}"), "ref": number}),
                    1 => json!({"type": "throng:leave", "room": format!("w{room}"), "ref": number}),
                    _ => json!({"type": "t", "room": format!("w{room}"), "ref": number}),
                };
                rig.say(conn, &text.to_string());
            }
            open.extend(rig.asked().into_iter().map(|(number, _)| number));
            while !open.is_empty() && (number >= 250 || rng.u8(..3) == 0) {
                let at = rng.usize(..open.len());
                rig.rule(open.swap_remove(at), ["no", YES, YES, NO][rng.usize(..4)]);
                open.extend(rig.asked().into_iter().map(|(number, _)| number));
            }
            rig.settle();
            for conn in &conns {
                for (reference, _) in answers(&mut rig, *conn) {
                    let room = said.remove(&(*conn, reference)).expect("answered once");
                    let before = last.insert((*conn, room), reference).unwrap_or(0);
                    assert!(before < reference, "seed {seed}: {reference} after {before}");
                }
            }
        }
        assert!(said.is_empty(), "seed {seed}: {said:?} is not answered");
        let counters = rig.shard.counters();
        assert_eq!((counters.held_commands, counters.pending_questions), (0, 0), "seed {seed}");
    }
}
