//! Peers that mean harm, or know no better: rows A2, A12, A13, A14, G15 and the traps.
//!
//! Each theme is a table of cases against one program of its own, on both drivers. After each case a fresh
//! client joins, publishes and receives, and every gauge of the node is back at zero; after each theme the
//! memory of the process is within a stated bound of where it was, and it ends in order.

mod arena;
mod connection;
#[path = "../../sim/damage.rs"]
mod damage;
mod frames;
mod handshake;
mod million;
mod peer;
mod sealed;
mod session;
mod tls;
mod tokens;
