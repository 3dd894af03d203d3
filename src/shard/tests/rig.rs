//! One shard with a hand on everything that goes in and out of it.
//!
//! The rig plays driver, clients, clock and mesh. A write is taken whole as soon as a turn is over,
//! unless its connection is stalled; a close is confirmed as soon as the next turn begins. Frames are
//! read and written by a few lines of their own, so that a fault of the codec cannot hide here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::auth::{KeySet, Ruling, Who};
use crate::base::cursor::Cursor;
use crate::base::id::{ConnAddress, ConnId, NodeTag, ShardId};
use crate::base::outside::Handed;
use crate::base::shared::Overflow;
use crate::base::time::Time;
use crate::connection::{Routes, Timeouts};
use crate::contract::{Event, ListenerId, Op, SendBatch, SocketTicket};
use crate::flow::heartbeat::HeartbeatOptions;
use crate::flow::outbound::OutboundLimits;
use crate::hub::{Audience, Encoded, Origin, Publication, Terms};
use crate::session::CommandLimits;
use crate::shard::{
    Capacity, Echo, Identity, Limits, Mail, PresenceRules, RoomRules, Settings, Shard, Told,
};
use crate::wire::http::HeadLimits;
use crate::wire::websocket::DecodeLimits;

pub(super) use super::homes::{room_of, room_other_than, seed};

pub(super) const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An operation as the driver saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Open(ConnId),
    Refuse,
    /// With the number of frames.
    Send(ConnId, usize),
    Shutdown(ConnId),
    Pause(ConnId),
    Resume(ConnId),
    Look(ConnId),
    Close(ConnId, bool),
    HandOver(ConnId),
    Adopt(ConnId),
    ResumeAccept,
    StopAccepting,
}

/// A frame as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    Text(Value),
    Ping,
    Pong(Vec<u8>),
    Close(u16),
}

#[derive(Debug, Default)]
struct Wire {
    bytes: Vec<u8>,
    in_flight: Option<SendBatch>,
}

/// The shard and its world.
pub(super) struct Rig {
    pub(super) shard: Shard,
    pub(super) now: Time,
    /// What the last turn asked of the driver.
    pub(super) ops: Vec<Seen>,
    /// Mail that has left, by receiver.
    pub(super) post: Vec<(ShardId, Mail)>,
    /// The inboxes of these shards have no space.
    pub(super) full: BTreeSet<ShardId>,
    /// Writes to these connections do not end.
    pub(super) stalled: BTreeSet<ConnId>,
    /// Bytes of these connections' peers have arrived and were not reported.
    pub(super) unread: BTreeSet<ConnId>,
    /// Whether the driver confirms closes by itself.
    pub(super) confirms: bool,
    wires: BTreeMap<ConnId, Wire>,
    pub(super) going: Going,
    sockets: u32,
    /// Steps since the shard was checked, each counted as the connections that it may be worth looking at.
    unchecked: u64,
}

#[derive(Default)]
pub(super) struct Going {
    /// Connections whose sockets have come from others.
    pub(super) adopted: Vec<ConnId>,
    closing: Vec<ConnId>,
    /// Sockets that the driver has yet to let go of.
    leaving: Vec<ConnId>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shard.check();
        }
    }
}

pub(super) fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        routes: Routes {
            sessions: "/ws".to_owned(),
            streams: Some("/sse".to_owned()),
            packets: Some("/socket.io/".to_owned()),
            polling: None,
            history: Some("/history".to_owned()),
            echo: Some("/echo".to_owned()),
            deflate: false,
            pages: Arc::default(),
            fronts: Arc::default(),
            tls: None,
        },
        head: HeadLimits::default(),
        messages: DecodeLimits { message_bytes: 4096, fragments: 16, deflated: false },
        echo: Echo {
            messages: DecodeLimits { message_bytes: 1 << 20, fragments: 16, deflated: false },
            queue: OutboundLimits::default(),
        },
        commands: CommandLimits { allow_panic: true, ..CommandLimits::default() },
        timeouts: Timeouts {
            handshake: seconds(10),
            login: seconds(10),
            message: seconds(30),
            echo_message: seconds(30),
            close: seconds(5),
            idle: Duration::ZERO,
            queue_age: seconds(30),
            recall: Duration::ZERO,
            heartbeat: HeartbeatOptions::default(),
        },
        queue: OutboundLimits { high_water: 2000, low_water: 500, ..OutboundLimits::default() },
        rooms: RoomRules {
            per_connection: 8,
            overflow: Overflow::DropOldest,
            join: Who::Anyone,
            publish: Who::Anyone,
            open_everyone: true,
            open_connections: true,
            namespaces: Vec::new(),
            rates: Vec::new(),
            presence: PresenceRules::default(),
            shared: Vec::new(),
            schemas: Arc::default(),
            kinds: Vec::new(),
        },
        capacity: Capacity {
            connections: 2000,
            parked_mail: 8,
            memory: u64::MAX,
            flush_window: Duration::ZERO,
            reconnect_spread: seconds(4),
            told: Told::Nothing,
            outcomes: 256,
            tenants: 0,
            shelf: None,
            ids: None,
            compression: None,
        },
        access: Arc::default(),
        own_keys: KeySet::default(),
        limits: Limits::default(),
    }
}

impl Rig {
    /// The only shard of its node.
    pub(super) fn alone() -> Self {
        Self::new(0, 1, settings())
    }

    pub(super) fn new(id: u16, shards: u16, settings: Settings) -> Self {
        Self::new_in(NodeTag::NONE, id, shards, settings)
    }

    /// The same in a node that is one of several.
    pub(super) fn new_in(node: NodeTag, id: u16, shards: u16, settings: Settings) -> Self {
        let identity = Identity {
            node,
            id: ShardId(id),
            shards,
            seed: seed(),
            jitter: u64::from(id),
            epoch: 5,
            started_unix_ms: 0,
            capacity: 16,
        };
        Self {
            shard: Shard::new(identity, Arc::new(settings)),
            now: Time::ZERO.plus(Duration::from_secs(60)),
            ops: Vec::new(),
            post: Vec::new(),
            full: BTreeSet::new(),
            stalled: BTreeSet::new(),
            unread: BTreeSet::new(),
            confirms: true,
            wires: BTreeMap::new(),
            going: Going::default(),
            sockets: 0,
            unchecked: 0,
        }
    }

    /// One pass of the loop, in the order of `node::worker`.
    pub(super) fn turn(&mut self) {
        self.turn_after(false);
    }

    pub(super) fn turn_after(&mut self, busy: bool) {
        self.complete();
        self.ops.clear();
        self.shard.handle_timeout(self.now);
        let now = self.now;
        self.shard.shake_hands(now, &mut || now);
        self.check();
        self.shard.begin_writes(busy, self.now);
        while let Some(op) = self.shard.poll_op() {
            let seen = self.submit(op);
            self.ops.push(seen);
            self.check();
        }
        self.shard.poll_transfers(&mut |_, _| Some(0));
        let (post, full) = (&mut self.post, &self.full);
        self.shard.poll_mail(&mut |to, mail| {
            if full.contains(&to) {
                return Err(mail);
            }
            post.push((to, mail));
            Ok(())
        });
        self.check();
    }

    /// Checks the whole shard: after each step while it has up to 64 connections, and a crowd as often less as it is larger.
    fn check(&mut self) {
        self.unchecked += 64;
        if self.unchecked >= self.shard.counters().open_connections {
            self.unchecked = 0;
            self.shard.check();
        }
    }

    /// Turns until nothing more is asked for.
    pub(super) fn settle(&mut self) {
        for _ in 0..64 {
            self.turn();
            if self.ops.is_empty() && !self.shard.has_carriers_ready() {
                return;
            }
        }
        panic!("64 turns and still {:?}", self.ops);
    }

    pub(super) fn later(&mut self, wait: Duration) {
        self.now = self.now.plus(wait);
    }

    /// Reports the writes that have ended and the closes.
    pub(super) fn complete(&mut self) {
        let stalled = &self.stalled;
        let ended: Vec<(ConnId, SendBatch)> = self
            .wires
            .iter_mut()
            .filter(|(conn, _)| !stalled.contains(conn))
            .filter_map(|(conn, wire)| wire.in_flight.take().map(|batch| (*conn, batch)))
            .collect();
        for (conn, mut batch) in ended {
            let bytes = batch.left();
            batch.clear();
            self.event(Event::Sent { conn, batch, bytes });
        }
        if self.confirms {
            for conn in std::mem::take(&mut self.going.closing) {
                self.confirm(conn);
            }
            for conn in std::mem::take(&mut self.going.leaving) {
                self.event(Event::HandedOver { conn, socket: nothing() });
            }
        }
    }

    /// The driver's last word about a connection.
    pub(super) fn confirm(&mut self, conn: ConnId) {
        self.wires.get_mut(&conn).expect("a connection").in_flight = None;
        self.event(Event::Closed { conn });
    }

    pub(super) fn event(&mut self, event: Event<'_>) {
        self.shard.handle_event(event, self.now);
        self.check();
    }

    pub(super) fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Transfer(transfer) => {
                let socket = Some(nothing());
                self.shard.handle_transfer(transfer.1, socket, self.now);
            }
            mail => self.shard.handle_mail(mail, self.now),
        }
        self.check();
    }

    /// The questions that have left for the application's back end: their numbers and documents.
    pub(super) fn asked(&mut self) -> Vec<(u64, Value)> {
        let mut asked = Vec::new();
        self.shard.poll_inquiries(&mut |inquiry| {
            let document = serde_json::from_slice(&inquiry.document).expect("JSON");
            asked.push((inquiry.number, document));
            Ok(())
        });
        asked
    }

    /// The back end's answer to a question.
    pub(super) fn rule(&mut self, number: u64, answer: &str) {
        let ruling = Ruling::read(answer.as_bytes()).unwrap_or(Ruling::Undecided);
        self.take(Mail::Ruling(Box::new((number, ruling))));
        self.settle();
    }

    /// A socket arrives; its connection, unless it was refused.
    pub(super) fn accept(&mut self) -> Option<ConnId> {
        self.accept_by(ListenerId(0), None)
    }

    pub(super) fn accept_on(&mut self, listener: ListenerId) -> Option<ConnId> {
        self.accept_by(listener, None)
    }

    /// The same, from an address.
    pub(super) fn accept_from(&mut self, peer: Option<&str>) -> Option<ConnId> {
        self.accept_by(ListenerId(0), peer)
    }

    fn accept_by(&mut self, listener: ListenerId, peer: Option<&str>) -> Option<ConnId> {
        self.sockets += 1;
        let peer = peer.map(|ip| SocketAddr::new(ip.parse().expect("an address"), 40_000));
        self.event(Event::Accepted { socket: SocketTicket(self.sockets), listener, peer });
        self.turn();
        self.ops.iter().find_map(|op| match op {
            Seen::Open(conn) => Some(*conn),
            _ => None,
        })
    }

    /// A client that has been greeted.
    pub(super) fn open(&mut self) -> ConnId {
        let conn = self.open_at("/ws");
        let greeting = self.heard(conn);
        let is_hello =
            matches!(&greeting[..], [Heard::Text(hello)] if hello["type"] == "throng:connected");
        assert!(is_hello, "{greeting:?}");
        conn
    }

    /// Sends the request from an address and says what comes back, up to its empty line.
    pub(super) fn knock(&mut self, peer: &str, lines: &str) -> (ConnId, String) {
        let conn = self.accept_from(Some(peer)).expect("let in");
        self.receive(conn, &head_with("/ws", lines));
        self.settle();
        (conn, self.response(conn))
    }

    /// The response that reached the client; what follows it stays.
    pub(super) fn response(&mut self, conn: ConnId) -> String {
        let bytes = &mut self.wires.get_mut(&conn).expect("a connection").bytes;
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        String::from_utf8(bytes.drain(..end).collect()).expect("text")
    }

    /// What has been written to a connection and not been read, as far as it is text.
    pub(super) fn unheard(&self, conn: ConnId) -> String {
        String::from_utf8_lossy(&self.wires[&conn].bytes).into_owned()
    }

    /// A client of the endpoint at `path` that has read the response and nothing behind it.
    pub(super) fn open_at(&mut self, path: &str) -> ConnId {
        let conn = self.accept().expect("let in");
        self.receive(conn, &head(path));
        self.settle();
        let bytes = &mut self.wires.get_mut(&conn).expect("a connection").bytes;
        assert!(bytes.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(bytes));
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
        bytes.drain(..end + 4);
        conn
    }

    /// A greeted client in a room; both ends have settled if the room's home is here.
    pub(super) fn member(&mut self, room: &str) -> ConnId {
        let conn = self.open();
        self.say(conn, &format!(r#"{{"type":"throng:join","room":"{room}"}}"#));
        self.settle();
        conn
    }

    pub(super) fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.event(Event::Received { conn, bytes: &mut bytes });
    }

    /// A client sends a text message.
    pub(super) fn say(&mut self, conn: ConnId, text: &str) {
        self.receive(conn, &frame(0x81, text.as_bytes()));
    }

    /// Raw bytes that reached the client, and are taken.
    pub(super) fn bytes(&mut self, conn: ConnId) -> Vec<u8> {
        std::mem::take(&mut self.wires.get_mut(&conn).expect("a connection").bytes)
    }

    /// The frames that reached the client since the last call.
    pub(super) fn heard(&mut self, conn: ConnId) -> Vec<Heard> {
        frames(&self.bytes(conn))
    }

    /// The frames that these bytes are.
    pub(super) fn frames(&self, bytes: &[u8]) -> Vec<Heard> {
        frames(bytes)
    }

    /// The payloads of the publications that reached the client since the last call.
    pub(super) fn published(&mut self, conn: ConnId) -> Vec<Value> {
        let heard = self.heard(conn).into_iter();
        let publication = |frame| match frame {
            Heard::Text(mut push) => {
                push.get_mut("offset").is_some().then(|| push["payload"].take())
            }
            _ => None,
        };
        heard.filter_map(publication).collect()
    }

    /// The values of `key` in the texts of that type that reached the client since the last call.
    pub(super) fn told(&mut self, conn: ConnId, kind: &str) -> Vec<Value> {
        let heard = self.heard(conn).into_iter();
        let text = |frame| match frame {
            Heard::Text(push) if push["type"] == kind => Some(push),
            _ => None,
        };
        heard.filter_map(text).collect()
    }

    /// How many writes the last turn made for a connection, and the frames in them.
    pub(super) fn writes(&self, to: ConnId) -> Vec<usize> {
        let frames = self.ops.iter().filter_map(|op| match op {
            Seen::Send(conn, frames) if *conn == to => Some(*frames),
            _ => None,
        });
        frames.collect()
    }

    /// True once the end of the connection has begun, or it is over.
    pub(super) fn table_is_closing(&mut self, conn: ConnId) -> bool {
        !self.shard.table.get(conn).is_some_and(|connection| connection.is_living())
    }

    pub(super) fn address(&self, conn: ConnId) -> ConnAddress {
        self.shard.address(conn)
    }

    fn submit(&mut self, op: Op) -> Seen {
        match op {
            Op::Open { conn, .. } => {
                self.wires.insert(conn, Wire::default());
                Seen::Open(conn)
            }
            Op::Adopt { conn, .. } => {
                self.wires.insert(conn, Wire::default());
                self.going.adopted.push(conn);
                Seen::Adopt(conn)
            }
            Op::Refuse { .. } => Seen::Refuse,
            Op::Send { conn, batch } => {
                let wire = self.wires.get_mut(&conn).expect("a connection");
                assert!(wire.in_flight.is_none(), "two writes in flight");
                assert!(!batch.is_done(), "an empty write");
                let frames = usize::try_from(batch.frames()).expect("few");
                wire.bytes.extend(batch.slices().flatten());
                wire.in_flight = Some(batch);
                Seen::Send(conn, frames)
            }
            Op::ShutdownWrite { conn } => Seen::Shutdown(conn),
            Op::PauseReads { conn } => Seen::Pause(conn),
            Op::ResumeReads { conn } => Seen::Resume(conn),
            Op::Look { conn } => {
                let unread = self.unread.contains(&conn);
                self.event(Event::Looked { conn, unread });
                Seen::Look(conn)
            }
            Op::HandOver { conn } => {
                assert!(self.wires[&conn].in_flight.is_none(), "handed over in full flight");
                self.going.leaving.push(conn);
                Seen::HandOver(conn)
            }
            Op::Close { conn, abort } => {
                assert!(!self.going.closing.contains(&conn), "closed twice");
                self.going.closing.push(conn);
                Seen::Close(conn, abort)
            }
            Op::ResumeAccept => Seen::ResumeAccept,
            Op::StopAccepting => Seen::StopAccepting,
        }
    }
}

/// A socket of which nobody asks more than that it is there.
fn nothing() -> Handed {
    Handed::new(std::fs::File::open("/dev/null").expect("a file").into())
}

/// The frames in what a client received.
pub(super) fn frames(bytes: &[u8]) -> Vec<Heard> {
    let (mut heard, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (begin, length) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => panic!("nothing here is that long"),
            length => (2, usize::from(length)),
        };
        let payload = &rest[begin..begin + length];
        heard.push(match rest[0] {
            0x81 => Heard::Text(match serde_json::from_slice(payload) {
                Ok(text) => text,
                // A packet of Socket.IO.
                Err(_) => String::from_utf8(payload.to_vec()).expect("text").into(),
            }),
            0x88 => Heard::Close(u16::from_be_bytes([payload[0], payload[1]])),
            0x89 => Heard::Ping,
            0x8a => Heard::Pong(payload.to_vec()),
            other => panic!("a frame that begins with {other:#x}"),
        });
        rest = &rest[begin + length..];
    }
    heard
}

fn head(path: &str) -> Vec<u8> {
    head_with(path, "")
}

/// The same with more header lines.
pub(super) fn head_with(path: &str, lines: &str) -> Vec<u8> {
    let rest = HEAD.strip_prefix(b"GET /ws").expect("a head for sessions");
    let rest = rest.strip_suffix(b"\r\n").expect("an empty line");
    [b"GET ", path.as_bytes(), rest, lines.as_bytes(), b"\r\n"].concat()
}

/// A masked client frame; the first byte is final bit and opcode.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).expect("a short payload").to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A draft without a payload, as it comes by mail.
pub(super) fn draft(room: &str, to: Audience, origin: Origin) -> Publication {
    Publication {
        room: room.into(),
        to,
        cursor: Cursor::default(),
        at: Time::ZERO,
        kind: serde_json::from_str(r#""x""#).expect("JSON"),
        payload: None,
        id: None,
        overflow: Overflow::DropOldest,
        key: 0,
        origin,
        terms: Terms::default(),
        encoded: Encoded::default(),
    }
}

/// A publication of `payload` to rooms.
pub(super) fn publish(rooms: &[&str], payload: &str) -> String {
    format!(r#"{{"type":"t","rooms":{rooms:?},"payload":{payload}}}"#)
}
