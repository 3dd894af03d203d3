//! Rights in rooms: by grants, by namespaces, by tenant.

use serde_json::{Value, json};

use crate::auth::{Source, Who};
use crate::base::glob::Glob;
use crate::base::shared::Overflow;
use crate::shard::NamespaceRules;
use crate::shard::tests::guard::{ask, by_header, enter, guarded, join};
use crate::shard::tests::rig::{Heard, Rig, publish};

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
