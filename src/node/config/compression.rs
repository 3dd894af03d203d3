//! `[compression]`: messages in less space, for clients that offer it (RFC 7692).

use super::group::{group, of};
use super::kind::{Flag, Kind, Value, whole};

group! {
    /// `[compression]`.
    pub struct Compression in "compression" {
        /// Agree on permessage-deflate with clients that offer it. Costs time of the shards, and no memory of idle
        /// connections; docs/security.md says when not to.
        "enabled" Restart enabled: bool = false, Flag;
        /// How hard to work for less space: 1 is fast, 9 is thorough.
        "level" Restart level: u8 = 3, whole(1, 9);
        /// Shorter frames are sent plain.
        "min_bytes" Restart min_bytes: u32 = 256, whole(16, 1_048_576);
        /// Longer frames are sent plain: compressing one holds up what else its core has to do.
        "max_bytes" Restart max_bytes: u32 = 65_536, whole(16, 16_777_216);
        /// Of publications to rooms with longer payloads, the payload is compressed by a thread beside the shards before
        /// anybody has it; other frames that are longer go plain.
        "inline_bytes" Restart inline_bytes: u32 = 16_384, whole(16, 16_777_216);
        /// What one read of a connection brings may become so many times as long, or as long as one message may be;
        /// beyond that the connection is closed (1009).
        "max_ratio" Restart max_ratio: u32 = 64, whole(1, 1032);
    }
}
