//! Floor 0: what every other module may use.
//!
//! Identifiers, cursors, time arithmetic, the seeded map, room name patterns, networks and the parties that share
//! a limit, accounts of bytes, secrets, shared buffers, pools of values and the chains they are found by, spare memory, what is kept for users and of rooms, ages, histograms, what is wanted outside the
//! node and the counters of a shard, or of a thread beside them. Nothing here knows a protocol, a socket or a room; nothing here reads a clock or a source of
//! randomness.

pub mod account;
pub mod ages;
pub mod chains;
pub mod counters;
pub mod cursor;
pub mod fate;
pub mod glob;
pub mod histogram;
pub mod id;
pub mod inbox;
pub mod map;
pub mod network;
pub mod outside;
pub mod packed;
pub mod party;
pub mod pool;
pub mod saved;
pub mod secret;
pub mod shared;
pub mod spare;
pub(crate) mod tally;
pub mod tidings;
pub mod time;
