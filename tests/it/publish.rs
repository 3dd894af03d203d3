//! Publishing by HTTP and by the command line: rows R7 and R10.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::admin::{ask, ask_whole, with_admin};
use crate::auth::{enter, guarded};
use crate::support::{Client, node, on_both_drivers, wait_until};
use crate::targets::{enter_shard, user};

/// What is answered, and the status.
fn publish(admin: std::net::SocketAddr, body: &Value) -> (u16, Value) {
    let (status, answer) = ask(admin, "POST /v1/publish", &body.to_string());
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

on_both_drivers! {
    fn who_joined_over_the_protocol_is_reached_by_a_publication_over_http(driver) {
        let sets = with_admin(r#""publish""#);
        let node = guarded(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let mut ada = ["0", "1"].map(|shard| enter_shard(&node, &user("ada"), shard));
        let joined: Vec<Value> = ada.iter_mut().map(|client| client.join("lobby")).collect();
        let body = json!({"type": "chat", "room": "lobby", "payload": {"a": 1.5}, "id": "n-1"});
        let (status, answer) = publish(admin, &body);
        let place = json!({"offset": 1, "epoch": joined[0]["epoch"]});
        assert_eq!((status, &answer), (200, &json!({"offsets": {"lobby": place}})));
        for client in &mut ada {
            let push = client.next();
            let expected = json!({"type": "chat", "room": "lobby", "offset": 1, "payload": {"a": 1.5},
                "id": "n-1"});
            assert_eq!(push, expected, "and no connection is named as its author");
        }
        let empty = json!({"type": "chat", "room": "nobody is here", "count": true});
        let nothing = json!({"offsets": {}, "deliveredConnections": 0, "complete": true});
        assert_eq!(publish(admin, &empty), (200, nothing));
    }

    fn a_publication_tells_how_many_connections_it_reached(driver) {
        let sets = with_admin(r#""publish""#);
        let node = guarded(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let mut ada = ["0", "1"].map(|shard| enter_shard(&node, &user("ada"), shard));
        let mut bob = enter_shard(&node, &user("bob"), "1");
        let mut eve = enter(node.address(), &json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]}));
        ada[0].join("lobby");
        bob.join("lobby");
        let cases = [
            (json!({"users": ["ada"]}), 2),
            (json!({"users": ["ada", "bob"], "room": "lobby", "connections": [bob.id]}), 3),
            (json!({"everyone": true}), 3),
            (json!({"everyone": true, "room": "lobby", "except": {"users": ["bob"]}}), 2),
            (json!({"everyone": true, "tenant": "acme"}), 1),
            (json!({"connections": [ada[0].id, eve.id]}), 1),
            (json!({"users": ["offline"]}), 0),
        ];
        let mut batch = Vec::new();
        for (mut message, reached) in cases {
            message["type"] = json!("x");
            message["count"] = json!(true);
            let (status, answer) = publish(admin, &message);
            assert_eq!(status, 200, "{answer}");
            let told = (&answer["deliveredConnections"], &answer["complete"]);
            assert_eq!(told, (&json!(reached), &json!(true)), "{message}");
            batch.push((message, reached));
        }
        let (messages, reached): (Vec<Value>, Vec<u64>) = batch.into_iter().unzip();
        let (_, answer) = publish(admin, &Value::Array(messages));
        let results = answer["results"].as_array().expect("a list").iter();
        let told: Vec<u64> = results.map(|r| r["deliveredConnections"].as_u64().unwrap()).collect();
        assert_eq!(told, reached, "each of a batch by itself");
        // Each message came twice: by itself, and in the batch.
        for (client, received) in ada.iter_mut().chain([&mut bob, &mut eve]).zip([10, 8, 4, 2]) {
            (0..received).for_each(|_| assert_eq!(client.next()["type"], "x"));
            client.expect_silence();
        }
    }

    fn what_is_sent_again_under_its_id_is_told_to_be_a_duplicate_and_not_sent_twice(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1], r#"namespace=[{pattern="*", idempotency_window_ms=600000}]"#]);
        let admin = node.admin_address().expect("an admin listener");
        let mut member = Client::connect(node.address());
        member.join("lobby");
        let message = |id: u64| json!({"type": "x", "room": "lobby", "id": format!("order {id}")});
        let (_, first) = publish(admin, &message(1));
        assert_eq!((&first["offsets"]["lobby"]["offset"], first.get("duplicate")), (&json!(1), None));
        let again = json!({"offsets": {}, "duplicate": true});
        for _ in 0..2 {
            assert_eq!(publish(admin, &message(1)), (200, again.clone()));
        }
        // Each of a batch is told of by itself, and of several that are alike the first is taken.
        let batch: Vec<Value> = [1, 2, 2, 3].map(message).to_vec();
        let (_, answer) = publish(admin, &Value::Array(batch));
        let results = answer["results"].as_array().expect("a list").iter();
        let told: Vec<bool> = results.map(|result| result.get("duplicate").is_some()).collect();
        assert_eq!(told, [true, false, true, false], "{answer}");
        for (offset, id) in [(1, 1), (2, 2), (3, 3)] {
            let push = member.next();
            assert_eq!((&push["offset"], &push["id"]), (&json!(offset), &message(id)["id"]));
        }
        member.expect_silence();
    }

    fn a_batch_is_published_in_its_order_or_not_at_all(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1], "publish.max_batch=50"]);
        let admin = node.admin_address().expect("an admin listener");
        let mut client = Client::connect(node.address());
        client.join("lobby");
        let message = |n: i32| json!({"type": "x", "room": "lobby", "payload": n});
        let mut batch: Vec<Value> = (0..50).map(message).collect();
        assert_eq!(publish(admin, &json!(batch)).0, 200);
        (0..50).for_each(|n| assert_eq!(client.next()["payload"], json!(n)));
        batch[49] = json!({"type": "x", "rom": "lobby"});
        let (status, answer) = publish(admin, &json!(batch));
        let error = &answer["error"];
        assert_eq!((status, &error["code"], &error["field"]),
            (400, &json!("unknown_field"), &json!("[49].rom")));
        batch.push(message(50));
        assert_eq!(publish(admin, &json!(batch)).1["error"]["code"], "bad_field");
        assert_eq!(publish(admin, &json!([])).0, 400);
        client.expect_silence();
    }

    fn a_key_of_one_tenant_publishes_to_no_other(driver) {
        let secret = "a secret of sixteen bytes or more";
        let key = format!(r#"key=[{{name="k", secret="{secret}", scopes=["publish"], tenant="acme"}}]"#);
        let node = guarded(driver, &["admin.listen=127.0.0.1:0", &key]);
        let admin = node.admin_address().expect("an admin listener");
        let mut ada = enter(node.address(), &user("ada"));
        let mut eve = enter(node.address(), &json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]}));
        ada.join("r");
        eve.join("r");
        let all = json!({"type": "x", "room": "r", "users": ["ada"], "connections": [ada.id, eve.id],
            "everyone": true, "count": true});
        assert_eq!(publish(admin, &all).1["deliveredConnections"], 1);
        assert_eq!(eve.next()["room"], "r");
        let mut foreign = all.clone();
        foreign["tenant"] = json!("other");
        let (status, answer) = publish(admin, &foreign);
        assert_eq!((status, &answer["error"]["field"]), (403, &json!("tenant")));
        ada.expect_silence();
        eve.expect_silence();
    }

    fn every_mistake_names_its_code_and_its_field(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let admin = node.admin_address().expect("an admin listener");
        let cases = [
            (r#"{"type":"x"}"#, "no_room", Some("room")),
            (r#"{"room":"a"}"#, "missing_field", Some("type")),
            (r#"{"type":"throng:join","room":"a"}"#, "bad_field", Some("type")),
            (r#"{"type":"x","room":"a","ref":1}"#, "unknown_field", Some("ref")),
            (r#"{"type":"x","room":"a","count":1}"#, "bad_field", Some("count")),
            (r#"{"type":"x","room":"a","tenant":""}"#, "bad_field", Some("tenant")),
            (r#"{"type":"x","everyone":false}"#, "bad_field", Some("everyone")),
            (r#"{"type":"x","users":[""]}"#, "bad_field", Some("users")),
            (r#"{"type":"x","connections":["a"]}"#, "bad_field", Some("connections")),
            (r#"{"type":"x","room":"a","except":{"user":["a"]}}"#, "bad_field", Some("except")),
            (r#"{"type":"x","room":"a","except":{"users":null}}"#, "bad_field", Some("except")),
            (r#"{"type":"x","room":"a","room":"b"}"#, "repeated_field", Some("room")),
            ("[{\"type\":\"x\"", "bad_json", None),
            ("", "bad_json", None),
            ("7", "not_an_object", None),
            ("[7]", "not_an_object", Some("[0]")),
        ];
        for (body, code, field) in cases {
            let (status, answer) = ask(admin, "POST /v1/publish", body);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let error = (status, answer["error"]["code"].as_str(), answer["error"]["field"].as_str());
            assert_eq!(error, (400, Some(code), field), "{body}: {answer}");
        }
    }

    fn the_command_line_publishes_to_a_running_node(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1]]);
        let url = format!("http://{}", node.admin_address().expect("an admin listener"));
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "a secret of sixteen bytes or more\n").unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
            command.args(["publish", "--url", &url, "--key-file", key.to_str().unwrap()]);
            let output = command.args(arguments).output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let mut client = Client::connect(node.address());
        client.join("lobby");
        let (code, out, error) =
            run(&["--room", "lobby", "--type", "chat", "--count", r#"{"text": "hi"}"#]);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["deliveredConnections"], 1);
        let message = client.next_message().into_text().unwrap();
        assert!(message.contains(r#""payload":{"text": "hi"}"#), "{message}");
        let (code, out, error) = run(&["--type", "chat"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(error.starts_with("publish: 400 no_room `room`: "), "{error}");
        std::fs::write(&key, "another secret of enough bytes").unwrap();
        let (code, _, error) = run(&["--type", "chat", "--everyone"]);
        assert!(code == Some(1) && error.contains("401 unauthorized"), "{error}");
    }

    fn a_batch_with_more_to_everyone_than_a_line_holds_is_wrong_and_not_too_early(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1], "publish.max_batch=1000"]);
        let admin = node.admin_address().expect("an admin listener");
        let mut client = Client::connect(node.address());
        let batch = |count: usize| {
            let to_room = json!({"type": "x", "room": "r"});
            let to_all = vec![json!({"type": "x", "everyone": true}); count];
            json!([&[to_room][..], &to_all[..]].concat())
        };
        let (status, answer) = publish(admin, &batch(257));
        assert_eq!((status, &answer["error"]["field"]), (400, &json!("[257].everyone")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("at most 256"), "{message}");
        client.expect_silence();
        assert_eq!(publish(admin, &batch(256)).0, 200);
        for _ in 0..256 {
            assert_eq!(client.next()["type"], "x");
        }
    }

    fn what_is_under_way_is_bounded_and_whoever_comes_beyond_is_told_when_to_come_back(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1], "publish.max_waiting=1", "admin.requests_per_second=1000000"]);
        let admin = node.admin_address().expect("an admin listener");
        let mut member = Client::connect(node.address());
        member.join("r");
        // From more publishers than may wait, until one was refused.
        let (rooms, hammers) = (40, 8);
        let body = json!((0..rooms).map(|_| json!({"type": "x", "room": "r"})).collect::<Vec<_>>());
        let (body, refused) = (body.to_string(), AtomicUsize::new(0));
        let hammer = || {
            let mut published = 0;
            for _ in 0..500 {
                let answer = ask_whole(admin, "POST /v1/publish", &body);
                if answer.starts_with("HTTP/1.1 200 ") {
                    published += 1;
                } else {
                    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
                    assert!(answer.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer}");
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                if published > 0 && refused.load(Ordering::SeqCst) > 0 {
                    break;
                }
            }
            published
        };
        let published: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..hammers).map(|_| scope.spawn(hammer)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(published >= hammers, "everybody is served in the end");
        assert_ne!(refused.load(Ordering::SeqCst), 0, "and not everybody at once");
        // What was refused was not published, and all of the rest was.
        for offset in 1..=published * rooms {
            assert_eq!(member.next()["offset"], json!(offset));
        }
        member.expect_silence();
    }

    fn shards_that_are_behind_are_told_as_429(driver) {
        let sets = with_admin(r#""publish""#);
        let node = node(driver, &[&sets[0], &sets[1], "limits.memory_bytes=16777216",
            "admin.requests_per_second=1000000", "queue.max_bytes=33554432", "queue.high_water_bytes=16777216"]);
        let admin = node.admin_address().expect("an admin listener");
        let stuck: Vec<Client> = (0..4).map(|_| Client::connect_narrow(node.address())).collect();
        let body = json!({"type": "x", "everyone": true, "payload": "a".repeat(60_000)});
        // Nobody reads, so what is published waits, until there is no memory to spare for more.
        wait_until("a publication is refused", || publish(admin, &body).0 == 429);
        let refused = publish(admin, &json!({"type": "x", "room": "r"}));
        assert_eq!((refused.0, &refused.1["error"]["code"]), (429, &json!("overloaded")));
        drop(stuck);
        wait_until("there is space again", || {
            publish(admin, &json!({"type": "x", "room": "r"})).0 == 200
        });
    }
}
