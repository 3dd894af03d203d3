//! The rows of `[store]`.

use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, micros, millis, whole};
use super::kind_text::Text;

const GIB: u64 = 1 << 30;

group! {
    /// `[store]`.
    pub struct Store in "store" {
        /// The file that keeps notifications, last-seen times, revocations and what is published with persist. Without
        /// one they are kept in memory and are gone with the process, and nothing can be published with persist.
        "path" Restart path: String = String::new(), Text::path();
        /// Unread notifications of a user; one more pushes the oldest out. As many ids of read ones are
        /// remembered, so that a repeated request brings none back.
        "inbox_count" Restart inbox_count: u32 = 1000, whole(1, 10_000);
        /// Bytes of a user's unread notifications; more push the oldest out.
        "inbox_bytes" Restart inbox_bytes: u32 = 1_048_576, whole(1024, GIB);
        /// Age in days at which a notification is dropped, read or not.
        "inbox_age_days" Restart inbox_age_days: u32 = 30, whole(1, 3650);
        /// Notifications in one answer to a client; it asks for the next ones.
        "inbox_page" Live inbox_page: u16 = 100, whole(1, 1000);
        /// Age in days at which it is forgotten when a user was last here. Of who has been connected for longer than
        /// that, nothing is known after a crash.
        "last_seen_days" Restart last_seen_days: u32 = 90, whole(1, 3650);
        /// Publications of one room that may wait until they are stored; more are refused. Of others that wait behind
        /// them twice as many, and more are lost.
        "publish_waiting" Live publish_waiting: u32 = 1024, whole(1, 1_048_576);
        /// After that time the author of a publication that is to be stored is told that nobody knows yet what came
        /// of it.
        "publish_timeout_ms" Live publish_timeout: Duration = Duration::from_secs(5), millis(10, 3_600_000);
        /// Requests that may wait for the store; more are refused.
        "queue" Restart queue: u32 = 4096, whole(1, 1_048_576);
        /// How long a transaction waits for more requests to share it. What comes while the disk writes
        /// shares the next one anyway.
        "commit_window_us" Restart commit_window: Duration = Duration::ZERO,
            micros(1, 1_000_000).or_zero("not at all");
        /// Bytes of the file that are held in memory.
        "cache_bytes" Restart cache_bytes: u32 = 16_777_216, whole(1_048_576, GIB);
        /// Bytes that are kept without a file; beyond it notifications are refused.
        "memory_bytes" Restart memory_bytes: u64 = 67_108_864, whole(1_048_576, 1024 * GIB);
    }
}

group! {
    /// `[store]`: whether it is that of all nodes.
    pub struct SharedStore in "store" {
        /// Keep notifications, last-seen times and revocations in the [Redis of the bridge](bridge.md#inboxes), for all nodes that do so:
        /// one, that of sentinels, or a cluster. What is published with persist is kept there too, each node's own by its name.
        "redis" Restart redis: bool = false, Flag;
        /// With `store.redis`: replicas of that Redis that have what is kept before it is acknowledged. Where fewer say so within three quarters of
        /// `bridge.command_timeout_ms`, whoever asked is told an error, and it is kept all the same.
        "redis_replicas" Restart replicas: u16 = 0, whole(1, 16).or_zero("none is waited for");
    }
}

impl Store {
    /// What of a store that is not the default is said at the start.
    #[must_use]
    pub fn about(&self, shared: &SharedStore) -> String {
        if shared.redis {
            return "notifications, last-seen times, revocations and what is published with persist are kept in the Redis of \
                    [bridge]"
                .to_owned();
        }
        if self.path.is_empty() {
            return "store.path is empty: notifications, last-seen times and revocations are kept in memory and \
                    are gone when this process ends, and nothing can be published with persist"
                .to_owned();
        }
        format!(
            "notifications, last-seen times, revocations and what is published with persist are kept in {}",
            self.path
        )
    }
}
