//! What shards hear of a user against what the roster knows, whenever they begin to watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Roster, Sight, Stand};
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
