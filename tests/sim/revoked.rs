//! A revocation among a hundred thousand connections on four shards: nobody whom it takes stays for a second.
//!
//! The clock is made of work: each turn of a shard costs a millisecond and each operation that it asks for
//! ten microseconds more, which is a slow machine. All shards turn at once, so the slowest decides when the
//! next turn begins. A revocation of a user must close all of its connections, one of a token the one connection
//! that showed it, wherever it stands, though others are revoked in every turn; everybody else stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use throng::auth::Revocation;
use throng::base::id::{ConnId, NodeTag, ShardId};
use throng::base::map::Seed;
use throng::base::time::Time;
use throng::contract::{Event, ListenerId, Op, SocketTicket};
use throng::shard::{Identity, Mail, Shard};

use crate::tenants::{guarded, token_of};

const CONNECTIONS: usize = 100_000;
const SHARDS: u16 = 4;
/// What a turn costs, and each operation in it.
const TURN: Duration = Duration::from_millis(1);
const OPERATION: Duration = Duration::from_micros(10);
/// What is promised.
const PROMISED: Duration = Duration::from_secs(1);
/// One connection in so many has a token of a name of its own, and one in so many is of the user who is revoked.
const NAMED: usize = 997;
const OF_USER: usize = 20;

/// A connection, and whose shard it is.
type Place = (u16, ConnId);

struct Node {
    shards: Vec<Shard>,
    now: Time,
    opened: Option<ConnId>,
    /// Who was sent a close frame, with its code, and when.
    ended: BTreeMap<Place, (u16, Time)>,
    /// Who has yet to answer one.
    answering: Vec<Place>,
}

impl Node {
    fn new() -> Self {
        let mut settings = guarded(&[]);
        settings.capacity.connections = CONNECTIONS;
        let settings = Arc::new(settings);
        let shard = |number: u16| {
            let identity = Identity {
                node: NodeTag::NONE,
                id: ShardId(number),
                shards: SHARDS,
                seed: Seed::new(1),
                jitter: u64::from(number),
                epoch: 1,
                started_unix_ms: 1_000_000,
                capacity: 1024,
            };
            Shard::new(identity, Arc::clone(&settings))
        };
        let shards = (0..SHARDS).map(shard).collect();
        let (ended, answering) = (BTreeMap::new(), Vec::new());
        Self { shards, now: Time::from_nanos(1), opened: None, ended, answering }
    }

    fn shard(&mut self, number: u16) -> &mut Shard {
        &mut self.shards[usize::from(number)]
    }

    fn feed(&mut self, number: u16, event: Event<'_>) {
        let now = self.now;
        self.shard(number).handle_event(event, now);
    }

    fn connect(&mut self, number: u16, token: &str) -> Place {
        let socket = SocketTicket(0);
        self.feed(number, Event::Accepted { socket, listener: ListenerId(0), peer: None });
        self.pump(number);
        let conn = self.opened.take().expect("a place");
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        self.feed(number, Event::Received { conn, bytes: &mut request.into_bytes() });
        self.pump(number);
        self.now = self.now.plus(Duration::from_micros(1));
        (number, conn)
    }

    /// All that a shard asks for is done; how much that was.
    fn pump(&mut self, number: u16) -> u32 {
        let mut operations = 0;
        loop {
            let (now, before) = (self.now, operations);
            self.shard(number).begin_writes(false, now);
            while let Some(op) = self.shard(number).poll_op() {
                operations += 1;
                self.act(number, op);
            }
            if operations == before {
                return operations;
            }
        }
    }

    fn act(&mut self, number: u16, op: Op) {
        match op {
            Op::Open { conn, .. } => self.opened = Some(conn),
            Op::Send { conn, mut batch } => {
                let bytes: Vec<u8> = batch.slices().flatten().copied().collect();
                if let [0x88, _, high, low, ..] = bytes[..] {
                    let code = u16::from_be_bytes([high, low]);
                    assert_eq!(self.ended.insert((number, conn), (code, self.now)), None);
                    self.answering.push((number, conn));
                }
                let bytes = batch.left();
                batch.clear();
                self.feed(number, Event::Sent { conn, batch, bytes });
            }
            Op::ShutdownWrite { conn } => self.feed(number, Event::ReceivedEnd { conn }),
            Op::Close { conn, .. } => self.feed(number, Event::Closed { conn }),
            other => panic!("nobody asked for {other:?}"),
        }
    }

    /// A turn of every shard, as long as the longest of them.
    fn turn(&mut self) {
        for (number, conn) in std::mem::take(&mut self.answering) {
            let mut bytes = [0x88, 0x82, 0, 0, 0, 0, 3, 240];
            self.feed(number, Event::Received { conn, bytes: &mut bytes });
        }
        let mut longest = 0;
        for number in 0..SHARDS {
            let now = self.now;
            self.shard(number).handle_timeout(now);
            longest = longest.max(self.pump(number));
            let mut post = Vec::new();
            self.shard(number).poll_mail(&mut |to, mail| {
                post.push((to, mail));
                Ok(())
            });
            for (to, mail) in post {
                self.shard(to.0).handle_mail(mail, now);
            }
        }
        self.now = self.now.plus(TURN + OPERATION * longest);
    }

    fn revoke(&mut self, revocation: Revocation) {
        let (now, revocation) = (self.now, Arc::new(revocation));
        for shard in &mut self.shards {
            shard.handle_mail(Mail::Revoke(Arc::clone(&revocation)), now);
        }
    }

    /// Turns until all of them have ended, and says how long that was; others are revoked in every turn.
    fn end_of(&mut self, taken: &BTreeSet<Place>, noise: &str) -> Duration {
        let (begin, before) = (self.now, self.ended.len());
        for turn in 0.. {
            self.turn();
            if taken.iter().all(|place| self.ended.contains_key(place)) {
                break;
            }
            assert!(
                self.now.since(begin) <= PROMISED,
                "{turn} turns and {:?}",
                self.now.since(begin)
            );
            self.revoke(Revocation::Token { id: format!("{noise}{turn}").into(), until: u64::MAX });
        }
        for place in taken {
            assert_eq!(self.ended[place].0, 1008);
        }
        assert_eq!(self.ended.len(), before + taken.len(), "nobody else has to go");
        let last = taken.iter().map(|place| self.ended[place].1).max().expect("somebody");
        last.since(begin)
    }

    fn sum(&self, of: fn(&throng::base::counters::Counters) -> u64) -> usize {
        let all: u64 = self.shards.iter().map(|shard| of(&shard.counters())).sum();
        usize::try_from(all).expect("a number")
    }
}

#[test]
fn a_revocation_closes_within_a_second_among_a_hundred_thousand_connections_on_all_shards() {
    let mut node = Node::new();
    let (mut named, mut of_user) = (BTreeMap::new(), BTreeSet::new());
    let crowd = [0, 1, 2, 3, 4, 5, 6, 7]
        .map(|number| token_of(&json!({"sub": format!("u{number}"), "iat": 900, "jti": "shared"})));
    let taken = token_of(&json!({"sub": "taken", "iat": 900}));
    for index in 0..CONNECTIONS {
        let number = u16::try_from(index % usize::from(SHARDS)).expect("few");
        // The last of all stands where a search that begins at the first comes last.
        if index % NAMED == 0 || index == CONNECTIONS - 1 {
            let claims = json!({"sub": "u1", "iat": 900, "jti": format!("j{index}")});
            named.insert(index, node.connect(number, &token_of(&claims)));
        } else if index % OF_USER < usize::from(SHARDS) {
            of_user.insert(node.connect(number, &taken));
        } else {
            node.connect(number, &crowd[index % crowd.len()]);
        }
    }
    assert!(node.now.since(Time::ZERO) < PROMISED, "everybody is young");
    assert_eq!(node.sum(|counters| counters.open_connections), CONNECTIONS);
    assert!(
        named.len() > 100 && of_user.len() > CONNECTIONS / 6,
        "{} {}",
        named.len(),
        of_user.len()
    );
    // One by one, and the first of them while the search is just behind it.
    let mut longest = Duration::ZERO;
    let all: Vec<usize> = named.keys().copied().collect();
    for index in [all[0], all[all.len() / 2], all[all.len() - 1]] {
        let place = named.remove(&index).expect("one");
        node.revoke(Revocation::Token { id: format!("j{index}").into(), until: u64::MAX });
        longest = longest.max(node.end_of(&[place].into(), &format!("a{index}-")));
    }
    // All that are left at once, and then a sixth of everybody by the user's name.
    for index in named.keys() {
        node.revoke(Revocation::Token { id: format!("j{index}").into(), until: u64::MAX });
    }
    longest = longest.max(node.end_of(&named.values().copied().collect(), "b"));
    node.revoke(Revocation::User {
        tenant: None,
        user: "taken".into(),
        issued: 950,
        until: u64::MAX,
    });
    longest = longest.max(node.end_of(&of_user, "c"));
    assert!(longest <= PROMISED, "{longest:?}");
    (0..3).for_each(|_| node.turn());
    let revoked = named.len() + 3 + of_user.len();
    assert_eq!(node.sum(|counters| counters.revoked_total), revoked);
    assert_eq!(node.sum(|counters| counters.open_connections), CONNECTIONS - revoked);
    node.shards.iter().for_each(Shard::check);
}
