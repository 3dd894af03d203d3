//! One-time tickets that any node takes: once, whoever asks at the same time and whatever becomes of Redis.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};

use serde_json::Value;
use throng::node::Node;

use super::cluster::{Redis, bridge, linked, wait_link};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, knock, status};
use crate::support::{Client, on_both_drivers, wait_for, wait_until};

const SHARED: &str = "bridge.ticket_secret=one secret of all nodes, of no less than 32 bytes";

fn node(driver: &str, redis: &Redis, more: &[&str]) -> Node {
    let secret = format!("auth.secret={SECRET:?}");
    let own = ["auth.mode=token", &secret, "auth.sources=[\"ticket\"]"];
    let admin = with_admin(r#""tickets", "revoke""#);
    linked(driver, redis.address(), &[&own[..], &[&*admin[0], &*admin[1]], more].concat())
}

fn mint(node: &Node, body: &str) -> (String, Value) {
    let (status, answer) = ask(node.admin_address().unwrap(), "POST /v1/tickets", body);
    assert_eq!(status, 201, "{answer}");
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    (answer["ticket"].as_str().unwrap().to_owned(), answer["nodes"].take())
}

fn mint_for_all(node: &Node, body: &str) -> String {
    let mut made = (String::new(), Value::Null);
    wait_until("the node knows the era", || {
        made = mint(node, body);
        made.1 == "all"
    });
    made.0
}

fn present(address: SocketAddr, ticket: &str) -> String {
    knock(address, &format!("/ws?ticket={ticket}"), &[])
}

fn enter(node: &Node, ticket: &str) -> String {
    status(&present(node.address(), ticket)).to_owned()
}

const ADA: &str = r#"{"user":"ada","tokenId":"t7","rooms":["lobby"]}"#;

on_both_drivers! {
    fn a_ticket_of_one_node_lets_in_once_on_any(driver) {
        let redis = Redis::start();
        let nodes = [(); 3].map(|()| node(driver, &redis, &[SHARED]));
        for (maker, user) in [(0, 0), (0, 1), (1, 2), (2, 0)] {
            let ticket = mint_for_all(&nodes[maker], ADA);
            let target = format!("/ws?ticket={ticket}");
            let mut client = Client::connect_with(nodes[user].address(), &target, &[]);
            client.join("lobby");
            for node in &nodes {
                assert_eq!(enter(node, &ticket), "401", "made by {maker}, used on {user}");
            }
            wait_for(&nodes[user], "used", |counters| counters.auth_ticket_total >= 1);
        }
        let ticket = mint_for_all(&nodes[0], ADA);
        let (code, _) = ask(
            nodes[0].admin_address().unwrap(),
            "POST /v1/revocations",
            r#"{"tokenId":"t7"}"#,
        );
        assert_eq!(code, 200);
        wait_until("the others know", || bridge(&nodes[2], "bridge_revocations_heard_total") == 1);
        assert_eq!(enter(&nodes[2], &ticket), "401", "revoked");
    }

    fn nodes_that_race_for_a_ticket_let_in_one(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| node(driver, &redis, &[SHARED]));
        let addresses = nodes.each_ref().map(Node::address);
        for round in 0..16 {
            let ticket: Arc<str> = mint_for_all(&nodes[round % 2], ADA).into();
            let gate = Arc::new(Barrier::new(8));
            let runners: Vec<_> = (0..8)
                .map(|runner| {
                    let (ticket, gate) = (Arc::clone(&ticket), Arc::clone(&gate));
                    runner_thread(move || {
                        gate.wait();
                        status(&present(addresses[runner % 2], &ticket)).to_owned()
                    })
                })
                .collect();
            let mut answers: Vec<String> =
                runners.into_iter().map(|runner| runner.join().unwrap()).collect();
            answers.sort();
            assert_eq!(answers[0], "101", "round {round}");
            assert!(answers[1..].iter().all(|answer| answer == "401"), "{answers:?}");
        }
    }

    fn without_redis_nobody_can_tell_and_what_it_has_forgotten_is_not_taken_again(driver) {
        let mut redis = Redis::start();
        let nodes = [(); 2].map(|()| node(driver, &redis, &[SHARED]));
        let (used, unused) = (mint_for_all(&nodes[0], ADA), mint_for_all(&nodes[0], ADA));
        assert_eq!(enter(&nodes[1], &used), "101");
        redis.stop();
        for node in &nodes {
            wait_until("the link is down", || bridge(node, "bridge_up") == 0);
            for ticket in [&used, &unused] {
                let answer = present(node.address(), ticket);
                assert_eq!(status(&answer), "503", "{answer}");
                assert!(answer.contains("\r\nRetry-After: "), "{answer}");
            }
            wait_for(node, "it is counted", |counters| counters.tickets_unsure_total == 2);
        }
        // What is made meanwhile is for the node that made it, and needs no Redis.
        let (own, whose) = mint(&nodes[0], ADA);
        assert_eq!(whose, "this");
        assert_eq!(enter(&nodes[1], &own), "401");
        assert_eq!((enter(&nodes[0], &own), enter(&nodes[0], &own)), ("101".into(), "401".into()));
        redis.restart();
        nodes.iter().for_each(wait_link);
        // It has come back empty, and cannot tell the two apart.
        for ticket in [&used, &unused] {
            wait_until("the era is known", || enter(&nodes[0], ticket) != "503");
            assert_eq!((enter(&nodes[0], ticket), enter(&nodes[1], ticket)), ("401".into(), "401".into()));
        }
        let fresh = mint_for_all(&nodes[1], ADA);
        assert_eq!((enter(&nodes[0], &fresh), enter(&nodes[1], &fresh)), ("101".into(), "401".into()));
    }

    fn without_a_shared_secret_a_ticket_is_its_nodes_own(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| node(driver, &redis, &[]));
        let (ticket, whose) = mint(&nodes[0], ADA);
        assert_eq!(whose, Value::Null);
        assert_eq!(enter(&nodes[1], &ticket), "401");
        assert_eq!(enter(&nodes[0], &ticket), "101");
        // Nor is one of those who have another secret.
        let others = ["a", "b"].map(|letter| {
            let secret = format!("bridge.ticket_secret={}", letter.repeat(32));
            node(driver, &redis, &[&secret])
        });
        let ticket = mint_for_all(&others[0], ADA);
        assert_eq!((enter(&others[1], &ticket), enter(&others[0], &ticket)), ("401".into(), "101".into()));
    }
}

#[expect(clippy::disallowed_methods, reason = "clients of a test, not a part of the engine")]
fn runner_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}
