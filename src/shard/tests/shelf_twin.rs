//! Rooms over ends of the process, against a list of all that was ever seen in them.
//!
//! Publications that are stored and others come in any order, the store answers when it likes, and the process
//! ends at any moment, with a request written or not. Whoever comes back afterwards has everything that was
//! stored, in order and once, and is told if anything else is missing; and no number is ever given out twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::base::id::ConnId;
use crate::base::saved::{Save, SavedRoom};
use crate::shard::Shard;
use crate::shard::inbox::Errands;
use crate::shard::tests::history::texts;
use crate::shard::tests::rig::{Rig, publish};
use crate::shard::tests::shelf::{kept, persist, storing};

#[derive(Clone, Copy, Debug)]
enum Step {
    Stored,
    Plain,
    /// The store keeps what it was asked first, and says so.
    Keep,
    /// It does not.
    Refuse,
    /// The process ends; true: after the store has written, and before it could say so.
    End(bool),
    /// Somebody comes back who has seen so much of the list.
    Return(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Stored),
        4 => Just(Step::Plain),
        7 => Just(Step::Keep),
        1 => Just(Step::Refuse),
        1 => any::<bool>().prop_map(Step::End),
        2 => (0..60usize).prop_map(Step::Return),
    ];
    prop::collection::vec(step, 1..70)
}

/// What a member has seen.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    epoch: Value,
    offset: u64,
    payload: u64,
}

struct World {
    rig: Rig,
    author: ConnId,
    member: ConnId,
    epoch: Value,
    /// Requests that the store has not answered.
    asked: VecDeque<Save>,
    disk: Option<SavedRoom>,
    all: Vec<Seen>,
    /// What its author was told is stored.
    acknowledged: BTreeSet<u64>,
    next: u64,
    lives: u64,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::new(0, 1, storing(10_000, 1000));
        let (author, member) = (rig.open(), rig.open());
        let mut world = Self {
            rig,
            author,
            member,
            epoch: Value::Null,
            asked: VecDeque::new(),
            disk: None,
            all: Vec::new(),
            acknowledged: BTreeSet::new(),
            next: 0,
            lives: 0,
        };
        world.enter();
        world
    }

    fn enter(&mut self) {
        (self.author, self.member) = (self.rig.open(), self.rig.open());
        self.rig.say(self.member, r#"{"type":"throng:join","room":"room","ref":0}"#);
        self.rig.settle();
        self.epoch = texts(&mut self.rig, self.member).remove(0)["epoch"].take();
    }

    /// Takes in what the shard wants of the store and what clients have heard.
    fn look(&mut self) {
        self.rig.settle();
        while let Some(errands) = self.rig.shard.poll_errand() {
            match errands {
                Errands::Save(save) => self.asked.push_back(*save),
                other => panic!("{other:?}"),
            }
        }
        for push in texts(&mut self.rig, self.member) {
            assert_eq!(push["type"], "t", "{push}");
            let number = |key: &str| push[key].as_u64().expect("a number");
            let (offset, payload) = (number("offset"), number("payload"));
            self.all.push(Seen { epoch: self.epoch.clone(), offset, payload });
        }
        for reply in texts(&mut self.rig, self.author) {
            if reply["ok"] == true {
                self.acknowledged.extend(reply["ref"].as_u64());
            }
        }
    }

    fn write(&mut self, save: &Save) {
        let room = self.disk.take().filter(|room| room.epoch == save.epoch);
        let mut room = room.unwrap_or_else(|| SavedRoom {
            room: Arc::clone(&save.room),
            epoch: save.epoch,
            reserved: 0,
            dropped: 0,
            rows: Vec::new(),
        });
        room.reserved = room.reserved.max(save.reserved);
        room.rows.extend(save.rows.iter().cloned());
        self.disk = Some(room);
    }

    fn answer(&mut self, keeps: bool) {
        if let Some(save) = self.asked.pop_front() {
            if keeps {
                self.write(&save);
            }
            // A refused number makes members wonder; that is another test's business.
            if keeps || !save.rows.is_empty() {
                kept(&mut self.rig, &save, keeps);
            } else {
                self.write(&save);
                kept(&mut self.rig, &save, true);
            }
        }
    }

    fn end(&mut self, writes: bool) {
        if let Some(save) = self.asked.pop_front().filter(|_| writes) {
            self.write(&save);
        }
        self.asked.clear();
        self.lives += 1;
        let mut rig = Rig::new(0, 1, storing(10_000, 1000));
        let mut identity = rig.shard.identity.clone();
        identity.epoch += 1000 * self.lives;
        rig.shard = Shard::new(identity, Arc::new(storing(10_000, 1000)));
        let rooms: Vec<SavedRoom> =
            self.disk.iter().filter(|room| !room.rows.is_empty()).cloned().collect();
        let now = rig.now;
        rig.shard.recall_rooms(&rooms, now);
        rig.shard.check();
        self.rig = rig;
        self.enter();
    }

    /// Somebody who has seen the first `seen` of the list comes back.
    fn come_back(&mut self, seen: usize) {
        let Some(last) = seen.checked_sub(1).and_then(|at| self.all.get(at)).cloned() else {
            return;
        };
        let back = self.rig.open();
        let since = json!({"epoch": last.epoch, "offset": last.offset});
        let join = json!({"type": "throng:join", "room": "room", "since": since, "ref": 1});
        self.rig.say(back, &join.to_string());
        self.rig.settle();
        let mut heard = texts(&mut self.rig, back);
        let reply = heard.remove(0);
        let resyncs: Vec<Value> =
            heard.iter().filter(|text| text["type"] == "throng:resync").cloned().collect();
        let got: Vec<(u64, u64)> = heard
            .iter()
            .filter(|text| text["type"] == "t")
            .map(|push| (push["payload"].as_u64().unwrap(), push["offset"].as_u64().unwrap()))
            .collect();
        assert!(resyncs.len() <= 1, "{resyncs:?}");
        assert_eq!(reply["recovered"] == true, resyncs.is_empty(), "{reply} and {resyncs:?}");
        assert!(got.is_sorted_by(|one, next| one.1 < next.1), "in order and once: {got:?}");
        assert!(got.iter().all(|(_, offset)| *offset > last.offset), "{got:?} after {last:?}");
        let missed = &self.all[seen..];
        let has = |payload: u64| got.iter().any(|(other, _)| *other == payload);
        let is_other_life = reply["epoch"] != last.epoch;
        for missed in missed {
            let stored = self.acknowledged.contains(&missed.payload);
            if !has(missed.payload) {
                assert!(
                    !resyncs.is_empty(),
                    "{missed:?} is missing after {last:?} and nobody says so"
                );
                assert!(!stored || is_other_life, "{missed:?} was stored and is gone: {resyncs:?}");
            }
        }
        // A life ends only where nothing of it was stored.
        assert!(
            !is_other_life
                || self.all.iter().all(|seen| {
                    seen.epoch != last.epoch || !self.acknowledged.contains(&seen.payload)
                })
        );
        self.rig.say(back, r#"{"type":"throng:leave","room":"room"}"#);
        self.rig.settle();
    }
}

proptest! {
    #[test]
    fn over_ends_of_the_process_nothing_stored_is_missed_and_nothing_else_in_silence(
        steps in steps(),
        ends in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps.into_iter().chain([Step::End(ends), Step::Return(1), Step::Return(5)]) {
            match step {
                Step::Stored | Step::Plain => {
                    let number = world.next;
                    world.next += 1;
                    let text = if matches!(step, Step::Stored) {
                        persist("room", number)
                    } else {
                        publish(&["room"], &number.to_string())
                    };
                    world.rig.say(world.author, &text);
                }
                Step::Keep => world.answer(true),
                Step::Refuse => world.answer(false),
                Step::End(writes) => world.end(writes),
                Step::Return(seen) => world.come_back(seen.min(world.all.len())),
            }
            world.look();
        }
        let mut numbers: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for seen in &world.all {
            let key = (seen.epoch.to_string(), seen.offset);
            let before = numbers.insert(key, seen.payload);
            prop_assert!(before.is_none_or(|before| before == seen.payload), "{seen:?} and {before:?}");
        }
        let order: Vec<u64> = world.all.iter().map(|seen| seen.payload).collect();
        prop_assert!(order.is_sorted(), "an author's order: {order:?}");
    }
}
