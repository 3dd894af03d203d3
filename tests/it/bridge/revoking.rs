//! What one node takes back no node lets in: revocations over nodes, with a Redis that goes away and forgets.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Proxy, Redis, bridge, linked, unlinked, wait_link};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, enter, knock, status, token};
use crate::support::{Client, on_both_drivers, wait_until};

const SET: &str = "throng:revoked";
/// Beyond any test.
const FAR: u64 = 9_999_999_999;

fn own() -> Vec<String> {
    let rest = ["auth.mode=token".to_owned(), "auth.require_expiry=false".to_owned()];
    let admin = with_admin(r#""revoke""#);
    admin.into_iter().chain(rest).chain([format!("auth.secret={SECRET:?}")]).collect()
}

fn guarded(driver: &str, redis: &Redis) -> Node {
    let own = own();
    linked(driver, redis.address(), &own.iter().map(String::as_str).collect::<Vec<_>>())
}

fn of(user: &str, id: &str) -> Value {
    json!({"sub": user, "iat": 1000, "jti": id})
}

fn client(node: &Node, user: &str, id: &str) -> Client {
    enter(node.address(), &of(user, id))
}

fn revoke(node: &Node, whose: &Value) -> Value {
    let (status, body) =
        ask(node.admin_address().unwrap(), "POST /v1/revocations", &whose.to_string());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["otherNodes"].take()
}

/// True when the door opens for this token.
fn opens(node: &Node, user: &str, id: &str) -> bool {
    let bearer = format!("Bearer {}", token(&of(user, id)));
    let answer = knock(node.address(), "/ws", &[("Authorization", &bearer)]);
    let opens = status(&answer) == "101";
    assert!(opens || status(&answer) == "401", "{answer}");
    opens
}

fn wait_shut(node: &Node, user: &str, id: &str) {
    wait_until("the door is shut", || !opens(node, user, id));
}

fn kept(redis: &Redis) -> i64 {
    redis::from_redis_value(redis.ask(&["ZCARD", SET])).unwrap()
}

fn wait_kept(redis: &Redis, count: i64) {
    wait_until("Redis keeps them", || kept(redis) == count);
}

on_both_drivers! {
    fn what_one_node_takes_back_is_closed_and_refused_on_all(driver) {
        let redis = Redis::start();
        let nodes = [(); 3].map(|()| guarded(driver, &redis));
        let ada: Vec<Client> =
            nodes.iter().flat_map(|node| (0..4).map(|_| client(node, "ada", "a"))).collect();
        let bob = client(&nodes[0], "bob", "b1");
        let mut others = nodes.each_ref().map(|node| client(node, "bob", "b2"));
        assert_eq!(revoke(&nodes[1], &json!({"user": "ada"})), "now");
        assert_eq!(revoke(&nodes[2], &json!({"tokenId": "b1"})), "now");
        for client in ada.into_iter().chain([bob]) {
            assert_eq!(client.close_code(), 1008);
        }
        // A tenant's user of that name is somebody else.
        revoke(&nodes[0], &json!({"user": "bob", "tenant": "acme"}));
        for node in &nodes {
            wait_until("all are heard", || bridge(node, "bridge_revocations_heard_total") == 3);
            assert!(!opens(node, "ada", "a2") && !opens(node, "bob", "b1"));
            enter(node.address(), &json!({"sub": "ada", "iat": FAR - 1})).expect_silence();
        }
        others.iter_mut().for_each(Client::expect_silence);
        assert_eq!(kept(&redis), 3);
        let told = nodes.iter().map(|node| bridge(node, "bridge_revocations_told_total"));
        assert_eq!(told.sum::<u64>(), 3);
    }

    fn a_node_that_comes_later_learns_what_still_holds_and_closes_whom_it_let_in_before(driver) {
        let redis = Redis::start();
        let first = guarded(driver, &redis);
        // More than are read at once.
        for number in 0..600 {
            let note = json!({"v": 1, "token": format!("t{number}"), "until": FAR});
            redis.ask(&["ZADD", SET, &FAR.to_string(), &note.to_string()]);
        }
        let ended = json!({"v": 1, "user": "eve", "issued": FAR, "until": 1000});
        redis.ask(&["ZADD", SET, "1000", &ended.to_string()]);
        revoke(&first, &json!({"user": "ada"}));
        wait_kept(&redis, 601);
        // The one that told it is no more.
        drop(first);
        let proxy = Proxy::before(redis.address());
        proxy.stall(true);
        let own = own();
        let sets: Vec<&str> = own.iter().map(String::as_str).collect();
        let node = unlinked(driver, proxy.address, &sets);
        let early = [client(&node, "ada", "a"), client(&node, "bob", "t599")];
        let mut eve = client(&node, "eve", "e");
        assert_eq!(bridge(&node, "bridge_up"), 0);
        proxy.stall(false);
        for client in early {
            assert_eq!(client.close_code(), 1008);
        }
        for id in ["t0", "t511", "t512"] {
            wait_shut(&node, "bob", id);
        }
        assert!(!opens(&node, "ada", "a"));
        eve.expect_silence();
        assert_eq!(bridge(&node, "bridge_malformed_total"), 0);
    }

    fn a_redis_that_was_away_and_has_forgotten_is_told_again(driver) {
        let mut redis = Redis::start();
        let nodes = [(); 2].map(|()| guarded(driver, &redis));
        revoke(&nodes[0], &json!({"user": "ada"}));
        wait_shut(&nodes[1], "ada", "a");
        wait_kept(&redis, 1);
        let bob = client(&nodes[1], "bob", "b");
        redis.stop();
        for node in &nodes {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
        }
        // It goes on here, and says that the others will know later.
        assert_eq!(revoke(&nodes[0], &json!({"user": "bob"})), "later");
        assert!(!opens(&nodes[0], "bob", "b") && opens(&nodes[1], "bob", "b"));
        redis.restart();
        nodes.iter().for_each(wait_link);
        assert_eq!(bob.close_code(), 1008);
        wait_shut(&nodes[1], "bob", "b");
        // Redis has come back empty: who knew it has told it again, for those who come later.
        wait_kept(&redis, 2);
        let third = guarded(driver, &redis);
        for user in ["ada", "bob"] {
            wait_shut(&third, user, "x");
        }
        assert_eq!(bridge(&third, "bridge_revocations_queued"), 0);
    }

    fn a_redis_that_forgets_under_a_live_link_is_told_again_with_the_next_canary(driver) {
        let redis = Redis::start();
        let nodes = [guarded(driver, &redis), guarded(driver, &redis)];
        for id in ["one", "two"] {
            revoke(&nodes[0], &json!({"tokenId": id}));
        }
        wait_shut(&nodes[1], "ada", "two");
        wait_kept(&redis, 2);
        let links = nodes.each_ref().map(|node| bridge(node, "bridge_links_total"));
        redis.ask(&["FLUSHALL"]);
        wait_kept(&redis, 2);
        // One that comes now learns of them, and nobody had to make a new link.
        let late = guarded(driver, &redis);
        ["one", "two"].iter().for_each(|id| wait_shut(&late, "ada", id));
        assert_eq!(nodes.each_ref().map(|node| bridge(node, "bridge_links_total")), links);
    }

    fn what_redis_refuses_is_told_when_it_no_longer_does_and_what_is_none_is_counted(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| guarded(driver, &redis));
        redis.ask(&["SET", SET, "no set"]);
        assert_eq!(revoke(&nodes[0], &json!({"user": "ada"})), "now");
        // The channel needs no set.
        wait_shut(&nodes[1], "ada", "a");
        redis.ask(&["DEL", SET]);
        wait_kept(&redis, 1);
        for wrong in ["", "{}", r#"{"v":1,"until":5}"#, &"x".repeat(5000)] {
            redis.publish(SET, wrong);
        }
        for node in &nodes {
            wait_until("they are counted", || bridge(node, "bridge_malformed_total") == 4);
            assert_eq!(bridge(node, "bridge_up"), 1);
        }
    }
}

#[test]
fn a_node_alone_says_nothing_of_others() {
    let own = own();
    let node = crate::support::node("epoll", &own.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(revoke(&node, &json!({"user": "ada"})), Value::Null);
    assert!(!opens(&node, "ada", "a"));
}
