//! The tables of docs/scaling.md, computed, and held against what stands there.

use super::paper::{Rooms, canaries, cores};
use super::redis::Count;

const DOCUMENT: &str = include_str!("../../../docs/scaling.md");

/// Connections of a node.
const CONNECTIONS: f64 = 1e6;
/// Seconds between two publications of a connection.
const EVERY: f64 = 60.0;
/// Publications a second that a room has at most.
const MOST: f64 = 20.0;

fn rooms(count: f64, members: f64, rate: f64, is_shared: bool) -> Rooms {
    Rooms { count, members, rate, payload: 100.0, name: 7.0, is_shared }
}

/// Every connection is in a room of five.
fn small(nodes: f64, is_shared: bool) -> Count {
    rooms(nodes * CONNECTIONS / 5.0, 5.0, 5.0 / EVERY, is_shared).cost(nodes)
}

/// A room for a hundred connections, their sizes by Zipf's law.
fn zipf(nodes: f64, is_shared: bool) -> Count {
    let count = nodes * CONNECTIONS / 100.0;
    let largest = nodes * CONNECTIONS / (count.ln() + 0.5772);
    let (mut sum, mut rank) = (Count::default(), 1.0_f64);
    while rank <= count {
        // Ranks in steps of a hundredth of themselves.
        let next = (rank * 1.01).floor().max(rank + 1.0).min(count + 1.0);
        let members = largest / ((rank + next - 1.0) / 2.0);
        let rate = (members / EVERY).min(MOST);
        sum = sum + rooms(next - rank, members, rate, is_shared).cost(nodes);
        rank = next;
    }
    sum
}

/// Everybody is in one room.
fn one(nodes: f64, is_shared: bool) -> Count {
    rooms(1.0, nodes * CONNECTIONS, 10.0, is_shared).cost(nodes)
}

/// Three digits and the thousands that go with them.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    if scaled >= 100.0 {
        format!("{scaled:.0}{unit}")
    } else if scaled >= 10.0 {
        format!("{scaled:.1}{unit}")
    } else {
        format!("{scaled:.2}{unit}")
    }
}

type Case = (&'static str, fn(f64, bool) -> Count);

fn rows() -> Vec<String> {
    let cases: [Case; 3] = [("rooms of 5", small), ("Zipf", zipf), ("one room", one)];
    let mut rows = Vec::new();
    for (name, cost) in cases {
        for nodes in [10.0, 100.0, 1000.0] {
            let plain = cost(nodes, false);
            let shared = cost(nodes, true);
            rows.push(format!(
                "| {name} | {nodes} | {} | {} | {} | {} | {} | {} | {} |",
                short(plain.commands),
                short(plain.bytes_in),
                short(plain.messages),
                short(plain.bytes_out),
                short(cores(&plain, false)),
                short(shared.bytes_out),
                short(cores(&shared, true)),
            ));
        }
    }
    for nodes in [10.0, 100.0, 1000.0] {
        let all = canaries(nodes, 0.2);
        rows.push(format!(
            "| canaries | {nodes} | {} | {} | {} | {} | {} | - | - |",
            short(all.commands),
            short(all.bytes_in),
            short(all.messages),
            short(all.bytes_out),
            short(cores(&all, false)),
        ));
    }
    rows
}

#[test]
fn the_table_of_the_document_is_what_the_formula_gives() {
    let rows = rows();
    rows.iter().for_each(|row| println!("{row}"));
    let missing: Vec<&String> = rows.iter().filter(|row| !DOCUMENT.contains(&***row)).collect();
    assert!(missing.is_empty(), "not in docs/scaling.md: {missing:#?}");
}
