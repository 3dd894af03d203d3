//! Notifications over real sockets: R9, R10, R11.

use std::net::SocketAddr;

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

/// Notifications that come while clients do, and what the one after them says.
const NOTES: u64 = 1200;
const END: u64 = 1;

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

    /// Three users of one name: of two tenants, and of none.
    fn a_key_of_one_tenant_notifies_its_own_users_and_no_others(driver) {
        let secret = crate::admin::SECRET;
        let key = format!(r#"key=[{{name="acme", secret={secret:?}, scopes=["notify"], tenant="acme"}}]"#);
        let node = guarded(driver, &["admin.listen=127.0.0.1:0", &key]);
        let admin = node.admin_address().expect("an admin listener");
        let of = |tenant: &str| enter(node.address(), &json!({"sub": "ada", "tenant": tenant}));
        let mut ours = [of("acme"), of("acme"), of("acme")];
        let mut theirs = [of("other"), of("other"), enter(node.address(), &json!({"sub": "ada"}))];
        let told = notify(admin, "ada", &json!(1));
        assert_eq!(told["delivered"], 3);
        for client in &mut ours {
            assert_eq!(client.next()["payload"], 1);
            assert_eq!(inbox(client, 0)["unread"], 1);
        }
        for tenant in ["other", ""] {
            let body = json!({"user": "ada", "tenant": tenant, "payload": 2}).to_string();
            let (status, answer) = ask(admin, "POST /v1/notify", &body);
            assert!([400, 403].contains(&status) && answer.contains("\"tenant\""), "{answer}");
            let (status, answer) = ask(admin, &format!("GET /v1/inbox?user=ada&tenant={tenant}"), "");
            assert!([400, 403].contains(&status), "{answer}");
        }
        let (_, listed) = ask(admin, "GET /v1/inbox?user=ada", "");
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(payloads(&listed), [1]);
        for client in &mut theirs {
            client.expect_silence();
            assert_eq!(inbox(client, 0)["unread"], 0, "nothing is kept for them either");
        }
        ours.iter_mut().for_each(Client::expect_silence);
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
        let folder = tempfile::tempdir().unwrap();
        let path = format!("store.path={}", folder.path().join("throng.redb").display());
        for store in ["store.path=", &path] {
            come_while_it_goes_on(driver, store);
        }
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

/// Clients come and follow while notifications are sent as fast as they are kept. What each knows is how the
/// whole began, in order and each once.
fn come_while_it_goes_on(driver: &str, store: &str) {
    const COMERS: usize = 12;
    const SENDERS: u64 = 4;
    let sets = ["store.inbox_count=10000", "store.inbox_page=7", store];
    let (node, admin) = post_office(driver, &sets);
    let address = node.address();
    let known: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let come = || {
            let mut all = Vec::new();
            loop {
                let (known, is_end) = come_and_follow(address);
                all.push(known);
                if is_end {
                    return all;
                }
            }
        };
        let comers: Vec<_> = (0..COMERS).map(|_| scope.spawn(come)).collect();
        let send = || (0..NOTES / SENDERS).for_each(|_| _ = notify(admin, "ada", &json!(0)));
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        notify(admin, "ada", &json!(END));
        comers.into_iter().flat_map(|comer| comer.join().unwrap()).collect()
    });
    assert!(known.len() > 2 * COMERS, "{}: most came while it went on", known.len());
    let (mut all, _, _) = whole(&mut enter(address, &json!({"sub": "ada"})));
    all.sort_unstable();
    assert_eq!(all.len() as u64, NOTES + 1);
    for known in known {
        assert_eq!(known, all[..known.len()]);
    }
}

/// All pages up to the newest notification that the first one tells: the ids in them and of what was pushed
/// between them, that newest one, and whether the last of all was there.
fn whole(client: &mut Client) -> (Vec<u64>, u64, bool) {
    let (mut found, mut after, mut until, mut is_end) = (Vec::new(), 0, None, false);
    loop {
        let mut command = json!({"type": "throng:inbox", "after": after, "ref": "page"});
        if let Some(until) = until {
            command["until"] = json!(until);
        }
        client.send(&command);
        let page = loop {
            let message = client.next();
            match message["type"].as_str() {
                // What comes before the first answer is in it.
                Some("throng:notification") if until.is_none() => {}
                Some("throng:notification") => is_end |= take(&message, &mut found),
                _ => break message,
            }
        };
        assert_eq!(page["ok"], true, "{page}");
        let newest = *until.get_or_insert(page["newest"].as_u64().unwrap());
        for item in page["items"].as_array().unwrap() {
            is_end |= take(item, &mut found);
            after = item["id"].as_u64().unwrap();
        }
        if page["more"] == false {
            return (found, newest, is_end);
        }
    }
}

/// Notes the id; true for the last notification of all.
fn take(note: &Value, found: &mut Vec<u64>) -> bool {
    found.push(note["id"].as_u64().unwrap());
    note["payload"] == json!(END)
}

/// A client that fetches its inbox while notifications come, and then follows for a while. The ids that it
/// knows in the end, and whether the last one is among them.
fn come_and_follow(address: SocketAddr) -> (Vec<u64>, bool) {
    let mut client = enter(address, &json!({"sub": "ada"}));
    let (mut found, newest, mut is_end) = whole(&mut client);
    for _ in 0..20 {
        if is_end {
            break;
        }
        let push = client.next();
        assert_eq!(push["type"], "throng:notification");
        assert!(push["id"].as_u64() > Some(newest), "a push that the list has");
        is_end = take(&push, &mut found);
    }
    // Pushes that came between two pages stand among the listed ones.
    found.sort_unstable();
    (found, is_end)
}
