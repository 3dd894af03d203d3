//! Writes that wait for more: row R17, over real sockets.

use serde_json::json;

use crate::support::{Client, node, on_both_drivers};

const BUSY: &str = r#"namespace=[{pattern="busy*", write_delay_ms=20}]"#;

on_both_drivers! {
    fn what_waits_arrives_whole_in_order_and_never_behind_what_came_after_it(driver) {
        let node = node(driver, &[BUSY]);
        let mut members =
            ["0", "1"].map(|shard| Client::connect_to_shard(node.address(), shard));
        for member in &mut members {
            member.join("busy");
            member.join("other");
        }
        let mut author = Client::connect(node.address());
        for number in 0..200 {
            let room = if number % 50 == 49 { "other" } else { "busy" };
            author.send(&json!({"type": "x", "room": room, "payload": number}));
        }
        for member in &mut members {
            // Rooms have homes of their own, so order is that of each room, and of what one connection queues.
            let (mut busy, mut other) = (Vec::new(), Vec::new());
            for _ in 0..200 {
                let push = member.next();
                let numbers = if push["room"] == "busy" { &mut busy } else { &mut other };
                numbers.push(push["payload"].as_u64().unwrap());
            }
            assert!(busy.is_sorted() && other.is_sorted(), "{busy:?} {other:?}");
            assert_eq!((busy.len(), other.len()), (196, 4));
            member.expect_silence();
        }
    }
}
