//! The other ways to have a publication stored first: the command line, and what back ends answer. Row R9.

use std::process::Command;

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{SECRET, with_admin};
use crate::backend::{Backend, Posted, ok};
use crate::events::{hook, telling};
use crate::support::{Client, node, on_both_drivers, wait_for};

const KEEPS: &str = r#"namespace=[{pattern="r", history_count=100}, {pattern="app", history_count=100, deliver="webhook"}, {pattern="bare"}]"#;

/// `throng publish` to a room, stored first: whether it went well, what it printed and what it complained of.
fn publish(node: &Node, room: &str, persist: bool, payload: &str) -> (bool, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, SECRET).unwrap();
    let url = format!("http://{}", node.admin_address().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
    command.args(["publish", "--url", &url, "--key-file"]).arg(&file);
    command.args(["--room", room, "--type", "x"]);
    command.args(persist.then_some("--persist")).arg(payload);
    let output = command.output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), answer, String::from_utf8(output.stderr).unwrap())
}

/// What a member that has seen nothing yet finds in the room.
fn found(node: &Node, room: &str) -> Vec<Value> {
    let mut client = Client::connect(node.address());
    client.join(room);
    let command = json!({"type": "throng:history", "room": room});
    let answer = client.ask(command);
    let pushes = answer["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
    pushes.iter().map(|push| push["payload"].clone()).collect()
}

on_both_drivers! {
    fn the_command_line_stores_first_and_says_where_it_cannot(driver) {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("store.path={}", folder.path().join("throng.redb").display());
        let admin = with_admin(r#""publish""#);
        let sets = [admin[0].as_str(), &admin[1], &path, KEEPS];
        let first = node(driver, &sets);
        let mut member = Client::connect(first.address());
        member.join("r");
        let (went_well, answer, complaint) = publish(&first, "r", true, r#"{"dish":4}"#);
        assert!(went_well, "{complaint}");
        let push = member.next();
        assert_eq!(push["payload"], json!({"dish": 4}));
        assert_eq!(answer["offsets"]["r"]["offset"], push["offset"], "{answer}");
        wait_for(&first, "it is stored", |counters| counters.stored_total == 1);
        let (went_well, _, complaint) = publish(&first, "bare", true, "1");
        assert!(!went_well && complaint.contains("cannot_persist"), "{complaint}");
        drop(member);
        first.stop().unwrap();
        let second = node(driver, &sets);
        assert_eq!(found(&second, "r"), [json!({"dish": 4})], "it has outlived the node");
    }

    fn what_a_back_end_answers_is_stored_first_where_it_says_so(driver) {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("store.path={}", folder.path().join("throng.redb").display());
        let backend = Backend::open(|posted: &Posted| {
            let events = posted.body["events"].as_array().unwrap();
            let publish: Vec<Value> = events
                .iter()
                .flat_map(|event| {
                    let said = &event["payload"];
                    [
                        json!({"type": "kept", "room": "app", "payload": said, "persist": true}),
                        json!({"type": "spam", "room": "bare", "payload": said, "persist": true}),
                    ]
                })
                .collect();
            ok(&json!({ "publish": publish }).to_string())
        });
        let hooks = [hook("app", &backend, r#""message""#, r#", linger_ms=0, may_publish=["*"]"#)];
        let first = telling(driver, &hooks, &[&path, KEEPS]);
        let mut one = Client::connect_to_shard(first.address(), "0");
        let mut two = Client::connect_to_shard(first.address(), "1");
        for client in [&mut one, &mut two] {
            client.join("app");
            client.join("bare");
        }
        for number in 0..5 {
            two.send(&json!({"type": "move", "room": "app", "payload": number}));
        }
        let mut numbers = Vec::new();
        for number in 0..5 {
            let (push, other) = (one.next(), two.next());
            assert_eq!((&push["type"], &push["payload"]), (&json!("kept"), &json!(number)));
            assert_eq!(push["offset"], other["offset"], "in one order for all");
            numbers.push(push["offset"].as_u64().unwrap());
        }
        assert!(numbers.is_sorted(), "{numbers:?}");
        wait_for(&first, "all of them are stored", |counters| counters.stored_total == 5);
        for client in [&mut one, &mut two] {
            client.expect_silence();
        }
        drop((one, two));
        first.stop().unwrap();
        let second = node(driver, &[&path, KEEPS]);
        assert_eq!(found(&second, "app"), (0..5).map(Value::from).collect::<Vec<_>>());
    }
}
