//! What may be done again after a fault of the store in Redis.
//!
//! Redis says of some things that it has not done them: the slot is on its way, is elsewhere, the server is a replica by now or
//! reads its data still. What broke while nothing but reading had been asked for was not done either. All else may have been
//! done, and is for whoever asked to ask again.

use std::time::Duration;

use crossbeam_channel::never;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The pause before something is done again that could not be done now.
const PAUSE: Duration = Duration::from_millis(10);
/// How often another server is asked for in one go.
const HOPS: u32 = 5;

/// What can be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The same over the same connection, a little later.
    Later,
    /// The same over a connection to whoever it is now.
    Elsewhere,
    /// The same over another connection, if this one is not new.
    Anew,
}

impl Then {
    /// What can be done after that error; `read` where nothing but reading had been asked for.
    pub(super) fn after(error: &RedisError, read: bool) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, Moved, ReadOnly, TryAgain};
        match error.kind() {
            ErrorKind::Server(Ask | TryAgain | BusyLoading | ClusterDown) => Self::Later,
            ErrorKind::Server(Moved | ReadOnly) => Self::Elsewhere,
            // A server that stands still would be waited for twice.
            _ if read && error.is_io_error() && !error.is_timeout() => Self::Anew,
            _ => Self::Nothing,
        }
    }
}

/// What is left of the patience with one request.
pub(super) struct Again {
    left: Duration,
    hops: u32,
}

impl Again {
    pub(super) fn new(patience: Duration) -> Self {
        Self { left: patience, hops: 0 }
    }

    /// Whether it is to be done again, when that takes a pause after the pause. `is_old`: by a connection of earlier requests.
    pub(super) fn may(&mut self, then: Then, is_old: bool) -> bool {
        match then {
            Then::Nothing => false,
            Then::Anew => is_old,
            Then::Later if self.left.is_zero() => false,
            Then::Elsewhere if self.left.is_zero() || self.hops >= HOPS => false,
            Then::Later => self.pause(),
            Then::Elsewhere => {
                self.hops += 1;
                self.pause()
            }
        }
    }

    fn pause(&mut self) -> bool {
        self.left = self.left.saturating_sub(PAUSE);
        // Nobody sends here.
        let _ = never::<()>().recv_timeout(PAUSE);
        true
    }
}
