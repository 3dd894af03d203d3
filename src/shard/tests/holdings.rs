//! What a user, a tenant and a namespace may have beside rates: rooms, questions, bytes of a message.

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::flow::budget::Rate;
use crate::shard::tests::guard::{bearer, enter, guarded, join, knock};
use crate::shard::tests::rig::{Heard, Rig, publish, room_of};
use crate::shard::tests::rooms::exchange;
use crate::shard::{NamespaceRules, RoomMemory, Settings};

fn settings() -> Settings {
    let mut settings = guarded(&[Source::Header], |_| {});
    settings.capacity.parked_mail = 100;
    settings
}

fn claims(user: &str) -> Value {
    json!({"sub": user, "tenant": "acme", "exp": 5000, "rooms": ["*"]})
}

fn codes(rig: &mut Rig, conn: ConnId) -> Vec<Value> {
    rig.told(conn, "throng:error").into_iter().map(|mut error| error["code"].take()).collect()
}

#[test]
fn the_rooms_of_a_users_connections_are_limited_together() {
    let mut settings = settings();
    settings.limits.user.rooms = 3;
    let mut rig = Rig::new(0, 1, settings);
    let [one, two] = [0, 1].map(|_| enter(&mut rig, &claims("ada")));
    let bob = enter(&mut rig, &claims("bob"));
    for (conn, room) in [(one, "a"), (one, "b"), (two, "a"), (two, "a"), (bob, "c")] {
        rig.say(conn, &join(room));
    }
    rig.settle();
    for conn in [one, two, bob] {
        assert!(codes(&mut rig, conn).is_empty());
    }
    rig.say(two, &join("c"));
    rig.settle();
    assert_eq!(codes(&mut rig, two), ["room_limit"]);
    rig.say(one, r#"{"type":"throng:leave","room":"a"}"#);
    rig.say(two, &join("c"));
    rig.settle();
    assert!(codes(&mut rig, two).is_empty(), "there is a place");
    for conn in [one, two, bob] {
        rig.receive(conn, &crate::shard::tests::rig::frame(0x88, &1000_u16.to_be_bytes()));
    }
    rig.settle();
    assert_eq!(rig.shard.rooms.quotas.holdings.kept(), 0, "nothing is kept of who has gone");
}

#[test]
fn rooms_joined_in_two_shards_at_the_same_moment_are_undone_as_far_as_they_are_too_many() {
    let limited = || {
        let mut settings = settings();
        settings.limits.user.rooms = 3;
        settings
    };
    let mut rigs = [0, 1].map(|id| Rig::new(id, 2, limited()));
    let conns = [0, 1].map(|at| {
        let conn = enter(&mut rigs[at], &claims("ada"));
        exchange(&mut rigs);
        conn
    });
    for (at, conn) in conns.into_iter().enumerate() {
        for room in 0..3 {
            rigs[at].say(conn, &join(&format!("r{room}")));
        }
    }
    for _ in 0..4 {
        exchange(&mut rigs);
    }
    let in_rooms = |rig: &Rig, conn: ConnId| {
        let connection = rig.shard.table.peek(conn.index).expect("a connection");
        rig.shard.rooms.hub.count_of(&connection.member) - 1
    };
    let all: usize = (0..2).map(|at| in_rooms(&rigs[at], conns[at])).sum();
    assert_eq!(all, 3);
    let undone: u64 = rigs.iter().map(|rig| rig.shard.counters().rooms_undone_total).sum();
    assert_eq!(undone, 3);
    for at in 0..2 {
        rigs[at].say(conns[at], &join("more"));
        exchange(&mut rigs);
        assert!(codes(&mut rigs[at], conns[at]).contains(&json!("room_limit")), "shard {at}");
    }
    for at in 0..2 {
        let close = crate::shard::tests::rig::frame(0x88, &1000_u16.to_be_bytes());
        rigs[at].receive(conns[at], &close);
        exchange(&mut rigs);
    }
    exchange(&mut rigs);
    assert!(rigs.iter().all(|rig| rig.shard.rooms.quotas.holdings.kept() == 0));
}

#[test]
fn where_two_shards_let_too_many_rooms_through_one_is_closed_where_that_is_the_rule() {
    let mut rigs = [0, 1].map(|id| {
        let mut settings = settings();
        settings.limits.user.rooms = 3;
        settings.limits.closes_excess = true;
        Rig::new(id, 2, settings)
    });
    let conns = [0, 1].map(|at| {
        let conn = enter(&mut rigs[at], &claims("ada"));
        exchange(&mut rigs);
        conn
    });
    for (at, conn) in conns.into_iter().enumerate() {
        for room in 0..2 {
            rigs[at].say(conn, &join(&format!("r{room}")));
        }
    }
    for _ in 0..4 {
        exchange(&mut rigs);
    }
    let ends = [0, 1].map(|at| rigs[at].heard(conns[at]));
    let is_told = |text: &Value| text["type"] == "throng:left" && text["reason"] == "room_limit";
    let told =
        |heard: &[Heard]| heard.iter().any(|one| matches!(one, Heard::Text(text) if is_told(text)));
    let closed = |heard: &[Heard]| heard.last() == Some(&Heard::Close(1008));
    assert!(ends.iter().all(|heard| told(heard) == closed(heard)), "{ends:?}");
    assert_eq!(ends.iter().filter(|heard| closed(heard)).count(), 1, "{ends:?}");
    let closed: u64 = rigs.iter().map(|rig| rig.shard.counters().limit_closed_total).sum();
    assert_eq!(closed, 1);
}

#[test]
fn what_a_user_or_a_tenant_has_asked_other_shards_is_bounded_over_its_connections() {
    for of_tenant in [false, true] {
        let mut settings = settings();
        let limits = &mut settings.limits;
        let party = if of_tenant { &mut limits.tenant } else { &mut limits.user };
        party.outstanding = 2;
        let mut rig = Rig::new(0, 2, settings);
        let [one, two] = [0, 1].map(|_| enter(&mut rig, &claims("ada")));
        let bob = enter(&mut rig, &claims("bob"));
        let members = |room: &str| format!(r#"{{"type":"throng:members","room":"{room}"}}"#);
        let far = (0..50).map(|at| format!("far{at}"));
        let far: Vec<String> =
            far.filter(|room| rig.shard.home(&format!("acme\u{1f}{room}")).0 == 1).collect();
        let far = far.first().cloned().unwrap_or_else(|| room_of(1, 2));
        for conn in [one, two, two] {
            rig.say(conn, &members(&far));
        }
        rig.say(bob, &members(&far));
        rig.settle();
        assert_eq!(codes(&mut rig, two), ["overloaded"], "the third");
        let others = codes(&mut rig, bob);
        assert_eq!(others.len(), usize::from(of_tenant), "{others:?}");
        rig.receive(one, &crate::shard::tests::rig::frame(0x88, &1000_u16.to_be_bytes()));
        rig.settle();
        rig.say(two, &members(&far));
        rig.settle();
        assert!(codes(&mut rig, two).is_empty(), "who has gone asks nothing");
    }
}

fn namespace() -> NamespaceRules {
    NamespaceRules {
        pattern: Glob::new("small:*"),
        overflow: Overflow::DropOldest,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory::default(),
        queued: 0,
        write_delay: std::time::Duration::ZERO,
        payload: 10,
    }
}

#[test]
fn a_namespace_limits_payloads_and_how_often_one_connection_joins_its_rooms() {
    let mut settings = settings();
    settings.rooms.namespaces = vec![namespace()];
    settings.rooms.rates = vec![None, Some(Rate { per_second: 1, burst: 2 })];
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &claims("ada"));
    rig.say(conn, &publish(&["small:a"], "12345678901"));
    rig.say(conn, &publish(&["small:a"], "1234567890"));
    rig.say(conn, &publish(&["other"], "12345678901"));
    rig.settle();
    assert_eq!(codes(&mut rig, conn), ["too_large"]);
    for room in ["small:a", "small:b", "small:c", "other"] {
        rig.say(conn, &join(room));
    }
    rig.settle();
    assert_eq!(codes(&mut rig, conn), ["rate_limited"]);
    rig.later(std::time::Duration::from_secs(1));
    rig.say(conn, &join("small:c"));
    rig.settle();
    assert!(codes(&mut rig, conn).is_empty());
}

/// How many bytes a message of who comes with these claims may have, and whether one more closes.
fn largest(rig: &mut Rig, claims: &Value) -> u64 {
    let conn = knock(rig, "/ws", &bearer(claims));
    rig.response(conn);
    let hello = rig.told(conn, "throng:connected");
    let most = hello[0]["limits"]["maxMessageBytes"].as_u64().expect("it is told");
    let text = |bytes: usize| format!("{:>bytes$}", r#"{"type":"throng:ping"}"#);
    let bytes = usize::try_from(most).expect("small");
    rig.say(conn, &text(bytes));
    rig.settle();
    assert_eq!(rig.told(conn, "throng:pong").len(), 1, "{most}");
    rig.say(conn, &text(bytes + 1));
    rig.settle();
    assert_eq!(rig.heard(conn).pop(), Some(Heard::Close(1009)), "{most}");
    most
}

#[test]
fn a_message_may_be_as_long_as_its_user_and_its_tenant_allow() {
    let nobodys = json!({"sub": "x", "exp": 5000, "rooms": ["*"]});
    let mut small = claims("ada");
    small["limits"] = json!({"message_bytes": 100});
    for (user, tenant, expected) in [
        (0, 200, [200, 4096, 100]),
        (200, 0, [200, 200, 100]),
        (150, 200, [150, 150, 100]),
        (200, 150, [150, 200, 100]),
        (1 << 20, 1 << 20, [4096, 4096, 100]),
    ] {
        let mut settings = settings();
        settings.limits.tenant.message_bytes = tenant;
        settings.limits.user.message_bytes = user;
        let mut rig = Rig::new(0, 1, settings);
        let found = [&claims("ada"), &nobodys, &small].map(|claims| largest(&mut rig, claims));
        assert_eq!(found, expected, "user {user}, tenant {tenant}");
    }
}

/// The code of the last error that the connection has heard, and of its close frame.
fn end(rig: &mut Rig, conn: ConnId) -> (Value, Option<u16>) {
    let (mut error, mut closed) = (Value::Null, None);
    for heard in rig.heard(conn) {
        match heard {
            Heard::Text(mut text) if text["type"] == "throng:error" => error = text["code"].take(),
            Heard::Close(code) => closed = Some(code),
            _ => {}
        }
    }
    (error, closed)
}

#[test]
fn who_is_over_a_limit_that_is_no_rate_is_told_and_closed_where_that_is_the_rule() {
    let members = |room: String| format!(r#"{{"type":"throng:members","room":"{room}"}}"#);
    let far = (0..50).map(|at| format!("far{at}"));
    let all = ["a", "b", "c", "d"];
    let restore: Vec<Value> = all.iter().map(|room| json!({"room": room})).collect();
    for closes in [false, true] {
        let mut settings = settings();
        settings.limits.closes_excess = closes;
        settings.limits.user.rooms = 3;
        settings.rooms.namespaces = vec![namespace()];
        settings.limits.outstanding = 4;
        let mut rig = Rig::new(0, 2, settings);
        let is_far = |room: &String| rig.shard.home(&format!("acme\u{1f}{room}")).0 == 1;
        let questions: Vec<String> = far.clone().filter(is_far).map(members).collect();
        for (words, code) in [
            (vec![publish(&["small:a"], "12345678901")], json!("too_large")),
            (all.map(join).to_vec(), json!("room_limit")),
            (questions, json!("overloaded")),
            (vec![json!({"type": "throng:restore", "rooms": restore}).to_string()], Value::Null),
        ] {
            let conn = enter(&mut rig, &claims("ada"));
            for word in words {
                rig.say(conn, &word);
            }
            rig.settle();
            let close = closes.then_some(1008);
            assert_eq!(end(&mut rig, conn), (code, close));
            rig.receive(conn, &crate::shard::tests::rig::frame(0x88, &1000_u16.to_be_bytes()));
            rig.settle();
        }
        let closed = rig.shard.counters().limit_closed_total;
        assert_eq!(closed, if closes { 4 } else { 0 });
    }
}

#[test]
fn a_restore_of_too_many_rooms_is_answered_before_its_connection_is_closed() {
    // With a second shard some rooms have their home where nobody answers.
    for shards in [1, 2] {
        let mut settings = settings();
        settings.limits.closes_excess = true;
        settings.rooms.per_connection = 3;
        let mut rig = Rig::new(0, shards, settings);
        let conn = enter(&mut rig, &claims("ada"));
        let rooms: Vec<Value> = (0..9).map(|at| json!({"room": format!("r{at}")})).collect();
        rig.say(conn, &json!({"type": "throng:restore", "rooms": rooms, "ref": 7}).to_string());
        rig.settle();
        let heard: Vec<Heard> = rig.heard(conn).into_iter().collect();
        let [.., Heard::Text(reply), Heard::Close(1008)] = &heard[..] else {
            panic!("{shards} shards: {heard:?}");
        };
        assert_eq!((&reply["type"], &reply["ref"]), (&json!("throng:reply"), &json!(7)), "{reply}");
        let told = reply["rooms"].as_array().expect("a list");
        let names: Vec<&Value> = told.iter().map(|one| &one["room"]).collect();
        assert_eq!(names, rooms.iter().map(|one| &one["room"]).collect::<Vec<_>>());
        assert_eq!(told[3]["code"], "room_limit", "{reply}");
        assert!(told[4..].iter().all(|one| one["code"] == "overloaded"), "{reply}");
        assert_eq!(rig.shard.rooms.restores.len(), 0, "{shards} shards");
        assert_eq!(rig.shard.counters().limit_closed_total, 1);
    }
}
