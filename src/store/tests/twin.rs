//! All stores against a naive twin, under any sequence of requests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::rows;

/// An inbox as one would write it down on paper.
#[derive(Default)]
struct Paper {
    /// By id: when, payload, name.
    unread: BTreeMap<u64, (u64, String, String)>,
    stubs: BTreeMap<u64, (u64, String)>,
}

impl Paper {
    fn retire(&mut self, id: u64) {
        let Some((at, _, name)) = self.unread.remove(&id) else { return };
        if !name.is_empty() {
            self.stubs.insert(id, (at, name));
            if self.stubs.len() as u64 > limits().count {
                self.stubs.pop_first();
            }
        }
    }

    fn expire(&mut self, now: u64) {
        let horizon = now - limits().age_ms;
        self.unread.retain(|_, (at, ..)| *at >= horizon);
        self.stubs.retain(|_, (at, _)| *at >= horizon);
    }

    fn knows(&self, name: &str) -> Option<u64> {
        let unread = self.unread.iter().find(|(_, (_, _, own))| own == name).map(|(id, _)| *id);
        unread.or_else(|| self.stubs.iter().find(|(_, (_, own))| own == name).map(|(id, _)| *id))
    }

    fn append(&mut self, id: u64, now: u64, payload: String, name: String) {
        self.unread.insert(id, (now, payload, name));
        let size = |(_, payload, name): &(u64, String, String)| 6 + payload.len() + name.len();
        while self.unread.len() as u64 > limits().count
            || self.unread.values().map(size).sum::<usize>() as u64 > limits().bytes
        {
            let oldest = *self.unread.keys().next().expect("one");
            self.retire(oldest);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { owner: usize, size: usize, name: u8 },
    Read { owner: usize, which: Vec<usize> },
    ReadAll { owner: usize },
    Later(u64),
    Prune,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 0..400_usize, 0..8_u8)
            .prop_map(|(owner, size, name)| Step::Append { owner, size, name }),
        3 => (0..3_usize, proptest::collection::vec(0..8_usize, 0..4))
            .prop_map(|(owner, which)| Step::Read { owner, which }),
        1 => (0..3_usize).prop_map(|owner| Step::ReadAll { owner }),
        2 => (0..20 * DAY).prop_map(Step::Later),
        1 => Just(Step::Prune),
        1 => Just(Step::Reopen),
    ]
}

const OWNERS: [&str; 3] = ["a", "ab", "a\u{1f}\u{1e}b"];

fn agree(world: &mut World, papers: &[Paper; 3]) {
    let horizon = world.now - limits().age_ms;
    for (owner, paper) in OWNERS.iter().zip(papers) {
        let page = world.list(owner, 0, 100);
        let found: Vec<(u64, String)> =
            page.notes.iter().map(|note| (note.id, note.payload.to_string())).collect();
        let fresh = paper.unread.iter().filter(|(_, (at, ..))| *at >= horizon);
        let expected: Vec<(u64, String)> =
            fresh.map(|(id, (_, payload, _))| (*id, payload.clone())).collect();
        assert_eq!(found, expected);
        assert_eq!(page.unread, expected.len() as u64);
    }
}

fn play(mut world: World, steps: &[Step], mut reopen: impl FnMut(&mut World)) {
    let mut papers: [Paper; 3] = Default::default();
    for step in steps {
        match step {
            Step::Append { owner, size, name } => {
                let (name, paper) = (format!("n{name}"), &mut papers[*owner]);
                let name = if name == "n0" { String::new() } else { name };
                let payload = "p".repeat(*size);
                let known = Some(&name).filter(|name| !name.is_empty());
                let known = known.and_then(|name| paper.knows(name));
                let appended = world.append_as(OWNERS[*owner], &payload, &name);
                assert_eq!(known.is_some(), appended.repeated, "{step:?}");
                match known {
                    Some(id) => assert_eq!(appended.id, id),
                    None => {
                        paper.expire(world.now);
                        paper.append(appended.id, world.now, payload, name);
                    }
                }
            }
            Step::Read { owner, which } => {
                let paper = &mut papers[*owner];
                paper.expire(world.now);
                let ids: Vec<u64> = paper.unread.keys().copied().collect();
                let ids: Vec<u64> = which.iter().filter_map(|at| ids.get(*at).copied()).collect();
                let (unread, _) = world.read(OWNERS[*owner], Marked::Ids(ids.clone()));
                let mut ids = ids;
                ids.sort_unstable();
                ids.into_iter().for_each(|id| paper.retire(id));
                assert_eq!(unread, paper.unread.len() as u64);
            }
            Step::ReadAll { owner } => {
                let paper = &mut papers[*owner];
                paper.expire(world.now);
                let ids: Vec<u64> = paper.unread.keys().copied().collect();
                ids.into_iter().for_each(|id| paper.retire(id));
                assert_eq!(world.read(OWNERS[*owner], Marked::All).0, 0);
            }
            Step::Later(wait) => world.now += wait,
            Step::Prune => {
                world.prune();
                papers.iter_mut().for_each(|paper| paper.expire(world.now));
            }
            Step::Reopen => reopen(&mut world),
        }
        agree(&mut world, &papers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_in_memory_equals_an_inbox_on_paper(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        play(memory(), &steps, |_| {});
    }
}

proptest! {
    #[test]
    fn rows_of_any_bytes_are_read_or_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        if let Ok(row) = rows::NoteRow::read(&bytes) {
            assert_eq!(row.write(), bytes);
        }
        if let Ok(head) = rows::Head::read(&bytes) {
            assert_eq!(head.write(), bytes);
        }
        let _ = (rows::id_of(&bytes), rows::owner_of(&bytes), rows::name_of_stub(&bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_store_on_disk_equals_an_inbox_on_paper_also_when_it_is_opened_again(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World { store: Box::new(open(folder.path())), now: NOW };
        play(world, &steps, |world| {
            world.store = Box::new(Memory::new(limits(), 0));
            world.store = Box::new(open(folder.path()));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_store_in_redis_equals_an_inbox_on_paper_also_through_another_node(
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let server = super::shared::Server::start();
        let mut nodes = 1;
        play(server.world("0"), &steps, |world| {
            world.store = Box::new(server.store(&nodes.to_string()));
            nodes += 1;
        });
    }
}
