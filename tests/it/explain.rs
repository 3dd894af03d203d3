//! What became of a publication, asked of a running node over its admin listener and from the command line.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::admin::{ask, with_admin};
use crate::auth::{enter, guarded, token};
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

/// These tests ask as often as they like.
const OFTEN: &str = "admin.requests_per_second=1000000";

fn get(admin: SocketAddr, query: &str) -> (u16, Value) {
    let (status, body) = ask(admin, &format!("GET /v1/explain?{query}"), "");
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{query}: {status} {body}")))
}

/// The outcome in a word.
fn outcome(admin: SocketAddr, user: &str, offset: u64) -> String {
    let (status, told) = get(admin, &format!("room=lobby&offset={offset}&user={user}"));
    assert_eq!(status, 200, "{told}");
    told["outcome"].as_str().unwrap().to_owned()
}

fn user(name: &str) -> Value {
    json!({"sub": name, "rooms": {"*": ["join", "publish"]}})
}

fn say(client: &mut Client, message: &Value) {
    let mut message = message.clone();
    message["type"] = "t".into();
    message["room"] = "lobby".into();
    client.send(&message);
}

on_both_drivers! {
    fn what_became_of_a_publication_is_told_for_everybody_who_asks(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1], OFTEN]);
        let admin = node.admin_address().expect("an admin listener");
        let [mut ada, mut bob, mut eve, mut author] =
            ["ada", "bob", "eve", "author"].map(|name| enter(node.address(), &user(name)));
        for client in [&mut ada, &mut bob] {
            client.join("lobby");
        }
        say(&mut author, &json!({"except": [bob.id]}));
        assert_eq!(ada.next()["offset"], 1);
        wait_until("the kernel is known to have it", || outcome(admin, "ada", 1) == "written");
        assert_eq!(outcome(admin, "bob", 1), "excepted");
        assert_eq!(outcome(admin, "eve", 1), "not_a_member");
        assert_eq!(outcome(admin, "nobody", 1), "not_connected");
        assert_eq!(outcome(admin, "ada", 2), "not_published");
        let (_, told) = get(admin, "room=lobby&offset=1&user=ada");
        let [one] = &told["connections"].as_array().unwrap()[..] else { panic!("{told}") };
        assert_eq!((&one["clientId"], &one["outcome"]), (&json!(ada.id), &json!("written")));
        assert!(one["at"].as_u64() >= told["publishedAt"].as_u64(), "{told}");
        assert!(told["text"].as_str().unwrap().starts_with("its connection: written"), "{told}");
        let id = bob.id.clone();
        let (_, told) = get(admin, &format!("room=lobby&offset=1&connection={id}"));
        assert_eq!(told["outcome"], "excepted", "{told}");
        // Who has gone is known by name all the same.
        drop(ada);
        wait_for(&node, "she is gone", |counters| counters.open_connections == 3);
        assert_eq!(outcome(admin, "ada", 1), "written");
        let (_, told) = get(admin, "room=lobby&offset=1&user=ada");
        assert!(told["connections"][0]["endedAt"].is_u64(), "{told}");
        eve.expect_silence();
    }

    fn what_a_slow_reader_has_lost_is_told_with_the_policy_and_by_the_command_line(driver) {
        let sets = with_admin(r#""inspect""#);
        let node = guarded(driver, &[
            &sets[0], &sets[1], "queue.high_water_bytes=20000", "queue.low_water_bytes=5000",
            "queue.max_bytes=60000", "tcp.send_buffer_bytes=8192", "tcp.notsent_lowat_bytes=4096",
            "tcp.user_timeout_ms=60000", "queue.flush_window_us=0", "limits.max_message_bytes=8192", OFTEN,
        ]);
        let admin = node.admin_address().expect("an admin listener");
        let bearer = format!("Bearer {}", token(&user("ada")));
        let mut ada = Client::connect_narrow_with(node.address(), &bearer);
        ada.join("lobby");
        let mut author = enter(node.address(), &user("author"));
        let filler = "x".repeat(1000);
        wait_until("she falls behind", || {
            for _ in 0..20 {
                author.ask(json!({"type": "t", "room": "lobby", "payload": filler}));
            }
            node.counters().dropped_oldest_total > 20
        });
        // What is lost is behind what the kernel took and before what waits.
        let mut words: Vec<String> = Vec::new();
        let last = author.join("lobby")["offset"].as_u64();
        for offset in 1..=last.expect("the newest") {
            let word = outcome(admin, "ada", offset);
            if words.last() != Some(&word) {
                words.push(word);
            }
        }
        let order = ["written", "writing", "dropped", "queued"];
        assert_eq!(words.first().map(String::as_str), Some("written"), "{words:?}");
        assert_eq!(words.last().map(String::as_str), Some("queued"), "{words:?}");
        let places: Vec<_> =
            words.iter().map(|word| order.iter().position(|one| one == word).unwrap()).collect();
        assert!(places.is_sorted() && words.contains(&"dropped".to_owned()), "{words:?}");
        let lost = (1..).find(|offset| outcome(admin, "ada", *offset) == "dropped").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "a secret of sixteen bytes or more\n").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_throng"))
            .args(["explain", "--url", &format!("http://{admin}"), "--key-file", key.to_str().unwrap()])
            .args(["--user", "ada", "--room", "lobby", "--offset", &lost.to_string()])
            .output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("dropped: its connection: dropped, because"), "{text}");
        assert!(text.contains(&ada.id) && text.contains("drop_oldest"), "{text}");
    }

    fn a_key_of_one_tenant_is_told_nothing_of_others_and_nothing_is_told_where_it_is_off(driver) {
        let secret = "a secret of sixteen bytes or more";
        let keys = format!(
            r#"key=[{{name="acme", secret="{secret}", scopes=["inspect"], tenant="acme"}}]"#
        );
        let node_of = |more| guarded(driver, &["admin.listen=127.0.0.1:0", &keys, more, OFTEN]);
        let node = node_of("explain.outcomes=1024");
        let admin = node.admin_address().expect("an admin listener");
        let of = |tenant: &str| {
            let mut claims = user("ada");
            claims["tenant"] = tenant.into();
            claims
        };
        let [mut ours, mut theirs] = ["acme", "other"].map(|name| enter(node.address(), &of(name)));
        for client in [&mut ours, &mut theirs] {
            client.join("lobby");
        }
        say(&mut theirs, &json!({}));
        say(&mut theirs, &json!({}));
        say(&mut ours, &json!({}));
        wait_until("the kernel is known to have it", || outcome(admin, "ada", 1) == "written");
        assert_eq!(outcome(admin, "ada", 2), "not_published", "that is of the other tenant");
        assert_eq!(get(admin, "room=lobby&offset=1&user=ada&tenant=other").0, 403);
        let (_, told) = get(admin, &format!("room=lobby&offset=1&connection={}", theirs.id));
        assert_eq!(told["connections"], json!([]), "{told}");
        node.stop().unwrap();
        let node = node_of("explain.outcomes=0");
        let admin = node.admin_address().expect("an admin listener");
        let (status, told) = get(admin, "room=lobby&offset=1&user=ada");
        assert_eq!((status, &told["error"]["code"]), (501, &json!("not_configured")));
    }

    fn an_event_stream_and_a_replay_are_remembered_as_well(driver) {
        let sets = with_admin(r#""inspect""#);
        let history = r#"namespace=[{pattern="*", history_count=10}]"#;
        let node = node(driver, &[&sets[0], &sets[1], history, OFTEN]);
        let admin = node.admin_address().expect("an admin listener");
        let mut author = Client::connect(node.address());
        say(&mut author, &json!({}));
        let epoch = author.join("lobby")["epoch"].clone();
        let mut late = Client::connect(node.address());
        let ask = |id: &str| get(admin, &format!("room=lobby&offset=1&connection={id}")).1;
        assert_eq!(ask(&late.id)["connections"][0].get("outcome"), None, "it came later");
        late.ask(json!({"type": "throng:join", "room": "lobby", "since": {"epoch": epoch, "offset": 0}}));
        assert_eq!(late.next()["offset"], 1);
        wait_until("the replay is written", || ask(&late.id)["outcome"] == "written");
    }
}
