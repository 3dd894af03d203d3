//! Notifications by HTTP: what is answered, to whom, and what is refused.

use serde_json::json;

use super::office::{Answer, Office, SECRET};
use crate::store;

fn notify(office: &Office, body: &str) -> Answer {
    office.post("/v1/notify", SECRET, body)
}

fn inbox(office: &Office, query: &str) -> Answer {
    office.get(&format!("/v1/inbox?{query}"), SECRET)
}

#[test]
fn a_notification_is_answered_with_its_id_and_listed_as_it_was_written() {
    let office = Office::open();
    let answer = notify(&office, r#"{"user":"ada","payload":{"n": 1.50 },"type":"mail"}"#);
    assert_eq!(answer.status, 201);
    let told = answer.json();
    assert_eq!(told, json!({"id": told["id"], "at": 1, "unread": 1, "delivered": 3}));
    let id = told["id"].as_u64().expect("a number");
    notify(&office, r#"{"user":"ada","payload":null}"#);
    let listed = inbox(&office, "user=ada");
    assert!(listed.body.contains(r#""kind":"mail","payload":{"n": 1.50 }}"#), "{}", listed.body);
    let listed = listed.json();
    assert_eq!((&listed["unread"], &listed["more"]), (&json!(2), &json!(false)));
    assert_eq!(listed["items"][1], json!({"id": listed["newest"], "at": 1, "payload": null}));
    let rest = inbox(&office, &format!("user=ada&after={id}&limit=1")).json();
    assert_eq!(rest["items"][0]["id"], listed["newest"]);
    let first = inbox(&office, &format!("user=ada&until={id}")).json();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(inbox(&office, "user=bob").json()["unread"], 0);
    let others = inbox(&office, "user=ada&tenant=a%20b").json();
    assert_eq!(others["unread"], 0, "a tenant is told apart, whatever its name");
}

#[test]
fn the_same_id_again_is_answered_with_the_first_and_changes_nothing() {
    let office = Office::open();
    let body = r#"{"user":"ada","payload":1,"id":"order 7"}"#;
    let first = notify(&office, body);
    let again = notify(&office, body);
    assert_eq!((first.status, again.status), (201, 200));
    let (first, again) = (first.json(), again.json());
    assert_eq!((&again["id"], &again["repeated"]), (&first["id"], &json!(true)));
    assert_eq!(inbox(&office, "user=ada").json()["unread"], 1);
}

#[test]
fn what_was_read_is_noted_one_many_and_all() {
    let office = Office::open();
    let ids: Vec<u64> = (0..4)
        .map(|n| {
            notify(&office, &format!(r#"{{"user":"ada","payload":{n}}}"#)).json()["id"].as_u64()
        })
        .map(|id| id.expect("an id"))
        .collect();
    let read = |body: String| office.post("/v1/inbox/read", SECRET, &body).json();
    let some = format!(r#"{{"user":"ada","ids":[{},{}]}}"#, ids[0], ids[2]);
    assert_eq!(read(some), json!({"unread": 2}));
    assert_eq!(read(r#"{"user":"ada","all":true}"#.to_owned()), json!({"unread": 0}));
}

#[test]
fn what_cannot_be_is_refused_with_its_field() {
    let office = Office::open();
    for (body, code, field) in [
        (r#"{"payload":1}"#, "missing_field", "user"),
        (r#"{"user":"ada"}"#, "missing_field", "payload"),
        (r#"{"user":"ada","payload":1,"typ":"x"}"#, "unknown_field", "typ"),
        (r#"{"user":"ada","payload":1,"type":7}"#, "bad_field", "type"),
        (r#"{"user":"ada","payload":1,"id":""}"#, "bad_field", "id"),
    ] {
        let expected = (400, code.to_owned(), Some(field.to_owned()));
        assert_eq!(notify(&office, body).error(), expected, "{body}");
    }
    let large = format!(r#"{{"user":"ada","payload":"{}"}}"#, "x".repeat(1000));
    let expected = (400, "bad_field".to_owned(), Some("payload".to_owned()));
    assert_eq!(notify(&office, &large).error(), expected);
    for (query, code, field) in [
        ("", "missing_field", "user"),
        ("user=ada&user=bob", "repeated_field", "user"),
        ("user=ada&limit=many", "bad_field", "limit"),
        ("user=ada&limit=1001", "bad_field", "limit"),
        ("user=ada&since=1", "unknown_field", "since"),
    ] {
        let expected = (400, code.to_owned(), Some(field.to_owned()));
        assert_eq!(inbox(&office, query).error(), expected, "{query}");
    }
    for (body, code, field) in [
        (r#"{"user":"ada"}"#, "missing_field", "ids"),
        (r#"{"user":"ada","ids":[]}"#, "bad_field", "ids"),
        (r#"{"user":"ada","ids":["1"]}"#, "bad_field", "ids"),
        (r#"{"user":"ada","all":false}"#, "bad_field", "all"),
        (r#"{"user":"ada","all":true,"ids":[1]}"#, "bad_field", "all"),
    ] {
        let expected = (400, code.to_owned(), Some(field.to_owned()));
        assert_eq!(office.post("/v1/inbox/read", SECRET, body).error(), expected, "{body}");
    }
}

#[test]
fn a_store_that_will_not_or_cannot_is_told_as_such() {
    let office = Office::open();
    let body = r#"{"user":"ada","payload":1}"#;
    for (refused, code) in [
        (store::Refused::Busy, "overloaded"),
        (store::Refused::Full, "overloaded"),
        (store::Refused::Broken("/secret/place: it is full".into()), "store_failed"),
    ] {
        *office.desk.refusal.lock().expect("no panic") = Some(refused);
        let answer = notify(&office, body);
        assert_eq!(answer.error(), (503, code.to_owned(), None));
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        assert!(!answer.body.contains("/secret/place"), "where things lie is for the log");
        assert_eq!(inbox(&office, "user=ada").status, 503);
    }
    let revoke = office.post("/v1/revocations", SECRET, r#"{"user":"ada"}"#);
    assert_eq!(revoke.error(), (503, "store_failed".to_owned(), None));
    *office.desk.refusal.lock().expect("no panic") = None;
    assert_eq!(notify(&office, body).status, 201, "and then it goes on");
}

#[test]
fn a_key_of_one_tenant_notifies_its_own_users_and_one_without_the_scope_nobody() {
    let office = Office::open();
    let own = office.post("/v1/notify", "a secret of one tenant", r#"{"user":"ada","payload":1}"#);
    assert_eq!(own.status, 201);
    assert_eq!(inbox(&office, "user=ada&tenant=acme").json()["unread"], 1);
    assert_eq!(inbox(&office, "user=ada").json()["unread"], 0);
    let other = r#"{"user":"ada","tenant":"other","payload":1}"#;
    let refused = office.post("/v1/notify", "a secret of one tenant", other);
    assert_eq!(refused.error(), (403, "forbidden".to_owned(), Some("tenant".to_owned())));
    let refused =
        office.post("/v1/notify", "a secret for counting", r#"{"user":"ada","payload":1}"#);
    assert_eq!(refused.error(), (403, "forbidden".to_owned(), None));
    assert_eq!(office.get("/v1/inbox?user=ada", "a secret for counting").status, 403);
}
