//! What the application's back ends are told.

use serde_json::{Value, json};

use crate::auth::{Access, Deliver, Source};
use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::tidings::{Tiding, TidingKind, TidingKinds};
use crate::contract::Event;
use crate::shard::Settings;
use crate::shard::tests::guard::{answer, bearer, enter, guarded, join, knock, login};
use crate::shard::tests::rig::{Heard, Rig};

const ALL: [TidingKind; 5] = [
    TidingKind::Connected,
    TidingKind::Disconnected,
    TidingKind::Joined,
    TidingKind::Left,
    TidingKind::Message,
];

fn telling(kinds: &[TidingKind], change: impl FnOnce(&mut Access)) -> Settings {
    guarded(&[Source::Header], |access| {
        access.report.kinds = TidingKinds::of(kinds);
        access.report.deliver = vec![
            (Glob::new("members"), Deliver::Members),
            (Glob::new("app*"), Deliver::Webhook),
            (Glob::new("both*"), Deliver::Both),
        ];
        change(access);
    })
}

fn alone() -> Rig {
    Rig::new(0, 1, telling(&ALL, |_| {}))
}

/// All that has left for back ends.
pub(super) fn told(rig: &mut Rig) -> Vec<Value> {
    let mut told = Vec::new();
    rig.shard.poll_tidings(&mut |reports| {
        told.extend(reports.iter().map(|report| {
            let value: Value = serde_json::from_slice(&report.document).expect("JSON");
            assert_eq!(value["event"], report.kind.name());
            value
        }));
        Ok(())
    });
    told
}

fn names(told: &[Value]) -> Vec<(&str, Option<&str>)> {
    told.iter()
        .map(|value| (value["event"].as_str().expect("a name"), value["room"].as_str()))
        .collect()
}

fn ada() -> Value {
    json!({"sub": "ada", "tenant": "acme", "exp": 5000, "rooms": ["*"]})
}

fn say(rig: &mut Rig, conn: ConnId, message: &Value) {
    rig.say(conn, &message.to_string());
    rig.settle();
}

#[test]
fn a_connections_life_is_told_in_order_and_by_the_names_that_its_application_knows() {
    let mut rig = alone();
    let conn = enter(&mut rig, &ada());
    for room in ["a", "b", "a"] {
        rig.say(conn, &join(room));
    }
    say(&mut rig, conn, &json!({"type": "throng:leave", "room": "a"}));
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    let told = told(&mut rig);
    assert_eq!(
        names(&told),
        [
            ("connected", None),
            ("joined", Some("a")),
            ("joined", Some("b")),
            ("left", Some("a")),
            ("left", Some("b")),
            ("disconnected", None),
        ]
    );
    let client = rig.address(conn).to_string();
    for (at, value) in told.iter().enumerate() {
        let expected = json!([format!("5-0-{}", at + 1), 60_000, "ada", "acme", client]);
        let found =
            json!([value["id"], value["at"], value["userId"], value["tenant"], value["clientId"]]);
        assert_eq!(found, expected, "{value}");
    }
    assert_eq!((&told[5]["reason"], &told[5]["lifeMs"]), (&json!("vanished"), &json!(0)));
    let counters = rig.shard.counters();
    assert_eq!((counters.events_total, counters.events_lost_total), (6, 0));
}

#[test]
fn who_was_never_let_in_or_never_confirmed_is_not_told_of() {
    let mut rig = Rig::new(0, 1, telling(&ALL, |access| access.browser_errors = true));
    let conn = knock(&mut rig, "/ws", "Origin: http://a\r\n");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "), "only to be told why not");
    let conn = knock(&mut rig, "/ws", "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 401 "));
    rig.settle();
    assert_eq!(told(&mut rig), [] as [Value; 0]);
    // The next one at the same index is not taken for the one before.
    let conn = enter(&mut rig, &ada());
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    rig.settle();
    let next = knock(&mut rig, "/ws", "Origin: http://a\r\n");
    assert_eq!(next.index, conn.index);
    rig.settle();
    assert_eq!(names(&told(&mut rig)), [("connected", None), ("disconnected", None)]);
    // A join whose home has not answered yet was none.
    let mut rig = Rig::new(0, 2, telling(&ALL, |_| {}));
    let room = crate::shard::tests::rig::room_of(1, 2);
    let claims = json!({"sub": "ada", "exp": 5000, "rooms": ["*"]});
    let conn = enter(&mut rig, &claims);
    rig.say(conn, &join(&room));
    say(&mut rig, conn, &json!({"type": "throng:leave", "room": room}));
    assert_eq!(names(&told(&mut rig)), [("connected", None)]);
}

#[test]
fn only_what_somebody_wants_to_hear_is_written_down() {
    let mut rig = Rig::new(0, 1, telling(&[TidingKind::Joined], |_| {}));
    let conn = enter(&mut rig, &ada());
    rig.say(conn, &join("a"));
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    assert_eq!(names(&told(&mut rig)), [("joined", Some("a"))]);
    let mut rig = Rig::new(0, 1, guarded(&[Source::Header], |_| {}));
    let conn = enter(&mut rig, &ada());
    rig.say(conn, &join("a"));
    rig.event(Event::ReceivedEnd { conn });
    rig.settle();
    assert_eq!((told(&mut rig), rig.shard.counters().events_total), (Vec::new(), 0));
}

#[test]
fn what_is_published_goes_to_members_to_back_ends_or_to_both() {
    let mut rig = Rig::new(0, 1, telling(&[TidingKind::Message], |_| {}));
    let conn = enter(&mut rig, &ada());
    for room in ["members", "app", "both"] {
        rig.say(conn, &join(room));
    }
    rig.settle();
    rig.heard(conn);
    for room in ["members", "app", "both", "elsewhere"] {
        say(
            &mut rig,
            conn,
            &json!({"type": "t", "room": room, "payload": room, "id": 7, "ref": 1}),
        );
    }
    assert_eq!(rig.published(conn), ["members", "both"]);
    rig.say(
        conn,
        r#"{"type":"t","rooms":["app","both","members","app2"],"payload":[1.0],"ref":2}"#,
    );
    rig.settle();
    assert_eq!(rig.published(conn).len(), 1, "one copy for a member of several");
    let told = told(&mut rig);
    let rooms: Vec<&str> = told.iter().filter_map(|value| value["room"].as_str()).collect();
    assert_eq!(rooms, ["app", "both", "app", "both", "app2"]);
    let first = &told[0];
    assert_eq!(
        (&first["type"], &first["payload"], &first["messageId"]),
        (&json!("t"), &json!("app"), &json!(7))
    );
    assert_eq!((&told[2]["payload"], &told[2]["messageId"]), (&json!([1.0]), &Value::Null));
}

#[test]
fn the_example_of_the_document_has_the_fields_that_are_written() {
    let document = include_str!("../../../docs/webhooks.md");
    let (_, block) = document.split_once("```json\n").expect("an example");
    let (block, _) = block.split_once("\n```").expect("its end");
    let example: Value = serde_json::from_str(block).expect("JSON");
    let mut rig = Rig::new(0, 1, telling(&[TidingKind::Message], |_| {}));
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": ["*"]}));
    let message = json!({"type": "move", "room": "app", "payload": {"to": "e4"}, "id": "m-1"});
    say(&mut rig, conn, &message);
    let told = told(&mut rig);
    let fields = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(fields(&example["events"][0]), fields(&told[0]));
    for field in ["event", "userId", "type", "payload", "messageId"] {
        assert_eq!(example["events"][0][field], told[0][field], "{field}");
    }
}

#[test]
fn a_publication_that_its_sender_may_not_make_is_told_to_nobody() {
    let mut rig = Rig::new(0, 1, telling(&[TidingKind::Message], |_| {}));
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": {"app1": ["publish"]}}));
    for rooms in [json!(["app2"]), json!(["app1", "elsewhere"])] {
        say(&mut rig, conn, &json!({"type": "t", "rooms": rooms, "ref": 1}));
        let heard = rig.heard(conn);
        let is_refused = matches!(&heard[..], [Heard::Text(error)] if error["code"] == "forbidden");
        assert!(is_refused, "{heard:?}");
    }
    assert_eq!(told(&mut rig), [] as [Value; 0]);
}

#[test]
fn what_finds_no_space_is_counted_but_a_publication_is_refused() {
    let mut rig = alone();
    let conn = enter(&mut rig, &ada());
    let message = json!({"type": "t", "room": "app", "payload": "x".repeat(3000), "ref": 1});
    let mut refused = 0;
    for _ in 0..400 {
        say(&mut rig, conn, &message);
        for frame in rig.heard(conn) {
            let Heard::Text(reply) = frame else { panic!("{frame:?}") };
            refused += usize::from(reply["code"] == "overloaded");
        }
    }
    assert!((1..399).contains(&refused), "{refused} of 400");
    let counters = rig.shard.counters();
    assert_eq!(counters.events_total, 1 + 400 - refused as u64);
    assert_eq!(counters.publishes_refused_total, refused as u64);
    assert!(counters.charged_bytes > 1_000_000 && counters.charged_bytes < 1_200_000);
    for _ in 0..100 {
        rig.say(conn, &join("a"));
        rig.say(conn, r#"{"type":"throng:leave","room":"a"}"#);
    }
    rig.settle();
    assert!(rig.shard.counters().events_lost_total > 0);
    // What the desk does not take stays, and goes later, in order.
    let mut pieces = 0;
    rig.shard.poll_tidings(&mut |reports: Vec<Tiding>| {
        pieces += 1;
        if pieces > 3 { Err(reports) } else { Ok(()) }
    });
    rig.shard.check();
    let rest = told(&mut rig);
    let number = |value: &Value| -> u64 {
        let id = value["id"].as_str().and_then(|id| id.rsplit('-').next());
        id.and_then(|number| number.parse().ok()).expect("a number")
    };
    assert!(rest.len() > 100 && rest.iter().map(number).is_sorted());
    assert_eq!(told(&mut rig), [] as [Value; 0]);
    assert!(rig.shard.counters().charged_bytes < 100_000);
}

#[test]
fn who_logs_in_by_the_first_message_is_told_of_then_and_not_before() {
    let settings = guarded(&[Source::Message], |access| {
        access.report.kinds = TidingKinds::of(&ALL);
    });
    let mut rig = Rig::new(0, 1, settings);
    let silent = knock(&mut rig, "/ws", "");
    rig.event(Event::ReceivedEnd { conn: silent });
    let conn = knock(&mut rig, "/ws", &bearer(&ada()));
    assert_eq!(told(&mut rig), [] as [Value; 0]);
    rig.say(conn, &login(&ada()));
    rig.settle();
    let told = told(&mut rig);
    assert_eq!((names(&told), &told[0]["userId"]), (vec![("connected", None)], &json!("ada")));
}
