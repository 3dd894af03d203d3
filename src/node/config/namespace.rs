//! `[[namespace]]`: what holds for rooms by their names.
//!
//! The first entry whose pattern matches a room decides everything about it, also what it does not say: nothing is
//! put together from several. So an operator reads one entry to know what a room may do and what it costs.

use std::ops::Deref;
use std::time::Duration;

use super::auth::OriginText;
use super::group::{Group, Key, group, of};
use super::kind::{Kind, Pattern, Value, millis, one_of, whole};
use super::kind_text::list_of;
use super::list::{About, Row};
use crate::auth::{Deliver, Who};
use crate::base::glob::Glob;
use crate::base::shared::Overflow;

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

group! {
    /// What holds for the rooms of one `[[namespace]]`, but for what is kept of them.
    pub struct Rules in "namespace" {
        /// The names of the rooms. The first namespace that matches a room decides.
        "pattern" Live pattern: Glob = Glob::new("*"), Pattern;
        /// What happens to the rooms' publications for a slow reader.
        "overflow" Live overflow: Overflow = Overflow::DropOldest, one_of();
        /// How long a publication may wait for more of its room, to be written to each member with them. Replies and
        /// whatever else a member is sent take along what waits.
        "write_delay_ms" Live write_delay: Duration = Duration::ZERO,
            millis(1, 1000).or_zero("written at once");
        /// Who may join: everybody, whoever has shown a token, whose token grants it, whom else your back end
        /// allows it ("webhook"), or no client. "auto" is "granted" where auth.mode is "token" and "anyone"
        /// elsewhere.
        "join" Live join: Option<Who> = None, one_of();
        /// Who may publish, by the same words.
        "publish" Live publish: Option<Who> = None, one_of();
        /// Where what clients publish goes: to the members, to every [[webhook]] that wants messages and to no
        /// member, to both, or to a stream in the bridge's Redis and to no member.
        "deliver" Live deliver: Deliver = Deliver::Members, one_of();
        /// The web pages that the rooms are for, of those that may connect. When empty all are. Programs send no
        /// Origin and are not asked.
        "origins" Live origins: Vec<String> = Vec::new(), list_of(64, OriginText);
        /// Publications of one connection per second in the rooms; what happens to more of them is
        /// limits.over_rate, and limits.burst_ms the length of a burst.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 1_000_000).or_zero("no limit");
        /// Rooms of the namespace that one connection may join per second; what happens to more of them is
        /// limits.over_rate, and limits.burst_ms the length of a burst.
        "joins_per_second" Live joins: u32 = 0, whole(1, 1_000_000).or_zero("no limit");
        /// Bytes of the payload of what a client publishes to the rooms.
        "max_payload_bytes" Live payload: u32 = 0,
            whole(1, GIB).or_zero("limits.max_message_bytes alone");
        /// Bytes of memory for what waits for readers of the rooms in the whole node, divided by the shards. Near
        /// it publications meet overflow early, beyond it very early.
        "memory_bytes" Live memory: u64 = 0, whole(1 << 16, 1 << 50).or_zero("no limit");
    }
}

group! {
    /// What is kept of the rooms of one `[[namespace]]`.
    pub struct Kept in "namespace" {
        /// Publications kept of each room, for members that come back.
        "history_count" Live history_count: u32 = 0, whole(1, 1_000_000).or_zero("no history");
        /// Bytes that the history of a room may cost, with all that stands around the publications.
        "history_bytes" Live history_bytes: u64 = 1_048_576, whole(1024, GIB);
        /// How long a publication is kept. A room without members ends when its last one has aged out.
        "history_age_ms" Live history_age: Duration = Duration::from_secs(300), millis(1000, 30 * DAY_MS);
        /// How long the ids of publications are remembered, so that one sent again is not published again.
        "idempotency_window_ms" Live idempotency_window: Duration = Duration::ZERO,
            millis(1000, DAY_MS).or_zero("ids are not looked at");
        /// Bytes of memory for what waits for readers of each room in the whole node, divided by the shards. Near it
        /// the room's publications meet overflow early, beyond it very early; those of other rooms do not.
        "room_memory_bytes" Live room_memory: u64 = 0, whole(1 << 16, 1 << 50).or_zero("no limit");
    }
}

/// One `[[namespace]]`: rooms whose names match, and what holds for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    rules: Rules,
    /// What is kept of them.
    pub kept: Kept,
}

impl Deref for Namespace {
    type Target = Rules;

    fn deref(&self) -> &Rules {
        &self.rules
    }
}

impl Group for Namespace {
    fn section(&self) -> &'static str {
        self.rules.section()
    }

    fn keys(&self) -> Vec<Key> {
        [self.rules.keys(), self.kept.keys()].concat()
    }

    fn set(&mut self, name: &str, value: &Value) -> Option<bool> {
        self.rules.set(name, value).or_else(|| self.kept.set(name, value))
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.rules.get(name).or_else(|| self.kept.get(name))
    }
}

impl Row for Namespace {
    const ABOUT: About = About {
        name: "namespace",
        about: &[
            "Rooms by name: the first namespace whose pattern matches decides (live). In a pattern * stands for any",
            "characters.",
        ],
        example: &["pattern = \"ticker:*\"", "overflow = \"conflate\""],
        required: &["pattern"],
        unique: None,
    };
}
