//! Publications that are sent again by another node, in rooms whose history is each node's own. Rows O1 and R7.

use std::net::SocketAddr;

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Proxy, Redis, bridge, linked, next_but_gaps, wait_link};
use super::presence::own;
use super::slots::Slots;
use crate::admin::ask;
use crate::auth::enter;
use crate::support::{Client, node, on_both_drivers, wait_until};

const ONCE: [&str; 2] =
    ["bridge.shared_ids=true", "namespace=[{pattern=\"*\", idempotency_window_ms=600000}]"];

fn sets<'a>(own: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    own.iter().map(String::as_str).chain(ONCE).chain(more.iter().copied()).collect()
}

fn nodes(driver: &str, redis: SocketAddr, more: &[&str]) -> [Node; 2] {
    ["a", "b"].map(|name| linked(driver, redis, &sets(&own(name), more)))
}

fn user(node: &Node, name: &str) -> Client {
    user_at(node.address(), name)
}

fn user_at(address: SocketAddr, name: &str) -> Client {
    enter(address, &json!({"sub": name, "rooms": ["*"]}))
}

fn message(id: &str, payload: &str) -> Value {
    json!({"type": "chat", "room": "lobby", "id": id, "payload": payload})
}

/// Whether it was taken before.
fn publish(node: &Node, message: &Value) -> bool {
    let (status, answer) =
        ask(node.admin_address().unwrap(), "POST /v1/publish", &message.to_string());
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer.get("duplicate").is_some()
}

fn is_repeat(author: &mut Client, message: Value) -> bool {
    let reply = author.ask_among(message);
    assert_eq!(reply["ok"], json!(true), "{reply}");
    reply.get("duplicate").is_some()
}

/// What is sent again by the other node is not sent twice.
fn once_over_both(nodes: &[Node; 2], hub: &Redis) {
    let mut members = nodes.each_ref().map(|node| user(node, "member"));
    members.iter_mut().for_each(|client| _ = client.join("lobby"));
    hub.wait_for_room("lobby", 2);
    let mut ada = nodes.each_ref().map(|node| user(node, "ada"));
    let mut bob = user(&nodes[1], "bob");
    assert!(!is_repeat(&mut ada[0], message("1", "first")));
    assert!(is_repeat(&mut ada[1], message("1", "first")));
    assert!(is_repeat(&mut ada[0], message("1", "first")));
    assert!(!is_repeat(&mut bob, message("1", "of another")), "an id counts for its author");
    // Also without a reply that is waited for, and for all back ends as one author.
    ada[1].send(&message("2", "second"));
    assert!(is_repeat(&mut ada[1], message("2", "second")));
    assert!(is_repeat(&mut ada[0], message("2", "second")));
    assert!(!publish(&nodes[1], &message("1", "of a back end")));
    assert!(publish(&nodes[0], &message("1", "of a back end")));
    // What both nodes ask about at once is decided once, whoever is faster.
    let taken: usize = std::thread::scope(|scope| {
        let authors = nodes.each_ref().map(Node::address).map(|address| {
            scope.spawn(move || {
                let mut cleo = user_at(address, "cleo");
                let mut fresh = |id: u32| !is_repeat(&mut cleo, message(&id.to_string(), "race"));
                (100..150_u32).filter(|id| fresh(*id)).count()
            })
        });
        authors.into_iter().map(|author| author.join().unwrap()).sum()
    });
    assert_eq!(taken, 50);
    // Each node's own are done with, by whatever way they went.
    for (at, node) in nodes.iter().enumerate() {
        assert!(!publish(node, &message(&format!("end {at}"), &format!("end {at}"))));
    }
    for member in &mut members {
        let ends = ["end 0", "end 1"];
        let mut all = Vec::new();
        while ends.iter().any(|end| !all.iter().any(|payload| payload == end)) {
            all.push(member.next()["payload"].as_str().unwrap().to_owned());
        }
        assert_eq!(all.iter().filter(|payload| *payload == "race").count(), 50);
        all.retain(|payload| payload != "race" && !ends.contains(&payload.as_str()));
        all.sort();
        assert_eq!(all, ["first", "of a back end", "of another", "second"]);
        member.expect_silence();
    }
    let count = |name: &str| nodes.iter().map(|node| bridge(node, name)).sum::<u64>();
    assert_eq!(count("bridge_ids_first_total"), 4 + 50 + 2);
    assert_eq!(count("bridge_ids_unknown_total"), 0);
    assert!(count("bridge_ids_repeated_total") >= 3, "by the node that had not taken it");
}

on_both_drivers! {
    fn what_is_sent_again_by_another_node_is_acknowledged_and_not_sent_twice(driver) {
        let redis = Redis::start();
        let nodes = nodes(driver, redis.address(), &[]);
        once_over_both(&nodes, &redis);
    }

    fn in_a_cluster_too_what_is_sent_again_by_another_node_is_not_sent_twice(driver) {
        let slots = Slots::start();
        let nodes = [0, 1].map(|at: usize| {
            let own = [own(&format!("n{at}")), slots.place(at).to_vec()].concat();
            let node = node(driver, &sets(&own, &["bridge.command_timeout_ms=20000"]));
            wait_link(&node);
            node
        });
        once_over_both(&nodes, slots.hub());
    }

    fn without_redis_and_where_it_stands_still_each_node_decides_by_itself_and_counts_that(driver) {
        let mut redis = Redis::start();
        let proxy = Proxy::before(redis.address());
        let here = linked(driver, proxy.address, &sets(&own("a"), &[]));
        let unknown = || bridge(&here, "bridge_ids_unknown_total");
        let mut ada = user(&here, "ada");
        ada.join("lobby");
        assert!(!is_repeat(&mut ada, message("1", "one")));
        assert_eq!(unknown(), 0);
        // Nobody is kept waiting for longer than the link is waited for.
        proxy.stall(true);
        assert!(!is_repeat(&mut ada, message("2", "two")));
        assert!(is_repeat(&mut ada, message("2", "two")), "this node has taken it");
        assert_eq!(unknown(), 1);
        proxy.stall(false);
        wait_link(&here);
        redis.stop();
        wait_until("the link is down", || bridge(&here, "bridge_up") == 0);
        assert!(!is_repeat(&mut ada, message("3", "three")));
        assert!(is_repeat(&mut ada, message("1", "one")));
        assert_eq!(unknown(), 2);
        for payload in ["one", "two", "three"] {
            assert_eq!(next_but_gaps(&mut ada)["payload"], payload);
        }
    }

    fn a_redis_that_gives_the_nodes_no_right_to_write_names_is_one_that_does_not_know(driver) {
        let redis = Redis::start();
        redis.ask(&["ACL", "SETUSER", "throng", "on", ">secret", "resetchannels", "&throng:*",
            "+@connection", "+@pubsub"]);
        let user_of = ["bridge.user=throng", "bridge.password=secret", "bridge.presence=false"];
        let nodes = nodes(driver, redis.address(), &user_of);
        let mut ada = nodes.each_ref().map(|node| user(node, "ada"));
        for author in &mut ada {
            assert!(!is_repeat(author, message("1", "one")));
            assert!(is_repeat(author, message("1", "one")));
        }
        redis.ask(&["ACL", "SETUSER", "throng", "~throng:*", "+set"]);
        assert!(!is_repeat(&mut ada[0], message("2", "two")));
        assert!(is_repeat(&mut ada[1], message("2", "two")));
        assert_eq!(nodes.each_ref().map(|node| bridge(node, "bridge_ids_unknown_total")), [1, 1]);
    }
}
