//! Configuration to options: the one place that knows both sides.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::auth::{Access, KeySet};
use crate::connection::{Front, Page, Routes, Timeouts};
use crate::driver;
use crate::driver::uring::Idle;
use crate::flow::budget::Rate;
use crate::flow::heartbeat::HeartbeatOptions;
use crate::flow::outbound::OutboundLimits;
use crate::hub::{Excess, HistoryLimits};
use crate::node::config::Config;
use crate::node::config::limits::{self, ConnectionRates, ForwardedHeader, ProxyProtocol};
use crate::node::config::rate;
use crate::node::config::tenant::Tenant;
use crate::node::config::values::{Closings, DriverChoice, Namespace, UringIdle};
use crate::node::keys;
use crate::session::CommandLimits;
use crate::session::command::AudienceLimits;
use crate::shard::{
    Capacity, Clients, Compression, DoorLimits, Echo, KindRate, Limits, NamespaceRules, OverRate,
    PartyLimits, Preface, PresenceRules, RoomMemory, RoomRules, Settings, ShelfLimits, Tenants,
    Told,
};
use crate::sys::listener::{ListenOptions, SocketOptions};
use crate::sys::memory;
use crate::wire::http::{self, HeadLimits, Via};
use crate::wire::websocket::DecodeLimits;

const DEMO: &str = include_str!("demo.html");
const CLIENT: &str = include_str!("../../clients/js/throng.js");

/// Publications of one page of history.
const HISTORY_PAGE: usize = 100;

/// The demonstration page and the client that it uses.
fn pages() -> Arc<[Page]> {
    [
        ("/", http::page("text/html; charset=utf-8", DEMO.as_bytes())),
        ("/throng.js", http::page("text/javascript; charset=utf-8", CLIENT.as_bytes())),
    ]
    .map(|(path, response)| Page { path, response: Arc::from(response) })
    .into()
}

/// How many shards the configuration asks for.
pub(super) fn shards(config: &Config) -> u16 {
    match config.server.shards {
        0 => available_parallelism()
            .map(NonZero::get)
            .ok()
            .and_then(|cores| u16::try_from(cores).ok())
            .unwrap_or(1),
        shards => shards,
    }
}

/// The memory budget in bytes: what was asked for, or half of what there is.
pub(super) fn budget(config: &Config) -> u64 {
    match config.limits.memory.bytes {
        0 => memory::available() / 2,
        bytes => bytes,
    }
}

/// Connections per shard: what was asked for, divided, but no more than descriptors allow.
pub(super) fn capacity(config: &Config, shards: u16, per_table: usize) -> usize {
    let asked = config.server.max_connections.div_ceil(u32::from(shards)) as usize;
    if asked == 0 { per_table } else { asked.min(per_table) }
}

/// How the admin listener's endpoints begin.
const API: &str = "/v1/";

/// The paths whose plain requests others answer.
fn fronts(config: &Config) -> Arc<[Front]> {
    let body_bytes = config.admin.max_body_bytes.into();
    let api =
        config.admin.public.then(|| Front { path: API.to_owned(), body_bytes, leaves: false });
    let proxies = config.lists.proxies.iter().map(|proxy| Front {
        path: proxy.path.clone(),
        body_bytes: proxy.body_bytes,
        leaves: true,
    });
    api.into_iter().chain(proxies).collect()
}

/// The limits and rules of a shard that may hold so many open connections. The keys that files hold are not
/// among them.
#[must_use]
pub fn settings(config: &Config, connections: usize) -> Settings {
    let (head, message) = (&config.limits.head, &config.limits.message);
    let queue = &config.queue;
    Settings {
        routes: routes(config),
        head: HeadLimits {
            head_bytes: head.max_bytes as usize,
            headers: usize::from(head.max_headers),
            target_bytes: head.max_target_bytes as usize,
        },
        messages: DecodeLimits {
            message_bytes: message.max_bytes as usize,
            fragments: message.max_fragments,
            deflated: false,
        },
        echo: echo(config),
        commands: commands(config),
        timeouts: Timeouts {
            handshake: head.timeout,
            login: config.auth.door.deadline,
            message: message.timeout,
            echo_message: config.debug.echo_message_timeout,
            close: message.close_timeout,
            idle: message.idle_timeout,
            queue_age: queue.max_age,
            recall: config.transport.socketio.recovery,
            heartbeat: HeartbeatOptions {
                interval: config.heartbeat.interval,
                timeout: config.heartbeat.timeout,
            },
        },
        queue: OutboundLimits {
            high_water: queue.high_water,
            low_water: queue.low_water,
            max_bytes: queue.max_bytes,
            max_messages: queue.max_messages,
            max_age: queue.max_age,
            ..OutboundLimits::default()
        },
        rooms: rooms(config),
        capacity: Capacity {
            connections,
            parked_mail: config.inside.mesh.parked_max as usize,
            memory: match config.limits.memory.bytes {
                0 => u64::MAX,
                bytes => bytes,
            },
            flush_window: queue.flush_window,
            reconnect_spread: config.reconnect_spread(),
            told: match config.log.closings {
                Closings::Off => Told::Nothing,
                Closings::Faults => Told::Faults,
                Closings::All => Told::Everything,
            },
            outcomes: config.inside.explain.outcomes as usize,
            tenants: usize::from(config.admin.metrics_tenants),
            shelf: shelf(config),
            ids: config.inside.bridge.ids.then_some(config.inside.store.publish_waiting as usize),
            compression: compression(config),
        },
        limits: limits(config, shards(config)),
        access: Arc::new(Access { report: keys::report(config), ..keys::rules(&config.auth) }),
        own_keys: KeySet::default(),
    }
}

/// What holds for publications that are to be stored.
fn shelf(config: &Config) -> Option<ShelfLimits> {
    let store = &config.inside.store;
    let limits =
        ShelfLimits { waiting: store.publish_waiting as usize, patience: store.publish_timeout };
    config.inside.is_lasting().then_some(limits)
}

/// What holds for rooms.
pub(super) fn rooms(config: &Config) -> RoomRules {
    let namespace = |namespace: &Namespace| NamespaceRules {
        pattern: namespace.pattern.clone(),
        overflow: namespace.overflow,
        join: namespace.join,
        publish: namespace.publish,
        origins: keys::origins(namespace).map(Arc::new),
        memory: RoomMemory {
            history: (namespace.kept.history_count > 0).then_some(HistoryLimits {
                count: namespace.kept.history_count,
                bytes: namespace.kept.history_bytes,
                age: namespace.kept.history_age,
            }),
            repeats: namespace.kept.idempotency_window,
            waiting: namespace.kept.room_memory,
        },
        queued: namespace.memory,
        write_delay: namespace.write_delay,
        payload: namespace.payload,
    };
    RoomRules {
        per_connection: config.limits.command.max_rooms as usize,
        overflow: config.queue.overflow,
        join: keys::default_who(config),
        publish: keys::default_who(config),
        open_everyone: config.limits.publish.everyone,
        open_connections: config.limits.publish.connections,
        namespaces: config.lists.namespaces.iter().map(namespace).collect(),
        rates: rates(config),
        presence: presence(config),
        shared: config.inside.bridge.shared.clone(),
        schemas: Arc::default(),
        kinds: config.lists.rates.iter().map(|rate| kind(rate, &config.limits.rates)).collect(),
    }
}

/// What is remembered is divided by the shards, among which users are spread evenly.
fn presence(config: &Config) -> PresenceRules {
    let presence = &config.auth.presence;
    PresenceRules {
        grace: presence.grace,
        interval: presence.interval,
        remembered: presence.remembered.div_ceil(u32::from(shards(config))) as usize,
        list: presence.list as usize,
        watches: usize::from(presence.watches),
        page: usize::from(presence.page),
        metadata: presence.metadata,
        nodes: config.inside.bridge.presence && config.inside.is_linked(),
    }
}

/// How often one connection may publish in the rooms of each namespace, send messages of each kind, and join rooms
/// of each namespace; empty where none has such a rate.
fn rates(config: &Config) -> Vec<Option<Rate>> {
    let burst = config.limits.rates.burst;
    let rate = |namespace: &Namespace| Rate::over(namespace.publications, burst);
    let namespaces = config.lists.namespaces.iter().map(rate);
    let kinds = config.lists.rates.iter().map(|kind| Rate::over(kind.per_second, burst));
    let join = |namespace: &Namespace| Rate::over(namespace.joins, burst);
    let joins = config.lists.namespaces.iter().map(join);
    let rates: Vec<Option<Rate>> = namespaces.chain(kinds).chain(joins).collect();
    if rates.iter().any(Option::is_some) { rates } else { Vec::new() }
}

/// The messages that one `[[rate]]` is for.
fn kind(rate: &rate::Rate, limits: &ConnectionRates) -> KindRate {
    KindRate { types: rate.types.clone(), over: over(rate.over.unwrap_or(limits.over)) }
}

/// A node-wide rate or number is divided by the shards, among which the kernel spreads clients evenly.
fn limits(config: &Config, shards: u16) -> Limits {
    let limits = &config.limits;
    let (own, door) = (&limits.rates, &limits.handshakes);
    let share = |whole: u32| whole.div_ceil(u32::from(shards));
    let own_rates = [own.messages, own.bytes, own.joins, own.publications];
    Limits {
        clients: clients(config),
        over: over(own.over),
        connection: own_rates.map(|per_second| Rate::over(per_second, own.burst)),
        burst: own.burst,
        address: address(&limits.address, own.over),
        user: user(&limits.user),
        tenant: tenant(&limits.tenant),
        tenants: tenants(config),
        door: DoorLimits {
            handshakes: Rate::over(share(door.per_second), Duration::from_secs(1)),
            most: match door.most {
                0 => usize::MAX,
                most => share(most) as usize,
            },
            browser_errors: door.browser_errors,
        },
        outstanding: own.outstanding,
        closes_excess: own.over_limit == limits::OverLimit::Close,
    }
}

fn over(word: limits::OverRate) -> OverRate {
    match word {
        limits::OverRate::Error => OverRate::Error,
        limits::OverRate::Delay => OverRate::Delay,
        limits::OverRate::Close => OverRate::Close,
    }
}

fn address(limits: &limits::AddressLimits, word: limits::OverRate) -> PartyLimits {
    let rate = |per_second| Rate::over(per_second, limits.burst);
    PartyLimits {
        connections: limits.connections,
        handshakes: rate(limits.handshakes),
        rates: [limits.messages, limits.bytes, limits.joins, limits.publications].map(rate),
        over: over(limits.over.unwrap_or(word)),
        ..PartyLimits::default()
    }
}

fn user(limits: &limits::UserLimits) -> PartyLimits {
    let rates = [limits.messages, limits.bytes, limits.joins, limits.publications];
    PartyLimits {
        connections: limits.connections,
        excess: match limits.keep {
            limits::Keep::Newest => Excess::Oldest,
            limits::Keep::Oldest => Excess::Newest,
        },
        rates: rates.map(|per_second| Rate::over(per_second, limits.burst)),
        over: over(limits.over),
        rooms: limits.rooms,
        outstanding: limits.outstanding,
        message_bytes: limits.message_bytes,
        ..PartyLimits::default()
    }
}

fn tenant(limits: &limits::TenantLimits) -> PartyLimits {
    let rates = [limits.messages, limits.bytes, limits.joins, limits.publications];
    PartyLimits {
        connections: limits.connections,
        rooms: limits.rooms,
        memory: limits.memory,
        outstanding: limits.outstanding,
        message_bytes: limits.message_bytes,
        rates: rates.map(|per_second| Rate::over(per_second, limits.burst)),
        over: over(limits.over),
        ..PartyLimits::default()
    }
}

/// Those with limits of their own; what they do not say is as everywhere.
fn tenants(config: &Config) -> Tenants {
    let all = &config.limits.tenant;
    let or = |own: u32, all: u32| if own > 0 { own } else { all };
    let own = |own: &Tenant| {
        tenant(&limits::TenantLimits {
            connections: or(own.connections, all.connections),
            rooms: or(own.rooms, all.rooms),
            outstanding: or(own.outstanding, all.outstanding),
            message_bytes: or(own.message_bytes, all.message_bytes),
            memory: if own.memory > 0 { own.memory } else { all.memory },
            messages: or(own.messages, all.messages),
            bytes: or(own.bytes, all.bytes),
            joins: or(own.joins, all.joins),
            publications: or(own.publications, all.publications),
            burst: if own.burst.is_zero() { all.burst } else { own.burst },
            over: own.over.unwrap_or(all.over),
        })
    };
    let tenants = config.lists.tenants.iter();
    Tenants::new(tenants.map(|tenant| (tenant.name.clone(), own(tenant))).collect())
}

fn clients(config: &Config) -> Clients {
    let proxies = &config.limits.proxies;
    Clients {
        trusted: proxies.trusted.clone(),
        preface: match proxies.protocol {
            ProxyProtocol::Off => Preface::Off,
            ProxyProtocol::Optional => Preface::Optional,
            ProxyProtocol::Required => Preface::Required,
        },
        via: match proxies.header {
            ForwardedHeader::Nothing => Via::Nothing,
            ForwardedHeader::XForwardedFor => Via::XForwardedFor,
            ForwardedHeader::XRealIp => Via::XRealIp,
            ForwardedHeader::Forwarded => Via::Forwarded,
        },
    }
}

pub(super) fn commands(config: &Config) -> CommandLimits {
    let command = &config.limits.command;
    CommandLimits {
        max_depth: usize::from(command.max_depth),
        max_keys: command.max_keys as usize,
        max_room_bytes: usize::from(command.max_room_name_bytes),
        max_rooms: usize::from(command.max_rooms_per_publish),
        audience: AudienceLimits {
            targets: usize::from(config.limits.publish.max_targets),
            except: usize::from(command.max_except),
        },
        max_users: usize::from(config.auth.presence.users),
        max_type_bytes: usize::from(command.max_type_bytes),
        max_id_bytes: usize::from(command.max_id_bytes),
        max_page: usize::from(config.inside.store.inbox_page),
        max_restore: command.max_rooms as usize,
        max_history: HISTORY_PAGE,
        allow_panic: config.debug.panic_command,
    }
}

/// What holds for compressed messages, if there are any.
pub(super) fn compression(config: &Config) -> Option<Compression> {
    let own = &config.transport.compression;
    own.enabled.then_some(Compression {
        level: own.level,
        min_bytes: own.min_bytes as usize,
        max_bytes: own.max_bytes as usize,
        inline_bytes: own.inline_bytes as usize,
        ratio: own.max_ratio as usize,
    })
}

/// What is to be found where.
fn routes(config: &Config) -> Routes {
    Routes {
        sessions: config.server.path.clone(),
        streams: config.server.stream_path.clone(),
        packets: config.server.socketio_path.clone(),
        polling: config
            .transport
            .socketio
            .polling
            .then_some(u64::from(config.limits.message.max_bytes)),
        history: config.server.history_path.clone(),
        echo: config.debug.echo_path.clone(),
        deflate: config.transport.compression.enabled,
        pages: if config.demo.enabled { pages() } else { Arc::default() },
        fronts: fronts(config),
        tls: None,
    }
}

/// An echoed message waits whole, so the queue takes two of the largest; the reader is paused at one.
fn echo(config: &Config) -> Echo {
    let messages = DecodeLimits {
        message_bytes: config.debug.echo_max_message_bytes as usize,
        fragments: config.debug.echo_max_fragments,
        deflated: false,
    };
    Echo { messages, queue: echo_queue(config) }
}

fn echo_queue(config: &Config) -> OutboundLimits {
    let largest = config.debug.echo_max_message_bytes.saturating_add(1024);
    OutboundLimits {
        high_water: config.queue.high_water.max(largest),
        low_water: config.queue.low_water,
        max_bytes: config.queue.max_bytes.max(largest.saturating_mul(2)),
        max_messages: config.queue.max_messages.max(65_536),
        max_age: config.queue.max_age,
        ..OutboundLimits::default()
    }
}

/// What accepted sockets inherit from the listener.
pub(super) fn listen_options(config: &Config) -> ListenOptions {
    let some = |bytes: u32| (bytes > 0).then_some(bytes);
    let tcp = &config.transport.tcp;
    ListenOptions {
        reuse_port: true,
        backlog: config.server.backlog,
        socket: SocketOptions {
            user_timeout_ms: u32::try_from(config.user_timeout().as_millis()).unwrap_or(u32::MAX),
            keepalive_s: u32::try_from(tcp.keepalive_idle.as_secs()).unwrap_or(u32::MAX),
            notsent_lowat: tcp.notsent_lowat,
            send_buffer: some(tcp.send_buffer),
            receive_buffer: some(tcp.receive_buffer),
        },
    }
}

/// What the driver's choice is called there.
pub(super) fn driver_choice(config: &Config) -> driver::Choice {
    match config.server.driver {
        DriverChoice::Auto => driver::Choice::Auto,
        DriverChoice::Epoll => driver::Choice::Epoll,
        DriverChoice::Uring => driver::Choice::Uring,
    }
}

/// The rings' sizes.
pub(super) fn uring_options(config: &Config) -> driver::uring::Options {
    driver::uring::Options {
        entries: config.transport.uring.entries,
        buffers: config.transport.uring.buffers,
        buffer_bytes: config.transport.uring.buffer_bytes,
        idle: match config.transport.uring.idle {
            UringIdle::Recv => Idle::MultishotRecv,
            UringIdle::Poll => Idle::MultishotPoll,
            UringIdle::EpollSet => Idle::EpollSet,
        },
    }
}
