//! Bytes to write, shared by every queue that holds them.
//!
//! A publication is encoded once; its bytes are an [`Arc`] that all shards share. Within a shard each
//! queue holds a [`Shared`]: one pointer, counted without atomics, so a fan-out to many members of one
//! shard never contends with another shard for the count. Beside the bytes stands a [`Mark`], which
//! says what may be done to them when their reader is slow.

use std::rc::Rc;
use std::sync::Arc;

/// What happens to a publication whose receiver's queue is over its high water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The new publication is dropped.
    DropNew,
    /// The oldest queued publications of such rooms are dropped to make space for it.
    #[default]
    DropOldest,
    /// It replaces the queued publication of the same room and key; without one it is treated as
    /// [`Overflow::DropOldest`].
    Conflate,
    /// The connection is closed as a slow consumer.
    Disconnect,
}

/// What a queue may do with the bytes, and whom to name when it drops them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The room the publication was made in.
    pub room: Arc<str>,
    /// The room's policy.
    pub overflow: Overflow,
    /// The publication's conflation key, hashed; publications of one room without a key share 0.
    pub key: u64,
}

/// Bytes that belong to one shard, or to all of them.
#[derive(Debug)]
enum Bytes {
    /// A reply's: as they were written, without another copy.
    Own(Vec<u8>),
    /// A publication's.
    Common(Arc<[u8]>),
}

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    mark: Option<Mark>,
    /// At least 1.
    frames: u32,
}

/// Immutable bytes with a mark, counted per shard. Cloning copies one pointer.
#[derive(Clone, Debug)]
pub struct Shared(Rc<Inner>);

impl Shared {
    /// Bytes that no queue may drop: replies and control frames.
    pub fn kept(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Rc::new(Inner { bytes: Bytes::Own(bytes.into()), mark: None, frames: 1 }))
    }

    /// Bytes that no queue may drop and that all shards send, such as a page.
    #[must_use]
    pub fn common(bytes: Arc<[u8]>) -> Self {
        Self(Rc::new(Inner { bytes: Bytes::Common(bytes), mark: None, frames: 1 }))
    }

    /// Bytes of a publication.
    pub fn marked(bytes: impl Into<Arc<[u8]>>, mark: Mark) -> Self {
        Self(Rc::new(Inner { bytes: Bytes::Common(bytes.into()), mark: Some(mark), frames: 1 }))
    }

    /// Bytes of several publications of one room, which a queue takes or drops together.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn bundle(bytes: Vec<u8>, frames: u32, mark: Mark) -> Self {
        assert!(frames > 0, "a bundle of nothing");
        Self(Rc::new(Inner { bytes: Bytes::Own(bytes), mark: Some(mark), frames }))
    }

    /// How many frames the bytes are.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.0.frames
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Common(bytes) => bytes,
        }
    }

    /// The mark; `None` for what must not be dropped.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        self.0.mark.as_ref()
    }

    /// True when both are the same buffer, not merely equal bytes.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}
