//! `[publish]`: to whom clients may publish besides rooms, and how much back ends may have under way.

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, whole};

group! {
    /// `[publish]`.
    pub struct Publish in "publish" {
        /// Where nobody has to say who they are, clients may publish to everyone. With tokens a grant decides.
        "everyone" Live everyone: bool = false, Flag;
        /// Where nobody has to say who they are, clients may publish to connections by their ids. With tokens
        /// a grant decides.
        "connections" Live connections: bool = false, Flag;
        /// Users that one publication may name, and connections.
        "max_targets" Live max_targets: u16 = 64, whole(1, 1024);
        /// Publications in one request of a back end.
        "max_batch" Live max_batch: u32 = 256, whole(1, 65_536);
        /// Publications of back ends that shards have yet to take; beyond it 429.
        "max_waiting" Live max_waiting: u32 = 8192, whole(1, 1_048_576);
    }
}
