//! Schemas of payloads, over sockets and over HTTP; row A12.

use std::fs;

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::auth::{guarded, token};
use crate::process::Program;
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

const ORDER: &str = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#;

fn rule(rooms: &str, schema: &str) -> String {
    format!(
        "schema=[{{rooms={rooms:?}, type=\"order\", schema='{schema}', max_payload_bytes=200}}]"
    )
}

fn order(payload: &Value) -> Value {
    json!({"type": "order", "room": "shop:1", "payload": payload})
}

/// The schemas of the node's own program, written in a folder.
fn program(folder: &std::path::Path, schema: &str) -> Program {
    let (config, file) = (folder.join("throng.toml"), folder.join("order.json"));
    fs::write(&file, schema).unwrap();
    let text = format!(
        "[limits]\nmessages_per_second = 0\n[[schema]]\nrooms = \"*\"\ntype = \"order\"\nschema_file = {:?}\n",
        file.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    Program::start(&["--config", config.to_str().unwrap()])
}

on_both_drivers! {
    fn a_payload_that_does_not_fit_its_schema_is_answered_and_the_session_lives(driver) {
        let node = node(driver, &[&rule("shop:*", ORDER)]);
        let mut member = Client::connect(node.address());
        member.join("shop:1");
        let mut author = Client::connect(node.address());
        let long = "x".repeat(200);
        for (payload, path) in [
            (json!({"n": "one"}), "/n"),
            (json!({"n": 1.5}), "/n"),
            (json!([]), ""),
            (json!({"n": 1, "long": long}), ""),
        ] {
            let error = author.ask(order(&payload));
            assert_eq!((&error["code"], &error["path"]), (&json!("invalid_payload"), &json!(path)), "{error}");
        }
        assert_eq!(author.ask(order(&json!({"n": 1})))["ok"], json!(true));
        assert_eq!(author.ask(json!({"type": "chat", "room": "shop:1", "payload": []}))["ok"], json!(true));
        assert_eq!(member.next()["payload"], json!({"n": 1}), "the first that it hears");
        assert_eq!(member.next()["type"], "chat");
        wait_for(&node, "all is counted", |counters| {
            (counters.payloads_checked_total, counters.payloads_refused_total) == (1, 4)
        });
    }

    fn what_a_back_end_publishes_has_to_fit_as_well(driver) {
        let sets = with_admin(r#""publish", "inspect""#);
        let node = guarded(driver, &[&sets[0], &sets[1], &rule("shop:*", ORDER)]);
        let mut member = member(&node);
        let admin = node.admin_address().unwrap();
        let publish = |body: &Value| {
            let (status, answer) = ask(admin, "POST /v1/publish", &body.to_string());
            (status, serde_json::from_str::<Value>(&answer).unwrap()["error"].clone())
        };
        let (status, error) = publish(&order(&json!({"n": []})));
        assert_eq!((status, &error["code"], &error["field"]), (400, &json!("invalid_payload"), &json!("payload/n")), "{error}");
        let batch = json!([order(&json!({"n": 1})), order(&json!(7))]);
        let (status, error) = publish(&batch);
        assert_eq!((status, &error["field"]), (400, &json!("[1].payload")), "{error}");
        assert_eq!(publish(&order(&json!({"n": 2}))).0, 200);
        assert_eq!(member.next()["payload"], json!({"n": 2}), "a batch is published whole or not at all");
        let metrics = ask(admin, "GET /metrics", "").1;
        assert!(metrics.contains("\nthrong_publish_payloads_refused_total 2\n"), "{metrics}");
    }
}

fn member(node: &Node) -> Client {
    let bearer = format!("Bearer {}", token(&json!({"sub": "ada", "rooms": ["*"]})));
    let mut member = Client::connect_with(node.address(), "/ws", &[("authorization", &bearer)]);
    member.join("shop:1");
    member
}

#[test]
fn schemas_are_read_again_on_sighup_and_one_that_will_not_do_leaves_the_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = program(folder.path(), ORDER);
    let mut author = Client::connect(program.address);
    let code = |author: &mut Client, payload: Value| author.ask(order(&payload))["code"].clone();
    assert_eq!(code(&mut author, json!({"n": "x"})), "invalid_payload");
    let file = folder.path().join("order.json");
    fs::write(&file, r#"{"type":"strin"}"#).unwrap();
    program.signal("-HUP");
    program.hear("the configuration was not taken over");
    assert_eq!(code(&mut author, json!({"n": "x"})), "invalid_payload");
    assert_eq!(code(&mut author, json!({"n": 1})), Value::Null);
    fs::write(&file, r#"{"type":"string"}"#).unwrap();
    program.signal("-HUP");
    wait_until("the new schema holds", || code(&mut author, json!("x")) == Value::Null);
    assert_eq!(code(&mut author, json!({"n": 1})), "invalid_payload");
    program.signal("-TERM");
    drop(author);
    assert_eq!(program.exit_code(), Some(0));
}

#[test]
fn a_schema_that_will_not_do_keeps_the_program_from_starting_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.json");
    let none = none.to_str().unwrap();
    for (entry, words) in [
        (format!("schema_file={none:?}"), ["[[schema]] 1", none, "cannot be read"]),
        (
            "schema='{\"type\":\"strin\"}'".to_owned(),
            ["[[schema]] 1", "/type", "expected a JSON schema"],
        ),
        (
            "schema='{\"$ref\":\"https://example.com/\"}'".to_owned(),
            ["[[schema]] 1", "example.com", "expected"],
        ),
    ] {
        let set = format!("schema=[{{rooms=\"shop:*\", type=\"order\", {entry}}}]");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_throng"));
        let out =
            command.args(["run", "--set", "server.listen=127.0.0.1:0", "--set", &set]).output();
        let out = out.unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{text}");
        for word in words.iter().chain(&["rooms = \"shop:*\""]) {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
