//! What outlives a connection, and where there is a file, the process: inboxes, last-seen times,
//! revocations, publications of rooms.
//!
//! A [`Store`] takes a list of [`Ask`]s and does all of them in one transaction: with [`Disk`] they are on
//! the disk when it returns, or none of them is done. [`Memory`] keeps the same in the process, bounded, for
//! nodes without a file, and [`Shared`] in a Redis for several nodes. One thread owns the store (`keeper`); it gathers what has come while the last
//! transaction was being written, so that a thousand requests cost one. Whoever asks never waits: the
//! request is taken or given back at once, and the answer comes as a value to whoever the node says.
//!
//! A user is known here by one text, the name of the user's own room, which tells tenants apart; the module
//! knows neither rooms nor connections.
//!
//! | file | subject |
//! |---|---|
//! | `ask` | what is asked, what is answered, and why not |
//! | `table` | an ordered table of bytes, and the trait over all kinds of store |
//! | `memory`, `disk`, `shared` | the kinds: in the process, in a file, in a Redis |
//! | `again` | what the last of them does again after a fault |
//! | `inbox` | notifications of one user: append, list, mark as read, bounds |
//! | `rooms` | publications of rooms: keep, list, bounds |
//! | `rows` | how rows are laid out as bytes |
//! | `records` | last-seen times, also after a crash, and revocations |
//! | `prune` | what has grown old leaves, a slice at a time |
//! | `keeper` | the thread, its queue, group commit |

mod again;
mod ask;
mod disk;
mod inbox;
mod keeper;
mod memory;
mod prune;
mod records;
mod rooms;
mod rows;
mod shared;
mod table;

#[cfg(test)]
mod tests;

pub use ask::{Answer, Appended, Ask, Draft, Fault, Limits, Outcome, Refused, Revoked, Seen};
pub use disk::Disk;
pub use keeper::{Clerk, Handle, Keeper, Pace, Tally};
pub use memory::Memory;
pub use shared::{Care, Open, Shared};
pub use table::Store;
