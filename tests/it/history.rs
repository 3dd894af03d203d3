//! History and resume over real sockets: rows R11, R12, R13, R14.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, node, on_both_drivers, wait_for};

const KEEPS: &str = r#"namespace=[{pattern="*", overflow="disconnect", history_count=100000, history_bytes=67108864, idempotency_window_ms=60000}]"#;

/// A cursor as the client shows it.
fn since(reply: &Value, offset: u64) -> Value {
    json!({"epoch": reply["epoch"], "offset": offset})
}

fn join_since(client: &mut Client, room: &str, cursor: &Value) -> Value {
    client.ask(json!({"type": "throng:join", "room": room, "since": cursor}))
}

on_both_drivers! {
    fn nothing_is_missed_or_repeated_while_others_publish_at_full_rate(driver) {
        let node = node(driver, &[KEEPS]);
        let address = node.address();
        let mut reader = Client::connect_to_shard(address, "0");
        let joined = reader.join("r");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Two publishers, one on each shard, so that the room's home is another's for one of them.
            let publishers = ["0", "1"].map(|shard| {
                let done = &done;
                scope.spawn(move || {
                    let mut publisher = Client::connect_to_shard(address, shard);
                    let mut sent = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        publisher.send(&json!({"type": "x", "room": "r", "payload": sent}));
                        sent += 1;
                        if sent.is_multiple_of(64) {
                            publisher.expect_silence();
                        }
                    }
                    publisher.expect_silence();
                    sent
                })
            });
            let mut last = joined["offset"].as_u64().unwrap();
            for round in 0..20 {
                for _ in 0..200 {
                    let push = reader.next();
                    assert_eq!(push["offset"], json!(last + 1), "{push}");
                    last += 1;
                }
                // Without a word, with what the kernel still holds for it.
                drop(reader);
                reader = Client::connect_to_shard(address, if round % 2 == 0 { "1" } else { "0" });
                let reply = join_since(&mut reader, "r", &since(&joined, last));
                assert_eq!(reply["recovered"], json!(true), "{reply}");
            }
            done.store(true, Ordering::Relaxed);
            let sent: u64 = publishers.map(|publisher| publisher.join().unwrap()).iter().sum();
            while last < sent {
                let push = reader.next();
                assert_eq!(push["offset"], json!(last + 1), "{push}");
                last += 1;
            }
            reader.expect_silence();
        });
        assert_eq!(node.counters().resumes_total, 20);
        node.stop().unwrap();
    }

    fn a_restore_brings_back_rooms_of_all_shards_and_a_stale_cursor_gets_one_resync(driver) {
        let node = node(driver, &[KEEPS]);
        let address = node.address();
        let mut client = Client::connect(address);
        let rooms: Vec<String> = (0..16).map(|number| format!("room {number}")).collect();
        let mut replies: Vec<Value> = rooms.iter().map(|room| client.join(room)).collect();
        let mut publisher = Client::connect(address);
        for room in &rooms {
            for number in 0..3 {
                publisher.send(&json!({"type": "x", "room": room, "payload": number}));
            }
        }
        wait_for(&node, "all numbered", |counters| counters.publications_total == 48);
        drop(client);
        wait_for(&node, "one left", |counters| counters.open_connections == 1);
        assert_eq!(node.counters().home_rooms, 16, "the rooms outlive their last member");
        replies[0]["epoch"] = json!("0");
        let list: Vec<Value> = rooms
            .iter()
            .zip(&replies)
            .map(|(room, reply)| json!({"room": room, "since": since(reply, 1)}))
            .collect();
        let mut back = Client::connect(address);
        back.send(&json!({"type": "throng:restore", "rooms": list, "ref": "all"}));
        let (mut pushes, mut resyncs, mut results) = (Vec::new(), 0, None);
        while results.is_none() || pushes.len() + 2 * resyncs < 32 {
            let message = back.next();
            match message["type"].as_str().unwrap() {
                "x" => pushes.push((message["room"].clone(), message["offset"].clone())),
                "throng:resync" => {
                    assert_eq!((&message["reason"], &message["offset"]), (&json!("epoch"), &json!(3)));
                    resyncs += 1;
                }
                _ => results = message["rooms"].as_array().cloned(),
            }
        }
        let recovered: Vec<bool> =
            results.unwrap().iter().map(|room| room["recovered"] == json!(true)).collect();
        assert_eq!((recovered[0], recovered[1..].iter().all(|r| *r), resyncs), (false, true, 1));
        for room in &rooms[1..] {
            let of_room = pushes.iter().filter(|(name, _)| name == room).map(|(_, offset)| offset);
            assert_eq!(of_room.collect::<Vec<_>>(), [&json!(2), &json!(3)], "{room}");
        }
        back.expect_silence();
        node.stop().unwrap();
    }

    fn a_page_of_history_and_a_publication_that_was_sent_twice(driver) {
        let node = node(driver, &[KEEPS]);
        let mut here = Client::connect_to_shard(node.address(), "0");
        let mut there = Client::connect_to_shard(node.address(), "1");
        there.join("r");
        for client in [&mut here, &mut there] {
            let order = json!({"type": "x", "room": "r", "id": "a", "payload": {"b": 1.5}});
            client.send(&order);
        }
        assert_eq!((there.next()["offset"].clone(), there.next()["offset"].clone()), (json!(1), json!(2)));
        let again = here.ask(json!({"type": "x", "room": "r", "id": "a"}));
        assert_eq!(again["duplicate"], json!(true), "{again}");
        there.expect_silence();
        let page = there.ask(json!({"type": "throng:history", "room": "r", "limit": 1}));
        assert_eq!((&page["messages"][0]["offset"], &page["more"]), (&json!(2), &json!(true)));
        let page = there.ask(json!({"type": "throng:history", "room": "r", "before": 2}));
        assert_eq!(page["messages"][0]["payload"], json!({"b": 1.5}));
        assert_eq!((page["messages"].as_array().unwrap().len(), &page["more"]), (1, &json!(false)));
        node.stop().unwrap();
    }
}
