//! Memory that comes back after a crowd, and a crowd that finds its memory where it left it.

use std::mem::MaybeUninit;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::spare::Release;
use crate::contract::Event;
use crate::flow::ebb::CALM;
use crate::shard::Relieved;
use crate::shard::relief::Relief;
use crate::shard::tests::rig::Rig;

const KEPT: u64 = 16;
const SLICE: u32 = 50;
const CROWD: usize = 300;

/// Overwrites what it is lent, which must change nothing, and counts it.
#[derive(Default)]
struct Zeros {
    entries: usize,
    most: usize,
}

impl Release for Zeros {
    fn release<T>(&mut self, spare: &mut [MaybeUninit<T>]) {
        self.entries += spare.len();
        self.most = self.most.max(spare.len());
        spare.fill_with(MaybeUninit::zeroed);
    }
}

/// A shard with a crowd, in the order of its indexes.
fn crowd() -> (Rig, Vec<ConnId>) {
    let mut rig = Rig::alone();
    rig.shard.relief = Relief::new(KEPT, SLICE);
    let conns: Vec<ConnId> = (0..CROWD).map(|_| rig.open()).collect();
    assert!(conns.iter().zip(0..).all(|(conn, index)| conn.index == index));
    (rig, conns)
}

impl Rig {
    fn lose_all(&mut self, conns: &[ConnId]) {
        for conn in conns {
            let error = std::io::ErrorKind::ConnectionReset.into();
            self.event(Event::Lost { conn: *conn, error });
        }
        self.settle();
        self.complete();
        self.shard.check();
    }

    /// Everything that is given back until nothing more is due.
    fn relieve_all(&mut self, to: &mut Zeros) -> Vec<Relieved> {
        let mut all = Vec::new();
        while let Some(relieved) = self.shard.relieve(self.now, to) {
            self.shard.check();
            all.push(relieved);
        }
        all
    }
}

#[test]
fn a_crowd_that_has_gone_leaves_its_places_slice_by_slice_after_the_calm() {
    let (mut rig, conns) = crowd();
    let mut to = Zeros::default();
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.lose_all(&conns[20..]);
    assert_eq!(rig.relieve_all(&mut to), []);
    assert_eq!(rig.shard.table.touched(), 300);
    let due = rig.shard.relief.due().expect("a look after the calm");
    assert_eq!(due.since(rig.now), CALM);
    assert!(rig.shard.poll_timeout(rig.now).is_some_and(|wait| wait <= CALM));
    rig.later(CALM);
    let places = |from| Relieved::Places { from };
    let expected = [250, 200, 150, 100, 50, 20].map(places);
    let relieved = rig.relieve_all(&mut to);
    assert_eq!(relieved[..6], expected);
    assert_eq!(relieved[6..], [Relieved::Heap]);
    assert_eq!(rig.shard.table.touched(), 20);
    assert!(to.most <= 2 * SLICE as usize, "no turn releases more than its slice");
    assert_eq!(rig.shard.relief.due(), None, "an idle shard sleeps");
    for conn in &conns[..20] {
        rig.say(*conn, r#"{"type":"throng:ping"}"#);
    }
    rig.turn();
    assert!(conns[..20].iter().all(|conn| rig.writes(*conn) == [1]), "those who stayed are served");
    let again: Vec<ConnId> = (0..CROWD).map(|_| rig.open()).collect();
    assert!(again.iter().zip(20..).all(|(conn, index)| conn.index == index));
}

#[test]
fn a_crowd_that_comes_back_at_once_finds_its_memory() {
    let (mut rig, mut conns) = crowd();
    let mut to = Zeros::default();
    for _ in 0..3 {
        rig.lose_all(&conns);
        assert_eq!(rig.relieve_all(&mut to), []);
        rig.later(CALM / 2);
        assert_eq!(rig.relieve_all(&mut to), []);
        conns = (0..CROWD).map(|_| rig.open()).collect();
        assert_eq!(rig.relieve_all(&mut to), []);
    }
    assert_eq!(to.entries, 0);
}

#[test]
fn one_who_stays_at_a_high_index_holds_the_places_and_not_the_heap() {
    let (mut rig, conns) = crowd();
    let mut to = Zeros::default();
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.lose_all(&conns[..CROWD - 1]);
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.later(CALM);
    assert_eq!(rig.relieve_all(&mut to), [Relieved::Heap]);
    assert_eq!(rig.shard.table.touched(), 300);
    rig.lose_all(&conns[CROWD - 1..]);
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.later(CALM);
    assert_eq!(rig.relieve_all(&mut to).last(), Some(&Relieved::Places { from: 0 }));
    assert!((0..5).all(|index| rig.open().index == index), "the lowest places are taken first");
}

#[test]
fn a_crowd_that_comes_while_places_are_released_loses_none() {
    let (mut rig, conns) = crowd();
    let mut to = Zeros::default();
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.lose_all(&conns);
    assert_eq!(rig.relieve_all(&mut to), []);
    rig.later(CALM);
    assert_eq!(rig.shard.relieve(rig.now, &mut to), Some(Relieved::Places { from: 250 }));
    let again: Vec<ConnId> = (0..220).map(|_| rig.open()).collect();
    assert_eq!(rig.relieve_all(&mut to), [Relieved::Places { from: 220 }]);
    let last = &again[170..];
    for conn in last {
        rig.say(*conn, r#"{"type":"throng:ping"}"#);
    }
    rig.turn();
    assert!(last.iter().all(|conn| rig.writes(*conn) == [1]));
}

#[test]
fn the_queues_of_a_burst_are_given_back_even_if_nothing_ever_happens_again() {
    let mut rig = Rig::alone();
    let members: Vec<ConnId> = (0..200).map(|_| rig.member("r")).collect();
    for number in 0..20 {
        rig.say(members[0], &crate::shard::tests::rig::publish(&["r"], &number.to_string()));
    }
    rig.settle();
    rig.lose_all(&members);
    let burst = rig.shard.queues.capacity();
    assert!(burst >= 4000, "{burst}");
    let mut waits = 0;
    while let Some(due) = rig.shard.queues.due() {
        rig.now = rig.now.max(due);
        rig.turn();
        waits += 1;
        assert!(waits < 10, "a few periods");
    }
    assert!(rig.shard.queues.capacity() <= 1024, "{}", rig.shard.queues.capacity());
    rig.later(Duration::from_secs(3600));
    rig.settle();
    assert_eq!(rig.shard.poll_timeout(rig.now), None, "an idle shard sleeps");
}
