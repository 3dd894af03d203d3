//! Questions about who is there: what is asked of the node, and what is answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::office::{Office, SECRET};
use crate::admin::{Limits, PresenceAsk};

#[test]
fn users_and_rooms_are_asked_for_as_the_request_says() {
    let office = Office::open();
    let path = "/v1/presence/users?user=ada&user=b%26b&tenant=t";
    let answer = office.get(path, SECRET);
    let expected = json!({"users": [
        {"user": "ada", "state": "online"},
        {"user": "bob", "state": "offline", "lastSeen": 5},
    ]});
    assert_eq!((answer.status, answer.json()), (200, expected));
    let users = vec!["ada".to_owned(), "b&b".to_owned()];
    let asked = office.asked.try_recv().expect("a question");
    assert_eq!(asked, (Some("t".to_owned()), PresenceAsk::Users(users)));
    let answer = office.get("/v1/presence/rooms/a%2Fb%20c?limit=1&after=0-1-0", SECRET);
    let expected = json!({
        "room": "a/b c", "members": 3, "next": "0-1-7",
        "connections": [{
            "clientId": "0-1-7", "user": "ada", "state": "online", "connectedAt": 1_750_000_000_000_u64,
        }],
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    let after = "0-1-0".parse().ok();
    let room = PresenceAsk::Room { room: "a/b c".to_owned(), after, limit: 1 };
    assert_eq!(office.asked.try_recv(), Ok((None, room)));
    let all = office.get("/v1/presence/rooms/r", SECRET).json();
    assert_eq!(
        all["connections"][1],
        json!({"clientId": "0-2-7", "user": null, "state": "online"})
    );
    assert!(all.get("next").is_none(), "{all}");
}

#[test]
fn a_key_of_one_tenant_asks_for_nobody_elses_users() {
    let office = Office::open();
    let own = "a secret of one tenant";
    assert_eq!(office.get("/v1/presence/users?user=ada", own).status, 200);
    let (tenant, _) = office.asked.try_recv().expect("a question");
    assert_eq!(tenant.as_deref(), Some("acme"));
    for path in ["/v1/presence/users?user=ada&tenant=other", "/v1/presence/rooms/r?tenant=other"] {
        let answer = office.get(path, own).error();
        assert_eq!(answer, (403, "forbidden".to_owned(), Some("tenant".to_owned())));
    }
    assert_eq!(office.get("/v1/presence/rooms/r", "no key").status, 401);
    assert!(office.asked.is_empty());
}

#[test]
fn what_is_not_understood_is_refused_and_names_the_field() {
    let office = Office::open();
    let many = format!("/v1/presence/users?{}", "user=u&".repeat(101));
    for (path, field) in [
        ("/v1/presence/users", "user"),
        (many.as_str(), "user"),
        ("/v1/presence/users?user=", "user"),
        ("/v1/presence/users?usr=ada", "usr"),
        ("/v1/presence/rooms/r?limit=0", "limit"),
        ("/v1/presence/rooms/r?limit=1001", "limit"),
        ("/v1/presence/rooms/r?after=x", "after"),
        ("/v1/presence/rooms/a%0Ab", "room"),
    ] {
        let (status, _, named) = office.get(path, SECRET).error();
        assert_eq!((status, named.as_deref()), (400, Some(field)), "{path}");
    }
    assert!(office.asked.is_empty());
}

#[test]
fn shards_that_do_not_answer_in_time_are_named() {
    let short = Limits { shard_timeout: Duration::from_millis(20), ..Limits::default() };
    let office = Office::with(short);
    office.desk.takes.store(false, Ordering::Relaxed);
    for path in ["/v1/presence/users?user=ada", "/v1/presence/rooms/r"] {
        let answer = office.get(path, SECRET);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["missingShards"], json!([1]), "{path}");
    }
    for _ in 0..4 {
        let _ = office.get("/v1/presence/users?user=ada", SECRET);
    }
    // The desk takes no more than four questions that nobody has looked at.
    let (status, code, _) = office.get("/v1/presence/users?user=ada", SECRET).error();
    assert_eq!((status, code.as_str()), (503, "overloaded"));
}
