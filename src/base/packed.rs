//! A part of messages in less space.
//!
//! What it becomes is known where messages are compressed (`wire::websocket`); who carries it from the thread that
//! made it to those who write messages need not know.

use std::sync::Arc;

/// Whole blocks of deflate (RFC 1951), none of whose distances leaves them, and an empty one at their end. Empty
/// altogether where nothing would be gained. As wide as one pointer, since what carries it mostly has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Arc<Box<[u8]>>);

impl Packed {
    /// These blocks.
    #[must_use]
    pub fn of(blocks: Vec<u8>) -> Self {
        Self(Arc::new(blocks.into()))
    }

    /// Its blocks.
    #[must_use]
    pub fn blocks(&self) -> &[u8] {
        &self.0
    }
}
