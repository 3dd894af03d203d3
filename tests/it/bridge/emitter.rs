//! What programs emit as servers of Socket.IO let them: row R7. The package itself is tried in `tests/socketio`.

use redis::pipe;
use serde_json::{Value, json};
use throng::node::Node;

use super::cluster::{Redis, bridge, linked};
use crate::support::{Client, on_both_drivers, wait_until};

const EMITTER: &str = "bridge.emitter=socket.io";

/// Packs text, lists and objects of few and short things as the emitter's library does.
fn pack(value: &Value, out: &mut Vec<u8>) {
    let short = |count: usize| u8::try_from(count).unwrap();
    match value {
        Value::Number(number) => out.push(short(number.as_u64().unwrap().try_into().unwrap())),
        Value::String(text) => {
            out.extend([0xd9, short(text.len())]);
            out.extend(text.as_bytes());
        }
        Value::Array(list) => {
            out.push(0x90 | short(list.len()));
            list.iter().for_each(|value| pack(value, out));
        }
        Value::Object(map) => {
            out.push(0x80 | short(map.len()));
            for (key, value) in map {
                pack(&json!(key), out);
                pack(value, out);
            }
        }
        _ => out.push(0xc0),
    }
}

/// Emits an event to these rooms, except for those who are in others.
fn emit(redis: &Redis, rooms: &[&str], except: &[&str], data: &Value) {
    let channel = match rooms {
        [room] => format!("socket.io#/#{room}#"),
        _ => "socket.io#/#".to_owned(),
    };
    let packet = json!({"type": 2, "data": data, "nsp": "/"});
    let whom = json!({"rooms": rooms, "flags": {}, "except": except});
    let mut bytes = Vec::new();
    pack(&json!(["emitter", packet, whom]), &mut bytes);
    redis.run(pipe().cmd("PUBLISH").arg(channel).arg(bytes));
}

fn member(node: &Node, rooms: &[&str]) -> Client {
    let mut client = Client::connect(node.address());
    rooms.iter().for_each(|room| _ = client.join(room));
    client
}

fn payload(client: &mut Client) -> Value {
    let push = client.next();
    assert_eq!(push["type"], "chat", "{push}");
    push["payload"].clone()
}

on_both_drivers! {
    fn what_an_emitter_says_reaches_rooms_connections_and_everyone_once_on_every_node(driver) {
        let redis = Redis::start();
        let nodes = [(); 2].map(|()| linked(driver, redis.address(), &[EMITTER]));
        let mut ada = member(&nodes[0], &["lobby", "stage"]);
        let mut bob = member(&nodes[1], &["lobby", "quiet"]);
        let mut eve = member(&nodes[1], &[]);
        for (room, count) in [("lobby", 2), ("stage", 1), ("quiet", 1), ("nowhere", 0)] {
            let channel = format!("socket.io#/#{room}#");
            wait_until(&channel, || redis.subscribers(&channel) == count);
        }
        emit(&redis, &["lobby"], &[], &json!(["chat", 1]));
        emit(&redis, &["lobby"], &["quiet"], &json!(["chat", 2]));
        emit(&redis, &["lobby"], &[&ada.id], &json!(["chat", 3]));
        emit(&redis, &["lobby"], &[], &json!(["chat", 4]));
        assert_eq!([1, 2, 4], [(); 3].map(|()| payload(&mut ada)));
        assert_eq!([1, 3, 4], [(); 3].map(|()| payload(&mut bob)));
        // Several rooms, one copy; and one's own room, which every connection is to the library.
        emit(&redis, &["lobby", "stage"], &[], &json!(["chat", 5]));
        assert_eq!((payload(&mut ada), payload(&mut bob)), (json!(5), json!(5)));
        let id = eve.id.clone();
        emit(&redis, &[&id], &[], &json!(["chat", 6, "and more"]));
        assert_eq!(payload(&mut eve), json!([6, "and more"]));
        emit(&redis, &[], &[], &json!(["chat"]));
        for client in [&mut ada, &mut bob, &mut eve] {
            assert_eq!(payload(client), Value::Null);
            client.expect_silence();
        }
        // What is emitted is with the clients before it is counted.
        wait_until("all are counted", || bridge(&nodes[1], "bridge_emitted_total") == 7);
        assert_eq!(bridge(&nodes[0], "bridge_malformed_total"), 0);
    }

    fn what_is_none_is_counted_and_what_servers_do_for_each_other_is_not_done(driver) {
        let redis = Redis::start();
        let node = linked(driver, redis.address(), &[EMITTER]);
        let mut ada = member(&node, &["lobby"]);
        wait_until("subscribed", || redis.subscribers("socket.io#/#lobby#") == 1);
        for wrong in [&b""[..], b"{}", &[0xdd, 255, 255, 255, 255], &[0x91; 100]] {
            redis.run(pipe().cmd("PUBLISH").arg("socket.io#/#lobby#").arg(wrong));
        }
        emit(&redis, &["lobby"], &[], &json!(["throng:join", {"room": "stage"}]));
        emit(&redis, &["lobby"], &[], &json!([7, "no name"]));
        wait_until("all are counted", || bridge(&node, "bridge_malformed_total") == 6);
        redis.publish("socket.io-request#/#", r#"{"type":4,"opts":{"rooms":[]},"close":true}"#);
        wait_until("it is counted", || bridge(&node, "bridge_emitter_unsupported_total") == 1);
        emit(&redis, &["lobby"], &[], &json!(["chat", 1]));
        assert_eq!(payload(&mut ada), 1);
        // Who leaves is not heard of any more, and where nobody wants it nothing is.
        let linger = "bridge.linger_ms=0";
        let plain = linked(driver, redis.address(), &[linger]);
        let _bob = member(&plain, &["plain"]);
        redis.wait_for_room("plain", 1);
        assert_eq!(redis.subscribers("socket.io#/#plain#"), 0);
        let other = linked(driver, redis.address(), &[linger, "bridge.emitter=other"]);
        let mut eve = member(&other, &["plain"]);
        wait_until("subscribed", || redis.subscribers("other#/#plain#") == 1);
        assert_eq!(eve.ask(json!({"type": "throng:leave", "room": "plain"}))["ok"], true);
        wait_until("no more", || redis.subscribers("other#/#plain#") == 0);
    }
}
