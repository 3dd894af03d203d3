//! Every limit of a connection, a user, an address and a tenant, with everything that may happen to who is over it.
//!
//! One table for a running node. Rates are tried in all three consequences: an error that drops the message and says
//! when to come back, a delay in which nothing is lost, a close with 1008. Each time somebody who shares nothing
//! with the hasty one is served as ever. What is no rate has one consequence of its own, and stands below. Cells that
//! do not exist: an address has no rooms, questions or message size (who is behind it may be many), and a connection
//! no number of connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use throng::node::Node;

use crate::auth::{enter, guarded, knock, status, token};
use crate::support::{Client, node, on_both_drivers, wait_for, wait_until};

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Connection,
    User,
    Address,
    Tenant,
}

const ALL: [(Whose, &str); 4] = [
    (Whose::Connection, "limits"),
    (Whose::User, "limits_user"),
    (Whose::Address, "limits_address"),
    (Whose::Tenant, "limits_tenant"),
];

/// What is limited per second, and what a message of the test costs of it.
const RATES: [(&str, u32); 4] = [
    ("messages_per_second", 1),
    ("bytes_per_second", 100),
    ("joins_per_second", 1),
    ("publishes_per_second", 1),
];

impl Whose {
    /// The key of the consequence; an address has that of a connection.
    fn over(self) -> &'static str {
        match self {
            Self::Connection | Self::Address => "limits.over_rate",
            Self::User => "limits_user.over_rate",
            Self::Tenant => "limits_tenant.over_rate",
        }
    }

    fn node(self, driver: &str, sets: &[String]) -> Node {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        if self == Self::Address { node(driver, &sets) } else { guarded(driver, &sets) }
    }

    /// One who shares the limit with all others that this gives, where connections share it.
    fn hasty(self, address: SocketAddr) -> Client {
        match self {
            Self::Address => Client::connect(address),
            _ => enter(address, &of("ada", "x")),
        }
    }

    /// One who does not.
    fn other(self, address: SocketAddr) -> Client {
        match self {
            Self::Connection => self.hasty(address),
            Self::User => enter(address, &of("bob", "x")),
            Self::Address => Client::connect_from(address, [127, 0, 0, 2]),
            Self::Tenant => enter(address, &of("ada", "y")),
        }
    }
}

fn of(user: &str, tenant: &str) -> Value {
    json!({"sub": user, "tenant": tenant, "rooms": ["*"]})
}

/// A message that costs something of this rate; no two join the same room.
fn message(rate: &str, number: usize) -> Value {
    match rate {
        "joins_per_second" => json!({"type": "throng:join", "room": format!("r{number}")}),
        "publishes_per_second" => json!({"type": "t", "room": "r"}),
        "bytes_per_second" => json!({"type": "throng:ping", "ref": "r".repeat(20)}),
        _ => json!({"type": "throng:ping"}),
    }
}

fn is_obeyed(answer: &Value) -> bool {
    answer["ok"] == json!(true) || answer["type"] == "throng:pong"
}

/// True when a client that is one too many is told so: by a status, where that is known before the upgrade is
/// answered, or by a close frame.
fn is_turned_away(whose: Whose, address: SocketAddr) -> bool {
    let bearer = format!("Bearer {}", token(&of("ada", "x")));
    let headers = [("Authorization", bearer.as_str())];
    let headers = if whose == Whose::Address { &[][..] } else { &headers };
    let answer = knock(address, "/ws", headers);
    status(&answer) == "503" || answer.contains("too many connections")
}

/// What is over the rate is dropped with a typed error.
fn drops(driver: &str, whose: Whose, section: &str, (rate, cost): (&str, u32)) {
    let cell = format!("{section}.{rate} error");
    let sets = [
        format!("{section}.{rate}={cost}"),
        format!("{}=error", whose.over()),
        format!("{section}.burst_ms=3000"),
    ];
    let node = whose.node(driver, &sets);
    let address = node.address();
    // All but a connection's limit are shared, wherever in the node the second one is.
    let mut hasty = vec![whose.hasty(address)];
    if whose != Whose::Connection {
        hasty.push(whose.hasty(address));
    }
    let mut refused = 0;
    for number in 0..60 {
        let at = number % hasty.len();
        let answer = hasty[at].ask(message(rate, number));
        if is_obeyed(&answer) {
            continue;
        }
        assert_eq!(answer["code"], "rate_limited", "{cell}: {answer}");
        assert!(answer["retryAfterMs"].as_u64().is_some_and(|after| after > 0), "{cell}: {answer}");
        refused += 1;
    }
    assert!(refused > 0, "{cell}: sixty at once");
    let mut other = whose.other(address);
    assert!(is_obeyed(&other.ask(message(rate, 60))), "{cell}: another one");
    wait_for(&node, &cell, |c| c.rate_limited_total == refused && c.rate_closed_total == 0);
}

/// Nothing is lost, and the connection is not read from meanwhile.
fn delays(driver: &str, whose: Whose, section: &str, (rate, cost): (&str, u32)) {
    let cell = format!("{section}.{rate} delay");
    let sets = [
        format!("{section}.{rate}={}", cost * 200),
        format!("{}=delay", whose.over()),
        format!("{section}.burst_ms=50"),
        "limits.max_rooms=1000".to_owned(),
    ];
    let node = whose.node(driver, &sets);
    let mut hasty = whose.hasty(node.address());
    for number in 0..120 {
        let mut message = message(rate, number);
        message["ref"] = json!(reference(number));
        hasty.send(&message);
    }
    // What is answered by another shard may be overtaken.
    let mut open: BTreeSet<String> = (0..120).map(reference).collect();
    while !open.is_empty() {
        let answer = hasty.next();
        assert!(is_obeyed(&answer), "{cell}: {answer}");
        let known = answer["ref"].as_str().is_some_and(|reference| open.remove(reference));
        assert!(known, "{cell}: {answer}");
    }
    let counters = node.counters();
    assert!(counters.rate_delays_total > 0, "{cell}");
    assert_eq!((counters.rate_limited_total, counters.rate_closed_total), (0, 0), "{cell}");
}

fn reference(number: usize) -> String {
    format!("{number:020}")
}

/// Who sends it is closed with 1008.
fn closes(driver: &str, whose: Whose, section: &str, (rate, cost): (&str, u32)) {
    let cell = format!("{section}.{rate} close");
    let sets = [
        format!("{section}.{rate}={cost}"),
        format!("{}=close", whose.over()),
        format!("{section}.burst_ms=3000"),
    ];
    let node = whose.node(driver, &sets);
    let mut hasty = whose.hasty(node.address());
    for number in 0..20 {
        // Whoever is closed meanwhile cannot send all of it.
        if hasty.try_send(&message(rate, number).to_string()).is_err() {
            break;
        }
    }
    wait_for(&node, &cell, |c| c.rate_closed_total == 1);
    assert_eq!(hasty.close_code(), 1008, "{cell}");
    let mut other = whose.other(node.address());
    assert!(is_obeyed(&other.ask(message(rate, 60))), "{cell}: another one");
}

/// Asks until the answer is a refusal, and says which.
fn refusal(client: &mut Client, what: &str, ask: impl Fn(usize) -> Value) -> Value {
    let (mut number, mut found) = (0, Value::Null);
    wait_until(what, || {
        // Two shards may go over a limit together before they hear of each other, and then say so.
        let answer = client.ask_among(ask(number));
        number += 1;
        found = answer["code"].clone();
        !found.is_null()
    });
    found
}

fn join(number: usize) -> Value {
    json!({"type": "throng:join", "room": format!("room-{number}")})
}

on_both_drivers! {
    fn what_is_over_any_rate_is_dropped_with_a_typed_error_where_that_is_the_rule(driver) {
        for (whose, section) in ALL {
            for rate in RATES {
                drops(driver, whose, section, rate);
            }
        }
    }

    fn what_is_over_any_rate_is_delayed_and_not_lost_where_that_is_the_rule(driver) {
        for (whose, section) in ALL {
            for rate in RATES {
                delays(driver, whose, section, rate);
            }
        }
    }

    fn whoever_is_over_any_rate_is_closed_with_1008_where_that_is_the_rule(driver) {
        for (whose, section) in ALL {
            for rate in RATES {
                closes(driver, whose, section, rate);
            }
        }
    }

    fn every_number_of_connections_closes_the_one_too_many_and_nobody_else(driver) {
        for (whose, limit, keep) in [
            (Whose::User, "limits_user.max_connections=1", "limits_user.keep=oldest"),
            (Whose::Address, "limits_address.max_connections=1", "limits_user.keep=newest"),
            (Whose::Tenant, "limits_tenant.max_connections=1", "limits_user.keep=newest"),
        ] {
            let node = whose.node(driver, &[limit.to_owned(), keep.to_owned()]);
            let mut first = whose.hasty(node.address());
            wait_for(&node, limit, |c| c.counted_parties >= 1);
            // Who leaves before its home has spoken is not told.
            wait_until(limit, || is_turned_away(whose, node.address()));
            let mut other = whose.other(node.address());
            other.expect_silence();
            first.expect_silence();
        }
        let node = Whose::User.node(driver, &["limits_user.max_connections=1".to_owned()]);
        let first = Whose::User.hasty(node.address());
        wait_for(&node, "the first is counted", |c| c.counted_parties >= 1);
        let mut newest = Whose::User.hasty(node.address());
        assert_eq!(first.close_code(), 4409);
        newest.expect_silence();
    }

    fn every_number_of_rooms_refuses_a_join_too_many_with_a_typed_error(driver) {
        for (whose, limit, code) in [
            (Whose::Connection, "limits.max_rooms=3", "room_limit"),
            (Whose::User, "limits_user.max_rooms=3", "room_limit"),
            (Whose::Tenant, "limits_tenant.max_rooms=3", "tenant_limit"),
        ] {
            let node = whose.node(driver, &[limit.to_owned()]);
            let mut first = whose.hasty(node.address());
            first.join("room-0");
            if whose != Whose::Connection {
                let mut second = whose.hasty(node.address());
                let found = refusal(&mut second, limit, |number| join(number + 1));
                assert_eq!(found, json!(code), "{limit}: the second");
            }
            let found = refusal(&mut first, limit, |number| join(number + 60));
            assert_eq!(found, json!(code), "{limit}");
            whose.other(node.address()).join("room-9");
        }
    }

    fn a_message_too_long_for_its_connection_or_tenant_closes_with_1009(driver) {
        for (whose, limit) in [
            (Whose::Connection, "limits.max_message_bytes=200"),
            (Whose::Tenant, "limits_tenant.max_message_bytes=200"),
            (Whose::Tenant, "tenant=[{name=\"x\", max_message_bytes=200}]"),
        ] {
            let node = whose.node(driver, &[limit.to_owned()]);
            let mut long = whose.hasty(node.address());
            assert!(is_obeyed(&long.ask(json!({"type": "t", "room": "r"}))), "{limit}");
            let text = json!({"type": "t", "room": "r", "payload": "x".repeat(300)});
            long.send(&text);
            assert_eq!(long.close_code(), 1009, "{limit}");
            let mut other = whose.other(node.address());
            if limit.starts_with("tenant=") {
                assert!(is_obeyed(&other.ask(text)), "{limit}: another tenant");
            }
            other.expect_silence();
        }
        let rule = "namespace=[{pattern=\"small:*\", max_payload_bytes=10, joins_per_second=1}]";
        let node = guarded(driver, &[rule, "limits.burst_ms=2000"]);
        let mut client = enter(node.address(), &of("ada", "x"));
        let say = |room: &str| json!({"type": "t", "room": room, "payload": "0123456789"});
        let error = client.ask(say("small:a"));
        assert_eq!(error["code"], "too_large", "{error}");
        assert!(is_obeyed(&client.ask(say("large"))));
        let small = |number| json!({"type": "throng:join", "room": format!("small:{number}")});
        assert_eq!(refusal(&mut client, rule, small), json!("rate_limited"));
        assert!(is_obeyed(&client.ask(json!({"type": "throng:join", "room": "large"}))));
    }

    fn questions_that_are_not_answered_yet_are_limited_with_a_typed_error(driver) {
        for (whose, limit) in [
            (Whose::Connection, "limits.max_outstanding=1"),
            (Whose::User, "limits_user.max_outstanding=1"),
            (Whose::Tenant, "limits_tenant.max_outstanding=1"),
            (Whose::Tenant, "tenant=[{name=\"x\", max_outstanding=1}]"),
        ] {
            let node = whose.node(driver, &[limit.to_owned()]);
            let mut hasty = whose.hasty(node.address());
            // What arrives in one piece is asked before anything can be answered.
            wait_until(limit, || {
                let question = |number| json!({"type": "throng:members", "room": format!("r{number}")});
                for number in 0..50 {
                    hasty.send(&question(number));
                }
                let answers: Vec<Value> = (0..50).map(|_| hasty.next()).collect();
                answers.iter().any(|answer| answer["code"] == "overloaded")
            });
            let mut other = whose.other(node.address());
            for number in 0..20 {
                let answer = other.ask(json!({"type": "throng:members", "room": format!("r{number}")}));
                assert_eq!(answer["code"], Value::Null, "{limit}: {answer}");
            }
        }
    }
}
