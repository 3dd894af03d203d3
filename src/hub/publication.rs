//! What is published to a room.
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

use serde_json::value::RawValue;

use crate::base::id::ConnAddress;
use crate::base::shared::{Mark, Overflow};
use crate::base::time::Time;

/// A way to encode publications: a protocol and a compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(u8);

impl Class {
    /// How many classes a publication has places for.
    pub const COUNT: usize = 4;

    /// `throng.v1.json` in WebSocket text frames, not compressed.
    pub const WS_JSON: Self = Self(0);

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

/// One publication in one room.
#[derive(Debug)]
pub struct Publication {
    /// The room.
    pub room: Arc<str>,
    /// Its number in the room, from 1.
    pub offset: u64,
    /// When it reached the node.
    pub at: Time,
    /// The application's type: a JSON string as it came, quotes included.
    pub kind: Box<RawValue>,
    /// JSON as it came; shared by the rooms of one command.
    pub payload: Option<Arc<RawValue>>,
    /// The publisher's own identifier for it, as it came.
    pub id: Option<Box<RawValue>>,
    /// Connections that do not receive it. Sorted or not; few.
    pub except: Arc<[ConnAddress]>,
    /// The room's policy for slow readers.
    pub overflow: Overflow,
    /// The conflation key, hashed; zero without one.
    pub key: u64,
    /// The publishing connection, if a connection published it.
    pub from: Option<ConnAddress>,
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
    /// Who published it where under which identifier, hashed; given where a repeat is to be found out.
    pub once: Option<Box<u128>>,
}

/// A publication's bytes, one place per class; all empty at first.
#[derive(Debug, Default)]
pub struct Encoded([OnceLock<Arc<[u8]>>; Class::COUNT]);

impl Encoded {
    /// The bytes for a class, made by `encode` for the first receiver only.
    pub fn bytes(&self, class: Class, encode: impl FnOnce() -> Vec<u8>) -> &Arc<[u8]> {
        self.0[class.index()].get_or_init(|| encode().into())
    }
}

impl Publication {
    /// The bytes for a class, made by `encode` for the first receiver only.
    pub fn bytes(&self, class: Class, encode: impl FnOnce(&Self) -> Vec<u8>) -> &Arc<[u8]> {
        self.encoded.bytes(class, || encode(self))
    }

    /// True when the bytes for a class exist.
    #[must_use]
    pub fn is_encoded(&self, class: Class) -> bool {
        self.encoded.0[class.index()].get().is_some()
    }

    /// The length of its frame in the first class; zero while it does not exist.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.encoded.0[Class::WS_JSON.index()].get().map_or(0, |bytes| bytes.len())
    }

    /// True once nobody is to receive it any more.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        self.terms.until.is_some_and(|until| until <= now)
    }

    /// True when this connection does not receive it.
    #[must_use]
    pub fn excepts(&self, address: ConnAddress) -> bool {
        self.except.contains(&address)
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
