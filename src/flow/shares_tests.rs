//! Shards that share a rate, with a home that hears of it late.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::base::id::ShardId;
use crate::flow::accounts::Accounts;
use crate::flow::meter::Meters;

const KEY: u32 = 7;

/// Shards, their home, and the mail between them, which takes a while.
struct Node {
    rates: Rates<1>,
    shards: Vec<Shares<u32, 1>>,
    home: Accounts<u32, 1>,
    tolls: VecDeque<(Time, ShardId, Spent<1>)>,
    shares: VecDeque<(Time, ShardId, Share<1>)>,
    latency: Duration,
    now: Time,
    /// What each shard has let through.
    let_through: Vec<u64>,
    tellings: u64,
}

impl Node {
    fn new(shards: u16, rate: Rate, latency: Duration) -> Self {
        let seed = Seed::new(5);
        Self {
            rates: [Some(rate)],
            shards: (0..shards).map(|_| Shares::new(&seed)).collect(),
            home: Accounts::new(&seed),
            tolls: VecDeque::new(),
            shares: VecDeque::new(),
            latency,
            now: Time::from_nanos(1),
            let_through: vec![0; usize::from(shards)],
            tellings: 0,
        }
    }

    fn count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("few")
    }

    /// Somebody sends a message of that cost to a shard; true when it was let through.
    fn send(&mut self, at: usize, cost: u32) -> bool {
        let (count, now, latency) = (self.count(), self.now, self.latency);
        let shares = &mut self.shards[at];
        let goes = shares.until(KEY, &self.rates, [cost], now).is_zero();
        if goes {
            shares.spend(KEY, &self.rates, [cost], now);
            self.let_through[at] += u64::from(cost);
        } else {
            shares.want(KEY, [cost]);
        }
        if let Some(spent) = shares.tell(KEY, &self.rates, count, now) {
            self.tellings += 1;
            let from = ShardId(u16::try_from(at).expect("few"));
            self.tolls.push_back((now.plus(latency), from, spent));
        }
        goes
    }

    /// Lets time pass, in steps in which mail arrives.
    fn pass(&mut self, wait: Duration) {
        self.now = self.now.plus(wait);
        while self.tolls.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, from, spent) = self.tolls.pop_front().expect("one");
            let (shares, due) = (&mut self.shares, self.now.plus(self.latency));
            let tell = |to, share| shares.push_back((due, to, share));
            self.home.charge(KEY, &self.rates, (from, &spent), self.now, tell);
        }
        while self.shares.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, to, share) = self.shares.pop_front().expect("one");
            self.shards[usize::from(to.0)].correct(KEY, &share, &self.rates, self.now);
        }
        let (rates, count, due) = (self.rates, self.count(), self.now.plus(self.latency));
        for (at, shares) in (0..).zip(&mut self.shards) {
            let tolls = &mut self.tolls;
            let tell = |_, spent| tolls.push_back((due, ShardId(at), spent));
            shares.sweep(|_| rates, count, (self.now, 1), tell);
            shares.check();
        }
        self.home.sweep(|_| rates, self.now, 1);
        self.home.check();
    }

    fn sum(&self) -> u64 {
        self.let_through.iter().sum()
    }
}

const MILLI: Duration = Duration::from_millis(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each shard is asked for as much as its weight says, at times that differ, for a minute.
    #[test]
    fn shards_that_share_let_through_one_rate_however_the_demand_is_spread(
        weights in prop::collection::vec(0..8u32, 1..6),
        per_second in 1..400u32,
        burst_ms in 100..3000u64,
        latency in 0..4u32,
        seed: u64,
    ) {
        let rate = Rate::over(per_second, Duration::from_millis(burst_ms)).expect("a rate");
        let shards = u16::try_from(weights.len()).expect("few");
        let mut node = Node::new(shards, rate, MILLI * latency);
        let mut rng = fastrand::Rng::with_seed(seed);
        // Of each thousand steps; a weight of eight asks for twice the rate by itself.
        let per_step = |weight: u32| f64::from(weight * per_second) / 4000.0;
        // A slow rate with a short burst refuses some of what comes by chance at once, also with one bucket.
        let mut twin: Meters<u32, 1> = Meters::new(&Seed::new(1));
        let mut granted = 0;
        let (mut warm, mut sum) = (0, 0);
        for step in 0..60_000u32 {
            for (at, weight) in weights.iter().enumerate() {
                let mut wanted = per_step(*weight);
                while rng.f64() < wanted {
                    wanted -= 1.0;
                    if twin.until(KEY, &node.rates, [1], node.now).is_zero() {
                        twin.spend(KEY, &node.rates, [1], node.now);
                        granted += 1;
                    }
                    node.send(at, 1);
                }
            }
            node.pass(MILLI);
            if step == 20_000 {
                (warm, sum) = (node.sum(), granted);
            }
        }
        let through = node.sum() - warm;
        let (expected, most) = (granted - sum, u64::from(per_second) * 40);
        // An eighth may go untold; mail and tellings are late by less than half a second.
        let slack = most / 8 + u64::from(per_second + rate.burst) + 4;
        prop_assert!(through <= most + slack, "{through} of {most}");
        prop_assert!(through + expected / 8 + slack >= expected, "{through} of {expected}");
    }

    /// Where one shard alone is asked nothing is refused that a single bucket would grant.
    #[test]
    fn a_party_with_one_shard_has_all_of_its_rate_and_its_burst(
        steps in prop::collection::vec((0..400u64, 0..40u32), 1..200),
        shards in 1..6u16,
        at in 0..6u16,
    ) {
        let rate = Rate { per_second: 50, burst: 100 };
        let mut node = Node::new(shards, rate, MILLI);
        let mut twin: Meters<u32, 1> = Meters::new(&Seed::new(1));
        let at = usize::from(at % shards);
        for (wait, cost) in steps {
            (0..wait).for_each(|_| node.pass(MILLI));
            let expected = twin.until(KEY, &node.rates, [cost], node.now).is_zero();
            if expected {
                twin.spend(KEY, &node.rates, [cost], node.now);
            }
            prop_assert_eq!(node.send(at, cost), expected);
        }
    }
}

#[test]
fn shards_that_are_all_flooded_let_through_what_one_would_and_each_its_part() {
    let rate = Rate { per_second: 100, burst: 50 };
    let mut node = Node::new(4, rate, MILLI);
    for _ in 0..2000 {
        (0..4).for_each(|at| _ = node.send(at, 1));
        node.pass(MILLI);
    }
    let before = node.let_through.clone();
    for _ in 0..20_000 {
        (0..4).for_each(|at| _ = node.send(at, 1));
        node.pass(MILLI);
    }
    let parts: Vec<u64> =
        node.let_through.iter().zip(before).map(|(now, then)| now - then).collect();
    let sum: u64 = parts.iter().sum();
    assert!((1950..=2050).contains(&sum), "{parts:?}");
    assert!(parts.iter().all(|part| (400..=600).contains(part)), "{parts:?}");
    assert!(node.tellings <= 4 * 22 * 4 + 4, "{} in 22 seconds", node.tellings);
}

#[test]
fn what_all_shards_give_away_before_they_hear_of_each_other_is_a_debt() {
    let rate = Rate { per_second: 10, burst: 20 };
    let mut node = Node::new(4, rate, MILLI);
    for at in 0..4 {
        (0..20).for_each(|_| assert!(node.send(at, 1), "each has heard of nobody"));
    }
    for _ in 0..300 {
        node.pass(MILLI);
        (0..4).for_each(|at| _ = node.send(at, 1));
    }
    let given = node.sum();
    assert!((80..=84).contains(&given), "{given}");
    // 60 tokens more than there were, at ten a second.
    for _ in 0..5000 {
        node.pass(MILLI);
        (0..4).for_each(|at| _ = node.send(at, 1));
    }
    assert!(node.sum() - given <= 4, "{} in five seconds of debt", node.sum() - given);
    for _ in 0..20_000 {
        node.pass(MILLI);
        (0..4).for_each(|at| _ = node.send(at, 1));
    }
    let all = node.sum();
    assert!((20 + 10 * 24..=20 + 10 * 27).contains(&all), "{all} in 25 seconds");
}

#[test]
fn whoever_is_far_below_its_rate_is_told_of_to_nobody_and_forgotten() {
    let rate = Rate { per_second: 100, burst: 200 };
    let mut node = Node::new(4, rate, MILLI);
    for _ in 0..100 {
        (0..4).for_each(|at| assert!(node.send(at, 1)));
        (0..500).for_each(|_| node.pass(MILLI));
    }
    assert_eq!((node.tellings, node.home.len()), (0, 0));
    assert!(node.shards.iter().all(Shares::is_empty));
    // And so is, in the end, who was not.
    for _ in 0..1000 {
        (0..4).for_each(|at| _ = node.send(at, 1));
        node.pass(MILLI);
    }
    assert_eq!(node.home.len(), 1);
    (0..8000).for_each(|_| node.pass(MILLI));
    assert!(node.home.is_empty() && node.shards.iter().all(Shares::is_empty));
}

#[test]
fn a_shard_that_falls_silent_leaves_its_part_to_the_others() {
    let rate = Rate { per_second: 100, burst: 10 };
    let mut node = Node::new(2, rate, MILLI);
    for _ in 0..3000 {
        (0..2).for_each(|at| _ = node.send(at, 1));
        node.pass(MILLI);
    }
    for _ in 0..2000 {
        node.send(0, 1);
        node.pass(MILLI);
    }
    let before = node.let_through[0];
    for _ in 0..10_000 {
        node.send(0, 1);
        node.pass(MILLI);
    }
    let through = node.let_through[0] - before;
    assert!((950..=1030).contains(&through), "{through}");
}
