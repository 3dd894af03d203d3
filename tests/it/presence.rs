//! Who is there, over real sockets: rows L6, L7, L9, L12, L13, and a stopped process as L1 and L7 say.

use std::net::SocketAddr;
use std::process::{Child, Command};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded, token};
use crate::support::{Client, on_both_drivers, wait_for, wait_until};

const GRACE: &str = "presence.grace_ms=3000";
const INTERVAL: &str = "presence.interval_ms=20";

fn user(name: &str) -> Value {
    json!({"sub": name, "rooms": {"*": ["join", "presence"]}})
}

/// A connection of the user on that shard.
fn tab(node: &Node, name: &str, shard: &str) -> Client {
    for _ in 0..200 {
        let client = enter(node.address(), &user(name));
        if client.shard() == shard {
            return client;
        }
    }
    panic!("200 connections and none on shard {shard}");
}

/// A client that has been told how the user is.
fn observer(node: &Node, name: &str) -> (Client, Value) {
    let mut eve = enter(node.address(), &user("eve"));
    let reply = eve.ask(json!({"type": "throng:watch", "users": [name]}));
    assert_eq!(reply["watching"], 1, "{reply}");
    let first = news(&mut eve);
    (eve, first)
}

/// The only user in the next push.
fn news(eve: &mut Client) -> Value {
    let mut push = eve.next();
    assert_eq!(push["type"], "throng:presence", "{push}");
    assert_eq!(push["users"].as_array().map(Vec::len), Some(1), "{push}");
    push["users"][0].take()
}

/// A client in a process of its own, alive until it is stopped: any byte counts as life.
fn process(address: SocketAddr, claims: &Value) -> Child {
    let script = r#"exec 3<>"/dev/tcp/$1/$2"
        printf 'GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' >&3
        printf 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n' >&3
        printf 'Authorization: Bearer %s\r\n\r\n' "$3" >&3
        while printf '\x8a\x80\x00\x00\x00\x00' >&3; do read -r -t 0.05 -N 4096 -u 3; done"#;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let token = token(claims);
    Command::new("bash").args(["-c", script, "bash", &host, &port, &token]).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

on_both_drivers! {
    fn two_tabs_are_one_user_and_a_return_within_the_grace_is_no_news(driver) {
        let node = guarded(driver, &[GRACE, INTERVAL]);
        let (mut eve, first) = observer(&node, "ada");
        assert_eq!(first, json!({"user": "ada", "state": "offline"}));
        let one = tab(&node, "ada", "0");
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "online"}));
        let mut two = tab(&node, "ada", "1");
        drop(one);
        wait_for(&node, "one tab is left", |c| c.authenticated_connections == 2);
        two.ask(json!({"type": "throng:status", "status": "idle"}));
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "idle"}), "and still there");
        drop(two);
        wait_for(&node, "no tab is left", |c| c.authenticated_connections == 1);
        let back = tab(&node, "ada", "0");
        assert_eq!(news(&mut eve), json!({"user": "ada", "state": "online"}), "active, not back");
        drop(back);
        let last = news(&mut eve);
        assert_eq!(last["state"], "offline", "the first word of it: {last}");
        assert!(last["lastSeen"].as_u64() > Some(1_600_000_000_000), "{last}");
        let whois = eve.ask(json!({"type": "throng:whois", "users": ["ada", "eve"]}));
        assert_eq!(whois["users"], json!([last, {"user": "eve", "state": "online"}]));
        eve.expect_silence();
    }

    fn a_stopped_process_is_given_up_by_the_heartbeat_and_goes_offline(driver) {
        let beat = ["heartbeat.ping_interval_ms=400", "heartbeat.ping_timeout_ms=400"];
        let node = guarded(driver, &["presence.grace_ms=300", INTERVAL, beat[0], beat[1]]);
        let (mut eve, first) = observer(&node, "ada");
        assert_eq!(first["state"], "offline");
        let mut child = process(node.address(), &user("ada"));
        assert_eq!(news(&mut eve)["state"], "online");
        signal(&child, "-STOP");
        let gone = news(&mut eve);
        assert_eq!(gone["state"], "offline", "{gone}");
        assert_eq!(node.counters().heartbeat_lost_total, 1, "its socket was open to the end");
        signal(&child, "-KILL");
        child.wait().unwrap();
    }

    fn a_room_is_shown_across_shards_by_differences(driver) {
        let node = guarded(driver, &[INTERVAL, "presence.grace_ms=0"]);
        let mut eve = tab(&node, "eve", "0");
        let mut ada = [tab(&node, "ada", "0"), tab(&node, "ada", "1")];
        let mut bob = tab(&node, "bob", "1");
        for client in &mut ada {
            client.join("lobby");
        }
        eve.ask(json!({"type": "throng:watch", "room": "lobby"}));
        let whole = eve.next();
        assert_eq!(whole["users"], json!([{"user": "ada", "state": "online"}]), "{whole}");
        assert_eq!(whole["members"], 2);
        bob.join("lobby");
        let diff = eve.next();
        assert_eq!(diff["joined"], json!([{"user": "bob", "state": "online"}]), "{diff}");
        bob.ask(json!({"type": "throng:status", "status": "idle"}));
        assert_eq!(eve.next()["states"], json!([{"user": "bob", "state": "idle"}]));
        let [one, mut two] = ada;
        drop(one);
        let diff = eve.next();
        assert_eq!((&diff["members"], diff.get("left")), (&json!(2), None), "{diff}");
        two.ask(json!({"type": "throng:leave", "room": "lobby"}));
        assert_eq!(eve.next()["left"], json!(["ada"]));
        eve.ask(json!({"type": "throng:unwatch", "room": "lobby"}));
        drop(bob);
        wait_for(&node, "bob is gone", |c| c.authenticated_connections == 2);
        wait_for(&node, "nobody observes", |c| c.presence_rooms + c.presence_watches == 0);
        eve.expect_silence();
    }

    fn back_ends_ask_for_users_and_rooms_of_all_shards(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1], "presence.grace_ms=0"]);
        let admin = node.admin_address().expect("an admin listener");
        let mut tabs: Vec<Client> =
            ["0", "1", "0", "1"].map(|shard| tab(&node, "ada", shard)).into();
        tabs.push(tab(&node, "bob", "1"));
        for client in &mut tabs {
            client.join("lobby");
        }
        let get = |path: &str| -> Value {
            let (code, body) = ask(admin, &format!("GET {path}"), "");
            assert_eq!(code, 200, "{path}: {body}");
            serde_json::from_str(&body).unwrap()
        };
        let users = get("/v1/presence/users?user=ada&user=nobody");
        let expected = json!([{"user": "ada", "state": "online"}, {"user": "nobody", "state": "offline"}]);
        assert_eq!(users["users"], expected);
        let (mut ids, mut path) = (Vec::new(), "/v1/presence/rooms/lobby?limit=2".to_owned());
        loop {
            let page = get(&path);
            assert_eq!(page["members"], 5, "{page}");
            let connections = page["connections"].as_array().unwrap();
            ids.extend(connections.iter().map(|entry| entry["clientId"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/presence/rooms/lobby?limit=2&after={next}");
        }
        let mut all: Vec<String> = tabs.iter().map(|client| client.id.clone()).collect();
        ids.sort();
        all.sort();
        assert_eq!(ids, all, "everybody once");
        drop(tabs);
        wait_for(&node, "all are gone", |c| c.authenticated_connections == 0);
        wait_until("ada is offline, and it is known since when", || {
            get("/v1/presence/users?user=ada")["users"][0]["lastSeen"].is_u64()
        });
        assert_eq!(get("/v1/presence/rooms/lobby")["members"], 0);
    }

    fn members_are_told_with_what_is_known_of_their_connections(driver) {
        let node = guarded(driver, &["presence.metadata=true"]);
        let bearer = |claims: &Value| format!("Bearer {}", token(claims));
        let mut claims = user("ada");
        claims["meta"] = json!({"device": "phone"});
        let headers = [("authorization", &*bearer(&claims)), ("user-agent", "a telephone")];
        let mut ada = Client::connect_with(node.address(), "/ws", &headers);
        ada.join("lobby");
        let mut eve = tab(&node, "eve", if ada.shard() == "0" { "1" } else { "0" });
        let page = eve.ask(json!({"type": "throng:whois", "room": "lobby"}));
        let mut entry = page["connections"][0].clone();
        assert!(entry["connectedAt"].take().as_u64() > Some(1_600_000_000_000), "{page}");
        let expected = json!({
            "clientId": ada.id, "user": "ada", "state": "online", "connectedAt": null,
            "address": "127.0.0.1", "userAgent": "a telephone", "meta": {"device": "phone"},
        });
        assert_eq!(entry, expected);
        assert_eq!((page["connections"].as_array().unwrap().len(), page.get("next")), (1, None));
        let strange = eve.ask(json!({"type": "throng:whois", "room": "nowhere"}));
        assert_eq!((&strange["members"], &strange["connections"]), (&json!(0), &json!([])));
    }
}
