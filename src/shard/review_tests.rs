//! A shard driven by hand, one event at a time: corners where something could be lost or last for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::{ConnId, ShardId};
use crate::base::map::Seed;
use crate::base::shared::Overflow;
use crate::base::time::Time;
use crate::connection::{Routes, Timeouts};
use crate::contract::{Event, Op, SendBatch, SocketTicket};
use crate::flow::heartbeat::HeartbeatOptions;
use crate::flow::outbound::OutboundLimits;
use crate::hub;
use crate::session::CommandLimits;
use crate::shard::{Capacity, Identity, Mail, RoomRules, Settings, Shard};
use crate::wire::http::HeadLimits;
use crate::wire::websocket::DecodeLimits;

const SEED: u64 = 7;
const MILLI: Duration = Duration::from_millis(1);
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

fn settings() -> Settings {
    let messages = DecodeLimits { message_bytes: 65_536, fragments: 64 };
    Settings {
        routes: Routes { sessions: "/ws".to_owned(), echo: Some("/echo".to_owned()), page: None },
        head: HeadLimits::default(),
        messages,
        echo_messages: messages,
        commands: CommandLimits::default(),
        timeouts: Timeouts {
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(30),
            echo_message: Duration::from_secs(120),
            close: Duration::from_secs(5),
            idle: Duration::ZERO,
            queue_age: Duration::from_secs(30),
            heartbeat: HeartbeatOptions::default(),
        },
        queue: OutboundLimits::default(),
        echo_queue: OutboundLimits::default(),
        rooms: RoomRules { per_connection: 16, overflow: Overflow::DropOldest, namespaces: vec![] },
        capacity: Capacity {
            connections: 10_000,
            parked_mail: 1024,
            flush_window: Duration::ZERO,
            reconnect_spread: Duration::from_secs(1),
        },
    }
}

/// A shard, the time, and what a driver would hold for it.
struct Rig {
    shard: Shard,
    now: Time,
    in_flight: BTreeMap<ConnId, SendBatch>,
    /// All bytes handed to the driver, per connection.
    written: BTreeMap<ConnId, Vec<u8>>,
    /// The operations that were no writes.
    ops: Vec<Op>,
}

impl Rig {
    fn new(settings: Settings, shards: u16) -> Self {
        let identity = Identity {
            id: ShardId(0),
            shards,
            seed: Seed::new(SEED),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 0,
            capacity: 16,
        };
        Self {
            shard: Shard::new(identity, Arc::new(settings)),
            now: Time::from_nanos(1_000_000_000),
            in_flight: BTreeMap::new(),
            written: BTreeMap::new(),
            ops: Vec::new(),
        }
    }

    /// Accepts a socket and upgrades it at `path`.
    fn open(&mut self, path: &str) -> ConnId {
        let conn = self.accept().expect("it is let in");
        self.upgrade(conn, path);
        self.turn();
        self.complete(conn);
        self.written.remove(&conn);
        conn
    }

    fn accept(&mut self) -> Option<ConnId> {
        let socket = SocketTicket(0);
        self.shard.handle_event(Event::Accepted { socket, peer: None }, self.now);
        self.turn();
        match self.ops.pop() {
            Some(Op::Open { conn, .. }) => Some(conn),
            _ => None,
        }
    }

    fn upgrade(&mut self, conn: ConnId, path: &str) {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        self.receive(conn, head.as_bytes());
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.shard.handle_event(Event::Received { conn, bytes: &mut bytes }, self.now);
        self.check();
    }

    fn say(&mut self, conn: ConnId, text: &str) {
        self.receive(conn, &frame(TEXT, text.as_bytes()));
    }

    /// One turn of the loop; what is written stays in flight until [`Rig::complete`].
    fn turn(&mut self) {
        self.shard.handle_timeout(self.now);
        self.shard.begin_writes(false, self.now);
        while let Some(op) = self.shard.poll_op() {
            match op {
                Op::Send { conn, batch } => {
                    let written = self.written.entry(conn).or_default();
                    batch.slices().for_each(|slice| written.extend_from_slice(slice));
                    assert!(self.in_flight.insert(conn, batch).is_none(), "two writes at once");
                }
                op => self.ops.push(op),
            }
        }
        self.check();
    }

    /// The check walks over everything; a test with thousands of connections does without.
    fn check(&self) {
        if self.shard.table.len() <= 64 {
            self.shard.check();
        }
    }

    /// The kernel takes what is in flight for `conn`.
    fn complete(&mut self, conn: ConnId) {
        if let Some(mut batch) = self.in_flight.remove(&conn) {
            let bytes = batch.left();
            batch.clear();
            self.shard.handle_event(Event::Sent { conn, batch, bytes }, self.now);
        }
    }

    /// Turns and completes until nothing is written any more.
    fn settle(&mut self) {
        loop {
            self.turn();
            let writing: Vec<ConnId> = self.in_flight.keys().copied().collect();
            if writing.is_empty() {
                return;
            }
            writing.into_iter().for_each(|conn| self.complete(conn));
        }
    }

    /// Offers the shard's mail to inboxes that are all full, or all empty.
    fn post(&mut self, full: bool) {
        self.shard.poll_mail(&mut |_, mail| if full { Err(mail) } else { Ok(()) });
    }

    fn pass(&mut self, wait: Duration) {
        self.now = self.now.plus(wait);
    }

    fn written(&self, conn: ConnId) -> String {
        let bytes = self.written.get(&conn).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()).ok().filter(|length| *length < 126) {
        Some(length) => bytes.push(0x80 | length),
        None => {
            bytes.push(0x80 | 126);
            let length = u16::try_from(payload.len()).expect("a short frame");
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A room whose home is that shard, of two.
fn room_at(home: u16) -> String {
    let seed = Seed::new(SEED);
    let mut names = (0..).map(|n| format!("room-{n}"));
    names.find(|name| hub::home(&seed, name, 2) == ShardId(home)).expect("some room")
}

#[test]
fn a_queue_relieved_by_dropping_is_read_from_again() {
    let mut settings = settings();
    settings.queue = OutboundLimits { high_water: 1000, low_water: 500, ..settings.queue };
    let mut rig = Rig::new(settings, 1);
    let (slow, publisher) = (rig.open("/ws"), rig.open("/ws"));
    rig.say(slow, r#"{"type":"throng:join","room":"r","ref":1}"#);
    rig.turn();
    let large = format!(r#"{{"type":"x","room":"r","payload":"{}"}}"#, "x".repeat(2000));
    rig.say(publisher, &large);
    rig.turn();
    assert!(matches!(rig.ops.pop(), Some(Op::PauseReads { conn }) if conn == slow));
    // The large one waits behind what is in flight, and the small one takes its place.
    rig.say(publisher, r#"{"type":"x","room":"r"}"#);
    rig.turn();
    rig.complete(slow);
    rig.settle();
    assert!(matches!(rig.ops.pop(), Some(Op::ResumeReads { conn }) if conn == slow));
    assert_eq!(rig.shard.counters().dropped_oldest_total, 1);
    assert!(rig.written(slow).contains("throng:gap"));
}

#[test]
fn whoever_publishes_into_an_overload_is_not_read_from_until_it_is_over() {
    let mut settings = settings();
    settings.capacity.parked_mail = 1;
    let mut rig = Rig::new(settings, 2);
    let (first, second) = (rig.open("/ws"), rig.open("/ws"));
    let publish = format!(r#"{{"type":"x","room":"{}","ref":1}}"#, room_at(1));
    rig.say(first, &publish);
    rig.post(true);
    rig.say(second, &publish);
    rig.settle();
    assert!(rig.written(second).contains("overloaded"));
    assert!(matches!(rig.ops.pop(), Some(Op::PauseReads { conn }) if conn == second));
    rig.post(false);
    rig.settle();
    assert!(matches!(rig.ops.pop(), Some(Op::ResumeReads { conn }) if conn == second));
}

#[test]
fn an_echoing_connection_hears_nothing_but_its_echo_before_the_close_frame() {
    let mut rig = Rig::new(settings(), 1);
    let (echo, session) = (rig.open("/echo"), rig.open("/ws"));
    rig.shard.handle_mail(Mail::Drain(Duration::from_secs(1)), rig.now);
    rig.settle();
    assert!(rig.written(session).contains("throng:reload"));
    assert_eq!(rig.written(echo), "");
}

#[test]
fn a_handshake_that_completes_during_a_drain_is_answered_503() {
    let mut rig = Rig::new(settings(), 1);
    let (_stays, late) = (rig.open("/ws"), rig.accept().expect("it is let in"));
    rig.shard.handle_mail(Mail::Drain(Duration::from_secs(1)), rig.now);
    rig.settle();
    rig.upgrade(late, "/ws");
    rig.settle();
    assert!(rig.written(late).starts_with("HTTP/1.1 503 "), "{}", rig.written(late));
}

#[test]
fn a_drain_of_many_closes_them_all_within_its_window_and_not_in_one_go() {
    const CLIENTS: usize = 4000;
    let window = 100 * MILLI;
    let mut rig = Rig::new(settings(), 1);
    let conns: Vec<ConnId> = (0..CLIENTS).map(|_| rig.accept().expect("let in")).collect();
    conns.iter().for_each(|conn| rig.upgrade(*conn, "/ws"));
    rig.shard.handle_mail(Mail::Drain(window), rig.now);
    let start = rig.now;
    let mut most = 0;
    while rig.shard.counters().open_connections > 0 {
        let before = rig.shard.counters().open_connections;
        rig.shard.handle_timeout(rig.now);
        most = most.max(before - rig.shard.counters().open_connections);
        rig.shard.begin_writes(false, rig.now);
        while rig.shard.poll_op().is_some() {}
        rig.pass(rig.shard.poll_timeout(rig.now).expect("a drain is a deadline"));
        assert!(rig.now.since(start) <= window, "{before} are left");
    }
    assert!(most <= 256, "{most} in one turn");
}

#[test]
fn connections_that_arrive_together_are_asked_apart_even_when_other_deadlines_are_shorter() {
    let mut settings = settings();
    settings.timeouts.message = Duration::from_secs(5);
    let mut rig = Rig::new(settings, 1);
    for _ in 0..64 {
        rig.open("/ws");
    }
    let mut most = 0;
    for _ in 0..300 {
        let before = rig.shard.counters().pings_total;
        rig.pass(100 * MILLI);
        rig.turn();
        most = most.max(rig.shard.counters().pings_total - before);
    }
    assert!(rig.shard.counters().pings_total >= 64);
    assert!(most < 32, "{most} pings within 100 ms");
}

#[test]
fn the_peers_close_frame_in_the_read_of_its_request_is_answered() {
    let mut rig = Rig::new(settings(), 1);
    let conn = rig.accept().expect("it is let in");
    let mut bytes = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    bytes.extend_from_slice(&frame(CLOSE, &1000_u16.to_be_bytes()));
    rig.receive(conn, &bytes);
    rig.shard.handle_event(Event::ReceivedEnd { conn }, rig.now);
    rig.settle();
    assert!(rig.written[&conn].ends_with(&[CLOSE, 2, 3, 0xe8]), "{}", rig.written(conn));
    assert!(matches!(rig.ops.pop(), Some(Op::Close { abort: false, .. })));
    assert_eq!(rig.shard.counters().closed_total, 1);
    rig.shard.handle_event(Event::Closed { conn }, rig.now);
    assert_eq!(rig.shard.counters().connections, 0);
}
