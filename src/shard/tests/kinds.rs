//! Rates by the type of a message, beside those of everything that a connection sends.

use std::sync::Arc;
use std::time::Duration;

use crate::base::glob::Glob;
use crate::base::id::ConnId;
use crate::flow::budget::Rate;
use crate::shard::tests::rig::{Heard, Rig, Seen, settings};
use crate::shard::{KindRate, Mail, OverRate, Settings};

/// Rates with bursts of as many messages.
fn paced(kinds: &[(&str, u32, OverRate)]) -> Settings {
    let mut settings = settings();
    for (types, per_second, over) in kinds {
        settings.rooms.kinds.push(KindRate { types: Glob::new(types), over: *over });
        settings.rooms.rates.push(Some(Rate { per_second: *per_second, burst: *per_second }));
    }
    settings
}

fn say(rig: &mut Rig, conn: ConnId, kind: &str, times: usize) {
    for _ in 0..times {
        rig.say(conn, &format!(r#"{{"type":"{kind}","room":"r","payload":1}}"#));
    }
    rig.settle();
}

/// How many were refused since this was asked last.
fn refused(rig: &mut Rig, conn: ConnId) -> usize {
    let errors = rig.told(conn, "throng:error");
    assert!(errors.iter().all(|error| error["code"] == "rate_limited"), "{errors:?}");
    errors.len()
}

#[test]
fn types_have_rates_of_their_own_and_the_first_that_matches_decides() {
    let error = OverRate::Error;
    let mut rig = Rig::new(
        0,
        1,
        paced(&[("typing", 2, error), ("*ck", 5, error), ("throng:ping", 1, error)]),
    );
    let (conn, other) = (rig.open(), rig.open());
    rig.heard(conn);
    for (kind, times, over) in
        [("typing", 6, 4), ("ty\\u0070ing", 3, 3), ("tick", 6, 1), ("tock", 2, 2), ("say", 50, 0)]
    {
        say(&mut rig, conn, kind, times);
        assert_eq!(refused(&mut rig, conn), over, "{kind}");
    }
    for _ in 0..3 {
        rig.say(conn, r#"{"type":"throng:ping","ref":1}"#);
    }
    rig.settle();
    assert_eq!(rig.told(conn, "throng:pong").len(), 1);
    say(&mut rig, other, "typing", 3);
    assert_eq!(refused(&mut rig, other), 1, "each connection has its own");
    rig.later(Duration::from_secs(1));
    say(&mut rig, conn, "typing", 3);
    assert_eq!(refused(&mut rig, conn), 1, "a second has earned two");
}

#[test]
fn each_type_has_a_consequence_of_its_own() {
    let kinds =
        [("drop", 1, OverRate::Error), ("wait", 1, OverRate::Delay), ("end", 1, OverRate::Close)];
    let mut rig = Rig::new(0, 1, paced(&kinds));
    let [first, second, third] = [0; 3].map(|_| rig.open());
    say(&mut rig, first, "drop", 2);
    assert_eq!(refused(&mut rig, first), 1);
    rig.heard(second);
    for _ in 0..2 {
        rig.say(second, r#"{"type":"wait","room":"r"}"#);
    }
    rig.turn();
    assert!(rig.ops.contains(&Seen::Pause(second)), "{:?}", rig.ops);
    rig.later(Duration::from_secs(2));
    rig.turn();
    assert!(rig.ops.contains(&Seen::Resume(second)), "{:?}", rig.ops);
    rig.heard(third);
    say(&mut rig, third, "end", 2);
    assert_eq!(rig.heard(third), [Heard::Close(1008)]);
}

#[test]
fn a_running_shard_takes_other_rates_over_and_nothing_is_left_of_who_has_gone() {
    let mut rig = Rig::new(0, 1, paced(&[("a", 1, OverRate::Error)]));
    let conn = rig.open();
    rig.heard(conn);
    say(&mut rig, conn, "a", 3);
    assert_eq!(refused(&mut rig, conn), 2);
    assert_eq!(rig.shard.counters().paced, 1);
    rig.take(Mail::Settings(Arc::new(paced(&[
        ("b", 1, OverRate::Error),
        ("a", 9, OverRate::Error),
    ]))));
    say(&mut rig, conn, "a", 9);
    assert_eq!(refused(&mut rig, conn), 0);
    rig.take(Mail::Settings(Arc::new(settings())));
    say(&mut rig, conn, "a", 50);
    assert_eq!(refused(&mut rig, conn), 0);
    rig.take(Mail::Settings(Arc::new(paced(&[("a", 1, OverRate::Error)]))));
    say(&mut rig, conn, "a", 2);
    rig.receive(conn, &crate::shard::tests::rig::frame(0x88, &1000_u16.to_be_bytes()));
    rig.settle();
    assert_eq!(rig.shard.counters().paced, 0);
}
