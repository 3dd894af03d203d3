//! The log as programs read it: who has gone and why, in JSON, and never a token.

use serde_json::{Value, json};

use crate::auth::{SECRET, token};
use crate::process::Program;
use crate::support::Client;

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
