//! What is published, and to whom.
//!
//! A publication crosses shards in one `Arc`, with its number already given by the room's home, and is
//! never changed again. What it looks like on the wire depends on the receiver's protocol and
//! compression, its [`Class`]; the bytes of each class are made when its first receiver is met, and
//! every later one, on any shard, shares them. If two shards meet the first receiver at the same
//! moment, one waits for the other's encoding; a home that has receivers of its own encodes before it
//! mails, and then nobody ever waits.
//!
//! Payload and type are carried as they came; nothing here reads them.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::keep::Keep;
use crate::base::cursor::Cursor;
use crate::base::id::ConnAddress;
use crate::base::packed::Packed;
use crate::base::shared::{Mark, Overflow};
use crate::base::time::Time;

/// A way to encode publications: a protocol and a compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// How many classes a publication has places for.
    pub const COUNT: usize = 5;

    /// `throng.v1.json` in WebSocket text frames, not compressed.
    pub const WS_JSON: Self = Self(0);

    /// The same as events of a stream, plain.
    pub const SSE_JSON: Self = Self(1);

    /// The same in packets of Socket.IO, in WebSocket text frames, not compressed.
    pub const SIO_JSON: Self = Self(2);

    /// The first of these in compressed frames, where that is shorter.
    pub const WS_JSON_DEFLATED: Self = Self(3);

    /// The third of these in compressed frames, where that is shorter.
    pub const SIO_JSON_DEFLATED: Self = Self(4);

    /// The class's place, below [`Self::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Marks the copies of one command that published to rooms on several homes. Each of the homes mails
/// every shard of the node exactly once, with all of its rooms, whether the shard has members or not;
/// so a shard knows when it has seen the last copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Unique in the node while copies are under way.
    pub id: u64,
    /// Copies that each shard receives.
    pub homes: u16,
}

/// Who receives a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The members of its room, who learn its number.
    Room,
    /// The members of a user's own room: all connections of that user.
    User,
    /// These connections.
    Connections(Arc<[ConnAddress]>),
    /// All connections of the tenant.
    Everyone,
}

/// Who does not receive it, whatever the targets are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Except {
    /// These connections. Sorted or not; few.
    pub connections: Box<[ConnAddress]>,
    /// The members of these rooms, users' own rooms among them. Each shard knows its own.
    pub rooms: Box<[Arc<str>]>,
}

/// Who receives a publication and who does not.
#[derive(Clone, Debug)]
pub struct Audience {
    /// Who does.
    pub target: Target,
    /// Who does not; `None`: nobody is excepted.
    pub except: Option<Arc<Except>>,
}

/// An order of a back end that wants to know how many a publication reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slip {
    /// The number of the order.
    pub order: u64,
    /// Which of its publications it is.
    pub item: u32,
    /// Those on other nodes are to be counted as well.
    pub everywhere: bool,
}

impl Slip {
    /// Orders that another node wants to know about have numbers from here on: they are the bridge's.
    pub const AFAR: u64 = 1 << 63;
}

/// Where a publication comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A connection.
    Connection(ConnAddress),
    /// A back end, which may want to know how many it reaches.
    BackEnd(Option<Slip>),
}

impl Origin {
    /// The publishing connection, if it was one.
    #[must_use]
    pub fn connection(self) -> Option<ConnAddress> {
        match self {
            Self::Connection(address) => Some(address),
            Self::BackEnd(_) => None,
        }
    }

    /// Who wants to know how many it reaches.
    #[must_use]
    pub fn slip(self) -> Option<Slip> {
        match self {
            Self::Connection(_) => None,
            Self::BackEnd(slip) => slip,
        }
    }
}

/// One publication to one target.
#[derive(Debug)]
pub struct Publication {
    /// The room, or the name within the node that stands for the target.
    pub room: Arc<str>,
    /// Who receives it, and who does not.
    pub to: Audience,
    /// Its number in the room, from 1, and which numbering that is of.
    pub cursor: Cursor,
    /// When it reached the node.
    pub at: Time,
    /// The application's type: a JSON string as it came, quotes included.
    pub kind: Box<RawValue>,
    /// JSON as it came; shared by the rooms of one command.
    pub payload: Option<Arc<RawValue>>,
    /// The publisher's own identifier for it, as it came.
    pub id: Option<Box<RawValue>>,
    /// The room's policy for slow readers.
    pub overflow: Overflow,
    /// The conflation key, hashed; zero without one.
    pub key: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// What may happen to it later.
    pub terms: Terms,
    /// The bytes per class, once made.
    pub encoded: Encoded,
}

/// What its author asked for beyond delivery.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// From then on nobody receives it any more.
    pub until: Option<Time>,
    /// Given where a repeat is to be found out.
    pub once: Option<Box<Once>>,
    /// Whether its home sends it on to the other nodes.
    pub across: bool,
    /// Whether another node took it from its author, and so answers for it.
    pub foreign: bool,
    /// Given where it is not the home that numbers it.
    pub keep: Option<Box<Keep>>,
    /// Whether it is to be stored first.
    pub durable: Durable,
}

/// Whether a publication is stored before anybody has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durable {
    /// It is not stored.
    #[default]
    No,
    /// It is to be.
    Asked,
    /// The store has it.
    Stored,
}

/// By what a repeat is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Who published it where under which identifier, hashed under the node's seed.
    pub name: u128,
    /// Who published it, as another process can tell.
    pub by: By,
}

/// Who published something, as far as that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum By {
    /// A back end.
    BackEnd,
    /// A user, after the tenant.
    User(Option<Box<str>>, Box<str>),
    /// A connection without a user, which ends with the process.
    Connection,
}

/// A place for the bytes of one class.
type Place = OnceLock<Arc<[u8]>>;

/// A publication's bytes, one place per class; all empty at first.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Of the class that most read.
    first: Place,
    /// Of the others, from when one of them is asked for: a kept publication seldom has them.
    others: OnceLock<Box<[Place; Class::COUNT - 1]>>,
    /// What the payload was compressed to before, for classes that are compressed.
    packed: Option<Packed>,
}

impl Encoded {
    /// Nothing yet but this.
    #[must_use]
    pub fn of(packed: Option<Packed>) -> Self {
        Self { packed, ..Self::default() }
    }

    /// What the payload was compressed to.
    #[must_use]
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// The bytes for a class, made by `encode` for the first receiver only.
    pub fn bytes(&self, class: Class, encode: impl FnOnce() -> Vec<u8>) -> &Arc<[u8]> {
        self.share(class, || encode().into())
    }

    /// The same by bytes that may be another class's too.
    pub fn share(&self, class: Class, make: impl FnOnce() -> Arc<[u8]>) -> &Arc<[u8]> {
        let place = match class.index().checked_sub(1) {
            None => &self.first,
            Some(at) => &self.others.get_or_init(Box::default)[at],
        };
        place.get_or_init(make)
    }

    fn get(&self, class: Class) -> Option<&Arc<[u8]>> {
        match class.index().checked_sub(1) {
            None => self.first.get(),
            Some(at) => self.others.get()?[at].get(),
        }
    }
}

impl Publication {
    /// The same before it was numbered, for whoever needs it beside its home.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            room: Arc::clone(&self.room),
            to: self.to.clone(),
            cursor: Cursor::default(),
            at: self.at,
            kind: self.kind.clone(),
            payload: self.payload.clone(),
            id: self.id.clone(),
            overflow: self.overflow,
            key: self.key,
            origin: self.origin,
            terms: Terms { until: self.terms.until, ..Terms::default() },
            encoded: Encoded::default(),
        }
    }

    /// The bytes for a class, made by `encode` for the first receiver only.
    pub fn bytes(&self, class: Class, encode: impl FnOnce(&Self) -> Vec<u8>) -> &Arc<[u8]> {
        self.encoded.bytes(class, || encode(self))
    }

    /// True when the bytes for a class exist.
    #[must_use]
    pub fn is_encoded(&self, class: Class) -> bool {
        self.encoded.get(class).is_some()
    }

    /// The length of its frame in the first class; zero while it does not exist.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.encoded.get(Class::WS_JSON).map_or(0, |bytes| bytes.len())
    }

    /// True once nobody is to receive it any more.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        self.terms.until.is_some_and(|until| until <= now)
    }

    /// True when this connection is excepted by its address.
    #[must_use]
    pub fn excepts(&self, address: ConnAddress) -> bool {
        self.to.except.as_ref().is_some_and(|except| except.connections.contains(&address))
    }

    /// True when the members of a room receive it.
    #[must_use]
    pub fn has_members(&self) -> bool {
        matches!(self.to.target, Target::Room | Target::User)
    }

    /// What a queue may do with it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { room: Arc::clone(&self.room), overflow: self.overflow, key: self.key }
    }
}

const _: () = {
    const fn crosses_shards<T: Send + Sync>() {}
    crosses_shards::<Publication>();
};
