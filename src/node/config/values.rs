//! The table: every key, defined once.
//!
//! A row gives the key's name with its unit, whether a running node takes a new value, the field that
//! holds it in code, its type and default, and what it accepts. The documentation of a row is its comment
//! in `print-config`: what the key does and costs, not its range. Relations between keys are in `relation`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::admin::{self, AdminListener};
use super::auth::Auth;
use super::bridge::{Bridge, Redis, Sentinels};
use super::compression::Compression;
use super::explain::Explain;
use super::group::{Group, Key, group, of};
use super::hook::Webhook;
use super::kind::{
    Flag, Kind, OptionalAddress, OptionalPath, UrlPath, Value, micros, millis, one_of, power, whole,
};
use super::limits::{
    AddressLimits, ConnectionRates, HandshakeLimits, MemoryLimits, Proxies, TenantLimits,
    UserLimits,
};
use super::list::{About, List, Row};
pub use super::namespace::Namespace;
use super::proxy::Proxy;
use super::publish::Publish;
use super::rate::Rate;
use super::schema::Schema;
use super::store::{SharedStore, Store};
use super::tenant::Tenant;
pub use super::tls::{Certificate, ClientAuth, Tls, TlsVersion};
pub use super::words::{Closings, DriverChoice, KeyScope, LogFormat, LogLevel, UringIdle};
use crate::base::shared::Overflow;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[auth]`.
    pub auth: Auth,
    /// `[limits]`.
    pub limits: Limits,
    /// `[heartbeat]`.
    pub heartbeat: Heartbeat,
    /// `[queue]`.
    pub queue: Queue,
    /// What lies within the node, between shards and behind them.
    pub inside: Inside,
    /// What lies between the engine and the network.
    pub transport: Transport,
    /// `[admin]`.
    pub admin: AdminListener,
    /// `[demo]`.
    pub demo: Demo,
    /// `[debug]`.
    pub debug: DebugAids,
    /// `[log]`.
    pub log: Log,
    /// The sections that are lists.
    pub lists: Lists,
}

/// What lies between the engine and the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// `[tls]`.
    pub tls: Tls,
    /// `[tcp]`.
    pub tcp: Tcp,
    /// `[uring]`.
    pub uring: Uring,
    /// The part of `[server]` that is about clients of Socket.IO.
    pub socketio: SocketIo,
    /// `[compression]`.
    pub compression: Compression,
}

/// What lies within the node, between shards and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// `[mesh]`.
    pub mesh: Mesh,
    /// `[store]`.
    pub store: Store,
    /// `[store]`: whether it is that of all nodes.
    pub shared_store: SharedStore,
    /// `[bridge]`: where Redis is.
    pub redis: Redis,
    /// `[bridge]`: whom to ask for it.
    pub sentinels: Sentinels,
    /// `[bridge]`: how nodes work together.
    pub bridge: Bridge,
    /// `[explain]`.
    pub explain: Explain,
}

impl Inside {
    /// True where what the store keeps of users outlives the process.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.shared_store.redis || !self.store.path.is_empty()
    }

    /// True where the node works with others.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        !self.redis.url.is_empty() || !self.sentinels.urls.is_empty()
    }
}

/// The sections that are lists, each in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// `[[namespace]]`.
    pub namespaces: Vec<Namespace>,
    /// `[[certificate]]`.
    pub certificates: Vec<Certificate>,
    /// `[[key]]`.
    pub keys: Vec<admin::Key>,
    /// `[[webhook]]`.
    pub webhooks: Vec<Webhook>,
    /// `[[tenant]]`.
    pub tenants: Vec<Tenant>,
    /// `[[proxy]]`.
    pub proxies: Vec<Proxy>,
    /// `[[schema]]`.
    pub schemas: Vec<Schema>,
    /// `[[rate]]`.
    pub rates: Vec<Rate>,
}

/// `[limits]`, by what they limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The request that opens a connection.
    pub head: HeadLimits,
    /// What arrives on an open connection.
    pub message: MessageLimits,
    /// What a message may ask for.
    pub command: CommandLimits,
    /// How often a connection may do something.
    pub rates: ConnectionRates,
    /// Those who want to come in.
    pub handshakes: HandshakeLimits,
    /// The memory of the whole node.
    pub memory: MemoryLimits,
    /// `[publish]`.
    pub publish: Publish,
    /// `[limits_address]`.
    pub address: AddressLimits,
    /// `[limits_user]`.
    pub user: UserLimits,
    /// `[limits_tenant]`.
    pub tenant: TenantLimits,
    /// Whom to believe about an address.
    pub proxies: Proxies,
}

/// The sections with a comment each, in the order in which they are printed. Those that are lists are
/// apart.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("server", "Where to listen, on how many cores, and how to end."),
    ("auth", "Who may connect, and how a client says who it is."),
    ("auth_webhook", "Your back end, which is asked who may come in and who may use a room."),
    ("tls", "TLS, beside the plain listener or instead of it."),
    ("limits", "What a client may send. Every limit holds before anything is stored."),
    (
        "limits_address",
        "What everybody behind one address may do together: an IPv4 address, or a /64 of IPv6.",
    ),
    ("limits_user", "What all connections of one user may do together."),
    ("limits_tenant", "What all connections of one tenant may do together."),
    (
        "presence",
        "Who is there, and who is told of it. Costs a user's entry where nobody observes.",
    ),
    (
        "publish",
        "To whom clients may publish besides rooms, and how much of back ends may be under way.",
    ),
    ("heartbeat", "How dead peers are found. Keep the interval below every proxy's idle time-out."),
    ("queue", "What waits for a slow reader, and for how long. An empty queue owns no memory."),
    ("mesh", "Mail between shards."),
    (
        "store",
        "What outlives a connection: notifications, last-seen times, revocations, stored publications.",
    ),
    ("bridge", "Other nodes that this one works with, by Redis."),
    ("explain", "What is remembered of what became of publications, for `throng explain`."),
    (
        "compression",
        "Messages in less space, for clients that offer it: permessage-deflate (RFC 7692).",
    ),
    ("tcp", "Socket options of accepted connections."),
    ("uring", "The io_uring driver; without effect under epoll."),
    ("admin", "The HTTP listener for back ends and operators, on a thread of its own."),
    ("demo", "The demonstration page."),
    ("debug", "For tests only. Leave it alone where strangers connect."),
    ("log", "What is written to standard error."),
];

/// The sections that are lists, in the order in which they are printed.
pub(super) const LISTS: &[About] = &[
    Namespace::ABOUT,
    Certificate::ABOUT,
    admin::Key::ABOUT,
    Webhook::ABOUT,
    Tenant::ABOUT,
    Proxy::ABOUT,
    Schema::ABOUT,
    Rate::ABOUT,
];

impl Config {
    /// The structs of the table but those of lists.
    pub(super) fn groups(&self) -> Vec<&dyn Group> {
        let limits = &self.limits;
        vec![
            &self.server,
            &self.auth.door,
            &self.auth.keys,
            &self.auth.jwks,
            &self.auth.checks,
            &self.auth.tokens,
            &self.auth.webhook,
            &self.transport.tls,
            &limits.proxies,
            &self.transport.socketio,
            &limits.head,
            &limits.message,
            &limits.command,
            &limits.rates,
            &limits.handshakes,
            &limits.memory,
            &limits.address,
            &limits.user,
            &limits.tenant,
            &self.auth.presence,
            &limits.publish,
            &self.heartbeat,
            &self.queue,
            &self.inside.mesh,
            &self.inside.store,
            &self.inside.shared_store,
            &self.inside.redis,
            &self.inside.sentinels,
            &self.inside.bridge,
            &self.inside.explain,
            &self.transport.compression,
            &self.transport.tcp,
            &self.transport.uring,
            &self.admin,
            &self.demo,
            &self.debug,
            &self.log,
        ]
    }

    /// The same, to be changed.
    pub(super) fn groups_mut(&mut self) -> Vec<&mut dyn Group> {
        let limits = &mut self.limits;
        vec![
            &mut self.server,
            &mut self.auth.door,
            &mut self.auth.keys,
            &mut self.auth.jwks,
            &mut self.auth.checks,
            &mut self.auth.tokens,
            &mut self.auth.webhook,
            &mut self.transport.tls,
            &mut limits.proxies,
            &mut self.transport.socketio,
            &mut limits.head,
            &mut limits.message,
            &mut limits.command,
            &mut limits.rates,
            &mut limits.handshakes,
            &mut limits.memory,
            &mut limits.address,
            &mut limits.user,
            &mut limits.tenant,
            &mut self.auth.presence,
            &mut limits.publish,
            &mut self.heartbeat,
            &mut self.queue,
            &mut self.inside.mesh,
            &mut self.inside.store,
            &mut self.inside.shared_store,
            &mut self.inside.redis,
            &mut self.inside.sentinels,
            &mut self.inside.bridge,
            &mut self.inside.explain,
            &mut self.transport.compression,
            &mut self.transport.tcp,
            &mut self.transport.uring,
            &mut self.admin,
            &mut self.demo,
            &mut self.debug,
            &mut self.log,
        ]
    }

    /// The lists, in the order of [`LISTS`].
    pub(super) fn lists(&self) -> Vec<&dyn List> {
        vec![
            &self.lists.namespaces,
            &self.lists.certificates,
            &self.lists.keys,
            &self.lists.webhooks,
            &self.lists.tenants,
            &self.lists.proxies,
            &self.lists.schemas,
            &self.lists.rates,
        ]
    }

    /// The same, to be changed.
    pub(super) fn lists_mut(&mut self) -> Vec<&mut dyn List> {
        vec![
            &mut self.lists.namespaces,
            &mut self.lists.certificates,
            &mut self.lists.keys,
            &mut self.lists.webhooks,
            &mut self.lists.tenants,
            &mut self.lists.proxies,
            &mut self.lists.schemas,
            &mut self.lists.rates,
        ]
    }

    /// The policy of a room: that of the first namespace that matches, else `queue.overflow`.
    #[must_use]
    pub fn overflow(&self, room: &str) -> Overflow {
        let namespace =
            self.lists.namespaces.iter().find(|namespace| namespace.pattern.matches(room));
        namespace.map_or(self.queue.overflow, |namespace| namespace.overflow)
    }

    /// `TCP_USER_TIMEOUT` of accepted connections: `tcp.user_timeout_ms`, or, when that is 0, the time
    /// in which the heartbeat gives a silent peer up.
    #[must_use]
    pub fn user_timeout(&self) -> Duration {
        let heartbeat = self.heartbeat.interval + self.heartbeat.timeout;
        if self.transport.tcp.user_timeout.is_zero() {
            heartbeat
        } else {
            self.transport.tcp.user_timeout
        }
    }

    /// The window over which clients are told to reconnect after a drain: `server.reconnect_spread_ms`,
    /// or, when that is 0, the drain's own length.
    #[must_use]
    pub fn reconnect_spread(&self) -> Duration {
        let server = &self.server;
        if server.reconnect_spread.is_zero() {
            server.drain_timeout
        } else {
            server.reconnect_spread
        }
    }
}

/// Every key there is, in the order in which they are printed; those of lists last.
#[must_use]
pub fn keys() -> Vec<Key> {
    let config = Config::default();
    let mut keys: Vec<Key> = config.groups().iter().flat_map(|group| group.keys()).collect();
    keys.extend(config.lists().iter().flat_map(|list| list.keys()));
    keys
}

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

group! {
    /// `[server]`.
    pub struct Server in "server" {
        /// Where to listen for clients that speak plainly. The port of 0 is chosen by the kernel, and printed.
        "listen" Restart listen: Option<SocketAddr> = Some((Ipv4Addr::LOCALHOST, 8080).into()),
            OptionalAddress;
        /// Shards, each a thread that owns a share of the connections.
        "shards" Restart shards: u16 = 0, whole(1, 1024).or_zero("one per core");
        /// The kernel interface. "auto" probes at start and logs what it chose and why.
        "driver" Restart driver: DriverChoice = DriverChoice::Auto, one_of();
        /// The path of WebSocket upgrades; others are answered 404.
        "path" Restart path: String = "/ws".to_owned(), UrlPath;
        /// The path of event streams (server-sent events): `GET /sse?room=lobby`.
        "stream_path" Restart stream_path: Option<String> = Some("/sse".to_owned()), OptionalPath;
        /// The path of clients of Socket.IO; usually "/socket.io/".
        "socketio_path" Restart socketio_path: Option<String> = None, OptionalPath;
        /// The path where rooms' histories are read by plain HTTP: `GET /history?room=lobby`.
        "history_path" Restart history_path: Option<String> = Some("/history".to_owned()),
            OptionalPath;
        /// Keep each shard's thread on a core of its own.
        "pin" Restart pin: bool = true, Flag;
        /// Connections of the whole node; beyond it sockets are refused before a handshake.
        "max_connections" Restart max_connections: u32 = 0,
            whole(1, 100_000_000).or_zero("as many as descriptors allow");
        /// Sockets that wait in the kernel to be accepted, per shard. The kernel caps it at somaxconn.
        "backlog" Restart backlog: u32 = 4096, whole(1, 1_048_576);
        /// How long a drain (SIGTERM) may take: clients are told, queues flushed, connections closed.
        "drain_timeout_ms" Live drain_timeout: Duration = Duration::from_secs(10), millis(1, DAY_MS);
        /// The window over which drained clients, and streams that break (30 s at most), come back.
        "reconnect_spread_ms" Live reconnect_spread: Duration = Duration::ZERO,
            millis(1, DAY_MS).or_zero("as long as the drain");
    }
}

group! {
    /// The part of `[server]` that is about clients of Socket.IO.
    pub struct SocketIo in "server" {
        /// How long a client of Socket.IO that was lost may come back to its rooms and to what it missed there (connection
        /// state recovery). Publications end with their place then, as the library expects it.
        "socketio_recovery_ms" Restart recovery: Duration = Duration::ZERO,
            millis(1, DAY_MS).or_zero("off");
        /// Clients of Socket.IO may begin by long polling, and go on by WebSocket; otherwise by WebSocket alone.
        "socketio_polling" Restart polling: bool = true, Flag;
    }
}

group! {
    /// The part of `[limits]` that holds for the request that opens a connection.
    pub struct HeadLimits in "limits" {
        /// Bytes of a request head; beyond it 431. Held only while the head is incomplete.
        "max_head_bytes" Live max_bytes: u32 = 16_384, whole(1024, 1_048_576);
        /// Header lines of a request; beyond it 431.
        "max_headers" Live max_headers: u16 = 64, whole(8, 1024);
        /// Bytes of a request target; beyond it 414.
        "max_target_bytes" Live max_target_bytes: u32 = 8192, whole(16, 65_536);
        /// From accept to the end of the request head; beyond it 408.
        "handshake_timeout_ms" Live timeout: Duration = Duration::from_secs(10), millis(100, DAY_MS);
    }
}

group! {
    /// The part of `[limits]` that holds for what arrives on an open connection.
    pub struct MessageLimits in "limits" {
        /// Bytes of a message, all fragments together; beyond it close 1009. Held only while a message
        /// is incomplete.
        "max_message_bytes" Live max_bytes: u32 = 65_536, whole(128, GIB);
        /// Fragments of a message; beyond it the connection is closed.
        "max_fragments" Live max_fragments: u32 = 1024, whole(1, 16_777_216);
        /// From the first byte of a message to its last; beyond it the connection is closed.
        "message_timeout_ms" Live timeout: Duration = Duration::from_secs(30), millis(100, DAY_MS);
        /// From our close frame to the peer's; beyond it the socket is closed without.
        "close_timeout_ms" Live close_timeout: Duration = Duration::from_secs(5), millis(1, DAY_MS);
        /// Close a connection that sent no message for so long. Heartbeats do not count.
        "idle_timeout_ms" Live idle_timeout: Duration = Duration::ZERO,
            millis(1000, 30 * DAY_MS).or_zero("never");
    }
}

group! {
    /// The part of `[limits]` that holds for what a message may ask for.
    pub struct CommandLimits in "limits" {
        /// Rooms a connection may be a member of.
        "max_rooms" Live max_rooms: u32 = 100, whole(1, 65_535);
        /// Bytes of a room's name.
        "max_room_name_bytes" Live max_room_name_bytes: u16 = 128, whole(1, 1024);
        /// Rooms that one command may publish to.
        "max_rooms_per_publish" Live max_rooms_per_publish: u16 = 16, whole(1, 1024);
        /// Connections, users and rooms together that one command may except.
        "max_except" Live max_except: u16 = 64, whole(0, 1024);
        /// Levels of nesting in a message.
        "max_depth" Live max_depth: u16 = 32, whole(2, 128);
        /// Object keys in a message, at all levels together.
        "max_keys" Live max_keys: u32 = 256, whole(8, 1_000_000);
        /// Bytes of a message's type.
        "max_type_bytes" Live max_type_bytes: u16 = 64, whole(16, 1024);
        /// Bytes of an id, a conflation key or a ref.
        "max_id_bytes" Live max_id_bytes: u16 = 64, whole(1, 1024);
    }
}

group! {
    /// `[heartbeat]`.
    pub struct Heartbeat in "heartbeat" {
        /// Ping a connection that was silent for so long. Below every proxy's idle time-out (often 60 s).
        "ping_interval_ms" Live interval: Duration = Duration::from_secs(25), millis(100, DAY_MS);
        /// Give a connection up that stays silent for so long after a ping.
        "ping_timeout_ms" Live timeout: Duration = Duration::from_secs(20), millis(100, DAY_MS);
    }
}

group! {
    /// `[queue]`.
    pub struct Queue in "queue" {
        /// Queued bytes of a connection at which publications meet their room's policy.
        "high_water_bytes" Live high_water: u32 = 262_144, whole(1024, GIB);
        /// Queued bytes at which the connection counts as keeping up again.
        "low_water_bytes" Live low_water: u32 = 65_536, whole(0, GIB);
        /// Queued bytes at which a connection is closed (1013). A queue never holds more than this plus
        /// one message.
        "max_bytes" Live max_bytes: u32 = 1_048_576, whole(1024, GIB);
        /// Queued messages at which publications meet their room's policy and replies close the
        /// connection (1013).
        "max_messages" Live max_messages: u32 = 16_384, whole(1, 1_048_576);
        /// Age of the oldest queued message at which the connection is closed (1013).
        "max_age_ms" Live max_age: Duration = Duration::from_secs(30), millis(100, DAY_MS);
        /// What happens to publications for a slow reader, unless a namespace says otherwise.
        "overflow" Live overflow: Overflow = Overflow::DropOldest, one_of();
        /// The longest a write may wait for more to write, under load; idle shards never wait.
        "flush_window_us" Live flush_window: Duration = Duration::from_micros(500),
            micros(1, 100_000).or_zero("never wait");
    }
}

group! {
    /// `[mesh]`.
    pub struct Mesh in "mesh" {
        /// Mail that may wait for a shard, per lane. Space for it is allocated at start.
        "inbox_capacity" Restart inbox_capacity: u32 = 4096, whole(1, 1_048_576);
        /// Mail that a shard keeps back because inboxes are full; beyond it publishes are refused.
        "parked_max" Restart parked_max: u32 = 65_536, whole(1, 16_777_216);
    }
}

group! {
    /// `[tcp]`.
    pub struct Tcp in "tcp" {
        /// How long sent bytes may stay unacknowledged before the kernel gives the peer up.
        "user_timeout_ms" Restart user_timeout: Duration = Duration::ZERO,
            millis(1000, DAY_MS).or_zero("ping interval plus ping time-out");
        /// Silence after which the kernel probes the peer. A last resort behind the heartbeat.
        "keepalive_idle_ms" Restart keepalive_idle: Duration = Duration::from_secs(60),
            millis(1000, DAY_MS).or_zero("no probes");
        /// Time between probes. The kernel rounds it up to whole seconds.
        "keepalive_interval_ms" Restart keepalive_interval: Duration = Duration::from_secs(15),
            millis(1000, DAY_MS);
        /// Probes without an answer before the kernel gives the peer up.
        "keepalive_probes" Restart keepalive_probes: u16 = 3, whole(1, 127);
        /// Unsent bytes in the kernel at which a connection stops being writable; what follows waits in our
        /// queue, where policies apply.
        "notsent_lowat_bytes" Restart notsent_lowat: u32 = 16_384,
            whole(1024, GIB).or_zero("as the kernel decides");
        /// Kernel send buffer per connection.
        "send_buffer_bytes" Restart send_buffer: u32 = 0,
            whole(4096, GIB).or_zero("as the kernel decides");
        /// Kernel receive buffer per connection.
        "receive_buffer_bytes" Restart receive_buffer: u32 = 0,
            whole(2048, GIB).or_zero("as the kernel decides");
    }
}

group! {
    /// `[uring]`.
    pub struct Uring in "uring" {
        /// Submission queue entries per shard.
        "entries" Restart entries: u32 = 4096, power(64, 32_768);
        /// Receive buffers per shard, shared by its connections.
        "buffers" Restart buffers: u16 = 1024, power(16, 32_768);
        /// Bytes of one receive buffer.
        "buffer_bytes" Restart buffer_bytes: u32 = 4096, power(512, 1_048_576);
        /// How idle connections are watched: by a multishot recv or poll each, or by one epoll set.
        "idle" Restart idle: UringIdle = UringIdle::Poll, one_of();
    }
}

group! {
    /// `[demo]`.
    pub struct Demo in "demo" {
        /// Serve the demonstration page at /, and the JavaScript client that it uses at /throng.js.
        "enabled" Restart enabled: bool = true, Flag;
    }
}

group! {
    /// `[debug]`.
    pub struct DebugAids in "debug" {
        /// The path of an endpoint that sends every message back, for conformance tests.
        "echo_path" Restart echo_path: Option<String> = None, OptionalPath;
        /// Bytes of a message on the echo endpoint.
        "echo_max_message_bytes" Restart echo_max_message_bytes: u32 = 33_554_432, whole(128, GIB);
        /// Fragments of a message on the echo endpoint.
        "echo_max_fragments" Restart echo_max_fragments: u32 = 1_048_576, whole(1, 16_777_216);
        /// From the first byte of a message to its last on the echo endpoint.
        "echo_message_timeout_ms" Restart echo_message_timeout: Duration = Duration::from_secs(120),
            millis(100, DAY_MS);
        /// Accept a command that panics while it is handled, to test that only its sender suffers.
        "panic_command" Restart panic_command: bool = false, Flag;
        /// Measure the processor time of every turn of the loop; SIGUSR1 logs the longest since the last
        /// time it was asked.
        "turn_clock" Restart turn_clock: bool = false, Flag;
    }
}

group! {
    /// `[log]`.
    pub struct Log in "log" {
        /// "text" for people, "json" for machines.
        "format" Restart format: LogFormat = LogFormat::Text, one_of();
        /// Which ends of connections are told, each with the user, the reason and the bytes.
        "closings" Live closings: Closings = Closings::Off, one_of();
        /// From which severity on.
        "level" Live level: LogLevel = LogLevel::Info, one_of();
    }
}
