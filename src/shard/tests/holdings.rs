//! What a user, a tenant and a namespace may have beside rates: rooms, questions, bytes of a message.

use serde_json::{Value, json};

use crate::auth::Source;
use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::flow::budget::Rate;
use crate::shard::tests::guard::{enter, guarded, join};
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

#[test]
fn a_message_may_be_as_long_as_its_tenant_allows() {
    let mut settings = settings();
    settings.limits.tenant.message_bytes = 200;
    let mut rig = Rig::new(0, 1, settings);
    let conn = enter(&mut rig, &claims("ada"));
    let nobodys = enter(&mut rig, &json!({"sub": "x", "exp": 5000, "rooms": ["*"]}));
    let long = publish(&["r"], &format!("{:?}", "x".repeat(300)));
    rig.say(nobodys, &long);
    rig.say(conn, &long);
    rig.settle();
    assert_eq!(rig.heard(conn).pop(), Some(Heard::Close(1009)));
    assert!(!rig.heard(nobodys).contains(&Heard::Close(1009)));
}
