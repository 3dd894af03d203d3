//! What back ends answer to events: row O17, over real sockets and a real HTTP server, both shards.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use throng::node::Node;

use crate::admin::with_admin;
use crate::auth::{enter, guarded};
use crate::backend::{Backend, Posted, ok};
use crate::events::{EAGER, counter, hook, telling};
use crate::support::{Client, on_both_drivers, wait_until};

/// Where what clients publish goes to the back end alone.
const APP: &str = r#"namespace=[{pattern="app:*", deliver="webhook"}]"#;

/// The events of a request.
fn of(posted: &Posted) -> impl Iterator<Item = &Value> {
    posted.body["events"].as_array().unwrap().iter()
}

/// The counters when so many events have been heard.
fn settled(node: &Node, heard: u64) -> [u64; 3] {
    wait_until("the events are heard", || counter(node, "webhook_heard_total") == heard);
    ["published", "refused", "failed"].map(|what| counter(node, &format!("webhook_{what}_total")))
}

on_both_drivers! {
    fn what_a_back_end_answers_reaches_the_rooms_and_clients_it_may_speak_to(driver) {
        let backend = Backend::open(|posted: &Posted| {
            let publish: Vec<Value> = of(posted)
                .flat_map(|event| {
                    let own = json!([event["clientId"]]);
                    [
                        json!({"type": "moved", "room": event["room"], "payload": event["payload"]}),
                        json!({"type": "spam", "room": "elsewhere"}),
                        json!({"type": "spam", "everyone": true}),
                        json!({"type": "spam", "room": "app:1", "tenant": "acme"}),
                        json!({"type": "throng:spam", "room": "app:1"}),
                        json!({"type": "taken", "connections": own}),
                    ]
                })
                .collect();
            ok(&json!({"publish": publish, "other": 1}).to_string())
        });
        let voice = r#", linger_ms=0, may_publish=["app:*"], may_reach=["users", "connections"]"#;
        let sets = with_admin(r#""inspect""#);
        let hooks = [hook("app", &backend, r#""message""#, voice)];
        let node = telling(driver, &hooks, &[APP, &sets[0], &sets[1], EAGER]);
        let mut one = Client::connect_to_shard(node.address(), "0");
        let mut two = Client::connect_to_shard(node.address(), "1");
        let mut third = Client::connect(node.address());
        for room in ["app:1", "elsewhere"] {
            one.join(room);
            two.join(room);
        }
        third.join("elsewhere");
        for (number, client) in [(1, &mut one), (2, &mut two)] {
            client.send(&json!({"type": "move", "room": "app:1", "payload": number}));
        }
        for client in [&mut one, &mut two] {
            let heard = [client.next(), client.next(), client.next()];
            let of_type = |name: &str| heard.iter().filter(|one| one["type"] == name).count();
            assert_eq!((of_type("moved"), of_type("taken")), (2, 1), "{heard:?}");
        }
        assert_eq!(settled(&node, 2), [4, 8, 0]);
        for client in [&mut one, &mut two, &mut third] {
            client.expect_silence();
        }
    }

    fn an_answer_is_published_in_its_order_and_in_the_order_of_the_events(driver) {
        let backend = Backend::open(|posted: &Posted| {
            let publish: Vec<Value> = of(posted)
                .flat_map(|event| [0, 1].map(|half| (event["payload"].clone(), half)))
                .map(|said| json!({"type": "said", "room": "app:1", "payload": said}))
                .collect();
            ok(&json!({ "publish": publish }).to_string())
        });
        let voice = r#", linger_ms=0, max_batch=7, may_publish=["app:1"]"#;
        let hooks = [hook("app", &backend, r#""message""#, voice)];
        let node = telling(driver, &hooks, &[APP]);
        let mut one = Client::connect_to_shard(node.address(), "0");
        let mut two = Client::connect_to_shard(node.address(), "1");
        two.join("app:1");
        for number in 0..50 {
            one.send(&json!({"type": "move", "room": "app:1", "payload": number}));
        }
        for number in 0..50 {
            for half in [0, 1] {
                assert_eq!(two.next()["payload"], json!([number, half]));
            }
        }
    }

    fn an_answer_is_of_the_tenant_whose_events_it_answers(driver) {
        let backend = Backend::open(|posted: &Posted| {
            let welcome = |event: &Value| json!({"type": "welcome", "room": event["room"]});
            let publish: Vec<Value> = of(posted).map(welcome).collect();
            ok(&json!({ "publish": publish }).to_string())
        });
        let hooks = hook("app", &backend, r#""joined""#, r#", linger_ms=0, may_publish=["*"]"#);
        let node = guarded(driver, &[&format!("webhook=[{hooks}]")]);
        let of = |tenant: &str| json!({"sub": "ada", "tenant": tenant, "rooms": ["*"]});
        let mut acme = enter(node.address(), &of("acme"));
        acme.join("r");
        assert_eq!(acme.next()["type"], "welcome");
        let mut other = enter(node.address(), &of("other"));
        other.join("r");
        assert_eq!(other.next()["type"], "welcome");
        acme.expect_silence();
    }

    fn who_may_not_speak_is_not_listened_to_and_nonsense_is_counted_and_not_asked_for_again(driver) {
        let said = json!({"publish": [{"type": "spam", "room": "app:1"}]}).to_string();
        let mute = Backend::open(move |_: &Posted| ok(&said));
        let (large, next) = ("x".repeat(70_000), AtomicUsize::new(0));
        let odd = Backend::open(move |_: &Posted| {
            let answers = ["", "OK", r#"{"publish":"all"}"#, &large];
            ok(answers[next.fetch_add(1, Ordering::SeqCst)])
        });
        let hooks = [
            hook("mute", &mute, r#""message""#, ", linger_ms=0"),
            hook("odd", &odd, r#""message""#, r#", linger_ms=0, max_batch=1, may_publish=["*"]"#),
        ];
        let sets = with_admin(r#""inspect""#);
        let node = telling(driver, &hooks, &[APP, &sets[0], &sets[1], EAGER]);
        let mut client = Client::connect(node.address());
        client.join("app:1");
        for _ in 0..4 {
            client.ask(json!({"type": "move", "room": "app:1"}));
        }
        assert_eq!(settled(&node, 8), [0, 3, 0]);
        client.expect_silence();
    }
}
