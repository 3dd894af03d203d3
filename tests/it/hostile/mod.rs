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

/// The themes' own tests run every row of their tables; here is how many rows there are at each level.
#[test]
fn the_suite_has_no_fewer_cases_than_is_said_of_it() {
    let levels = [
        ("handshake", handshake::count(), 77),
        ("frame", frames::count(), 60),
        ("session", session::count(), 80),
        ("connection", connection::count(), 16),
        ("TLS", tls::count() + sealed::count(), 60),
        ("token", tokens::count(), 75),
    ];
    for (level, count, least) in levels {
        assert!(count >= least, "{level}: {count} cases, expected {least} or more");
    }
    // Each in the places and versions where its theme tries it, these are many more.
    let all: usize = levels.iter().map(|(_, count, _)| count).sum();
    assert!(all >= 80, "{all} cases");
}
