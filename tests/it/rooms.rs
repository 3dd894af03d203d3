//! Rooms across shards: rows R1, R2, R4, R5, R6 and what a client sees of them.

use serde_json::json;

use crate::support::{Client, node, on_both_drivers, wait_for};

on_both_drivers! {
    fn a_message_crosses_shards_and_keeps_its_payload_bytes(driver) {
        let node = node(driver, &[]);
        let mut here = Client::connect_to_shard(node.address(), "0");
        let mut there = Client::connect_to_shard(node.address(), "1");
        assert_eq!(here.join("lobby")["members"], json!(1));
        assert_eq!(there.join("lobby")["members"], json!(2));
        // Spaces, order of keys and the form of numbers are the author's.
        here.send_text(r#"{"type":"chat","room":"lobby","payload":{"b": 1.0,"a":[ "\u00e4" ]}}"#);
        for client in [&mut here, &mut there] {
            let message = client.next_message().into_text().unwrap();
            assert!(message.contains(r#"{"b": 1.0,"a":[ "\u00e4" ]}"#), "{message}");
        }
        there.send(&json!({"type": "chat", "room": "lobby", "payload": 2}));
        let push = here.next();
        assert_eq!((&push["type"], &push["payload"]), (&json!("chat"), &json!(2)));
        assert_eq!(push["offset"], json!(2));
        assert_eq!(push["from"], json!(there.id));
        node.stop().unwrap();
    }

    fn joining_twice_delivers_once(driver) {
        let node = node(driver, &[]);
        let mut client = Client::connect(node.address());
        assert_eq!(client.join("a")["members"], json!(1));
        assert_eq!(client.join("a")["members"], json!(1));
        client.send(&json!({"type": "x", "room": "a"}));
        assert_eq!(client.next()["type"], "x");
        client.expect_silence();
    }

    fn a_member_of_two_target_rooms_gets_one_copy(driver) {
        let node = node(driver, &[]);
        // Sixteen rooms have homes on both shards.
        let rooms: Vec<String> = (0..16).map(|n| format!("room {n}")).collect();
        let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(node.address())).collect();
        for client in &mut clients {
            for room in &rooms {
                client.join(room);
            }
        }
        let mut outsider = Client::connect(node.address());
        outsider.join("elsewhere");
        clients[0].send(&json!({"type": "x", "rooms": rooms, "payload": 1}));
        for client in &mut clients {
            assert_eq!(client.next()["payload"], json!(1));
            client.expect_silence();
        }
        outsider.expect_silence();
    }

    fn excepted_connections_are_left_out_on_every_shard(driver) {
        let node = node(driver, &[]);
        let shards = ["0", "1", "0", "1"];
        let mut clients: Vec<Client> =
            shards.map(|shard| Client::connect_to_shard(node.address(), shard)).into();
        for client in &mut clients {
            client.join("r");
        }
        let except = [clients[0].id.clone(), clients[1].id.clone()];
        clients[0].send(&json!({"type": "x", "room": "r", "except": except}));
        for (at, client) in clients.iter_mut().enumerate() {
            if at >= 2 {
                assert_eq!(client.next()["type"], "x");
            }
        }
        for client in &mut clients {
            client.expect_silence();
        }
    }

    fn whoever_left_gets_nothing_and_empty_rooms_cost_nothing(driver) {
        let node = node(driver, &[]);
        let mut leaver = Client::connect_to_shard(node.address(), "0");
        let mut stayer = Client::connect_to_shard(node.address(), "1");
        leaver.join("r");
        stayer.join("r");
        assert_eq!(leaver.ask(json!({"type": "throng:leave", "room": "r"}))["ok"], json!(true));
        stayer.send(&json!({"type": "x", "room": "r"}));
        assert_eq!(stayer.next()["type"], "x");
        leaver.expect_silence();
        drop(stayer);
        drop(leaver);
        wait_for(&node, "nothing is left", |counters| {
            (counters.connections, counters.rooms, counters.home_rooms, counters.memberships)
                == (0, 0, 0, 0)
        });
    }

    fn a_publisher_needs_no_membership_and_members_can_be_counted(driver) {
        let node = node(driver, &[]);
        let mut member = Client::connect_to_shard(node.address(), "0");
        let mut outsider = Client::connect_to_shard(node.address(), "1");
        member.join("r");
        let count = outsider.ask(json!({"type": "throng:members", "room": "r"}));
        assert_eq!(count["members"], json!(1), "{count}");
        outsider.send(&json!({"type": "x", "room": "r"}));
        assert_eq!(member.next()["type"], "x");
    }

    fn wrong_commands_get_typed_errors_and_the_session_lives(driver) {
        let node = node(driver, &["limits.max_rooms=2"]);
        let mut client = Client::connect(node.address());
        for (text, code) in [
            ("not json", "bad_json"),
            (r#"{"type":"throng:nothing"}"#, "unknown_command"),
            (r#"{"type":"chat"}"#, "no_room"),
            (r#"{"type":"throng:join"}"#, "missing_field"),
            (r#"{"type":"throng:join","room":7}"#, "bad_field"),
            (r#"{"type":"throng:leave","room":"never joined"}"#, "not_member"),
            (&format!(r#"{{"type":"x","room":"r","payload":{}1{}}}"#, "[".repeat(99), "]".repeat(99)), "too_deep"),
        ] {
            client.send_text(text);
            let error = client.next();
            assert_eq!((&error["type"], &error["code"]), (&json!("throng:error"), &json!(code)));
        }
        client.join("one");
        client.join("two");
        let third = client.ask(json!({"type": "throng:join", "room": "three"}));
        assert_eq!(third["code"], "room_limit");
        client.expect_silence();
    }

    fn messages_of_one_sender_keep_their_order_through_the_home_shard(driver) {
        let node = node(driver, &["mesh.inbox_capacity=1"]);
        let mut sender = Client::connect_to_shard(node.address(), "0");
        let mut readers =
            [Client::connect_to_shard(node.address(), "0"), Client::connect_to_shard(node.address(), "1")];
        // Rooms with homes on either shard, and an inbox of one: mail is parked and nothing is lost.
        let rooms: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
        for reader in &mut readers {
            for room in &rooms {
                reader.join(room);
            }
        }
        for number in 0..2000 {
            let room = &rooms[number % rooms.len()];
            sender.send(&json!({"type": "n", "room": room, "payload": number}));
        }
        for reader in &mut readers {
            let mut last = vec![None; rooms.len()];
            for _ in 0..2000 {
                let push = reader.next();
                let number = push["payload"].as_u64().expect("a number");
                let place = &mut last[usize::try_from(number).unwrap() % rooms.len()];
                assert!(*place < Some(number), "{number} after {place:?}");
                *place = Some(number);
            }
            reader.expect_silence();
        }
    }
}
