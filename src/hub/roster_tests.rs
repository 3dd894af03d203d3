//! What shards hear of a user against what the roster knows, whenever they begin to watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Afar, Passage, Roster, Sight, Stand};
use crate::base::id::ShardId;
use crate::base::map::Seed;
use crate::base::time::Time;

const GRACE: Duration = Duration::from_millis(50);
const SHARDS: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    Stand(u16, Stand),
    Watch(u16, bool),
    Pass(u64),
    News,
}

fn step() -> impl Strategy<Value = Step> {
    let stand = prop_oneof![Just(Stand::Gone), Just(Stand::Idle), Just(Stand::Active)];
    prop_oneof![
        4 => (0..SHARDS, stand).prop_map(|(shard, stand)| Step::Stand(shard, stand)),
        3 => (0..SHARDS, any::<bool>()).prop_map(|(shard, on)| Step::Watch(shard, on)),
        2 => (1..100_u64).prop_map(Step::Pass),
        2 => Just(Step::News),
    ]
}

struct World {
    roster: Roster,
    user: Arc<str>,
    millis: u64,
    /// What each shard that watches has heard last.
    heard: BTreeMap<ShardId, Sight>,
}

impl World {
    fn new() -> Self {
        let roster = Roster::new(&Seed::new(7));
        Self { roster, user: "ada".into(), millis: 1, heard: BTreeMap::new() }
    }

    fn now(&self) -> Time {
        Time::ZERO.plus(Duration::from_millis(self.millis))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Stand(shard, stand) => {
                let times = (self.now(), self.millis);
                self.roster.set(&self.user, ShardId(*shard), *stand, times);
            }
            Step::Watch(shard, on) => {
                let shard = ShardId(*shard);
                self.roster.watch(&self.user, shard, *on);
                if *on {
                    // Whoever begins is answered at once.
                    self.heard.insert(shard, self.roster.sight(&self.user));
                } else {
                    self.heard.remove(&shard);
                }
            }
            Step::Pass(millis) => {
                self.millis += millis;
                self.roster.expire(self.now(), GRACE, 10, &mut |_, _| {});
            }
            Step::News => self.news(),
        }
        self.roster.check();
    }

    fn news(&mut self) {
        self.roster.poll_news(&mut |shard, _, sight| {
            let heard = self.heard.insert(shard, sight);
            assert!(heard.is_some(), "{shard:?} does not watch");
        });
        let sight = self.roster.sight(&self.user);
        assert!(self.heard.values().all(|heard| *heard == sight), "{:?}: {sight:?}", self.heard);
    }
}

proptest! {
    #[test]
    fn whoever_watches_knows_what_the_roster_knows_once_the_news_are_out(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.news();
    }
}

#[test]
fn a_change_that_is_undone_after_a_shard_began_to_watch_is_told_to_it() {
    let mut world = World::new();
    for step in [
        Step::Stand(0, Stand::Idle),
        Step::Watch(0, true),
        Step::Stand(2, Stand::Active),
        Step::Watch(2, true),
        Step::Stand(2, Stand::Gone),
        Step::News,
    ] {
        world.step(&step);
    }
    assert_eq!(world.heard[&ShardId(2)].stand, Stand::Idle);
}

#[test]
fn who_comes_back_soon_is_counted_and_who_comes_late_or_moves_is_not() {
    let mut roster = Roster::new(&Seed::new(7));
    let ada: Arc<str> = "ada".into();
    let mut stand = |shard, stand, millis| {
        let now = Time::ZERO.plus(Duration::from_millis(millis));
        roster.expire(now, GRACE, 10, &mut |_, _| {});
        roster.set(&ada, ShardId(shard), stand, (now, millis));
        roster.counts().returned
    };
    assert_eq!(stand(0, Stand::Active, 100), 0, "the first time");
    assert_eq!(stand(1, Stand::Active, 110), 0, "one connection more");
    assert_eq!(stand(0, Stand::Gone, 120), 0);
    assert_eq!(stand(1, Stand::Gone, 130), 0);
    assert_eq!(stand(0, Stand::Active, 140), 1, "within the grace");
    assert_eq!(stand(0, Stand::Gone, 150), 1);
    assert_eq!(stand(0, Stand::Active, 150 + super::roster::RETURN_MS), 2, "within a minute");
    assert_eq!(stand(0, Stand::Gone, 200_000), 2);
    assert_eq!(stand(0, Stand::Active, 200_001 + super::roster::RETURN_MS), 2, "later");
}

/// A step of a user's life over nodes.
#[derive(Clone, Debug)]
enum Move {
    Here(u16, Stand),
    Afar(u16, Stand, bool),
    Pass(u64),
}

fn movement() -> impl Strategy<Value = Move> {
    let stand = || prop_oneof![Just(Stand::Gone), Just(Stand::Idle), Just(Stand::Active)];
    prop_oneof![
        4 => (0..SHARDS, stand()).prop_map(|(shard, stand)| Move::Here(shard, stand)),
        4 => (0..4_u16, stand(), any::<bool>()).prop_map(|(n, stand, ended)| Move::Afar(n, stand, ended)),
        2 => (1..100_u64).prop_map(Move::Pass),
    ]
}

/// A roster of one of several nodes.
fn of_several() -> World {
    let mut world = World::new();
    world.roster.join_nodes(SHARDS);
    // So that a grace since the start is over.
    world.millis = 1000;
    world
}

impl World {
    fn afar(&mut self, node: u16, stand: Stand, (speaks, ended): (bool, bool)) {
        let (user, unix_ms) = (Arc::clone(&self.user), self.millis);
        let afar = Afar { user, node, stand, unix_ms, speaks, ended };
        self.roster.set_afar(&afar, self.now());
        self.roster.check();
    }

    /// Lets the grace pass; when the user went offline, if that was to be told.
    fn pass(&mut self, millis: u64) -> Vec<u64> {
        self.millis += millis;
        let mut told = Vec::new();
        self.roster.expire(self.now(), GRACE, 10, &mut |_, unix_ms| told.push(unix_ms));
        told
    }

    fn passages(&mut self) -> Vec<(u64, bool)> {
        let next = std::iter::from_fn(|| self.roster.poll_passage());
        next.map(|Passage { unix_ms, here, .. }| (unix_ms, here)).collect()
    }
}

proptest! {
    /// The twin is a map from shard or node to stand.
    #[test]
    fn a_user_over_nodes_is_what_all_of_them_say_and_others_are_told_what_this_one_says(
        moves in prop::collection::vec(movement(), 1..80),
    ) {
        let mut world = of_several();
        let mut twin: BTreeMap<(bool, u16), Stand> = BTreeMap::new();
        let (mut told, mut gone_since) = (Stand::Gone, None);
        for step in moves {
            let most = |twin: &BTreeMap<(bool, u16), Stand>, afar: bool| {
                let all = twin.iter().filter(|((is_afar, _), _)| afar || !is_afar);
                all.map(|(_, stand)| *stand).max().unwrap_or_default()
            };
            let before = most(&twin, true);
            let mut at_once = false;
            match step {
                Move::Here(shard, stand) => {
                    twin.insert((false, shard), stand);
                    world.step(&Step::Stand(shard, stand));
                }
                Move::Afar(node, stand, ended) => {
                    twin.insert((true, node), stand);
                    world.afar(node, stand, (false, ended));
                    at_once = ended;
                }
                Move::Pass(millis) => world.millis += millis,
            }
            let after = most(&twin, true);
            if before > Stand::Gone && after == Stand::Gone {
                gone_since = Some(if at_once { 0 } else { world.millis });
            } else if after > Stand::Gone {
                gone_since = None;
            }
            world.pass(0);
            while let Some(here) = world.roster.poll_here() {
                prop_assert!(here.stand != told, "told twice");
                told = here.stand;
                prop_assert_eq!(here.last, after == Stand::Gone);
            }
            prop_assert_eq!(told, most(&twin, false));
            let sight = world.roster.sight(&world.user);
            let in_grace = gone_since.is_some_and(|since| since + 50 > world.millis);
            prop_assert_eq!(sight.lingers, in_grace);
            if !in_grace {
                prop_assert_eq!(sight.stand, after);
            }
            prop_assert_eq!(world.roster.len(), usize::from(told > Stand::Gone));
            prop_assert_eq!(world.roster.has(&world.user), told > Stand::Gone);
            prop_assert!(world.roster.shards(&world.user).all(|shard| shard.0 < SHARDS));
        }
    }
}

#[test]
fn of_several_nodes_the_one_that_had_a_user_last_tells_that_it_is_offline() {
    let mut world = of_several();
    let came = |world: &mut World, stand| {
        let times = (world.now(), world.millis);
        world.roster.set(&world.user, ShardId(1), stand, times)
    };
    assert!(came(&mut world, Stand::Active), "it was offline before");
    world.afar(0, Stand::Active, (false, false));
    assert!(!came(&mut world, Stand::Gone));
    assert_eq!(world.pass(60), [0_u64; 0], "another node has it");
    world.afar(0, Stand::Gone, (false, false));
    assert_eq!(world.pass(60), [0_u64; 0], "and tells it");
    world.afar(0, Stand::Active, (false, false));
    assert!(!came(&mut world, Stand::Active), "it was online before");
    world.afar(0, Stand::Gone, (false, false));
    came(&mut world, Stand::Gone);
    let since = world.millis;
    assert_eq!(world.pass(60), [since]);
    world.afar(3, Stand::Active, (false, false));
    world.afar(3, Stand::Gone, (true, true));
    let since = world.millis;
    assert_eq!(world.pass(0), [since], "nobody else does, and the grace was over before");
    assert_eq!(world.roster.sight(&world.user).last_seen, Some(since));
}

#[test]
fn what_is_kept_for_a_restart_is_about_the_users_of_this_node() {
    let mut world = of_several();
    assert_eq!(world.passages(), []);
    let here = |world: &mut World, stand| world.step(&Step::Stand(0, stand));
    world.afar(0, Stand::Active, (false, false));
    assert_eq!(world.passages(), [], "it is not here");
    here(&mut world, Stand::Active);
    assert_eq!(world.passages(), [(1000, true)]);
    here(&mut world, Stand::Gone);
    assert_eq!(world.passages(), [(1000, false)], "it is elsewhere now");
    here(&mut world, Stand::Active);
    world.afar(0, Stand::Gone, (false, false));
    world.passages();
    here(&mut world, Stand::Gone);
    assert_eq!(world.passages(), [], "it may come back");
    world.pass(10);
    world.afar(0, Stand::Active, (false, false));
    assert_eq!(world.passages(), [(1000, false)], "elsewhere");
    world.afar(0, Stand::Gone, (true, false));
    here(&mut world, Stand::Active);
    assert_eq!(world.passages(), [(1010, true)], "the grace was another node's");
    here(&mut world, Stand::Gone);
    let ended = world.roster.end();
    assert_eq!(ended.len(), 1);
    world.afar(0, Stand::Active, (false, false));
    world.afar(0, Stand::Gone, (true, false));
    assert_eq!(world.roster.end(), [], "another node's");
}
