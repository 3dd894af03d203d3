//! Random drops, publications and joins over two or three shards, against a list of all publications.
//!
//! Mail travels when the story says so, in the order of its lane. Clients keep their cursors over
//! connections and shards. What must hold: every push follows the cursor by exactly one; what was pushed
//! under an epoch and an offset is what was published there, to whomever; a client that was told to
//! begin anew was told once; and in the end everybody has come as far as the room.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::base::id::ConnId;
use crate::base::shared::Overflow;
use crate::shard::Mail;
use crate::shard::tests::history::remembering;
use crate::shard::tests::rig::{Heard, Rig, publish};

#[derive(Clone, Debug)]
enum Step {
    /// A client publishes to a room, so many times in one turn.
    Publish(usize, usize, usize),
    /// It drops without a word and comes back to another shard, to all its rooms.
    Drop(usize, usize),
    Join(usize, usize),
    Leave(usize, usize),
    /// A client reads no more, or again.
    Stall(usize),
    /// A shard takes mail.
    Mail(usize, usize),
    Turn(usize),
    Wait(u64),
}

const CLIENTS: usize = 4;
const ROOMS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, room) = (0..CLIENTS, 0..ROOMS);
    let step = prop_oneof![
        10 => (client.clone(), room.clone(), 1..6usize).prop_map(|(c, r, n)| Step::Publish(c, r, n)),
        4 => (client.clone(), 0..3usize).prop_map(|(c, shard)| Step::Drop(c, shard)),
        6 => (client.clone(), room.clone()).prop_map(|(c, r)| Step::Join(c, r)),
        1 => (client.clone(), room).prop_map(|(c, r)| Step::Leave(c, r)),
        2 => client.prop_map(Step::Stall),
        14 => (0..3usize, 1..5usize).prop_map(|(shard, count)| Step::Mail(shard, count)),
        8 => (0..3usize).prop_map(Step::Turn),
        1 => (1..3000u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 20..250)
}

/// What a client knows of a room.
#[derive(Clone, Debug, Default)]
struct Book {
    /// Epoch and offset, once a reply or a resync has said so.
    cursor: Option<(String, u64)>,
    /// It asked to be in.
    wants: bool,
    /// Joins without an answer.
    asked: usize,
    /// The cursor stands and pushes must follow it.
    follows: bool,
}

#[derive(Default)]
struct Client {
    place: Option<(usize, ConnId)>,
    books: BTreeMap<String, Book>,
}

struct Story {
    rigs: Vec<Rig>,
    inboxes: Vec<[VecDeque<Mail>; 2]>,
    clients: Vec<Client>,
    /// What was published where, as far as anybody has heard of it.
    known: BTreeMap<(String, String, u64), u64>,
    published: u64,
}

impl Story {
    fn new(shards: usize, count: u32) -> Self {
        let of = u16::try_from(shards).expect("few");
        let rig = |id| {
            let mut settings = remembering(count);
            // Whoever is too slow is closed: nothing is lost unseen.
            settings.rooms.namespaces[0].overflow = Overflow::Disconnect;
            settings.capacity.parked_mail = 10_000;
            Rig::new(id, of, settings)
        };
        Self {
            rigs: (0..of).map(rig).collect(),
            inboxes: (0..shards).map(|_| Default::default()).collect(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            known: BTreeMap::new(),
            published: 0,
        }
    }

    fn turn(&mut self, at: usize) {
        self.rigs[at].turn();
        for (to, mail) in std::mem::take(&mut self.rigs[at].post) {
            self.inboxes[usize::from(to.0)][usize::from(!mail.is_request())].push_back(mail);
        }
        for client in 0..CLIENTS {
            self.listen(client);
        }
    }

    fn take_mail(&mut self, at: usize, count: usize) {
        for lane in [1, 0] {
            for _ in 0..count {
                if lane == 0 && !self.rigs[at].shard.takes_requests() {
                    break;
                }
                let Some(mail) = self.inboxes[at][lane].pop_front() else { break };
                self.rigs[at].take(mail);
            }
        }
    }

    fn listen(&mut self, at: usize) {
        let Some((shard, conn)) = self.clients[at].place else { return };
        for heard in self.rigs[shard].heard(conn) {
            match heard {
                Heard::Text(text) => self.note(at, &text),
                Heard::Close(code) => {
                    assert_eq!(code, 1013, "too slow, and nothing else");
                    self.hang_up(at);
                    return;
                }
                Heard::Ping | Heard::Pong(_) => {}
            }
        }
        // One that read nothing until the shard lost patience is reset, and hears no close frame.
        if self.rigs[shard].shard.table.get(conn).is_none() {
            self.hang_up(at);
        }
    }

    fn note(&mut self, at: usize, text: &Value) {
        if text["type"] == "throng:reply" && text["rooms"].is_array() {
            for result in text["rooms"].as_array().expect("a list") {
                self.note_reply(at, result, false);
            }
            return;
        }
        let Some(room) = text["room"].as_str() else { return };
        let offset = text["offset"].as_u64();
        match text["type"].as_str().expect("a type") {
            "throng:reply" if offset.is_some() => self.note_reply(at, text, true),
            "throng:resync" => {
                let book = self.clients[at].books.get_mut(room).expect("a book");
                let epoch = text["epoch"].as_str().expect("an epoch").to_owned();
                book.cursor = Some((epoch, offset.expect("an offset")));
                book.follows = true;
            }
            "t" => self.note_push(at, room, text),
            "throng:gap" => panic!("nothing is dropped here: {text}"),
            _ => {}
        }
    }

    /// `leads`: no push of the room came before it.
    fn note_reply(&mut self, at: usize, text: &Value, leads: bool) {
        assert_eq!(text["ok"], json!(true), "{text}");
        let book = self.clients[at].books.get_mut(text["room"].as_str().expect("a room"));
        let book = book.expect("a book");
        book.asked -= 1;
        let cursor = (
            text["epoch"].as_str().expect("an epoch").to_owned(),
            text["offset"].as_u64().expect("an offset"),
        );
        match text.get("recovered").and_then(Value::as_bool) {
            Some(true) => book.follows = true,
            // A resync follows, unless it was a member already.
            Some(false) => {}
            None if leads => {
                book.cursor = Some(cursor);
                book.follows = true;
            }
            None => {}
        }
    }

    fn note_push(&mut self, at: usize, room: &str, text: &Value) {
        let book = self.clients[at].books.get_mut(room).expect("it asked to be in");
        let offset = text["offset"].as_u64().expect("an offset");
        let Some((epoch, last)) = &mut book.cursor else { panic!("{text} without a beginning") };
        assert_eq!(offset, *last + 1, "client {at} after {last}: {text}");
        *last = offset;
        let number = text["payload"].as_u64().expect("a number");
        let known = self.known.entry((room.to_owned(), epoch.clone(), offset)).or_insert(number);
        assert_eq!(*known, number, "one publication under one cursor");
    }

    fn hang_up(&mut self, at: usize) {
        let Some((shard, conn)) = self.clients[at].place.take() else { return };
        let error = std::io::ErrorKind::ConnectionReset.into();
        self.rigs[shard].stalled.remove(&conn);
        self.rigs[shard].event(crate::contract::Event::Lost { conn, error });
        for book in self.clients[at].books.values_mut() {
            (book.asked, book.follows) = (0, false);
        }
    }

    /// A place on that shard, and all rooms joined by one message.
    fn come(&mut self, at: usize, shard: usize) {
        let shard = shard % self.rigs.len();
        let conn = self.rigs[shard].open();
        self.turn(shard);
        self.clients[at].place = Some((shard, conn));
        let mut rooms = Vec::new();
        for (room, book) in self.clients[at].books.iter_mut().filter(|(_, book)| book.wants) {
            let Some((epoch, offset)) = &book.cursor else {
                book.wants = false;
                continue;
            };
            rooms.push(json!({"room": room, "since": {"epoch": epoch, "offset": offset}}));
            book.asked += 1;
        }
        if !rooms.is_empty() {
            let text = json!({"type": "throng:restore", "rooms": rooms, "ref": 1}).to_string();
            self.rigs[shard].say(conn, &text);
        }
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Turn(shard) => self.turn(shard % self.rigs.len()),
            Step::Mail(shard, count) => self.take_mail(shard % self.rigs.len(), count),
            Step::Wait(millis) => {
                self.rigs.iter_mut().for_each(|rig| rig.later(Duration::from_millis(millis)));
            }
            Step::Drop(at, shard) => {
                self.listen(at);
                self.hang_up(at);
                self.come(at, shard);
            }
            Step::Publish(at, room, count) => {
                let Some((shard, conn)) = self.clients[at].place else { return };
                for _ in 0..count {
                    let text = publish(&[&name(room)], &self.published.to_string());
                    self.published += 1;
                    self.rigs[shard].say(conn, &text);
                }
            }
            Step::Join(at, room) => {
                let Some((shard, conn)) = self.clients[at].place else { return };
                let room = name(room);
                let book = self.clients[at].books.entry(room.clone()).or_default();
                if book.wants {
                    return;
                }
                (book.wants, book.asked) = (true, book.asked + 1);
                let mut text = json!({"type": "throng:join", "room": room, "ref": 1});
                if let Some((epoch, offset)) = &book.cursor {
                    text["since"] = json!({"epoch": epoch, "offset": offset});
                }
                self.rigs[shard].say(conn, &text.to_string());
            }
            Step::Leave(at, room) => {
                let Some((shard, conn)) = self.clients[at].place else { return };
                let room = name(room);
                let Some(book) = self.clients[at].books.get_mut(&room) else { return };
                // Only from where it stands: what is on its way would still be heard.
                if book.wants && book.asked == 0 && book.follows {
                    self.rigs[shard].stalled.remove(&conn);
                    let text = json!({"type": "throng:leave", "room": room}).to_string();
                    self.rigs[shard].say(conn, &text);
                    (0..200).for_each(|_| self.turn(shard));
                    if let Some(book) = self.clients[at].books.get_mut(&room) {
                        (book.wants, book.follows) = (false, false);
                    }
                }
            }
            Step::Stall(at) => {
                let Some((shard, conn)) = self.clients[at].place else { return };
                if !self.rigs[shard].stalled.remove(&conn) {
                    self.rigs[shard].stalled.insert(conn);
                }
            }
        }
    }

    /// Everything arrives; whoever is away comes back.
    fn settle(&mut self) {
        self.rigs.iter_mut().for_each(|rig| rig.stalled.clear());
        for _ in 0..2 {
            for _ in 0..300 {
                for at in 0..self.rigs.len() {
                    self.turn(at);
                    self.take_mail(at, 100);
                }
            }
            for at in 0..CLIENTS {
                if self.clients[at].place.is_none() {
                    self.come(at, at);
                }
            }
        }
    }

    fn judge(&self) {
        for (at, client) in self.clients.iter().enumerate() {
            for (room, book) in client.books.iter().filter(|(_, book)| book.wants) {
                assert_eq!(book.asked, 0, "client {at} has its answers");
                let mut homes =
                    self.rigs.iter().filter_map(|rig| rig.shard.rooms.directory.position(room));
                let (epoch, offset) = homes.next().expect("a room with members exists");
                assert_eq!(
                    book.cursor,
                    Some((format!("{epoch:x}"), offset)),
                    "client {at} in {room}"
                );
            }
        }
        for rig in &self.rigs {
            let counters = rig.shard.counters();
            assert_eq!(
                (counters.replays, counters.restores),
                (0, 0),
                "nothing is left to be asked"
            );
        }
    }
}

fn name(room: usize) -> String {
    format!("room {room}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_missed_or_repeated_however_clients_come_and_go(
        shards in 2..4usize,
        count in prop_oneof![Just(5u32), Just(1000)],
        steps in steps(),
    ) {
        let mut story = Story::new(shards, count);
        (0..CLIENTS).for_each(|at| story.come(at, at));
        for step in &steps {
            story.act(step);
        }
        story.settle();
        story.judge();
    }
}
