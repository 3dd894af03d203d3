//! A shard without a kernel: what the engine itself adds to a delivery.
//!
//! Bytes go in as a driver would lend them, and every write is taken at once, so a round is one turn of
//! the loop without its system calls. Publications come as commands over a connection that is not in the
//! room; their frames are masked with zeros, which leaves them as they were for the next round.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use throng::base::id::{ConnId, ShardId};
use throng::base::map::Seed;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SocketTicket};
use throng::node::config::Config;
use throng::node::settings;
use throng::session::{CommandLimits, Protocol, Session};
use throng::shard::{Identity, Mail, Shard};

const MEMBERS: u32 = 1000;

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

const JOIN: &str = r#"{"type":"throng:join","room":"lobby"}"#;

/// A publication with about 64 bytes of payload.
const PUBLISH: &str = concat!(
    r#"{"type":"chat","room":"lobby","payload":"#,
    r#"{"from":"ada","text":"a line of some forty characters or so"}}"#
);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    fan_out(&mut criterion);
    command(&mut criterion);
    criterion.final_summary();
}

/// A text frame from a client, with a mask of zeros.
fn text(payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    let length = length.unwrap_or_else(|| panic!("{} bytes need a longer header", payload.len()));
    [&[0x81, 0x80 | length, 0, 0, 0, 0], payload.as_bytes()].concat()
}

/// A node of one shard, its kernel and its mesh.
struct Rig {
    shard: Shard,
    now: Time,
    opened: Vec<ConnId>,
    mail: Vec<Mail>,
    /// Bytes that connections were sent.
    sent: u64,
}

impl Rig {
    fn new(config: &Config) -> Self {
        let identity = Identity {
            node: throng::base::id::NodeTag::NONE,
            id: ShardId(0),
            shards: 1,
            seed: Seed::new(1),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 1_700_000_000_000,
            capacity: MEMBERS as usize + 1,
        };
        let mut settings = settings(config, 2 * MEMBERS as usize);
        // The publisher is faster than a client may be by default.
        settings.limits.connection = [None; throng::shard::COSTS];
        let settings = Arc::new(settings);
        let (opened, mail) = (Vec::new(), Vec::new());
        let now = Time::from_nanos(1);
        Self { shard: Shard::new(identity, settings), now, opened, mail, sent: 0 }
    }

    fn connect(&mut self) -> ConnId {
        let socket = SocketTicket(0);
        self.shard.handle_event(
            Event::Accepted { socket, listener: ListenerId(0), peer: None },
            self.now,
        );
        self.turn();
        let conn = self.opened.pop().unwrap_or_else(|| panic!("the shard refused the socket"));
        self.receive(conn, &mut HANDSHAKE.as_bytes().to_vec());
        self.turn();
        conn
    }

    fn receive(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.shard.handle_event(Event::Received { conn, bytes }, self.now);
    }

    /// Turns until nothing more is to be written and no mail is left.
    fn turn(&mut self) {
        let now = self.now;
        loop {
            self.shard.begin_writes(false, now);
            let mut idle = true;
            while let Some(op) = self.shard.poll_op() {
                idle = false;
                if let Some(event) = self.complete(op) {
                    self.shard.handle_event(event, now);
                }
            }
            let mail = &mut self.mail;
            self.shard.poll_mail(&mut |_, piece| {
                mail.push(piece);
                Ok(())
            });
            if idle && self.mail.is_empty() {
                return;
            }
            for piece in self.mail.drain(..) {
                self.shard.handle_mail(piece, now);
            }
        }
    }

    /// A kernel that takes everything at once.
    fn complete(&mut self, op: Op) -> Option<Event<'static>> {
        match op {
            Op::Open { conn, .. } => self.opened.push(conn),
            Op::Send { conn, mut batch } => {
                let bytes = batch.left();
                self.sent += bytes as u64;
                batch.clear();
                return Some(Event::Sent { conn, batch, bytes });
            }
            Op::Close { conn, .. } => return Some(Event::Closed { conn }),
            _ => {}
        }
        None
    }
}

/// A rig with a publisher and so many members of the room.
fn rig(members: u32, config: &Config) -> (Rig, ConnId) {
    let mut rig = Rig::new(config);
    let publisher = rig.connect();
    for _ in 0..members {
        let member = rig.connect();
        rig.receive(member, &mut text(JOIN));
        rig.turn();
    }
    assert_eq!(rig.shard.counters().memberships, u64::from(members));
    (rig, publisher)
}

fn fan_out(criterion: &mut Criterion) {
    gather(criterion, "fan-out to 1000 members", &Config::default());
    let mut forgetful = Config::default();
    forgetful.inside.explain.outcomes = 0;
    gather(criterion, "fan-out of which nothing is remembered", &forgetful);
}

fn gather(criterion: &mut Criterion, name: &str, config: &Config) {
    let mut group = criterion.benchmark_group(name);
    for publications in [1, 16, 128] {
        let (mut rig, publisher) = rig(MEMBERS, config);
        let mut commands = text(PUBLISH).repeat(publications);
        let deliveries = publications as u64 * u64::from(MEMBERS);
        group.throughput(Throughput::Elements(deliveries));
        group.bench_function(format!("{publications} publications in a turn"), |bencher| {
            bencher.iter(|| {
                let before = rig.shard.counters();
                rig.receive(publisher, black_box(&mut commands));
                rig.turn();
                let after = rig.shard.counters();
                assert_eq!(after.deliveries_total - before.deliveries_total, deliveries);
                assert_eq!(after.writes_total - before.writes_total, u64::from(MEMBERS));
            });
        });
        black_box(rig.sent);
    }
    group.finish();
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish command");
    let session = Session::new(Protocol::Json);
    let limits = CommandLimits::default();
    group.throughput(Throughput::Bytes(PUBLISH.len() as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| assert!(session.handle_text(black_box(PUBLISH), &limits).is_ok()));
    });
    let (mut rig, publisher) = rig(1, &Config::default());
    let mut frame = text(PUBLISH);
    group.bench_function("from the frame to one member's write", |bencher| {
        bencher.iter(|| {
            rig.receive(publisher, black_box(&mut frame));
            rig.turn();
        });
    });
    group.finish();
}
