//! Why a connection ended: an outcome, not an error.
//!
//! Every end has one case here, and each case maps totally to a close code (when a close frame can
//! still be sent), a reason the client can read, advice whether to come back, and a label for the
//! counters. RFC 6455 section 7.4 and the IANA registry give the codes.

use std::borrow::Cow;
use std::time::Duration;

use crate::auth::TokenError;
use crate::base::counters::Counters;
use crate::wire::websocket::{CloseCode, Violation};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The client sent a close frame; it is answered with the same code.
    ClosedByClient,
    /// The client ended its stream without a close frame.
    Vanished,
    /// The network failed under the connection.
    Lost,
    /// The client stayed silent past its heartbeat. No close handshake: nobody is there to answer.
    HeartbeatLost,
    /// The client broke RFC 6455 or one of the message limits.
    Violated(Violation),
    /// A message was begun and not finished in time.
    MessageTimeout,
    /// No message for longer than the idle limit.
    Idle,
    /// The client reads more slowly than it is written to, and its queue's limits or policy say stop.
    SlowConsumer,
    /// The node is shutting down.
    Reload,
    /// Our own code panicked while handling the connection.
    Panicked,
    /// The request was answered by something other than an upgrade: a page or a refusal.
    Answered,
    /// The socket has left, with a request that another server answers.
    HandedOver,
    /// No complete request head arrived in time.
    HandshakeTimeout,
    /// The token is missing or wrong, and the client hears of it after the upgrade.
    Denied(TokenError),
    /// The token has expired and no fresh one came.
    Expired,
    /// The token or its user was revoked.
    Revoked,
    /// The client broke TLS, or the two ends could not agree. An alert has told it what was wrong.
    TlsFailed,
    /// The client sent more than its rate allows, and the configuration says close.
    RateLimited,
    /// The client has more of something than it may, and the configuration says close. An error has told it of what.
    OverLimit,
    /// Its party (an address, a user, a tenant) has one connection too many; it was given a place in the line.
    TooMany {
        /// When its turn comes.
        seconds: u16,
    },
    /// The same user has come with one connection too many, and the newest ones stay.
    Replaced,
    /// A back end sends the connection away, with a code of its choice.
    Dismissed(CloseCode),
    /// The handshake came at a busy time; the client was given a place in the line.
    TryLater {
        /// When its turn comes.
        seconds: u16,
    },
    /// Memory is short, and more waited for this client than for most.
    MemoryShort,
    /// The PROXY protocol was missing or malformed where it must stand.
    Unannounced,
}

impl Disconnect {
    /// The client has a place in the line and comes back after so long, in whole seconds: the next that are not too few.
    #[must_use]
    pub fn later(wait: Duration) -> Self {
        Self::TryLater { seconds: seconds(wait) }
    }

    /// The same for one whose party has one connection too many.
    #[must_use]
    pub fn too_many(wait: Duration) -> Self {
        Self::TooMany { seconds: seconds(wait) }
    }

    /// When the client was told to come back, if it was.
    #[must_use]
    pub fn return_after(self) -> Option<Duration> {
        match self {
            Self::TryLater { seconds } | Self::TooMany { seconds } => {
                Some(Duration::from_secs(seconds.into()))
            }
            _ => None,
        }
    }

    /// The close code and the reason for the close frame; `None` when no frame is sent.
    #[must_use]
    pub fn close_frame(self) -> Option<(CloseCode, Cow<'static, str>)> {
        let (code, reason) = match self {
            Self::Violated(violation) => (violation.code(), violation.reason()),
            Self::MessageTimeout => (CloseCode::POLICY, "a message was not finished in time"),
            Self::Idle => (CloseCode::AWAY, "idle for too long"),
            Self::SlowConsumer => {
                (CloseCode::TRY_AGAIN, "slow consumer: reads too slowly, come back later")
            }
            Self::Reload => (CloseCode::RESTART, "the node restarts, reconnect"),
            Self::Panicked => (CloseCode::INTERNAL, "internal error"),
            Self::Denied(error) => (CloseCode::POLICY, error.public()),
            Self::Expired => (CloseCode::EXPIRED, TokenError::Expired.public()),
            Self::Revoked => (CloseCode::POLICY, TokenError::Revoked.public()),
            Self::RateLimited => (CloseCode::POLICY, "more messages than the rate allows"),
            Self::OverLimit => (CloseCode::POLICY, "more than a limit allows"),
            Self::Replaced => (CloseCode::REPLACED, "replaced by a newer connection"),
            Self::MemoryShort => {
                (CloseCode::TRY_AGAIN, "memory is short: reads too slowly, come back later")
            }
            Self::TooMany { seconds } => {
                let reason = format!("too many connections: come back in {seconds} s");
                return Some((CloseCode::TRY_AGAIN, reason.into()));
            }
            Self::TryLater { seconds } => {
                let reason = format!("busy: come back in {seconds} s");
                return Some((CloseCode::TRY_AGAIN, reason.into()));
            }
            Self::Dismissed(code) => (code, "disconnected by the application"),
            Self::ClosedByClient
            | Self::Vanished
            | Self::Lost
            | Self::HeartbeatLost
            | Self::Answered
            | Self::HandedOver
            | Self::HandshakeTimeout
            | Self::TlsFailed
            | Self::Unannounced => return None,
        };
        Some((code, reason.into()))
    }

    /// True when the client may come back (after a delay); false when the same would happen again.
    #[must_use]
    pub fn may_return(self) -> bool {
        if let Self::Dismissed(code) = self {
            return [CloseCode::AWAY, CloseCode::RESTART, CloseCode::TRY_AGAIN].contains(&code);
        }
        !matches!(
            self,
            Self::Violated(_)
                | Self::ClosedByClient
                | Self::Answered
                | Self::HandedOver
                | Self::Denied(_)
                | Self::Revoked
                | Self::Replaced
                | Self::TlsFailed
                | Self::Unannounced
        )
    }

    /// The label in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ClosedByClient => "closed_by_client",
            Self::Vanished => "vanished",
            Self::Lost => "lost",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::Violated(_) => "violation",
            Self::MessageTimeout => "message_timeout",
            Self::Idle => "idle",
            Self::SlowConsumer => "slow_consumer",
            Self::Reload => "reload",
            Self::Panicked => "panicked",
            Self::Answered => "answered",
            Self::HandedOver => "handed_over",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Denied(_) => "denied",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::TlsFailed => "tls_failed",
            Self::RateLimited => "rate_limited",
            Self::OverLimit => "over_limit",
            Self::TooMany { .. } => "too_many",
            Self::Replaced => "replaced",
            Self::MemoryShort => "memory_short",
            Self::Dismissed(_) => "dismissed",
            Self::TryLater { .. } => "try_later",
            Self::Unannounced => "unannounced",
        }
    }

    /// Counts this end.
    pub fn count(self, counters: &mut Counters) {
        let counter = match self {
            Self::ClosedByClient | Self::Reload | Self::Answered | Self::Idle => {
                &mut counters.closed_total
            }
            Self::HandedOver => &mut counters.handed_over_total,
            Self::Vanished | Self::Lost => &mut counters.lost_total,
            Self::HeartbeatLost => &mut counters.heartbeat_lost_total,
            Self::Violated(_) | Self::MessageTimeout => &mut counters.violations_total,
            Self::SlowConsumer => &mut counters.slow_consumers_total,
            Self::Panicked => &mut counters.panics_total,
            Self::Denied(_) => &mut counters.auth_closed_total,
            Self::Expired => &mut counters.expired_total,
            Self::Revoked => &mut counters.revoked_total,
            Self::TlsFailed => &mut counters.tls_failed_total,
            Self::HandshakeTimeout => return counters.count_refusal(408),
            Self::TryLater { .. } => {
                counters.handshakes_refused_total += 1;
                &mut counters.refused_later_total
            }
            Self::RateLimited => &mut counters.rate_closed_total,
            Self::OverLimit => &mut counters.limit_closed_total,
            Self::TooMany { .. } => &mut counters.parties_refused_total,
            Self::Replaced => &mut counters.replaced_total,
            Self::MemoryShort => &mut counters.memory_shed_total,
            Self::Dismissed(_) => &mut counters.dismissed_total,
            Self::Unannounced => &mut counters.unannounced_total,
        };
        *counter += 1;
    }
}

fn seconds(wait: Duration) -> u16 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u16::try_from(whole).unwrap_or(u16::MAX)
}
