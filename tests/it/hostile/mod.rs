//! Peers that mean harm, or know no better: rows A2, A12, A13, A14, G15 and the traps.
//!
//! Each theme is a table of cases against one program of its own, on both drivers. After each case a fresh
//! client joins, publishes and receives, every gauge of the node is back at zero, and what is charged and the
//! memory of the process are within stated bounds of where they were; tables of cheap cases are repeated many times
//! under a narrower bound, and each process ends in order.

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

pub(crate) use peer::masked;

/// The themes' own tests run every row of their tables; what the document says of their number is so.
#[test]
fn the_suite_has_as_many_cases_as_is_said_of_it() {
    let counts = [
        ("handshake", handshake::count()),
        ("frames", frames::count()),
        ("session", session::count()),
        ("connection", connection::count()),
        ("tls", tls::count()),
        ("sealed", sealed::count()),
        ("tokens", tokens::count()),
    ];
    let document = include_str!("../../../docs/security.md");
    for (theme, count) in counts {
        let file = format!("| `tests/it/hostile/{theme}.rs` |");
        let row = document.lines().find(|line| line.ends_with(&file)).expect(theme);
        let said = row.trim_end_matches(&file).rsplit('|').next().expect("a number").trim();
        assert_eq!(said, count.to_string(), "{theme}");
    }
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    assert!(all >= 80, "{all} cases");
}
