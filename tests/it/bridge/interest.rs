//! Nodes receive what they have members for, and no more. Row O2.

use std::collections::BTreeMap;

use serde_json::json;

use super::cluster::{Redis, bridge, linked};
use crate::support::{Client, on_both_drivers, wait_until};

const NODES: usize = 4;
const ROOMS: usize = 400;

on_both_drivers! {
    fn each_node_receives_the_publications_of_its_own_rooms_only(driver) {
        let redis = Redis::start();
        let sets = ["bridge.canary_interval_ms=600000", "limits.max_rooms=1000"];
        let nodes: Vec<_> = (0..NODES).map(|_| linked(driver, redis.address(), &sets)).collect();
        let mut clients: Vec<Client> =
            nodes.iter().map(|node| Client::connect(node.address())).collect();
        let mut expected = BTreeMap::<usize, u64>::new();
        for room in 0..ROOMS {
            // Each room is on one node, and every tenth on the next one too.
            for at in 0..=usize::from(room % 10 == 0) {
                let node = (room + at) % NODES;
                clients[node].join(&format!("r{room}"));
                *expected.entry(node).or_default() += 1;
            }
        }
        for (node, own) in nodes.iter().zip(expected.values()) {
            wait_until("subscriptions", || bridge(node, "bridge_subscriptions") == *own);
        }
        for room in [0, 1, ROOMS - 1] {
            redis.wait_for_room(&format!("r{room}"), 1 + i64::from(room % 10 == 0));
        }
        let before: Vec<u64> =
            nodes.iter().map(|node| bridge(node, "bridge_received_total")).collect();
        for room in 0..ROOMS {
            redis.publish(&format!("throng:room:r{room}"), r#"{"type":"x"}"#);
        }
        for (node, own) in &expected {
            for _ in 0..*own {
                assert_eq!(clients[*node].next()["type"], "x");
            }
            let received = bridge(&nodes[*node], "bridge_received_total") - before[*node];
            assert_eq!(received, *own, "node {node} received nothing but its own");
        }
    }

    fn a_room_without_members_is_left_after_a_while_and_not_before(driver) {
        let redis = Redis::start();
        let brief = linked(driver, redis.address(), &["bridge.linger_ms=0"]);
        let long = linked(driver, redis.address(), &["bridge.linger_ms=600000"]);
        let [mut one, mut two] = [&brief, &long].map(|node| Client::connect(node.address()));
        for _ in 0..3 {
            one.join("lobby");
            redis.wait_for_room("lobby", 1);
            leave(&mut one);
            redis.wait_for_room("lobby", 0);
        }
        two.join("lobby");
        redis.wait_for_room("lobby", 1);
        leave(&mut two);
        one.join("lobby");
        redis.wait_for_room("lobby", 2);
        leave(&mut one);
        redis.wait_for_room("lobby", 1);
        assert_eq!(bridge(&long, "bridge_subscriptions"), 1, "it may be needed again soon");
    }
}

fn leave(client: &mut Client) {
    let reply = client.ask(json!({"type": "throng:leave", "room": "lobby"}));
    assert_eq!(reply["ok"], json!(true));
}
