//! Every limit of a connection, a user, an address and a tenant, with everything that may happen to who is over it.
//!
//! One table for a running node. Rates are tried in all three consequences: an error that drops the message and says
//! when to come back, a delay in which nothing is lost, a close with 1008. Each time somebody who shares nothing
//! with the hasty ones is served as ever, while these wait as well. What is no rate knows no delay, and stands below. Cells that
//! do not exist: an address has no rooms, questions or message size (who is behind it may be many), and a connection
//! no number of connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crossbeam_channel::bounded;
use serde_json::{Value, json};
use throng::node::Node;

use crate::auth::{enter, guarded, knock, status, token};
use crate::backend::{Backend, Posted, SHARED, ok};
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

    /// Those who share the limit: one, or two in different shards where it is one for all of them.
    fn all_hasty(self, address: SocketAddr) -> Vec<Client> {
        let mut hasty = vec![self.hasty(address)];
        if self != Self::Connection {
            wait_until("a connection in the other shard", || {
                let second = self.hasty(address);
                let is_elsewhere = second.shard() != hasty[0].shard();
                if is_elsewhere {
                    hasty.push(second);
                }
                is_elsewhere
            });
        }
        hasty
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

/// One who may be in rooms that begin with "open", and about whose other rooms the back end is asked.
fn member(user: &str, tenant: &str) -> Value {
    json!({"sub": user, "tenant": tenant, "rooms": ["open*"]})
}

/// One of them, and another in the other shard who shares its limit, where connections share it.
fn askers(whose: Whose, address: SocketAddr) -> (Client, Option<Client>) {
    let here = enter(address, &member("ada", "x"));
    if whose == Whose::Connection {
        return (here, None);
    }
    let user = if whose == Whose::User { "ada" } else { "eve" };
    let mut there = None;
    wait_until("a connection in the other shard", || {
        there = Some(enter(address, &member(user, "x")));
        there.as_ref().is_some_and(|there| there.shard() != here.shard())
    });
    (here, there)
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
    if status(&answer) != "503" {
        return answer.contains("too many connections");
    }
    let lines = answer.to_lowercase();
    let after = lines.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let seconds = after.and_then(|after| after.trim().parse().ok());
    assert!(seconds.is_some_and(|seconds: u32| seconds > 0), "{answer}");
    true
}

/// Who was turned away was so for being one too many, and for nothing else.
fn was_one_too_many(node: &Node, limit: &str) {
    wait_for(node, limit, |c| c.parties_refused_total > 0);
    let c = node.counters();
    let others = [c.memory_refused_total, c.handshakes_deferred_total, c.auth_refused_total];
    assert_eq!(others, [0; 3], "{limit}");
    assert!(c.refused_503_total <= c.parties_refused_total, "{limit}: {c:?}");
}

/// What is over the rate is dropped with a typed error.
fn drops(driver: &str, whose: Whose, section: &str, (rate, cost): (&str, u32)) {
    let cell = format!("{section}.{rate} error");
    let sets = [
        format!("{section}.{rate}={cost}"),
        format!("{section}.over_rate=error"),
        format!("{section}.burst_ms=3000"),
    ];
    let node = whose.node(driver, &sets);
    let address = node.address();
    let mut hasty = whose.all_hasty(address);
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
        format!("{section}.over_rate=delay"),
        format!("{section}.burst_ms=50"),
        "limits.max_rooms=1000".to_owned(),
    ];
    let node = whose.node(driver, &sets);
    let mut other = whose.other(node.address());
    let mut hasty = whose.all_hasty(node.address());
    let (mut sent, mut asked) = (0, 0);
    // Only an answer that comes while the others wait says that nobody waits with them.
    wait_until(&cell, || {
        let each = 120 / hasty.len();
        let received = node.counters().received_messages_total;
        let mut open = Vec::new();
        for client in &mut hasty {
            for number in sent..sent + each {
                let mut message = message(rate, number);
                message["ref"] = json!(reference(number));
                client.send(&message);
            }
            open.push((sent..sent + each).map(reference).collect::<BTreeSet<_>>());
            sent += each;
        }
        wait_for(&node, &cell, |c| c.rate_delays_total > 0);
        asked += 1;
        let answer = other.ask(message(rate, 100_000 + asked));
        assert!(is_obeyed(&answer), "{cell}: another one: {answer}");
        let taken = node.counters().received_messages_total - received;
        hasty.iter_mut().zip(open).for_each(|(client, open)| all_obeyed(client, open, &cell));
        taken < 120
    });
    let counters = node.counters();
    assert_eq!((counters.rate_limited_total, counters.rate_closed_total), (0, 0), "{cell}");
}

/// Reads what the client is answered until nothing is open; what another shard answers may be overtaken.
fn all_obeyed(client: &mut Client, mut open: BTreeSet<String>, cell: &str) {
    while !open.is_empty() {
        let answer = client.next();
        assert!(is_obeyed(&answer), "{cell}: {answer}");
        let known = answer["ref"].as_str().is_some_and(|reference| open.remove(reference));
        assert!(known, "{cell}: {answer}");
    }
}

fn reference(number: usize) -> String {
    format!("{number:020}")
}

/// Who sends it is closed with 1008.
fn closes(driver: &str, whose: Whose, section: &str, (rate, cost): (&str, u32)) {
    let cell = format!("{section}.{rate} close");
    let sets = [
        format!("{section}.{rate}={cost}"),
        format!("{section}.over_rate=close"),
        format!("{section}.burst_ms=3000"),
    ];
    let node = whose.node(driver, &sets);
    let mut other = whose.other(node.address());
    for (hasty, closed) in whose.all_hasty(node.address()).into_iter().zip(1..) {
        let messages: Vec<Value> = (0..20).map(|number| message(rate, number)).collect();
        assert_eq!(closed_after(hasty, &messages), 1008, "{cell}");
        wait_for(&node, &cell, |c| c.rate_closed_total == closed);
    }
    assert!(is_obeyed(&other.ask(message(rate, 60))), "{cell}: another one");
}

/// The code by which the server closes who sends all this.
fn closed_after(mut client: Client, messages: &[Value]) -> u16 {
    for message in messages {
        // Whoever is closed meanwhile cannot send all of it.
        if client.try_send(&message.to_string()).is_err() {
            break;
        }
    }
    client.close_code()
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

fn watch(number: usize) -> Value {
    json!({"type": "throng:watch", "room": format!("r{number}")})
}

fn members(number: usize) -> Value {
    json!({"type": "throng:members", "room": format!("r{number}")})
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
            was_one_too_many(&node, limit);
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

    fn whoever_is_over_a_limit_that_is_no_rate_is_closed_with_1008_where_that_is_the_rule(driver) {
        let rooms: Vec<Value> = (1..60).map(join).collect();
        let watches: Vec<Value> = (1..6).map(watch).collect();
        let large = vec![json!({"type": "t", "room": "small", "payload": "0123456789"})];
        let payload = "namespace=[{pattern=\"small\", max_payload_bytes=10}]";
        for (whose, limit, messages) in [
            (Whose::Connection, "limits.max_rooms=3", &rooms),
            (Whose::User, "limits_user.max_rooms=3", &rooms),
            (Whose::Tenant, "limits_tenant.max_rooms=3", &rooms),
            (Whose::Connection, "presence.watches_max=3", &watches),
            (Whose::Connection, payload, &large),
        ] {
            let sets = ["limits.over_limit=close".to_owned(), limit.to_owned()];
            let node = whose.node(driver, &sets);
            let (mut first, mut other) = (whose.hasty(node.address()), whose.other(node.address()));
            first.join("room-0");
            assert_eq!(closed_after(whose.hasty(node.address()), messages), 1008, "{limit}");
            wait_for(&node, limit, |c| c.limit_closed_total == 1);
            other.join("room-9");
            first.expect_silence();
        }
        for (whose, limit) in [
            (Whose::Connection, "limits.max_outstanding=1"),
            (Whose::User, "limits_user.max_outstanding=1"),
            (Whose::Tenant, "limits_tenant.max_outstanding=1"),
        ] {
            let sets = ["limits.over_limit=close".to_owned(), limit.to_owned()];
            let node = whose.node(driver, &sets);
            let (mut hasty, mut other) = (whose.hasty(node.address()), whose.other(node.address()));
            wait_until(limit, || {
                for number in 0..50 {
                    let _ = hasty.try_send(&members(number).to_string());
                }
                node.counters().limit_closed_total == 1
            });
            assert_eq!(hasty.close_code(), 1008, "{limit}");
            for number in 0..20 {
                let answer = other.ask(members(number));
                assert_eq!(answer["code"], Value::Null, "{limit}: {answer}");
            }
        }
    }

    fn a_watch_too_many_is_refused_with_a_typed_error(driver) {
        let limit = "presence.watches_max=3";
        let node = Whose::Connection.node(driver, &[limit.to_owned()]);
        let mut client = Whose::Connection.hasty(node.address());
        (0..3).for_each(|number| assert_eq!(client.ask_among(watch(number))["ok"], json!(true)));
        assert_eq!(refusal(&mut client, limit, |number| watch(number + 3)), json!("watch_limit"));
        assert_eq!(Whose::Connection.hasty(node.address()).ask_among(watch(9))["ok"], json!(true));
    }

    fn a_restore_of_too_many_rooms_is_answered_in_full_before_the_close(driver) {
        for whose in [Whose::Connection, Whose::User] {
            let section = if whose == Whose::User { "limits_user" } else { "limits" };
            let sets = ["limits.over_limit=close".to_owned(), format!("{section}.max_rooms=3")];
            let node = whose.node(driver, &sets);
            let mut hasty = whose.hasty(node.address());
            // No restore may name more rooms than a connection may be in, and this one is in one already.
            hasty.join("room-0");
            let rooms: Vec<Value> = (0..3).map(|at| json!({"room": format!("r{at}")})).collect();
            let reply = hasty.ask_among(json!({"type": "throng:restore", "rooms": rooms}));
            let told = reply["rooms"].as_array().expect("a list");
            assert_eq!(told.len(), 3, "{reply}");
            assert_eq!(told[2]["code"], "room_limit", "{reply}");
            assert_eq!(hasty.close_code(), 1008, "{section}");
            wait_for(&node, section, |c| c.limit_closed_total == 1 && c.restores == 0);
        }
    }

    fn a_message_too_long_for_its_connection_user_or_tenant_closes_with_1009(driver) {
        for (whose, limit) in [
            (Whose::Connection, "limits.max_message_bytes=200"),
            (Whose::User, "limits_user.max_message_bytes=200"),
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

    fn commands_that_wait_for_a_back_end_are_limited_over_both_shards(driver) {
        for (whose, limit) in [
            (Whose::Connection, "limits.max_outstanding=4"),
            (Whose::User, "limits_user.max_outstanding=4"),
            (Whose::Tenant, "limits_tenant.max_outstanding=4"),
            (Whose::Tenant, "tenant=[{name=\"x\", max_outstanding=4}]"),
        ] {
            let (release, wait) = bounded::<()>(0);
            let backend = Backend::open(move |_: &Posted| {
                let _ = wait.recv();
                ok(r#"{"allow":true}"#)
            });
            let sets = [
                limit.to_owned(),
                format!("auth_webhook.url={}", backend.url()),
                format!("auth_webhook.secret={SHARED}"),
                "auth_webhook.timeout_ms=60000".to_owned(),
                "namespace=[{pattern=\"club:*\", join=\"webhook\"}]".to_owned(),
            ];
            let node = whose.node(driver, &sets);
            let (mut here, there) = askers(whose, node.address());
            let club = |number: usize| json!({"type": "throng:join", "room": format!("club:{number}"), "ref": number});
            (0..4).for_each(|number| here.send(&club(number)));
            wait_for(&node, limit, |c| c.awaited_commands == 4);
            let mut all = vec![here];
            if let Some(there) = there {
                all.push(there);
                // Its shard hears of the others when it has told of this one.
                all[1].send(&club(4));
                wait_for(&node, limit, |c| (c.awaited_commands, c.awaited_elsewhere) == (5, 5));
            }
            for asker in &mut all {
                for message in [club(5), json!({"type": "throng:members", "room": "open"})] {
                    let answer = asker.ask(message);
                    assert_eq!(answer["code"], "overloaded", "{limit}: {answer}");
                }
            }
            let mut other = match whose {
                Whose::Tenant => enter(node.address(), &member("ada", "y")),
                _ => enter(node.address(), &member("bob", "x")),
            };
            let answer = other.ask(json!({"type": "throng:members", "room": "open"}));
            assert_eq!(answer["ok"], json!(true), "{limit}: {answer}");
            drop(release);
            for (asker, held) in all.iter_mut().zip([4, 1]) {
                let answers: Vec<Value> = (0..held).map(|_| asker.next()).collect();
                assert!(answers.iter().all(is_obeyed), "{limit}: {answers:?}");
            }
            wait_for(&node, limit, |c| (c.awaited_commands, c.awaited_elsewhere) == (0, 0));
            for asker in &mut all {
                let answer = asker.ask(json!({"type": "throng:members", "room": "open"}));
                assert_eq!(answer["ok"], json!(true), "{limit}: {answer}");
            }
        }
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
                for number in 0..50 {
                    hasty.send(&members(number));
                }
                let answers: Vec<Value> = (0..50).map(|_| hasty.next()).collect();
                answers.iter().any(|answer| answer["code"] == "overloaded")
            });
            let mut other = whose.other(node.address());
            for number in 0..20 {
                let answer = other.ask(members(number));
                assert_eq!(answer["code"], Value::Null, "{limit}: {answer}");
            }
        }
    }
}
