//! The words that keys take: enums whose cases have names in TOML.

use super::kind::Word;
use crate::base::shared::Overflow;

/// Which kernel interface to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// What the kernel allows and measurement favours.
    Auto,
    /// epoll.
    Epoll,
    /// io_uring, or no start.
    Uring,
}

impl Word for DriverChoice {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Auto, "auto"), (Self::Epoll, "epoll"), (Self::Uring, "uring")];
}

/// How io_uring watches connections that have nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UringIdle {
    /// A multishot recv each.
    Recv,
    /// A multishot poll each.
    Poll,
    /// An epoll set for all, which the ring polls.
    EpollSet,
}

impl Word for UringIdle {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Recv, "recv"), (Self::Poll, "poll"), (Self::EpollSet, "epoll_set")];
}

impl Word for Overflow {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::DropNew, "drop_new"),
        (Self::DropOldest, "drop_oldest"),
        (Self::Conflate, "conflate"),
        (Self::Pause, "pause"),
        (Self::Disconnect, "disconnect"),
    ];
}

/// What a key of the admin listener opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// Making tickets.
    Tickets,
    /// Revoking tokens and users.
    Revoke,
    /// Reading the counters.
    Inspect,
    /// Notifying users, and their inboxes.
    Notify,
    /// Publishing.
    Publish,
}

impl Word for KeyScope {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Tickets, "tickets"),
        (Self::Revoke, "revoke"),
        (Self::Inspect, "inspect"),
        (Self::Notify, "notify"),
        (Self::Publish, "publish"),
    ];
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Word for LogFormat {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Text, "text"), (Self::Json, "json")];
}

/// Which ends of connections are told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closings {
    /// None.
    Off,
    /// Those with a fault in them.
    Faults,
    /// All.
    All,
}

impl Word for Closings {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Off, "off"), (Self::Faults, "faults"), (Self::All, "all")];
}

/// From which severity on log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What someone must look at.
    Error,
    /// What someone should look at.
    Warn,
    /// What happens to the node.
    Info,
    /// What happens to connections.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name, as log filters take it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(level, _)| *level == self).map_or("info", |(_, name)| name)
    }
}

impl Word for LogLevel {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];
}
