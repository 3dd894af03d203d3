//! Who is online on which node: rows L10 and L11, with a Redis and processes that are killed, stopped and
//! started again.

use std::net::SocketAddr;

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, linked, unlinked, wait_link};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, enter};
use crate::backend::{Backend, Posted, ok};
use crate::events::{events, hook};
use crate::process::Program;
use crate::support::{Client, on_both_drivers, wait_until};

const LEASE: &str = "bridge.lease_ms=1500";
const INTERVAL: &str = "presence.interval_ms=20";
const GRACE: &str = "presence.grace_ms=0";

/// What every node of these tests is told.
pub(super) fn own(name: &str) -> Vec<String> {
    let admin = with_admin(r#""inspect", "publish""#);
    let rest = [
        format!("auth.secret={SECRET:?}"),
        format!("bridge.node={name}"),
        "auth.mode=token".to_owned(),
        "auth.require_expiry=false".to_owned(),
        "admin.requests_per_second=1000000".to_owned(),
    ];
    admin.into_iter().chain(rest).collect()
}

pub(super) fn sets<'a>(own: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    own.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

pub(super) fn node(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Node {
    linked(driver, redis.address(), &sets(&own(name), more))
}

/// A node in a process of its own.
pub(super) fn process(driver: &str, redis: &Redis, name: &str, more: &[&str]) -> Program {
    let (driver, url) =
        (format!("server.driver={driver}"), format!("bridge.url=redis://{}", redis.address()));
    let own = own(name);
    let all = sets(&own, &[&[driver.as_str(), url.as_str()], more].concat());
    let args: Vec<&str> = all.into_iter().flat_map(|set| ["--set", set]).collect();
    Program::start(&args)
}

fn user(address: SocketAddr, name: &str) -> Client {
    enter(address, &json!({"sub": name, "rooms": {"*": ["join", "presence"]}}))
}

/// A client that watches these users, and what it was told first.
fn observer(node: &Node, users: &[&str]) -> (Client, Value) {
    let mut eve = user(node.address(), "eve");
    eve.ask(json!({"type": "throng:watch", "users": users}));
    let first = eve.next();
    (eve, first["users"].clone())
}

/// The only user in the next push.
fn news(eve: &mut Client) -> Value {
    let mut push = eve.next();
    assert_eq!(push["users"].as_array().map(Vec::len), Some(1), "{push}");
    push["users"][0].take()
}

fn query(node: &Node, users: &str) -> Value {
    let path = format!("GET /v1/presence/users?{users}");
    let (status, body) = ask(node.admin_address().unwrap(), &path, "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn wait_users(node: &Node, elsewhere: u64) {
    let what = format!("{elsewhere} users elsewhere");
    wait_until(&what, || bridge(node, "bridge_users_elsewhere") == elsewhere);
}

fn wait_whole(node: &Node, nodes: u64) {
    wait_until("all users are known", || {
        let missing = query(node, "user=x").get("missingNodes").cloned();
        missing.is_none() && bridge(node, "bridge_nodes") == nodes
    });
}

on_both_drivers! {
    fn a_user_is_online_while_any_node_has_it_and_observers_are_told_once(driver) {
        let redis = Redis::start();
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[INTERVAL, GRACE]));
        let (mut eve, first) = observer(&nodes[0], &["ada"]);
        assert_eq!(first, json!([{"user": "ada", "state": "offline"}]));
        let mut there = user(nodes[1].address(), "ada");
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "online"}));
        there.ask(json!({"type": "throng:status", "status": "idle"}));
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "idle"}));
        let here = user(nodes[0].address(), "ada");
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "online"}), "of the two");
        wait_users(&nodes[1], 2);
        drop(here);
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "idle"}), "not offline");
        for node in &nodes {
            wait_until("both nodes say the same", || {
                query(node, "user=ada&user=bob") == json!({"users": [
                    {"user": "ada", "state": "idle"}, {"user": "bob", "state": "offline"},
                ]})
            });
        }
        drop(there);
        let last = news(&mut eve);
        assert_eq!(last["state"], "offline");
        assert!(last["lastSeen"].as_u64() > Some(1_600_000_000_000), "{last}");
        let whois = eve.ask(json!({"type": "throng:whois", "users": ["ada"]}));
        assert_eq!(whois["users"], json!([last]));
        wait_until("so does the other node", || query(&nodes[1], "user=ada")["users"] == json!([last]));
        wait_users(&nodes[0], 0);
        wait_users(&nodes[1], 1);
        eve.expect_silence();
    }

    fn a_user_who_changes_nodes_within_the_grace_is_no_news(driver) {
        let redis = Redis::start();
        let grace = "presence.grace_ms=600000";
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[INTERVAL, grace]));
        let mut ada = user(nodes[0].address(), "ada");
        let (mut eve, first) = observer(&nodes[0], &["ada"]);
        assert_eq!(first, json!([{"user": "ada", "state": "online"}]));
        for round in 0..6 {
            drop(ada);
            let (from, to) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
            let eves = u64::from(round % 2 == 0);
            wait_until("it has gone", || bridge(from, "bridge_users_here") == eves);
            ada = user(to.address(), "ada");
            wait_until("it has come", || bridge(to, "bridge_users_here") == 2 - eves);
        }
        drop(ada);
        let whois = eve.ask(json!({"type": "throng:whois", "users": ["ada"]}));
        assert_eq!(whois["users"], json!([{"user": "ada", "state": "online"}]), "and nothing before");
    }

    fn the_users_of_a_killed_node_go_offline_in_one_push(driver) {
        let redis = Redis::start();
        // So long that all shards have heard of it, however busy they are.
        let interval = "presence.interval_ms=2000";
        let here = node(driver, &redis, "a", &[LEASE, interval, GRACE]);
        let there = process(driver, &redis, "b", &[LEASE]);
        let _bob = user(here.address(), "bob");
        let _others = ["ada", "bob", "cleo"].map(|name| user(there.address, name));
        wait_users(&here, 3);
        let (mut eve, first) = observer(&here, &["ada", "bob", "cleo"]);
        assert_eq!(first.as_array().map(Vec::len), Some(3), "{first}");
        there.signal("-KILL");
        let gone = eve.next();
        let states: Vec<(&str, &str)> = gone["users"].as_array().unwrap().iter()
            .map(|user| (user["user"].as_str().unwrap(), user["state"].as_str().unwrap())).collect();
        let expected = [("ada", "offline"), ("cleo", "offline")];
        assert!(states.len() == 2 && expected.iter().all(|one| states.contains(one)), "{gone}");
        wait_users(&here, 0);
        assert_eq!(bridge(&here, "bridge_nodes"), 0);
        let seen = query(&here, "user=ada&user=bob");
        assert_eq!(seen["users"][1], json!({"user": "bob", "state": "online"}), "it is here too");
        assert!(seen["users"][0]["lastSeen"].is_u64() && seen.get("missingNodes").is_none(), "{seen}");
        eve.expect_silence();
    }

    fn one_of_the_nodes_tells_back_ends_that_a_user_has_come_or_gone(driver) {
        let redis = Redis::start();
        let backend = Backend::open(|_: &Posted| ok(""));
        let hook = hook("all", &backend, r#""online", "offline""#, ", linger_ms=0");
        let hook = format!("webhook=[{hook}]");
        let sets = [hook.as_str(), LEASE, GRACE];
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &sets));
        let third = process(driver, &redis, "c", &[&sets[..], &["limits.messages_per_second=0"]].concat());
        nodes.iter().for_each(|node| wait_whole(node, 2));
        let told = |user: &str| {
            let event = events(&backend, 1).remove(0);
            assert_eq!(event["userId"], user, "{event}");
            event["event"].as_str().unwrap().to_owned()
        };
        let mut eve = user(third.address, "eve");
        assert_eq!(told("eve"), "online");
        let first = user(nodes[0].address(), "ada");
        assert_eq!(told("ada"), "online");
        wait_until("the second knows", || query(&nodes[1], "user=ada")["users"][0]["state"] == "online");
        let second = user(nodes[1].address(), "ada");
        wait_users(&nodes[0], 2);
        drop(first);
        wait_users(&nodes[1], 1);
        drop(second);
        assert_eq!(told("ada"), "offline");
        wait_until("the third knows", || {
            let whois = eve.ask(json!({"type": "throng:whois", "users": ["ada"]}));
            whois["users"][0]["state"] == "offline"
        });
        let _third = user(third.address, "ada");
        assert_eq!(told("ada"), "online");
        nodes.iter().for_each(|node| wait_users(node, 2));
        third.signal("-KILL");
        let gone = events(&backend, 2);
        assert!(gone.iter().all(|event| event["event"] == "offline"), "{gone:?}");
        assert_ne!(gone[0]["userId"], gone[1]["userId"], "each once");
        nodes.iter().for_each(|node| wait_users(node, 0));
        // What a node tells afterwards comes after all that it has told before.
        let _last = [user(nodes[0].address(), "bob"), user(nodes[1].address(), "cleo")];
        let rest = events(&backend, 2);
        assert!(rest.iter().all(|event| event["event"] == "online"), "{rest:?}");
        assert_ne!(rest[0]["userId"], rest[1]["userId"], "and nobody twice");
    }

    fn a_node_that_stood_still_comes_back_with_those_who_are_still_there(driver) {
        let redis = Redis::start();
        let here = node(driver, &redis, "a", &[LEASE, INTERVAL, GRACE]);
        let mut there = process(driver, &redis, "b", &[LEASE, GRACE]);
        let _ada = user(there.address, "ada");
        let bob = user(there.address, "bob");
        wait_users(&here, 2);
        let (mut eve, _) = observer(&here, &["ada"]);
        there.signal("-STOP");
        assert_eq!(news(&mut eve)["state"], "offline");
        wait_users(&here, 0);
        drop(bob);
        there.signal("-CONT");
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "online"}), "its tab is open");
        wait_until("bob is not there", || {
            let bob = &query(&here, "user=bob")["users"][0];
            bob["state"] == "offline" && bridge(&here, "bridge_users_elsewhere") == 1
        });
        wait_whole(&here, 1);
        let counters = there.counters_line();
        assert!(counters.contains("bridge_leases_lost_total=1"), "{counters}");
        there.signal("-KILL");
        assert_eq!(news(&mut eve)["state"], "offline");
    }

    fn a_restart_of_redis_makes_nobody_offline_and_meanwhile_answers_are_partial(driver) {
        let mut redis = Redis::start();
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &[INTERVAL, GRACE]));
        let ada = user(nodes[1].address(), "ada");
        let (mut eve, first) = observer(&nodes[0], &["ada"]);
        wait_users(&nodes[0], 1);
        if first[0]["state"] == "offline" {
            assert_eq!(news(&mut eve)["state"], "online");
        }
        wait_whole(&nodes[0], 1);
        for _ in 0..2 {
            redis.stop();
            nodes.iter().for_each(|node| {
                wait_until("the link is down", || bridge(node, "bridge_up") == 0);
            });
            let seen = json!({"users": [{"user": "ada", "state": "online"}], "missingNodes": ["b"]});
            assert_eq!(query(&nodes[0], "user=ada"), seen);
            redis.restart();
            nodes.iter().for_each(wait_link);
            nodes.iter().for_each(|node| wait_whole(node, 1));
        }
        eve.expect_silence();
        drop(ada);
        assert_eq!(news(&mut eve)["state"], "offline");
    }

    fn a_node_that_comes_late_reads_who_is_there_in_pages(driver) {
        const USERS: usize = 20_000;
        let redis = Redis::start();
        // A node of paper, which has told of its users before anybody was there to hear.
        let mut pipe = redis::pipe();
        pipe.cmd("SADD").arg("throng:nodes").arg("ffffffff-7").ignore();
        pipe.cmd("SET").arg("throng:node:ffffffff-7").arg("paper").ignore();
        pipe.cmd("HSET").arg("throng:users:ffffffff-7").arg("seq").arg(9).arg("whole").arg(1).ignore();
        for number in 0..USERS {
            let name = format!("\u{1e}u{number}");
            pipe.cmd("HSET").arg("throng:users:ffffffff-7").arg(name).arg("a").ignore();
        }
        redis.run(&pipe);
        let late = node(driver, &redis, "a", &[LEASE, GRACE]);
        wait_users(&late, USERS as u64);
        wait_whole(&late, 1);
        let online = json!({"users": [{"user": "u19999", "state": "online"}]});
        wait_until("its shards know", || query(&late, "user=u19999") == online);
        assert_eq!(bridge(&late, "bridge_reads_total"), 1);
        // It tells of one more, and then something that nobody can make sense of without the rest.
        let note = |seq, more| {
            let head = format!(r#"{{"v":1,"tag":4294967295,"node":"paper","life":7,"seq":{seq}"#);
            redis.publish("throng:presence", &format!("{head}{more}}}"));
        };
        note(10, r#","active":["\u001eada"]"#);
        wait_users(&late, USERS as u64 + 1);
        redis.ask(&["HSET", "throng:users:ffffffff-7", "seq", "12", "\u{1e}ada", "a", "\u{1e}bob", "i"]);
        note(12, r#","idle":["\u001ebob"]"#);
        wait_until("it is read again", || bridge(&late, "bridge_reads_total") == 2);
        wait_whole(&late, 1);
        assert_eq!(bridge(&late, "bridge_users_elsewhere"), USERS as u64 + 2);
        redis.ask(&["DEL", "throng:node:ffffffff-7"]);
        wait_users(&late, 0);
        wait_until("its shards know", || query(&late, "user=u0")["users"][0]["state"] == "offline");
        wait_until("the life is forgotten", || redis.ask(&["SCARD", "throng:nodes"]) == redis::Value::Int(1));
    }

    fn without_the_commands_for_it_publications_cross_and_presence_says_that_it_does_not(driver) {
        let redis = Redis::start();
        let rights = ["on", ">pass", "&throng:*", "-@all", "+@connection", "+@pubsub"];
        redis.ask(&[&["ACL", "SETUSER", "old"][..], &rights].concat());
        let login = ["bridge.user=old", "bridge.password=pass"];
        let nodes = ["a", "b"].map(|name| node(driver, &redis, name, &login));
        let mut clients = [user(nodes[0].address(), "ada"), user(nodes[1].address(), "bob")];
        clients.iter_mut().for_each(|client| _ = client.join("lobby"));
        redis.wait_for_room("lobby", 2);
        redis.publish("throng:room:lobby", r#"{"type":"x"}"#);
        clients.iter_mut().for_each(|client| assert_eq!(client.next()["type"], "x"));
        let seen = query(&nodes[0], "user=ada&user=bob");
        let expected = json!({"users": [{"user": "ada", "state": "online"}, {"user": "bob", "state": "offline"}],
            "missingNodes": []});
        assert_eq!(seen, expected);
        assert_eq!(bridge(&nodes[0], "bridge_failures_total"), 0, "the link is as good as before");
        // With those that the documents name it does, and nothing of the link is renewed for it.
        let more = "+multi +exec +get +set +del +sadd +srem +smembers +hset +hdel +hmget +hscan +pexpire";
        let more: Vec<&str> = more.split(' ').chain(["~throng:*"]).collect();
        redis.ask(&[&["ACL", "SETUSER", "old"][..], &more].concat());
        nodes.iter().for_each(|node| wait_whole(node, 1));
        let both = json!({"users": [{"user": "ada", "state": "online"}, {"user": "bob", "state": "online"}]});
        wait_until("presence crosses", || query(&nodes[0], "user=ada&user=bob") == both);
        let [there, here] = nodes;
        there.stop().unwrap();
        wait_until("it could say that it ends", || bridge(&here, "bridge_nodes") == 0);
    }

    fn a_node_says_that_it_ends_and_one_without_a_link_that_it_knows_nobody(driver) {
        let mut redis = Redis::start();
        let long = "bridge.lease_ms=600000";
        let here = node(driver, &redis, "a", &[long, GRACE]);
        let there = node(driver, &redis, "b", &[long, GRACE]);
        let _ada = user(there.address(), "ada");
        wait_users(&here, 1);
        there.stop().unwrap();
        wait_users(&here, 0);
        wait_until("nobody is known to be there", || bridge(&here, "bridge_nodes") == 0);
        redis.stop();
        let alone = unlinked(driver, redis.address(), &sets(&own("c"), &[]));
        let unknown = json!({"users": [{"user": "ada", "state": "offline"}], "missingNodes": []});
        assert_eq!(query(&alone, "user=ada"), unknown);
        let apart = unlinked(driver, redis.address(), &sets(&own("d"), &["bridge.presence=false"]));
        assert_eq!(query(&apart, "user=ada"), json!({"users": [{"user": "ada", "state": "offline"}]}));
    }
}
