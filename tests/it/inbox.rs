//! Notifications over real sockets: R9, R10, R11.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded};
use crate::support::{Client, on_both_drivers};

/// A node with users and a listener that notifies them.
pub(crate) fn post_office(driver: &str, sets: &[&str]) -> (Node, SocketAddr) {
    let admin = with_admin(r#""notify", "revoke", "inspect""#);
    let own = [admin[0].as_str(), admin[1].as_str(), "admin.requests_per_second=1000000"];
    let node = guarded(driver, &[&own, sets].concat());
    let address = node.admin_address().expect("an admin listener");
    (node, address)
}

/// Notifies a user; what is answered.
pub(crate) fn notify(admin: SocketAddr, user: &str, payload: &Value) -> Value {
    let body = json!({"user": user, "payload": payload, "type": "mail"}).to_string();
    let (status, answer) = ask(admin, "POST /v1/notify", &body);
    assert_eq!(status, 201, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// Notifications that come while clients do.
const NOTES: u64 = 600;

fn inbox(client: &mut Client, after: u64) -> Value {
    client.ask(json!({"type": "throng:inbox", "after": after}))
}

fn payloads(page: &Value) -> Vec<u64> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["payload"].as_u64().unwrap()).collect()
}

/// Clients of one user until both shards have one.
fn on_both_shards(address: SocketAddr, user: &str) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    while !["0", "1"].iter().all(|shard| clients.iter().any(|client| client.shard() == *shard)) {
        assert!(clients.len() < 200, "200 connections and none on one of the shards");
        clients.push(enter(address, &json!({"sub": user})));
    }
    clients
}

on_both_drivers! {
    fn a_notification_is_kept_and_then_pushed_to_every_connection_of_its_user(driver) {
        let (node, admin) = post_office(driver, &[]);
        let mut ada = on_both_shards(node.address(), "ada");
        let mut bob = enter(node.address(), &json!({"sub": "bob"}));
        let told = notify(admin, "ada", &json!({"n": 1}));
        assert_eq!(told["delivered"], ada.len());
        for client in &mut ada {
            let push = client.next();
            let expected = json!({
                "type": "throng:notification", "id": told["id"], "at": told["at"], "kind": "mail",
                "payload": {"n": 1}, "unread": 1
            });
            assert_eq!(push, expected);
            let page = inbox(client, 0);
            assert_eq!((&page["items"][0]["id"], &page["newest"]), (&told["id"], &told["id"]));
        }
        bob.expect_silence();
        assert_eq!(inbox(&mut bob, 0)["unread"], 0);
        assert_eq!(node.counters().notifications_total, ada.len() as u64);
    }

    fn who_was_away_finds_what_came_meanwhile_and_the_sender_learns_that_nobody_was_there(driver) {
        let (node, admin) = post_office(driver, &[]);
        let told: Vec<Value> = (0..3).map(|n| notify(admin, "ada", &json!(n))).collect();
        assert!(told.iter().all(|told| told["delivered"] == 0), "{told:?}");
        let mut ada = enter(node.address(), &json!({"sub": "ada"}));
        ada.expect_silence();
        let page = inbox(&mut ada, 0);
        assert_eq!((payloads(&page), &page["unread"]), (vec![0, 1, 2], &json!(3)));
        let page = inbox(&mut ada, told[1]["id"].as_u64().unwrap());
        assert_eq!(payloads(&page), [2]);
        let (status, body) = ask(admin, "GET /v1/inbox?user=ada", "");
        let listed: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, payloads(&listed)), (200, vec![0, 1, 2]));
    }

    fn what_one_connection_reads_the_others_are_told(driver) {
        let (node, admin) = post_office(driver, &[]);
        let told: Vec<Value> = (0..4).map(|n| notify(admin, "ada", &json!(n))).collect();
        let mut ada = on_both_shards(node.address(), "ada");
        let mut reader = ada.pop().unwrap();
        let reply = reader.ask(json!({"type": "throng:read", "ids": [told[0]["id"], told[2]["id"]]}));
        assert_eq!((&reply["ok"], &reply["unread"]), (&json!(true), &json!(2)));
        for client in &mut ada {
            assert_eq!(client.next(), json!({"type": "throng:unread", "unread": 2}));
        }
        let again = reader.ask(json!({"type": "throng:read", "ids": [told[0]["id"]]}));
        assert_eq!(again["unread"], 2);
        for client in &mut ada {
            client.expect_silence();
        }
        assert_eq!(payloads(&inbox(&mut reader, 0)), [1, 3]);
        assert_eq!(reader.ask(json!({"type": "throng:read", "all": true}))["unread"], 0);
        for client in &mut ada {
            assert_eq!(client.next(), json!({"type": "throng:unread", "unread": 0}));
        }
        notify(admin, "ada", &json!(9));
        let (status, body) = ask(admin, "POST /v1/inbox/read", r#"{"user":"ada","all":true}"#);
        assert_eq!((status, body.trim()), (200, r#"{"unread":0}"#));
        for client in ada.iter_mut().chain([&mut reader]) {
            assert_eq!(client.next()["type"], "throng:notification");
            assert_eq!(client.next(), json!({"type": "throng:unread", "unread": 0}));
        }
    }

    fn at_the_seam_of_list_and_pushes_nothing_is_missing_and_nothing_comes_twice(driver) {
        const COMERS: usize = 12;
        let sets = ["store.inbox_count=10000", "store.inbox_page=7"];
        let (node, admin) = post_office(driver, &sets);
        let (address, done) = (node.address(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let ids: Vec<u64> = (0..NOTES)
                    .map(|n| notify(admin, "ada", &json!(n))["id"].as_u64().unwrap())
                    .collect();
                done.store(true, Ordering::Release);
                ids
            });
            let comers: Vec<_> = (0..COMERS).map(|_| scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::Acquire) || rounds == 0 {
                    come_and_follow(address);
                    rounds += 1;
                }
                rounds
            })).collect();
            let ids = sender.join().unwrap();
            assert!(ids.is_sorted_by(|a, b| a < b));
            let rounds: usize = comers.into_iter().map(|comer| comer.join().unwrap()).sum();
            assert!(rounds > COMERS, "{rounds}: most came while it went on");
            let mut last = enter(address, &json!({"sub": "ada"}));
            assert_eq!(whole(&mut last).0, ids.iter().copied().zip(0..NOTES).collect::<Vec<_>>());
        });
    }

    fn anonymous_clients_have_no_inbox_and_without_tokens_nobody_is_notified(driver) {
        let admin = with_admin(r#""notify""#);
        let node = crate::support::node(driver, &[&admin[0], &admin[1]]);
        let address = node.admin_address().expect("an admin listener");
        let (status, answer) = ask(address, "POST /v1/notify", r#"{"user":"ada","payload":1}"#);
        assert!(status == 501 && answer.contains("auth.mode"), "{answer}");
        let mut client = Client::connect(node.address());
        assert_eq!(inbox(&mut client, 0)["code"], "unauthorized");
    }

    fn a_notification_that_no_client_could_take_is_refused(driver) {
        let (_node, admin) = post_office(driver, &["limits.max_message_bytes=1024"]);
        let body = json!({"user": "ada", "payload": "x".repeat(1024)}).to_string();
        let (status, answer) = ask(admin, "POST /v1/notify", &body);
        assert!(status == 400 && answer.contains("limits.max_message_bytes = 1024"), "{answer}");
    }
}

/// All pages up to the newest notification that the first one tells; what they hold, and that newest one.
fn whole(client: &mut Client) -> (Vec<(u64, u64)>, u64) {
    let (mut found, mut after, mut until) = (Vec::new(), 0, None);
    loop {
        let mut command = json!({"type": "throng:inbox", "after": after, "ref": "page"});
        if let Some(until) = until {
            command["until"] = json!(until);
        }
        client.send(&command);
        let page = loop {
            let message = client.next();
            match message["type"].as_str() {
                // What comes before the first answer is in it; what comes later is looked at later.
                Some("throng:notification") if until.is_none() => {}
                Some("throng:notification") => found.push(pair(&message)),
                _ => break message,
            }
        };
        assert_eq!(page["ok"], true, "{page}");
        let items = page["items"].as_array().unwrap().iter().map(pair);
        let listed: Vec<(u64, u64)> = items.collect();
        let newest = *until.get_or_insert(page["newest"].as_u64().unwrap());
        after = listed.last().map_or(after, |(id, _)| *id);
        found.extend(listed);
        if page["more"] == false {
            return (found, newest);
        }
    }
}

fn pair(note: &Value) -> (u64, u64) {
    (note["id"].as_u64().unwrap(), note["payload"].as_u64().unwrap())
}

/// A client that fetches its inbox while notifications come, and then follows. What it knows in the end is
/// what there was, each once.
fn come_and_follow(address: SocketAddr) {
    let mut client = enter(address, &json!({"sub": "ada"}));
    let (mut found, newest) = whole(&mut client);
    let listed = found.len();
    for _ in 0..20 {
        if found.iter().any(|(_, number)| *number == NOTES - 1) {
            break;
        }
        let push = client.next();
        assert_eq!(push["type"], "throng:notification");
        assert!(push["id"].as_u64() > Some(newest), "a push that the list has");
        found.push(pair(&push));
    }
    // Pushes that came between two pages stand among the listed ones.
    found.sort_unstable();
    let numbers: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
    assert!(numbers.iter().copied().eq(0..found.len() as u64), "{listed} listed: {numbers:?}");
}
