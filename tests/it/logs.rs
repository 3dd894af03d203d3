//! The log as programs read it: who has gone and why, in JSON, and never a token.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::admin::{SECRET as KEY, ask};
use crate::auth::{SECRET, knock, token};
use crate::backend::{Backend, SHARED, ok};
use crate::bridge::cluster::Redis;
use crate::process::Program;
use crate::support::{Client, wait_until};
use crate::tls::client::Files;

/// The lines of a log; each is one object.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

fn start(closings: &str) -> Program {
    let secret = format!("auth.secret={SECRET:?}");
    let closings = format!("log.closings={closings}");
    let sets = [
        "log.format=json",
        &closings,
        "auth.mode=token",
        &secret,
        "auth.require_expiry=false",
        "limits.max_message_bytes=1024",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    Program::start(&sets)
}

#[test]
fn the_end_of_a_connection_is_one_json_line_with_user_reason_and_bytes_and_no_token() {
    let program = start("all");
    let claims = json!({"sub": "ada", "tenant": "acme", "rooms": ["*"]});
    let text = token(&claims);
    let bearer = format!("Bearer {text}");
    let enter = || Client::connect_with(program.address, "/ws", &[("authorization", &bearer)]);
    let mut good = enter();
    let id = good.id.clone();
    good.expect_silence();
    drop(good);
    let mut large = enter();
    large.send(&json!({"type": "x", "room": "r", "payload": "x".repeat(2000)}));
    assert_eq!(large.close_code(), 1009);
    program.signal("-TERM");
    let (_, log) = program.end();
    let lines = lines(&log);
    let of = |reason: &str| {
        let found = lines.iter().find(|line| line["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason} in {log}"))
    };
    let gone = of("vanished");
    assert_eq!(
        (&gone["conn"], &gone["user"], &gone["tenant"]),
        (&json!(id), &json!("ada"), &json!("acme"))
    );
    assert!(gone["received_bytes"].as_u64() > Some(100) && gone["sent_bytes"].as_u64() > Some(100));
    assert!(gone.get("code").is_none() && gone["seconds"].is_f64(), "{gone}");
    let refused = of("violation");
    assert_eq!((&refused["code"], &refused["user"]), (&json!(1009), &json!("ada")));
    assert!(refused["text"].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
    for part in text.split('.').chain([SECRET]) {
        assert!(!log.contains(part), "{part} is in the log:\n{log}");
    }
}

#[test]
fn goodbyes_are_left_out_where_faults_are_asked_for_and_everything_by_default() {
    for (closings, told) in [("faults", 1), ("off", 0)] {
        let program = start(closings);
        let bearer = format!("Bearer {}", token(&json!({"sub": "ada"})));
        let enter = || Client::connect_with(program.address, "/ws", &[("authorization", &bearer)]);
        drop(enter());
        let mut large = enter();
        large.send(&json!({"type": "x", "room": "r", "payload": "x".repeat(2000)}));
        assert_eq!(large.close_code(), 1009);
        program.signal("-TERM");
        let (_, log) = program.end();
        let lines = lines(&log);
        let reasons: Vec<&Value> = lines.iter().filter_map(|line| line.get("reason")).collect();
        assert_eq!(reasons, vec![&json!("violation"); told], "{log}");
    }
}

/// What the node itself keeps secret: the keys of its admin listener, what it signs with, the password of
/// Redis, the key of its certificate, and the tickets that it makes.
#[test]
fn no_secret_of_the_node_is_in_the_fullest_log() {
    const PASSWORD: &str = "open-sesame-of-redis";
    let redis = Redis::start();
    let password = format!(">{PASSWORD}");
    redis.ask(&["ACL", "SETUSER", "throng", "on", &password, "~*", "&*", "+@all"]);
    let backend = Backend::open(|_| ok(r#"{"allow":true}"#));
    let files = Files::new();
    let [certificate, _] = files.sets();
    let sets = [
        "log.level=trace".to_owned(),
        "tls.listen=127.0.0.1:0".to_owned(),
        "auth.mode=token".to_owned(),
        format!("auth.secret={SECRET:?}"),
        "auth.sources=[\"ticket\", \"header\"]".to_owned(),
        "auth.require_expiry=false".to_owned(),
        "admin.listen=127.0.0.1:0".to_owned(),
        format!("key=[{{name=\"k\", secret={KEY:?}, scopes=[\"tickets\", \"publish\"]}}]"),
        format!("auth_webhook.url={:?}", backend.url()),
        format!("auth_webhook.secret={SHARED:?}"),
        "auth_webhook.connect=true".to_owned(),
        format!(
            "webhook=[{{name=\"w\", url={:?}, secret={SHARED:?}, events=[\"connected\"]}}]",
            backend.url()
        ),
        format!("bridge.url=redis://{}", redis.address()),
        "bridge.user=throng".to_owned(),
        format!("bridge.password={PASSWORD:?}"),
        certificate,
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let program = Program::start(&sets);
    let (_, rest) = program.said.split_once("admin on http://").expect("the address");
    let admin: SocketAddr = rest.lines().next().unwrap().parse().unwrap();
    wait_until("the link is up", || ask(admin, "GET /readyz", "").0 == 200);
    let (code, answer) = ask(admin, "POST /v1/tickets", r#"{"user":"ada","rooms":["*"]}"#);
    assert_eq!(code, 201, "{answer}");
    let ticket: Value = serde_json::from_str(&answer).unwrap();
    let ticket = ticket["ticket"].as_str().expect("a ticket").to_owned();
    let mut client = Client::connect_with(program.address, &format!("/ws?ticket={ticket}"), &[]);
    // It lets in once, and is refused, and told of, the second time.
    let again = knock(program.address, &format!("/ws?ticket={ticket}"), &[]);
    assert!(again.starts_with("HTTP/1.1 401"), "{again}");
    client.join("r");
    let body = r#"{"rooms":["r"],"type":"x","payload":1}"#;
    assert_eq!(ask(admin, "POST /v1/publish", body).0, 200);
    assert_eq!(client.next()["payload"], 1);
    assert!(backend.next().body.is_object() && backend.next().body.is_object(), "asked and told");
    program.signal("-HUP");
    program.signal("-USR1");
    program.signal("-TERM");
    drop(client);
    let (_, log) = program.end();
    assert!(log.contains("read again") && log.contains("TRACE"), "{log}");
    let key = std::fs::read_to_string(files.path("key.pem")).unwrap();
    let lines = key.lines().filter(|line| !line.starts_with("-----"));
    let marks = [SECRET, KEY, SHARED, PASSWORD, ticket.as_str()].into_iter().chain(lines);
    for mark in marks {
        assert!(!log.contains(mark), "{mark} is in the log:\n{log}");
    }
}
