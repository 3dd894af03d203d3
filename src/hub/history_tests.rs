//! History against a list of all publications ever made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::ShardId;
use crate::base::map::Seed;
use crate::base::shared::Overflow;
use crate::base::time::Tick;

fn publication(room: &Arc<str>, offset: u64, size: usize) -> Arc<Publication> {
    let raw = |json: String| RawValue::from_string(json).expect("JSON");
    let publication = Publication {
        room: Arc::clone(room),
        cursor: Cursor { epoch: 1, offset },
        at: crate::base::time::Time::ZERO,
        kind: raw("\"t\"".into()),
        payload: Some(Arc::from(raw(format!("{:?}", "x".repeat(size))))),
        id: None,
        to: Audience { target: Target::Room, except: None },
        overflow: Overflow::DropNew,
        key: 0,
        origin: Origin::BackEnd(None),
        terms: Terms::default(),
        encoded: Encoded::default(),
    };
    publication.bytes(Class::WS_JSON, |publication| {
        let payload = publication.payload.as_ref().map_or("", |payload| payload.get());
        payload.as_bytes().to_vec()
    });
    Arc::new(publication)
}

const WHOLE: Portion = Portion { count: usize::MAX, bytes: usize::MAX };

fn limits(count: u32) -> HistoryLimits {
    HistoryLimits { count, bytes: u64::MAX, age: Duration::from_secs(3600) }
}

#[derive(Clone, Debug)]
enum Step {
    /// With so many bytes.
    Publish(usize),
    Members(u32),
    Wait(u32),
    /// So far behind (or ahead), in portions of so many.
    Missed(i64, usize),
    Page(u64, usize),
    /// Let go of all but so many bytes.
    Shrink(u64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        8 => (0..300usize).prop_map(Step::Publish),
        2 => (0..2u32).prop_map(Step::Members),
        2 => (1..400u32).prop_map(Step::Wait),
        6 => (-3..25i64, 1..9usize).prop_map(|(behind, portion)| Step::Missed(behind, portion)),
        3 => (0..30u64, 1..9usize).prop_map(|(before, count)| Step::Page(before, count)),
        1 => (0..20_000u64).prop_map(Step::Shrink),
    ];
    prop::collection::vec((0..2usize, step), 1..150)
}

/// A room as a list: every publication of this life of it, with when it was made and what it cost.
#[derive(Default)]
struct Twin {
    members: u32,
    all: Vec<(Tick, u64)>,
    /// Those before this place are gone.
    from: usize,
    epoch: Option<u64>,
}

impl Twin {
    fn drop_old(&mut self, age: Duration, now: Tick) {
        while self.all.get(self.from).is_some_and(|(at, _)| at.plus(age) <= now) {
            self.from += 1;
        }
    }

    fn end_if_empty(&mut self) {
        if self.members == 0 && self.from == self.all.len() {
            *self = Self::default();
        }
    }

    fn kept(&self) -> std::ops::RangeInclusive<u64> {
        self.from as u64 + 1..=self.all.len() as u64
    }
}

const BOUNDS: HistoryLimits =
    HistoryLimits { count: 12, bytes: 8000, age: Duration::from_secs(20) };

fn judge_missed(
    directory: &Directory,
    twin: &Twin,
    name: &str,
    behind: i64,
    most: usize,
    now: Tick,
) {
    let latest = twin.all.len() as u64;
    let offset = latest.saturating_add_signed(-behind);
    let epoch = twin.epoch.unwrap_or(u64::MAX);
    let expected = if twin.epoch.is_none() {
        Err(Stale::Epoch)
    } else if offset > latest {
        Err(Stale::Ahead)
    } else if offset < latest && offset + 1 < *twin.kept().start() {
        Err(Stale::TooOld)
    } else {
        Ok((offset + 1..=latest).collect::<Vec<u64>>())
    };
    // Piece by piece, each from where the last one ended.
    let (mut got, mut since) = (Vec::new(), Cursor { epoch, offset });
    let found = loop {
        let portion = Portion { count: most, bytes: usize::MAX };
        match directory.missed(name, since, portion, now) {
            Err(stale) => break Err(stale),
            Ok(slice) => {
                assert!(slice.publications.len() <= most);
                got.extend(slice.publications.iter().map(|publication| publication.cursor.offset));
                since.offset = got.last().copied().unwrap_or(offset);
                if !slice.more {
                    break Ok(got);
                }
            }
        }
    };
    assert_eq!(found, expected, "{name}: {behind} behind {latest}");
    let other = Cursor { epoch: epoch ^ 1, offset };
    assert_eq!(directory.missed(name, other, WHOLE, now).map(|_| ()), Err(Stale::Epoch));
}

fn judge_page(directory: &Directory, twin: &Twin, name: &str, before: u64, most: usize, now: Tick) {
    let kept = twin.kept().filter(|offset| *offset < before);
    let expected: Vec<u64> = kept.clone().rev().take(most).collect();
    let portion = Portion { count: most, bytes: usize::MAX };
    let page = directory.history().before(name, Some(before), portion, now);
    let got: Vec<u64> = page.publications.iter().rev().map(|p| p.cursor.offset).collect();
    assert_eq!(got, expected, "before {before}");
    assert_eq!(page.more, kept.count() > most);
}

proptest! {
    #[test]
    fn a_history_equals_a_list_of_all_publications(steps in steps()) {
        let rooms: [Arc<str>; 2] = [Arc::from("a"), Arc::from("b")];
        let mut directory = Directory::new(&Seed::new(3), 1000);
        let mut twins = [Twin::default(), Twin::default()];
        let mut now = Tick(100);
        for (at, step) in steps {
            let (name, twin) = (&rooms[at], &mut twins[at]);
            match step {
                Step::Publish(size) => {
                    let Cursor { epoch, offset } = directory.number_kept(name);
                    prop_assert_eq!(offset, twin.all.len() as u64 + 1);
                    prop_assert_eq!(directory.position(name), Some((epoch, offset)));
                    twin.epoch = Some(epoch);
                    directory.keep(&publication(name, offset, size), &BOUNDS, now);
                    twin.all.push((now, cost_of(name, size)));
                    while twin.all.len() - twin.from > BOUNDS.count as usize {
                        twin.from += 1;
                    }
                    let cost = |twin: &Twin| twin.all[twin.from..].iter().map(|(_, c)| c).sum::<u64>();
                    while cost(twin) > BOUNDS.bytes {
                        twin.from += 1;
                    }
                }
                Step::Members(count) => {
                    directory.set_count(name, ShardId(0), count);
                    twin.members = count;
                    twin.epoch = directory.position(name).map(|(epoch, _)| epoch);
                }
                Step::Wait(ticks) => now = Tick(now.0 + ticks),
                Step::Missed(behind, most) => {
                    twin.drop_old(BOUNDS.age, now);
                    judge_missed(&directory, twin, name, behind, most, now);
                }
                Step::Page(before, most) => {
                    twin.drop_old(BOUNDS.age, now);
                    judge_page(&directory, twin, name, before, most, now);
                }
                Step::Shrink(bytes) => {
                    let _ = directory.shrink_history(bytes, now);
                    prop_assert!(directory.history().bytes() <= bytes);
                    for (name, twin) in rooms.iter().zip(&mut twins) {
                        let kept = directory.history().before(name, None, WHOLE, now);
                        twin.from = twin.all.len() - kept.publications.len();
                    }
                }
            }
            let ended = directory.expire(now, usize::MAX);
            prop_assert!(ended.iter().all(|room| directory.position(room).is_none()));
            for (name, twin) in rooms.iter().zip(&mut twins) {
                if !directory.history().holds(name) {
                    twin.drop_old(BOUNDS.age, now);
                    prop_assert_eq!(twin.from, twin.all.len(), "nothing is kept of {}", name);
                    twin.end_if_empty();
                }
                let latest = twin.epoch.map(|_| twin.all.len() as u64);
                prop_assert_eq!(directory.position(name).map(|(_, offset)| offset), latest);
            }
            directory.check();
        }
    }
}

/// What a publication of that size costs where a ring stands already.
fn cost_of(room: &Arc<str>, size: usize) -> u64 {
    let mut alone = History::new(&Seed::new(1));
    alone.record(&publication(room, 1, size), &limits(9), Tick(0));
    let one = alone.bytes();
    alone.record(&publication(room, 2, size), &limits(9), Tick(0));
    alone.bytes() - one
}

#[test]
fn a_room_lives_on_in_its_history_and_ends_with_it() {
    let room: Arc<str> = Arc::from("r");
    let mut directory = Directory::new(&Seed::new(1), 7);
    directory.set_count(&room, ShardId(0), 1);
    let Cursor { offset, .. } = directory.number_kept(&room);
    directory.keep(&publication(&room, offset, 10), &BOUNDS, Tick(0));
    directory.set_count(&room, ShardId(0), 0);
    assert_eq!(directory.position("r"), Some((7, 1)), "it lives on");
    let Cursor { offset, .. } = directory.number_kept(&room);
    directory.keep(&publication(&room, offset, 10), &BOUNDS, Tick(1));
    assert_eq!(directory.position("r"), Some((7, 2)), "and is published to");
    let end = Tick(1).plus(BOUNDS.age).plus(BOUNDS.age / 8);
    assert_eq!(directory.expire(end, 9), [Arc::clone(&room)]);
    assert_eq!((directory.position("r"), directory.len()), (None, 0), "until it has aged out");
    assert_eq!((directory.history().bytes(), directory.history().due()), (0, None));
    assert_eq!(directory.history().evicted().age, 2);
    directory.number_kept(&room);
    assert_eq!(directory.position("r"), Some((8, 1)), "the next life has another epoch");
}

#[test]
fn a_history_that_is_taken_away_leaves_the_room_to_its_members() {
    let room: Arc<str> = Arc::from("r");
    let mut directory = Directory::new(&Seed::new(1), 7);
    for members in [1, 0] {
        let Cursor { offset, .. } = directory.number_kept(&room);
        directory.keep(&publication(&room, offset, 10), &BOUNDS, Tick(0));
        directory.set_count(&room, ShardId(0), members);
        assert_eq!(directory.forget("r"), members == 0);
        directory.check();
        assert_eq!(directory.len(), members as usize);
    }
}

#[test]
fn what_ends_first_goes_first_when_all_rooms_together_have_too_much() {
    let names: Vec<Arc<str>> = (0..50).map(|at| Arc::from(format!("r{at}"))).collect();
    let mut directory = Directory::new(&Seed::new(1), 7);
    for round in 0..3 {
        for (at, room) in (0..).zip(&names) {
            let Cursor { offset, .. } = directory.number_kept(room);
            let now = Tick(round * 100 + at);
            directory.keep(&publication(room, offset, 100), &limits(9), now);
        }
    }
    let whole = directory.history().bytes();
    assert!(directory.shrink_history(whole * 2 / 3, Tick(300)).is_empty(), "no room ends yet");
    let left: BTreeMap<usize, usize> = names.iter().fold(BTreeMap::new(), |mut left, room| {
        let kept = directory.history().before(room, None, WHOLE, Tick(300)).publications.len();
        *left.entry(kept).or_default() += 1;
        left
    });
    assert!(left.keys().all(|kept| (1..=3).contains(kept)), "nobody pays for all: {left:?}");
    assert!(directory.history().evicted().share >= 50, "{:?}", directory.history().evicted());
    assert_eq!(directory.shrink_history(0, Tick(300)).len(), 50);
    assert_eq!((directory.len(), directory.history().bytes()), (0, 0));
    directory.check();
}

#[test]
fn memory_is_given_back_when_histories_end() {
    let mut directory = Directory::new(&Seed::new(1), 7);
    for at in 0..20_000 {
        let room: Arc<str> = Arc::from(format!("r{at}"));
        let Cursor { offset, .. } = directory.number_kept(&room);
        directory.keep(&publication(&room, offset, 10), &BOUNDS, Tick(0));
    }
    assert!(directory.capacity() >= 20_000);
    let end = Tick(0).plus(BOUNDS.age);
    assert_eq!(directory.expire(end, 15_000).len(), 15_000);
    assert_eq!(directory.len(), 5000, "a bounded share in each turn");
    assert_eq!(directory.expire(end, 15_000).len(), 5000);
    assert_eq!(directory.len(), 0);
    assert!(directory.capacity() <= 300, "{}", directory.capacity());
}
