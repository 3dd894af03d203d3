//! A Redis Cluster of three nodes whose slots move under load. Row O1.

use std::sync::atomic::{AtomicBool, Ordering};

use redis::{FromRedisValue, from_redis_value};
use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, next_but_gaps, wait_link};
use super::shared::{KEEPS, ROOM, SHARED, chat, join_since, numbered, since};
use crate::support::{Client, free_port, node, on_both_drivers, wait_until};

/// All slots.
const SLOTS: u32 = 16_384;
/// A key in the slot that makes a node the hub.
const HUB: &str = "throng:{all}:lease";

/// Three servers that are one cluster.
pub(super) struct Slots {
    pub(super) servers: [Redis; 3],
}

fn get<T: FromRedisValue>(server: &Redis, words: &[&str]) -> T {
    from_redis_value(server.ask(words)).unwrap()
}

impl Slots {
    pub(super) fn start() -> Self {
        let servers = [1, 2, 3].map(|epoch: u32| {
            let port = free_port().to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "3000"];
            let server = Redis::start_with(&[&cluster[..], &["--cluster-port", &port]].concat());
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]);
            let (from, to) = (SLOTS * (epoch - 1) / 3, SLOTS * epoch / 3 - 1);
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
            (server, port)
        });
        for (other, bus) in &servers[1..] {
            let port = other.address().port().to_string();
            servers[0].0.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
        }
        let servers = servers.map(|(server, _)| server);
        for server in &servers {
            wait_until("the cluster has formed", || {
                let info: String = get(server, &["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        Self { servers }
    }

    /// What a node is told of the cluster; each of several begins at another server.
    pub(super) fn place(&self, at: usize) -> [String; 3] {
        let url = |at: usize| format!("redis://{}", self.servers[at % 3].address());
        let seeds = format!("bridge.seeds={:?}", [url(at + 1)]);
        [format!("bridge.url={}", url(at)), seeds, "bridge.cluster=true".to_owned()]
    }

    fn nodes(&self, driver: &str) -> [Node; 2] {
        [0, 1].map(|at: usize| {
            let place = self.place(at);
            let quick = ["bridge.canary_interval_ms=100", "bridge.command_timeout_ms=2000"];
            let place = place.each_ref().map(String::as_str);
            let node = node(driver, &[&place[..], &quick, &[SHARED, KEEPS]].concat());
            wait_link(&node);
            node
        })
    }

    /// Which of them has a slot.
    pub(super) fn owner(&self, slot: u32) -> usize {
        let ranges: Vec<(u32, u32, redis::Value)> =
            get::<Vec<Vec<redis::Value>>>(&self.servers[0], &["CLUSTER", "SLOTS"])
                .into_iter()
                .map(|range| {
                    let number = |at: usize| from_redis_value(range[at].clone()).unwrap();
                    (number(0), number(1), range[2].clone())
                })
                .collect();
        let (_, _, of) =
            ranges.into_iter().find(|(from, to, _)| (*from..=*to).contains(&slot)).unwrap();
        let of: Vec<redis::Value> = from_redis_value(of).unwrap();
        let port: u16 = from_redis_value(of[1].clone()).unwrap();
        self.servers.iter().position(|server| server.address().port() == port).unwrap()
    }

    pub(super) fn slot(&self, key: &str) -> u32 {
        get(&self.servers[0], &["CLUSTER", "KEYSLOT", key])
    }

    /// Moves a key's slot to the next of them, a key at a time; which that is.
    pub(super) fn pass_on(&self, key: &str) -> usize {
        let slot = self.slot(key);
        let from = self.owner(slot);
        let to = (from + 1) % 3;
        let id = |at: usize| get::<String>(&self.servers[at], &["CLUSTER", "MYID"]);
        let port = self.servers[to].address().port().to_string();
        let slot = slot.to_string();
        self.servers[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        self.servers[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        loop {
            let keys: Vec<String> =
                get(&self.servers[from], &["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let Some(key) = keys.first() else { break };
            self.servers[from].ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        }
        for at in [to, from, 3 - to - from] {
            self.servers[at].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
        }
        to
    }

    /// The one at which nodes meet.
    pub(super) fn hub(&self) -> &Redis {
        &self.servers[self.owner(self.slot(HUB))]
    }
}

fn say(room: &str, payload: &Value) -> Value {
    json!({"type": "chat", "room": room, "payload": payload})
}

on_both_drivers! {
    fn rooms_with_shared_histories_are_spread_over_a_cluster_and_all_else_is_as_ever(driver) {
        let slots = Slots::start();
        let nodes = slots.nodes(driver);
        for node in &nodes {
            wait_until("they know of each other", || bridge(node, "bridge_nodes") == 1);
        }
        let mut clients = nodes.each_ref().map(|node| Client::connect(node.address()));
        clients.iter_mut().for_each(|client| _ = client.join("plain"));
        slots.hub().wait_for_room("plain", 2);
        for number in 0..20 {
            clients[number % 2].send(&say("plain", &json!(number)));
            clients.iter_mut().for_each(|client| assert_eq!(client.next()["payload"], json!(number)));
        }
        let rooms: Vec<String> = (0..24).map(|number| format!("shared:{number}")).collect();
        let mut epochs = Vec::new();
        for room in &rooms {
            epochs.push(clients[0].join(room)["epoch"].clone());
            assert_eq!(clients[1].join(room)["epoch"], *epochs.last().unwrap());
            slots.hub().wait_for_room(room, 2);
            for (author, offset) in [(0, 1), (1, 2)] {
                let reply = clients[author].ask_among(say(room, &json!(offset)));
                assert_eq!(reply["offset"], json!(offset), "{reply}");
                for client in &mut clients {
                    let push = client.next();
                    assert_eq!((&push["room"], &push["offset"]), (&json!(room), &json!(offset)));
                }
            }
        }
        for server in &slots.servers {
            let keys: Vec<String> = get(server, &["KEYS", "throng:place:*"]);
            assert!(!keys.is_empty(), "each has some of the rooms");
        }
        // Who comes back to the other node is served from the stream.
        for (room, epoch) in rooms.iter().zip(&epochs) {
            let mut back = Client::connect(nodes[1].address());
            let cursor = json!({"epoch": epoch, "offset": 0});
            let reply = back.ask(json!({"type": "throng:join", "room": room, "since": cursor}));
            assert_eq!(reply["recovered"], json!(true), "{reply}");
            assert_eq!([back.next()["payload"].clone(), back.next()["payload"].clone()], [1, 2]);
        }
    }

    fn a_slot_that_moves_under_load_costs_nobody_anything(driver) {
        let slots = Slots::start();
        let nodes = slots.nodes(driver);
        let mut clients = nodes.each_ref().map(|node| Client::connect(node.address()));
        let joined = clients[0].join(ROOM);
        clients[1].join(ROOM);
        slots.hub().wait_for_room(ROOM, 2);
        let done = AtomicBool::new(false);
        let sent: u64 = std::thread::scope(|scope| {
            let authors = nodes.each_ref().map(|node| {
                let (done, address) = (&done, node.address());
                scope.spawn(move || {
                    let mut author = Client::connect(address);
                    let mut sent = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        for _ in 0..7 {
                            author.send(&chat(&json!(sent)));
                        }
                        // What is not taken would be an error.
                        let reply = author.ask(chat(&json!("waited for")));
                        assert_eq!(reply["ok"], json!(true), "{reply}");
                        sent += 8;
                    }
                    sent
                })
            });
            let key = format!("throng:place:{{room:{ROOM}}}");
            let mut at = 0;
            for _ in 0..3 {
                let to = slots.pass_on(&key);
                assert_eq!(slots.owner(slots.slot(&key)), to);
                // What is published by the new owner arrives.
                at += 50;
                for client in &mut clients {
                    numbered(client, at - 49, at);
                }
            }
            done.store(true, Ordering::Relaxed);
            let sent = authors.into_iter().map(|author| author.join().unwrap()).sum();
            for client in &mut clients {
                numbered(client, at + 1, sent);
                client.expect_silence();
            }
            sent
        });
        let mut back = Client::connect(nodes[0].address());
        let reply = join_since(&mut back, &since(&joined, sent - 10));
        assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(true), &json!(sent)));
        numbered(&mut back, sent - 9, sent);
        for node in &nodes {
            assert_eq!(bridge(node, "bridge_links_total"), 1, "it was not worth a new link");
        }
    }

    fn when_the_slot_of_the_hub_moves_nodes_meet_at_the_new_one(driver) {
        let slots = Slots::start();
        let nodes = slots.nodes(driver);
        let mut clients = nodes.each_ref().map(|node| Client::connect(node.address()));
        clients.iter_mut().for_each(|client| _ = client.join("plain"));
        slots.hub().wait_for_room("plain", 2);
        let to = slots.pass_on(HUB);
        slots.servers[to].wait_for_room("plain", 2);
        for node in &nodes {
            wait_link(node);
            wait_until("they know of each other", || bridge(node, "bridge_nodes") == 1);
        }
        clients[0].send(&say("plain", &json!("there")));
        clients.iter_mut().for_each(|client| assert_eq!(next_but_gaps(client)["payload"], "there"));
    }
}
