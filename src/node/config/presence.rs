//! The table, continued: who is there, and who is told of it.

use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, millis, whole};

const DAY_MS: u64 = 86_400_000;

group! {
    /// `[presence]`.
    pub struct Presence in "presence" {
        /// From the end of a user's last connection until the user is offline. A return within it is told
        /// to nobody.
        "grace_ms" Live grace: Duration = Duration::from_secs(5), millis(0, DAY_MS);
        /// The least time between two pushes to an observer. What comes and goes within it cancels out.
        "interval_ms" Live interval: Duration = Duration::from_secs(1), millis(10, DAY_MS);
        /// Users of the whole node of whom it is remembered when they were last seen; of more the one seen
        /// the longest time ago is forgotten.
        "remembered_max" Live remembered: u32 = 100_000, whole(0, 100_000_000);
        /// Members of a room above which its observers are told their number and no names.
        "list_max" Live list: u32 = 500, whole(0, 10_000);
        /// Users and rooms that a connection may watch.
        "watches_max" Live watches: u16 = 256, whole(1, 4096);
        /// Users that one command may name.
        "users_max" Live users: u16 = 64, whole(1, 1024);
        /// Members of a room in one answer.
        "page_max" Live page: u16 = 100, whole(1, 1000);
        /// Keep the program and the time of arrival of every connection and what a token says about it
        /// (`auth.metadata_claim`), and tell them with its address to whoever may ask who is in a room.
        "metadata" Live metadata: bool = false, Flag;
        /// Bytes of what a token says, as it is written; a token that says more is refused.
        "max_metadata_bytes" Live max_metadata_bytes: u16 = 1024, whole(2, 16_384);
    }
}
