//! Rooms and connections of all nodes, and whom a back end sends away wherever they are connected, with processes that are
//! stopped and a Redis that goes.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge};
use super::presence::process;
use crate::admin::ask;
use crate::auth::enter;
use crate::process::Program;
use crate::support::{Client, on_both_drivers, wait_until};

/// A lease that is not over before the test is.
const LEASE: &str = "bridge.lease_ms=600000";
/// Nodes have long to answer, so that only those are missing that are to be.
const LONG: &str = "bridge.survey_timeout_ms=30000";
const SHORT: &str = "bridge.survey_timeout_ms=300";
const SHARDS: &str = "admin.shard_timeout_ms=60000";

/// The key that may do all of this.
fn key() -> String {
    let secret = crate::admin::SECRET;
    format!(r#"key=[{{name="ops", secret="{secret}", scopes=["inspect","revoke"]}}]"#)
}

fn node(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Node {
    super::presence::node(driver, redis, name, &[&[key().as_str(), SHARDS, LEASE], more].concat())
}

fn other(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Program {
    process(driver, redis, name, &[&[key().as_str(), SHARDS, LEASE], more].concat())
}

fn asked(node: &Node, what: &str, body: &str) -> (u16, Value) {
    let (status, body) = ask(node.admin_address().unwrap(), what, body);
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}: {status} {body}")))
}

fn get(node: &Node, path: &str) -> Value {
    let (status, body) = asked(node, &format!("GET {path}"), "");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn disconnect(node: &Node, order: &Value) -> Value {
    let (status, body) = asked(node, "POST /v1/disconnect", &order.to_string());
    assert_eq!(status, 200, "{order}: {body}");
    body
}

fn user(address: std::net::SocketAddr, name: &str) -> Client {
    enter(address, &json!({"sub": name, "rooms": {"*": ["join"]}}))
}

fn member(address: std::net::SocketAddr, name: &str, room: &str) -> Client {
    let mut client = user(address, name);
    client.join(room);
    client
}

fn wait_nodes(node: &Node, others: u64) {
    wait_until("the nodes know of each other", || bridge(node, "bridge_nodes") == others);
}

/// How many each node has closed.
fn by_node(answer: &Value) -> Vec<(&str, u64)> {
    let list = answer["nodes"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let pair = |one: &'_ Value| one["disconnected"].as_u64().unwrap();
    list.iter().map(|one| (one["node"].as_str().unwrap(), pair(one))).collect()
}

on_both_drivers! {
    fn a_back_end_sends_a_user_a_room_and_a_connection_away_on_all_nodes(driver) {
        let redis = Redis::start();
        let nodes = ["a", "b", "c"].map(|name| node(driver, &redis, name, &[LONG]));
        nodes.iter().for_each(|node| wait_nodes(node, 2));
        let at = |number: usize| nodes[number].address();
        let ada = [0, 0, 1].map(|number| user(at(number), "ada"));
        let mut eve = [0, 1, 2].map(|number| user(at(number), "eve"));
        // Two are on other nodes than the one that is asked, which has none itself.
        let answer = disconnect(&nodes[2], &json!({"user": "ada", "code": 4100, "reason": "moved"}));
        assert_eq!(answer["disconnected"], 3, "{answer}");
        assert_eq!(by_node(&answer), [("a", 2), ("b", 1), ("c", 0)]);
        assert!(answer.get("missingNodes").is_none(), "{answer}");
        ada.into_iter().for_each(|client| assert_eq!(client.close_code(), 4100));
        let stage = [0, 1, 2, 2].map(|number| member(at(number), "bob", "stage"));
        let answer = disconnect(&nodes[0], &json!({"room": "stage"}));
        assert_eq!(by_node(&answer), [("a", 1), ("b", 1), ("c", 2)]);
        stage.into_iter().for_each(|client| assert_eq!(client.close_code(), 1008));
        let [first, second, third] = eve.each_mut();
        second.expect_silence();
        let id = third.id.clone();
        let seen = get(&nodes[0], &format!("/v1/connections/{id}"));
        assert_eq!((&seen["user"], &seen["transport"]), (&json!("eve"), &json!("websocket")));
        let answer = disconnect(&nodes[0], &json!({"connection": id}));
        assert_eq!(by_node(&answer), [("a", 0), ("b", 0), ("c", 1)]);
        first.expect_silence();
        let own = first.id.clone();
        assert_eq!(disconnect(&nodes[0], &json!({"connection": own}))["disconnected"], 1);
        for id in [&id, &own] {
            wait_until("it is gone", || {
                asked(&nodes[1], &format!("GET /v1/connections/{id}"), "").0 == 404
            });
        }
        let [.., second, _] = &eve;
        assert_eq!(get(&nodes[0], "/v1/connections?user=eve")["total"], 1);
        assert_eq!(get(&nodes[0], "/v1/connections?user=eve")["connections"][0]["clientId"], json!(second.id));
    }

    fn rooms_and_connections_are_told_for_all_nodes_in_one_order(driver) {
        let redis = Redis::start();
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[LONG]));
        nodes.iter().for_each(|node| wait_nodes(node, 1));
        assert_eq!(get(&nodes[0], "/v1/rooms"), json!({"rooms": []}));
        let mut clients = Vec::new();
        for (room, members) in [("a/1", [1, 0]), ("a/2", [1, 1]), ("a/3", [0, 3]), ("b", [2, 2])] {
            for (node, count) in nodes.iter().zip(members) {
                clients.extend((0..count).map(|_| member(node.address(), "ada", room)));
            }
        }
        let rooms = json!([{"room": "a/1", "members": 1}, {"room": "a/2", "members": 2},
            {"room": "a/3", "members": 3}, {"room": "b", "members": 4}]);
        for node in &nodes {
            assert_eq!(get(node, "/v1/rooms"), json!({"rooms": rooms}));
            let page = get(node, "/v1/rooms?prefix=a/&limit=2");
            assert_eq!(page, json!({"rooms": [rooms[0], rooms[1]], "next": "a/2"}));
            let page = get(node, "/v1/rooms?prefix=a/&limit=2&afterRoom=a/2");
            assert_eq!(page, json!({"rooms": [rooms[2]]}));
            let largest = get(node, "/v1/rooms?order=members&limit=2");
            let names: Vec<_> = largest["rooms"].as_array().unwrap().iter()
                .map(|room| (room["room"].as_str().unwrap(), room["members"].as_u64().unwrap())).collect();
            assert_eq!((names, &largest["exact"]), (vec![("b", 4), ("a/3", 3)], &json!(true)));
            assert_eq!(get(node, "/v1/rooms/b")["members"], 4);
        }
        let whole = get(&nodes[0], "/v1/connections?user=ada");
        assert_eq!((&whole["total"], whole["connections"].as_array().map(Vec::len)), (&json!(10), Some(10)));
        let (mut seen, mut path, mut asked) = (Vec::new(), "/v1/connections?user=ada&limit=3".to_owned(), 0);
        loop {
            let page = get(&nodes[asked % 2], &path);
            asked += 1;
            seen.extend(page["connections"].as_array().unwrap().iter().map(|one| one["clientId"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/connections?user=ada&limit=3&after={next}");
        }
        let ids: Vec<Value> =
            whole["connections"].as_array().unwrap().iter().map(|one| one["clientId"].clone()).collect();
        assert_eq!(seen, ids);
    }

    fn a_node_that_stands_still_is_named_and_without_a_link_or_leases_the_answer_is_the_nodes_own(driver) {
        let mut redis = Redis::start();
        let here = node(driver, &redis, "a", &[SHORT]);
        let there = other(driver, &redis, "b", &[LONG]);
        wait_nodes(&here, 1);
        let both = [here.address(), there.address].map(|address| member(address, "ada", "lobby"));
        wait_until("both are there", || get(&here, "/v1/rooms/lobby")["members"] == 2);
        there.stand_still();
        let id = both[1].id.clone();
        assert_eq!(asked(&here, &format!("GET /v1/connections/{id}"), "").0, 503, "nobody knows");
        let largest = get(&here, "/v1/rooms?order=members");
        assert_eq!((&largest["missingNodes"], &largest["exact"]), (&json!(["b"]), &json!(false)));
        let answer = disconnect(&here, &json!({"user": "ada"}));
        assert_eq!((&answer["missingNodes"], by_node(&answer)), (&json!(["b"]), vec![("a", 1)]));
        // What it has heard it obeys when it goes on.
        there.signal("-CONT");
        both.into_iter().for_each(|client| assert_eq!(client.close_code(), 1008));
        let eve = user(there.address, "eve");
        redis.stop();
        wait_until("the link is down", || bridge(&here, "bridge_up") == 0);
        let answer = disconnect(&here, &json!({"user": "eve"}));
        assert_eq!((&answer["missingNodes"], &answer["disconnected"]), (&json!(["b"]), &json!(0)));
        redis.restart();
        wait_until("the order is given again", || {
            disconnect(&here, &json!({"user": "eve"}))["disconnected"] == 1
        });
        assert_eq!(eve.close_code(), 1008);
        let alone = node(driver, &redis, "c", &["bridge.presence=false"]);
        let dan = user(alone.address(), "dan");
        let answer = disconnect(&alone, &json!({"user": "dan"}));
        assert_eq!(answer, json!({"disconnected": 1}), "each node's own");
        assert_eq!(dan.close_code(), 1008);
    }
}
