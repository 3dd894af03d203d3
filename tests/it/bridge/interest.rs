//! Nodes receive what they have members for, and no more. Row O2.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::cluster::{Redis, bridge, linked};
use crate::support::{Client, on_both_drivers, wait_until};

const NODES: usize = 10;
const ROOMS: usize = 10_000;
/// Commands that a client has sent and not seen answered.
const AT_ONCE: usize = 100;

/// The nodes with members of a room: one, and of every tenth room the next one too.
fn owners(room: usize) -> impl Iterator<Item = usize> {
    (0..=usize::from(room.is_multiple_of(10))).map(move |at| (room / 10 + at) % NODES)
}

/// Joins the rooms; what is read meanwhile is replies alone.
fn join_all(client: &mut Client, rooms: &[usize]) {
    for some in rooms.chunks(AT_ONCE) {
        for room in some {
            client.send(&json!({"type": "throng:join", "room": format!("r{room}"), "ref": room}));
        }
        let mut waiting: BTreeSet<usize> = some.iter().copied().collect();
        while !waiting.is_empty() {
            let reply = client.next();
            let room: usize = reply["ref"].as_u64().unwrap().try_into().unwrap();
            assert!(reply["ok"] == json!(true) && waiting.remove(&room), "{reply}");
        }
    }
}

on_both_drivers! {
    fn each_node_receives_the_publications_of_its_own_rooms_only(driver) {
        let redis = Redis::start();
        // Nothing but publications is to be counted, and no link is to be given up on a busy machine.
        let sets = [
            "bridge.canary_interval_ms=600000",
            "bridge.command_timeout_ms=60000",
            "bridge.presence=false",
            "limits.max_rooms=2000",
        ];
        let nodes: Vec<_> = (0..NODES).map(|_| linked(driver, redis.address(), &sets)).collect();
        let mut clients: Vec<Client> =
            nodes.iter().map(|node| Client::connect(node.address())).collect();
        let mut expected = BTreeMap::<usize, Vec<usize>>::new();
        for room in 0..ROOMS {
            owners(room).for_each(|node| expected.entry(node).or_default().push(room));
        }
        for (node, own) in &expected {
            join_all(&mut clients[*node], own);
        }
        for (node, own) in &expected {
            wait_until("subscriptions", || {
                bridge(&nodes[*node], "bridge_subscriptions") == own.len() as u64
            });
        }
        let channels: Vec<String> = (0..ROOMS).map(|room| format!("throng:room:r{room}")).collect();
        let wanted: Vec<usize> = (0..ROOMS).map(|room| owners(room).count()).collect();
        wait_until("Redis has them all", || redis.all_subscribers(&channels) == wanted);
        let before: Vec<u64> =
            nodes.iter().map(|node| bridge(node, "bridge_received_total")).collect();
        let mut publishing = redis::pipe();
        for channel in &channels {
            publishing.cmd("PUBLISH").arg(channel).arg(r#"{"type":"x"}"#).ignore();
        }
        redis.run(&publishing);
        for (node, own) in &expected {
            let mut rooms: BTreeSet<String> = own.iter().map(|room| format!("r{room}")).collect();
            for _ in own {
                let push = clients[*node].next();
                assert!(rooms.remove(push["room"].as_str().unwrap()), "once each: {push}");
            }
            let received = bridge(&nodes[*node], "bridge_received_total") - before[*node];
            assert_eq!(received, own.len() as u64, "node {node} received nothing but its own");
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
