//! Redis goes away, comes back, kills connections and stands still; nodes go on. Row O4.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Proxy, Redis, bridge, linked, members, next_but_gaps, unlinked, wait_link};
use crate::admin::{ask, with_admin};
use crate::support::{Client, on_both_drivers, wait_until};

fn say(client: &mut Client, payload: &Value) {
    client.send(&json!({"type": "chat", "room": "lobby", "payload": payload}));
}

/// Publishes on the first until the second hears it; then the link carries again.
fn probe(clients: &mut [Client]) {
    say(&mut clients[0], &json!("probe"));
    assert_eq!(next_but_gaps(&mut clients[0])["payload"], "probe");
    while next_but_gaps(&mut clients[1])["payload"] != "probe" {}
}

fn gap() -> Value {
    json!({"type": "throng:gap", "room": "lobby", "lost": null})
}

on_both_drivers! {
    fn redis_restarts_under_load_and_nothing_that_fits_the_queue_is_lost(driver) {
        let mut redis = Redis::start();
        let sets = with_admin(r#""publish""#);
        let lenient = ["bridge.ready_without=false", "bridge.ready_without=true"];
        let nodes = lenient.map(|set| linked(driver, redis.address(), &[&sets[0], &sets[1], set]));
        let admin = nodes[0].admin_address().unwrap();
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        for number in 0..100 {
            say(&mut clients[0], &json!(number));
        }
        redis.stop();
        for node in &nodes {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
        }
        let down = json!(["the link to other nodes is down"]);
        let ready = |node: &Node| {
            let (status, body) = ask(node.admin_address().unwrap(), "GET /readyz", "");
            (status, serde_json::from_str::<Value>(&body).unwrap())
        };
        let expected = json!({"ready": false, "reasons": down, "degraded": down});
        assert_eq!(ready(&nodes[0]), (503, expected));
        let expected = json!({"ready": true, "reasons": [], "degraded": down});
        assert_eq!(ready(&nodes[1]), (200, expected), "as it was told");
        for number in 100..200 {
            say(&mut clients[0], &json!(number));
        }
        for number in 0..200 {
            assert_eq!(clients[0].next()["payload"], json!(number), "delivery here goes on");
        }
        redis.restart();
        nodes.iter().for_each(wait_link);
        redis.wait_for_room("lobby", 2);
        probe(&mut clients);
        assert_eq!(ask(admin, "GET /readyz", "").1, "{\"ready\":true,\"reasons\":[]}\n");
        assert_eq!(bridge(&nodes[0], "bridge_dropped_total"), 0);
        assert!(bridge(&nodes[1], "bridge_gaps_total") >= 1, "the members were told");
    }

    fn what_is_published_while_the_link_is_down_arrives_once_when_it_is_back(driver) {
        let redis = Redis::start();
        let proxy = Proxy::before(redis.address());
        let author = linked(driver, proxy.address, &["bridge.command_timeout_ms=300"]);
        // Its own link stays, so whatever is published at last finds its subscription.
        let reader = linked(driver, redis.address(), &[]);
        let mut clients = members(&redis, &[&author, &reader], "lobby");
        proxy.stall(true);
        for number in 0..100 {
            say(&mut clients[0], &json!(number));
            assert_eq!(clients[0].next()["payload"], json!(number));
        }
        wait_until("the link counts as lost", || bridge(&author, "bridge_up") == 0);
        for number in 100..200 {
            say(&mut clients[0], &json!(number));
            assert_eq!(clients[0].next()["payload"], json!(number));
        }
        proxy.stall(false);
        for number in 0..200 {
            assert_eq!(clients[1].next()["payload"], json!(number));
        }
        wait_link(&author);
        assert_eq!(clients[0].next(), gap(), "what came from elsewhere may be missing");
        probe(&mut clients);
        assert_eq!(bridge(&author, "bridge_dropped_total"), 0);
    }

    fn killed_connections_come_back_with_their_subscriptions(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        for round in 1..=3 {
            redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            for node in &nodes {
                wait_until("the link is made again", || {
                    bridge(node, "bridge_links_total") > round && bridge(node, "bridge_up") == 1
                });
            }
            redis.wait_for_room("lobby", 2);
            for client in &mut clients {
                assert_eq!(client.next(), gap(), "members are told");
            }
            probe(&mut clients);
        }
    }

    fn a_redis_that_stands_still_holds_up_nobody_and_is_noticed(driver) {
        let redis = Redis::start();
        let proxy = Proxy::before(redis.address());
        let nodes = [(); 2].map(|()| linked(driver, proxy.address, &["bridge.command_timeout_ms=300"]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "lobby");
        proxy.stall(true);
        for number in 0..500 {
            say(&mut clients[0], &json!(number));
            assert_eq!(clients[0].next()["payload"], json!(number));
        }
        for node in &nodes {
            wait_until("the link counts as lost", || bridge(node, "bridge_up") == 0);
        }
        say(&mut clients[0], &json!("still here"));
        assert_eq!(clients[0].next()["payload"], "still here");
        proxy.stall(false);
        nodes.iter().for_each(wait_link);
        redis.wait_for_room("lobby", 2);
        probe(&mut clients);
    }

    fn more_than_may_wait_is_dropped_counted_and_told(driver) {
        let mut redis = Redis::start();
        let author = linked(driver, redis.address(), &["bridge.queue_messages=10"]);
        let reader = linked(driver, redis.address(), &[]);
        let mut clients = members(&redis, &[&author, &reader], "lobby");
        redis.stop();
        wait_until("the link is down", || bridge(&author, "bridge_up") == 0);
        for number in 0..50 {
            say(&mut clients[0], &json!(number));
            assert_eq!(clients[0].next()["payload"], json!(number));
        }
        wait_until("some are dropped", || bridge(&author, "bridge_dropped_total") == 40);
        assert_eq!(bridge(&author, "bridge_queued"), 10);
        redis.restart();
        [&author, &reader].into_iter().for_each(wait_link);
        redis.wait_for_room("lobby", 2);
        wait_until("there is space again", || bridge(&author, "bridge_queued") == 0);
        probe(&mut clients);
        assert!(bridge(&reader, "bridge_gaps_total") >= 1);
    }

    fn a_node_serves_without_redis_and_links_up_when_there_is_one(driver) {
        let mut redis = Redis::start();
        redis.stop();
        let node = unlinked(driver, redis.address(), &[]);
        let mut client = Client::connect(node.address());
        client.join("lobby");
        say(&mut client, &json!("alone"));
        assert_eq!(client.next()["payload"], "alone");
        redis.restart();
        wait_link(&node);
        redis.wait_for_room("lobby", 1);
        assert_eq!(client.next(), gap(), "what others published before may be missing");
        client.expect_silence();
    }
}
