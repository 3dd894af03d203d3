//! A client that goes on: it publishes, keeps what it sees, and comes back to any node with its cursors.
//!
//! Half of the clients send again, under the same identifier, what nobody has answered; the others let it be. So
//! of the one half everything is acknowledged in the end, and of the other at most once there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

use crate::ledger::Ledger;
use crate::stage::{CLIENTS, LEAVING, PLAIN, Place, SHARED, Stage, act, clock, pass};
use crate::token;

/// Between two publications of a client.
const PACE: Duration = Duration::from_millis(60);
/// How long a handshake may take, and a write.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// How long a read waits before the client does something else.
const READ: Duration = Duration::from_millis(10);
/// Publications without an answer after which a client waits.
const MOST_OPEN: usize = 64;

/// A publication without an answer.
struct Open {
    /// Its room: one with a shared history first, then those without.
    room: usize,
    payload: Value,
    /// The connection over which it was sent first, and its number there.
    number: (u64, u64),
    /// It was sent over an earlier connection.
    is_again: bool,
}

/// The client.
pub(crate) struct Client<'a> {
    number: usize,
    stage: &'a Stage,
    rng: Rng,
    ledger: Ledger,
    /// The epoch of each room with a shared history, once it is known.
    epochs: [Option<Value>; SHARED.len()],
    /// Publications over this connection.
    published: u64,
    again: Vec<Open>,
}

/// One connection.
struct Life {
    wire: WebSocket<TcpStream>,
    next_ref: u64,
    open: BTreeMap<u64, Open>,
    /// Joins without an answer, by `ref`, and rooms to be joined.
    joins: BTreeMap<u64, usize>,
    to_join: Vec<usize>,
    /// The number of the next word in each room without a shared history.
    words: [u64; PLAIN.len()],
    has_closed: bool,
    next: Instant,
}

fn room_name(room: usize) -> &'static str {
    SHARED.get(room).copied().unwrap_or_else(|| PLAIN[room - SHARED.len()])
}

fn room_number(name: &Value) -> Option<usize> {
    (0..SHARED.len() + PLAIN.len()).find(|room| name == room_name(*room))
}

impl<'a> Client<'a> {
    pub(crate) fn new(number: usize, stage: &'a Stage, seed: u64) -> Self {
        Self {
            number,
            stage,
            rng: Rng::with_seed(seed.wrapping_add(number as u64)),
            ledger: Ledger::default(),
            epochs: Default::default(),
            published: 0,
            again: Vec::new(),
        }
    }

    /// Goes on until all is over.
    pub(crate) fn live(mut self) -> Ledger {
        while !self.is_over() {
            let node = self.rng.usize(..self.stage.doors.len());
            let Some(wire) = self.connect(node) else {
                pass(Duration::from_millis(20));
                continue;
            };
            self.place().node.store(node, Ordering::Release);
            self.ledger.begin();
            self.published = 0;
            let mut life = self.begin(wire);
            let ending = self.stay(&mut life);
            self.place().is_settled.store(false, Ordering::Release);
            if ending.is_none() {
                self.ledger.end_for_good();
            }
            self.ledger.end();
            self.leave_open(life);
        }
        self.ledger
    }

    fn place(&self) -> &'a Place {
        &self.stage.places[self.number]
    }

    fn is_over(&self) -> bool {
        let leaves = self.number >= CLIENTS - LEAVING;
        self.stage.act() >= if leaves { act::LEAVE } else { act::OVER }
    }

    fn connect(&self, node: usize) -> Option<WebSocket<TcpStream>> {
        let address = self.stage.doors[node];
        let stream = TcpStream::connect_timeout(&address, HANDSHAKE).ok()?;
        stream.set_read_timeout(Some(HANDSHAKE)).ok()?;
        stream.set_write_timeout(Some(HANDSHAKE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        let claims = json!({"sub": format!("u{}", self.number), "rooms": ["*"]});
        let bearer = format!("Bearer {}", token(&claims));
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "throng.v1.json".parse().unwrap());
        headers.insert("authorization", bearer.parse().unwrap());
        let (wire, _) = tungstenite::client(request, stream).ok()?;
        wire.get_ref().set_read_timeout(Some(READ)).ok()?;
        Some(wire)
    }

    fn begin(&self, wire: WebSocket<TcpStream>) -> Life {
        let to_join = (0..SHARED.len() + PLAIN.len()).collect();
        Life {
            wire,
            next_ref: 0,
            open: BTreeMap::new(),
            joins: BTreeMap::new(),
            to_join,
            words: [0; PLAIN.len()],
            has_closed: false,
            next: clock(),
        }
    }

    /// Stays until the connection is lost, and why; `None` when all is over.
    fn stay(&mut self, life: &mut Life) -> Option<Error> {
        loop {
            if self.is_over() {
                return None;
            }
            if self.place().is_chased.swap(false, Ordering::AcqRel) {
                return Some(Error::ConnectionClosed);
            }
            if let Err(error) = self.act(life) {
                return Some(error);
            }
            match life.wire.read() {
                Ok(Message::Text(text)) => {
                    let message = serde_json::from_str(&text).expect("JSON");
                    self.take(life, &message);
                }
                Ok(_) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Some(error),
            }
        }
    }

    /// Does what is due.
    fn act(&mut self, life: &mut Life) -> Result<(), Error> {
        let waits = life.open.len() + life.joins.len() + life.to_join.len() + self.again.len();
        self.place().is_settled.store(waits == 0, Ordering::Release);
        let now = clock();
        if now < life.next {
            return Ok(());
        }
        life.next = now + PACE;
        for room in std::mem::take(&mut life.to_join) {
            self.join(life, room)?;
        }
        while !self.again.is_empty() {
            let open = self.again.remove(0);
            self.send(life, open)?;
        }
        match self.stage.act() {
            act::STORM if life.open.len() < MOST_OPEN => {
                let room = self.rng.usize(..SHARED.len() + PLAIN.len());
                self.publish(life, room)
            }
            act::CLOSE if !life.has_closed => {
                life.has_closed = true;
                (SHARED.len()..SHARED.len() + PLAIN.len())
                    .try_for_each(|room| self.publish(life, room))
            }
            _ => Ok(()),
        }
    }

    fn join(&mut self, life: &mut Life, room: usize) -> Result<(), Error> {
        life.next_ref += 1;
        let mut join =
            json!({"type": "throng:join", "room": room_name(room), "ref": life.next_ref});
        if let Some(Some(epoch)) = self.epochs.get(room) {
            join["since"] = json!({"epoch": epoch, "offset": self.ledger.seen[room].len()});
        }
        life.joins.insert(life.next_ref, room);
        life.wire.send(Message::text(join.to_string()))
    }

    fn publish(&mut self, life: &mut Life, room: usize) -> Result<(), Error> {
        self.published += 1;
        let payload = match room.checked_sub(SHARED.len()) {
            None => json!([self.number, self.ledger.connections, self.published]),
            Some(plain) => {
                life.words[plain] += 1;
                let is_last = self.stage.act() == act::CLOSE;
                json!([self.number, self.ledger.connections, life.words[plain], is_last])
            }
        };
        let number = (self.ledger.connections, self.published);
        self.send(life, Open { room, payload, number, is_again: false })
    }

    fn send(&mut self, life: &mut Life, open: Open) -> Result<(), Error> {
        life.next_ref += 1;
        let message = json!({
            "type": "m", "room": room_name(open.room), "payload": open.payload,
            "id": format!("{}-{}", open.number.0, open.number.1), "ref": life.next_ref,
        });
        life.open.insert(life.next_ref, open);
        life.wire.send(Message::text(message.to_string()))
    }

    /// The connection is lost, and what was not answered never will be.
    fn leave_open(&mut self, life: Life) {
        let insists = self.number % 2 == 1;
        let mut again = Vec::new();
        for open in life.open.into_values().filter(|open| open.room < SHARED.len()) {
            if insists {
                // What waited to be sent again was not sent before these.
                again.push(Open { is_again: true, ..open });
            } else {
                self.ledger.unknown += 1;
            }
        }
        again.append(&mut self.again);
        self.again = again;
    }

    fn take(&mut self, life: &mut Life, message: &Value) {
        let reference = message["ref"].as_u64().unwrap_or(0);
        if let Some(room) = life.joins.remove(&reference) {
            return self.joined(life, room, message);
        }
        if let Some(open) = life.open.remove(&reference) {
            return self.answered(open, message);
        }
        let room = room_number(&message["room"]);
        match (message["type"].as_str(), room) {
            (Some("m"), Some(room)) => self.heard(room, message),
            (Some("throng:gap"), Some(room)) if room >= SHARED.len() => {
                self.ledger.told_gap(room - SHARED.len());
            }
            (Some("throng:connected"), _) => {}
            _ => self.ledger.troubles.push(message.to_string()),
        }
    }

    fn joined(&mut self, life: &mut Life, room: usize, reply: &Value) {
        if reply["code"] == "overloaded" {
            return life.to_join.push(room);
        }
        let Some(epoch) = self.epochs.get_mut(room) else {
            assert_eq!(reply["ok"], true, "{reply}");
            return;
        };
        match epoch {
            None if reply["offset"] == 0 => *epoch = Some(reply["epoch"].clone()),
            Some(epoch) if reply["recovered"] == true && *epoch == reply["epoch"] => {}
            _ => self.ledger.troubles.push(format!("{epoch:?} joined as {reply}")),
        }
    }

    fn answered(&mut self, open: Open, reply: &Value) {
        let key = (self.number as u64, open.number.0, open.number.1);
        let is_refused = reply["code"] == "overloaded";
        if reply["ok"] != true && !is_refused {
            return self.ledger.troubles.push(format!("{} -> {reply}", open.payload));
        }
        match open.room.checked_sub(SHARED.len()) {
            None if is_refused && open.is_again => self.ledger.unknown += 1,
            None if is_refused => self.ledger.refused.push((open.room, key)),
            None => self.ledger.taken.push((open.room, key, reply["offset"].as_u64())),
            Some(plain) if is_refused => {
                let word = (
                    plain,
                    key.0,
                    open.payload[1].as_u64().unwrap(),
                    open.payload[2].as_u64().unwrap(),
                );
                self.ledger.refused_words.push(word);
            }
            Some(_) => {}
        }
    }

    fn heard(&mut self, room: usize, push: &Value) {
        let number = |at: usize| push["payload"][at].as_u64().unwrap();
        if let Some(plain) = room.checked_sub(SHARED.len()) {
            self.ledger.heard((plain, number(0), number(1), number(2)));
            if push["payload"][3] == true {
                self.place().closings.fetch_add(1, Ordering::AcqRel);
            }
            return;
        }
        self.ledger.saw(room, push["offset"].as_u64().unwrap(), (number(0), number(1), number(2)));
        self.place().offsets[room].store(self.ledger.seen[room].len() as u64, Ordering::Release);
    }
}
