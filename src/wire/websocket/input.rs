//! Received bytes, handed out from the front.
//!
//! The driver lends one buffer for the length of an event. Frames are unmasked where they lie in it, so
//! the decoder needs each piece mutably and exactly once; a cursor that gives pieces away makes that a
//! property of the types. It knows no frame.

use std::mem;

/// A received buffer of which the front is consumed piece by piece.
#[derive(Debug)]
pub struct Input<'b> {
    rest: &'b mut [u8],
}

impl<'b> Input<'b> {
    /// All of `bytes`, none consumed.
    #[must_use]
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// True when every byte is consumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes not yet consumed.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.rest
    }

    /// Consumes `count` bytes, or all that are left when they are fewer.
    pub(super) fn take(&mut self, count: usize) -> &'b mut [u8] {
        let rest = mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut(count.min(rest.len()));
        self.rest = rest;
        taken
    }
}
