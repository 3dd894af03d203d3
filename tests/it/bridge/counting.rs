//! How many connections a publication has reached on all nodes: row R10, with processes that are stopped and killed.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, unlinked};
use super::presence::{node, own, process, sets};
use crate::admin::ask;
use crate::auth::enter;
use crate::support::{Client, on_both_drivers, wait_until};

/// A lease that is not over before the test is.
const LEASE: &str = "bridge.lease_ms=600000";
/// Nodes have long to answer, so that only those are missing that are to be.
const LONG: &str = "bridge.survey_timeout_ms=30000";
const SHORT: &str = "bridge.survey_timeout_ms=300";
const SHARDS: &str = "admin.shard_timeout_ms=60000";

fn publish(node: &Node, body: &Value) -> Value {
    let (status, answer) =
        ask(node.admin_address().unwrap(), "POST /v1/publish", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// The number of connections, and whether it is whole.
fn told(answer: &Value) -> (u64, bool) {
    let connections = answer["deliveredConnections"].as_u64().unwrap_or_else(|| panic!("{answer}"));
    (connections, answer["complete"].as_bool().unwrap())
}

fn counted(node: &Node, mut body: Value) -> Value {
    body["type"] = json!("x");
    body["count"] = json!("nodes");
    publish(node, &body)
}

fn user(address: std::net::SocketAddr, name: &str) -> Client {
    enter(address, &json!({"sub": name, "rooms": {"*": ["join"]}}))
}

fn wait_nodes(node: &Node, others: u64) {
    wait_until("the nodes know of each other", || bridge(node, "bridge_nodes") == others);
}

on_both_drivers! {
    fn a_publication_tells_how_many_connections_it_reached_on_all_nodes(driver) {
        let redis = Redis::start();
        let once = "namespace=[{pattern=\"once\", idempotency_window_ms=600000}]";
        let nodes = ["a", "b", "c"].map(|name| node(driver, &redis, name, &[LONG, LEASE, SHARDS, once]));
        nodes.iter().for_each(|node| wait_nodes(node, 2));
        let at = |number: usize| nodes[number].address();
        // Of ada two connections on one node and one on another, and nobody in the room on the third.
        let mut ada = [0, 0, 1].map(|number| user(at(number), "ada"));
        let mut bob = [1, 2].map(|number| user(at(number), "bob"));
        let (first, rest) = ada.split_at_mut(1);
        for client in [&mut first[0], &mut rest[1], &mut bob[0]] {
            client.join("lobby");
            client.join("once");
        }
        redis.wait_for_room("lobby", 2);
        redis.wait_for_room("once", 2);
        let cases = [
            (json!({"room": "lobby"}), 3),
            (json!({"users": ["ada"]}), 3),
            (json!({"users": ["bob", "nobody"]}), 2),
            (json!({"everyone": true}), 5),
            (json!({"everyone": true, "except": {"users": ["bob"]}}), 3),
            (json!({"room": "lobby", "users": ["ada"]}), 4),
            (json!({"rooms": ["lobby", "empty"], "except": [bob[0].id]}), 2),
            (json!({"connections": [ada[1].id, bob[0].id, bob[1].id]}), 3),
            (json!({"connections": [ada[0].id]}), 1),
            (json!({"room": "empty"}), 0),
        ];
        // Whoever is asked, by itself and in a batch.
        for node in &nodes {
            let mut batch = Vec::new();
            for (message, reached) in &cases {
                let answer = counted(node, message.clone());
                assert_eq!(told(&answer), (*reached, true), "{message}: {answer}");
                assert!(answer.get("missingNodes").is_none(), "{answer}");
                let mut message = message.clone();
                message["type"] = json!("x");
                message["count"] = json!("nodes");
                batch.push(message);
            }
            let answer = publish(node, &Value::Array(batch));
            for ((message, reached), result) in cases.iter().zip(answer["results"].as_array().unwrap()) {
                assert_eq!(told(result), (*reached, true), "{message}: {result}");
            }
        }
        let here = json!({"type": "x", "room": "lobby", "count": true});
        assert_eq!(nodes.each_ref().map(|node| told(&publish(node, &here)).0), [1, 2, 0]);
        // Behind those of the same node on the same way.
        for node in &nodes {
            assert_eq!(told(&counted(node, json!({"room": "lobby"}))), (3, true));
        }
        let again = json!({"room": "once", "id": "n-1"});
        assert_eq!(told(&counted(&nodes[2], again.clone())), (3, true));
        let answer = counted(&nodes[2], again);
        assert_eq!((told(&answer), &answer["duplicate"]), ((0, true), &json!(true)), "{answer}");
        // Each came once to each: what is counted is delivered as anything else.
        let each = 2 * nodes.len();
        let meant = [7 * each + 7, 5 * each, 6 * each + 7, 5 * each + 7, 3 * each];
        let _ = counted(&nodes[0], json!({"everyone": true, "payload": "last"}));
        for (client, meant) in ada.iter_mut().chain(&mut bob).zip(meant) {
            let received = std::iter::from_fn(|| Some(client.next())).take_while(|push| push["payload"] != "last");
            assert_eq!(received.count(), meant);
        }
    }

    fn a_node_that_stands_still_or_was_killed_is_named_beside_the_number(driver) {
        let redis = Redis::start();
        let here = node(driver, &redis, "a", &[SHORT, LEASE, SHARDS]);
        let more = [LONG, LEASE, SHARDS];
        let (b, c) = (process(driver, &redis, "b", &more), process(driver, &redis, "c", &more));
        wait_nodes(&here, 2);
        let _there = [user(here.address(), "ada"), user(b.address, "ada"), user(c.address, "ada")];
        let ask = || counted(&here, json!({"users": ["ada"]}));
        wait_until("all answer", || told(&ask()) == (3, true));
        b.stand_still();
        let part = ask();
        assert_eq!((told(&part), &part["missingNodes"]), ((2, false), &json!(["b"])), "{part}");
        b.signal("-CONT");
        wait_until("it is back", || told(&ask()) == (3, true));
        c.signal("-KILL");
        wait_until("only the dead one is missing", || {
            let part = ask();
            part["missingNodes"] == json!(["c"]) && told(&part) == (2, false)
        });
    }

    fn without_a_link_the_number_is_this_nodes_and_the_others_are_named_at_once(driver) {
        let mut redis = Redis::start();
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[LONG, LEASE, SHARDS]));
        nodes.iter().for_each(|node| wait_nodes(node, 1));
        let _there = [user(nodes[0].address(), "ada"), user(nodes[1].address(), "ada")];
        let ada = json!({"users": ["ada"]});
        assert_eq!(told(&counted(&nodes[0], ada.clone())), (2, true));
        let apart = node(driver, &redis, "d", &["bridge.presence=false", SHARDS]);
        let part = counted(&apart, ada.clone());
        assert_eq!((told(&part), &part["missingNodes"]), ((0, false), &json!([])), "{part}");
        redis.stop();
        wait_until("the link is down", || bridge(&nodes[0], "bridge_up") == 0);
        let part = counted(&nodes[0], ada.clone());
        assert_eq!((told(&part), &part["missingNodes"]), ((1, false), &json!(["b"])), "{part}");
        let alone = unlinked(driver, redis.address(), &sets(&own("c"), &[LONG, LEASE, SHARDS]));
        let part = counted(&alone, ada);
        assert_eq!((told(&part), &part["missingNodes"]), ((0, false), &json!([])), "{part}");
    }

    fn a_node_by_itself_counts_its_own_for_all(driver) {
        let own = own("a");
        let node = crate::support::node(driver, &own.iter().map(String::as_str).filter(|set| !set.starts_with("bridge")).collect::<Vec<_>>());
        let _ada = user(node.address(), "ada");
        let answer = counted(&node, json!({"users": ["ada"]}));
        assert_eq!(told(&answer), (1, true), "{answer}");
        let (status, answer) = ask(node.admin_address().unwrap(), "POST /v1/publish",
            r#"{"type":"x","room":"r","count":"all"}"#);
        assert!(status == 400 && answer.contains("true, false or \\\"nodes\\\""), "{answer}");
    }
}
