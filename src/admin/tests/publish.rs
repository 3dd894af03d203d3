//! Publishing through the listener: what the desk is given, and every kind of answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::office::{Office, Replies, SECRET, SmallDesk};
use crate::admin::{Limits, NotPublished, Outcome, Posted, Publisher, Replied, Reply};

/// Understands the name of what is to happen.
impl Publisher for SmallDesk {
    fn publish(&self, body: &str, tenant: Option<&str>) -> Result<Posted, NotPublished> {
        match body {
            "behind" => return Err(NotPublished::Behind),
            "foreign" => return Err(NotPublished::OtherTenant { at: None }),
            "wrong" | "wrong list" => {
                return Err(NotPublished::Wrong {
                    code: "bad_field",
                    message: "no".to_owned(),
                    field: Some("room".to_owned()),
                    at: (body == "wrong list").then_some(3),
                });
            }
            _ => {}
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        let order = if tenant == Some("acme") { 2 } else { 1 };
        Ok(Posted { order, batch: body.starts_with('[') })
    }

    fn reply(&self, _: Reply<'_>) -> Result<Replied, NotPublished> {
        let Replies { behind, taken } = &self.replies;
        let less = |left: u64| left.checked_sub(1);
        if behind.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(NotPublished::Behind);
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Ok(Replied { published: 1, ..Replied::default() })
    }

    fn outcome(&self, order: u64) -> Option<Vec<Outcome>> {
        let numbers = vec![("lobby".to_owned(), 0xab, order)];
        let one = Outcome { numbers, connections: Some(7), complete: true, ..Outcome::default() };
        if !self.takes.load(Ordering::Relaxed) {
            return None;
        }
        Some(if order == 2 { vec![one] } else { vec![one, Outcome::default()] })
    }

    fn give_up(&self, order: u64) -> Option<Vec<Outcome>> {
        let open = self.open.swap(0, Ordering::Relaxed) > 0;
        (open && order == 2).then(|| vec![Outcome { connections: Some(1), ..Outcome::default() }])
    }

    fn post_waiting(&self) -> bool {
        self.posted.fetch_add(1, Ordering::Relaxed) < 3
    }
}

const ACME: &str = "a secret of one tenant";

#[test]
fn one_publication_is_answered_by_itself_and_a_batch_by_a_list() {
    let office = Office::open();
    let one = office.post("/v1/publish", ACME, "{}");
    let expected = json!({"offsets": {"lobby": {"offset": 2, "epoch": "ab"}},
        "deliveredConnections": 7, "complete": true});
    assert_eq!((one.status, one.json()), (200, expected));
    let batch = office.post("/v1/publish", SECRET, "[]");
    let results = &batch.json()["results"];
    assert_eq!(results[0]["offsets"]["lobby"]["offset"], 1);
    assert_eq!(results[1], json!({"offsets": {}}), "nobody asked for its number");
}

#[test]
fn what_is_not_published_is_told_with_its_code_and_its_field() {
    let office = Office::open();
    let cases = [
        ("wrong", 400, "bad_field", Some("room")),
        ("wrong list", 400, "bad_field", Some("[3].room")),
        ("foreign", 403, "forbidden", Some("tenant")),
        ("behind", 429, "overloaded", None),
    ];
    for (body, status, code, field) in cases {
        let answer = office.post("/v1/publish", SECRET, body);
        assert_eq!(answer.error(), (status, code.to_owned(), field.map(str::to_owned)));
        assert_eq!(answer.head.contains("retry-after: 1"), status == 429, "{}", answer.head);
    }
    let other = office.post("/v1/publish", "a secret for counting", "{}");
    assert_eq!(other.error().0, 403, "another scope");
    assert_eq!(office.post("/v1/publish", "", "{}").error().0, 401);
}

#[test]
fn an_order_that_is_not_done_in_time_is_given_up_and_what_waits_is_posted() {
    let office =
        Office::with(Limits { shard_timeout: Duration::from_millis(20), ..Limits::default() });
    office.desk.takes.store(false, Ordering::Relaxed);
    let answer = office.post("/v1/publish", SECRET, "{}");
    assert_eq!(answer.error(), (503, "overloaded".to_owned(), None));
    assert_eq!(office.desk.open.load(Ordering::Relaxed), 0, "it is forgotten");
    // Every home has taken this one, and not every shard has counted.
    let partly = office.post("/v1/publish", ACME, "{}").json();
    assert_eq!(partly["complete"], false);
    assert_eq!(partly["deliveredConnections"], 1);
    while office.desk.posted.load(Ordering::Relaxed) < 4 {
        std::thread::yield_now();
    }
}
