//! An interpreter of random operations over a node of two shards: events, time and mail, nothing else.
//!
//! The target plays driver, clients and mesh, and keeps the contract of `throng::contract` to the
//! letter, late events included; what the clients send is free. After every operation the invariants of
//! the shard are asserted. In the end every connection is lost and all mail arrives, and then nothing
//! may be left: no connection, room, membership, queued byte or parked mail.
//!
//! Two bytes make an operation: what, and to whom or how much. Some take what follows as well.

#![no_main]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use throng::base::id::{ConnId, ShardId};
use throng::base::map::Seed;
use throng::base::shared::Overflow;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SendBatch, SocketTicket};
use throng::flow::budget::Rate;
use throng::hub::HistoryLimits;
use throng::node::config::Config;
use throng::shard::{Identity, Mail, NamespaceRules, OverRate, Preface, RoomMemory, Settings, Shard};
use throng::wire::http::Via;

const SHARDS: u16 = 2;
/// Places in an inbox, few so that mail is parked.
const INBOX: usize = 2;
/// Connections of a shard above which no socket arrives.
const SOCKETS: usize = 24;

const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a proxy says ahead of it.
const PREFACE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n";

/// What clients that know the protocol say.
const SAYINGS: [&str; 12] = [
    r#"{"type":"throng:join","room":"a","ref":1}"#,
    r#"{"type":"throng:join","room":"b"}"#,
    r#"{"type":"throng:join","room":"c","ref":2}"#,
    r#"{"type":"throng:leave","room":"a"}"#,
    r#"{"type":"throng:leave","room":"c","ref":3}"#,
    r#"{"type":"t","room":"a","payload":"0123456789012345678901234567890123456789"}"#,
    r#"{"type":"t","room":"b","key":"k","payload":[1,2,3,4,5,6,7,8,9]}"#,
    r#"{"type":"t","rooms":["a","b","c"],"payload":{"a":"b"},"ref":4}"#,
    r#"{"type":"t","room":"drop","except":["0-0-0","1-1-3"],"payload":0}"#,
    r#"{"type":"throng:join","room":"drop"}"#,
    r#"{"type":"throng:members","room":"b","ref":5}"#,
    r#"{"type":"throng:ping"}"#,
];

/// The driver's side of one connection.
struct Link {
    conn: ConnId,
    in_flight: Option<SendBatch>,
    /// No byte may be reported any more.
    ended: bool,
    /// Nothing but `Closed` may be reported any more.
    lost: bool,
    /// The shard has asked for the end.
    closing: bool,
}

/// One shard, its driver and its two inboxes: requests, deliveries.
struct Place {
    shard: Shard,
    links: Vec<Link>,
    /// The last few connections that are over.
    gone: VecDeque<ConnId>,
    inbox: [VecDeque<Mail>; 2],
    /// Sockets that await an answer.
    offered: u32,
    accepting: bool,
}

fuzz_target!(|data: &[u8]| {
    let mut places = [0, 1].map(place);
    let mut now = Time::ZERO.plus(Duration::from_secs(60));
    let mut rest = data;
    while let [what, which, after @ ..] = rest {
        rest = after;
        let at = usize::from(*what >> 7);
        match what & 0x7f {
            16.. => now = now.plus(wait(*what & 0x7f, *which)),
            15 => turn(&mut places, at, *which & 1 == 1, now),
            14 => take_mail(&mut places[at], usize::from(*which), now),
            what => rest = places[at].happen(what, *which, rest, now),
        }
        places[at].shard.check();
    }
    finish(&mut places, now);
});

fn place(id: u16) -> Place {
    let identity = Identity {
        node: throng::base::id::NodeTag::NONE,
        id: ShardId(id),
        shards: SHARDS,
        seed: Seed::new(1),
        jitter: u64::from(id),
        epoch: 1,
        started_unix_ms: 0,
        capacity: 4,
    };
    Place {
        shard: Shard::new(identity, Arc::new(settings())),
        links: Vec::new(),
        gone: VecDeque::new(),
        inbox: Default::default(),
        offered: 0,
        accepting: true,
    }
}

/// Limits that a short input reaches.
fn settings() -> Settings {
    let mut settings = throng::node::settings(&Config::default(), 12);
    settings.queue.high_water = 600;
    settings.queue.low_water = 200;
    settings.queue.max_bytes = 2000;
    settings.messages.message_bytes = 256;
    settings.rooms.per_connection = 3;
    settings.rooms.overflow = Overflow::Conflate;
    let pattern = throng::base::glob::Glob::new("drop*");
    settings.rooms.namespaces = vec![NamespaceRules {
        pattern,
        overflow: Overflow::DropNew,
        join: None,
        publish: None,
        origins: None,
        memory: RoomMemory {
            history: Some(HistoryLimits { count: 5, bytes: 2000, age: Duration::from_secs(2) }),
            repeats: Duration::from_secs(1),
            waiting: 1500,
        },
        queued: 4000,
        write_delay: Duration::from_millis(100),
        payload: 0,
    }];
    settings.rooms.rates = vec![rate(3, 2)];
    settings.capacity.parked_mail = 6;
    settings.limits.connection = [rate(20, 8), rate(2000, 900), rate(2, 3), rate(9, 6)];
    settings.limits.over = OverRate::Delay;
    settings.limits.address.connections = 3;
    settings.limits.address.rates[0] = rate(30, 10);
    settings.limits.address.handshakes = rate(5, 5);
    settings.limits.door.handshakes = rate(8, 8);
    settings.limits.door.most = 10;
    settings.limits.outstanding = 2;
    settings.limits.clients.preface = Preface::Optional;
    settings.limits.clients.via = Via::XForwardedFor;
    settings.limits.clients.trusted = vec!["10.0.0.0/30".parse().expect("a network")];
    settings
}

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    Some(Rate { per_second, burst })
}

/// Where a socket comes from: nowhere, a proxy, or one of a few others.
fn peer(which: u8) -> Option<SocketAddr> {
    (which > 0).then(|| SocketAddr::from(([10, 0, 0, which % 8], 1)))
}

/// From a part of a tick to many times any limit.
fn wait(scale: u8, count: u8) -> Duration {
    let unit = match scale % 4 {
        0 => Duration::from_micros(100),
        1 => Duration::from_millis(20),
        2 => Duration::from_millis(300),
        _ => Duration::from_secs(3),
    };
    unit * u32::from(count)
}

impl Place {
    /// An event from the driver or the node. Returns the input that is left.
    fn happen<'a>(&mut self, what: u8, which: u8, rest: &'a [u8], now: Time) -> &'a [u8] {
        match what {
            0 if self.accepting && self.links.len() < SOCKETS => {
                self.offered += 1;
                let socket = SocketTicket(u32::from(which));
                let (listener, peer) = (ListenerId(0), peer(which));
                self.shard.handle_event(Event::Accepted { socket, listener, peer }, now);
            }
            1 if self.accepting => {
                let error = ErrorKind::OutOfMemory.into();
                self.accepting = false;
                self.shard.handle_event(Event::AcceptFailed { error }, now);
            }
            2..7 => return self.receive(what, which, rest, now),
            7 => self.with(which, |shard, link| {
                if let Some(mut batch) = link.in_flight.take_if(|_| !link.lost) {
                    let bytes = batch.left();
                    batch.clear();
                    shard.handle_event(Event::Sent { conn: link.conn, batch, bytes }, now);
                }
            }),
            8 => self.with(which, |shard, link| {
                if !link.ended {
                    link.ended = true;
                    shard.handle_event(Event::ReceivedEnd { conn: link.conn }, now);
                }
            }),
            9 => self.with(which, |shard, link| lose(shard, link, now)),
            10 => self.confirm(usize::from(which), now),
            11 => self.late(which, now),
            12 => {
                let conn = self.links.get(usize::from(which)).map(|link| link.conn);
                self.shard.handle_panic(conn, now);
            }
            13 if which >= 250 => {
                self.shard.handle_mail(Mail::Drain(Duration::from_secs(5)), now);
            }
            _ => {}
        }
        rest
    }

    fn with(&mut self, which: u8, act: impl FnOnce(&mut Shard, &mut Link)) {
        let count = self.links.len().max(1);
        if let Some(link) = self.links.get_mut(usize::from(which) % count) {
            act(&mut self.shard, link);
        }
    }

    /// Bytes of a client: a head, something sensible, control frames, or whatever follows.
    fn receive<'a>(&mut self, what: u8, which: u8, rest: &'a [u8], now: Time) -> &'a [u8] {
        let (mut bytes, rest) = match (what, rest) {
            (2, _) => (HEAD.to_vec(), rest),
            (6, [0, rest @ ..]) => (PREFACE.to_vec(), rest),
            (3 | 4, [saying, rest @ ..]) => {
                let saying = SAYINGS[usize::from(*saying) % SAYINGS.len()];
                (frame(0x81, saying.as_bytes()), rest)
            }
            (5, [opcode, rest @ ..]) => (frame(0x80 | (0x8 + opcode % 3), &[0x03, 0xe8]), rest),
            (_, [length, rest @ ..]) => {
                let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                (bytes.to_vec(), rest)
            }
            (_, []) => return rest,
        };
        self.with(which, |shard, link| {
            if !link.ended && !bytes.is_empty() {
                shard.handle_event(Event::Received { conn: link.conn, bytes: &mut bytes }, now);
            }
        });
        rest
    }

    /// The last word about a connection that the shard has closed.
    fn confirm(&mut self, which: usize, now: Time) {
        let closing = |link: &&Link| link.closing;
        let count = self.links.iter().filter(closing).count().max(1);
        let found = self.links.iter().filter(closing).nth(which % count).map(|link| link.conn);
        let Some(conn) = found else { return };
        self.links.retain(|link| link.conn != conn);
        self.shard.handle_event(Event::Closed { conn }, now);
        self.gone.push_front(conn);
        self.gone.truncate(8);
    }

    /// An answer that comes from another shard after its connection has gone, or a driver at fault.
    fn late(&mut self, which: u8, now: Time) {
        let Some(conn) = self.gone.get(usize::from(which) % 8).copied() else { return };
        let before = self.shard.counters().connections;
        self.shard.handle_event(Event::ReceivedEnd { conn }, now);
        self.shard.handle_event(Event::Lost { conn, error: ErrorKind::BrokenPipe.into() }, now);
        self.shard.handle_event(Event::Closed { conn }, now);
        assert_eq!(self.shard.counters().connections, before, "a late event reached somebody");
    }

    /// The connection that an operation names.
    fn link(&mut self, conn: ConnId) -> &mut Link {
        let link = self.links.iter_mut().find(|link| link.conn == conn);
        let link = link.expect("an operation on a connection that exists");
        assert!(!link.closing, "an operation after the close");
        link
    }

    fn submit(&mut self, op: Op, now: Time) {
        match op {
            Op::Open { conn, .. } => {
                self.offered -= 1;
                let is_free = self.links.iter().all(|link| link.conn.index != conn.index);
                assert!(is_free, "an index in use");
                let link =
                    Link { conn, in_flight: None, ended: false, lost: false, closing: false };
                self.links.push(link);
            }
            // Whoever is asked to let go of a socket closes it here.
            Op::Adopt { .. } => unreachable!("nobody lets go of a socket here"),
            Op::Refuse { .. } => self.offered -= 1,
            Op::Send { conn, batch } => {
                assert!(!batch.is_done(), "an empty write");
                assert!(self.link(conn).in_flight.replace(batch).is_none(), "two writes in flight");
            }
            // The FIN may be asked for behind a write that is in flight.
            Op::ShutdownWrite { conn } | Op::PauseReads { conn } | Op::ResumeReads { conn } => {
                self.link(conn);
            }
            Op::Look { conn } => {
                self.link(conn);
                self.shard.handle_event(Event::Looked { conn, unread: conn.index % 2 == 0 }, now);
            }
            Op::HandOver { conn } | Op::Close { conn, .. } => self.link(conn).closing = true,
            Op::ResumeAccept => self.accepting = true,
            Op::StopAccepting => self.accepting = false,
        }
    }
}

fn lose(shard: &mut Shard, link: &mut Link, now: Time) {
    if !link.lost {
        (link.lost, link.ended) = (true, true);
        let error = ErrorKind::ConnectionReset.into();
        shard.handle_event(Event::Lost { conn: link.conn, error }, now);
    }
}

/// A turn of one shard, in the order of the node's loop; mail is taken by operations of its own.
fn turn(places: &mut [Place; 2], at: usize, busy: bool, now: Time) {
    let place = &mut places[at];
    place.shard.handle_timeout(now);
    place.shard.shake_hands(now, &mut || now);
    place.shard.begin_writes(busy, now);
    while let Some(op) = place.shard.poll_op() {
        place.submit(op, now);
        place.shard.check();
    }
    assert_eq!(place.offered, 0, "a socket without an answer");
    let [left, right] = places;
    let (place, other) = if at == 0 { (left, right) } else { (right, left) };
    place.shard.poll_mail(&mut |to, mail| {
        assert_ne!(usize::from(to.0), at, "mail to itself");
        let inbox = &mut other.inbox[usize::from(!mail.is_request())];
        if inbox.len() >= INBOX {
            return Err(mail);
        }
        inbox.push_back(mail);
        Ok(())
    });
}

fn take_mail(place: &mut Place, most: usize, now: Time) {
    for _ in 0..most {
        let mut mail = place.inbox[1].pop_front();
        if mail.is_none() && place.shard.takes_requests() {
            mail = place.inbox[0].pop_front();
        }
        let Some(mail) = mail else { return };
        place.shard.handle_mail(mail, now);
    }
}

/// Everybody goes, all mail arrives, and nothing is left.
fn finish(places: &mut [Place; 2], now: Time) {
    for _ in 0..64 {
        for at in 0..2 {
            take_mail(&mut places[at], INBOX, now);
            turn(places, at, false, now);
            let place = &mut places[at];
            for link in &mut place.links {
                lose(&mut place.shard, link, now);
            }
            turn(places, at, false, now);
            let place = &mut places[at];
            while place.links.iter().any(|link| link.closing) {
                place.confirm(0, now);
            }
            place.shard.check();
        }
    }
    for place in places {
        let counters = place.shard.counters();
        assert!(place.links.is_empty() && counters.connections == 0, "connections are left");
        assert_eq!((counters.rooms, counters.memberships, counters.home_rooms), (0, 0, 0));
        assert_eq!((counters.queued_bytes, counters.parked_mail), (0, 0));
        assert_eq!(counters.parties, 0, "addresses are left");
        assert_eq!((counters.open_connections, counters.paused_connections), (0, 0));
    }
}

/// A masked client frame of fewer than 126 bytes; the mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}
