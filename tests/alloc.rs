#![expect(unsafe_code, reason = "what counts allocations is an allocator, and those are unsafe")]
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]
//! What costs memory and what does not: a shard under an allocator that counts.
//!
//! Two promises are held here. A publication costs the same number of allocations whether ten members
//! hear it or a thousand, for one in a turn and for sixteen, and whether the driver ends its writes at
//! once or a turn later. And a connection owns no heap once its greeting has been written: it is its
//! places in the tables that were reserved at the start, and nothing else. What a known user costs on top
//! is bounded here too, own room and another included, and what presence costs.
//!
//! Counts are kept per thread, so tests that run beside each other do not disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use throng::auth::{Access, Algorithm, Key, KeySet, Mode, Source};
use throng::base::id::{ConnId, ShardId};
use throng::base::map::Seed;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SendBatch, SocketTicket};
use throng::hub::{Roster, Stand};
use throng::node::config::{Config, Origin};
use throng::shard::{Identity, Settings, Shard};

/// The system's allocator, and counts of what this thread asked of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

/// A thread that ends may allocate after its counts are gone; then nobody looks at them any more.
fn count(allocations: u64, old: usize, new: usize) {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + allocations));
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + signed(new) - signed(old)));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with, so its promises
// are ours. Counting neither allocates (the cells are made at compile time) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0, layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size(), 0);
        // SAFETY: `pointer` came from the system's allocator with this layout, as all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, layout.size(), new_size);
        // SAFETY: as for `dealloc`; the caller keeps the rules about `new_size`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// When the driver says that a write has ended.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// While the operation is submitted, as epoll does.
    AtOnce,
    /// With the events of the next turn, as io_uring does.
    NextTurn,
}

/// A shard, the driver that takes everything, and the clock.
struct Rig {
    shard: Shard,
    now: Time,
    ends: Ends,
    opened: Vec<ConnId>,
    in_flight: Vec<(ConnId, SendBatch)>,
}

const HEAD: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Rig {
    fn new(ends: Ends, capacity: usize) -> Self {
        Self::with(ends, throng::node::settings(&Config::default(), capacity))
    }

    fn with(ends: Ends, mut settings: Settings) -> Self {
        // More is sent here than one client may send by default.
        settings.limits.connection = [None; throng::shard::COSTS];
        let capacity = settings.capacity.connections;
        let identity = Identity {
            node: throng::base::id::NodeTag::NONE,
            id: ShardId(0),
            shards: 1,
            seed: Seed::new(3),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 0,
            capacity,
        };
        Self {
            shard: Shard::new(identity, Arc::new(settings)),
            now: Time::ZERO.plus(Duration::from_secs(60)),
            ends,
            opened: Vec::with_capacity(capacity),
            in_flight: Vec::with_capacity(capacity),
        }
    }

    /// One pass of the loop. True when something was asked of the driver.
    fn turn(&mut self) -> bool {
        self.now = self.now.plus(Duration::from_millis(1));
        self.shard.handle_timeout(self.now);
        self.shard.begin_writes(false, self.now);
        let mut asked = false;
        while let Some(op) = self.shard.poll_op() {
            asked = true;
            match (op, self.ends) {
                (Op::Open { conn, .. }, _) => self.opened.push(conn),
                (Op::Send { conn, batch }, Ends::AtOnce) => self.sent(conn, batch),
                (Op::Send { conn, batch }, Ends::NextTurn) => self.in_flight.push((conn, batch)),
                (other, _) => panic!("{other:?}"),
            }
        }
        self.shard.poll_mail(&mut |_, mail| panic!("one shard has no mail: {mail:?}"));
        asked
    }

    fn complete(&mut self) {
        while let Some((conn, batch)) = self.in_flight.pop() {
            self.sent(conn, batch);
        }
    }

    fn sent(&mut self, conn: ConnId, mut batch: SendBatch) {
        let bytes = batch.left();
        batch.clear();
        self.shard.handle_event(Event::Sent { conn, batch, bytes }, self.now);
    }

    fn settle(&mut self) {
        self.complete();
        while self.turn() {
            self.complete();
        }
        assert!(self.in_flight.is_empty());
    }

    fn open(&mut self) -> ConnId {
        self.open_by(HEAD)
    }

    fn open_by(&mut self, head: &[u8]) -> ConnId {
        let accepted =
            Event::Accepted { socket: SocketTicket(0), listener: ListenerId(0), peer: None };
        self.shard.handle_event(accepted, self.now);
        self.turn();
        let conn = self.opened.pop().expect("let in");
        self.receive(conn, &mut head.to_vec());
        self.settle();
        conn
    }

    fn receive(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.shard.handle_event(Event::Received { conn, bytes }, self.now);
    }
}

/// A client frame whose mask changes nothing, of a text shorter than 126 bytes.
fn text(message: &str) -> Vec<u8> {
    let length = u8::try_from(message.len()).expect("a short text");
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], message.as_bytes()].concat()
}

/// The allocations of ten rounds with `publications` each, from the read to the last write, after as many
/// rounds to warm up.
fn allocations(ends: Ends, members: usize, publications: usize) -> u64 {
    let mut rig = Rig::new(ends, 2048);
    let publisher = rig.open();
    for _ in 0..members {
        let conn = rig.open();
        rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
        rig.settle();
    }
    let mut publish = text(r#"{"type":"t","room":"r","payload":{"a":1}}"#).repeat(publications);
    let mut rounds = |rig: &mut Rig| {
        for _ in 0..10 {
            rig.receive(publisher, &mut publish);
            rig.settle();
        }
    };
    rounds(&mut rig);
    let deliveries = rig.shard.counters().deliveries_total;
    let before = ALLOCATIONS.get();
    rounds(&mut rig);
    let after = ALLOCATIONS.get();
    let delivered = rig.shard.counters().deliveries_total - deliveries;
    assert_eq!(delivered, 10 * (members * publications) as u64, "everyone heard everything");
    rig.shard.check();
    after - before
}

#[test]
fn a_publication_allocates_nothing_per_receiver() {
    for ends in [Ends::AtOnce, Ends::NextTurn] {
        for publications in [1, 16] {
            let few = allocations(ends, 10, publications);
            let many = allocations(ends, 1000, publications);
            assert_eq!(few, many, "{publications} in a turn, writes end {ends:?}");
            let each = few / (10 * publications as u64);
            assert!((1..=14).contains(&each), "{each} allocations for a publication");
        }
    }
}

#[test]
fn an_idle_connection_owns_no_heap() {
    let mut rig = Rig::new(Ends::NextTurn, 2048);
    // The first ones make what all share: lists of a few places, the first chunk of the arena.
    for _ in 0..8 {
        rig.open();
    }
    let before = LIVE_BYTES.get();
    let mut last = None;
    for _ in 0..1000 {
        last = Some(rig.open());
    }
    assert_eq!(LIVE_BYTES.get() - before, 0, "bytes for a thousand connections");
    let conn = last.expect("a connection");
    rig.receive(conn, &mut [0x01, 0x81, 0, 0, 0, 0, b'a']);
    assert!(LIVE_BYTES.get() > before, "half a message is held, and counted");
    rig.receive(conn, &mut [0x80, 0x81, 0, 0, 0, 0, b'b']);
    rig.settle();
    assert_eq!(LIVE_BYTES.get() - before, 0, "and nothing is held after it");
    rig.shard.check();
}

#[test]
fn an_idle_connection_that_may_compress_owns_no_heap_either() {
    let sets = vec!["compression.enabled=true".to_owned()];
    let config = Origin { file: None, sets }.load().expect("a configuration");
    let mut rig = Rig::with(Ends::NextTurn, throng::node::settings(&config, 2048));
    let offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let head = [HEAD.strip_suffix(b"\r\n").expect("an empty line"), offer].concat();
    let mut deflator = throng::wire::websocket::Deflator::new(6);
    let mut small = |message: String| {
        let payload = deflator.deflate(message.as_bytes()).expect("it shrinks");
        let mut frame = text(&"x".repeat(payload.len()));
        frame[0] |= 0x40;
        frame.splice(6.., payload.iter().copied());
        frame
    };
    let long = "a".repeat(1000);
    let mut publish = small(format!(r#"{{"type":"t","room":"r","payload":"{long}"}}"#));
    let ping = small(format!(r#"{{"type":"throng:ping"{:900}}}"#, ""));
    // The first ones make what all share, compressor and decompressor included.
    for _ in 0..8 {
        let conn = rig.open_by(&head);
        rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
        rig.receive(conn, &mut publish);
        rig.receive(conn, &mut text(r#"{"type":"throng:leave","room":"r"}"#));
        rig.settle();
    }
    let counters = rig.shard.counters();
    assert_eq!((counters.inflated_messages_total, counters.deflated_messages_total), (8, 8));
    let before = LIVE_BYTES.get();
    for _ in 0..1000 {
        let conn = rig.open_by(&head);
        rig.receive(conn, &mut ping.clone());
        rig.settle();
    }
    assert_eq!(LIVE_BYTES.get() - before, 0, "bytes for a thousand connections");
    assert_eq!(rig.shard.counters().deflate_connections, 1008);
    rig.shard.check();
}

const SECRET: &[u8; 32] = b"a secret of no less than 32 byte";

/// The request of a user with a token as issuers write them.
fn head_of(user: usize) -> Vec<u8> {
    head_with(&format!(
        r#"{{"sub":"user-{user:08}","jti":"{user:032x}","iat":50,"exp":9000,"rooms":["r","team:*"]}}"#
    ))
}

/// The request of somebody with a token of these claims.
fn head_with(claims: &str) -> Vec<u8> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let line = format!("Authorization: Bearer {message}.{}\r\n\r\n", encode(tag.as_ref()));
    [&HEAD[..HEAD.len() - 2], line.as_bytes()].concat()
}

/// Settings under which everybody shows a token.
fn guarded(capacity: usize) -> Settings {
    let mut settings = throng::node::settings(&Config::default(), capacity);
    let mut access = Access { mode: Mode::Token, ..Access::default() };
    let key = Key::from_secret(Algorithm::Hs256, SECRET, None).expect("a key");
    access.verifier.keys = KeySet::new(vec![key]).expect("a set");
    access.sources.order = vec![Source::Header];
    settings.access = Arc::new(access);
    settings
}

#[test]
fn a_known_user_with_its_own_room_and_another_costs_a_bounded_number_of_bytes() {
    let settings = guarded(1 << 14);
    let mut rig = Rig::with(Ends::NextTurn, settings);
    rig.open_by(&head_of(0));
    let before = LIVE_BYTES.get();
    // On both sides of what would be a doubling of maps, where a place costs least and most, and of one of vectors.
    for users in [7000, 7400, 8300] {
        while rig.shard.counters().logins_total <= users {
            let user = usize::try_from(rig.shard.counters().logins_total).expect("few");
            let conn = rig.open_by(&head_of(user));
            rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
            rig.settle();
        }
        let each = (LIVE_BYTES.get() - before) / i64::try_from(users).expect("few");
        println!("{each} bytes for each of {users} users");
        assert!(each <= USER_BYTES, "{each} bytes for each of {users} users");
    }
}

#[test]
fn figures_by_tenant_allocate_nothing_for_a_message_and_nothing_for_a_publication() {
    let each = |tenants: usize| {
        let mut settings = guarded(64);
        settings.capacity.tenants = tenants;
        let mut rig = Rig::with(Ends::NextTurn, settings);
        let conns: Vec<ConnId> = (0..10)
            .map(|user| {
                let claims = format!(
                    r#"{{"sub":"{user}","tenant":"t{}","exp":9000,"rooms":["r"]}}"#,
                    user % 2
                );
                let conn = rig.open_by(&head_with(&claims));
                rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
                rig.settle();
                conn
            })
            .collect();
        let rounds = |rig: &mut Rig, rows: &mut usize| {
            for _ in 0..10 {
                for conn in &conns {
                    rig.receive(*conn, &mut text(r#"{"type":"t","room":"r","payload":{"a":1}}"#));
                }
                rig.settle();
                let ledger = rig.shard.measures().ledger();
                ledger.take(|name| name[1..].parse().ok(), |_, _| *rows += 1);
            }
        };
        let mut rows = 0;
        rounds(&mut rig, &mut rows);
        let before = ALLOCATIONS.get();
        rounds(&mut rig, &mut rows);
        (ALLOCATIONS.get() - before, rows)
    };
    let ((told, rows), (untold, none)) = (each(32), each(0));
    assert_eq!((rows, none), (40, 0), "two tenants in twenty rounds");
    assert_eq!(told, untold);
}

/// What a user with a long token id may cost in memory that was asked for.
const USER_BYTES: i64 = 200;

/// A shard whose rooms named `kept*` have a history of a thousand.
fn with_history(kept: bool) -> Rig {
    let mut settings = throng::node::settings(&Config::default(), 2048);
    if kept {
        let origin = Origin {
            file: None,
            sets: vec!["namespace=[{pattern=\"kept*\", history_count=1000}]".to_owned()],
        };
        settings = throng::node::settings(&origin.load().expect("a configuration"), 2048);
    }
    Rig::with(Ends::AtOnce, settings)
}

#[test]
fn a_room_with_a_thousand_entries_costs_what_is_charged_for_it() {
    let mut rig = with_history(true);
    let publisher = rig.open();
    let mut publish = text(r#"{"type":"t","room":"kept","payload":{"a":"01234567890123456789"}}"#);
    let warm = |rig: &mut Rig| {
        rig.receive(publisher, &mut text(r#"{"type":"t","room":"other","payload":1}"#));
        rig.settle();
    };
    warm(&mut rig);
    let before = LIVE_BYTES.get();
    for _ in 0..1000 {
        rig.receive(publisher, &mut publish);
        rig.settle();
    }
    let counters = rig.shard.counters();
    assert_eq!(counters.history_publications, 1000);
    let live = LIVE_BYTES.get() - before;
    let each = live / 1000;
    assert!(each <= HISTORY_ENTRY_BYTES, "{each} bytes for a publication that is kept");
    let charged = i64::try_from(counters.history_bytes).expect("few");
    println!("a thousand publications kept: {live} bytes live, {charged} charged");
    assert!((live - charged).abs() * 100 < live * 15, "{live} bytes live and {charged} charged");
    // The ring is full: what comes in its place costs nothing more.
    for _ in 0..1000 {
        rig.receive(publisher, &mut publish);
        rig.settle();
    }
    assert!((LIVE_BYTES.get() - before - live).abs() < 1000, "a full ring stays as it is");
    rig.now = rig.now.plus(Duration::from_secs(400));
    rig.settle();
    warm(&mut rig);
    let left = LIVE_BYTES.get() - before;
    assert!(left < 2000, "{left} bytes are left when it has aged out");
}

/// What a kept publication of 30 bytes may cost, its frame included.
const HISTORY_ENTRY_BYTES: i64 = 480;

#[test]
fn rooms_without_history_cost_the_same_whether_others_have_one() {
    let cost = |kept: bool| {
        let mut rig = with_history(kept);
        let conns: Vec<ConnId> = (0..1000).map(|_| rig.open()).collect();
        let before = LIVE_BYTES.get();
        for (conn, first) in conns.iter().zip((0..).step_by(100)) {
            for at in first..first + 100 {
                let join = format!(r#"{{"type":"throng:join","room":"room {at:06}"}}"#);
                rig.receive(*conn, &mut text(&join));
                rig.receive(*conn, &mut text(&format!(r#"{{"type":"t","room":"room {at:06}"}}"#)));
            }
            rig.settle();
        }
        let counters = rig.shard.counters();
        assert_eq!((counters.home_rooms, counters.history_rooms), (100_000, 0));
        LIVE_BYTES.get() - before
    };
    let (without, with) = (cost(false), cost(true));
    assert_eq!(without, with, "bytes for a hundred thousand rooms");
    let each = with / 100_000;
    println!("a room of one member without history: {each} bytes");
    assert!(each <= ROOM_BYTES, "{each} bytes for a room with one member, both its sides");
}

/// What a room of one member costs at its home and in the shard of its member, just below a doubling of maps.
const ROOM_BYTES: i64 = 200;

/// What presence of a user may cost beside the connection.
const PRESENCE_BYTES: i64 = 24;

#[test]
fn presence_of_a_million_users_costs_at_most_64_bytes_each() {
    let mut users = Roster::new(&Seed::new(3));
    let at = (Time::from_nanos(1), 1);
    let before = LIVE_BYTES.get();
    let mut come = |from: u32, to: u32| {
        for number in from..to {
            // The name is the connection's, and is not kept here.
            let name: Arc<str> = Arc::from(format!("user-{number:08}"));
            users.set(&name, ShardId(0), Stand::Active, at);
            users.set(&name, ShardId(1), Stand::Idle, at);
        }
        assert_eq!(users.len(), to as usize);
        (LIVE_BYTES.get() - before) / i64::from(to)
    };
    // On both sides of what would be a doubling of a map, where a user costs least and most, and a million.
    let full = come(0, 917_000);
    let grown = come(917_000, 918_000);
    let million = come(918_000, 1_000_000);
    for each in [full, grown, million] {
        assert!(each <= PRESENCE_BYTES, "{full}, {grown}, {million} bytes for each");
    }
    assert!(full >= 16, "an entry is more than {full} bytes: something is not counted");
}

/// The allocations of a thousand users who come and join a room, with an observer of it or without.
fn allocations_of_a_crowd(is_observed: bool) -> u64 {
    let mut settings = guarded(4096);
    settings.rooms.presence.list = 10;
    let mut rig = Rig::with(Ends::AtOnce, settings);
    let observer = rig.open_by(&head_of(0));
    for user in 1..100 {
        let conn = rig.open_by(&head_of(user));
        rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
        rig.settle();
    }
    if is_observed {
        rig.receive(observer, &mut text(r#"{"type":"throng:watch","room":"r"}"#));
        rig.settle();
        rig.settle();
        assert_eq!(rig.shard.counters().presence_pushes_total, 1, "the room as it is");
    }
    let mut crowd: Vec<ConnId> = (100..1100).map(|user| rig.open_by(&head_of(user))).collect();
    let before = ALLOCATIONS.get();
    while let Some(conn) = crowd.pop() {
        rig.receive(conn, &mut text(r#"{"type":"throng:join","room":"r"}"#));
        rig.settle();
    }
    let after = ALLOCATIONS.get();
    rig.shard.check();
    let told = rig.shard.counters().presence_pushes_total;
    assert_eq!(told > 1, is_observed, "{told} pushes");
    after - before
}

#[test]
fn a_member_of_an_observed_room_without_a_list_costs_its_observers_nothing() {
    let (alone, observed) = (allocations_of_a_crowd(false), allocations_of_a_crowd(true));
    // What is told costs something once in an interval, and not once for a member.
    assert!(observed < alone + 300, "{alone} allocations, and {observed} where it is observed");
}

#[test]
fn news_of_a_room_reach_a_crowd_of_observers_in_slices_and_allocate_nothing_for_each() {
    let crowd = 5000_u64;
    let mut rig = Rig::new(Ends::AtOnce, 8192);
    let member = rig.open();
    for _ in 0..crowd {
        let observer = rig.open();
        rig.receive(observer, &mut text(r#"{"type":"throng:watch","room":"r"}"#));
        rig.settle();
    }
    let pushes = |rig: &Rig| rig.shard.counters().presence_pushes_total;
    for _ in 0..8 {
        rig.turn();
    }
    assert_eq!(pushes(&rig), crowd, "everybody got the room as it is");
    let news = |rig: &mut Rig, deed: &str| {
        rig.receive(member, &mut text(&format!(r#"{{"type":"throng:{deed}","room":"r"}}"#)));
        rig.settle();
        let begin = pushes(rig);
        rig.now = rig.now.plus(Duration::from_secs(2));
        let (mut slices, before) = (Vec::new(), ALLOCATIONS.get());
        while pushes(rig) < begin + crowd {
            let told = pushes(rig);
            rig.turn();
            slices.push(pushes(rig) - told);
            assert!(slices.len() < 100, "{slices:?}");
        }
        let allocated = ALLOCATIONS.get() - before;
        rig.settle();
        (slices, allocated)
    };
    // The first time makes what later ones find.
    news(&mut rig, "join");
    let (slices, allocated) = news(&mut rig, "leave");
    assert!(slices.iter().all(|slice| *slice <= 2 * 2048), "{slices:?}");
    assert!(slices.len() > 1, "{slices:?}");
    assert!(allocated < crowd / 10, "{allocated} allocations for {crowd} observers");
}
