//! What the bridge is told.

use std::time::Duration;

use super::server::{Patience, Server};

/// What the bridge is told. Built by `node` from the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is, and who we are to it.
    pub server: Server,
    /// In front of the names of channels.
    pub prefix: String,
    /// What only some use it for.
    pub extras: Extras,
    /// The node's name in envelopes.
    pub node: String,
    /// The node's life, by which its envelopes are told from those of an earlier one.
    pub epoch: u64,
    /// The node's tag: the name of its own channel.
    pub tag: u32,
    /// How long Redis may take.
    pub patience: Patience,
    /// Redis is a cluster, so keys say which belong together.
    pub cluster: bool,
    /// What may wait.
    pub bounds: Bounds,
    /// Between two canaries.
    pub canary: Duration,
    /// How long a subscription outlives its last member.
    pub linger: Duration,
    /// What is known of users over nodes.
    pub presence: Presence,
}

/// What Redis is asked for only where it is used.
#[derive(Clone, Debug)]
pub struct Extras {
    /// What the channels of Socket.IO's emitters begin with, where they are heard.
    pub emitter: Option<String>,
    /// Whether there are tickets for all nodes.
    pub tickets: bool,
}

/// What is known of users over nodes.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// How long a node that has fallen silent counts as there; `None`: nothing is told and nothing known.
    pub lease: Option<Duration>,
    /// Users of other nodes that are known at most.
    pub most_users: usize,
    /// How long other nodes may take to answer a question about them.
    pub survey_timeout: Duration,
}

/// What may wait.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Envelopes to be published.
    pub queue: usize,
    /// Bytes of those.
    pub queue_bytes: usize,
    /// Entries of the stream of what clients say to back ends, about.
    pub stream: usize,
    /// Messages from channels, for this thread.
    pub incoming: usize,
}
