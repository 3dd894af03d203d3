//! Who has most to read.

use crate::shard::tests::rig::{Rig, publish};
use crate::shard::{Laggard, Mail, Surveyed};

/// Turns until the survey has an answer, and how many that took.
fn answer(rig: &mut Rig, slice: u32) -> (Surveyed, u32) {
    rig.take(Mail::Survey(7));
    rig.shard.measures.survey.as_mut().expect("a survey").slice = slice;
    for turns in 1.. {
        let due = rig.shard.poll_timeout(rig.now);
        assert_eq!(due, Some(std::time::Duration::ZERO), "the next slice is due");
        if let Some(found) = rig.shard.poll_survey(rig.now) {
            assert_eq!(rig.shard.poll_survey(rig.now), None, "it is answered once");
            return (found, turns);
        }
    }
    unreachable!("turns go on");
}

#[test]
fn the_connections_with_most_to_read_are_found_in_slices_and_in_order() {
    let mut rig = Rig::alone();
    let members: Vec<_> = (0..40).map(|_| rig.open()).collect();
    let publisher = rig.open();
    let (found, turns) = answer(&mut rig, 8);
    assert_eq!((found.number, found.laggards, turns), (7, Vec::new(), 6));
    for (at, conn) in members.iter().enumerate() {
        let room = format!("room-{at}");
        rig.say(*conn, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
        rig.settle();
        rig.stalled.insert(*conn);
        let payload = format!("\"{}\"", "x".repeat(30 * (at + 1)));
        rig.say(publisher, &publish(&[&room], &payload));
        rig.turn();
    }
    let (found, turns) = answer(&mut rig, 8);
    assert_eq!(turns, 6);
    let heaviest: Vec<_> = members.iter().rev().take(10).map(|conn| rig.address(*conn)).collect();
    let conns: Vec<_> = found.laggards.iter().map(|laggard| laggard.conn).collect();
    assert_eq!(conns, heaviest);
    let Laggard { waiting, rooms, who, .. } = &found.laggards[0];
    assert!(*waiting > 1200 && *rooms == 1 && who.is_none(), "{found:?}");
}

#[test]
fn a_new_question_begins_the_survey_anew() {
    let mut rig = Rig::alone();
    for _ in 0..20 {
        rig.open();
    }
    rig.take(Mail::Survey(1));
    rig.shard.measures.survey.as_mut().expect("a survey").slice = 8;
    assert_eq!(rig.shard.poll_survey(rig.now), None);
    let (found, turns) = answer(&mut rig, 8);
    assert_eq!((found.number, turns), (7, 3));
}
