//! A million malformed messages against one shard: row A13.
//!
//! Good commands are damaged at random: bytes changed, pieces cut out, doubled or put in. A message that
//! is not UTF-8 must end its connection with 1007, a broken frame with 1002, one that is too long with 1009,
//! and a stranger's first that is no login with 1008; one that is not JSON
//! must be answered by exactly one typed error, and its connection lives. What is still JSON may mean
//! anything. After every connection the shard's invariants hold, and a bystander in the same room is
//! served as before. The judge of what JSON is, is not the engine's reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use throng::base::id::{ConnId, ShardId};
use throng::base::map::Seed;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SocketTicket};
use throng::node::config::Config;
use throng::shard::{Identity, Settings, Shard};

use crate::damage::{BROKEN, damaged, too_long};
use crate::tenants::guarded;

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A shard whose kernel takes everything at once.
struct Lone {
    shard: Shard,
    now: Time,
    opened: Option<ConnId>,
    /// What was written to the connection that is looked at.
    heard: Vec<u8>,
    listens_to: Option<ConnId>,
    closed: u64,
}

impl Lone {
    fn new(mut settings: Settings) -> Self {
        let identity = Identity {
            node: throng::base::id::NodeTag::NONE,
            id: ShardId(0),
            shards: 1,
            seed: Seed::new(1),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 0,
            capacity: 8,
        };
        // Every message is to be judged by what it says, however fast they come.
        settings.limits.connection = [None; throng::shard::COSTS];
        let shard = Shard::new(identity, Arc::new(settings));
        let now = Time::from_nanos(1);
        Self { shard, now, opened: None, heard: Vec::new(), listens_to: None, closed: 0 }
    }

    fn feed(&mut self, event: Event<'_>) {
        self.shard.handle_event(event, self.now);
    }

    fn connect(&mut self) -> ConnId {
        self.feed(Event::Accepted { socket: SocketTicket(0), listener: ListenerId(0), peer: None });
        self.pump();
        let conn = self.opened.take().expect("a place");
        self.listens_to = Some(conn);
        self.receive(conn, HANDSHAKE.as_bytes());
        assert!(self.heard.starts_with(b"HTTP/1.1 101 "));
        conn
    }

    /// Whoever broke no frame may answer the close frame, and is heard no more.
    fn say_goodbye(&mut self, conn: ConnId, ended: u64) {
        if self.closed < ended {
            self.receive(conn, &[0x88, 0x82, 0, 0, 0, 0, 3, 232]);
            assert!(self.heard.is_empty(), "{:?}", self.heard);
        }
    }

    /// A stranger says something else than who it is; the code that it is closed with.
    fn turn_away(&mut self, bytes: &[u8], shown: &str) -> u16 {
        let before = self.closed;
        let conn = self.connect();
        self.receive(conn, bytes);
        let code = close_code(&self.heard).unwrap_or_else(|| panic!("{shown} -> {:?}", self.heard));
        self.say_goodbye(conn, before + 1);
        assert_eq!(self.closed, before + 1, "the end is over: {shown}");
        assert_eq!(self.shard.counters().connections, 0);
        self.shard.check();
        code
    }

    /// Bytes arrive, and everything that follows from them happens.
    fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.now = self.now.plus(Duration::from_micros(1));
        self.heard.clear();
        self.feed(Event::Received { conn, bytes: &mut bytes.to_vec() });
        self.pump();
    }

    fn pump(&mut self) {
        loop {
            self.shard.begin_writes(false, self.now);
            let mut is_done = true;
            while let Some(op) = self.shard.poll_op() {
                is_done = false;
                self.act(op);
            }
            if is_done {
                return;
            }
        }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Open { conn, .. } => self.opened = Some(conn),
            Op::Send { conn, mut batch } => {
                if self.listens_to == Some(conn) {
                    batch.slices().for_each(|slice| self.heard.extend_from_slice(slice));
                }
                let bytes = batch.left();
                batch.clear();
                self.feed(Event::Sent { conn, batch, bytes });
            }
            Op::ShutdownWrite { conn } => self.feed(Event::ReceivedEnd { conn }),
            Op::Close { conn, .. } => {
                self.closed += 1;
                self.feed(Event::Closed { conn });
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }
}

/// A client's text frame, under a mask of zeros.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0xfe);
            frame.extend(u16::try_from(payload.len()).expect("a short message").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// What a server's close frame at the end of `bytes` says.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let at = bytes.windows(2).position(|pair| pair[0] == 0x88 && pair[1] >= 2)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

/// True when `bytes` are one text frame and nothing else.
fn is_one_error(bytes: &[u8]) -> bool {
    let (head, length) = match bytes {
        [0x81, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [0x81, short, ..] => (2, usize::from(*short)),
        _ => return false,
    };
    bytes.len() == head + length && bytes[head..].starts_with(br#"{"type":"throng:error""#)
}

#[test]
fn a_million_malformed_messages_yield_errors_and_closes_only() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut lone = Lone::new(throng::node::settings(&Config::default(), 8));
    // Here everybody must say who they are with their first message.
    let mut guard = Lone::new(guarded(&[r#"auth.sources=["message"]"#.to_owned()]));
    let bystander = lone.connect();
    let join = frame(br#"{"type":"throng:join","room":"lobby","ref":1}"#);
    lone.receive(bystander, &join);
    let mut conn = lone.connect();
    let (mut errors, mut ended, mut strangers) = (0u32, 0u32, 0u32);
    let mut codes = BTreeMap::<u16, u32>::new();
    while errors + ended + strangers < 1_000_000 {
        let message = damaged(&mut rng);
        let kind = rng.u32(0..768);
        let bytes = match kind {
            0 => BROKEN[rng.usize(..4)].to_vec(),
            1 => too_long(&mut rng),
            _ => frame(&message),
        };
        let shown = || String::from_utf8_lossy(&message).into_owned();
        if kind == 2 {
            let code = guard.turn_away(&bytes, &shown());
            assert_eq!(code, if std::str::from_utf8(&message).is_ok() { 1008 } else { 1007 });
            *codes.entry(code).or_default() += 1;
            strangers += 1;
            continue;
        }
        lone.receive(conn, &bytes);
        let fatal = match std::str::from_utf8(&message) {
            _ if kind == 0 => Some(1002),
            _ if kind == 1 => Some(1009),
            Err(_) => Some(1007),
            Ok(text) => {
                if serde_json::from_str::<IgnoredAny>(text).is_err() {
                    assert!(is_one_error(&lone.heard), "{} -> {:?}", shown(), lone.heard);
                    errors += 1;
                }
                None
            }
        };
        if let Some(code) = fatal {
            assert_eq!(close_code(&lone.heard), fatal, "{}", shown());
            ended += 1;
            *codes.entry(code).or_default() += 1;
            lone.say_goodbye(conn, u64::from(ended));
            assert_eq!(lone.closed, u64::from(ended), "the end is over: {}", shown());
            lone.shard.check();
            conn = lone.connect();
        }
    }
    let seen: Vec<u16> = codes.keys().copied().collect();
    assert_eq!(seen, [1002, 1007, 1008, 1009], "{codes:?}");
    assert!(codes.values().all(|times| *times > 500), "{codes:?}");
    assert!(errors > 100_000 && ended > 10_000, "{errors} errors and {ended} ends");
    lone.listens_to = Some(bystander);
    lone.receive(bystander, &frame(br#"{"type":"x","room":"lobby"}"#));
    assert!(String::from_utf8_lossy(&lone.heard).contains(r#"{"type":"x","room":"lobby""#));
    assert_eq!(lone.shard.counters().open_connections, 2);
    assert_eq!(lone.shard.counters().panics_total, 0);
}
