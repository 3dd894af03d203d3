//! What a shard is told: limits and rules as values.
//!
//! Built by `node` from the configuration, shared by all shards, replaced as a whole when the
//! configuration is read again. Each part is the options type of the module that it is for.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Access, KeySet, Right, Who};
use crate::base::glob::Glob;
use crate::base::shared::Overflow;
use crate::connection::{Connection, Routes, Timeouts};
use crate::flow::outbound::OutboundLimits;
use crate::session::{CommandLimits, Session};
use crate::wire::http::HeadLimits;
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
    /// Of messages at the echo path.
    pub echo_messages: DecodeLimits,
    /// Of commands.
    pub commands: CommandLimits,
    /// Who may take how long for what.
    pub timeouts: Timeouts,
    /// Of a session's outbound queue.
    pub queue: OutboundLimits,
    /// Of an echoing connection's outbound queue.
    pub echo_queue: OutboundLimits,
    /// Of rooms.
    pub rooms: RoomRules,
    /// Of the shard as a whole.
    pub capacity: Capacity,
    /// Of the door. The verifier's keys are `own_keys` and whatever was fetched since.
    pub access: Arc<Access>,
    /// The keys of the configuration.
    pub own_keys: KeySet,
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
    /// Exceptions, by name pattern; the first match decides.
    pub namespaces: Vec<NamespaceRules>,
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
}

/// The limits of the shard as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Open connections; above it a handshake gets 503.
    pub connections: usize,
    /// Mail that may be parked for full inboxes before publishing and joining is refused.
    pub parked_mail: usize,
    /// The longest that writes are held back to gather more for each; zero: never.
    pub flush_window: Duration,
    /// The range over which reconnect delays are spread at shutdown.
    pub reconnect_spread: Duration,
}

impl Settings {
    /// The limits of the messages that a connection sends.
    pub(super) fn messages_of(&self, connection: &Connection) -> &DecodeLimits {
        match connection.open() {
            Some(open) if open.session == Session::Echo => &self.echo_messages,
            _ => &self.messages,
        }
    }

    /// The limits of a connection's queue.
    pub(super) fn queue_of(&self, connection: &Connection) -> &OutboundLimits {
        match connection.open() {
            Some(open) if open.session == Session::Echo => &self.echo_queue,
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

    /// Who may use a right in a room. Whoever may join may ask who is there, if the grants say so.
    #[must_use]
    pub fn who(&self, room: &str, right: Right) -> Who {
        let namespace = self.namespace_of(room);
        match right {
            Right::Join | Right::Presence => {
                namespace.and_then(|namespace| namespace.join).unwrap_or(self.join)
            }
            Right::Publish => {
                namespace.and_then(|namespace| namespace.publish).unwrap_or(self.publish)
            }
        }
    }

    fn namespace_of(&self, room: &str) -> Option<&NamespaceRules> {
        self.namespaces.iter().find(|namespace| namespace.pattern.matches(room))
    }
}
