//! Floor 3: one client end to end.
//!
//! A connection is opening (its request head is being read), open (its session speaks) or closing (its
//! last bytes leave, its peer's end is awaited). This module holds the record that a shard keeps for
//! each and the transitions between the three; what a message means is the shard's business, what a
//! byte means is `wire`'s. Effects leave by [`Connection::poll_op`] and by the outbound queue.

mod closing;
mod disconnect;
mod engineio;
mod opening;
mod record;
mod timing;

pub use closing::{Closing, Stage};
pub use disconnect::Disconnect;
pub use engineio::{Ask, Poll, Probe, session};
pub use opening::{
    Answer, Door, Front, HalfHead, Knock, Page, PageWish, Routes, Verdict, Wish, answer,
};
pub use record::{Connection, Form, Lane, Open, Pause, Phase};
pub use timing::{Due, Timeouts};

#[cfg(test)]
mod tests;
