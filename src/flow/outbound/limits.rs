//! The marks of an outbound queue and the answers it gives.
//!
//! Two kinds of data meet in a queue. A publication carries a mark and meets its room's policy above
//! the high water mark, so a slow reader of a busy room costs a bounded amount and stays connected if
//! the room says so. A reply carries none: it was asked for, cannot be dropped, and is accepted up to
//! the hard limit, where the reader is given up. The distance between the two keeps a reader that is
//! merely behind on publications able to use the protocol.

use std::time::Duration;

/// The limits of one outbound queue, shared by all connections.
///
/// A limit is met by what is queued before an item, not by the item: a queue at its limit takes one
/// message more, of any size, and then no other. It so holds at most limit plus one message, and a
/// message larger than the limit can still be sent. Several small publications of a room that come
/// together are one message in this sense; whoever bundles them keeps within
/// [`OutboundLimits::bundle_bytes`] and [`OutboundLimits::bundle_frames`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundLimits {
    /// Bytes, in flight included, above which publications meet their room's policy.
    pub high_water: u32,
    /// Bytes at or under which a congested queue counts as relieved. Below `high_water`.
    pub low_water: u32,
    /// Bytes, in flight included, above which even a reply is refused and the reader is given up.
    pub max_bytes: u32,
    /// Queued messages at which publications meet their room's policy. Replies may go a quarter over.
    pub max_messages: u32,
    /// How long the oldest message may wait, in flight included. The owner compares it with
    /// [`Outbound::oldest`](super::Outbound::oldest); the queue itself never acts on age.
    pub max_age: Duration,
    /// Rooms whose losses are remembered by name, per connection; losses in any further room are
    /// counted together under the empty name.
    pub gap_rooms: u32,
}

impl Default for OutboundLimits {
    fn default() -> Self {
        Self {
            high_water: 256 * 1024,
            low_water: 64 * 1024,
            max_bytes: 1024 * 1024,
            max_messages: 16_384,
            max_age: Duration::from_secs(30),
            gap_rooms: 256,
        }
    }
}

impl OutboundLimits {
    /// Messages at which even a reply is refused.
    #[must_use]
    pub fn max_replies(&self) -> u32 {
        self.max_messages.saturating_add((self.max_messages / 4).max(1))
    }

    /// Bytes that publications may have together to be queued as one item: so few that it makes no
    /// difference to the queue whether they fit one by one.
    #[must_use]
    pub fn bundle_bytes(&self) -> usize {
        (self.high_water.min(self.max_bytes) as usize / 16).min(16 * 1024)
    }

    /// Publications that may be queued as one item.
    #[must_use]
    pub fn bundle_frames(&self) -> usize {
        self.max_messages as usize / 16
    }

    /// True when a queue this full lets publications meet their policy.
    #[must_use]
    pub(super) fn is_over(&self, bytes: u32, messages: u32) -> bool {
        bytes > self.high_water.min(self.max_bytes) || messages >= self.max_messages.max(1)
    }

    /// True when a queue this empty is relieved.
    #[must_use]
    pub(super) fn is_calm(&self, bytes: u32, messages: u32) -> bool {
        bytes <= self.low_water && messages <= self.max_messages / 4
    }

    /// True when a queue this full refuses a reply.
    #[must_use]
    pub(super) fn is_full(&self, bytes: u32, messages: u32) -> bool {
        bytes > self.max_bytes || messages >= self.max_replies()
    }
}

/// What became of a pushed item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is queued and nothing was lost.
    Queued,
    /// It was dropped by `drop_new`: that many publications.
    DroppedNew(u32),
    /// It is queued; that many older publications were dropped for it by `drop_oldest`.
    DroppedOldest(u32),
    /// Dropping by `drop_oldest` made too little space: that many are gone, the pushed item among
    /// them.
    DroppedAll(u32),
    /// It took the place of an older publication of its room and key.
    Conflated,
    /// It is not queued, and the reader is too slow to be kept.
    SlowConsumer,
    /// It is not queued, because nothing may follow the close frame that is.
    Closing,
}

impl Pushed {
    /// True when the item is in the queue.
    #[must_use]
    pub fn is_queued(self) -> bool {
        matches!(self, Self::Queued | Self::DroppedOldest(_) | Self::Conflated)
    }

    /// How many publications were dropped and are remembered as a gap.
    #[must_use]
    pub fn dropped(self) -> u32 {
        match self {
            Self::DroppedNew(count) | Self::DroppedOldest(count) | Self::DroppedAll(count) => count,
            Self::Queued | Self::Conflated | Self::SlowConsumer | Self::Closing => 0,
        }
    }
}

/// A control frame, by what the queue does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Ahead of data; one at a time, a second is superfluous.
    Ping,
    /// Ahead of data; when many wait, a newer one takes the place of the newest (RFC 6455, section 5.5.3).
    Pong,
    /// Behind everything queued; nothing follows it (RFC 6455, section 5.5.1).
    Close,
}

/// A change the owner has to act upon: reads stop while a queue is congested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The queue rose over its high water mark.
    Congested,
    /// The queue fell to its low water mark.
    Relieved,
}
