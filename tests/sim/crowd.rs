//! One publication to a room of a hundred thousand members, spread over shards.
//!
//! No network and no chance here: every member is counted. The kernel takes every write at once, and what a
//! member is written is looked at, so that once means once for each of them and not only on average.

use std::collections::BTreeMap;
use std::sync::Arc;

use throng::base::id::{ConnId, NodeTag, ShardId};
use throng::base::map::Seed;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SendBatch, SocketTicket};
use throng::node::config::Config;
use throng::node::settings;
use throng::shard::{Identity, Mail, Shard};

const SHARDS: u16 = 5;
const MEMBERS_EACH: usize = 20_000;
/// Writes of one turn.
const SLICE: usize = 64;

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const JOIN: &str = r#"{"type":"throng:join","room":"lobby"}"#;
const PUBLISH: &str = r#"{"type":"chat","room":"lobby","payload":"a word to all of you"}"#;
const PUBLISHED: &[u8] = b"a word to all of you";

/// A text frame from a client, with a mask of zeros.
fn text(payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], payload.as_bytes()].concat()
}

/// A shard, and the kernel below it.
struct Host {
    shard: Shard,
    opened: Vec<ConnId>,
    /// How often each connection was written the publication.
    heard: BTreeMap<ConnId, u32>,
    /// Turns that wrote, and the most writes of one of them.
    turns: usize,
    most: usize,
}

impl Host {
    fn new(id: u16) -> Self {
        let identity = Identity {
            node: NodeTag::NONE,
            id: ShardId(id),
            shards: SHARDS,
            seed: Seed::new(1),
            jitter: 1,
            epoch: 1,
            started_unix_ms: 1_700_000_000_000,
            capacity: MEMBERS_EACH + 1,
        };
        let settings = Arc::new(settings(&Config::default(), 2 * MEMBERS_EACH));
        let shard = Shard::new(identity, settings);
        Self { shard, opened: Vec::new(), heard: BTreeMap::new(), turns: 0, most: 0 }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], now: Time) {
        self.shard.handle_event(Event::Received { conn, bytes: &mut bytes.to_vec() }, now);
    }

    /// One turn of the loop; gives the mail that leaves, and whether there was anything to do.
    fn turn(&mut self, now: Time) -> (Vec<(ShardId, Mail)>, bool) {
        let mut post = Vec::new();
        self.shard.begin_writes(false, now);
        let (mut writes, mut idle) = (0, true);
        while let Some(op) = self.shard.poll_op() {
            idle = false;
            match op {
                Op::Open { conn, .. } => self.opened.push(conn),
                Op::Send { conn, batch } => {
                    writes += 1;
                    self.written(conn, batch, now);
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        self.shard.poll_mail(&mut |to, mail| {
            post.push((to, mail));
            Ok(())
        });
        self.turns += usize::from(writes > 0);
        self.most = self.most.max(writes);
        let idle = idle && post.is_empty();
        (post, !idle)
    }

    fn written(&mut self, conn: ConnId, mut batch: SendBatch, now: Time) {
        let bytes: Vec<u8> = batch.slices().flatten().copied().collect();
        let times = bytes.windows(PUBLISHED.len()).filter(|window| *window == PUBLISHED).count();
        if times > 0 {
            *self.heard.entry(conn).or_default() += u32::try_from(times).expect("few");
        }
        batch.clear();
        self.shard.handle_event(Event::Sent { conn, batch, bytes: bytes.len() }, now);
    }
}

struct Node {
    hosts: Vec<Host>,
    now: Time,
}

impl Node {
    /// Lets all shards turn until none has anything to do.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            for from in 0..self.hosts.len() {
                let (post, was_busy) = self.hosts[from].turn(self.now);
                busy |= was_busy;
                for (to, mail) in post {
                    self.hosts[usize::from(to.0)].shard.handle_mail(mail, self.now);
                }
            }
            if !busy {
                return;
            }
        }
    }

    /// So many clients of a shard who have shaken hands.
    fn clients(&mut self, at: usize, count: usize) -> Vec<ConnId> {
        let host = &mut self.hosts[at];
        host.opened.clear();
        for _ in 0..count {
            let (socket, listener) = (SocketTicket(0), ListenerId(0));
            host.shard.handle_event(Event::Accepted { socket, listener, peer: None }, self.now);
        }
        self.settle();
        let host = &mut self.hosts[at];
        let opened = std::mem::take(&mut host.opened);
        opened.iter().for_each(|conn| host.receive(*conn, HANDSHAKE, self.now));
        self.settle();
        opened
    }

    /// Clears what was seen so far.
    fn forget(&mut self) {
        for host in &mut self.hosts {
            (host.turns, host.most) = (0, 0);
            host.heard.clear();
        }
    }
}

#[test]
fn a_publication_to_a_hundred_thousand_members_reaches_each_of_them_once_and_in_slices() {
    let hosts = (0..SHARDS).map(Host::new).collect();
    let mut node = Node { hosts, now: Time::from_nanos(1) };
    let (publisher, join) = (node.clients(0, 1)[0], text(JOIN));
    let mut members = Vec::new();
    for at in 0..usize::from(SHARDS) {
        let clients = node.clients(at, MEMBERS_EACH);
        clients.iter().for_each(|conn| node.hosts[at].receive(*conn, &join, node.now));
        node.settle();
        members.push(clients);
    }
    node.forget();
    node.hosts[0].receive(publisher, &text(PUBLISH), node.now);
    node.settle();
    for (host, members) in node.hosts.iter().zip(&members) {
        let counters = host.shard.counters();
        assert_eq!(counters.memberships, MEMBERS_EACH as u64);
        assert_eq!(counters.deliveries_total, MEMBERS_EACH as u64, "queued once for each");
        assert!(members.iter().all(|member| host.heard.get(member) == Some(&1)), "written once");
        assert_eq!(host.heard.len(), members.len(), "and nobody else is");
        // The last byte leaves after as many turns as slices, and one for the publisher's answer.
        assert!(host.most <= SLICE, "{} writes in a turn", host.most);
        let slices = MEMBERS_EACH.div_ceil(SLICE);
        assert!(host.turns <= slices + 1, "{} turns for {slices} slices", host.turns);
        host.shard.check();
    }
}
