//! A node without threads: shards over simulated drivers, and the mail between them.
//!
//! The mesh is played by bounded queues, two lanes a shard, as the real one has. Time passes only here.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use throng::base::id::ShardId;
use throng::base::map::Seed;
use throng::base::spare::Release;
use throng::base::time::Time;
use throng::contract::{Driver, Event};
use throng::driver::sim::{Faults, Net, SimDriver};
use throng::node::config::Config;
use throng::shard::{Identity, Mail, Progress, Relieved, Settings, Shard};
use throng::wire::tls::SecureListener;

/// Released memory reads as zeros, as the kernel makes it.
struct Zeros;

impl Release for Zeros {
    fn release<T>(&mut self, spare: &mut [MaybeUninit<T>]) {
        spare.fill_with(MaybeUninit::zeroed);
    }
}

/// One shard with its driver.
struct Place {
    shard: Shard,
    driver: SimDriver,
    /// What handshakes have taken since the turn's share began.
    shaken: Duration,
}

/// The node, the network and the clock.
pub(crate) struct World {
    pub(crate) net: Net,
    places: Vec<Place>,
    inboxes: Vec<[VecDeque<Mail>; 2]>,
    inbox: usize,
    pub(crate) now: Time,
    pub(crate) rng: fastrand::Rng,
    /// What a turn's handshakes may take.
    for_handshakes: Duration,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        shards: u16,
        inbox: usize,
        faults: Faults,
        config: &Config,
        secure: Option<SecureListener>,
    ) -> Self {
        let mut settings: Settings = throng::node::settings(config, 1000);
        settings.routes.tls = secure;
        Self::with(seed, shards, inbox, faults, settings)
    }

    /// A node with these settings.
    pub(crate) fn with(
        seed: u64,
        shards: u16,
        inbox: usize,
        faults: Faults,
        settings: Settings,
    ) -> Self {
        let net = Net::new(seed, faults);
        let secure = settings.routes.tls.as_ref();
        let for_handshakes = secure.map_or(Duration::ZERO, |secure| secure.time_per_turn);
        let settings = Arc::new(settings);
        let identity = |id| Identity {
            node: throng::base::id::NodeTag::NONE,
            id: ShardId(id),
            shards,
            seed: Seed::new(seed),
            jitter: seed ^ u64::from(id),
            epoch: seed,
            started_unix_ms: 1_700_000_000_000,
            capacity: 64,
        };
        let place = |id| Place {
            shard: Shard::new(identity(id), Arc::clone(&settings)),
            driver: net.driver(),
            shaken: Duration::ZERO,
        };
        Self {
            places: (0..shards).map(place).collect(),
            inboxes: (0..shards).map(|_| Default::default()).collect(),
            inbox,
            now: Time::from_nanos(1),
            rng: fastrand::Rng::with_seed(seed),
            for_handshakes,
            net,
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.places.len()
    }

    /// Gives a random shard a turn, in the order of `node::worker`, after a little time.
    pub(crate) fn step(&mut self) {
        let at = self.rng.usize(..self.places.len());
        let wait = Duration::from_micros(self.rng.u64(1..2000));
        self.now = self.now.plus(wait);
        self.turn(at);
    }

    fn turn(&mut self, at: usize) {
        let mut now = self.now;
        let Place { shard, driver, shaken } = &mut self.places[at];
        let (rng, most) = (&mut self.rng, self.for_handshakes);
        // The step of a handshake takes its time, and none begins when the turn's is over.
        let mut step = |shaken: &mut Duration, now: Time| {
            assert!(*shaken < most, "a handshake beyond the time of its turn");
            let cost = Duration::from_micros(rng.u64(1..800));
            *shaken += cost;
            now.plus(cost)
        };
        let hear = &mut |event: Event<'_>| {
            if shard.wants_time() {
                now = step(shaken, now);
            }
            shard.handle_event(event, now);
        };
        driver.wait(None, hear).expect("a simulated wait");
        shard.handle_timeout(now);
        *shaken = Duration::ZERO;
        let mut after = now;
        shard.shake_hands(now, &mut || {
            after = step(shaken, after);
            after
        });
        let now = after;
        self.now = now;
        let most = self.rng.usize(1..32);
        for _ in 0..most {
            let Some(mail) = self.inboxes[at][1].pop_front() else { break };
            shard.handle_mail(mail, now);
        }
        for _ in 0..most {
            if !shard.takes_requests() {
                break;
            }
            let Some(mail) = self.inboxes[at][0].pop_front() else { break };
            shard.handle_mail(mail, now);
        }
        if let Some(Relieved::Places { from }) = shard.relieve(now, &mut Zeros) {
            driver.trim(from);
        }
        shard.begin_writes(self.rng.bool(), now);
        while let Some(op) = shard.poll_op() {
            if let Some(event) = driver.submit(op) {
                feed(shard, event, now);
            }
        }
        let (inboxes, inbox) = (&mut self.inboxes, self.inbox);
        shard.poll_mail(&mut |to, mail| {
            let lane = &mut inboxes[usize::from(to.0)][usize::from(!mail.is_request())];
            if lane.len() >= inbox {
                return Err(mail);
            }
            lane.push_back(mail);
            Ok(())
        });
        shard.check();
        let counters = shard.counters();
        assert_eq!(counters.panics_total, 0);
    }

    /// Lets time jump for everybody, as a machine that was suspended.
    pub(crate) fn jump(&mut self, wait: Duration) {
        self.now = self.now.plus(wait);
    }

    pub(crate) fn post_all(&mut self, mail: impl Fn() -> Mail) {
        for lanes in &mut self.inboxes {
            lanes[1].push_back(mail());
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.places.iter().all(|place| place.shard.progress() == Progress::Drained)
    }

    /// Mail anywhere: in inboxes or parked.
    pub(crate) fn mail(&self) -> u64 {
        let parked: u64 = self.places.iter().map(|place| place.shard.counters().parked_mail).sum();
        let posted: usize = self.inboxes.iter().flatten().map(VecDeque::len).sum();
        parked + posted as u64
    }

    /// The sum of one counter.
    pub(crate) fn sum(&self, counter: impl Fn(&throng::base::counters::Counters) -> u64) -> u64 {
        self.places.iter().map(|place| counter(&place.shard.counters())).sum()
    }
}

fn feed(shard: &mut Shard, event: Event<'_>, now: Time) {
    shard.handle_event(event, now);
}
