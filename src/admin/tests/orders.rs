//! What requests make the desk do, and what is answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::office::{Office, PATIENCE, SECRET};
use crate::admin::{Limits, Revocation, Revoked};

#[test]
fn a_ticket_is_made_for_what_was_asked() {
    let office = Office::open();
    let body = r#"{"user":"u 1","tenant":"t","rooms":{"a*":["join"]},"ttlMs":2000}"#;
    let answer = office.post("/v1/tickets", SECRET, body);
    assert_eq!(answer.status, 201);
    let ticket = answer.json();
    assert_eq!(ticket["ticket"], r#"0/t/u 1/{"a*":["join"]}"#);
    assert_eq!(ticket["expiresAt"], 2000);
    let least = office.post("/v1/tickets", SECRET, r#"{"user":"u"}"#).json();
    assert_eq!((&least["ticket"], &least["expiresAt"]), (&"1/none/u/none".into(), &60_000.into()));
}

#[test]
fn a_request_that_is_not_understood_does_nothing_and_names_the_field() {
    let office = Office::open();
    let long = format!(r#"{{"user":"{}"}}"#, "u".repeat(257));
    let cases = [
        ("/v1/tickets", "{}", "missing_field", Some("user")),
        ("/v1/tickets", r#"{"user":"u","rooms":7}"#, "bad_field", Some("rooms")),
        ("/v1/tickets", r#"{"user":"u","ttlMs":999}"#, "bad_field", Some("ttlMs")),
        ("/v1/tickets", r#"{"user":"u","ttlMs":3600001}"#, "bad_field", Some("ttlMs")),
        ("/v1/revocations", r#"{"user":"u","rememberMs":1}"#, "bad_field", Some("rememberMs")),
        ("/v1/tickets", r#"{"user":"u","ttl":9}"#, "unknown_field", Some("ttl")),
        ("/v1/tickets", &long, "bad_field", Some("user")),
        ("/v1/tickets", "", "bad_json", None),
        ("/v1/tickets", "[1]", "not_an_object", None),
        ("/v1/revocations", "{}", "missing_field", Some("user")),
        ("/v1/revocations", r#"{"user":"u","tokenId":"t"}"#, "bad_field", Some("tokenId")),
        ("/v1/revocations", r#"{"user":"u","user":"v"}"#, "repeated_field", Some("user")),
    ];
    for (path, body, code, field) in cases {
        let answer = office.post(path, SECRET, body).error();
        assert_eq!(answer, (400, code.to_owned(), field.map(str::to_owned)), "{body}");
    }
    assert!(office.revoked.is_empty());
}

#[test]
fn a_revocation_is_answered_when_every_shard_has_taken_it() {
    let office = Office::with(Limits { shard_timeout: PATIENCE, ..Limits::default() });
    office.desk.takes.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| office.post("/v1/revocations", SECRET, r#"{"tokenId":"t"}"#));
        let revoked = office.revoked.recv_timeout(PATIENCE).expect("a revocation");
        let day = Duration::from_secs(86_400);
        let whose = Revoked::Token { id: "t".to_owned() };
        assert_eq!(revoked, Revocation { whose, remember: day });
        // It waits, and whoever else asks does not wait behind it.
        assert_eq!(office.get("/v1/counters", SECRET).status, 200);
        assert!(!asks.is_finished());
        office.desk.takes.store(true, Ordering::Relaxed);
        let answer = asks.join().expect("an answer");
        assert_eq!((answer.status, answer.body.trim()), (200, r#"{"shards":2}"#));
    });
}

#[test]
fn shards_that_are_late_or_inboxes_that_are_full_are_told_as_overload() {
    let limits = Limits { shard_timeout: Duration::from_millis(5), ..Limits::default() };
    let office = Office::with(limits);
    office.desk.takes.store(false, Ordering::Relaxed);
    // Four wait unread, so the fifth finds no space.
    for _ in 0..5 {
        let answer = office.post("/v1/revocations", SECRET, r#"{"user":"u"}"#);
        assert_eq!(answer.error(), (503, "overloaded".to_owned(), None));
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    }
    assert_eq!(office.revoked.len(), 4);
}

#[test]
fn a_node_whose_shards_do_not_answer_is_not_ready() {
    let limits = Limits { shard_timeout: Duration::from_millis(5), ..Limits::default() };
    let office = Office::with(limits);
    office.desk.takes.store(false, Ordering::Relaxed);
    let answer = office.get("/readyz", "");
    assert_eq!(
        (answer.status, answer.json()["reasons"][0].as_str()),
        (503, Some("a shard does not answer"))
    );
    assert_eq!(office.get("/healthz", "").status, 200);
    office.desk.takes.store(true, Ordering::Relaxed);
    assert_eq!(office.get("/readyz", "").status, 200);
}

#[test]
fn what_does_not_exist_is_told_as_json() {
    let office = Office::open();
    for path in ["/index.html", "/v1", "/v1/tickets/", "/healthz/x", "//healthz", "/v1/../healthz"]
    {
        assert_eq!(office.get(path, SECRET).error(), (404, "not_found".to_owned(), None), "{path}");
    }
    let wrong = office.get("/v1/tickets", SECRET);
    assert_eq!(wrong.error(), (405, "method_not_allowed".to_owned(), None));
    assert!(wrong.head.contains("allow: post"), "{}", wrong.head);
    assert_eq!(office.post("/healthz", SECRET, "").status, 405);
}
