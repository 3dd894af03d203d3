//! Lines in front of rooms whose next publication waits for the store.
//!
//! A publication that is to be stored is numbered when the store has it, and what is published in the room
//! meanwhile stands in line behind it: so every author's publications come in the order in which they were made,
//! stored or not. Numbers are promised to the store with the request, which is safe exactly because nobody else
//! numbers in that room until the answer. What waits at the front of a line to be stored goes to the store in
//! one request, so the slower the disk, the more share a write.
//!
//! What has to be taken once over all nodes waits in the same way, for these to be asked. Work may be for several rooms. It stands in the line of each and is done when it is at the front of all;
//! as it enters all of them at once, no two can wait for each other. A room without a line costs nothing, and
//! while there is no line at all that is found by one comparison.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::map::{Map, Seed};

/// The rooms that work is for; each once.
pub type Names = SmallVec<[Arc<str>; 1]>;

/// Who has to be asked before work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nobody.
    Nobody,
    /// The store, which is to keep it.
    Store,
    /// All nodes, one of which may have taken it before.
    Nodes,
}

/// Work that stands in line.
#[derive(Debug)]
struct Waiting<W> {
    names: Names,
    /// Who is asked first; then it is for one room.
    asks: Asks,
    cost: u64,
    work: W,
}

#[derive(Debug, Default)]
struct Line {
    /// Never empty while the line is not busy.
    waiting: VecDeque<u64>,
    /// True while somebody is asked about the room.
    busy: bool,
    /// Of what is asked about.
    cost: u64,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Turn<W> {
    /// This.
    Run(W),
    /// Ask the store to keep these, all of one room, with the numbers under which they stood in line. The line
    /// stands still until [`Lines::done`].
    Store(Arc<str>, Vec<(u64, W)>),
    /// Ask all nodes whether one has taken these, all of one room. The line stands still until [`Lines::done`].
    Claim(Arc<str>, Vec<(u64, W)>),
    /// Ask the store to reserve numbers for the room. The line stands still until [`Lines::done`].
    Reserve(Arc<str>),
}

/// The lines of a shard.
#[derive(Debug)]
pub struct Lines<W> {
    lines: Map<Arc<str>, Line>,
    waiting: Map<u64, Waiting<W>>,
    next: u64,
    /// Rooms whose line may have something to do.
    stirred: VecDeque<Arc<str>>,
    cost: u64,
}

/// Publications in one request to the store.
const AT_ONCE: usize = 256;

impl<W> Lines<W> {
    /// No line.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        let (lines, waiting) = (seed.map(), seed.map());
        Self { lines, waiting, next: 0, stirred: VecDeque::new(), cost: 0 }
    }

    /// True when nothing waits for the store, anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// True when the room has a line.
    #[must_use]
    pub fn has(&self, room: &str) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(room)
    }

    /// Work in the room's line.
    #[must_use]
    pub fn waiting_in(&self, room: &str) -> usize {
        self.lines.get(room).map_or(0, |line| line.waiting.len())
    }

    /// True while the work of that number stands in line.
    #[must_use]
    pub fn waits(&self, id: u64) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Work in all lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What all of it costs, in bytes, that which is with the store included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cost
    }

    /// Puts work in the lines of these rooms; under which number.
    ///
    /// # Panics
    /// When it is for no room, or somebody is to be asked and it is for several.
    pub fn push(&mut self, names: Names, asks: Asks, cost: u64, work: W) -> u64 {
        let is_of_several = asks == Asks::Nobody && names.len() > 1;
        assert!(names.len() == 1 || is_of_several, "work is for a room");
        let id = self.next;
        self.next += 1;
        self.cost += cost;
        for name in &names {
            let line = self.lines.entry(Arc::clone(name)).or_default();
            line.waiting.push_back(id);
            self.stirred.push_back(Arc::clone(name));
        }
        self.waiting.insert(id, Waiting { names, asks, cost, work });
        id
    }

    /// What is to be done next; `reserves` is asked whether numbers have to be reserved before there can be
    /// another in a room. `None` until something happens.
    pub fn poll(&mut self, reserves: &dyn Fn(&str) -> bool) -> Option<Turn<W>> {
        while let Some(room) = self.stirred.pop_front() {
            let Some(line) = self.lines.get_mut(&room).filter(|line| !line.busy) else { continue };
            let Some(front) = line.waiting.front().copied() else {
                self.lines.remove(&room);
                continue;
            };
            let first = &self.waiting[&front];
            match first.asks {
                Asks::Nobody => {}
                Asks::Store => {
                    let works = self.take_run(&room, Asks::Store);
                    return Some(Turn::Store(room, works));
                }
                Asks::Nodes => {
                    let works = self.take_run(&room, Asks::Nodes);
                    return Some(Turn::Claim(room, works));
                }
            }
            let is_front = |name: &Arc<str>| {
                self.lines[name].waiting.front() == Some(&front) && !self.lines[name].busy
            };
            if !first.names.iter().all(is_front) {
                // The line of the room in which something stands before it stirs when that is done.
                continue;
            }
            if let Some(name) = first.names.iter().find(|name| reserves(name)) {
                let name = Arc::clone(name);
                self.set_busy(&name, 0);
                return Some(Turn::Reserve(name));
            }
            if let Some(work) = self.take(front) {
                return Some(Turn::Run(work));
            }
        }
        None
    }

    /// Whoever was asked has answered about the room.
    pub fn done(&mut self, room: &Arc<str>) {
        if let Some(line) = self.lines.get_mut(room) {
            line.busy = false;
            self.cost -= std::mem::take(&mut line.cost);
            self.stirred.push_back(Arc::clone(room));
        }
    }

    /// Whoever was asked has answered about the room, and these of what they were asked about, each with its cost, are
    /// to be done now, in their places.
    pub fn go_on(&mut self, room: &Arc<str>, works: Vec<(u64, u64, W)>) {
        let Some(line) = self.lines.get_mut(room) else { return };
        for (id, cost, work) in works.into_iter().rev() {
            line.waiting.push_front(id);
            let names = Names::from_iter([Arc::clone(room)]);
            self.waiting.insert(id, Waiting { names, asks: Asks::Nobody, cost, work });
            self.cost += cost;
        }
        self.done(room);
    }

    /// Takes what stands at the front of the room's line.
    pub fn take_front(&mut self, room: &str) -> Option<W> {
        let front = self.lines.get(room)?.waiting.front().copied()?;
        self.take(front)
    }

    /// Takes work that waits no longer, wherever it stands; `None` when it is not in line any more.
    pub fn take(&mut self, id: u64) -> Option<W> {
        let Waiting { names, cost, work, .. } = self.waiting.remove(&id)?;
        self.cost -= cost;
        for name in &names {
            if let Some(line) = self.lines.get_mut(name) {
                if line.waiting.front() == Some(&id) {
                    line.waiting.pop_front();
                } else {
                    line.waiting.retain(|other| *other != id);
                }
                self.stirred.push_back(Arc::clone(name));
            }
        }
        Some(work)
    }

    fn set_busy(&mut self, room: &str, cost: u64) {
        if let Some(line) = self.lines.get_mut(room) {
            line.busy = true;
            line.cost = cost;
        }
    }

    /// The work about which these are to be asked, that stands at the front of a line.
    fn take_run(&mut self, room: &str, asks: Asks) -> Vec<(u64, W)> {
        let (mut works, mut cost) = (Vec::new(), 0);
        let Some(line) = self.lines.get_mut(room) else { return works };
        while works.len() < AT_ONCE
            && let Some(id) = line.waiting.front().copied()
            && self.waiting.get(&id).is_some_and(|waiting| waiting.asks == asks)
            && let Some(waiting) = self.waiting.remove(&id)
        {
            line.waiting.pop_front();
            cost += waiting.cost;
            works.push((id, waiting.work));
        }
        self.set_busy(room, cost);
        works
    }

    /// Verifies lines and work against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        let mut cost: u64 = self.lines.values().map(|line| line.cost).sum();
        for (id, waiting) in &self.waiting {
            cost += waiting.cost;
            for name in &waiting.names {
                assert!(self.lines[name].waiting.contains(id), "{id} stands in line for {name}");
            }
        }
        assert_eq!(cost, self.cost, "what waits costs");
        for (name, line) in &self.lines {
            let known = |id: &u64| self.waiting.get(id).is_some_and(|w| w.names.contains(name));
            assert!(line.waiting.iter().all(known), "{name} has work of its own in line");
            assert!(line.waiting.iter().is_sorted(), "{name} keeps the order of arrival");
            assert!(line.busy || line.cost == 0, "{name} is idle");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// For these rooms.
        Plain(BTreeSet<usize>),
        /// True where the store is asked, false where the nodes are.
        Asked(usize, bool),
        /// The store answers the question that stands at this place.
        Answer(usize),
        /// Work of that number waits no longer.
        GiveUp(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => prop::collection::btree_set(0..4usize, 1..4).prop_map(Step::Plain),
            3 => (0..4usize, any::<bool>()).prop_map(|(at, stores)| Step::Asked(at, stores)),
            4 => (0..4usize).prop_map(Step::Answer),
            1 => (0..60u64).prop_map(Step::GiveUp),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        #[test]
        fn everything_is_done_once_and_in_each_room_in_the_order_in_which_it_came(steps in steps()) {
            let rooms: Vec<Arc<str>> = ["a", "b", "c", "d"].map(Arc::from).to_vec();
            let mut lines: Lines<u64> = Lines::new(&Seed::new(5));
            let mut came: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            let mut went: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
            let mut of: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            let mut asked: Vec<(usize, Vec<u64>)> = Vec::new();
            let mut gone = BTreeSet::new();
            let place = |name: &str| rooms.iter().position(|room| **room == *name).unwrap();
            let drain = 100;
            let answers = (0..drain).map(|_| Step::Answer(0));
            for step in steps.into_iter().chain(answers) {
                match step {
                    Step::Plain(all) => {
                        let names = all.iter().map(|at| Arc::clone(&rooms[*at])).collect();
                        let id = lines.push(names, Asks::Nobody, 3, lines.next);
                        all.iter().for_each(|at| came.entry(*at).or_default().push(id));
                        of.insert(id, all.into_iter().collect());
                    }
                    Step::Asked(at, stores) => {
                        let names = Names::from_iter([Arc::clone(&rooms[at])]);
                        let asks = if stores { Asks::Store } else { Asks::Nodes };
                        let id = lines.push(names, asks, 5, lines.next);
                        came.entry(at).or_default().push(id);
                        of.insert(id, vec![at]);
                    }
                    Step::Answer(at) if at < asked.len() => {
                        let (room, works) = asked.remove(at);
                        went.entry(room).or_default().extend(works);
                        lines.done(&rooms[room]);
                    }
                    Step::Answer(_) => {}
                    Step::GiveUp(id) => {
                        gone.extend(lines.take(id));
                    }
                }
                while let Some(next) = lines.poll(&|_| false) {
                    match next {
                        Turn::Run(id) => {
                            for at in &of[&id] {
                                prop_assert!(asked.iter().all(|(room, _)| room != at), "{at} is busy");
                                went.entry(*at).or_default().push(id);
                            }
                        }
                        Turn::Store(room, works) | Turn::Claim(room, works) => {
                            let works = works.into_iter().map(|(id, work)| {
                                assert_eq!(id, work);
                                id
                            });
                            asked.push((place(&room), works.collect()));
                        }
                        Turn::Reserve(_) => unreachable!("nobody wants it"),
                    }
                }
                lines.check();
            }
            for ids in came.values_mut() {
                ids.retain(|id| !gone.contains(id));
            }
            came.retain(|_, ids| !ids.is_empty());
            prop_assert_eq!(came, went);
            prop_assert!(lines.is_empty() && lines.waiting.is_empty() && lines.bytes() == 0);
        }
    }

    #[test]
    fn what_is_to_be_stored_goes_together_and_what_is_not_stands_behind_it() {
        let room: Arc<str> = Arc::from("room");
        let mut lines: Lines<&str> = Lines::new(&Seed::new(5));
        let mut push =
            |asks, work| lines.push(Names::from_iter([Arc::clone(&room)]), asks, 1, work);
        push(Asks::Store, "one");
        push(Asks::Store, "two");
        push(Asks::Nobody, "three");
        push(Asks::Store, "four");
        let works = |next| match next {
            Some(Turn::Store(_, works)) => works.into_iter().map(|(_, work)| work).collect(),
            other => panic!("{other:?}"),
        };
        let first: Vec<&str> = works(lines.poll(&|_| false));
        assert_eq!(first, ["one", "two"]);
        assert!(lines.poll(&|_| false).is_none(), "the line stands still");
        lines.done(&room);
        assert!(matches!(lines.poll(&|_| true), Some(Turn::Reserve(_))), "a number is needed");
        assert!(lines.poll(&|_| false).is_none(), "the line stands still");
        lines.done(&room);
        assert!(matches!(lines.poll(&|_| false), Some(Turn::Run("three"))));
        assert_eq!(works(lines.poll(&|_| false)), ["four"]);
        lines.done(&room);
        assert!(lines.poll(&|_| false).is_none() && lines.is_empty());
    }

    #[test]
    fn what_nodes_were_asked_about_is_done_in_its_place_and_what_was_taken_before_is_not() {
        let room: Arc<str> = Arc::from("room");
        let mut lines: Lines<&str> = Lines::new(&Seed::new(5));
        for work in ["one", "two", "three"] {
            lines.push(Names::from_iter([Arc::clone(&room)]), Asks::Nodes, 2, work);
        }
        let Some(Turn::Claim(_, works)) = lines.poll(&|_| false) else { panic!("they are asked") };
        lines.push(Names::from_iter([Arc::clone(&room)]), Asks::Nobody, 1, "four");
        assert!(lines.poll(&|_| false).is_none() && lines.bytes() == 7);
        let first = works.into_iter().filter(|(_, work)| *work != "two");
        lines.go_on(&room, first.map(|(id, work)| (id, 2, work)).collect());
        lines.check();
        assert!(matches!(lines.poll(&|_| true), Some(Turn::Reserve(_))), "a number is needed");
        lines.done(&room);
        for expected in ["one", "three", "four"] {
            assert!(matches!(lines.poll(&|_| false), Some(Turn::Run(work)) if work == expected));
        }
        assert!(lines.poll(&|_| false).is_none() && lines.is_empty() && lines.bytes() == 0);
    }
}
