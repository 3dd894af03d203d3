//! Users who send far more than they may, in a node whose inboxes hold next to nothing: row A15.
//!
//! One user has a connection in each shard, another has as many, all in one. Both have to get what the node allows
//! a user, no more and hardly less, however late mail between shards is. Those who keep far below the rate are
//! never refused.

use std::time::Duration;

use serde_json::json;
use throng::base::time::Time;
use throng::driver::sim::Faults;

use crate::client::Client;
use crate::tenants::{guarded, token};
use crate::world::World;

/// Messages a second of one user.
const RATE: u64 = 100;
/// Messages that a client may have sent and not heard of.
const AHEAD: u64 = 40;

struct Sender {
    client: Client,
    user: u32,
    sent: u64,
    noted: usize,
    answered: u64,
    let_through: u64,
    refused: u64,
}

impl Sender {
    fn turn(&mut self) {
        self.client.turn();
        for message in &self.client.heard[self.noted..] {
            if message["type"] == "throng:connected" {
                continue;
            }
            self.answered += 1;
            match message["code"].as_str() {
                None => self.let_through += 1,
                Some("rate_limited") => self.refused += 1,
                Some(other) => panic!("{other}"),
            }
        }
        self.noted = self.client.heard.len();
    }

    fn may_send(&self) -> bool {
        self.client.id.is_some() && self.sent - self.answered < AHEAD
    }

    fn send(&mut self) {
        self.client.send(&json!({"type": "throng:ping", "ref": self.sent}));
        self.sent += 1;
    }
}

/// Runs one simulation. How often a home was told of what was spent.
pub(crate) fn run(seed: u64) -> u64 {
    let sets = [
        format!("limits_user.messages_per_second={RATE}"),
        "limits_user.burst_ms=400".to_owned(),
        "limits.messages_per_second=0".to_owned(),
    ];
    let shards = 2 + u16::try_from(seed % 2).unwrap();
    let inbox = 1 + usize::try_from(seed / 2 % 3).unwrap();
    let mut world = World::with(seed, shards, inbox, Faults::rough(), guarded(&sets));
    let mut senders = Vec::new();
    for shard in 0..world.shards() {
        for (user, at) in [(0, shard), (1, 0), (2, shard)] {
            let client = Client::known(world.net.connect(at), &token(0, user));
            let (sent, noted, answered, let_through, refused) = (0, 0, 0, 0, 0);
            senders.push(Sender { client, user, sent, noted, answered, let_through, refused });
        }
    }
    // They get to know each other, and what was given away at first is earned back.
    go_on(&mut world, &mut senders, Duration::from_millis(1500));
    let before = [0, 1].map(|user| let_through(&senders, user));
    let since = world.now;
    go_on(&mut world, &mut senders, Duration::from_secs(2));
    let millis = u64::try_from(world.now.since(since).as_millis()).unwrap();
    let most = RATE * millis / 1000;
    for (user, before) in (0..).zip(before) {
        let through = let_through(&senders, user) - before;
        // What is on its way counts for the one second or for the next.
        assert!(through <= most + most / 10, "user {user}: {through} of {most}");
        assert!(through >= most - most / 5, "user {user}: {through} of {most}");
    }
    let quiet = senders.iter().filter(|sender| sender.user == 2);
    assert_eq!(quiet.map(|sender| sender.refused).sum::<u64>(), 0, "the quiet user");
    world.sum(|counters| counters.tolls_total)
}

fn let_through(senders: &[Sender], user: u32) -> u64 {
    let own = senders.iter().filter(|sender| sender.user == user);
    own.map(|sender| sender.let_through).sum()
}

/// The first two users send as much as they can, the third a message now and then.
fn go_on(world: &mut World, senders: &mut [Sender], time: Duration) {
    let end: Time = world.now.plus(time);
    while world.now < end {
        (0..3).for_each(|_| world.step());
        for sender in senders.iter_mut() {
            let sends = sender.user < 2 || world.rng.u32(0..600) == 0;
            if sends && sender.may_send() && world.rng.bool() {
                sender.send();
            }
            sender.turn();
        }
    }
}
