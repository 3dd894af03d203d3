//! Throng: a self-hosted real-time connection engine for Linux.
//!
//! The code stands in two columns that meet in one place. The core is pure: state machines that take
//! events by `handle_*(event, now)` and give effects by `poll_*`; no socket, clock, thread, lock or
//! unsafe. The rim is thin and impure: system calls, threads, the clock. They touch only in
//! `node::worker`, whose loop fits a page: wait for the driver, feed events, let time pass, take
//! mail, submit effects.
//!
//! A module imports only from lower floors, and never from the rim (but `contract` and `base`):
//!
//! | floor | module | subject |
//! |---|---|---|
//! | 0 | [`base`] | identifiers, time arithmetic, seeded map, shared buffers, counters |
//! | 0 | [`contract`] | what a core and a kernel say to each other |
//! | 1 | [`wire`] | bytes to protocol and back: request heads, WebSocket frames |
//! | 1 | [`flow`] | pacing: outbound queue, wheel, heartbeat, budget |
//! | 2 | [`session`] | the application protocol over whole messages |
//! | 2 | [`hub`] | who is where: rooms, directory, publications |
//! | 2 | [`auth`] | who a client is and what they may do |
//! | 3 | [`connection`] | one client end to end |
//! | 4 | [`shard`] | what one core owns |
//! | rim | [`sys`], [`driver`], [`mesh`] | system calls, the two kernel interfaces, mail between shards |
//! | rim | [`bridge`] | other nodes, by Redis |
//! | rim | [`store`] | what outlives the process: inboxes, last-seen times, revocations |
//! | rim | [`admin`] | the HTTP listener for back ends and operators |
//! | 5 | [`node`] | configuration, launch, the loop, shutdown |
//!
//! `tests/tidy.rs` holds the floors and fails when the code disagrees.

pub mod admin;
pub mod auth;
pub mod base;
pub mod bridge;
pub mod connection;
pub mod contract;
pub mod driver;
pub mod flow;
pub mod front;
pub mod hub;
pub mod mesh;
pub mod node;
pub mod session;
pub mod shard;
pub mod store;
pub mod sys;
pub mod wire;
