//! The ledger against a naive twin that remembers everything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn stamp(publisher: u32, seq: u64) -> Stamp {
    Stamp { run: 1, publisher, seq, at_ns: 0, last: false }
}

/// What happens to one publication on its way: arrives, is lost, arrives twice, or trades places with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Swapped,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        20 => Just(Fate::Arrives),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        1 => Just(Fate::Swapped),
    ];
    prop::collection::vec(fate, 1..300)
}

/// The order of arrival, as numbers from 1.
fn arrivals(fates: &[Fate]) -> Vec<u64> {
    let mut arrivals = Vec::new();
    for (seq, fate) in (1..).zip(fates) {
        match fate {
            Fate::Arrives => arrivals.push(seq),
            Fate::Lost => {}
            Fate::Twice => arrivals.extend([seq, seq]),
            Fate::Swapped => {
                let before = arrivals.pop();
                arrivals.push(seq);
                arrivals.extend(before);
            }
        }
    }
    arrivals
}

/// Counts by remembering everything.
fn twin(arrivals: &[u64], total: u64) -> Tally {
    let (mut seen, mut highest) = (BTreeSet::new(), 0);
    let mut tally = Tally { expected: total, ..Tally::default() };
    for seq in arrivals {
        if !seen.insert(*seq) {
            tally.duplicates += 1;
            continue;
        }
        tally.received += 1;
        tally.reordered += u64::from(*seq < highest);
        highest = highest.max(*seq);
    }
    tally.lost = total - tally.received;
    tally
}

proptest! {
    #[test]
    fn the_ledger_counts_what_its_twin_counts(fates in fates()) {
        let (arrivals, total) = (arrivals(&fates), fates.len() as u64);
        let mut ledger = RoomLedger::new(true);
        for seq in &arrivals {
            ledger.publication(None, &stamp(0, *seq));
        }
        ledger.charge_silent(0);
        let tally = ledger.finish(&|_| Some(total), true);
        prop_assert_eq!(tally, twin(&arrivals, total));
    }

    #[test]
    fn a_member_from_the_middle_is_charged_from_its_first_arrival(
        fates in fates(), first in 1..100u64,
    ) {
        let total = fates.len() as u64;
        let arrivals: Vec<u64> = arrivals(&fates).into_iter().filter(|seq| *seq > first).collect();
        let mut ledger = RoomLedger::new(false);
        for seq in &arrivals {
            ledger.publication(None, &stamp(0, *seq));
        }
        let tally = ledger.finish(&|_| Some(total), true);
        prop_assert_eq!(tally.expected, tally.received + tally.lost);
        if let Some(begin) = arrivals.first() {
            // What overtook the first arrival is taken for old.
            let unique: BTreeSet<u64> = arrivals.iter().copied().filter(|s| s >= begin).collect();
            prop_assert_eq!(tally.received, unique.len() as u64);
            prop_assert_eq!(tally.expected, total - begin + 1);
        }
    }
}

#[test]
fn what_the_server_tells_of_is_dropped_and_not_lost() {
    let mut ledger = RoomLedger::new(true);
    ledger.join(Some(10));
    ledger.publication(Some(11), &stamp(0, 1));
    ledger.gap(2);
    ledger.publication(Some(14), &stamp(0, 4));
    let tally = ledger.finish(&|_| Some(4), true);
    assert_eq!((tally.expected, tally.received), (4, 2));
    assert_eq!((tally.dropped_by_policy, tally.lost, tally.offset_breaks), (2, 0, 0));
}

#[test]
fn an_untold_loss_is_lost_and_breaks_the_offsets() {
    let mut ledger = RoomLedger::new(true);
    ledger.join(Some(0));
    ledger.publication(Some(1), &stamp(0, 1));
    ledger.publication(Some(3), &stamp(0, 3));
    let tally = ledger.finish(&|_| Some(3), true);
    assert_eq!((tally.lost, tally.offset_breaks, tally.dropped_by_policy), (1, 1, 0));
}

#[test]
fn a_gap_that_is_told_and_not_there_is_a_break() {
    let mut ledger = RoomLedger::new(true);
    ledger.join(Some(0));
    ledger.gap(1);
    ledger.publication(Some(1), &stamp(0, 1));
    assert_eq!(ledger.finish(&|_| Some(1), true).offset_breaks, 1);
}

#[test]
fn a_repeated_offset_is_a_break_and_a_duplicate() {
    let mut ledger = RoomLedger::new(true);
    ledger.join(Some(0));
    ledger.publication(Some(1), &stamp(0, 1));
    ledger.publication(Some(1), &stamp(0, 1));
    let tally = ledger.finish(&|_| Some(1), true);
    assert_eq!((tally.duplicates, tally.offset_breaks, tally.lost), (1, 1, 0));
}

#[test]
fn a_stream_of_which_nothing_arrived_is_charged_to_members_from_the_start_only() {
    for (from_start, lost) in [(true, 7), (false, 0)] {
        let mut ledger = RoomLedger::new(from_start);
        ledger.charge_silent(3);
        assert_eq!(ledger.finish(&|_| Some(7), true).lost, lost);
    }
}

#[test]
fn a_session_that_ended_early_owes_no_tail() {
    let mut ledger = RoomLedger::new(true);
    ledger.publication(None, &stamp(0, 1));
    ledger.publication(None, &stamp(1, 1));
    let tally = ledger.finish(&|_| Some(100), false);
    assert_eq!((tally.expected, tally.received, tally.lost), (2, 2, 0));
}

#[test]
fn what_is_older_than_the_window_counts_as_a_duplicate() {
    let mut track = Track::from_start();
    assert_eq!(track.note(2), Seen::Skipped(1));
    assert_eq!(track.note(2 + WINDOW), Seen::Skipped(WINDOW - 1));
    assert_eq!(track.note(1), Seen::Duplicate);
    assert_eq!(track.note(3), Seen::Late);
    assert_eq!(track.finish(2 + WINDOW), WINDOW - 1);
}
