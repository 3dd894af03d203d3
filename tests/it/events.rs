//! Back ends that are told what happens: row O17 in part, over real sockets, both shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::{ask, with_admin};
use crate::backend::{Backend, Posted, SHARED, ok, response};
use crate::support::{Client, node, on_both_drivers, wait_until};

/// What `[[webhook]]` says of a back end, beside its name.
pub(crate) fn hook(name: &str, backend: &Backend, events: &str, more: &str) -> String {
    let url = backend.url();
    format!(r#"{{name="{name}", url="{url}", secret="{SHARED}", events=[{events}]{more}}}"#)
}

pub(crate) fn telling(driver: &str, hooks: &[String], sets: &[&str]) -> Node {
    let hooks = format!("webhook=[{}]", hooks.join(", "));
    node(driver, &[&[hooks.as_str()], sets].concat())
}

/// The counters are looked at all the time here.
pub(crate) const EAGER: &str = "admin.requests_per_second=1000000";

const ALL: &str = r#""connected", "disconnected", "joined", "left", "message""#;

/// The events of the requests that came so far and of those to come, until there are so many.
pub(crate) fn events(backend: &Backend, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while events.len() < count {
        let Value::Array(batch) = backend.next().body["events"].take() else { panic!("no events") };
        assert!(!batch.is_empty());
        events.extend(batch);
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn of_client<'a>(events: &'a [Value], client: &str) -> Vec<&'a str> {
    let own = events.iter().filter(|event| event["clientId"] == client);
    own.filter_map(|event| event["event"].as_str()).collect()
}

pub(crate) fn counter(node: &Node, name: &str) -> u64 {
    let (_, counters) = ask(node.admin_address().unwrap(), "GET /v1/counters", "");
    let counters: Value = serde_json::from_str(&counters).unwrap();
    counters[name].as_u64().expect(name)
}

on_both_drivers! {
    fn a_back_end_hears_of_clients_and_rooms_and_of_messages_that_are_for_it(driver) {
        let backend = Backend::open(|_: &Posted| ok(""));
        let deliver = r#"namespace=[{pattern="app:*", deliver="webhook"}]"#;
        let node = telling(driver, &[hook("all", &backend, ALL, "")], &[deliver]);
        let mut one = Client::connect_to_shard(node.address(), "0");
        let mut two = Client::connect_to_shard(node.address(), "1");
        for client in [&mut one, &mut two] {
            client.join("app:1");
            let taken = client.ask(json!({"type": "move", "room": "app:1", "payload": {"to": "e4"}}));
            assert_eq!(taken["ok"], json!(true));
            client.expect_silence();
        }
        let ids = [one.id.clone(), two.id.clone()];
        drop((one, two));
        let strangers = usize::try_from(node.counters().handshakes_total - 2).unwrap();
        let events = events(&backend, 10 + 2 * strangers);
        for id in &ids {
            let expected = ["connected", "joined", "message", "left", "disconnected"];
            assert_eq!(of_client(&events, id), expected, "{events:?}");
        }
        let message = events.iter().find(|event| event["event"] == "message").unwrap();
        assert_eq!((&message["type"], &message["room"]), (&json!("move"), &json!("app:1")));
        assert_eq!(message["payload"], json!({"to": "e4"}));
        let mut numbers: Vec<&Value> = events.iter().map(|event| &event["id"]).collect();
        numbers.sort_by_key(|id| id.to_string());
        numbers.dedup();
        assert_eq!(numbers.len(), events.len(), "every id once");
    }

    fn events_go_in_batches_and_only_to_those_who_want_to_hear_of_them(driver) {
        let (all, few) = (Backend::open(|_: &Posted| ok("")), Backend::open(|_: &Posted| ok("")));
        let hooks = [
            hook("all", &all, ALL, ", linger_ms=60000, max_batch=20"),
            hook("few", &few, r#""joined""#, ", linger_ms=0"),
        ];
        let node = telling(driver, &hooks, &[]);
        let mut client = Client::connect(node.address());
        for room in 0..19 {
            client.join(&format!("r{room}"));
        }
        assert_eq!(events(&all, 20).len(), 20);
        assert_eq!(all.waiting(), 0, "one batch");
        assert!(events(&few, 19).iter().all(|event| event["event"] == "joined"));
    }

    fn what_fails_is_told_again_in_order_and_what_fails_always_is_given_up(driver) {
        let failures = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&failures);
        let flaky = Backend::open(move |_: &Posted| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Some(response("503 Service Unavailable", "")),
            1 => Some(String::new()),
            _ => ok(""),
        });
        let dead = Backend::open(|_: &Posted| Some(response("500 Internal Server Error", "")));
        let hooks = [
            hook("flaky", &flaky, r#""joined""#, ", linger_ms=0"),
            hook("dead", &dead, r#""joined""#, ", linger_ms=0, max_attempts=1"),
        ];
        let sets = with_admin(r#""inspect""#);
        let node = telling(driver, &hooks, &[&sets[0], &sets[1], EAGER]);
        let mut client = Client::connect(node.address());
        for room in 0..5 {
            client.join(&format!("r{room}"));
        }
        wait_until("all are heard", || counter(&node, "webhook_heard_total") == 5);
        let mut heard: Vec<Value> = Vec::new();
        while flaky.waiting() > 0 {
            let Value::Array(batch) = flaky.next().body["events"].take() else { panic!("no events") };
            for event in batch {
                // What was told before and failed comes again.
                if !heard.contains(&event) {
                    heard.push(event);
                }
            }
        }
        let rooms: Vec<&str> = heard.iter().filter_map(|event| event["room"].as_str()).collect();
        assert_eq!(rooms, ["r0", "r1", "r2", "r3", "r4"]);
        wait_until("all are given up", || counter(&node, "webhook_dead_total") == 5);
        assert!(counter(&node, "webhook_failed_total") >= 3);
        let (_, metrics) = ask(node.admin_address().unwrap(), "GET /metrics", "");
        for (outcome, count) in [("heard", 5), ("dead", 5), ("dropped", 0)] {
            let line = format!("throng_webhook_events_total{{outcome=\"{outcome}\"}} {count}\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        client.expect_silence();
    }

    fn a_back_end_that_never_answers_keeps_nobody_waiting_and_bounds_what_waits(driver) {
        let opens = Arc::new(AtomicBool::new(false));
        let open = Arc::clone(&opens);
        let hung = Backend::open(move |_: &Posted| {
            if open.load(Ordering::SeqCst) { ok("") } else { None }
        });
        let other = Backend::open(|_: &Posted| ok(""));
        let hooks = [
            hook("hung", &hung, ALL, ", linger_ms=0, timeout_ms=200, max_waiting_bytes=65536, max_batch=1000"),
            hook("other", &other, ALL, ", linger_ms=0"),
        ];
        let sets = with_admin(r#""inspect""#);
        let node = telling(driver, &hooks, &[&sets[0], &sets[1], EAGER]);
        let mut client = Client::connect(node.address());
        for _ in 0..500 {
            client.join("a");
            client.ask(json!({"type": "throng:leave", "room": "a"}));
        }
        events(&other, 1001);
        wait_until("some are dropped", || counter(&node, "webhook_dropped_total") > 0);
        let dropped = counter(&node, "webhook_dropped_total");
        opens.store(true, Ordering::SeqCst);
        wait_until("the rest is heard", || {
            counter(&node, "webhook_heard_total") + dropped == 2002
        });
        assert_eq!(counter(&node, "webhook_dead_total"), 0);
    }

    fn what_waits_at_the_end_is_told_before_the_node_is_gone(driver) {
        let backend = Backend::open(|_: &Posted| ok(""));
        let hooks = [hook("all", &backend, ALL, ", linger_ms=60000")];
        let node = telling(driver, &hooks, &[]);
        let client = Client::connect(node.address());
        let id = client.id.clone();
        drop(client);
        wait_until("both are on their way", || node.counters().events_total == 2);
        assert_eq!(backend.waiting(), 0);
        node.stop().unwrap();
        assert_eq!(of_client(&events(&backend, 2), &id), ["connected", "disconnected"]);
    }
}
