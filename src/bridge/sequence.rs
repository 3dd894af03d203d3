//! In which order that which several shards have numbered is published.
//!
//! A publication to one target comes from the target's home, behind what the home numbered before it. A
//! command with several targets is one envelope, so that whoever is meant twice is found, but its targets may
//! have several homes, and each has a place for it in its own order. So each home says when it has numbered
//! its part, and the command goes when all have said so and nothing is before it in any of their lines.
//!
//! Two commands that two homes have numbered in different orders would wait for each other for ever. Then one
//! goes first, and of those it overtakes none is by the same author: the commands of one shard's clients, and
//! those of back ends, come to all homes in one order, so the earliest of an author is behind none of its own.
//! What is held is bounded: beyond [`MOST`] the oldest goes whatever it waits for, and is remembered until its
//! last part has come, as it must not go twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;

/// Items held until their turn comes. Parts are on their way for as long as a shard's turn takes, so it is
/// reached when a shard hangs.
const MOST: usize = 1024;

/// Lines of homes, with what waits in them.
#[derive(Debug)]
pub struct Sequence<T> {
    /// Waits for nothing.
    ready: VecDeque<T>,
    /// By their numbers, which follow their arrival.
    held: BTreeMap<u64, Held<T>>,
    /// Per home, none of them empty: numbers of what is held.
    lines: BTreeMap<u16, VecDeque<u64>>,
    /// Commands of which parts have come, by their ids: their numbers.
    commands: BTreeMap<u64, u64>,
    /// Commands that went before all their parts had come, by their ids: how many are yet to come.
    gone: BTreeMap<u64, u16>,
    arrivals: u64,
}

#[derive(Debug)]
struct Held<T> {
    item: T,
    author: u16,
    /// The command, if it has several parts.
    id: Option<u64>,
    /// Homes whose part has come.
    homes: SmallVec<[u16; 2]>,
    /// Parts that have not come.
    missing: u16,
}

/// A command with parts at several homes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The command; not given to another while parts of it are on their way.
    pub id: u64,
    /// Homes that have a part, at least two, and send it once each.
    pub homes: u16,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            lines: BTreeMap::new(),
            commands: BTreeMap::new(),
            gone: BTreeMap::new(),
            arrivals: 0,
        }
    }
}

impl<T> Sequence<T> {
    /// Takes what a home sends. `author`: whose commands keep their order; `part`: set when other homes send the
    /// same item too, of which one is kept.
    pub fn take(&mut self, home: u16, author: u16, part: Option<Part>, item: T) {
        if let Some(Part { id, .. }) = part {
            if let Some(missing) = self.gone.get_mut(&id) {
                *missing -= 1;
                if *missing == 0 {
                    self.gone.remove(&id);
                }
                return;
            }
            if let Some((number, held)) = self.command(id) {
                held.missing = held.missing.saturating_sub(1);
                held.homes.push(home);
                self.lines.entry(home).or_default().push_back(number);
                return;
            }
        } else if !self.lines.contains_key(&home) {
            return self.ready.push_back(item);
        }
        self.arrivals += 1;
        let number = self.arrivals;
        let (id, missing) = (part.map(|part| part.id), part.map_or(0, |part| part.homes - 1));
        self.commands.extend(id.map(|id| (id, number)));
        let homes = SmallVec::from_iter([home]);
        self.held.insert(number, Held { item, author, id, homes, missing });
        self.lines.entry(home).or_default().push_back(number);
    }

    /// The next to be published, and whether it goes in its turn.
    pub fn pop(&mut self) -> Option<(T, bool)> {
        if let Some(item) = self.ready.pop_front() {
            return Some((item, true));
        }
        if self.held.is_empty() {
            return None;
        }
        if let Some(number) = self.in_turn() {
            return self.release(number).map(|item| (item, true));
        }
        let early = self.knotted().or_else(|| self.too_much())?;
        self.release(early).map(|item| (item, false))
    }

    /// True when nothing is held or awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.held.is_empty() && self.gone.is_empty()
    }

    fn command(&mut self, id: u64) -> Option<(u64, &mut Held<T>)> {
        let number = *self.commands.get(&id)?;
        Some((number, self.held.get_mut(&number)?))
    }

    fn heads(&self) -> impl Iterator<Item = u64> {
        self.lines.values().filter_map(|line| line.front().copied())
    }

    /// The heads of the lines in which it stands.
    fn before(&self, held: &Held<T>) -> impl Iterator<Item = u64> {
        let lines = held.homes.iter().filter_map(|home| self.lines.get(home));
        lines.filter_map(|line| line.front().copied())
    }

    fn in_turn(&self) -> Option<u64> {
        let is_due = |number: &u64| {
            let held = &self.held[number];
            held.missing == 0 && self.before(held).all(|head| head == *number)
        };
        self.heads().filter(is_due).min()
    }

    /// One of those that wait for each other and for nothing else, or of what its author sent before it.
    fn knotted(&self) -> Option<u64> {
        let heads: BTreeSet<u64> = self.heads().collect();
        let known = heads.into_iter().filter(|head| self.is_knotted(*head));
        known.map(|head| self.earliest(head)).find(|number| self.held[number].missing == 0)
    }

    /// Whether no part is awaited of all that it waits for.
    fn is_knotted(&self, head: u64) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([head]), vec![head]);
        while let Some(number) = open.pop() {
            let held = &self.held[&number];
            if held.missing > 0 {
                return false;
            }
            open.extend(self.before(held).filter(|head| seen.insert(*head)));
        }
        true
    }

    /// What its author sent first of all that is held, as far as its lines lead.
    fn earliest(&self, mut number: u64) -> u64 {
        loop {
            let Held { author, homes, .. } = &self.held[&number];
            let by_author = |line: &VecDeque<u64>| {
                line.iter().copied().find(|other| self.held[other].author == *author)
            };
            let mut firsts = homes.iter().filter_map(|home| by_author(&self.lines[home]));
            match firsts.find(|first| *first != number) {
                Some(first) => number = first,
                None => return number,
            }
        }
    }

    fn too_much(&self) -> Option<u64> {
        if self.held.len() > MOST { self.heads().min() } else { None }
    }

    fn release(&mut self, number: u64) -> Option<T> {
        let held = self.held.remove(&number)?;
        for home in held.homes {
            let Some(line) = self.lines.get_mut(&home) else { continue };
            if let Some(at) = line.iter().position(|other| *other == number) {
                line.remove(at);
            }
            if line.is_empty() {
                self.lines.remove(&home);
            }
        }
        if let Some(id) = held.id {
            self.commands.remove(&id);
            if held.missing > 0 {
                self.gone.insert(id, held.missing);
            }
        }
        Some(held.item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain<T>(sequence: &mut Sequence<T>) -> Vec<(T, bool)> {
        std::iter::from_fn(|| sequence.pop()).collect()
    }

    fn part(id: u64, homes: u16) -> Option<Part> {
        Some(Part { id, homes })
    }

    #[test]
    fn a_command_goes_when_all_its_homes_have_numbered_it_and_holds_up_their_lines_alone() {
        let mut sequence = Sequence::default();
        sequence.take(0, 0, part(7, 2), "both");
        sequence.take(0, 0, None, "after");
        sequence.take(1, 0, None, "before");
        sequence.take(2, 0, None, "elsewhere");
        assert_eq!(drain(&mut sequence), [("before", true), ("elsewhere", true)]);
        sequence.take(1, 0, part(7, 2), "both");
        sequence.take(1, 0, None, "last");
        assert_eq!(drain(&mut sequence), [("both", true), ("after", true), ("last", true)]);
        assert!(sequence.is_empty());
    }

    #[test]
    fn of_two_that_are_in_crossed_order_one_goes_first_and_overtakes_none_of_its_author() {
        let mut sequence = Sequence::default();
        sequence.take(0, 0, part(1, 2), "one");
        sequence.take(0, 1, None, "before the other");
        sequence.take(0, 1, part(2, 2), "other");
        sequence.take(1, 1, part(2, 2), "other");
        sequence.take(1, 0, None, "before the one");
        assert!(drain(&mut sequence).is_empty(), "a part is awaited");
        sequence.take(1, 0, part(1, 2), "one");
        let gone = drain(&mut sequence);
        let at = |item| gone.iter().position(|(gone, _)| *gone == item).unwrap();
        assert!(
            at("before the one") < at("one") && at("before the other") < at("other"),
            "{gone:?}"
        );
        // Whichever of the two goes first, with what its author sent before it.
        assert_eq!(gone.iter().filter(|(_, in_turn)| !in_turn).count(), 2, "{gone:?}");
        assert!(gone.len() == 4 && sequence.is_empty());
    }

    #[test]
    fn what_is_held_is_bounded_and_what_went_early_does_not_go_again() {
        let mut sequence = Sequence::default();
        sequence.take(0, 0, part(1, 3), 0);
        (1..=MOST).for_each(|number| sequence.take(0, 0, None, number));
        let gone: Vec<(usize, bool)> = drain(&mut sequence);
        let expected = (0..=MOST).map(|number| (number, number > 0));
        assert!(
            gone.iter().copied().eq(expected),
            "the oldest before its turn, the others behind it"
        );
        sequence.take(1, 0, part(1, 3), 0);
        assert!(!sequence.is_empty());
        sequence.take(2, 0, part(1, 3), 0);
        assert!(drain(&mut sequence).is_empty() && sequence.is_empty());
    }

    /// Shards that publish, homes that number, and what is on its way between them.
    struct World {
        /// From each author to each home.
        posted: Vec<Vec<VecDeque<usize>>>,
        /// From each home to the bridge.
        numbered: Vec<VecDeque<usize>>,
        /// The order in each home.
        orders: Vec<Vec<usize>>,
        commands: Vec<(u16, Vec<u16>)>,
        sequence: Sequence<usize>,
        gone: Vec<(usize, bool)>,
    }

    const SHARDS: u16 = 4;

    impl World {
        fn new() -> Self {
            let shards = usize::from(SHARDS);
            Self {
                posted: vec![vec![VecDeque::new(); shards]; shards],
                numbered: vec![VecDeque::new(); shards],
                orders: vec![Vec::new(); shards],
                commands: Vec::new(),
                sequence: Sequence::default(),
                gone: Vec::new(),
            }
        }

        fn publish(&mut self, author: u16, homes: u8) {
            let homes: Vec<u16> = (0..SHARDS).filter(|home| homes & (1 << home) != 0).collect();
            for home in &homes {
                self.posted[usize::from(author)][usize::from(*home)].push_back(self.commands.len());
            }
            self.commands.push((author, homes));
        }

        fn number(&mut self, author: u16, home: u16) -> bool {
            let home = usize::from(home);
            let Some(command) = self.posted[usize::from(author)][home].pop_front() else {
                return false;
            };
            self.numbered[home].push_back(command);
            self.orders[home].push(command);
            true
        }

        fn read(&mut self, home: u16) -> bool {
            let Some(command) = self.numbered[usize::from(home)].pop_front() else { return false };
            let (author, homes) = &self.commands[command];
            let homes = u16::try_from(homes.len()).unwrap();
            let several = (homes > 1).then_some(Part { id: command as u64, homes });
            self.sequence.take(home, *author, several, command);
            while let Some(gone) = self.sequence.pop() {
                self.gone.push(gone);
            }
            true
        }

        fn finish(&mut self) {
            let pairs = (0..SHARDS).flat_map(|author| (0..SHARDS).map(move |home| (author, home)));
            for (author, home) in pairs {
                while self.number(author, home) {}
            }
            for home in 0..SHARDS {
                while self.read(home) {}
            }
        }

        fn check(&self) {
            let mut all: Vec<usize> = self.gone.iter().map(|(command, _)| *command).collect();
            let place: BTreeMap<usize, usize> =
                all.iter().enumerate().map(|(place, command)| (*command, place)).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..self.commands.len()), "each once: {all:?}");
            assert!(self.sequence.is_empty() && self.sequence.lines.is_empty());
            let early: BTreeSet<usize> = self
                .gone
                .iter()
                .filter(|(_, in_turn)| !in_turn)
                .map(|(command, _)| *command)
                .collect();
            for order in &self.orders {
                for (at, one) in order.iter().enumerate() {
                    for later in &order[at + 1..] {
                        let same = self.commands[*one].0 == self.commands[*later].0;
                        let kept = place[one] < place[later];
                        assert!(kept || !same && early.contains(later), "{later} before {one}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_author_keeps_its_order_and_every_home_unless_orders_are_crossed(
            steps in prop::collection::vec((0..4_u8, 0..SHARDS, 0..SHARDS, 1..16_u8), 1..200)
        ) {
            let mut world = World::new();
            for (what, author, home, homes) in steps {
                match what {
                    0 => world.publish(author, homes),
                    1 => world.publish(author, 1 << home),
                    2 => _ = world.number(author, home),
                    _ => _ = world.read(home),
                }
            }
            world.finish();
            world.check();
        }
    }
}
