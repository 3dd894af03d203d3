//! What an operator sees: the page, and who has most to read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::office::Office;
use crate::admin::{Limits, Options};

const COUNTS: &str = "a secret for counting";

#[test]
fn the_heaviest_twenty_are_told_in_order_to_who_may_inspect() {
    let office = Office::open();
    assert_eq!(office.get("/v1/laggards", "").status, 401);
    assert_eq!(office.get("/v1/laggards", "a secret of one tenant").status, 403);
    let answer = office.get("/v1/laggards", COUNTS).json();
    let laggards = answer["laggards"].as_array().expect("a list");
    assert_eq!(laggards.len(), 20);
    let first = r#"{"conn":"0-30-1","rooms":2,"seconds":3,"user":"ada","waitingBytes":3000}"#;
    assert_eq!(laggards[0].to_string(), first);
    let waiting: Vec<u64> = laggards.iter().filter_map(|l| l["waitingBytes"].as_u64()).collect();
    assert!(waiting.is_sorted_by(|a, b| a > b), "{waiting:?}");
}

#[test]
fn shards_that_do_not_answer_are_told_as_overload() {
    let shard_timeout = Duration::from_millis(20);
    let office = Office::with(Limits { shard_timeout, ..Limits::default() });
    office.desk.takes.store(false, Ordering::Relaxed);
    let (status, code, _) = office.get("/v1/laggards", COUNTS).error();
    assert_eq!((status, code.as_str()), (503, "overloaded"));
}

#[test]
fn the_page_needs_no_key_is_not_to_be_framed_and_knows_whether_metrics_do() {
    let office = Office::open();
    let answer = office.get("/", "");
    assert_eq!(answer.status, 200);
    for line in ["content-type: text/html", "x-frame-options: deny", "cache-control: no-store"] {
        assert!(answer.head.contains(line), "{line} in {}", answer.head);
    }
    assert!(answer.body.contains("data-metrics=\"keyed\""), "{}", answer.body);
    office.admin.reload(Options { metrics_open: true, ..office.options.clone() });
    let mut bodies = std::iter::repeat_with(|| office.get("/", "").body);
    assert!(bodies.by_ref().take(10_000).any(|body| body.contains("data-metrics=\"open\"")));
}
