//! Inboxes in a Redis that nodes share: kept by one node, pushed and listed and read on all, also through the end of each.

use std::net::SocketAddr;

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, linked, unlinked};
use crate::admin::{SECRET as KEY, ask};
use crate::auth::{SECRET, enter};
use crate::support::{Client, on_both_drivers, wait_until};

/// Redis writes what it is told to its disk before it answers.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

pub(super) fn sets(name: &str) -> Vec<String> {
    vec![
        "admin.listen=127.0.0.1:0".to_owned(),
        format!(r#"key=[{{name="ops", secret="{KEY}", scopes=["notify","inspect","publish"]}}]"#),
        "admin.requests_per_second=1000000".to_owned(),
        format!("auth.secret={SECRET:?}"),
        "auth.mode=token".to_owned(),
        "auth.require_expiry=false".to_owned(),
        format!("bridge.node={name}"),
        "store.redis=true".to_owned(),
    ]
}

fn node(driver: &str, redis: &Redis, name: &str) -> Node {
    let own = sets(name);
    linked(driver, redis.address(), &own.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(super) fn try_notify(node: &Node, id: &str, payload: u64) -> (u16, Value) {
    try_notify_at(node.admin_address().unwrap(), id, payload)
}

pub(super) fn try_notify_at(admin: SocketAddr, id: &str, payload: u64) -> (u16, Value) {
    let body = json!({"user": "ada", "id": id, "payload": payload, "type": "mail"}).to_string();
    let (status, answer) = ask(admin, "POST /v1/notify", &body);
    (status, serde_json::from_str(&answer).unwrap())
}

pub(super) fn notify(node: &Node, id: &str, payload: u64) -> Value {
    let (status, answer) = try_notify(node, id, payload);
    assert_eq!(status, 201, "{answer}");
    answer
}

pub(super) fn ada(address: SocketAddr) -> Client {
    enter(address, &json!({"sub": "ada"}))
}

pub(super) fn inbox(client: &mut Client) -> (Vec<u64>, u64) {
    // A push from another node may come behind its own entry in the list.
    let page = client.ask_among(json!({"type": "throng:inbox", "after": 0}));
    let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}"));
    let payloads = items.iter().map(|item| item["payload"].as_u64().unwrap()).collect();
    (payloads, page["unread"].as_u64().unwrap())
}

on_both_drivers! {
    fn a_notification_is_pushed_and_listed_on_all_nodes_and_read_on_any(driver) {
        let redis = Redis::start_with(&DURABLE);
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name));
        let mut clients = nodes.each_ref().map(|node| ada(node.address()));
        let mut bob = enter(nodes[1].address(), &json!({"sub": "bob"}));
        let told = notify(&nodes[0], "first", 1);
        for client in &mut clients {
            let push = client.next();
            assert_eq!((&push["type"], &push["id"]), (&json!("throng:notification"), &told["id"]));
            assert_eq!((&push["payload"], &push["unread"], &push["kind"]), (&json!(1), &json!(1), &json!("mail")));
            assert_eq!(inbox(client), (vec![1], 1));
        }
        let (status, again) = try_notify(&nodes[1], "first", 1);
        assert_eq!((status, &again["id"]), (200, &told["id"]), "kept before, by the other node");
        notify(&nodes[1], "second", 2);
        clients.iter_mut().for_each(|client| assert_eq!(client.next()["payload"], 2));
        let [here, there] = &mut clients;
        here.ask(json!({"type": "throng:read", "ids": [told["id"]]}));
        let push = there.next();
        assert_eq!((&push["type"], &push["unread"]), (&json!("throng:unread"), &json!(1)), "{push}");
        here.expect_silence();
        clients.iter_mut().for_each(|client| assert_eq!(inbox(client), (vec![2], 1)));
        bob.expect_silence();
    }

    fn what_was_acknowledged_outlives_redis_and_the_nodes_and_meanwhile_it_is_an_error(driver) {
        let mut redis = Redis::start_with(&DURABLE);
        let here = node(driver, &redis, "a");
        let kept: Vec<u64> = (0..20).collect();
        kept.iter().for_each(|at| _ = notify(&here, &at.to_string(), *at));
        let mut client = ada(here.address());
        redis.stop();
        let (status, answer) = try_notify(&here, "lost", 7);
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_failed")), "{answer}");
        let refused = client.ask(json!({"type": "throng:inbox", "after": 0}));
        assert_eq!(refused["code"], "overloaded", "{refused}");
        // One more begins all the same, and has what there is as soon as it can.
        let own = sets("b");
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let late = unlinked(driver, redis.address(), &own);
        redis.restart();
        wait_until("the store does again", || try_notify(&here, "after", 20).0 < 300);
        wait_until("the link is up", || bridge(&late, "bridge_up") == 1);
        drop(here);
        let mut client = ada(late.address());
        assert_eq!(inbox(&mut client), ((0..=20).collect(), 21));
    }
}
