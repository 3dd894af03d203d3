//! Rooms whose history all nodes share. Rows O1, R11, R12 and R13.

use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, linked, members, wait_link};
use crate::admin::{ask, with_admin};
use crate::auth::{SECRET, enter};
use crate::support::{Client, on_both_drivers, wait_until};

pub(super) const SHARED: &str = r#"bridge.shared_rooms=["shared:*"]"#;
pub(super) const KEEPS: &str = r#"namespace=[{pattern="*", overflow="disconnect", history_count=100000, history_bytes=67108864, idempotency_window_ms=60000}]"#;

pub(super) const ROOM: &str = "shared:lobby";

pub(super) fn sharing(driver: &str, redis: &Redis, sets: &[&str]) -> Node {
    linked(driver, redis.address(), &[&[SHARED, KEEPS], sets].concat())
}

pub(super) fn chat(payload: &Value) -> Value {
    json!({"type": "chat", "room": ROOM, "payload": payload})
}

/// Where a client that has joined stands.
pub(super) fn since(reply: &Value, offset: u64) -> Value {
    json!({"epoch": reply["epoch"], "offset": offset})
}

pub(super) fn join_since(client: &mut Client, cursor: &Value) -> Value {
    client.ask(json!({"type": "throng:join", "room": ROOM, "since": cursor}))
}

/// The payloads of pushes with these numbers, of which none is missing and none comes twice.
pub(super) fn numbered(client: &mut Client, from: u64, to: u64) -> Vec<Value> {
    let mut payloads = Vec::new();
    for offset in from..=to {
        let push = client.next();
        assert_eq!(push["offset"], json!(offset), "{push}");
        payloads.push(push["payload"].clone());
    }
    payloads
}

on_both_drivers! {
    fn members_everywhere_see_the_same_numbers_in_the_same_order(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut listeners = Vec::new();
        for node in &nodes {
            for shard in ["0", "1"] {
                let mut client = Client::connect_to_shard(node.address(), shard);
                assert_eq!(client.join(ROOM)["offset"], json!(0));
                listeners.push(client);
            }
        }
        std::thread::scope(|scope| {
            for address in [nodes[0].address(), nodes[1].address()] {
                for shard in ["0", "1"] {
                    scope.spawn(move || {
                        let mut author = Client::connect_to_shard(address, shard);
                        for number in 0..200 {
                            author.send(&chat(&json!([author.id, number])));
                        }
                        author.expect_silence();
                    });
                }
            }
        });
        let seen: Vec<Vec<Value>> =
            listeners.iter_mut().map(|client| numbered(client, 1, 800)).collect();
        assert!(seen.iter().all(|other| *other == seen[0]), "one order everywhere");
        // Each author keeps its own order in it.
        for author in seen[0].iter().map(|payload| &payload[0]) {
            let own = seen[0].iter().filter(|payload| payload[0] == *author);
            assert!(own.map(|payload| payload[1].as_u64()).is_sorted(), "{author}");
        }
        listeners.iter_mut().for_each(Client::expect_silence);
        for node in &nodes {
            assert_eq!(bridge(node, "bridge_shared_appended_total"), 400);
        }
    }

    fn an_author_is_told_the_number_and_a_repeat_is_found_on_any_node(driver) {
        let redis = Redis::start();
        let secret = format!("auth.secret={SECRET:?}");
        let admin = with_admin(r#""publish""#);
        let sets = ["auth.mode=token", secret.as_str(), "auth.require_expiry=false", &admin[0], &admin[1]];
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &sets));
        let mut ada = [0, 1].map(|node: usize| {
            enter(nodes[node].address(), &json!({"sub": "ada", "rooms": ["*"]}))
        });
        let mut message = chat(&json!("hello"));
        message["id"] = json!("a");
        let first = ada[0].ask(message.clone());
        assert_eq!((&first["ok"], &first["offset"]), (&json!(true), &json!(1)), "{first}");
        let again = ada[1].ask(message.clone());
        assert_eq!((&again["duplicate"], &again["offset"]), (&json!(true), &json!(1)), "{again}");
        assert_eq!(again["epoch"], first["epoch"]);
        // Of another author it is another one; and so is it without an id.
        let mut bob = enter(nodes[1].address(), &json!({"sub": "bob", "rooms": ["*"]}));
        assert_eq!(bob.ask(message.clone())["offset"], json!(2));
        assert_eq!(bob.ask(chat(&json!(3)))["offset"], json!(3));
        for (node, repeated) in nodes.iter().zip([false, true]) {
            let admin = node.admin_address().unwrap();
            let (status, body) = ask(admin, "POST /v1/publish", &message.to_string());
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &body["offsets"][ROOM]["offset"]), (200, &json!(4)), "{body} {repeated}");
            assert_eq!(body.get("duplicate").is_some(), repeated, "{body}");
        }
    }

    fn who_moves_between_nodes_under_full_rate_misses_and_repeats_nothing(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut reader = Client::connect(nodes[0].address());
        let joined = reader.join(ROOM);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let authors = [0, 1].map(|node: usize| {
                let (done, address) = (&done, nodes[node].address());
                scope.spawn(move || {
                    let mut author = Client::connect(address);
                    let mut sent = 0_u64;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        author.send(&chat(&json!(sent)));
                        sent += 1;
                        if sent.is_multiple_of(16) {
                            author.ask(chat(&json!("waited for")));
                            sent += 1;
                        }
                    }
                    author.ask(chat(&json!("last")));
                    sent + 1
                })
            });
            let mut last = 0;
            for round in 0..10 {
                numbered(&mut reader, last + 1, last + 100);
                last += 100;
                drop(reader);
                reader = Client::connect(nodes[(round + 1) % 2].address());
                let reply = join_since(&mut reader, &since(&joined, last));
                assert_eq!(reply["recovered"], json!(true), "{reply}");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent: u64 = authors.map(|author| author.join().unwrap()).iter().sum();
            numbered(&mut reader, last + 1, sent);
            reader.expect_silence();
        });
    }

    fn a_node_that_has_nothing_of_a_room_serves_it_from_the_stream(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &["bridge.linger_ms=0"]));
        let mut author = Client::connect(nodes[0].address());
        let joined = author.join(ROOM);
        for number in 1..=700 {
            author.send(&chat(&json!(number)));
        }
        let expected: Vec<Value> = (1..=700).map(|number| json!(number)).collect();
        assert_eq!(numbered(&mut author, 1, 700), expected);
        let mut reader = Client::connect(nodes[1].address());
        let reply = join_since(&mut reader, &since(&joined, 20));
        let found = (&reply["recovered"], &reply["offset"], &reply["epoch"]);
        assert_eq!(found, (&json!(true), &json!(700), &joined["epoch"]), "{reply}");
        assert_eq!(numbered(&mut reader, 21, 700), expected[20..]);
        author.send(&chat(&json!(701)));
        assert_eq!(numbered(&mut reader, 701, 701), [json!(701)]);
        reader.expect_silence();
        // What nobody can go on from gets one resync, and then what is live.
        for (cursor, why) in [
            (json!({"epoch": joined["epoch"], "offset": 9_000}), "ahead"),
            (json!({"epoch": "8000000000000001", "offset": 3}), "epoch"),
        ] {
            let mut other = Client::connect(nodes[1].address());
            assert_eq!(join_since(&mut other, &cursor)["recovered"], json!(false));
            let resync = other.next();
            assert_eq!((&resync["type"], &resync["reason"]), (&json!("throng:resync"), &json!(why)));
            assert_eq!((&resync["offset"], &resync["epoch"]), (&json!(701), &joined["epoch"]));
            other.expect_silence();
        }
    }

    fn a_cursor_that_is_older_than_the_stream_gets_one_resync(driver) {
        let redis = Redis::start();
        let short = r#"namespace=[{pattern="*", history_count=10}]"#;
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[SHARED, short]));
        let mut author = Client::connect(nodes[0].address());
        let joined = author.join(ROOM);
        for number in 1..=50 {
            author.send(&chat(&json!(number)));
        }
        numbered(&mut author, 1, 50);
        let mut reader = Client::connect(nodes[1].address());
        assert_eq!(join_since(&mut reader, &since(&joined, 39))["recovered"], json!(false));
        let resync = reader.next();
        assert_eq!((&resync["type"], &resync["reason"]), (&json!("throng:resync"), &json!("too_old")));
        reader.expect_silence();
        let mut other = Client::connect(nodes[1].address());
        assert_eq!(join_since(&mut other, &since(&joined, 40))["recovered"], json!(true));
        numbered(&mut other, 41, 50);
        other.expect_silence();
    }

    fn what_an_author_asked_for_holds_for_what_is_numbered_elsewhere(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        let mut third = Client::connect(nodes[1].address());
        let joined = third.join(ROOM);
        let mut message = chat(&json!("not for the third"));
        message["except"] = json!([third.id]);
        clients[0].send(&message);
        let mut brief = chat(&json!("brief"));
        brief["ttlMs"] = json!(1);
        clients[0].send(&brief);
        clients[0].send(&chat(&json!("for all")));
        let author = clients[0].id.clone();
        // What is over before it gets anywhere has no number; what is over later has one and is not shown.
        let next = |client: &mut Client| loop {
            let push = client.next();
            if push["payload"] != "brief" {
                return push;
            }
        };
        for client in &mut clients {
            let push = next(client);
            assert_eq!((&push["offset"], &push["from"]), (&json!(1), &json!(author)), "{push}");
            assert_eq!(push["payload"], "not for the third");
            assert_eq!(next(client)["payload"], "for all");
        }
        assert_eq!(next(&mut third)["payload"], "for all");
        // What excepted a connection was for this one.
        let mut seen = Vec::new();
        wait_until("what is over is left out", || {
            let mut late = Client::connect(nodes[1].address());
            join_since(&mut late, &since(&joined, 0));
            seen.clear();
            while seen.last() != Some(&json!("for all")) {
                seen.push(late.next()["payload"].clone());
            }
            late.expect_silence();
            !seen.contains(&json!("brief"))
        });
        assert_eq!(seen, ["not for the third", "for all"]);
    }

    fn rooms_with_shared_histories_cross_alone_and_the_others_in_one_piece(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let rooms = [ROOM, "shared:other", "plain:1", "plain:2"];
        let mut clients = [0, 1].map(|node: usize| Client::connect(nodes[node].address()));
        for room in rooms {
            clients.iter_mut().for_each(|client| _ = client.join(room));
            redis.wait_for_room(room, 2);
        }
        let whole = json!({"type": "x", "rooms": rooms, "payload": 1});
        let reply = clients[0].ask_among(whole);
        assert_eq!((&reply["ok"], reply.get("offset")), (&json!(true), None), "{reply}");
        for client in &mut clients {
            let mut seen: Vec<String> = (0..3).map(|_| client.next()["room"].to_string()).collect();
            seen.sort();
            assert!(seen[0].starts_with("\"plain:"), "one of the two: {seen:?}");
            assert_eq!(seen[1..], [format!("{ROOM:?}"), "\"shared:other\"".to_owned()]);
            client.expect_silence();
        }
    }

    fn a_program_cannot_publish_past_the_numbers(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &[]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], ROOM);
        redis.publish(&format!("throng:room:{ROOM}"), r#"{"type":"x"}"#);
        redis.publish("throng:all", &json!({"type": "x", "room": ROOM}).to_string());
        for node in &nodes {
            wait_until("both are refused", || bridge(node, "bridge_malformed_total") == 2);
        }
        clients[0].send(&chat(&json!("next")));
        clients.iter_mut().for_each(|client| _ = numbered(client, 1, 1));
    }

    fn a_user_with_the_rights_of_the_document_may_do_all_that_is_needed(driver) {
        let redis = Redis::start();
        let rights = ["+@connection", "+@pubsub", "+@scripting", "+@read", "+@write", "+time"];
        let user = ["ACL", "SETUSER", "throng", "on", ">secret", "~throng:*", "&throng:*"];
        redis.ask(&[&user[..], &rights[..]].concat());
        redis.ask(&["ACL", "SETUSER", "default", "-evalsha", "-script"]);
        let node = sharing(driver, &redis, &["bridge.user=throng", "bridge.password=secret"]);
        let mut client = Client::connect(node.address());
        client.join(ROOM);
        assert_eq!(client.ask_among(chat(&json!(1)))["offset"], json!(1));
        numbered(&mut client, 1, 1);
    }

    fn a_room_that_is_not_shared_is_as_it_was(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| sharing(driver, &redis, &["bridge.presence=false"]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "plain");
        let reply = clients[0].ask_among(json!({"type": "x", "room": "plain", "payload": 1}));
        assert_eq!((&reply["ok"], reply.get("offset")), (&json!(true), None));
        clients.iter_mut().for_each(|client| assert_eq!(client.next()["payload"], 1));
        assert!(matches!(redis.ask(&["KEYS", "*"]), redis::Value::Array(keys) if keys.is_empty()));
        nodes.iter().for_each(wait_link);
    }
}
