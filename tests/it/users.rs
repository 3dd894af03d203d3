//! What back ends hear of users: who comes, who has gone, and what found nobody; row R10, both shards.

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded};
use crate::backend::{Backend, Posted, ok};
use crate::events::{events, hook};
use crate::support::on_both_drivers;

const USERS: &str = r#""online", "offline", "undelivered""#;

fn telling(driver: &str, backend: &Backend, more: &str) -> Node {
    let hooks = format!("webhook=[{}]", hook("users", backend, USERS, more));
    let sets = with_admin(r#""publish""#);
    guarded(driver, &[&hooks, &sets[0], &sets[1], "presence.grace_ms=10"])
}

fn publish(node: &Node, order: &Value) -> Value {
    let admin = node.admin_address().unwrap();
    let (status, answer) = ask(admin, "POST /v1/publish", &order.to_string());
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// As many names as both shards are sure to be homes of some.
fn names() -> Vec<String> {
    (0..16).map(|number| format!("u{number}")).collect()
}

on_both_drivers! {
    fn a_back_end_hears_who_comes_and_goes_and_what_found_nobody(driver) {
        let backend = Backend::open(|_: &Posted| ok(""));
        let node = telling(driver, &backend, ", linger_ms=0");
        let users = names();
        let order = json!({"type": "hello", "users": users, "payload": 1, "count": true});
        assert_eq!(publish(&node, &order)["deliveredConnections"], 0);
        let of = |name: &str| {
            let events = events(&backend, users.len());
            let mut found: Vec<String> = events
                .iter()
                .inspect(|event| assert_eq!(event["event"], name, "{event}"))
                .map(|event| event["userId"].as_str().unwrap().to_owned())
                .collect();
            found.sort_by_key(|user| user[1..].parse::<u32>().unwrap());
            assert_eq!(found, users, "{name}");
            events
        };
        let undelivered = of("undelivered");
        assert!(undelivered.iter().all(|event| event["payload"] == 1 && event.get("from").is_none()));
        let clients: Vec<_> =
            users.iter().map(|user| enter(node.address(), &json!({"sub": user}))).collect();
        of("online");
        assert_eq!(publish(&node, &order)["deliveredConnections"], 16);
        drop(clients);
        assert!(of("offline").iter().all(|event| event["lastSeen"].is_u64()));
        assert_eq!(backend.waiting(), 0);
    }

    fn a_back_end_answers_for_who_is_away(driver) {
        let backend = Backend::open(|posted: &Posted| {
            let events = posted.body["events"].as_array().unwrap().iter();
            let away = events.filter(|event| event["event"] == "undelivered");
            let publish: Vec<Value> = away
                .map(|event| json!({"type": "away", "users": ["ada"], "payload": event["userId"]}))
                .collect();
            ok(&json!({ "publish": publish }).to_string())
        });
        let node = telling(driver, &backend, r#", linger_ms=0, may_reach=["users"]"#);
        let mut ada = enter(node.address(), &json!({"sub": "ada"}));
        publish(&node, &json!({"type": "hello", "users": ["ada", "bob"]}));
        assert_eq!(ada.next()["type"], "hello");
        let push = ada.next();
        assert_eq!((&push["type"], &push["payload"]), (&json!("away"), &json!("bob")));
        ada.expect_silence();
    }
}
