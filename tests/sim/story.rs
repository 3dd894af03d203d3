//! What happens to a node in one simulation, and what it had promised.
//!
//! The promises: a client receives only what was published to rooms it had asked to be in; per room it
//! sees rising offsets, and per sender and room rising numbers; nobody receives one publication twice;
//! a client that stays in a room and keeps reading receives everything that was published to it after
//! its join was answered, or is told how many it lost, or is disconnected with a reason; queues keep
//! their bounds; all mail arrives; what has ended leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng::contract::ListenerId;
use throng::driver::sim::Faults;
use throng::node::config::Origin;
use throng::shard::Mail;
use throng::wire::tls::{
    Clients, Identity, Options, SecureListener, Version, server_config, tickets,
};

use crate::authority::{Authority, Spoken};
use crate::client::Client;
use crate::world::World;

/// The circumstances of a simulation.
pub(crate) struct Plan {
    shards: u16,
    inbox: usize,
    clients: usize,
    steps: usize,
    faults: Faults,
    /// Step at which the node is told to drain.
    drain: Option<usize>,
    /// Share of clients (in percent) that stop reading now and then.
    slow: u32,
    /// Whether every other client speaks TLS, of the version that the seed draws for it. Keys and signatures are drawn
    /// by their library, so only what is promised repeats itself, and not every byte.
    secure: bool,
}

impl Plan {
    pub(crate) fn rough(seed: u64) -> Self {
        Self {
            shards: 1 + u16::try_from(seed % 4).unwrap(),
            inbox: 1 + usize::try_from(seed % 17).unwrap(),
            clients: 12,
            steps: 1500,
            faults: Faults::rough(),
            drain: None,
            slow: 20,
            secure: false,
        }
    }

    pub(crate) fn secure(seed: u64) -> Self {
        let faults = if seed.is_multiple_of(2) { Faults::rough() } else { Faults::hostile() };
        Self { faults, secure: true, ..Self::rough(seed) }
    }

    pub(crate) fn hostile(seed: u64) -> Self {
        Self { faults: Faults::hostile(), ..Self::rough(seed) }
    }

    pub(crate) fn tight(seed: u64) -> Self {
        Self { shards: 3, inbox: 1, slow: 0, ..Self::rough(seed) }
    }

    pub(crate) fn draining(seed: u64) -> Self {
        Self { drain: Some(700), ..Self::hostile(seed) }
    }
}

/// What was published, by its number.
struct Published {
    rooms: Vec<String>,
    sender: usize,
    except: Vec<String>,
}

struct Story {
    world: World,
    clients: Vec<Client>,
    published: Vec<Published>,
    rooms: Vec<String>,
    next_ref: u64,
    slow: u32,
    has_drained: bool,
}

/// Runs one simulation.
pub(crate) fn run(seed: u64, plan: &Plan) {
    let sets = [
        "queue.high_water_bytes=4096",
        "queue.low_water_bytes=1024",
        "queue.max_bytes=16384",
        "limits.max_message_bytes=4096",
        "limits.max_rooms=8",
        "server.reconnect_spread_ms=100",
        "limits.messages_per_second=200",
        "limits.over_rate=delay",
    ];
    let origin = Origin { file: None, sets: sets.map(str::to_owned).into() };
    let config = origin.load().expect("a valid configuration");
    let authority = plan.secure.then(Authority::new);
    let secure = authority.as_ref().map(secure);
    let versions = authority
        .map(|authority| Spoken::BOTH.map(|version| Arc::new(authority.client(version, None))));
    let world = World::new(seed, plan.shards, plan.inbox, plan.faults.clone(), &config, secure);
    let mut story = Story {
        world,
        clients: Vec::new(),
        published: Vec::new(),
        rooms: (0..5).map(|number| format!("room {number}")).collect(),
        next_ref: 0,
        slow: plan.slow,
        has_drained: false,
    };
    for step in 0..plan.steps {
        if story.clients.len() < plan.clients && !story.has_drained {
            let shard = story.world.rng.usize(..story.world.shards());
            story.clients.push(match &versions {
                Some(versions) if story.clients.len().is_multiple_of(2) => {
                    let config = &versions[usize::from(story.world.rng.bool())];
                    Client::secure(story.world.net.connect_on(shard, SECURE), config)
                }
                _ => Client::new(story.world.net.connect(shard)),
            });
        }
        if plan.drain == Some(step) {
            story.world.post_all(|| Mail::Drain(Duration::from_millis(300)));
            story.has_drained = true;
        }
        story.act();
        story.turn();
    }
    story.heal();
    story.judge();
    story.end();
}

/// The listener that speaks TLS.
const SECURE: ListenerId = ListenerId(1);

/// A secure listener with a certificate of that authority, and little time for handshakes.
fn secure(authority: &Authority) -> SecureListener {
    let issued = authority.issue("example", &["example.org"]);
    let options = Options {
        identities: vec![Identity { chain: issued.chain.clone(), key: issued.key() }],
        clients: Clients::Unasked,
        oldest: Version::Tls12,
        tickets: Some(tickets().expect("randomness")),
    };
    let config = server_config(options).expect("a configuration");
    let time_per_turn = Duration::from_millis(1);
    SecureListener { listener: SECURE, config, steps_per_turn: 3, time_per_turn }
}

/// The number of a publication as pushed.
fn number(message: &Value) -> Option<usize> {
    let number = message["payload"]["n"].as_u64().filter(|_| message["type"] == "n");
    number.and_then(|number| usize::try_from(number).ok())
}

impl Story {
    fn turn(&mut self) {
        self.world.step();
        for client in &mut self.clients {
            client.turn();
            for message in &client.heard[client.noted..] {
                // Only a join's reply carries both a room and an offset without a type of ours.
                let is_join = message["type"] == "throng:reply" && message["epoch"].is_string();
                let room = message["room"].as_str().filter(|_| is_join);
                if let Some(membership) = room.and_then(|room| client.rooms.get_mut(room)) {
                    membership.since.get_or_insert(self.published.len());
                }
            }
            client.noted = client.heard.len();
        }
    }

    /// One random deed of one random client.
    fn act(&mut self) {
        let at = self.world.rng.usize(..self.clients.len());
        if !self.clients[at].is_alive() || self.clients[at].id.is_none() {
            return;
        }
        match self.world.rng.u32(0..100) {
            0..20 => self.join(at),
            20..25 => self.leave(at),
            25..75 => self.publish(at),
            75..77 if self.world.rng.bool() => {
                self.clients[at].peer.finish();
                self.clients[at].gone = true;
            }
            77..79 if self.world.rng.bool() => {
                self.clients[at].peer.reset();
                self.clients[at].gone = true;
            }
            79..85 => {
                let slow = self.world.rng.u32(0..100) < self.slow;
                self.clients[at].peer.set_reading(!slow);
            }
            85..87 => self.world.jump(Duration::from_millis(50)),
            87..92 => self.ask(at, json!({"type": "throng:ping"})),
            92..95 => self.ask(at, json!({"type": "throng:nonsense"})),
            _ => {}
        }
    }

    fn ask(&mut self, at: usize, mut command: Value) {
        self.next_ref += 1;
        command["ref"] = json!(self.next_ref);
        self.clients[at].send(&command);
    }

    fn room(&mut self) -> String {
        let at = self.world.rng.usize(..self.rooms.len());
        self.rooms[at].clone()
    }

    fn join(&mut self, at: usize) {
        let room = self.room();
        self.clients[at].rooms.entry(room.clone()).or_default();
        self.ask(at, json!({"type": "throng:join", "room": room}));
    }

    fn leave(&mut self, at: usize) {
        let room = self.room();
        if let Some(membership) = self.clients[at].rooms.get_mut(&room) {
            membership.left = true;
            self.ask(at, json!({"type": "throng:leave", "room": room}));
        }
    }

    fn publish(&mut self, at: usize) {
        let count = if self.world.rng.u32(0..4) == 0 { self.world.rng.usize(2..5) } else { 1 };
        let mut rooms: Vec<String> = (0..count).map(|_| self.room()).collect();
        rooms.sort();
        rooms.dedup();
        let mut except = Vec::new();
        if self.world.rng.u32(0..5) == 0 {
            let other = self.world.rng.usize(..self.clients.len());
            except.extend(self.clients[other].id.clone());
        }
        let number = self.published.len();
        let filler = "x".repeat(self.world.rng.usize(0..300));
        let payload = json!({"n": number, "x": filler});
        self.ask(at, json!({"type": "n", "rooms": rooms, "except": except, "payload": payload}));
        self.published.push(Published { rooms, sender: at, except });
    }

    /// Ends all faults and lets everything arrive.
    fn heal(&mut self) {
        self.world.net.set_faults(Faults::none());
        for client in &mut self.clients {
            client.peer.set_reading(true);
        }
        let mut quiet = 0;
        for _ in 0..200_000 {
            let before: usize = self.clients.iter().map(|client| client.heard.len()).sum();
            self.turn();
            let after: usize = self.clients.iter().map(|client| client.heard.len()).sum();
            let unsent = self.clients.iter().any(|client| client.is_alive() && client.has_unsent());
            let idle = before == after && !unsent && self.world.mail() == 0;
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet > 2000 {
                return;
            }
        }
        panic!("it never comes to rest: {} pieces of mail", self.world.mail());
    }

    fn judge(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            self.judge_pushes(at, client);
        }
        for (at, client) in self.clients.iter().enumerate() {
            if client.is_alive() && !self.has_drained {
                self.judge_completeness(at, client);
            }
        }
        if !self.has_drained {
            let refused = self.world.sum(|counters| counters.publishes_refused_total);
            assert_eq!(refused, 0, "the parking limit is far away here");
        }
    }

    /// Only to those who asked, in order, once.
    fn judge_pushes(&self, at: usize, client: &Client) {
        let mut offsets: BTreeMap<&str, u64> = BTreeMap::new();
        let mut last: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for push in client.heard.iter().filter(|message| message["type"] == "n") {
            let number = number(push).expect("a number");
            let room = push["room"].as_str().expect("a room");
            let published = &self.published[number];
            assert!(client.rooms.contains_key(room), "client {at} never asked to be in {room}");
            assert!(published.rooms.iter().any(|target| target == room), "{push}");
            assert!(!published.except.contains(client.id.as_ref().unwrap()), "excepted: {push}");
            assert!(seen.insert(number), "client {at} got {number} twice");
            let offset = push["offset"].as_u64().expect("an offset");
            if let Some(before) = offsets.insert(room, offset) {
                // A room that was empty in between begins anew.
                assert!(offset > before || client.rooms[room].left, "{push} after {before}");
            }
            if let Some(before) = last.insert((published.sender, room), number) {
                assert!(number > before, "client {at}: {number} after {before} in {room}");
            }
        }
    }

    /// Everything published after the join was answered, or the losses told.
    fn judge_completeness(&self, at: usize, client: &Client) {
        let id = client.id.as_ref().expect("a living client has been greeted");
        let got: BTreeSet<usize> = client.heard.iter().filter_map(number).collect();
        let lost: u64 = client.heard.iter().filter_map(|message| message["lost"].as_u64()).sum();
        let all = self.clients.iter().flat_map(|other| other.heard.iter().filter_map(number));
        let missing = all.collect::<BTreeSet<usize>>().into_iter().filter(|number| {
            let published = &self.published[*number];
            let owed = published.rooms.iter().filter_map(|room| client.rooms.get(room)).any(
                |membership| !membership.left && membership.since.is_some_and(|at| at <= *number),
            );
            owed && !published.except.contains(id) && !got.contains(number)
        });
        let missing: Vec<usize> = missing.collect();
        assert!(
            missing.len() as u64 <= lost,
            "client {at} lacks {missing:?} and was told of {lost}"
        );
        for (room, membership) in &client.rooms {
            assert!(membership.since.is_some(), "client {at}: its join of {room} was not answered");
        }
    }

    /// Everybody leaves; nothing stays behind.
    fn end(mut self) {
        if self.has_drained {
            for _ in 0..100_000 {
                if self.world.is_drained() {
                    break;
                }
                self.turn();
            }
            assert!(self.world.is_drained(), "the drain never ends");
            for client in &self.clients {
                let told = client.closed == Some(1012) || client.gone || client.peer.saw_reset();
                assert!(
                    told || client.id.is_none() || client.closed.is_some(),
                    "gone without a word"
                );
            }
        }
        for client in &mut self.clients {
            client.peer.reset();
        }
        for _ in 0..100_000 {
            if self.world.sum(|counters| counters.connections) == 0 && self.world.mail() == 0 {
                break;
            }
            self.turn();
        }
        for _ in 0..1000 {
            self.turn();
        }
        let left = self.world.sum(|counters| {
            counters.connections
                + counters.rooms
                + counters.home_rooms
                + counters.memberships
                + counters.queued_bytes
                + counters.parked_mail
        });
        assert_eq!(left, 0, "something stayed behind");
    }
}
