//! What clients say to back ends that read a stream: at least once what was acknowledged, and bounded.

use redis::{FromRedisValue, from_redis_value};
use serde_json::{Value, json};

use super::cluster::{Redis, bridge, linked, members, wait_link};
use crate::support::{Client, on_both_drivers, wait_until};

const JOBS: &str =
    r#"namespace=[{pattern="job:*", deliver="stream"}, {pattern="both:*", deliver="members"}]"#;
const STREAM: &str = "throng:messages";

fn get<T: FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    from_redis_value(redis.ask(words)).unwrap()
}

fn job(payload: u32) -> Value {
    json!({"type": "run", "room": "job:1", "payload": payload})
}

/// What a reader gets that belongs to a group: the events in their order, and their places.
fn read(redis: &Redis, reader: &str) -> Vec<Value> {
    type Entries = Vec<(String, Vec<(String, Vec<String>)>)>;
    let words = ["XREADGROUP", "GROUP", "workers", reader, "COUNT", "1000", "STREAMS", STREAM, ">"];
    let streams: Entries = match redis.ask(&words) {
        redis::Value::Nil => Vec::new(),
        found => from_redis_value(found).unwrap(),
    };
    let entries = streams.into_iter().flat_map(|(_, entries)| entries);
    entries
        .map(|(_, fields)| {
            assert_eq!(fields[0], "event");
            serde_json::from_str(&fields[1]).unwrap()
        })
        .collect()
}

fn payloads(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["payload"].as_u64().unwrap()).collect()
}

on_both_drivers! {
    fn what_clients_say_is_in_the_stream_before_they_hear_of_it_and_reaches_no_member(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[JOBS]));
        let mut clients = members(&redis, &[&nodes[0], &nodes[1]], "job:1");
        redis.ask(&["XGROUP", "CREATE", STREAM, "workers", "$", "MKSTREAM"]);
        for number in 0..50 {
            let client = &mut clients[number as usize % 2];
            assert_eq!(client.ask(job(number))["ok"], true);
            let found = read(&redis, "one");
            assert_eq!(payloads(&found), [u64::from(number)]);
            let [event] = &found[..] else { unreachable!() };
            assert_eq!(
                (&event["event"], &event["room"], &event["type"], &event["clientId"]),
                (&json!("message"), &json!("job:1"), &json!("run"), &json!(client.id))
            );
        }
        // To members as well where a room is theirs: the stream has its part and they have theirs.
        clients.iter_mut().for_each(|client| _ = client.join("lobby"));
        redis.wait_for_room("lobby", 2);
        let mixed = json!({"type": "run", "rooms": ["job:1", "lobby"], "payload": 99});
        assert_eq!(clients[0].ask_among(mixed)["ok"], true);
        for client in &mut clients {
            assert_eq!(client.next()["payload"], 99);
            client.expect_silence();
        }
        wait_until("it is there", || payloads(&read(&redis, "two")) == [99]);
        let written = nodes.iter().map(|node| bridge(node, "bridge_stream_written_total"));
        assert_eq!(written.sum::<u64>(), 51);
    }

    fn without_redis_what_fits_waits_and_the_rest_is_refused(driver) {
        let mut redis = Redis::start();
        let node = linked(driver, redis.address(), &[JOBS, "bridge.queue_messages=8"]);
        let mut client = Client::connect(node.address());
        assert_eq!(client.ask(job(0))["ok"], true);
        redis.stop();
        wait_until("the link is down", || bridge(&node, "bridge_up") == 0);
        for number in 1..=20 {
            client.send(&json!({"type": "run", "room": "job:1", "payload": number, "ref": number}));
        }
        // They are told in order, so the refused ones are the last.
        for number in 9..=20 {
            let refused = client.next();
            assert_eq!((&refused["ref"], &refused["code"]), (&json!(number), &json!("overloaded")));
        }
        assert_eq!(bridge(&node, "bridge_stream_queued"), 8);
        redis.restart();
        redis.ask(&["XGROUP", "CREATE", STREAM, "workers", "0", "MKSTREAM"]);
        for number in 1..=8 {
            let told = client.next();
            assert_eq!((&told["ref"], &told["ok"]), (&json!(number), &json!(true)));
        }
        wait_link(&node);
        assert_eq!(payloads(&read(&redis, "one")), (1..=8).collect::<Vec<u64>>());
        assert_eq!(bridge(&node, "bridge_stream_refused_total"), 12);
        assert_eq!(bridge(&node, "bridge_stream_queued"), 0);
    }

    fn the_stream_is_trimmed_and_what_redis_refuses_is_told(driver) {
        let redis = Redis::start();
        let node = linked(driver, redis.address(), &[JOBS, "bridge.stream_max=100"]);
        let mut client = Client::connect(node.address());
        for number in 0..500 {
            client.send(&json!({"type": "run", "room": "job:1", "payload": number, "ref": number}));
        }
        for number in 0..500 {
            let told = client.next();
            assert_eq!((&told["ref"], &told["ok"]), (&json!(number), &json!(true)));
        }
        let length: i64 = get(&redis, &["XLEN", STREAM]);
        assert!((100..300).contains(&length), "{length}");
        redis.ask(&["SET", STREAM, "no stream"]);
        assert_eq!(client.ask(job(1))["code"], "overloaded");
        assert_eq!(bridge(&node, "bridge_up"), 1);
        let several = |payload: u32| {
            let rooms = ["job:1", "job:2", "job:3"];
            json!({"type": "run", "rooms": rooms, "payload": payload})
        };
        assert_eq!(client.ask(several(1))["code"], "overloaded");
        redis.ask(&["DEL", STREAM]);
        assert_eq!(client.ask(several(3))["ok"], true);
        assert_eq!(get::<i64>(&redis, &["XLEN", STREAM]), 3, "one entry a room, all there");
        assert_eq!(client.ask(job(2))["ok"], true);
    }
}
