//! Messages that come sooner than their rates allow: dropped with an error, delayed, or the end.

use std::time::Duration;

use serde_json::json;

use crate::base::cursor::Cursor;
use crate::base::id::{ConnId, ShardId};
use crate::connection::Disconnect;
use crate::flow::budget::Rate;
use crate::shard::Mail;
use crate::shard::tests::rig::{Heard, Rig, Seen, frame, publish, room_of, settings};
use crate::shard::{Found, OverRate, Settings};

const MILLI: Duration = Duration::from_millis(1);

/// Ten messages a second, five at once.
fn paced(over: OverRate) -> Settings {
    let mut settings = settings();
    settings.limits.over = over;
    settings.limits.connection[0] = Some(Rate { per_second: 10, burst: 5 });
    settings
}

fn ping(reference: u32) -> String {
    format!(r#"{{"type":"throng:ping","ref":{reference}}}"#)
}

/// The refs of the pongs, and of the errors with what they say of coming back.
fn answers(rig: &mut Rig, conn: ConnId) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut pongs, mut errors) = (Vec::new(), Vec::new());
    for heard in rig.heard(conn) {
        let Heard::Text(text) = heard else { continue };
        let reference = text["ref"].as_u64().expect("a ref");
        if text["type"] == "throng:pong" {
            pongs.push(reference);
        } else {
            assert_eq!(text["code"], "rate_limited", "{text}");
            errors.push((reference, text["retryAfterMs"].as_u64().expect("a number")));
        }
    }
    (pongs, errors)
}

#[test]
fn a_message_too_many_is_dropped_and_told_when_to_come_again() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Error));
    let (conn, other) = (rig.open(), rig.open());
    for reference in 0..7 {
        rig.say(conn, &ping(reference));
    }
    rig.say(other, &ping(9));
    rig.settle();
    assert_eq!(answers(&mut rig, conn), (vec![0, 1, 2, 3, 4], vec![(5, 100), (6, 100)]));
    assert_eq!(answers(&mut rig, other).0, [9], "the rate is each connection's own");
    assert_eq!(rig.shard.counters().rate_limited_total, 2);
    rig.later(99 * MILLI);
    rig.say(conn, &ping(7));
    rig.later(MILLI);
    rig.say(conn, &ping(8));
    rig.settle();
    assert_eq!(answers(&mut rig, conn), (vec![8], vec![(7, 1)]));
}

#[test]
fn a_refused_publication_reaches_nobody_and_a_broken_message_counts_too() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Error));
    let (conn, member) = (rig.open(), rig.member("r"));
    for _ in 0..5 {
        rig.say(conn, "nonsense");
    }
    rig.say(conn, &publish(&["r"], "1"));
    rig.receive(conn, &frame(0x82, b"binary"));
    rig.settle();
    let codes: Vec<_> =
        rig.told(conn, "throng:error").iter().map(|error| error["code"].clone()).collect();
    let [broken, late] = [json!("bad_json"), json!("rate_limited")];
    assert_eq!(codes, [vec![broken; 5], vec![late; 2]].concat());
    assert_eq!(rig.published(member), Vec::<serde_json::Value>::new());
}

#[test]
fn a_delayed_connection_is_obeyed_and_not_read_from_until_the_rate_is_kept() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Delay));
    let conn = rig.open();
    for reference in 0..8 {
        rig.say(conn, &ping(reference));
    }
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(conn)), "{:?}", rig.ops);
    rig.settle();
    assert_eq!(answers(&mut rig, conn).0.len(), 8, "nothing is lost");
    assert_eq!(rig.shard.counters().rate_delays_total, 1);
    let start = rig.now;
    // Eight spent of five; the ninth needs four tenths of a second.
    while !rig.ops.contains(&Seen::Resume(conn)) {
        let wait = rig.shard.poll_timeout(rig.now).expect("a deadline");
        rig.later(wait.max(MILLI));
        rig.turn();
        assert!(rig.now.since(start) < Duration::from_secs(2), "it waits for ever");
    }
    let waited = rig.now.since(start);
    assert!(waited >= 300 * MILLI && waited <= 500 * MILLI, "{waited:?}");
}

#[test]
fn over_a_long_time_a_delayed_connection_keeps_its_rate() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Delay));
    let conn = rig.open();
    let (start, mut sent, mut reads) = (rig.now, 0u32, true);
    while rig.now.since(start) < Duration::from_secs(60) {
        if reads {
            for _ in 0..30 {
                sent += 1;
                rig.say(conn, &ping(sent));
            }
        }
        rig.turn();
        reads = if reads {
            !rig.ops.contains(&Seen::Pause(conn))
        } else {
            rig.ops.contains(&Seen::Resume(conn))
        };
        rig.later(20 * MILLI);
    }
    assert!((570..=635).contains(&sent), "{sent} messages in a minute of ten a second");
}

#[test]
fn a_connection_over_its_rate_is_closed_with_1008_where_that_is_the_rule() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Close));
    let conn = rig.open();
    for reference in 0..7 {
        rig.say(conn, &ping(reference));
    }
    rig.settle();
    assert_eq!(rig.heard(conn).last(), Some(&Heard::Close(1008)));
    assert_eq!(rig.shard.counters().rate_closed_total, 1);
    assert_eq!(Disconnect::RateLimited.label(), "rate_limited");
}

#[test]
fn bytes_and_joins_have_rates_of_their_own() {
    let mut settings = settings();
    settings.limits.connection = [
        None,
        Some(Rate { per_second: 1000, burst: 1000 }),
        Some(Rate { per_second: 1, burst: 2 }),
        None,
    ];
    let mut rig = Rig::new(0, 1, settings);
    let conn = rig.open();
    for room in ["a", "b", "c"] {
        rig.say(conn, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
    }
    rig.settle();
    assert_eq!(rig.told(conn, "throng:error")[0]["retryAfterMs"], 1000);
    assert_eq!(rig.shard.counters().memberships, 2);
    // Larger than a burst: it takes the whole budget, which must be full, and leaves a debt.
    let large = publish(&["x"], &format!("{:?}", "x".repeat(2000)));
    rig.later(Duration::from_secs(2));
    rig.say(conn, &large);
    rig.say(conn, &ping(1));
    rig.settle();
    let (pongs, errors) = answers(&mut rig, conn);
    assert_eq!((pongs.len(), errors.len()), (0, 1));
    let missing = u64::try_from(large.len() + ping(1).len()).expect("short") - 1000;
    assert_eq!(errors[0], (1, missing));
}

#[test]
fn the_connections_of_an_address_share_its_rate() {
    let mut settings = settings();
    settings.limits.address.rates[0] = Some(Rate { per_second: 10, burst: 4 });
    let mut rig = Rig::new(0, 1, settings);
    let (first, _) = rig.knock("192.0.2.1", "");
    let (second, _) = rig.knock("192.0.2.1", "");
    let (foreign, _) = rig.knock("192.0.2.2", "");
    for conn in [first, second, foreign] {
        rig.heard(conn);
        for reference in 0..3 {
            rig.say(conn, &ping(reference));
        }
    }
    rig.settle();
    assert_eq!(answers(&mut rig, first).0.len(), 3);
    assert_eq!(answers(&mut rig, second).0.len(), 1);
    assert_eq!(answers(&mut rig, foreign).0.len(), 3);
}

#[test]
fn who_is_silent_again_costs_nothing_and_echoes_are_exempt() {
    let mut rig = Rig::new(0, 1, paced(OverRate::Close));
    let (conn, echo) = (rig.open(), rig.open_at("/echo"));
    for _ in 0..50 {
        rig.receive(echo, &frame(0x81, b"x"));
    }
    rig.settle();
    assert_eq!(rig.shard.counters().paced, 0);
    rig.say(conn, &ping(1));
    assert_eq!(rig.shard.counters().paced, 1);
    rig.later(Duration::from_secs(1));
    for _ in 0..4 {
        rig.turn();
    }
    assert_eq!(rig.shard.counters().paced, 0);
    rig.say(conn, &ping(1));
    rig.receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    assert_eq!(rig.shard.counters().paced, 0, "who has gone is forgotten");
}

#[test]
fn questions_that_other_shards_have_yet_to_answer_are_bounded() {
    let mut settings = settings();
    settings.limits.outstanding = 2;
    settings.capacity.parked_mail = 100;
    let mut rig = Rig::new(0, 2, settings);
    let conn = rig.open();
    let room = room_of(1, 2);
    let members = format!(r#"{{"type":"throng:members","room":"{room}"}}"#);
    for _ in 0..3 {
        rig.say(conn, &members);
    }
    rig.settle();
    assert_eq!(rig.told(conn, "throng:error")[0]["code"], "overloaded");
    let asked = std::mem::take(&mut rig.post);
    assert_eq!(asked.len(), 2);
    for (to, mail) in asked {
        let Mail::Ask(question) = mail else { panic!("{mail:?}") };
        assert_eq!(to, ShardId(1));
        let answer = crate::shard::Answer {
            question: *question,
            members: 0,
            position: Cursor { epoch: 1, offset: 0 },
            found: Found::Nothing,
        };
        rig.take(Mail::Answer(Box::new(answer)));
    }
    rig.say(conn, &members);
    rig.settle();
    assert_eq!(rig.told(conn, "throng:error"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_namespace_has_a_rate_of_its_own_for_each_connection() {
    let namespaces = || {
        let mut config = settings();
        let rule = |pattern: &str| crate::shard::NamespaceRules {
            pattern: crate::base::glob::Glob::new(pattern),
            overflow: crate::base::shared::Overflow::DropOldest,
            join: None,
            publish: None,
            origins: None,
            memory: crate::shard::RoomMemory::default(),
            queued: 0,
            write_delay: std::time::Duration::ZERO,
            payload: 0,
        };
        config.rooms.namespaces = vec![rule("free:*"), rule("chat:*"), rule("tick:*")];
        let rate = |burst| Some(Rate { per_second: 1, burst });
        config.rooms.rates = vec![None, rate(2), rate(3)];
        config
    };
    let mut rig = Rig::new(0, 1, namespaces());
    let (conn, other) = (rig.open(), rig.open());
    let mut verdict = |conn, rooms: &[&str]| {
        rig.say(conn, &publish(rooms, "1"));
        rig.settle();
        rig.told(conn, "throng:error").first().map(|error| error["retryAfterMs"].clone())
    };
    for _ in 0..9 {
        assert_eq!(verdict(conn, &["free:a", "else"]), None);
    }
    assert_eq!(verdict(conn, &["chat:a", "tick:a"]), None);
    assert_eq!(verdict(conn, &["chat:a", "chat:b"]), Some(json!(1000)), "one is left");
    assert_eq!(verdict(conn, &["chat:b", "tick:b"]), None, "what was refused was not charged");
    assert_eq!(verdict(conn, &["tick:b", "free:b"]), None);
    assert_eq!(verdict(conn, &["tick:b", "free:b"]), Some(json!(1000)));
    assert_eq!(verdict(other, &["chat:a", "chat:b"]), None, "each connection has its own");
    assert!(rig.shard.counters().paced >= 3);
    rig.receive(conn, &frame(0x88, &1000_u16.to_be_bytes()));
    rig.receive(other, &frame(0x88, &1000_u16.to_be_bytes()));
    assert_eq!(rig.shard.counters().paced, 0, "who has gone is forgotten");
    // Where the rule is to delay, nothing is read until that rate is kept too.
    let mut settings = namespaces();
    settings.limits.over = OverRate::Delay;
    let mut rig = Rig::new(0, 1, settings);
    let conn = rig.open();
    for _ in 0..4 {
        rig.say(conn, &publish(&["chat:a"], "1"));
    }
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(conn)), "{:?}", rig.ops);
    rig.later(Duration::from_millis(2900));
    rig.settle();
    rig.later(MILLI);
    rig.turn();
    assert!(!rig.ops.contains(&Seen::Resume(conn)), "two are owed, and one must be there");
    let start = rig.now;
    while !rig.ops.contains(&Seen::Resume(conn)) {
        let wait = rig.shard.poll_timeout(rig.now).expect("a deadline");
        rig.later(wait.max(MILLI));
        rig.turn();
        assert!(rig.now.since(start) < Duration::from_secs(2), "it waits for ever");
    }
}
