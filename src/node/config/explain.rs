//! The table, continued: what is remembered of what became of publications.

use super::group::{group, of};
use super::kind::{Kind, Value, power};

group! {
    /// `[explain]`.
    pub struct Explain in "explain" {
        /// Outcomes that each shard remembers, the newest, in a ring of 32 bytes each. A publication to a room takes
        /// one place for each connection that it was written to or lost for.
        "outcomes" Live outcomes: u32 = 65_536,
            power(1024, 67_108_864).or_zero("nothing is remembered");
    }
}
