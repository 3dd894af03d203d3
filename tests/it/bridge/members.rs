//! Who is in a room, whatever node its members are connected to: row L11, with processes that are stopped and killed.

use std::net::SocketAddr;

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, unlinked, wait_link};
use super::presence::{self, own, sets};
use crate::admin::ask;
use crate::auth::enter;
use crate::process::Program;
use crate::support::{Client, on_both_drivers, wait_until};

/// A lease that is not over before the test is, and one that is soon taken again where Redis has lost it.
const LEASE: &str = "bridge.lease_ms=600000";
const BRIEF: &str = "bridge.lease_ms=2000";
const LONG: &str = "bridge.survey_timeout_ms=30000";
const SHORT: &str = "bridge.survey_timeout_ms=300";

/// What every node of these tests is told besides. Nodes have long to answer, so that only those are missing that are to be.
const MORE: [&str; 2] = ["admin.shard_timeout_ms=60000", "presence.metadata=true"];

fn node(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Node {
    presence::node(driver, redis, name, &[&MORE, more].concat())
}

fn process(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Program {
    presence::process(driver, redis, name, &[&MORE, more].concat())
}

/// A member of the room.
fn member(address: SocketAddr, name: &str, room: &str) -> Client {
    let mut client = enter(address, &json!({"sub": name, "rooms": {"*": ["join", "presence"]}}));
    client.join(room);
    client
}

fn query(node: &Node, path: &str) -> Value {
    let path = format!("GET /v1/presence/rooms/{path}");
    let (status, body) = ask(node.admin_address().unwrap(), &path, "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The users on a page, in its order, and how many members there are in all.
fn users(page: &Value) -> (u64, Vec<String>) {
    let list = page["connections"].as_array().unwrap_or_else(|| panic!("{page}"));
    let user = |member: &Value| member["user"].as_str().unwrap().to_owned();
    (page["members"].as_u64().unwrap(), list.iter().map(user).collect())
}

fn sorted(page: &Value) -> Vec<String> {
    let mut names = users(page).1;
    names.sort();
    names
}

fn wait_nodes(node: &Node, others: u64) {
    wait_until("the nodes know of each other", || bridge(node, "bridge_nodes") == others);
}

on_both_drivers! {
    fn the_members_of_a_room_are_told_by_any_node_for_all_and_page_by_page(driver) {
        let redis = Redis::start();
        let nodes = ["a", "b", "c"].map(|name| node(driver, &redis, name, &[LONG, LEASE]));
        nodes.iter().for_each(|node| wait_nodes(node, 2));
        let mut clients = Vec::new();
        for number in 0..7 {
            let at = nodes[number % 3].address();
            clients.push(member(at, &format!("u{number}"), "lobby"));
        }
        let _elsewhere = member(nodes[1].address(), "eve", "other");
        let all: Vec<String> = (0..7).map(|number| format!("u{number}")).collect();
        for (node, client) in nodes.iter().zip(&mut clients) {
            let page = query(node, "lobby");
            assert_eq!((page["members"].as_u64(), sorted(&page)), (Some(7), all.clone()), "{page}");
            assert!(page.get("missingNodes").is_none() && page.get("next").is_none(), "{page}");
            assert!(page["connections"][6]["address"] == "127.0.0.1", "{page}");
            let whois = client.ask(json!({"type": "throng:whois", "room": "lobby"}));
            assert_eq!(users(&whois), users(&page));
            assert!(whois.get("missingNodes").is_none(), "{whois}");
            assert_eq!(users(&query(node, "other")).0, 1);
            assert_eq!(users(&query(node, "nobody")).0, 0);
        }
        // The same order, whoever is asked for which page.
        let whole = users(&query(&nodes[0], "lobby")).1;
        for limit in 1..=7 {
            let (mut seen, mut after, mut asked) = (Vec::new(), String::new(), 0);
            loop {
                let page = query(&nodes[asked % 3], &format!("lobby?limit={limit}{after}"));
                asked += 1;
                let (members, names) = users(&page);
                assert!(members == 7 && names.len() <= limit, "{page}");
                seen.extend(names);
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(seen, whole, "pages of {limit}");
        }
        let first = clients[0].ask(json!({"type": "throng:whois", "room": "lobby", "limit": 4}));
        let next = first["next"].clone();
        let rest = clients[1].ask(json!({"type": "throng:whois", "room": "lobby", "after": next}));
        assert_eq!([users(&first).1, users(&rest).1].concat(), whole);
    }

    fn a_node_that_stands_still_or_was_killed_is_named_and_the_others_answer(driver) {
        let redis = Redis::start();
        let here = node(driver, &redis, "a", &[SHORT, LEASE]);
        let (b, c) = (process(driver, &redis, "b", &[LONG, LEASE]), process(driver, &redis, "c", &[LONG, LEASE]));
        wait_nodes(&here, 2);
        let mut ada = member(here.address(), "ada", "lobby");
        let _others = [member(b.address, "bob", "lobby"), member(c.address, "cleo", "lobby")];
        let is_whole = |page: &Value| page["members"] == 3 && page.get("missingNodes").is_none();
        wait_until("all answer", || is_whole(&query(&here, "lobby")));
        b.stand_still();
        let part = query(&here, "lobby");
        assert_eq!(part["missingNodes"], json!(["b"]), "{part}");
        assert_eq!(users(&part).0, u64::try_from(sorted(&part).len()).unwrap());
        assert!(!sorted(&part).contains(&"bob".to_owned()), "{part}");
        let whois = ada.ask(json!({"type": "throng:whois", "room": "lobby"}));
        assert_eq!(whois["missingNodes"], json!(["b"]), "{whois}");
        b.signal("-CONT");
        wait_until("it is back", || is_whole(&query(&here, "lobby")));
        assert_eq!(sorted(&query(&here, "lobby")), ["ada", "bob", "cleo"]);
        c.signal("-KILL");
        wait_until("only the dead one is missing", || {
            query(&here, "lobby")["missingNodes"] == json!(["c"])
        });
        wait_until("the others are there", || {
            sorted(&query(&here, "lobby")) == ["ada", "bob"]
        });
    }

    fn without_a_link_the_others_are_named_at_once_and_without_leases_nobody_is_asked(driver) {
        let mut redis = Redis::start();
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[LONG, BRIEF]));
        nodes.iter().for_each(|node| wait_nodes(node, 1));
        let _members = [member(nodes[0].address(), "ada", "lobby"), member(nodes[1].address(), "bob", "lobby")];
        assert_eq!(sorted(&query(&nodes[0], "lobby")), ["ada", "bob"]);
        redis.stop();
        wait_until("the link is down", || bridge(&nodes[0], "bridge_up") == 0);
        let part = query(&nodes[0], "lobby");
        assert_eq!((sorted(&part), &part["missingNodes"]), (vec!["ada".to_owned()], &json!(["b"])));
        let alone = unlinked(driver, redis.address(), &sets(&own("c"), &[&MORE[..], &[LONG, BRIEF]].concat()));
        let nobody = query(&alone, "lobby");
        assert_eq!(nobody, json!({"room": "lobby", "members": 0, "connections": [], "missingNodes": []}));
        redis.restart();
        nodes.iter().for_each(wait_link);
        wait_until("they know of each other again", || {
            sorted(&query(&alone, "lobby")) == ["ada", "bob"] && query(&alone, "lobby").get("missingNodes").is_none()
        });
        let apart = node(driver, &redis, "d", &["bridge.presence=false"]);
        let mut dan = member(apart.address(), "dan", "lobby");
        assert_eq!(users(&query(&apart, "lobby")), (1, vec!["dan".to_owned()]));
        let whois = dan.ask(json!({"type": "throng:whois", "room": "lobby"}));
        assert!(users(&whois).0 == 1 && whois.get("missingNodes").is_none(), "{whois}");
    }

    fn what_is_no_question_is_counted_and_a_strangers_question_is_answered(driver) {
        let redis = Redis::start();
        let here = node(driver, &redis, "a", &[LONG]);
        let _ada = member(here.address(), "ada", "lobby");
        let before = bridge(&here, "bridge_malformed_total");
        for text in [
            "x",
            r#"{"v":2,"tag":1,"number":1,"ask":{"room":"lobby","limit":1}}"#,
            r#"{"v":1,"tag":1,"number":1}"#,
            r#"{"v":1,"tag":1,"number":1,"ask":{"room":"lobby"}}"#,
            r#"{"v":1,"tag":1,"number":1,"ask":{"room":"lobby","limit":1,"after":"x"}}"#,
        ] {
            redis.publish("throng:survey", text);
        }
        wait_until("all are counted", || bridge(&here, "bridge_malformed_total") == before + 5);
        let client = redis::Client::open(format!("redis://{}", redis.address())).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut asker = connection.as_pubsub();
        asker.subscribe("throng:survey:7").unwrap();
        redis.publish("throng:survey", r#"{"v":1,"tag":7,"number":9,"ask":{"room":"lobby","limit":1000000}}"#);
        let answer: String = asker.get_message().unwrap().get_payload().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["number"], &answer["answer"]["members"]), (&json!(9), &json!(1)), "{answer}");
    }
}
