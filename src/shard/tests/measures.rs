//! What a shard measures: delivery, lives, queues, losses.

use std::sync::Arc;
use std::time::Duration;

use crate::base::glob::Glob;
use crate::base::histogram::place;
use crate::base::shared::Overflow;
use crate::contract::Event;
use crate::flow::outbound::Lengths;
use crate::shard::tests::rig::{Rig, publish, settings};
use crate::shard::{LOSS_ROWS, Losses, Mail, NamespaceRules, RoomMemory, Settings};

const MILLI: Duration = Duration::from_millis(1);

fn rules(pattern: &str, overflow: Overflow) -> NamespaceRules {
    NamespaceRules {
        pattern: Glob::new(pattern),
        overflow,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory::default(),
        queued: 0,
        write_delay: std::time::Duration::ZERO,
        payload: 0,
    }
}

fn with_namespaces(namespaces: Vec<NamespaceRules>) -> Settings {
    let mut settings = settings();
    settings.rooms.namespaces = namespaces;
    settings
}

/// The rows of losses that have changed.
fn losses(rig: &mut Rig) -> Vec<(usize, Losses)> {
    let mut rows = Vec::new();
    rig.shard.measures().take_losses(|row, losses| rows.push((row, losses)));
    rows
}

fn counts(rig: &mut Rig, which: usize) -> (u64, u64) {
    let histogram = &rig.shard.measures().histograms()[which];
    (histogram.counts().iter().sum(), histogram.sum())
}

#[test]
fn delivery_is_measured_from_arrival_to_the_end_of_the_last_write() {
    let mut rig = Rig::alone();
    let members: Vec<_> = (0..150).map(|_| rig.member("r")).collect();
    let publisher = rig.open();
    let before = counts(&mut rig, 0);
    rig.say(publisher, &publish(&["r"], "1"));
    // A walk of 151 writes takes three turns: the first two end nothing.
    for _ in 0..3 {
        assert_eq!(counts(&mut rig, 0), before);
        rig.later(MILLI);
        rig.turn();
        rig.later(MILLI);
        rig.shard.end_turn(rig.now);
    }
    assert_eq!(counts(&mut rig, 0), (before.0 + 1, before.1 + 6_000_000));
    rig.say(publisher, &publish(&["nobody is here"], "1"));
    rig.settle();
    rig.later(MILLI);
    rig.shard.end_turn(rig.now);
    assert_eq!(counts(&mut rig, 0).0, before.0 + 1, "nobody heard it, and nothing is measured");
    assert_eq!(rig.published(members[149]).len(), 1);
}

#[test]
fn the_life_of_a_session_is_measured_at_its_end_and_a_refused_one_has_none() {
    let mut rig = Rig::alone();
    let (first, second) = (rig.open(), rig.open());
    rig.later(Duration::from_secs(10));
    let late = rig.accept().expect("let in");
    rig.event(Event::ReceivedEnd { conn: first });
    rig.event(Event::ReceivedEnd { conn: late });
    rig.settle();
    let (count, sum) = counts(&mut rig, 2);
    assert!(count == 1 && (9_900..=10_400).contains(&sum), "{count} with {sum} ms");
    rig.event(Event::Lost { conn: second, error: std::io::ErrorKind::ConnectionReset.into() });
    assert_eq!(counts(&mut rig, 2).0, 2);
    let lives = *rig.shard.measures().histograms()[2];
    assert_eq!(lives.counts()[place(10)], 2);
}

#[test]
fn a_long_queue_is_counted_by_its_length_until_it_is_read() {
    let mut rig = Rig::alone();
    let (conn, publisher) = (rig.member("r"), rig.open());
    rig.stalled.insert(conn);
    let payload = format!("\"{}\"", "x".repeat(900));
    for _ in 0..3 {
        rig.say(publisher, &publish(&["r"], &payload));
        rig.turn();
    }
    let lengths = *rig.shard.queue_lengths();
    assert_eq!(lengths.places.iter().sum::<u32>(), 1, "{lengths:?}");
    assert_eq!(lengths.places[Lengths::place(2800)], 1, "{lengths:?}");
    rig.stalled.clear();
    rig.settle();
    let relieved = *rig.shard.queue_lengths();
    assert_eq!(relieved.places.iter().sum::<u32>(), 0);
    assert_ne!(relieved.version, lengths.version);
}

#[test]
fn losses_are_told_apart_by_namespace_and_policy() {
    let mut rig = Rig::new(
        0,
        1,
        with_namespaces(vec![
            rules("new:*", Overflow::DropNew),
            rules("gone:*", Overflow::Disconnect),
        ]),
    );
    let publisher = rig.open();
    let payload = format!("\"{}\"", "x".repeat(900));
    let mut expected = Vec::new();
    for (row, room, policy) in [(0, "plain", 1), (1, "new:a", 0), (2, "gone:a", 3)] {
        let conn = rig.member(room);
        rig.stalled.insert(conn);
        for _ in 0..5 {
            rig.say(publisher, &publish(&[room], &payload));
            rig.turn();
        }
        let mut lost = Losses::default();
        let counters = rig.shard.counters();
        lost[policy] = match policy {
            0 => counters.dropped_new_total,
            1 => counters.dropped_oldest_total,
            _ => counters.slow_consumers_total,
        };
        assert!(lost[policy] > 0, "{room}");
        expected.push((row, lost));
    }
    assert_eq!(losses(&mut rig), expected);
    assert_eq!(losses(&mut rig), [], "they are given once");
}

#[test]
fn namespaces_beyond_those_with_a_row_share_one_and_new_namespaces_begin_anew() {
    let many = || (0..50).map(|at| rules(&format!("n{at}:*"), Overflow::DropNew)).collect();
    let mut rig = Rig::new(0, 1, with_namespaces(many()));
    let publisher = rig.open();
    let payload = format!("\"{}\"", "x".repeat(900));
    for room in ["n40:a", "n49:a", "n31:a"] {
        let conn = rig.member(room);
        rig.stalled.insert(conn);
        for _ in 0..5 {
            rig.say(publisher, &publish(&[room], &payload));
            rig.turn();
        }
    }
    let total = rig.shard.counters().dropped_new_total;
    let rows = losses(&mut rig);
    assert_eq!(rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [32, LOSS_ROWS - 1]);
    assert_eq!(rows.iter().map(|(_, lost)| lost[0]).sum::<u64>(), total);
    rig.take(Mail::Settings(Arc::new(with_namespaces(many()))));
    assert_eq!(losses(&mut rig), [], "the same namespaces go on");
    rig.take(Mail::Settings(Arc::new(with_namespaces(Vec::new()))));
    let rows = losses(&mut rig);
    assert_eq!(rows.len(), LOSS_ROWS);
    assert!(rows.iter().all(|(_, lost)| *lost == Losses::default()));
}
