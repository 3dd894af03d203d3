//! Inboxes, and what is stored first, in a Redis that is not one server: a cluster in which their slot moves, a primary that
//! another one follows, and TLS with a user of few rights. Rows O4 and R9.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use throng::node::Node;
use throng::store::Shared;

use super::cluster::wait_link;
use super::inboxes::{ada, inbox, notify, sets, try_notify, try_notify_at};
use super::sealed::Sealed;
use super::sentinel::{self, Family};
use super::slots::Slots;
use crate::admin::ask;
use crate::auth::enter;
use crate::support::{node, on_both_drivers};

/// A page of the inbox takes all that these tests keep.
const ROOMY: [&str; 2] = ["store.inbox_count=10000", "store.inbox_page=1000"];

fn start(driver: &str, name: &str, place: &[String], more: &[&str]) -> Node {
    let own = sets(name);
    let given: Vec<&str> = place.iter().chain(&own).map(String::as_str).collect();
    node(driver, &[&given[..], &ROOMY, more].concat())
}

on_both_drivers! {
    fn in_a_cluster_an_inbox_is_one_for_all_nodes_and_its_slot_moves_under_load(driver) {
        let slots = Slots::start();
        let nodes = [0, 1].map(|at: usize| {
            // A busy machine takes its time over a slot.
            let patient = ["bridge.command_timeout_ms=20000"];
            let node = start(driver, &format!("n{at}"), &slots.place(at), &patient);
            wait_link(&node);
            node
        });
        let mut clients = nodes.each_ref().map(|node| ada(node.address()));
        let told = notify(&nodes[0], "first", 0);
        for client in &mut clients {
            let push = client.next();
            assert_eq!((&push["id"], &push["payload"]), (&told["id"], &json!(0)), "{push}");
        }
        let (status, again) = try_notify(&nodes[1], "first", 0);
        assert_eq!((status, &again["id"]), (200, &told["id"]), "kept before, by the other node");
        let key = Shared::key("throng");
        let done = AtomicBool::new(false);
        let kept: u64 = std::thread::scope(|scope| {
            let authors = [0, 1].map(|at: u64| {
                let (done, admin) = (&done, nodes[usize::try_from(at).unwrap()].admin_address().unwrap());
                scope.spawn(move || {
                    let mut kept = 0;
                    while !done.load(Ordering::Relaxed) || kept == 0 {
                        let (status, answer) = try_notify_at(admin, &format!("{at}:{kept}"), at);
                        assert_eq!(status, 201, "{answer}");
                        kept += 1;
                    }
                    kept
                })
            });
            for _ in 0..3 {
                let to = slots.pass_on(&key);
                assert_eq!(slots.owner(slots.slot(&key)), to);
                notify(&nodes[0], &format!("moved to {to}"), 2);
            }
            done.store(true, Ordering::Relaxed);
            authors.into_iter().map(|author| author.join().unwrap()).sum()
        });
        let mut late = nodes.each_ref().map(|node| ada(node.address()));
        for client in &mut late {
            let (payloads, unread) = inbox(client);
            assert_eq!(unread, 1 + 3 + kept);
            let of = |whose| payloads.iter().filter(|payload| **payload == whose).count();
            assert_eq!((of(0) + of(1), of(2)), (usize::try_from(1 + kept).unwrap(), 3));
        }
        late[0].ask_among(json!({"type": "throng:read", "all": true}));
        assert_eq!(inbox(&mut late[1]), (vec![], 0));
    }

    fn what_was_acknowledged_is_there_after_sentinels_have_chosen_another_primary(driver) {
        let mut family = Family::start();
        let place = family.place();
        let nodes = ["a", "b"].map(|name| {
            let node = start(driver, name, &place, &["store.redis_replicas=1"]);
            sentinel::wait_link(&node);
            node
        });
        (0..20).for_each(|at| _ = notify(&nodes[at % 2], &at.to_string(), at.try_into().unwrap()));
        let old = family.primary().address().port();
        family.primary().stop();
        let (status, answer) = try_notify(&nodes[0], "lost", 99);
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_failed")), "{answer}");
        family.wait_for_other(old);
        for (at, node) in nodes.iter().enumerate() {
            let id = format!("after {at}");
            sentinel::wait_until("the store does again", || try_notify(node, &id, 20 + at as u64).0 < 300);
        }
        for node in &nodes {
            assert_eq!(inbox(&mut ada(node.address())), ((0..22).collect(), 22));
        }
        let (status, answer) = try_notify(&nodes[1], "0", 0);
        assert_eq!(status, 200, "known to whoever is the primary now: {answer}");
    }

    fn what_was_stored_first_is_there_for_the_next_node_of_that_name_and_for_no_other(driver) {
        let slots = Slots::start();
        let keeps = r#"namespace=[{pattern="*", history_count=100, idempotency_window_ms=600000}]"#;
        let begin = |name: &str, at: usize| {
            let more = ["bridge.command_timeout_ms=20000", keeps];
            let node = start(driver, name, &slots.place(at), &more);
            wait_link(&node);
            node
        };
        let persist = |node: &Node, number: u64| {
            let body = json!({"type": "x", "room": "r", "payload": number, "id": number.to_string(), "persist": true});
            let (status, answer) = ask(node.admin_address().unwrap(), "POST /v1/publish", &body.to_string());
            assert_eq!(status, 200, "{answer}");
            serde_json::from_str::<Value>(&answer).unwrap()
        };
        let (here, there) = (begin("a", 0), begin("b", 1));
        // Nobody is there who would have it cross.
        persist(&there, 9);
        let member = |node: &Node| enter(node.address(), &json!({"sub": "ada", "rooms": ["*"]}));
        let told = [1, 2, 3].map(|number| persist(&here, number)["offsets"]["r"].take());
        assert_eq!(told.each_ref().map(|place| &place["offset"]), [&json!(1), &json!(2), &json!(3)]);
        drop(here);
        let here = begin("a", 2);
        let since = json!({"epoch": told[0]["epoch"], "offset": 0});
        let again = json!({"type": "throng:join", "room": "r", "since": since});
        let mut back = member(&here);
        let reply = back.ask(again.clone());
        assert_eq!((&reply["recovered"], &reply["offset"]), (&json!(true), &json!(3)), "{reply}");
        (1..=3).for_each(|number| assert_eq!(back.next()["payload"], json!(number)));
        assert_eq!(persist(&here, 3)["duplicate"], json!(true), "known after the end as well");
        assert_eq!(persist(&here, 4)["offsets"]["r"]["offset"], json!(4));
        let mut other = member(&there);
        assert_ne!(other.ask_among(again)["recovered"], json!(true), "a history of its own");
    }

    fn over_tls_a_user_with_the_documented_rights_keeps_inboxes(driver) {
        let sealed = Sealed::start(&["127.0.0.1"]);
        let rights = ["+@connection", "+@pubsub", "+eval", "+hget", "+hset", "+hdel", "+hmget", "+zadd", "+zrem",
            "+zrangebylex", "+wait"];
        let user = ["ACL", "SETUSER", "throng", "on", ">secret", "~throng:*", "&throng:*"];
        sealed.redis.ask(&[&user[..], &rights[..]].concat());
        let own = sealed.authority.issue("a node", &["node.example"]);
        let mut place = sealed.sets(&sealed.authority, Some(&own));
        place.extend(["bridge.user=throng", "bridge.password=secret"].map(str::to_owned));
        let here = start(driver, "a", &place, &["bridge.presence=false"]);
        wait_link(&here);
        notify(&here, "first", 1);
        assert_eq!(inbox(&mut ada(here.address())), (vec![1], 1));
    }
}
