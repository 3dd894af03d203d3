//! The table, continued: how often and how many, and whom to believe about an address.
//!
//! These rows limit what may happen, where those of `values` limit how large it may be. A rate comes with
//! the length of the burst it allows, in time, so that one number serves messages, bytes and joins.

use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, Word, millis, one_of, whole};
use super::kind_text::list_of;
use crate::base::network::Network;

/// What happens to what is sent faster than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverRate {
    /// It is dropped and answered with an error.
    Error,
    /// It is obeyed, and nothing more is read until the rate is kept.
    Delay,
    /// The connection is closed.
    Close,
}

impl Word for OverRate {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Error, "error"), (Self::Delay, "delay"), (Self::Close, "close")];
}

impl Word for Option<OverRate> {
    const ALL: &'static [(Self, &'static str)] = &[
        (None, "default"),
        (Some(OverRate::Error), "error"),
        (Some(OverRate::Delay), "delay"),
        (Some(OverRate::Close), "close"),
    ];
}

/// What happens to who is over a limit that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// It is told, and nothing else changes.
    Error,
    /// It is told and closed.
    Close,
}

impl Word for OverLimit {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Error, "error"), (Self::Close, "close")];
}

/// Which connections a user keeps that has one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The newest: the one that has been there longest is closed.
    Newest,
    /// The oldest: the newcomer is closed.
    Oldest,
}

impl Word for Keep {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Newest, "newest"), (Self::Oldest, "oldest")];
}

/// Whether the PROXY protocol stands before a connection's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// It is not looked for.
    Off,
    /// A trusted peer may send it.
    Optional,
    /// Nobody is served without it.
    Required,
}

impl Word for ProxyProtocol {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Off, "off"), (Self::Optional, "optional"), (Self::Required, "required")];
}

/// The header in which the proxies name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// No header is believed.
    Nothing,
    /// A list of addresses.
    XForwardedFor,
    /// One address.
    XRealIp,
    /// RFC 7239.
    Forwarded,
}

impl Word for ForwardedHeader {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Nothing, "none"),
        (Self::XForwardedFor, "x-forwarded-for"),
        (Self::XRealIp, "x-real-ip"),
        (Self::Forwarded, "forwarded"),
    ];
}

/// A network, or one address.
struct NetworkKind;

impl Kind for NetworkKind {
    type Value = Network;

    fn read(&self, value: &Value) -> Option<Network> {
        let Value::Text(text) = value else { return None };
        text.parse().ok()
    }

    fn write(&self, value: &Network) -> Value {
        Value::Text(value.to_string())
    }

    fn expectation(&self) -> String {
        "an IP address or a network, as \"10.0.0.0/8\"".to_owned()
    }
}

/// Networks that one key may name: each is compared with every new connection's address.
const MOST_NETWORKS: usize = 64;

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

group! {
    /// The part of `[server]` that says whom to believe about a client's address.
    pub struct Proxies in "server" {
        /// The proxies in front of the node. They alone may say who a client is: others are known by
        /// their socket's address.
        "trusted_proxies" Live trusted: Vec<Network> = Vec::new(),
            list_of(MOST_NETWORKS, NetworkKind);
        /// Whether trusted proxies send the PROXY protocol (version 1 or 2). "required" closes everybody
        /// else unseen.
        "proxy_protocol" Live protocol: ProxyProtocol = ProxyProtocol::Off, one_of();
        /// The header in which trusted proxies name the client. Only one is believed: a proxy that keeps
        /// one of them true may pass the others on as the client wrote them.
        "forwarded_header" Live header: ForwardedHeader = ForwardedHeader::XForwardedFor, one_of();
    }
}

group! {
    /// The part of `[limits]` that holds for how often a connection may do something.
    pub struct ConnectionRates in "limits" {
        /// Messages that a connection may send per second. The echo endpoint is exempt.
        "messages_per_second" Live messages: u32 = 100, whole(1, 1_000_000).or_zero("no limit");
        /// Bytes of messages that a connection may send per second.
        "bytes_per_second" Live bytes: u32 = 0, whole(1, GIB).or_zero("no limit");
        /// Rooms that a connection may join per second.
        "joins_per_second" Live joins: u32 = 0, whole(1, 1_000_000).or_zero("no limit");
        /// Publications of a connection per second. A message to several targets is one for each.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 1_000_000).or_zero("no limit");
        /// The length of a burst: what a rate allows in this time may come at once.
        "burst_ms" Live burst: Duration = Duration::from_secs(2), millis(1, DAY_MS);
        /// What happens to a message over a rate of its connection: "error" drops it and says when to come back,
        /// "delay" obeys it and stops reading until the rate is kept, "close" closes with 1008.
        "over_rate" Live over: OverRate = OverRate::Error, one_of();
        /// What happens to a connection over a number that is no rate (rooms, watches, questions, bytes of a payload),
        /// be it its own, its user's, its tenant's or its namespace's: "error" answers with an error, "close" closes
        /// with 1008 behind that.
        "over_limit" Live over_limit: OverLimit = OverLimit::Error, one_of();
        /// Commands of a connection that may await their answers; see `[limits_user]`.
        "max_outstanding" Live outstanding: u16 = 1024, whole(1, 65_535);
    }
}

group! {
    /// The part of `[limits]` that holds for those who want to come in.
    pub struct HandshakeLimits in "limits" {
        /// Connections of the whole node that have not sent their request yet; those beyond it are asked
        /// to come back.
        "max_handshakes" Live most: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Handshakes of the whole node per second; those beyond it are asked to come back, each at
        /// another time.
        "handshakes_per_second" Live per_second: u32 = 0, whole(1, 10_000_000).or_zero("no limit");
        /// Tell browsers when to come back: their scripts see no 503, so they are let in and closed with
        /// 1013 and the reason.
        "browser_errors" Live browser_errors: bool = true, Flag;
    }
}

group! {
    /// The part of `[limits]` that holds for the memory of the whole node.
    pub struct MemoryLimits in "limits" {
        /// Bytes of queued frames, half-read messages and mail of the whole node. The nearer it gets to this,
        /// the more is done: publishers wait, laggards lose early and then their connections, nobody is
        /// taken in.
        "memory_bytes" Live bytes: u64 = 0,
            whole(1 << 20, 1 << 50).or_zero("half of what the machine or its control group has");
    }
}

group! {
    /// `[limits_address]`.
    pub struct AddressLimits in "limits_address" {
        /// Connections of one address in the whole node; those beyond it are refused.
        "max_connections" Restart connections: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Handshakes of one address per second in the whole node.
        "handshakes_per_second" Live handshakes: u32 = 0, whole(1, 1_000_000).or_zero("no limit");
        /// Messages of one address per second in the whole node.
        "messages_per_second" Live messages: u32 = 0, whole(1, 1_000_000).or_zero("no limit");
        /// Bytes of messages of one address per second in the whole node.
        "bytes_per_second" Live bytes: u32 = 0, whole(1, GIB).or_zero("no limit");
        /// Rooms that one address may join per second in the whole node.
        "joins_per_second" Live joins: u32 = 0, whole(1, 1_000_000).or_zero("no limit");
        /// Publications of one address per second in the whole node.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 1_000_000).or_zero("no limit");
        /// The length of a burst: what a rate allows in this time may come at once.
        "burst_ms" Live burst: Duration = Duration::from_secs(2), millis(1, DAY_MS);
        /// What happens to a message over one of these rates; "default" stands for limits.over_rate.
        "over_rate" Live over: Option<OverRate> = None, one_of();
    }
}

group! {
    /// `[limits_user]`.
    pub struct UserLimits in "limits_user" {
        /// Connections of one user in the whole node; those beyond it are closed.
        "max_connections" Restart connections: u32 = 0, whole(1, 65_535).or_zero("no limit");
        /// Which connections stay when a user has one too many: "newest" closes the one that has been there
        /// longest (4409), "oldest" the newcomer (1013).
        "keep" Restart keep: Keep = Keep::Newest, one_of();
        /// Rooms that all connections of one user may be in together, in the whole node; a room counts for each
        /// connection that is in it. A join beyond it is refused.
        "max_rooms" Live rooms: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Bytes of a message of one user's connections, where that is less than limits.max_message_bytes; for those
        /// who log in from then on.
        "max_message_bytes" Live message_bytes: u32 = 0, whole(1, GIB).or_zero("as everywhere");
        /// Commands of one user that may await their answers, in the whole node; see below.
        "max_outstanding" Live outstanding: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Messages of one user per second in the whole node.
        "messages_per_second" Live messages: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Bytes of messages of one user per second in the whole node.
        "bytes_per_second" Live bytes: u32 = 0, whole(1, GIB).or_zero("no limit");
        /// Rooms that one user may join per second in the whole node.
        "joins_per_second" Live joins: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Publications of one user per second in the whole node. A message to several targets is one for each.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 100_000_000).or_zero("no limit");
        /// The length of a burst: what a rate allows in this time may come at once.
        "burst_ms" Live burst: Duration = Duration::from_secs(2), millis(1, DAY_MS);
        /// What happens to a message over one of these rates, by the words of `limits.over_rate`.
        "over_rate" Live over: OverRate = OverRate::Error, one_of();
    }
}

group! {
    /// `[limits_tenant]`.
    pub struct TenantLimits in "limits_tenant" {
        /// Connections of one tenant in the whole node; newcomers beyond it are closed (1013).
        "max_connections" Restart connections: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Rooms of one tenant in the whole node; a join that would begin another is refused.
        "max_rooms" Restart rooms: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Bytes of a message of one tenant's connections, where that is less than limits.max_message_bytes; for
        /// those who log in from then on.
        "max_message_bytes" Live message_bytes: u32 = 0, whole(1, GIB).or_zero("as everywhere");
        /// Commands of one tenant that may await their answers, in the whole node.
        "max_outstanding" Live outstanding: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Bytes of memory for what waits for the connections of one tenant in the whole node, divided by the
        /// shards. Near it the tenant's readers lose early, beyond it those of them are closed that have most to
        /// read (1013).
        "memory_bytes" Live memory: u64 = 0, whole(1 << 16, 1 << 50).or_zero("no limit");
        /// Messages of one tenant per second in the whole node.
        "messages_per_second" Live messages: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Bytes of messages of one tenant per second in the whole node.
        "bytes_per_second" Live bytes: u32 = 0, whole(1, GIB).or_zero("no limit");
        /// Rooms that one tenant may join per second in the whole node.
        "joins_per_second" Live joins: u32 = 0, whole(1, 100_000_000).or_zero("no limit");
        /// Publications of one tenant per second in the whole node. A message to several targets is one for each.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 100_000_000).or_zero("no limit");
        /// The length of a burst: what a rate allows in this time may come at once.
        "burst_ms" Live burst: Duration = Duration::from_secs(2), millis(1, DAY_MS);
        /// What happens to a message over one of these rates, by the words of `limits.over_rate`.
        "over_rate" Live over: OverRate = OverRate::Error, one_of();
    }
}
