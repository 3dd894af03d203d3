//! What one client did and saw, and the judgement over all of them.
//!
//! Of a room with a shared history everything is told: the n-th that a client sees has the number n, so what it saw
//! is a list. Of another room a client that is connected knows the authors' own numbers: what is missing among
//! those of one connection of one author must be told by a gap that comes after the last that was there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::stage::{PLAIN, SHARED, clock};

/// A loss is excused where the client lost its connection before it was told, this soon after it.
const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// A publication: its author, the connection over which that sent it first, its number there.
pub(crate) type Key = (u64, u64, u64);

/// In a room without a shared history: the room, the author, its connection, the number there.
pub(crate) type Word = (usize, u64, u64, u64);

/// What is missing of an author's words.
#[derive(Clone, Debug)]
struct Hole {
    first: Word,
    next: u64,
    found: Instant,
}

/// What a client did and saw.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Per room, what it saw, in the order of the numbers from 1 on.
    pub(crate) seen: [Vec<Key>; SHARED.len()],
    /// What was acknowledged, and under which number if that was said.
    pub(crate) taken: Vec<(usize, Key, Option<u64>)>,
    /// What was refused, and had not been sent before.
    pub(crate) refused: Vec<(usize, Key)>,
    pub(crate) refused_words: Vec<Word>,
    /// Of what was sent nobody said what came of it.
    pub(crate) unknown: usize,
    pub(crate) words: usize,
    pub(crate) gaps: usize,
    pub(crate) connections: u64,
    /// What must not be.
    pub(crate) troubles: Vec<String>,
    holes: Vec<Hole>,
    /// Holes of which the client was not told.
    untold: Vec<Hole>,
    listening: Listening,
}

/// What is known of rooms without shared histories over this connection.
#[derive(Default)]
struct Listening {
    /// Counts what came.
    now: u64,
    /// Of each author's connection, per room: the last number, and when it came.
    last: BTreeMap<(usize, u64, u64), (u64, u64)>,
    /// When the last gap came, per room.
    gaps: [u64; PLAIN.len()],
}

impl Ledger {
    /// A connection begins.
    pub(crate) fn begin(&mut self) {
        self.connections += 1;
        self.listening = Listening::default();
    }

    /// It ends; of what was just lost nobody could tell any more.
    pub(crate) fn end(&mut self) {
        let now = clock();
        let late = self.holes.drain(..).filter(|hole| now - hole.found > TOLD_WITHIN);
        self.untold.extend(late);
    }

    /// The same at the end of everything, when all has been told.
    pub(crate) fn end_for_good(&mut self) {
        self.untold.append(&mut self.holes);
    }

    pub(crate) fn saw(&mut self, room: usize, offset: u64, key: Key) {
        let seen = &mut self.seen[room];
        if offset == seen.len() as u64 + 1 {
            seen.push(key);
            return;
        }
        let expected = seen.len() + 1;
        self.troubles.push(format!("{} came as {offset}, not {expected}: {key:?}", SHARED[room]));
        while (seen.len() as u64) + 1 < offset {
            seen.push((u64::MAX, 0, 0));
        }
        if offset > seen.len() as u64 {
            seen.push(key);
        }
    }

    pub(crate) fn heard(&mut self, word: Word) {
        self.words += 1;
        let own = &mut self.listening;
        own.now += 1;
        let (room, author, life, number) = word;
        let known = own.last.insert((room, author, life), (number, own.now));
        let Some((last, at)) = known else { return };
        if number <= last {
            self.troubles.push(format!("{word:?} came after {last}"));
        } else if number > last + 1 && own.gaps[room] < at {
            let first = (room, author, life, last + 1);
            self.holes.push(Hole { first, next: number, found: clock() });
        }
    }

    pub(crate) fn told_gap(&mut self, room: usize) {
        self.gaps += 1;
        self.listening.now += 1;
        self.listening.gaps[room] = self.listening.now;
        self.holes.retain(|hole| hole.first.0 != room);
    }
}

/// What became of everything.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    pub(crate) published: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) unknown_but_taken: usize,
    pub(crate) delivered: usize,
    pub(crate) words: usize,
    pub(crate) gaps: usize,
    pub(crate) connections: u64,
}

/// Holds what all clients saw against what was acknowledged; what must not be.
pub(crate) fn judge(ledgers: &[Ledger]) -> (Sum, Vec<String>) {
    let mut troubles: Vec<String> = Vec::new();
    for (client, ledger) in ledgers.iter().enumerate() {
        troubles
            .extend(ledger.troubles.iter().map(|trouble| format!("client {client}: {trouble}")));
        let refused: BTreeSet<Word> =
            ledgers.iter().flat_map(|ledger| ledger.refused_words.iter().copied()).collect();
        for hole in &ledger.untold {
            let (room, author, life, first) = hole.first;
            let is_lost = |number: &u64| !refused.contains(&(room, author, life, *number));
            if (first..hole.next).any(|number| is_lost(&number)) {
                troubles.push(format!("client {client} was not told of {hole:?}"));
            }
        }
    }
    let mut sum = Sum::default();
    let mut taken = 0;
    for room in 0..SHARED.len() {
        taken += judge_room(room, ledgers, &mut troubles);
    }
    for ledger in ledgers {
        sum.acknowledged += ledger.taken.len();
        sum.refused += ledger.refused.len() + ledger.refused_words.len();
        sum.unknown += ledger.unknown;
        sum.delivered += ledger.seen.iter().map(Vec::len).sum::<usize>();
        sum.words += ledger.words;
        sum.gaps += ledger.gaps;
        sum.connections += ledger.connections;
    }
    sum.published = taken;
    sum.unknown_but_taken = taken.saturating_sub(sum.acknowledged);
    (sum, troubles)
}

/// Judges one room with a shared history; how many publications it took.
fn judge_room(room: usize, ledgers: &[Ledger], troubles: &mut Vec<String>) -> usize {
    let name = SHARED[room];
    let model = &ledgers[0].seen[room];
    for (client, ledger) in ledgers.iter().enumerate().skip(1) {
        let other = &ledger.seen[room];
        if other != model {
            let at = model.iter().zip(other).position(|(one, two)| one != two);
            let lengths = (model.len(), other.len());
            troubles.push(format!("{name}: clients 0 and {client} differ: {lengths:?} {at:?}"));
        }
    }
    let mut places: BTreeMap<Key, u64> = BTreeMap::new();
    for (offset, key) in (1..).zip(model) {
        if let Some(before) = places.insert(*key, offset) {
            troubles.push(format!("{name}: {key:?} has the numbers {before} and {offset}"));
        }
    }
    for ledger in ledgers {
        for (_, key, offset) in ledger.taken.iter().filter(|(at, ..)| *at == room) {
            match places.get(key) {
                None => troubles.push(format!("{name}: {key:?} was acknowledged and is lost")),
                Some(at) if offset.is_some_and(|offset| offset != *at) => {
                    troubles.push(format!("{name}: {key:?} was said to be {offset:?} and is {at}"));
                }
                Some(_) => {}
            }
        }
        let refused =
            ledger.refused.iter().filter(|(at, key)| *at == room && places.contains_key(key));
        troubles
            .extend(refused.map(|(_, key)| format!("{name}: {key:?} was refused and is there")));
    }
    // Over one connection its author keeps its order, whatever becomes of the connection.
    let mut last: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for (author, connection, number) in model {
        let before = last.insert((*author, *connection), *number);
        if before.is_some_and(|before| before > *number) {
            troubles.push(format!("{name}: {author} sent {number} before {before:?}"));
        }
    }
    model.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut [Ledger; 2]);

    fn ledgers() -> [Ledger; 2] {
        let mut ledgers = [Ledger::default(), Ledger::default()];
        for ledger in &mut ledgers {
            (1..=3).for_each(|offset| ledger.saw(0, offset, (0, 1, offset)));
        }
        ledgers[0].taken = (1..=3).map(|number| (0, (0, 1, number), Some(number))).collect();
        ledgers
    }

    #[test]
    fn what_is_as_it_should_be_is_no_trouble() {
        let (sum, troubles) = judge(&ledgers());
        assert!(troubles.is_empty(), "{troubles:?}");
        assert_eq!((sum.published, sum.acknowledged, sum.delivered), (3, 3, 6));
    }

    #[test]
    fn every_kind_of_loss_and_repetition_is_found() {
        let spoilt: [(&str, Spoil); 7] = [
            ("a number that is missing", |all| all[1].saw(0, 5, (0, 1, 5))),
            ("a number that comes twice", |all| all[1].saw(0, 3, (0, 1, 3))),
            ("one publication under two numbers", |all| {
                all.iter_mut().for_each(|ledger| ledger.saw(0, 4, (0, 1, 2)));
            }),
            ("an order that is lost", |all| {
                all.iter_mut().for_each(|ledger| {
                    ledger.saw(0, 4, (0, 2, 7));
                    ledger.saw(0, 5, (0, 2, 6));
                });
            }),
            ("an acknowledged one that is lost", |all| all[0].taken.push((0, (0, 1, 9), Some(9)))),
            ("another number than was said", |all| all[0].taken[1].2 = Some(1)),
            ("one that was refused", |all| all[0].refused.push((0, (0, 1, 3)))),
        ];
        for (what, spoil) in spoilt {
            let mut ledgers = ledgers();
            spoil(&mut ledgers);
            assert!(!judge(&ledgers).1.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_hole_in_a_room_without_shared_history_must_be_told_before_or_after_it_is_seen() {
        for (script, is_told) in
            [("1 2 3", true), ("1 3", false), ("1 g 3", true), ("1 3 g", true), ("g 1 3", false)]
        {
            let mut ledger = Ledger::default();
            ledger.begin();
            for word in script.split(' ') {
                match word.parse() {
                    Ok(number) => ledger.heard((0, 7, 1, number)),
                    Err(_) => ledger.told_gap(0),
                }
            }
            ledger.end_for_good();
            assert_eq!(judge(&[ledger]).1.is_empty(), is_told, "{script}");
        }
    }
}
