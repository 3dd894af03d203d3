//! Floor 1: pacing. What is written when, what is dropped, and when silence has lasted too long.
//!
//! - [`outbound`]: the bounded queue of one connection, its marks and its policies. Where a slow
//!   reader's cost ends.
//! - [`wheel`]: one deadline per connection for a million connections.
//! - [`heartbeat`]: whether a silent peer is left alone, asked, or given up.
//! - [`budget`]: how often a peer may do something; [`meter`]: the budgets of those who are active.
//! - [`shares`]: a rate that several shards have in common, as one of them uses it; [`accounts`]: the same as
//!   its home keeps it.
//! - [`sums`]: a number that several shards have in common.
//! - [`line`]: when those who were turned away are asked back.
//! - [`ebb`]: when memory goes back after a crowd has gone.
//! - [`flush`]: how long writes wait for company when a core is saturated.
//!
//! Everything here is told the time and the limits. Nothing here knows a protocol (frames are bytes),
//! a room's members, a socket or a clock.

pub mod accounts;
mod book;
pub mod budget;
pub mod ebb;
pub mod flush;
pub mod heartbeat;
pub mod line;
pub mod meter;
pub mod outbound;
pub mod shares;
pub mod sums;
pub mod wheel;
