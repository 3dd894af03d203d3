//! Who gets in: keys, scopes, tenants, rates.

use std::sync::atomic::Ordering;

use super::office::{Office, SECRET, bearer, exchange};
use crate::admin::openapi::DOCUMENT;
use crate::admin::{ApiKey, Limits, Options, Revoked, Scope};

fn said(status: u16, code: &str, field: Option<&str>) -> (u16, String, Option<String>) {
    (status, code.to_owned(), field.map(str::to_owned))
}

#[test]
fn health_needs_no_key_and_readiness_gives_its_reasons() {
    let office = Office::open();
    let health = office.get("/healthz", "");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    let ready = office.get("/readyz", "");
    assert_eq!((ready.status, ready.body.trim()), (200, r#"{"ready":true,"reasons":[]}"#));
    office.desk.draining.store(true, Ordering::Relaxed);
    let ready = office.get("/readyz", "");
    assert_eq!(
        (ready.status, ready.body.trim()),
        (503, r#"{"ready":false,"reasons":["draining"]}"#)
    );
    assert_eq!(office.get("/healthz", "").status, 200, "it lives while it drains");
}

#[test]
fn without_a_valid_key_nothing_else_is_told() {
    let office = Office::open();
    let long = "x".repeat(8000);
    let near = &SECRET[..SECRET.len() - 1];
    let longer = format!("{SECRET}!");
    let document: serde_json::Value = serde_json::from_str(DOCUMENT).expect("JSON");
    let paths = &document["paths"];
    // Whether it lives and is ready; and what is the same for every node of this version.
    let open = ["/healthz", "/readyz", "/", "/v1/openapi.json"];
    for secret in ["", "x", near, &longer, &long, "a secret of the back end\u{e9}"] {
        for (path, methods) in paths.as_object().expect("paths") {
            let target = path.replace(['{', '}'], "");
            let answer = match methods.get("post") {
                Some(_) => office.post(&target, secret, "{"),
                None => office.get(&target, secret),
            };
            if open.contains(&path.as_str()) {
                assert_eq!(answer.status, 200, "{path} {secret:?}");
                continue;
            }
            assert_eq!(answer.error(), said(401, "unauthorized", None), "{path} {secret:?}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    let request = |lines: &str| {
        let head = "GET /v1/counters HTTP/1.1\r\nHost: a\r\n";
        exchange(office.address(), &format!("{head}{lines}\r\n")).status
    };
    assert_eq!(request(&format!("Authorization: Basic {SECRET}\r\n")), 401);
    assert_eq!(request(&format!("Authorization: {SECRET}\r\n")), 401);
    assert_eq!(request(&bearer(SECRET).repeat(2)), 401, "which of the two would count?");
    assert_eq!(request(&format!("authorization: bearer {SECRET}\r\n")), 200);
}

#[test]
fn a_key_opens_its_scopes_and_no_more() {
    let office = Office::open();
    let counts = "a secret for counting";
    assert_eq!(office.get("/v1/counters", counts).json()["tickets"], 0);
    let body = r#"{"user":"u"}"#;
    for path in ["/v1/tickets", "/v1/revocations"] {
        assert_eq!(office.post(path, counts, body).error(), said(403, "forbidden", None));
    }
    assert!(office.revoked.is_empty());
    assert_eq!(office.desk.tickets.load(Ordering::Relaxed), 0);
}

#[test]
fn metrics_are_for_those_who_may_inspect_unless_they_are_open() {
    let office = Office::open();
    assert_eq!(office.get("/metrics", "").error(), said(401, "unauthorized", None));
    let acme = office.get("/metrics", "a secret of one tenant");
    assert_eq!(acme.error(), said(403, "forbidden", None));
    let answer = office.get("/metrics", "a secret for counting");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("\ntickets_total 0\n"), "{}", answer.body);
    assert!(answer.body.contains("throng_jwks_fetches_total{outcome=\"failed\"} 0\n"));
    office.admin.reload(Options { metrics_open: true, ..office.options.clone() });
    let mut asked = std::iter::repeat_with(|| office.get("/metrics", "").status);
    assert!(asked.by_ref().take(10_000).any(|status| status == 200));
    assert_eq!(office.get("/v1/counters", "").status, 401, "nothing else is");
}

#[test]
fn a_key_of_one_tenant_never_reaches_another() {
    let office = Office::open();
    let acme = "a secret of one tenant";
    for body in [r#"{"user":"u"}"#, r#"{"user":"u","tenant":"acme"}"#] {
        let ticket = office.post("/v1/tickets", acme, body).json();
        assert!(ticket["ticket"].as_str().expect("text").ends_with("/acme/u/none"), "{ticket}");
        assert_eq!(office.post("/v1/revocations", acme, body).status, 200);
        let revoked = office.revoked.try_recv().expect("a revocation");
        let tenant = Some("acme".to_owned());
        assert_eq!(revoked.whose, Revoked::User { tenant, user: "u".to_owned() });
    }
    let other = r#"{"user":"u","tenant":"other"}"#;
    for path in ["/v1/tickets", "/v1/revocations"] {
        assert_eq!(office.post(path, acme, other).error(), said(403, "forbidden", Some("tenant")));
    }
    let token = office.post("/v1/revocations", acme, r#"{"tokenId":"t"}"#);
    assert_eq!(token.error(), said(403, "forbidden", Some("tokenId")));
    assert_eq!(office.get("/v1/counters", acme).error(), said(403, "forbidden", None));
    assert!(office.revoked.is_empty());
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let office = Office::with(Limits { requests_per_second: 1, ..Limits::default() });
    let mut answers = (0..200).map(|_| office.get("/v1/counters", SECRET));
    let limited = answers.find(|answer| answer.status != 200).expect("a limit");
    assert_eq!(limited.error(), said(429, "rate_limited", None));
    assert!(limited.head.contains("retry-after: 1"), "{}", limited.head);
    assert_eq!(office.get("/v1/counters", "a secret for counting").status, 200);
    assert_eq!(office.get("/healthz", "").status, 200);
}

#[test]
fn new_keys_replace_the_old_ones_while_it_runs() {
    let office = Office::open();
    assert_eq!(office.get("/v1/counters", SECRET).status, 200);
    let keys = vec![ApiKey::new("new", "another secret", &[Scope::Inspect], None)];
    office.admin.reload(Options { keys, ..Options::default() });
    let deadline = std::iter::repeat_with(|| office.get("/v1/counters", "another secret").status);
    assert!(deadline.take(10_000).any(|status| status == 200));
    assert_eq!(office.get("/v1/counters", SECRET).status, 401);
}

#[test]
fn no_secret_is_in_what_is_printed_of_a_key() {
    let key = ApiKey::new("k", SECRET, &[Scope::Revoke], None);
    let shown = format!("{:?}", Options { keys: vec![key.clone()], ..Options::default() });
    let hash = format!("{:?}", key.hash);
    assert!(
        !shown.contains(SECRET) && !shown.contains(&hash) && shown.contains("\"k\""),
        "{shown}"
    );
}
