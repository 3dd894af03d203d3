//! What a shard is told: limits and rules as values.
//!
//! Built by `node` from the configuration, shared by all shards, replaced as a whole when the
//! configuration is read again. Each part is the options type of the module that it is for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Access, KeySet, OriginRules, Place, Right, Who, place};
use crate::base::glob::Glob;
use crate::base::network::Network;
use crate::base::party::Party;
use crate::base::shared::Overflow;
use crate::connection::{Connection, Routes, Timeouts};
use crate::flow::budget::Rate;
use crate::flow::meter::Rates;
use crate::flow::outbound::OutboundLimits;
use crate::hub::{Excess, HistoryLimits};
use crate::session::schema::Schemas;
use crate::session::{CommandLimits, Session};
use crate::shard::farewells::Told;
use crate::shard::tenants::Tenants;
use crate::wire::http::{HeadLimits, Via};
use crate::wire::websocket::DecodeLimits;

/// All limits and rules of a shard.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which path is what.
    pub routes: Routes,
    /// Of request heads.
    pub head: HeadLimits,
    /// Of messages in a session.
    pub messages: DecodeLimits,
    /// Of the echo path.
    pub echo: Echo,
    /// Of commands.
    pub commands: CommandLimits,
    /// Who may take how long for what.
    pub timeouts: Timeouts,
    /// Of a session's outbound queue.
    pub queue: OutboundLimits,
    /// Of rooms.
    pub rooms: RoomRules,
    /// Of the shard as a whole.
    pub capacity: Capacity,
    /// Of the door. The verifier's keys are `own_keys` and whatever was fetched since.
    pub access: Arc<Access>,
    /// The keys of the configuration.
    pub own_keys: KeySet,
    /// Of how often and how many.
    pub limits: Limits,
}

/// The limits of connections at the echo path.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Of messages.
    pub messages: DecodeLimits,
    /// Of the outbound queue.
    pub queue: OutboundLimits,
}

/// How often something may happen, and how many there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Who is believed about an address.
    pub clients: Clients,
    /// What becomes of what a connection sends too soon.
    pub over: OverRate,
    /// What one connection may send: a rate for each [`Cost`].
    pub connection: Rates<COSTS>,
    /// The length of a burst of one connection, for rates that its token sets.
    pub burst: Duration,
    /// Of one address.
    pub address: PartyLimits,
    /// Of one user.
    pub user: PartyLimits,
    /// Of one tenant.
    pub tenant: PartyLimits,
    /// Of those tenants that have limits of their own.
    pub tenants: Tenants,
    /// Of those who want to come in.
    pub door: DoorLimits,
    /// Commands of one connection that may await their answers.
    pub outstanding: u16,
    /// Whether who is over a limit that is no rate is closed after it has heard which.
    pub closes_excess: bool,
}

/// Of those who want to come in.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Handshakes of this shard; its share of the node's.
    pub handshakes: Option<Rate>,
    /// Connections of this shard that may be at their handshake; its share of the node's.
    pub most: usize,
    /// Whether browsers are let in to be told why they must go.
    pub browser_errors: bool,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self { handshakes: None, most: usize::MAX, browser_errors: false }
    }
}

/// How many things a message may cost, each with a rate of its own.
pub const COSTS: usize = 4;

/// What a message costs: messages (one), bytes, joins, and publications, one for each room that it names.
pub type Cost = [u32; COSTS];

/// The same for a party, which has handshakes beside those.
pub const PARTY_COSTS: usize = COSTS + 1;

/// The limits of those who are counted together, all of them over the whole node.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartyLimits {
    /// Connections; zero: no limit.
    pub connections: u32,
    /// Who goes when there is one too many.
    pub excess: Excess,
    /// Rooms; zero: no limit. Of a tenant those that there are, of a user those that its connections are in, each
    /// counting its own.
    pub rooms: u32,
    /// Handshakes.
    pub handshakes: Option<Rate>,
    /// What all connections together may send: a rate for each [`Cost`].
    pub rates: Rates<COSTS>,
    /// What becomes of what they send too soon.
    pub over: OverRate,
    /// Bytes of what waits for them; zero: no limit. Only of tenants.
    pub memory: u64,
    /// Commands that may await their answers; zero: no limit.
    pub outstanding: u32,
    /// Bytes of a message; zero: as everywhere. Of users and tenants, for those who log in from now on.
    pub message_bytes: u32,
}

impl PartyLimits {
    /// True when something that is sent has a rate.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.rates.iter().any(Option::is_some)
    }

    /// All rates: of each [`Cost`], and of handshakes.
    #[must_use]
    pub fn shared(&self) -> Rates<PARTY_COSTS> {
        let [messages, bytes, joins, publications] = self.rates;
        [messages, bytes, joins, publications, self.handshakes]
    }
}

/// What a message costs a party.
pub(super) fn toll([messages, bytes, joins, publications]: Cost) -> [u32; PARTY_COSTS] {
    [messages, bytes, joins, publications, 0]
}

/// What becomes of a message that comes sooner than its rate allows; what is worse for its sender comes
/// later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverRate {
    /// It is obeyed, and nothing more is read until the rate is kept again.
    Delay,
    /// It is dropped and answered with an error.
    #[default]
    Error,
    /// Its connection is closed.
    Close,
}

/// Whether a PROXY header stands before a connection's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// None is looked for.
    Off,
    /// A trusted peer may send one.
    Optional,
    /// Nobody is served without.
    Required,
}

/// Who is believed about a client's address.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The proxies in front of the node.
    pub trusted: Vec<Network>,
    /// Whether they speak the PROXY protocol.
    pub preface: Preface,
    /// The header in which they name the client.
    pub via: Via,
}

impl Clients {
    /// True when the address is a trusted proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

impl Default for Limits {
    /// No limit, and nobody is believed.
    fn default() -> Self {
        Self {
            clients: Clients { trusted: Vec::new(), preface: Preface::Off, via: Via::Nothing },
            over: OverRate::Error,
            connection: [None; COSTS],
            burst: Duration::from_secs(2),
            address: PartyLimits::default(),
            user: PartyLimits::default(),
            tenant: PartyLimits::default(),
            tenants: Tenants::default(),
            door: DoorLimits::default(),
            outstanding: u16::MAX,
            closes_excess: false,
        }
    }
}

impl Limits {
    /// True when the commands of tenants that may await their answers are limited, of all or of some.
    #[must_use]
    pub fn asks_of_tenants(&self) -> bool {
        self.tenant.outstanding > 0 || self.tenants.are_asked_of()
    }

    /// The limits of that party.
    #[must_use]
    pub fn of(&self, party: Party) -> &PartyLimits {
        match party {
            Party::V4(_) | Party::V6(_) => &self.address,
            Party::User(_) => &self.user,
            Party::Tenant(_) => self.tenants.get(party).unwrap_or(&self.tenant),
        }
    }
}

/// The rules of rooms.
#[derive(Clone, Debug)]
pub struct RoomRules {
    /// Rooms one connection may be in.
    pub per_connection: usize,
    /// What happens to a publication that a slow reader has no space for.
    pub overflow: Overflow,
    /// Who may join, where no namespace says otherwise.
    pub join: Who,
    /// Who may publish, where no namespace says otherwise.
    pub publish: Who,
    /// Clients that nobody knows may publish to everyone, where nobody has to say who they are.
    pub open_everyone: bool,
    /// They may publish to connections by their ids.
    pub open_connections: bool,
    /// Exceptions, by name pattern; the first match decides.
    pub namespaces: Vec<NamespaceRules>,
    /// How often one connection may publish in the rooms of each namespace, in their order, behind those how often
    /// it may send messages of each of `kinds`, and behind those how often it may join rooms of each namespace;
    /// empty where none has such a rate.
    pub rates: Vec<Option<Rate>>,
    /// Messages with a rate by their type; the first match decides.
    pub kinds: Vec<KindRate>,
    /// Of who is there.
    pub presence: PresenceRules,
    /// The rooms, by the names that clients use, whose history all nodes share. Of no effect in a node that works
    /// alone.
    pub shared: Vec<Glob>,
    /// What payloads must look like.
    pub schemas: Arc<Schemas>,
}

/// The rules of presence.
#[derive(Clone, Debug)]
pub struct PresenceRules {
    /// From the end of a user's last connection until the user is offline.
    pub grace: Duration,
    /// The least time between two pushes about the same subjects.
    pub interval: Duration,
    /// Users of whom it is remembered when they were last seen, of those whose home the shard is.
    pub remembered: usize,
    /// Members of a room above which its observers are told their number alone.
    pub list: usize,
    /// Users and rooms that one connection may watch.
    pub watches: usize,
    /// Members of a room in one answer.
    pub page: usize,
    /// Whether the program and the time of arrival of connections are kept.
    pub metadata: bool,
    /// Whether users of other nodes are there as well.
    pub nodes: bool,
}

impl Default for PresenceRules {
    /// As the configuration has it, for a node of one shard.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            interval: Duration::from_secs(1),
            remembered: 100_000,
            list: 500,
            watches: 256,
            page: 100,
            metadata: false,
            nodes: false,
        }
    }
}

/// What holds for the rooms of one pattern.
#[derive(Clone, Debug)]
pub struct NamespaceRules {
    /// The rooms, by the names that clients use.
    pub pattern: Glob,
    /// What happens to a publication that a slow reader has no space for.
    pub overflow: Overflow,
    /// Who may join; `None`: as everywhere.
    pub join: Option<Who>,
    /// Who may publish; `None`: as everywhere.
    pub publish: Option<Who>,
    /// The pages that the rooms are for; `None`: all that may connect. Programs are no pages.
    pub origins: Option<Arc<OriginRules>>,
    /// What is kept of what was published.
    pub memory: RoomMemory,
    /// Bytes of what waits for readers of the rooms, in the whole node; zero: no limit.
    pub queued: u64,
    /// How long what is published may wait for more before it is written; zero: not at all.
    pub write_delay: Duration,
    /// Bytes of the payload of what a client publishes to the rooms; zero: no limit of theirs.
    pub payload: u32,
}

/// Messages with a rate by their type. The rate itself stands in [`RoomRules::rates`].
#[derive(Clone, Debug)]
pub struct KindRate {
    /// Their types.
    pub types: Glob,
    /// What becomes of one that comes too soon.
    pub over: OverRate,
}

/// What may be held of a room's publications, remembered by its home and waiting for its readers.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoomMemory {
    /// The publications themselves; `None`: nothing.
    pub history: Option<HistoryLimits>,
    /// How long their identifiers are remembered; zero: not at all.
    pub repeats: Duration,
    /// Bytes that may wait for the room's readers in the node before its publications meet their policy early;
    /// zero: as many as the namespace may have.
    pub waiting: u64,
}

/// What a room keeps whose history all nodes share, where its namespace does not say.
const SHARED: HistoryLimits =
    HistoryLimits { count: 100, bytes: 1 << 20, age: Duration::from_secs(300) };

/// The limits of the shard as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Open connections; above it a handshake gets 503.
    pub connections: usize,
    /// Mail that may be parked for full inboxes before publishing and joining is refused.
    pub parked_mail: usize,
    /// The memory budget of the whole node, in bytes.
    pub memory: u64,
    /// The longest that writes are held back to gather more for each; zero: never.
    pub flush_window: Duration,
    /// The range over which reconnect delays are spread at shutdown.
    pub reconnect_spread: Duration,
    /// Which ends of connections are told.
    pub told: Told,
    /// Outcomes that are remembered, of 32 bytes each: a power of two, or zero.
    pub outcomes: usize,
    /// Tenants of the node whose figures are told apart; zero: no tenant's are.
    pub tenants: usize,
    /// What holds for publications that are to be stored; `None` where there is nothing that outlives the process.
    pub shelf: Option<ShelfLimits>,
    /// Publications of one room that may wait until all nodes have told whether they were taken before; `None` where
    /// they are not asked.
    pub ids: Option<usize>,
    /// What holds for compressed messages; `None` where none are.
    pub compression: Option<Compression>,
}

/// Of messages that are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// How hard to work, 1 to 9.
    pub level: u8,
    /// Shorter frames are sent plain.
    pub min_bytes: usize,
    /// Longer ones too.
    pub max_bytes: usize,
    /// Longer payloads are compressed beside the shards, or not at all.
    pub inline_bytes: usize,
    /// How many times as long a read may become.
    pub ratio: usize,
}

/// The limits of what waits for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShelfLimits {
    /// Publications of one room that may wait.
    pub waiting: usize,
    /// How long each waits before its author is told that it is not known whether it is stored.
    pub patience: Duration,
}

impl Settings {
    /// The limits of the messages that a connection sends.
    pub(super) fn messages_of(&self, connection: &Connection) -> &DecodeLimits {
        match connection.open() {
            Some(open) if open.session == Session::Echo => &self.echo.messages,
            _ => &self.messages,
        }
    }

    /// The limits of a connection's queue.
    pub(super) fn queue_of(&self, connection: &Connection) -> &OutboundLimits {
        match connection.open() {
            Some(open) if open.session == Session::Echo => &self.echo.queue,
            _ => &self.queue,
        }
    }
}

impl RoomRules {
    /// The policy of a room.
    #[must_use]
    pub fn overflow_of(&self, room: &str) -> Overflow {
        self.namespace_of(room).map_or(self.overflow, |namespace| namespace.overflow)
    }

    /// How long what is published in a room may wait to be written. Looks at names only where anything waits.
    #[must_use]
    pub fn write_delay_of(&self, room: &str) -> Duration {
        if self.namespaces.iter().all(|namespace| namespace.write_delay.is_zero()) {
            return Duration::ZERO;
        }
        self.namespace_of(room).map_or(Duration::ZERO, |namespace| namespace.write_delay)
    }

    /// Who may use a right in a room. Whoever may join may ask who is there and
    /// what was published, if the grants say so.
    #[must_use]
    pub fn who(&self, room: &str, right: Right) -> Who {
        let namespace = self.namespace_of(room);
        match right {
            Right::Join | Right::Presence | Right::History => {
                namespace.and_then(|namespace| namespace.join).unwrap_or(self.join)
            }
            Right::Publish => {
                namespace.and_then(|namespace| namespace.publish).unwrap_or(self.publish)
            }
        }
    }

    /// Bytes that the payload of what a client publishes in the room may have.
    #[must_use]
    pub fn payload_limit(&self, room: &str) -> usize {
        let limits = |namespace: &NamespaceRules| namespace.payload > 0;
        if !self.namespaces.iter().any(limits) {
            return usize::MAX;
        }
        let own = self.namespace_of(room).filter(|namespace| limits(namespace));
        own.map_or(usize::MAX, |namespace| namespace.payload as usize)
    }

    /// The pages that the room is for, where not for all.
    #[must_use]
    pub fn origins_of(&self, room: &str) -> Option<&OriginRules> {
        self.namespace_of(room).and_then(|namespace| namespace.origins.as_deref())
    }

    /// True when some rooms are for some pages only.
    #[must_use]
    pub fn have_origins(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.origins.is_some())
    }

    /// True for a room, by its name within the node, whose history all nodes share.
    #[must_use]
    pub fn shares(&self, name: &str) -> bool {
        !self.shared.is_empty() && matches!(place(name), Place::Room(room) if self.is_shared(room))
    }

    fn is_shared(&self, room: &str) -> bool {
        self.shared.iter().any(|pattern| pattern.matches(room))
    }

    /// What is remembered of a room. Looks at names only where something is remembered of any.
    #[must_use]
    pub fn memory_of(&self, room: &str) -> RoomMemory {
        let memory = self.memory_by_namespace(room);
        if self.shared.is_empty() || !self.is_shared(room) {
            return memory;
        }
        RoomMemory { history: memory.history.or(Some(SHARED)), ..memory }
    }

    fn memory_by_namespace(&self, room: &str) -> RoomMemory {
        let remembers = |namespace: &NamespaceRules| {
            namespace.memory.history.is_some() || !namespace.memory.repeats.is_zero()
        };
        if self.namespaces.iter().any(remembers) {
            self.namespace_of(room).map_or_else(RoomMemory::default, |namespace| namespace.memory)
        } else {
            RoomMemory::default()
        }
    }

    fn namespace_of(&self, room: &str) -> Option<&NamespaceRules> {
        self.namespaces.get(self.namespace_at(room)?)
    }

    /// The place of a room's namespace in their list; `None` where it has none.
    pub(super) fn namespace_at(&self, room: &str) -> Option<usize> {
        self.namespaces.iter().position(|namespace| namespace.pattern.matches(room))
    }

    /// True when both have the same namespaces in the same order.
    pub(super) fn has_namespaces_of(&self, other: &Self) -> bool {
        let mine = self.namespaces.iter().map(|namespace| &namespace.pattern);
        mine.eq(other.namespaces.iter().map(|namespace| &namespace.pattern))
    }
}
