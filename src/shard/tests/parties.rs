//! What all connections of one user, or of one tenant, may do together.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auth::{Access, Source};
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::hub::Excess;
use crate::shard::tests::guard::{ask, bearer, enter, guarded, join, knock, login, token};
use crate::shard::tests::rig::{Heard, Rig, frame, publish};
use crate::shard::tests::rooms::exchange;
use crate::shard::{Limits, OverRate, PartyLimits, Settings};

/// Where everybody shows a token in a header, or in the first message.
fn limited(change: impl Fn(&mut Limits)) -> Settings {
    let keep = |access: &mut Access| access.verifier.rules.metadata_bytes = 16;
    let mut settings = guarded(&[Source::Header, Source::Message], keep);
    change(&mut settings.limits);
    settings
}

/// Two shards of one node.
fn pair(change: impl Fn(&mut Limits)) -> [Rig; 2] {
    [0, 1].map(|id| Rig::new(id, 2, limited(&change)))
}

fn of(user: &str) -> Value {
    json!({"sub": user, "exp": 5000, "rooms": ["*"]})
}

fn of_tenant(user: &str, tenant: &str) -> Value {
    json!({"sub": user, "tenant": tenant, "exp": 5000, "rooms": ["*"]})
}

/// The code that closed the connection; `None` while it is open.
fn end(rig: &mut Rig, conn: ConnId) -> Option<u16> {
    rig.heard(conn).into_iter().find_map(|frame| match frame {
        Heard::Close(code) => Some(code),
        _ => None,
    })
}

fn counted(rigs: &[Rig; 2]) -> u64 {
    rigs.iter().map(|rig| rig.shard.counters().counted_parties).sum()
}

#[test]
fn a_user_keeps_its_newest_connections_over_all_shards() {
    let mut rigs = pair(|limits| {
        limits.user.connections = 2;
        limits.user.excess = Excess::Oldest;
    });
    let other = enter(&mut rigs[0], &of("bob"));
    let mut line = Vec::new();
    for at in [0, 1, 1, 0, 0] {
        let conn = enter(&mut rigs[at], &of("ada"));
        exchange(&mut rigs);
        line.push((at, conn));
    }
    let ends: Vec<Option<u16>> = line.iter().map(|(at, conn)| end(&mut rigs[*at], *conn)).collect();
    assert_eq!(ends, [Some(4409), Some(4409), Some(4409), None, None]);
    assert_eq!(end(&mut rigs[0], other), None);
    let replaced: u64 = rigs.iter().map(|rig| rig.shard.counters().replaced_total).sum();
    assert_eq!((replaced, counted(&rigs)), (3, 2));
    for (at, conn) in line {
        rigs[at].receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    }
    rigs[0].receive(other, &frame(0x88, &1000_u16.to_be_bytes()));
    exchange(&mut rigs);
    assert_eq!(counted(&rigs), 0, "whoever has gone is not counted");
}

#[test]
fn where_the_oldest_stay_a_users_newcomer_is_closed_with_1013() {
    let mut rigs = pair(|limits| limits.user.connections = 2);
    let stay = [enter(&mut rigs[0], &of("ada")), enter(&mut rigs[1], &of("ada"))];
    exchange(&mut rigs);
    let mut refused = 0;
    for at in [0, 1] {
        let conn = knock(&mut rigs[at], "/ws", &bearer(&of("ada")));
        exchange(&mut rigs);
        let response = rigs[at].response(conn);
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert_eq!(end(&mut rigs[at], conn), Some(1013));
        refused += 1;
        let total: u64 = rigs.iter().map(|rig| rig.shard.counters().parties_refused_total).sum();
        assert_eq!(total, refused);
    }
    assert_eq!([0, 1].map(|at| end(&mut rigs[at], stay[at])), [None, None]);
    rigs[0].receive(stay[0], &frame(0x88, &1000_u16.to_be_bytes()));
    exchange(&mut rigs);
    let next = enter(&mut rigs[1], &of("ada"));
    exchange(&mut rigs);
    assert_eq!(end(&mut rigs[1], next), None, "there is a place again");
}

#[test]
fn a_user_who_logs_in_by_message_or_renews_its_token_is_counted_once() {
    let mut rigs = pair(|limits| limits.user.connections = 1);
    let first = rigs[0].open_at("/ws");
    rigs[0].say(first, &login(&of("ada")));
    exchange(&mut rigs);
    assert_eq!(rigs[0].told(first, "throng:connected").len(), 1);
    for _ in 0..3 {
        rigs[0].say(first, &login(&of("ada")));
        exchange(&mut rigs);
    }
    assert_eq!((end(&mut rigs[0], first), counted(&rigs)), (None, 1));
    let second = rigs[1].open_at("/ws");
    rigs[1].say(second, &login(&of("ada")));
    exchange(&mut rigs);
    assert_eq!(end(&mut rigs[1], second), Some(1013));
    rigs[0].receive(first, &frame(0x88, &1000_u16.to_be_bytes()));
    exchange(&mut rigs);
    assert_eq!(counted(&rigs), 0);
}

#[test]
fn a_tenants_newcomers_are_refused_and_another_tenants_are_not() {
    let mut rigs = pair(|limits| limits.tenant.connections = 2);
    let seen: Vec<Option<u16>> = [(0, "x"), (1, "x"), (1, "x"), (1, "y"), (0, "x")]
        .into_iter()
        .enumerate()
        .map(|(number, (at, tenant))| {
            let claims = of_tenant(&format!("user-{number}"), tenant);
            let conn = knock(&mut rigs[at], "/ws", &bearer(&claims));
            exchange(&mut rigs);
            rigs[at].response(conn);
            end(&mut rigs[at], conn)
        })
        .collect();
    assert_eq!(seen, [None, None, Some(1013), None, Some(1013)]);
    let none = enter(&mut rigs[0], &of("ada"));
    assert_eq!(end(&mut rigs[0], none), None, "who has no tenant has no tenant's limit");
}

#[test]
fn a_token_may_name_fewer_connections_than_the_node_and_never_more() {
    let mut rigs = pair(|limits| {
        limits.user.connections = 2;
        limits.user.excess = Excess::Oldest;
    });
    let with = |most: u32| json!({"sub": "ada", "exp": 5000, "limits": {"connections": most}});
    let line: Vec<ConnId> = (0..3)
        .map(|_| {
            let conn = enter(&mut rigs[0], &with(9));
            exchange(&mut rigs);
            conn
        })
        .collect();
    let ends: Vec<Option<u16>> = line.iter().map(|conn| end(&mut rigs[0], *conn)).collect();
    assert_eq!(ends, [Some(4409), None, None]);
    let only = enter(&mut rigs[1], &with(1));
    exchange(&mut rigs);
    let ends: Vec<Option<u16>> = line[1..].iter().map(|conn| end(&mut rigs[0], *conn)).collect();
    assert_eq!(ends, [Some(4409); 2], "all but the newest go");
    assert_eq!(end(&mut rigs[1], only), None);
    // Without a limit of the node's own the token's is one.
    let mut alone = Rig::new(0, 1, limited(|_| {}));
    enter(&mut alone, &with(1));
    let second = knock(&mut alone, "/ws", &bearer(&with(1)));
    alone.response(second);
    assert_eq!(end(&mut alone, second), Some(1013));
    assert_eq!(alone.shard.counters().counted_parties, 1);
}

#[test]
fn nobody_is_let_in_uncounted_while_mail_is_backed_up() {
    let mut rigs = pair(|limits| limits.user.connections = 1);
    rigs[0].shard.settings = {
        let mut settings = (*rigs[0].shard.settings).clone();
        settings.capacity.parked_mail = 0;
        settings.into()
    };
    let users: Vec<String> = (0..32).map(|number| format!("user-{number}")).collect();
    let ends: Vec<Option<u16>> = users
        .iter()
        .map(|user| {
            let conn = knock(&mut rigs[0], "/ws", &bearer(&of(user)));
            rigs[0].response(conn);
            end(&mut rigs[0], conn)
        })
        .collect();
    let refused = ends.iter().filter(|end| **end == Some(1013)).count();
    assert!(refused > 0 && refused < users.len(), "{refused}: those whose home is elsewhere");
    assert!(rigs[0].post.iter().all(|(_, mail)| !format!("{mail:?}").starts_with("Leave")));
}

/// What came of so many pings of each connection: pongs, errors, closes.
fn burst(rig: &mut Rig, conns: &[ConnId], pings: usize) -> Vec<[usize; 3]> {
    for conn in conns {
        for _ in 0..pings {
            rig.say(*conn, r#"{"type":"throng:ping","ref":1}"#);
        }
    }
    rig.settle();
    conns.iter().map(|conn| outcome(rig, *conn)).collect()
}

fn outcome(rig: &mut Rig, conn: ConnId) -> [usize; 3] {
    let mut seen = [0; 3];
    for heard in rig.heard(conn) {
        match heard {
            Heard::Text(text) if text["type"] == "throng:pong" => seen[0] += 1,
            Heard::Text(text) if text["code"] == "rate_limited" => seen[1] += 1,
            Heard::Close(1008) => seen[2] += 1,
            other => panic!("{other:?}"),
        }
    }
    seen
}

fn five(over: OverRate) -> PartyLimits {
    let rate = Some(Rate { per_second: 1, burst: 5 });
    PartyLimits { rates: [rate, None, None, None], over, ..PartyLimits::default() }
}

#[test]
fn the_connections_of_a_user_share_its_rates_and_those_of_a_tenant_share_theirs() {
    let mut rig = Rig::new(0, 1, limited(|limits| limits.user = five(OverRate::Error)));
    let conns = ["ada", "ada", "bob"].map(|user| enter(&mut rig, &of(user)));
    assert_eq!(burst(&mut rig, &conns, 3), [[3, 0, 0], [2, 1, 0], [3, 0, 0]]);
    let mut rig = Rig::new(0, 1, limited(|limits| limits.tenant = five(OverRate::Error)));
    let conns = [("ada", "x"), ("bob", "x"), ("ada", "y")]
        .map(|(user, tenant)| enter(&mut rig, &of_tenant(user, tenant)));
    let none = enter(&mut rig, &of("eve"));
    assert_eq!(burst(&mut rig, &conns, 3), [[3, 0, 0], [2, 1, 0], [3, 0, 0]]);
    assert_eq!(burst(&mut rig, &[none], 9), [[9, 0, 0]]);
    assert_eq!(rig.shard.counters().paced, 2);
    rig.later(Duration::from_secs(60));
    (0..4).for_each(|_| rig.turn());
    assert_eq!(rig.shard.counters().paced, 0, "whoever is silent costs nothing");
}

#[test]
fn each_party_has_a_consequence_of_its_own_and_the_worst_one_is_drawn() {
    let both = |user, tenant| {
        let settings = limited(|limits| {
            limits.user = five(user);
            limits.tenant = five(tenant);
        });
        let mut rig = Rig::new(0, 1, settings);
        let conn = enter(&mut rig, &of_tenant("ada", "x"));
        let [seen] = burst(&mut rig, &[conn], 7)[..] else { panic!("one client") };
        (seen, rig.shard.counters().rate_delays_total)
    };
    assert_eq!(both(OverRate::Delay, OverRate::Delay), ([7, 0, 0], 1));
    assert_eq!(both(OverRate::Delay, OverRate::Error), ([5, 2, 0], 0));
    assert_eq!(both(OverRate::Error, OverRate::Close), ([5, 0, 1], 0));
    assert_eq!(both(OverRate::Close, OverRate::Delay), ([5, 0, 1], 0));
}

#[test]
fn a_publication_counts_once_for_each_room_against_the_publish_rate() {
    let settings = limited(|limits| {
        limits.tenant.rates[3] = Some(Rate { per_second: 1, burst: 5 });
    });
    let mut rig = Rig::new(0, 1, settings);
    let conns = ["ada", "bob"].map(|user| enter(&mut rig, &of_tenant(user, "x")));
    rig.say(conns[0], &publish(&["a", "b", "c"], "1"));
    rig.say(conns[1], &publish(&["a", "b", "c"], "2"));
    rig.say(conns[1], &publish(&["a", "b"], "3"));
    rig.settle();
    assert_eq!(rig.told(conns[0], "throng:error"), [] as [Value; 0]);
    let late = rig.told(conns[1], "throng:error");
    assert_eq!(late.len(), 1, "three rooms of the two that are left");
    assert_eq!(
        (&late[0]["code"], &late[0]["retryAfterMs"]),
        (&json!("rate_limited"), &json!(1000))
    );
    assert_eq!(burst(&mut rig, &conns, 3), [[3, 0, 0]; 2], "other messages have no such rate");
}

#[test]
fn a_token_lowers_what_its_connection_may_send_and_never_raises_it() {
    let settings = limited(|limits| {
        limits.connection[0] = Some(Rate { per_second: 5, burst: 10 });
    });
    let mut rig = Rig::new(0, 1, settings);
    let with = |limits: Value| json!({"sub": "ada", "exp": 5000, "rooms": ["*"], "limits": limits});
    let slow = enter(&mut rig, &with(json!({"messages_per_second": 1})));
    let vain = enter(&mut rig, &with(json!({"messages_per_second": 1000, "rooms": 1000})));
    assert_eq!(burst(&mut rig, &[slow, vain], 12), [[2, 10, 0], [10, 2, 0]]);
    // What is owed is not forgotten while others sweep by.
    rig.later(Duration::from_millis(400));
    (0..8).for_each(|_| rig.turn());
    assert_eq!(burst(&mut rig, &[slow, vain], 1), [[0, 1, 0], [1, 0, 0]]);
    let few = enter(&mut rig, &with(json!({"joins_per_second": 1, "publishes_per_second": 1})));
    for room in ["a", "b"] {
        assert_eq!(ask(&mut rig, few, &join(room))["ok"], json!(true));
    }
    assert_eq!(ask(&mut rig, few, &join("c"))["code"], "rate_limited");
    let late = ask(&mut rig, few, r#"{"type":"x","rooms":["a","b","c"],"ref":1}"#);
    assert_eq!(late["ok"], json!(true), "a full budget affords it, and owes the rest");
    assert_eq!(ask(&mut rig, few, r#"{"type":"x","room":"d","ref":1}"#)["code"], "rate_limited");
    for number in 0..8 {
        rig.later(Duration::from_secs(5));
        assert_eq!(ask(&mut rig, vain, &join(&format!("r{number}")))["ok"], json!(true));
    }
    rig.later(Duration::from_secs(5));
    assert_eq!(ask(&mut rig, vain, &join("r8"))["code"], "room_limit", "eight for everybody");
}

#[test]
fn a_message_larger_than_its_token_allows_is_closed_with_1009_by_its_header() {
    let mut rig = Rig::new(0, 1, limited(|_| {}));
    let with = |most: u32| json!({"sub": "ada", "exp": 5000, "limits": {"message_bytes": most}});
    let small = knock(&mut rig, "/ws", &bearer(&with(200)));
    rig.response(small);
    let hello = rig.told(small, "throng:connected");
    assert_eq!(hello[0]["limits"]["maxMessageBytes"], 200, "it is told");
    assert_eq!(hello[0]["limits"]["maxRooms"], 8);
    let vain = enter(&mut rig, &with(1_000_000));
    let text = |bytes: usize| format!("{:>bytes$}", r#"{"type":"throng:ping"}"#);
    rig.say(small, &text(200));
    rig.settle();
    assert_eq!(rig.told(small, "throng:pong").len(), 1);
    rig.receive(small, &frame(0x81, text(201).as_bytes())[..8]);
    rig.settle();
    assert_eq!(end(&mut rig, small), Some(1009));
    rig.say(vain, &text(4096));
    rig.settle();
    assert_eq!(rig.told(vain, "throng:pong").len(), 1);
    rig.receive(vain, &frame(0x81, text(4097).as_bytes())[..8]);
    rig.settle();
    assert_eq!(end(&mut rig, vain), Some(1009));
}

#[test]
fn metadata_is_kept_beside_the_person_until_the_connection_ends() {
    let mut rig = Rig::new(0, 1, limited(|_| {}));
    let with = |meta: Value| json!({"sub": "ada", "exp": 5000, "meta": meta});
    let conn = enter(&mut rig, &with(json!({"v": [1, 2]})));
    let meta = |rig: &Rig| rig.shard.gate.people.meta(conn.index).map(|json| json.get().to_owned());
    assert_eq!(meta(&rig).as_deref(), Some(r#"{"v":[1,2]}"#));
    assert_eq!(rig.shard.counters().metadata_bytes, 11);
    let fresh = ask(&mut rig, conn, &login(&with(json!("x"))));
    assert_eq!(fresh["ok"], json!(true));
    assert_eq!((meta(&rig).as_deref(), rig.shard.counters().metadata_bytes), (Some("\"x\""), 3));
    let large = with(json!("x".repeat(15)));
    let error = ask(&mut rig, conn, &login(&large));
    assert_eq!(error["code"], "unauthorized");
    let refused = knock(&mut rig, "/ws", &format!("Authorization: Bearer {}\r\n", token(&large)));
    assert!(rig.response(refused).starts_with("HTTP/1.1 401 "));
    rig.receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    rig.settle();
    assert_eq!(rig.shard.counters().metadata_bytes, 0);
}
