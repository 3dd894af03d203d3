//! What is published to users who are on no node: row R10 over nodes.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::Redis;
use super::presence::node;
use crate::admin::ask;
use crate::auth::enter;
use crate::backend::{Backend, Posted, ok};
use crate::events::{events, hook};
use crate::support::{Client, on_both_drivers, wait_until};

fn user(node: &Node, name: &str) -> Client {
    enter(node.address(), &json!({"sub": name, "rooms": {"user:*": ["publish"]}}))
}

fn publish(node: &Node, order: &Value) {
    let admin = node.admin_address().unwrap();
    let (status, answer) = ask(admin, "POST /v1/publish", &order.to_string());
    assert_eq!(status, 200, "{answer}");
}

fn wait_state(node: &Node, user: &str, state: &str) {
    wait_until("the other node knows", || {
        let path = format!("GET /v1/presence/users?user={user}");
        let (_, answer) = ask(node.admin_address().unwrap(), &path, "");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["users"][0]["state"] == state
    });
}

on_both_drivers! {
    fn what_finds_a_user_on_no_node_is_told_once_by_the_node_that_took_it(driver) {
        let redis = Redis::start();
        let backend = Backend::open(|_: &Posted| ok(""));
        let hook = hook("all", &backend, r#""undelivered""#, ", linger_ms=0");
        let hook = format!("webhook=[{hook}]");
        let sets = [hook.as_str(), "presence.grace_ms=0"];
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &sets));
        // As many as the shards of both nodes are sure to be homes of some.
        let away: Vec<String> = (0..16).map(|number| format!("u{number}")).collect();
        let told = |payload: u32| {
            let events = events(&backend, away.len());
            let mut users: Vec<&str> = events
                .iter()
                .inspect(|event| assert_eq!(event["payload"], payload, "{event}"))
                .map(|event| event["userId"].as_str().unwrap())
                .collect();
            users.sort_by_key(|user| user[1..].parse::<u32>().unwrap());
            assert_eq!(users, away);
            events[0]["from"].clone()
        };
        let mut ada = user(&nodes[1], "ada");
        let mut bob = user(&nodes[0], "bob");
        wait_state(&nodes[0], "ada", "online");
        wait_state(&nodes[1], "bob", "online");
        let users: Vec<&str> = away.iter().map(String::as_str).chain(["ada", "bob"]).collect();
        let order = |payload: u32| json!({"type": "hello", "users": users, "payload": payload});
        for (payload, node) in [(1, &nodes[0]), (2, &nodes[1])] {
            publish(node, &order(payload));
            assert_eq!(told(payload), Value::Null);
            assert_eq!((&ada.next()["payload"], &bob.next()["payload"]), (&json!(payload), &json!(payload)));
        }
        ada.send(&order(3));
        assert_eq!(told(3), json!(ada.id));
        assert_eq!((&ada.next()["payload"], &bob.next()["payload"]), (&json!(3), &json!(3)));
        // A program's is nobody's to tell; and what comes afterwards shows that nothing was told of it.
        redis.publish("throng:all", &order(4).to_string());
        assert_eq!((&ada.next()["payload"], &bob.next()["payload"]), (&json!(4), &json!(4)));
        drop(bob);
        wait_state(&nodes[1], "bob", "offline");
        publish(&nodes[1], &json!({"type": "hello", "users": ["bob"], "payload": 5}));
        let last = events(&backend, 1).remove(0);
        assert_eq!((&last["userId"], &last["payload"]), (&json!("bob"), &json!(5)));
        assert_eq!(backend.waiting(), 0);
    }
}
