//! An in-memory network from a seed, as a driver.
//!
//! A [`Net`] joins any number of [`SimDriver`]s, one for each shard, with any number of [`Peer`]s, the
//! clients. Everything between them is drawn from one generator: how many bytes arrive at a time, when
//! a completion is reported, which connection is reset and which listener runs out of descriptors. The
//! same seed and the same calls give the same history, so a failure that was seen once can be seen
//! again.
//!
//! Time is not here. A driver's turn is one call of its `wait`, which never blocks and ignores its
//! timeout; delays are counted in such turns, and what the clock says is the harness's business. There
//! are no threads and no sockets.
//!
//! The driver keeps the contract by the letter and uses the freedom it leaves: completions come late,
//! events come after `Close` and before `Closed`, a paused connection delivers once more. It also
//! holds the core to the contract: an operation that is not allowed is our own fault and panics.
//!
//! | file | subject |
//! |---|---|
//! | `net` | the network: hosts, links, faults and the generator |
//! | `pipe` | one direction of a link: a bounded window of bytes under way |
//! | `peer` | a client's end |
//! | `end` | a server's end: what one connection has in flight |
//! | `host` | the driver |

mod end;
mod host;
mod net;
mod peer;
mod pipe;

#[cfg(test)]
mod tests;

pub use host::SimDriver;
pub use net::{Faults, Net};
pub use peer::Peer;
