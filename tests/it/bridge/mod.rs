//! Several nodes and a Redis between them, each test with its own.

mod away;
pub(crate) mod cluster;
mod counting;
mod crossing;
mod emitter;
mod ids;
mod inboxes;
mod inboxes_moved;
mod interest;
mod members;
mod outage;
mod presence;
mod recording;
mod revoking;
mod sealed;
mod sending_away;
mod sentinel;
mod shared;
mod shared_outage;
mod slots;
mod spread;
mod tickets;
