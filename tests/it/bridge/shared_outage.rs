//! Rooms whose history all nodes share, while Redis stumbles. Rows O4, R11 and R13.

use serde_json::{Value, json};

use super::cluster::{Proxy, Redis, bridge, linked, members, wait_link};
use super::shared::{KEEPS, ROOM, SHARED, chat, join_since, numbered, sharing, since};
use crate::support::{Client, on_both_drivers, wait_until};

/// What waits for Redis is numbered when it is back.
fn wait_drained(node: &throng::node::Node) {
    wait_until("nothing waits", || bridge(node, "bridge_shared_queued") == 0);
}

on_both_drivers! {
    fn subscriptions_that_are_killed_under_load_cost_no_member_anything(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        let mut authors = [0, 1].map(|node: usize| Client::connect(nodes[node].address()));
        for round in 1..=5 {
            for number in 0..40 {
                authors.iter_mut().for_each(|author| author.send(&chat(&json!(number))));
                if number == 20 {
                    redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                }
            }
            for node in &nodes {
                wait_until("the link is made again", || {
                    bridge(node, "bridge_links_total") > round && bridge(node, "bridge_up") == 1
                });
            }
        }
        let seen: Vec<Vec<Value>> =
            clients.iter_mut().map(|client| numbered(client, 1, 400)).collect();
        assert_eq!(seen[0], seen[1]);
        clients.iter_mut().for_each(Client::expect_silence);
    }

    fn a_redis_that_comes_back_with_its_data_goes_on_where_it_was(driver) {
        let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        let mut gone = Client::connect(nodes[1].address());
        let joined = gone.join(ROOM);
        for number in 0..100 {
            clients[0].send(&chat(&json!(number)));
        }
        numbered(&mut gone, 1, 50);
        drop(gone);
        redis.stop();
        nodes.iter().for_each(|node| {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
        });
        // They wait, and nobody receives them, not even here.
        for number in 100..150 {
            clients[0].send(&chat(&json!(number)));
        }
        redis.restart();
        nodes.iter().for_each(wait_link);
        let expected: Vec<Value> = (0..150).map(|number| json!(number)).collect();
        for client in &mut clients {
            assert_eq!(numbered(client, 1, 150), expected);
            client.expect_silence();
        }
        let mut back = Client::connect(nodes[0].address());
        assert_eq!(join_since(&mut back, &since(&joined, 50))["recovered"], json!(true));
        assert_eq!(numbered(&mut back, 51, 150), expected[50..]);
        back.expect_silence();
    }

    fn a_redis_that_comes_back_empty_begins_anew_and_members_are_told_once(driver) {
        let mut redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        let joined = Client::connect(nodes[0].address()).join(ROOM);
        clients[0].send(&chat(&json!("before")));
        clients.iter_mut().for_each(|client| _ = numbered(client, 1, 1));
        redis.stop();
        nodes.iter().for_each(|node| {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
        });
        redis.restart();
        nodes.iter().for_each(wait_link);
        let mut epochs = Vec::new();
        for client in &mut clients {
            let resync = client.next();
            let told = (&resync["type"], &resync["reason"], &resync["offset"]);
            assert_eq!(told, (&json!("throng:resync"), &json!("epoch"), &json!(0)), "{resync}");
            epochs.push(resync["epoch"].clone());
        }
        assert_eq!(epochs[0], epochs[1]);
        clients[0].send(&chat(&json!("after")));
        clients.iter_mut().for_each(|client| assert_eq!(numbered(client, 1, 1), [json!("after")]));
        let mut back = Client::connect(nodes[1].address());
        let reply = join_since(&mut back, &since(&joined, 1));
        assert_eq!((&reply["recovered"], &reply["epoch"]), (&json!(false), &epochs[0]));
        assert_eq!(back.next()["reason"], "epoch");
        back.expect_silence();
    }

    fn what_waits_for_redis_is_bounded_and_what_is_beyond_is_refused_to_its_author(driver) {
        let redis = Redis::start();
        let proxy = Proxy::before(redis.address());
        let sets = [SHARED, KEEPS, "bridge.command_timeout_ms=300", "bridge.queue_messages=10"];
        let node = linked(driver, proxy.address, &sets);
        let reader = sharing(driver, &redis, &[]);
        let mut clients = members(&redis, &[&node, &reader], ROOM);
        clients[0].join("plain");
        proxy.stall(true);
        wait_until("the link counts as lost", || bridge(&node, "bridge_up") == 0);
        for number in 0..10 {
            clients[0].send(&chat(&json!(number)));
        }
        let error = clients[0].ask(chat(&json!("one too many")));
        assert_eq!((&error["type"], &error["code"]), (&json!("throng:error"), &json!("overloaded")));
        // Without a `ref` it is told as well, and all else goes on.
        clients[0].send(&chat(&json!("one too many")));
        assert_eq!(clients[0].next()["code"], "overloaded");
        clients[0].send(&json!({"type": "x", "room": "plain", "payload": 1}));
        assert_eq!(clients[0].next()["payload"], 1);
        // Who is new to a room that is known here joins; of one that is not, nobody can say where it is.
        let mut late = Client::connect(node.address());
        assert_eq!(late.join(ROOM)["offset"], json!(0));
        let other = json!({"type": "throng:join", "room": "shared:other"});
        wait_until("it is known that there is no way", || late.ask(other.clone())["code"] == "overloaded");
        proxy.stall(false);
        let expected: Vec<Value> = (0..10).map(|number| json!(number)).collect();
        assert_eq!(numbered(&mut clients[1], 1, 10), expected);
        wait_drained(&node);
        let mut own = clients.swap_remove(0);
        let mut seen = Vec::new();
        while seen.len() < 10 {
            let push = own.next();
            if push["room"] == ROOM {
                seen.push(push["payload"].clone());
            }
        }
        assert_eq!(seen, expected);
        wait_link(&node);
        wait_until("there is a way again", || late.ask_among(other.clone())["ok"] == json!(true));
    }

    fn a_redis_without_memory_refuses_and_nobody_receives(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        assert_eq!(clients[0].ask_among(chat(&json!(1)))["offset"], json!(1));
        clients.iter_mut().for_each(|client| _ = numbered(client, 1, 1));
        redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = clients[0].ask(chat(&json!("too much")));
        assert_eq!(error["code"], "overloaded", "{error}");
        assert!(error["message"].as_str().unwrap().contains("memory"), "{error}");
        clients.iter_mut().for_each(Client::expect_silence);
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(clients[0].ask_among(chat(&json!(2)))["offset"], json!(2));
        clients.iter_mut().for_each(|client| assert_eq!(numbered(client, 2, 2), [json!(2)]));
    }

    fn a_redis_that_has_forgotten_the_scripts_is_given_them_again(driver) {
        let redis = Redis::start();
        let node = sharing(driver, &redis, &[]);
        let mut client = Client::connect(node.address());
        client.join(ROOM);
        for number in 1..=3 {
            redis.ask(&["SCRIPT", "FLUSH", "SYNC"]);
            assert_eq!(client.ask_among(chat(&json!(number)))["offset"], json!(number));
            numbered(&mut client, number, number);
        }
    }
}
