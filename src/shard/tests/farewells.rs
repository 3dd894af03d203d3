//! Who has gone and why: what is said for the log.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::Disconnect;
use crate::contract::Event;
use crate::shard::tests::rig::{Rig, frame, settings};
use crate::shard::{Farewell, Mail, Settings, Told};

fn telling(told: Told) -> Settings {
    let mut settings = settings();
    settings.capacity.told = told;
    settings
}

fn said(rig: &mut Rig) -> Vec<Farewell> {
    let mut all = Vec::new();
    rig.shard.poll_farewells(|farewell| {
        all.push(farewell);
        true
    });
    all
}

#[test]
fn faults_are_told_apart_from_goodbyes_and_nothing_is_told_by_default() {
    let expected: [(Told, &[&str]); 3] = [
        (Told::Nothing, &[]),
        (Told::Faults, &["violation"]),
        (Told::Everything, &["vanished", "violation"]),
    ];
    for (told, labels) in expected {
        let mut rig = Rig::new(0, 1, telling(told));
        let (gone, wrong) = (rig.open(), rig.open());
        rig.event(Event::ReceivedEnd { conn: gone });
        rig.receive(wrong, &frame(0xf1, b"reserved bits"));
        let farewells = said(&mut rig);
        let found: Vec<&str> = farewells.iter().map(|farewell| farewell.why.label()).collect();
        assert_eq!(found, labels);
        assert_eq!(said(&mut rig), [], "once");
        rig.settle();
    }
}

#[test]
fn a_farewell_has_the_bytes_of_its_connection_and_not_of_who_was_there_before() {
    let mut rig = Rig::new(0, 1, telling(Told::Everything));
    let head = rig.shard.counters();
    let first = rig.open();
    rig.say(first, r#"{"type":"throng:ping"}"#);
    rig.settle();
    rig.later(Duration::from_secs(7));
    let counters = rig.shard.counters();
    rig.event(Event::ReceivedEnd { conn: first });
    let [farewell] = &said(&mut rig)[..] else { panic!("one has gone") };
    assert_eq!(farewell.conn, rig.address(first));
    assert_eq!(farewell.received, counters.received_bytes_total - head.received_bytes_total);
    assert_eq!(farewell.sent, counters.sent_bytes_total - head.sent_bytes_total);
    assert!(farewell.received > 0 && farewell.sent > 0 && farewell.who.is_none());
    assert!((6..=8).contains(&farewell.life.as_secs()), "{:?}", farewell.life);
    rig.settle();
    let second = rig.accept().expect("let in");
    assert_eq!(second.index, first.index, "the place is used again");
    rig.event(Event::ReceivedEnd { conn: second });
    let [farewell] = &said(&mut rig)[..] else { panic!("one has gone") };
    assert_eq!((farewell.received, farewell.sent, farewell.why), (0, 0, Disconnect::Vanished));
}

#[test]
fn what_finds_no_space_is_counted_and_the_rest_is_told() {
    let mut rig = Rig::new(0, 1, telling(Told::Everything));
    for _ in 0..600 {
        let conn = rig.accept().expect("let in");
        rig.event(Event::ReceivedEnd { conn });
    }
    assert_eq!(rig.shard.counters().farewells_lost_total, 600 - 512);
    let mut space = 100;
    rig.shard.poll_farewells(|_| {
        space -= i32::from(space > 0);
        space > 0
    });
    assert_eq!(rig.shard.counters().farewells_lost_total, 600 - 512 + 512 - 99);
    rig.take(Mail::Settings(Arc::new(telling(Told::Nothing))));
    let conn = rig.open();
    rig.event(Event::ReceivedEnd { conn });
    assert_eq!(said(&mut rig), [], "nothing is told any more");
}
