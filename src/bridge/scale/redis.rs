//! A Redis that only counts: who is subscribed to what, which number is next in a room, and every byte that would
//! go over a wire.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Mul};

use redis::Cmd;

use crate::base::cursor::Cursor;
use crate::bridge::side::Channel;

/// What crosses the wires of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) commands: f64,
    pub(super) bytes_in: f64,
    /// Messages handed out to subscribers.
    pub(super) messages: f64,
    /// Bytes of those and of answers.
    pub(super) bytes_out: f64,
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            commands: self.commands + other.commands,
            bytes_in: self.bytes_in + other.bytes_in,
            messages: self.messages + other.messages,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }
}

impl Mul<f64> for Count {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        Self {
            commands: self.commands * by,
            bytes_in: self.bytes_in * by,
            messages: self.messages * by,
            bytes_out: self.bytes_out * by,
        }
    }
}

/// The model.
#[derive(Debug, Default)]
pub(super) struct Redis {
    subscribers: BTreeMap<Channel, BTreeSet<usize>>,
    places: BTreeMap<Channel, u64>,
    pub(super) count: Count,
}

/// The epoch of all rooms.
pub(super) const EPOCH: u64 = 0x8fed_cba9_8765_4321;

fn bytes(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a length"))
}

/// What RESP puts around a text.
fn bulk(text: usize) -> usize {
    text.to_string().len() + text + 5
}

impl Redis {
    fn took(&mut self, command: &Cmd) {
        self.count.commands += 1.0;
        self.count.bytes_in += bytes(command.get_packed_command().len());
    }

    /// Begins or ends subscriptions of a node.
    pub(super) fn subscribe(&mut self, node: usize, channels: &[Channel], begin: bool) {
        let mut command = redis::cmd(if begin { "SUBSCRIBE" } else { "UNSUBSCRIBE" });
        for channel in channels {
            command.arg(format!("throng:{channel}"));
            let nodes = self.subscribers.entry(channel.clone()).or_default();
            let changes = if begin { nodes.insert(node) } else { nodes.remove(&node) };
            assert!(changes, "nothing is asked for twice");
            self.count.bytes_out += bytes(bulk(channel.len() + 7) + 20);
        }
        self.took(&command);
    }

    /// The node's connection ends.
    pub(super) fn drop_node(&mut self, node: usize) {
        self.subscribers.values_mut().for_each(|nodes| _ = nodes.remove(&node));
    }

    /// Takes a `PUBLISH`; who gets the message.
    pub(super) fn publish(&mut self, channel: &Channel, body: &[u8]) -> Vec<usize> {
        self.took(redis::cmd("PUBLISH").arg(format!("throng:{channel}")).arg(body));
        self.hand_out(channel, body.len(), 4)
    }

    /// Takes the command that numbers a publication; the number, the message, and who gets it.
    pub(super) fn append(
        &mut self,
        channel: &Channel,
        command: &Cmd,
        body: &str,
    ) -> (Cursor, String, Vec<usize>) {
        self.took(command);
        let offset = self.places.entry(channel.clone()).or_default();
        *offset += 1;
        let cursor = Cursor { epoch: EPOCH, offset: *offset };
        let message = format!(r#"{{"v":2,"epoch":"{EPOCH:x}","offset":{offset},{}"#, &body[1..]);
        let verdict = 4 + bulk(5) + bulk(16) + bulk(offset.to_string().len());
        let nodes = self.hand_out(channel, message.len(), verdict);
        (cursor, message, nodes)
    }

    fn hand_out(&mut self, channel: &Channel, body: usize, answer: usize) -> Vec<usize> {
        let nodes: Vec<usize> =
            self.subscribers.get(channel).into_iter().flatten().copied().collect();
        let one = 4 + bulk(7) + bulk(channel.len() + 7) + bulk(body);
        self.count.messages += bytes(nodes.len());
        self.count.bytes_out += bytes(answer) + bytes(nodes.len()) * bytes(one);
        nodes
    }
}
