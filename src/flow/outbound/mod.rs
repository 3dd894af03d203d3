//! The outbound queue: what one connection has yet to be sent, bounded.
//!
//! A million queues are empty nearly always, and a fan-out fills ten thousand of them at once for the
//! length of one turn. So a queue owns no memory: it is the two ends of a list ([`Outbound`], 20 bytes
//! in the connection's record) whose nodes live in one arena per shard ([`Store`]). Whatever only a
//! connection in trouble needs, the losses it has to be told of and the index that conflation looks
//! into, lies in side tables of the store, keyed by the connection's slab index.
//!
//! - [`limits`]: the marks, and the answers a queue gives.
//! - [`queue`]: the queue itself; `policy`: what it does when it is over its high water mark.
//! - `arena`: the nodes, given back in chunks after a burst.
//! - [`payers`]: for which tenants and namespaces the bytes are held, and how near those are to their limits.
//! - `losses`: what was dropped, for whoever remembers it.
//! - `store`: arena, side tables and totals.
//!
//! A queue counts bytes from the moment they are pushed until the kernel has taken them, so that the
//! limit covers what is in flight. It knows no socket and does not write; it fills a
//! [`SendBatch`](crate::contract::SendBatch) and is told later that the kernel took it. It does not
//! know what a frame says: control frames are told apart by whoever pushes them.

mod arena;
pub mod limits;
mod losses;
pub mod payers;
mod policy;
pub mod queue;
mod rooms;
mod store;

pub use limits::{Control, OutboundLimits, Pressure, Pushed};
pub use losses::{How, Losses, Lost};
pub use queue::Outbound;
pub use store::{Gaps, Lengths, Store};

#[cfg(test)]
mod payers_tests;
#[cfg(test)]
mod tests;
