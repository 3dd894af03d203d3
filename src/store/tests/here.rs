//! Users who were here when a process was killed: what the next one says of them, against a naive twin.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const OWNERS: [&str; 3] = ["a", "ab", "a\u{1f}\u{1e}b"];

fn come(owner: &str, at: u64) -> Ask {
    Ask::Seen(vec![Seen { owner: owner.into(), at, here: true }])
}

impl World {
    fn done(&mut self, ask: Ask) {
        assert_eq!(self.ask(ask), Ok(Answer::Done));
    }

    /// What a process does first; in how many slices.
    fn settle(&mut self) -> usize {
        for slices in 1.. {
            match self.ask(Ask::Settle) {
                Ok(Answer::Settled { more: true }) => {}
                Ok(Answer::Settled { more: false }) => return slices,
                other => panic!("{other:?}"),
            }
        }
        unreachable!("it ends");
    }
}

#[test]
fn who_was_here_in_a_crash_was_last_seen_when_the_process_last_lived_or_when_they_came() {
    on_all(|mut world| {
        world.done(come("early", NOW));
        world.now += 5000;
        world.done(Ask::Alive);
        world.done(come("late", NOW + 7000));
        world.done(Ask::Seen(vec![
            Seen { owner: "gone".into(), at: NOW, here: true },
            Seen { owner: "gone".into(), at: NOW + 10, here: false },
            Seen { owner: "back".into(), at: NOW + 20, here: false },
            Seen { owner: "back".into(), at: NOW + 30, here: true },
        ]));
        assert_eq!(world.last_seen("early"), None, "still here");
        world.now += 60_000;
        world.settle();
        let last = ["early", "late", "gone", "back"].map(|user| world.last_seen(user));
        assert_eq!(last, [NOW + 5000, NOW + 7000, NOW + 10, NOW + 5000].map(Some));
        world.done(Ask::Alive);
        world.settle();
        assert_eq!(world.last_seen("early"), Some(NOW + 5000), "nobody is settled twice");
    });
}

#[test]
fn any_number_of_users_is_settled_in_slices() {
    let mut world = World { store: Box::new(Memory::new(limits(), 1 << 24)), now: NOW };
    let users = 10_000;
    for user in 0..users {
        world.done(come(&format!("user-{user}"), NOW));
    }
    world.done(Ask::Alive);
    assert_eq!(world.settle(), 3);
    assert!((0..users).all(|user| world.last_seen(&format!("user-{user}")) == Some(NOW)));
}

#[test]
fn the_row_of_who_is_here_leaves_with_the_proper_time_and_with_age() {
    let mut store = Memory::new(limits(), 1 << 20);
    let mut run = |ask, now| {
        store.commit(&[ask], now).expect("memory");
        store.bytes()
    };
    let went = run(gone([("u", NOW)]), NOW);
    let came = run(come("u", NOW + 1), NOW);
    assert!(came > went, "it costs a row");
    assert_eq!(run(gone([("u", NOW + 2)]), NOW), went, "the proper time is instead of it");
    assert_eq!(run(come("u", NOW + 1), NOW), came);
    let prune = Ask::Prune { from: Vec::new() };
    assert_eq!(run(prune.clone(), NOW + 90 * DAY), came);
    assert_eq!(run(prune, NOW + 91 * DAY), 0, "no row grows older than the others");
}

#[derive(Clone, Debug)]
enum Step {
    Come(usize),
    Go(usize),
    Later(u64),
    Alive,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize).prop_map(Step::Come),
        3 => (0..3_usize).prop_map(Step::Go),
        4 => (0..10_000_u64).prop_map(Step::Later),
        3 => Just(Step::Alive),
        2 => Just(Step::Crash),
    ]
}

/// Who is here and who was, on paper.
#[derive(Default)]
struct Paper {
    here: BTreeMap<usize, u64>,
    seen: BTreeMap<usize, u64>,
    alive: u64,
}

fn play(mut world: World, steps: &[Step], mut reopen: impl FnMut(&mut World)) {
    let mut paper = Paper::default();
    for step in steps {
        match step {
            Step::Come(user) => {
                paper.here.insert(*user, world.now);
                world.done(come(OWNERS[*user], world.now));
            }
            Step::Go(user) => {
                paper.here.remove(user);
                paper.seen.insert(*user, world.now);
                world.done(gone([(OWNERS[*user], world.now)]));
            }
            Step::Later(wait) => world.now += wait,
            Step::Alive => {
                paper.alive = world.now;
                world.done(Ask::Alive);
            }
            Step::Crash => {
                reopen(&mut world);
                world.settle();
                for (user, since) in std::mem::take(&mut paper.here) {
                    // Whichever is latest of what was written down.
                    let seen = paper.seen.entry(user).or_default();
                    *seen = [*seen, since, paper.alive].into_iter().max().expect("three");
                }
            }
        }
        for (user, owner) in OWNERS.iter().enumerate() {
            assert_eq!(world.last_seen(owner), paper.seen.get(&user).copied(), "{owner}");
        }
    }
}

proptest! {
    #[test]
    fn when_users_were_last_here_equals_what_is_on_paper_whenever_a_process_is_killed(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        play(memory(), &steps, |_| {});
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn on_disk_it_equals_that_too(steps in proptest::collection::vec(step(), 1..30)) {
        let folder = tempfile::tempdir().expect("a folder");
        let world = World { store: Box::new(open(folder.path())), now: NOW };
        play(world, &steps, |world| {
            world.store = Box::new(Memory::new(limits(), 0));
            world.store = Box::new(open(folder.path()));
        });
    }
}
