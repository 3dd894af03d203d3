//! Who comes back in the simulation, and what was promised to it.
//!
//! Clients drop, in order or by a reset, read slowly or not at all, and come back on some shard with the
//! cursors they had. Others publish meanwhile; mail is cut short, delayed and parked as everywhere in the
//! simulator. Promised is: every push follows its client's cursor by exactly one; the same epoch and
//! offset are the same publication to everybody; a member that is told to begin anew is told once for each
//! join; and when everything has come to rest all have come as far as their rooms. Rooms close whoever is
//! too slow, so that nothing is lost unseen and every such client has to come back as well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use throng::driver::sim::Faults;
use throng::node::config::Origin;

use crate::client::Client;
use crate::world::World;

/// The circumstances.
pub(crate) struct Plan {
    shards: u16,
    inbox: usize,
    clients: usize,
    rooms: usize,
    steps: usize,
    /// Publications kept of each room.
    history: u32,
    faults: Faults,
    /// Steps without news after which everything counts as arrived.
    rest: usize,
}

impl Plan {
    /// Many returns in one life of a node.
    pub(crate) fn long(seed: u64) -> Self {
        let faults = if seed.is_multiple_of(2) { Faults::rough() } else { Faults::hostile() };
        Self {
            shards: 1 + u16::try_from(seed % 3).unwrap(),
            inbox: 1 + usize::try_from(seed % 7).unwrap(),
            clients: 6,
            rooms: 3,
            steps: 2000,
            history: if seed.is_multiple_of(3) { 10 } else { 10_000 },
            faults,
            rest: 2000,
        }
    }

    /// A few deeds, so that a million orders of them can be looked at.
    pub(crate) fn short(seed: u64) -> Self {
        Self {
            shards: 2 + u16::try_from(seed % 2).unwrap(),
            clients: 3,
            rooms: 2,
            steps: 120,
            history: if seed.is_multiple_of(3) { 3 } else { 1000 },
            rest: 200,
            ..Self::long(seed)
        }
    }
}

/// What a client knows of a room.
#[derive(Default)]
struct Book {
    /// Epoch and offset, once it was told.
    cursor: Option<(String, u64)>,
    /// Joins of this connection that have not been answered.
    asked: usize,
    /// Resyncs of this connection that may still come.
    may_resync: usize,
}

#[derive(Default)]
struct Person {
    client: Option<Client>,
    books: BTreeMap<String, Book>,
}

/// What happened, summed up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    /// Connections that came with cursors.
    pub(crate) returns: u64,
    /// Rooms of those that were recovered.
    pub(crate) recovered: u64,
    /// Rooms of which a client had to begin anew.
    pub(crate) resyncs: u64,
    /// Publications.
    pub(crate) published: u64,
}

struct Story {
    world: World,
    people: Vec<Person>,
    rooms: usize,
    /// What was published under which room, epoch and offset, as far as anybody has heard of it.
    known: BTreeMap<(String, String, u64), u64>,
    sum: Sum,
}

/// Runs one simulation.
pub(crate) fn run(seed: u64, plan: &Plan) -> Sum {
    let namespace = format!(
        "namespace=[{{pattern=\"*\", overflow=\"disconnect\", history_count={}}}]",
        plan.history
    );
    let sets = [
        "queue.high_water_bytes=4096",
        "queue.low_water_bytes=1024",
        "queue.max_bytes=16384",
        "limits.max_message_bytes=4096",
        "limits.max_rooms=8",
        "limits.messages_per_second=0",
        &namespace,
    ];
    let origin = Origin { file: None, sets: sets.map(str::to_owned).into() };
    let config = origin.load().expect("a valid configuration");
    let mut story = Story {
        world: World::new(seed, plan.shards, plan.inbox, plan.faults.clone(), &config, None),
        people: (0..plan.clients).map(|_| Person::default()).collect(),
        rooms: plan.rooms,
        known: BTreeMap::new(),
        sum: Sum::default(),
    };
    for _ in 0..plan.steps {
        story.act();
        story.turn();
    }
    story.heal(plan.rest);
    // One more in each room: whoever had missed the end of it would hear one that does not follow.
    for room in 0..plan.rooms {
        story.publish_to(0, &format!("room {room}"));
    }
    story.heal(plan.rest);
    story.judge();
    story.end();
    story.sum
}

impl Story {
    fn turn(&mut self) {
        self.world.step();
        for at in 0..self.people.len() {
            let Some(mut client) = self.people[at].client.take() else { continue };
            client.turn();
            let news = client.heard.split_off(client.noted);
            for message in &news {
                self.note(at, message);
            }
            // Only what is new is looked at, and a greeting is told from the rest by being the first.
            client.heard.extend(news.into_iter().take(usize::from(client.heard.is_empty())));
            client.noted = client.heard.len();
            self.people[at].client = Some(client);
        }
    }

    fn act(&mut self) {
        let at = self.world.rng.usize(..self.people.len());
        let is_alive = self.people[at].client.as_ref().is_some_and(Client::is_alive);
        if !is_alive {
            return self.come(at);
        }
        if self.people[at].client.as_ref().is_some_and(|client| client.id.is_none()) {
            return;
        }
        match self.world.rng.u32(0..100) {
            0..50 => self.publish(at),
            50..65 => self.join(at),
            65..75 => self.leave(at),
            75..80 => {
                let reading = self.world.rng.bool();
                if let Some(client) = &mut self.people[at].client {
                    client.peer.set_reading(reading);
                }
            }
            80..82 => self.world.jump(Duration::from_millis(50)),
            _ => {}
        }
    }

    /// Drops the connection; what has arrived and was not read is lost with it.
    fn leave(&mut self, at: usize) {
        let by_reset = self.world.rng.bool();
        let Some(mut client) = self.people[at].client.take() else { return };
        if by_reset {
            client.peer.reset();
        } else {
            client.peer.finish();
        }
        for book in self.people[at].books.values_mut() {
            (book.asked, book.may_resync) = (0, 0);
        }
    }

    /// Comes, or comes back with its cursors.
    fn come(&mut self, at: usize) {
        self.leave(at);
        let shard = self.world.rng.usize(..self.world.shards());
        let mut client = Client::new(self.world.net.connect(shard));
        let mut rooms = Vec::new();
        for (room, book) in &mut self.people[at].books {
            let Some((epoch, offset)) = &book.cursor else { continue };
            rooms.push(json!({"room": room, "since": {"epoch": epoch, "offset": offset}}));
            (book.asked, book.may_resync) = (1, 1);
        }
        if !rooms.is_empty() {
            self.sum.returns += 1;
            client.send(&json!({"type": "throng:restore", "rooms": rooms, "ref": 1}));
        }
        self.people[at].client = Some(client);
    }

    fn join(&mut self, at: usize) {
        let room = format!("room {}", self.world.rng.usize(..self.rooms));
        let Person { client: Some(client), books } = &mut self.people[at] else { return };
        let book = books.entry(room.clone()).or_default();
        if book.cursor.is_none() && book.asked == 0 {
            book.asked += 1;
            client.send(&json!({"type": "throng:join", "room": room, "ref": 2}));
        }
    }

    fn publish(&mut self, at: usize) {
        let room = format!("room {}", self.world.rng.usize(..self.rooms));
        self.publish_to(at, &room);
    }

    fn publish_to(&mut self, at: usize, room: &str) {
        for _ in 0..self.world.rng.usize(1..5) {
            let filler = "x".repeat(self.world.rng.usize(0..300));
            let payload = json!({"n": self.sum.published, "x": filler});
            self.sum.published += 1;
            if let Some(client) = &mut self.people[at].client {
                client.send(&json!({"type": "n", "room": room, "payload": payload}));
            }
        }
    }

    fn note(&mut self, at: usize, message: &Value) {
        match message["type"].as_str().expect("a type") {
            "n" => self.note_push(at, message),
            "throng:reply" if message["rooms"].is_array() => {
                for room in message["rooms"].as_array().expect("a list") {
                    self.note_joined(at, room, true);
                }
            }
            "throng:reply" if message["epoch"].is_string() => self.note_joined(at, message, false),
            "throng:resync" => {
                self.sum.resyncs += 1;
                let book = self.book(at, message);
                assert!(book.may_resync > 0, "client {at} is told twice: {message}");
                book.may_resync -= 1;
                book.cursor = Some(cursor(message));
            }
            "throng:gap" => panic!("nothing is dropped here: {message}"),
            "throng:error" => assert_eq!(message["code"], "overloaded", "{message}"),
            _ => {}
        }
    }

    fn book(&mut self, at: usize, message: &Value) -> &mut Book {
        let room = message["room"].as_str().expect("a room");
        self.people[at].books.get_mut(room).expect("it asked to be in")
    }

    fn note_joined(&mut self, at: usize, message: &Value, had_cursor: bool) {
        assert_eq!(message["ok"], json!(true), "{message}");
        let recovered = message.get("recovered").and_then(Value::as_bool);
        assert_eq!(recovered.is_some(), had_cursor, "{message}");
        self.sum.recovered += u64::from(recovered == Some(true));
        let book = self.book(at, message);
        assert_eq!(book.asked, 1, "client {at} is answered twice: {message}");
        book.asked -= 1;
        if recovered.is_none() {
            book.cursor = Some(cursor(message));
        }
    }

    fn note_push(&mut self, at: usize, push: &Value) {
        let offset = push["offset"].as_u64().expect("an offset");
        let book = self.book(at, push);
        let Some((epoch, last)) = &mut book.cursor else { panic!("client {at}: {push} too early") };
        assert_eq!(offset, *last + 1, "client {at}: {push} after {last}");
        *last = offset;
        let room = push["room"].as_str().expect("a room").to_owned();
        let key = (room, epoch.clone(), offset);
        let number = push["payload"]["n"].as_u64().expect("a number");
        let known = self.known.entry(key).or_insert(number);
        assert_eq!(*known, number, "two publications under one cursor: {push}");
    }

    /// Ends all faults, brings everybody back and lets everything arrive.
    fn heal(&mut self, rest: usize) {
        self.world.net.set_faults(Faults::none());
        let mut quiet = 0;
        for _ in 0..400_000 {
            for at in 0..self.people.len() {
                match &mut self.people[at].client {
                    Some(client) if client.is_alive() => client.peer.set_reading(true),
                    _ => {
                        self.come(at);
                        quiet = 0;
                    }
                }
            }
            let before = self.progress();
            self.turn();
            let unsent = self.people.iter().any(|person| {
                person
                    .client
                    .as_ref()
                    .is_some_and(|client| client.id.is_none() || client.has_unsent())
            });
            let idle = before == self.progress() && !unsent && self.world.mail() == 0;
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet > rest {
                return;
            }
        }
        panic!("it never comes to rest: {} pieces of mail", self.world.mail());
    }

    /// Changes whenever anything was heard.
    fn progress(&self) -> (u64, u64, usize) {
        let books = self.people.iter().flat_map(|person| person.books.values());
        let (mut offsets, mut asked) = (0, 0);
        for book in books {
            offsets += book.cursor.as_ref().map_or(0, |(_, offset)| *offset);
            asked += book.asked;
        }
        (offsets, self.world.sum(|counters| counters.sent_bytes_total), asked)
    }

    fn judge(&self) {
        let mut rooms: BTreeMap<&str, &(String, u64)> = BTreeMap::new();
        for (at, person) in self.people.iter().enumerate() {
            for (room, book) in &person.books {
                assert_eq!(book.asked, 0, "client {at} in {room} has its answer");
                // Its first join was lost with its connection.
                let Some(cursor) = &book.cursor else { continue };
                let furthest = rooms.entry(room).or_insert(cursor);
                assert_eq!(*furthest, cursor, "client {at} is as far as others in {room}");
            }
        }
        let left = self.world.sum(|counters| counters.replays + counters.restores);
        assert_eq!(left, 0, "somebody has not had everything");
    }

    /// Everybody leaves, and histories end.
    fn end(&mut self) {
        for at in 0..self.people.len() {
            self.leave(at);
        }
        for _ in 0..100_000 {
            if self.world.sum(|counters| counters.connections) == 0 && self.world.mail() == 0 {
                break;
            }
            self.world.step();
        }
        self.world.jump(Duration::from_secs(400));
        for _ in 0..300 {
            self.world.step();
        }
        let left = self.world.sum(|counters| {
            counters.connections
                + counters.rooms
                + counters.home_rooms
                + counters.history_rooms
                + counters.history_bytes
                + counters.queued_bytes
                + counters.parked_mail
        });
        assert_eq!(left, 0, "something stayed behind");
    }
}

/// Epoch and offset of a message.
fn cursor(message: &Value) -> (String, u64) {
    let epoch = message["epoch"].as_str().expect("an epoch").to_owned();
    (epoch, message["offset"].as_u64().expect("an offset"))
}
