//! Fifty nodes that decide as real ones do, and the model of Redis between them.
//!
//! Interest, envelopes, windows, places in rooms and what is told after a link has broken are those of the bridge;
//! only what carries them is missing. Every publication is followed to every node: it comes once where it has
//! members, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use serde_json::value::RawValue;

use super::redis::{Count, Redis};
use crate::base::cursor::Cursor;
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::bridge::envelope::{self, Writer};
use crate::bridge::interest::Interest;
use crate::bridge::side::Channel;
use crate::bridge::streams::{Append, Appends, Bound, Follower, Heard, Keys, Letter, Read};
use crate::bridge::window::Windows;

/// How long an interest outlives its last member.
const LINGER: Duration = Duration::from_secs(5);

struct Node {
    interest: Interest,
    writer: Writer,
    windows: Windows,
    appends: Appends,
    keys: Keys,
    places: BTreeMap<Channel, Follower>,
    /// Publications delivered to members here.
    delivered: u64,
}

impl Node {
    fn new(number: usize, seed: &Seed) -> Self {
        let tag = 0x1000_0000 + u32::try_from(number).expect("a tag");
        let mut keys = Keys::new("throng", tag, false);
        keys.names = Some(["a".repeat(40), "b".repeat(40)]);
        Self {
            interest: Interest::new(seed, LINGER),
            writer: Writer::new(&format!("{tag:08x}"), 1_785_000_000_000_000_000),
            windows: Windows::default(),
            appends: Appends::new(100_000, 1 << 30),
            keys,
            places: BTreeMap::new(),
            delivered: 0,
        }
    }
}

/// All of them.
pub(super) struct World {
    nodes: Vec<Node>,
    pub(super) redis: Redis,
    rng: Rng,
    /// Per room: how many members each node has.
    members: BTreeMap<Channel, BTreeMap<usize, u32>>,
    now: Time,
}

/// A publication of the size that is wanted.
fn order(room: &str, payload: usize) -> String {
    let text = "x".repeat(payload.saturating_sub(2));
    format!(r#"{{"type":"chat","rooms":["{room}"],"payload":"{text}"}}"#)
}

const AUTHOR: &str = "1000002a-1-1f4a7-3c1";

impl World {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let map = Seed::new(seed);
        Self {
            nodes: (0..nodes).map(|number| Node::new(number, &map)).collect(),
            redis: Redis::default(),
            rng: Rng::with_seed(seed),
            members: BTreeMap::new(),
            now: Time::ZERO,
        }
    }

    /// So many members join the room, each on any node.
    pub(super) fn fill(&mut self, room: &str, members: usize, is_shared: bool) {
        let channel: Channel = format!("room:{room}").into();
        for _ in 0..members {
            let at = self.rng.usize(..self.nodes.len());
            let count = self.members.entry(channel.clone()).or_default().entry(at).or_default();
            *count += 1;
            if *count == 1 {
                self.nodes[at].interest.note(channel.clone(), true, self.now);
                if is_shared {
                    self.nodes[at].places.entry(channel.clone()).or_default().read(zero(), &[]);
                }
            }
        }
    }

    /// All leave the room, and the time passes after which nobody needs it.
    pub(super) fn empty(&mut self, room: &str) {
        let channel: Channel = format!("room:{room}").into();
        for at in self.members.remove(&channel).unwrap_or_default().into_keys() {
            self.nodes[at].interest.note(channel.clone(), false, self.now);
            self.nodes[at].places.remove(&channel);
        }
        self.now = self.now.plus(LINGER);
        self.tell_interest();
    }

    /// Nodes tell Redis what they need.
    pub(super) fn tell_interest(&mut self) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            loop {
                let (joins, leaves) =
                    (node.interest.joins(512), node.interest.leaves(512, self.now));
                if joins.is_empty() && leaves.is_empty() {
                    break;
                }
                for (channels, begin) in [(joins, true), (leaves, false)] {
                    if !channels.is_empty() {
                        self.redis.subscribe(at, &channels, begin);
                    }
                }
            }
        }
    }

    /// On how many nodes the room has members.
    pub(super) fn interested(&self, room: &str) -> usize {
        self.members.get(&*format!("room:{room}")).map_or(0, BTreeMap::len)
    }

    pub(super) fn has_members(&self, at: usize, room: &str) -> bool {
        self.members.get(&*format!("room:{room}")).is_some_and(|nodes| nodes.contains_key(&at))
    }

    /// A member publishes to a room without a shared history.
    pub(super) fn publish(&mut self, room: &str, payload: usize) {
        let channel: Channel = format!("room:{room}").into();
        let author = self.member(&channel);
        let order = order(room, payload);
        let raw: &RawValue = serde_json::from_str(&order).expect("JSON");
        let sealed = self.nodes[author].writer.write(Some(AUTHOR), Some(raw), false);
        let mut came = BTreeSet::from([author]);
        for at in self.redis.publish(&channel, &sealed) {
            let node = &mut self.nodes[at];
            if node.writer.wrote(&sealed) {
                continue;
            }
            let text = str::from_utf8(&sealed).expect("UTF-8");
            let Ok(envelope::Letter::Far(letter)) = envelope::read(text) else { panic!("{text}") };
            assert!(node.windows.first(&letter.node, letter.epoch, letter.seq), "once");
            assert_eq!(letter.order.map(RawValue::get), Some(&*order));
            assert!(came.insert(at));
        }
        self.count_delivery(&channel, &came);
    }

    /// A member publishes to a room with a shared history.
    pub(super) fn append(&mut self, room: &str, payload: usize) {
        let channel: Channel = format!("room:{room}").into();
        let author = self.member(&channel);
        let node = &mut self.nodes[author];
        let append = Append {
            channel: channel.clone(),
            order: order(room, payload).into_bytes(),
            from: Some(AUTHOR.to_owned()),
            once: None,
            bound: Bound { count: 1000, bytes: 1 << 20, age: Duration::from_secs(300) },
            ticket: 0,
        };
        let body = format!(r#"{{"from":"{AUTHOR}","order":{}}}"#, order(room, payload));
        node.appends.push(append).expect("space");
        let waiting = node.appends.take(1).pop().expect("one");
        let known = node.places.get(&channel).and_then(Follower::at);
        let command = node.keys.append(&waiting, known);
        let (cursor, message, nodes) = self.redis.append(&channel, &command, &body);
        let mut came = BTreeSet::new();
        for at in nodes {
            let (epoch, entry) = Letter::read(message.as_bytes()).expect("a letter");
            assert_eq!((epoch, entry.offset), (cursor.epoch, cursor.offset));
            let place = self.nodes[at].places.get_mut(&channel).expect("it follows the room");
            assert_eq!(place.heard(cursor), Heard::Next);
            place.took(cursor);
            came.insert(at);
        }
        self.count_delivery(&channel, &came);
    }

    fn count_delivery(&mut self, channel: &Channel, came: &BTreeSet<usize>) {
        let members: BTreeSet<usize> = self.members[channel].keys().copied().collect();
        assert_eq!(*came, members, "it comes where members are, and nowhere else");
        came.iter().for_each(|at| self.nodes[*at].delivered += 1);
    }

    fn member(&mut self, channel: &Channel) -> usize {
        let members = &self.members[channel];
        let nth = self.rng.usize(..members.len());
        *members.keys().nth(nth).expect("a node with members")
    }

    /// Every node sends a canary, which comes back.
    pub(super) fn canaries(&mut self) {
        for at in 0..self.nodes.len() {
            let channel: Channel = format!("canary:{:x}", 0x1000_0000 + at).into();
            let canary = self.nodes[at].writer.write(None, None, false);
            assert_eq!(self.redis.publish(&channel, &canary), [at]);
            assert!(self.nodes[at].writer.wrote(&canary));
        }
    }

    /// Nodes subscribe to what concerns them whatever members they have.
    pub(super) fn open(&mut self) {
        for at in 0..self.nodes.len() {
            let canary = format!("canary:{:x}", 0x1000_0000 + at);
            self.redis.subscribe(at, &[Channel::from("all"), canary.into()], true);
        }
    }

    /// The node's link breaks and is made again while `meanwhile` happens; the cost of the return, and the rooms of
    /// which it told a gap.
    pub(super) fn break_link(&mut self, at: usize) -> (Count, usize) {
        self.redis.drop_node(at);
        let before = self.redis.count;
        self.nodes[at].interest.forget_told();
        let canary = format!("canary:{:x}", 0x1000_0000 + at);
        self.redis.subscribe(at, &[Channel::from("all"), canary.into()], true);
        self.tell_interest();
        let node = &mut self.nodes[at];
        let follows = |channel: &&Channel| node.places.contains_key(*channel);
        let told = node.interest.channels().filter(|channel| !follows(channel)).count();
        // What has a number is read, and here nothing is missing.
        for place in node.places.values_mut() {
            let at = place.begin_read().expect("a place");
            assert_eq!(place.read(at, &[]), Read::From(0));
        }
        (self.redis.count + before * -1.0, told)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.nodes.iter().map(|node| node.delivered).sum()
    }
}

fn zero() -> Cursor {
    Cursor { epoch: super::redis::EPOCH, offset: 0 }
}
