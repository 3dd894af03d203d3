//! Rights in rooms: by grants, by namespaces, by tenant.

use serde_json::{Value, json};

use crate::auth::{OriginRule, OriginRules, Source, Who};
use crate::base::cursor::Cursor;
use crate::base::glob::Glob;
use crate::base::shared::Overflow;
use crate::shard::tests::guard::{
    answer, ask, bearer, by_header, enter, guarded, join, knock, login,
};
use crate::shard::tests::rig::{Heard, Rig, frame, publish, room_of, settings};
use crate::shard::{NamespaceRules, RoomMemory};

#[test]
fn a_room_that_is_not_granted_is_refused_and_leaves_no_trace() {
    let mut rig = by_header();
    let claims = json!({"sub": "ada", "exp": 5000,
        "rooms": {"a": ["join", "publish", "presence"], "b*": ["join"], "p": ["publish"]}});
    let conn = enter(&mut rig, &claims);
    let before = rig.shard.counters();
    for text in [
        join("c"),
        join("p"),
        r#"{"type":"throng:members","room":"b1","ref":1}"#.to_owned(),
        r#"{"type":"x","room":"b1","ref":1}"#.to_owned(),
        r#"{"type":"x","rooms":["a","c"],"ref":1}"#.to_owned(),
    ] {
        let error = ask(&mut rig, conn, &text);
        assert_eq!((&error["code"], &error["ref"]), (&json!("forbidden"), &json!(1)), "{text}");
    }
    let after = rig.shard.counters();
    assert_eq!(after.forbidden_total, 5);
    assert_eq!((after.rooms, after.memberships), (before.rooms, before.memberships));
    assert_eq!((after.home_rooms, after.publications_total), (before.home_rooms, 0));
    for text in [
        join("a"),
        join("b1"),
        r#"{"type":"throng:members","room":"a","ref":1}"#.to_owned(),
        r#"{"type":"x","room":"p","ref":1}"#.to_owned(),
    ] {
        assert_eq!(ask(&mut rig, conn, &text)["ok"], json!(true), "{text}");
    }
    // One who could guess the name of a user's own room cannot say it.
    assert_eq!(ask(&mut rig, conn, &join("\u{1e}ada"))["code"], "bad_field");
}

#[test]
fn namespaces_say_who_may_join_and_publish_whatever_tokens_grant() {
    let rule = |pattern, join, publish| NamespaceRules {
        pattern: Glob::new(pattern),
        overflow: Overflow::DropOldest,
        join,
        publish,
        origins: None,
        memory: RoomMemory::default(),
        queued: 0,
        write_delay: std::time::Duration::ZERO,
        payload: 0,
    };
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.rooms.namespaces = vec![
        rule("news", Some(Who::Anyone), Some(Who::Nobody)),
        rule("hall", Some(Who::Authenticated), None),
    ];
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": ["news"]}));
    let mut verdict = |text: &str| ask(&mut rig, conn, text)["code"].clone();
    assert_eq!(verdict(&join("news")), Value::Null);
    assert_eq!(verdict(r#"{"type":"x","room":"news","ref":1}"#), "forbidden");
    assert_eq!(verdict(&join("hall")), Value::Null);
    assert_eq!(verdict(r#"{"type":"x","room":"hall","ref":1}"#), "forbidden");
    assert_eq!(verdict(&join("else")), "forbidden");
}

#[test]
fn tenants_share_names_and_nothing_else() {
    let mut rig = by_header();
    let of = |tenant: Value| json!({"sub": "ada", "tenant": tenant, "exp": 5000, "rooms": ["*"]});
    let members = [json!("x"), json!("x"), json!("y"), Value::Null].map(|tenant| {
        let conn = enter(&mut rig, &of(tenant));
        let reply = ask(&mut rig, conn, &join("lobby"));
        assert_eq!(reply["room"], "lobby", "the name is the client's own");
        conn
    });
    rig.say(members[0], &publish(&["lobby"], "7"));
    rig.settle();
    let [Heard::Text(push)] = &rig.heard(members[1])[..] else { panic!("no push") };
    assert_eq!((&push["room"], &push["payload"]), (&json!("lobby"), &json!(7)));
    assert_eq!(rig.heard(members[2]), [], "another tenant");
    assert_eq!(rig.heard(members[3]), [], "no tenant");
    let count = ask(&mut rig, members[2], r#"{"type":"throng:members","room":"lobby"}"#);
    assert_eq!(count["members"], 1);
    let left = ask(&mut rig, members[2], r#"{"type":"throng:leave","room":"lobby","ref":1}"#);
    assert_eq!((&left["ok"], &left["room"]), (&json!(true), &json!("lobby")));
}

#[test]
fn a_users_own_room_does_not_count_against_its_limit_and_a_token_may_set_another() {
    let mut rig = by_header();
    let conn = enter(&mut rig, &json!({"sub": "ada", "exp": 5000, "rooms": ["*"]}));
    for number in 0..8 {
        assert_eq!(ask(&mut rig, conn, &join(&format!("r{number}")))["ok"], json!(true));
    }
    assert_eq!(ask(&mut rig, conn, &join("r8"))["code"], "room_limit");
    let few = json!({"sub": "bob", "exp": 5000, "rooms": ["*"], "limits": {"rooms": 1}});
    let conn = enter(&mut rig, &few);
    assert_eq!(ask(&mut rig, conn, &join("r0"))["ok"], json!(true));
    assert_eq!(ask(&mut rig, conn, &join("r1"))["code"], "room_limit");
}

fn for_pages(pattern: &str, rule: &str) -> NamespaceRules {
    let allowed = vec![OriginRule::parse(rule).expect("a rule")];
    NamespaceRules {
        pattern: Glob::new(pattern),
        overflow: Overflow::DropOldest,
        join: Some(Who::Anyone),
        publish: Some(Who::Anyone),
        origins: Some(OriginRules { allowed, ..OriginRules::default() }.into()),
        memory: RoomMemory::default(),
        queued: 0,
        write_delay: std::time::Duration::ZERO,
        payload: 0,
    }
}

#[test]
fn rooms_of_a_namespace_are_for_pages_of_its_origins_and_for_programs() {
    let mut settings = settings();
    settings.rooms.namespaces =
        vec![for_pages("admin:*", "https://admin.example"), for_pages("own", "self")];
    let mut rig = Rig::new(0, 1, settings.clone());
    let mut visit = |origin: &str| {
        let (conn, response) = rig.knock("192.0.2.1", origin);
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        rig.heard(conn);
        let mut verdict = |text: &str| ask(&mut rig, conn, text)["code"].clone();
        let of_admin = [
            verdict(&join("admin:x")),
            verdict(r#"{"type":"x","room":"admin:x","ref":1}"#),
            verdict(r#"{"type":"throng:members","room":"admin:x","ref":1}"#),
        ];
        assert_eq!(verdict(&join("else")), Value::Null, "other rooms are for all");
        assert!(of_admin.iter().all(|code| *code == of_admin[0]), "{of_admin:?}");
        (of_admin[0].clone(), verdict(&join("own")))
    };
    let no = json!("forbidden");
    assert_eq!(visit("Origin: https://admin.example\r\n"), (Value::Null, no.clone()));
    assert_eq!(visit("Origin: https://admin.example.evil\r\n"), (no.clone(), no.clone()));
    assert_eq!(visit("Origin: http://a\r\n"), (no.clone(), Value::Null));
    assert_eq!(visit("Origin: null\r\n"), (no.clone(), no.clone()));
    assert_eq!(visit(""), (Value::Null, Value::Null), "a program is no page");
    // Of one who was there before the rule it is not known what page it came from.
    let mut before = Rig::alone();
    let conn = before.open();
    before.take(crate::shard::Mail::Settings(settings.into()));
    assert_eq!(ask(&mut before, conn, &join("admin:x"))["code"], no);
    let (fresh, _) = before.knock("192.0.2.1", "Origin: https://admin.example\r\n");
    before.heard(fresh);
    assert_eq!(ask(&mut before, fresh, &join("admin:x"))["ok"], json!(true));
    before.receive(fresh, &frame(0x88, &1000_u16.to_be_bytes()));
    before.settle();
}

#[test]
fn a_fresh_token_that_grants_less_takes_its_connection_out_of_rooms() {
    let mut settings = guarded(&[Source::Header], |_| {});
    let mut hall = for_pages("hall", "*");
    (hall.origins, hall.join) = (None, Some(Who::Authenticated));
    settings.rooms.namespaces = vec![hall];
    let mut rig = Rig::new(0, 1, settings);
    let of = |rooms: Value| json!({"sub": "ada", "tenant": "t", "exp": 5000, "rooms": rooms});
    let all = of(json!(["*"]));
    let (conn, other) = (enter(&mut rig, &all), enter(&mut rig, &all));
    for room in ["a", "b", "c", "hall"] {
        for conn in [conn, other] {
            assert_eq!(ask(&mut rig, conn, &join(room))["ok"], json!(true));
        }
    }
    let members = rig.shard.counters().memberships;
    // What was published before is still for the member, and comes before it is told.
    rig.say(other, &publish(&["b"], "1"));
    let fewer = of(json!({"a": ["join"], "b": ["publish", "presence"]}));
    rig.say(conn, &login(&fewer));
    rig.say(other, &publish(&["a"], "2"));
    rig.say(other, &publish(&["b"], "3"));
    rig.settle();
    let heard = rig.heard(conn);
    let texts: Vec<(Value, Value)> = heard
        .iter()
        .map(|frame| match frame {
            Heard::Text(text) => (text["type"].clone(), text["room"].clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let text = |kind: &str, room: &str| (json!(kind), json!(room));
    assert_eq!(texts[0], text("t", "b"));
    let mut told = texts[1..3].to_vec();
    told.sort_by_key(|(_, room)| room.to_string());
    assert_eq!(told, [text("throng:left", "b"), text("throng:left", "c")]);
    assert_eq!(texts[3].0, "throng:reply");
    assert_eq!(texts[4..], [text("t", "a")], "and nothing of the others");
    assert_eq!(rig.shard.counters().memberships, members - 2);
    assert_eq!(rig.shard.counters().withdrawn_total, 2);
    let count = ask(&mut rig, other, r#"{"type":"throng:members","room":"b","ref":1}"#);
    assert_eq!(count["members"], 1);
    // The same rooms again: nothing to leave.
    assert_eq!(ask(&mut rig, conn, &login(&fewer))["ok"], json!(true));
    assert_eq!(rig.shard.counters().withdrawn_total, 2);
}

#[test]
fn a_join_on_its_way_when_the_right_is_lost_is_answered_with_an_error() {
    let mut rig = Rig::new(0, 2, guarded(&[Source::Header], |_| {}));
    let room = room_of(1, 2);
    let of = |rooms: Value| json!({"sub": "ada", "exp": 5000, "rooms": rooms});
    let conn = knock(&mut rig, "/ws", &bearer(&of(json!(["*"]))));
    answer(&mut rig, conn);
    rig.say(conn, &join(&room));
    rig.settle();
    rig.say(conn, &login(&of(json!([]))));
    rig.settle();
    assert_eq!(rig.told(conn, "throng:left")[0]["room"], json!(room));
    let question = std::mem::take(&mut rig.post).into_iter().find_map(|(_, mail)| match mail {
        crate::shard::Mail::Ask(question) => Some(*question),
        _ => None,
    });
    let question = question.expect("it was asked");
    let late = crate::shard::Answer {
        question,
        members: 1,
        position: Cursor { epoch: 1, offset: 0 },
        found: crate::shard::Found::Nothing,
    };
    rig.take(crate::shard::Mail::Answer(Box::new(late)));
    rig.settle();
    let errors = rig.told(conn, "throng:error");
    assert_eq!((&errors[0]["code"], &errors[0]["ref"]), (&json!("forbidden"), &json!(1)));
}
