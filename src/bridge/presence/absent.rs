//! The nodes whose users are not known, for everybody to read.
//!
//! The bridge's thread writes it when it changes, which is seldom; whoever answers a question about users
//! reads it. That is two threads beside the shards, and no shard.

#[expect(
    clippy::disallowed_types,
    reason = "between the bridge and the admin thread, no shard's"
)]
use std::sync::Mutex;
use std::sync::PoisonError;

use super::Name;

/// The nodes whose users are not known, for everybody to read.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "between the bridge and the admin thread, no shard's")]
pub struct Absent(Mutex<Option<Vec<Name>>>);

impl Default for Absent {
    /// As it is before the first link: no node is known.
    fn default() -> Self {
        Self(Some(Vec::new()).into())
    }
}

impl Absent {
    /// Their names, in order, of those of whom is known that they were there; `None` when nobody is missing.
    #[must_use]
    pub fn read(&self) -> Option<Vec<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::bridge) fn write(&self, absent: Option<Vec<Name>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = absent;
    }
}
