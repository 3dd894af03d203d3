//! The table, continued: what is told about those who are present.

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, whole};

group! {
    /// `[presence]`.
    pub struct Presence in "presence" {
        /// Keep what a token says about its connection (`auth.metadata_claim`), beside its name.
        "metadata" Live metadata: bool = false, Flag;
        /// Bytes of that, as it is written; a token that says more is refused.
        "max_metadata_bytes" Live max_metadata_bytes: u16 = 1024, whole(2, 16_384);
    }
}
