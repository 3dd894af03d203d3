//! Whom a publication reaches: rows R3, R4 and R5, and what clients see of them.

use serde_json::{Value, json};
use throng::node::Node;

use crate::auth::{enter, guarded};
use crate::support::{Client, node, on_both_drivers, wait_for};

/// A client of a user who may do everything, on that shard.
pub(crate) fn enter_shard(node: &Node, claims: &Value, shard: &str) -> Client {
    for _ in 0..200 {
        let client = enter(node.address(), claims);
        if client.shard() == shard {
            return client;
        }
    }
    panic!("200 connections and none on shard {shard}");
}

pub(crate) fn user(name: &str) -> Value {
    json!({"sub": name, "rooms": ["*"]})
}

on_both_drivers! {
    fn users_connections_and_everyone_are_reached_on_every_shard(driver) {
        let node = guarded(driver, &[]);
        let mut ada = ["0", "1"].map(|shard| enter_shard(&node, &user("ada"), shard));
        let mut bob = enter_shard(&node, &user("bob"), "0");
        let mut eve = enter_shard(&node, &json!({"sub": "eve", "tenant": "acme", "rooms": ["*"]}), "1");
        bob.ask(json!({"type": "x", "users": ["ada", "nobody"], "payload": 1}));
        for client in &mut ada {
            let push = client.next();
            let seen = (&push["user"], &push["payload"], push.get("offset"), push.get("room"));
            assert_eq!(seen, (&json!(true), &json!(1), None, None), "{push}");
            assert_eq!(push["from"], json!(bob.id));
        }
        let ids = [ada[1].id.clone(), eve.id.clone(), "0-fffff-9".to_owned()];
        bob.ask(json!({"type": "x", "connections": ids, "payload": 2}));
        assert_eq!(ada[1].next()["connection"], json!(true));
        ada[1].send(&json!({"type": "x", "everyone": true, "payload": 3}));
        for client in ada.iter_mut().chain([&mut bob]) {
            let push = client.next();
            assert_eq!((&push["everyone"], &push["payload"]), (&json!(true), &json!(3)), "{push}");
            client.expect_silence();
        }
        eve.expect_silence();
    }

    fn who_is_meant_by_several_targets_gets_one_copy_and_the_excepted_none(driver) {
        let node = guarded(driver, &[]);
        let mut clients: Vec<Client> = Vec::new();
        for (name, shard) in [("ada", "0"), ("ada", "1"), ("bob", "0"), ("bob", "1"), ("cyd", "1")] {
            clients.push(enter_shard(&node, &user(name), shard));
        }
        // Sixteen rooms have homes on both shards; cyd is in none.
        let rooms: Vec<String> = (0..16).map(|n| format!("room {n}")).collect();
        for client in &mut clients[..4] {
            rooms.iter().for_each(|room| _ = client.join(room));
        }
        clients[2].join("quiet");
        let ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
        let cases = [
            (json!({"rooms": rooms, "users": ["ada"], "connections": ids}), vec![0, 1, 2, 3, 4]),
            (json!({"rooms": rooms, "everyone": true}), vec![0, 1, 2, 3, 4]),
            (json!({"rooms": rooms, "everyone": true, "except": {"users": ["ada"]}}), vec![2, 3, 4]),
            (json!({"everyone": true, "except": [ids[0], ids[4]]}), vec![1, 2, 3]),
            (json!({"users": ["ada", "bob"], "except": {"rooms": ["quiet"], "connections": [ids[1]]}}),
                vec![0, 3]),
            (json!({"room": rooms[0], "except": {"users": ["cyd"], "rooms": ["quiet"]}}), vec![0, 1, 3]),
        ];
        for (number, (mut message, receivers)) in cases.into_iter().enumerate() {
            message["type"] = json!("x");
            message["payload"] = json!(number);
            clients[4].send(&message);
            // What is sent behind it to each comes behind it.
            for (at, client) in clients.iter_mut().enumerate() {
                if receivers.contains(&at) {
                    let push = client.next();
                    assert_eq!(push["payload"], json!(number), "{message}: {push}");
                }
            }
        }
        wait_for(&node, "no walk is left", |counters| counters.everyone_waiting == 0);
        clients.iter_mut().for_each(Client::expect_silence);
    }

    fn a_message_to_a_user_with_three_connections_is_delivered_to_three_whoever_else_is_there(driver) {
        let node = guarded(driver, &[]);
        let mut ada: Vec<Client> = (0..3).map(|_| enter(node.address(), &user("ada"))).collect();
        let others: Vec<Client> =
            (0..60).map(|n| enter(node.address(), &user(&format!("u{n}")))).collect();
        let before = node.counters();
        ada[0].send(&json!({"type": "x", "users": ["ada"]}));
        ada.iter_mut().for_each(|client| assert_eq!(client.next()["type"], "x"));
        wait_for(&node, "three deliveries", |counters| {
            counters.deliveries_total == before.deliveries_total + 3
        });
        assert_eq!(node.counters().everyone_waiting, 0);
        drop(others);
    }

    fn without_rights_a_client_reaches_rooms_only(driver) {
        let open = node(driver, &[]);
        let mut client = Client::connect(open.address());
        let id = client.id.clone();
        for target in [json!({"everyone": true}), json!({"connections": [id]}), json!({"users": ["a"]})] {
            let mut message = target;
            message["type"] = json!("x");
            assert_eq!(client.ask(message)["code"], "forbidden");
        }
        let generous = node(driver, &["publish.everyone=true", "publish.connections=true"]);
        let (mut one, mut two) =
            (Client::connect(generous.address()), Client::connect(generous.address()));
        one.send(&json!({"type": "x", "everyone": true, "except": [one.id]}));
        assert_eq!(two.next()["everyone"], json!(true));
        two.send(&json!({"type": "x", "connections": [one.id]}));
        assert_eq!(one.next()["connection"], json!(true));
    }
}
