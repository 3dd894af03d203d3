//! What so many connections cost, from what was measured.
//!
//! The figures are those of docs/performance.md, and a test holds both together: measuring anew changes both
//! or fails. They are of idle connections; what waits in queues comes on top and is bounded by the memory
//! budget.

use std::fmt::Write as _;

use crate::sys::descriptors::RESERVED;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody knows who.
    Stranger,
    /// A user with a token, in its own room and one more.
    User,
    /// A stranger over TLS.
    Secure,
}

/// Bytes of the program for each: the larger of both drivers.
const STRANGER: u64 = 103;
const USER: u64 = 305;
const SECURE: u64 = 3970;
/// Bytes of the kernel for both ends of a connection over loopback: the larger of both drivers. A server has
/// one end.
const BOTH_ENDS: u64 = 7770;

/// Bytes that so many idle connections cost, kernel included.
pub(super) fn bytes(connections: u64, kind: Kind) -> u64 {
    let own = match kind {
        Kind::Stranger => STRANGER,
        Kind::User => USER,
        Kind::Secure => SECURE,
    };
    connections.saturating_mul(own + BOTH_ENDS.div_ceil(2))
}

/// Bytes for people: in the unit that leaves few digits.
pub(super) fn shown(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

/// What so many connections on so many shards cost, as a text; `available` are the bytes of this machine, and
/// `remembered` those that the rings of outcomes grow to.
pub(super) fn text(connections: u64, shards: u64, available: u64, remembered: u64) -> String {
    let mut text = format!("{connections} idle connections on {shards} shards\n");
    let kinds = [
        ("strangers", Kind::Stranger),
        ("users with a token, in two rooms each", Kind::User),
        ("strangers over TLS", Kind::Secure),
    ];
    let kernel = connections.saturating_mul(BOTH_ENDS.div_ceil(2));
    for (who, kind) in kinds {
        let all = bytes(connections, kind);
        let fits = if all > available { ", more than this machine has" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {who}: {} of memory, {} of it in the kernel{fits}",
            shown(all),
            shown(kernel)
        );
    }
    let each = connections.div_ceil(shards.max(1));
    let table = each + each / 16 + RESERVED;
    let _ = writeln!(text, "  descriptors: {table} for each shard (LimitNOFILE={table})");
    let system = connections + RESERVED * shards;
    let _ = writeln!(text, "  descriptors of the whole system: {system} (fs.file-max)");
    let _ = writeln!(
        text,
        "  what became of publications: {} once much was published (explain.outcomes)",
        shown(remembered)
    );
    let _ = writeln!(text, "What waits in queues comes on top, up to limits.memory_bytes.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The larger of the last two figures of a row of the table of goals.
    fn measured(row: &str) -> u64 {
        let document = include_str!("../../../docs/performance.md");
        let line = document.lines().find(|line| line.starts_with(row)).expect("a row");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let figure = |cell: &str| cell.replace(',', "").parse::<u64>().expect("a figure");
        // Behind the last column stand "met" and the end of the line.
        let [.., epoll, uring, _, _] = &cells[..] else { panic!("{line}") };
        figure(epoll).max(figure(uring))
    }

    #[test]
    fn the_figures_are_those_that_were_measured() {
        assert_eq!(measured("| G1 | user bytes per idle connection"), STRANGER);
        assert_eq!(measured("| G2 | user bytes, a user with a token"), USER);
        assert_eq!(measured("| G3 | kernel bytes, both ends"), BOTH_ENDS);
        assert_eq!(measured("| G15 | user bytes per idle TLS connection"), SECURE);
    }

    #[test]
    fn an_estimate_tells_memory_by_kind_and_descriptors_by_shard() {
        let text = text(1_000_000, 8, 5_000_000_000, 8 << 21);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1000000 idle connections on 8 shards");
        assert_eq!(lines[1], "  strangers: 3804 MiB of memory, 3706 MiB of it in the kernel");
        assert!(lines[2].ends_with("3996 MiB of memory, 3706 MiB of it in the kernel"), "{text}");
        assert!(lines[3].ends_with("in the kernel, more than this machine has"), "{text}");
        assert!(lines[4].contains("133068 for each shard (LimitNOFILE=133068)"), "{text}");
        assert!(lines[5].contains("1002048 (fs.file-max)"), "{text}");
        assert!(lines[6].contains(": 16 MiB once"), "{text}");
    }

    #[test]
    fn bytes_are_shown_in_units_that_leave_few_digits() {
        let all = [0, 1, 1 << 20, 5 << 30, 12 << 30].map(shown);
        assert_eq!(all, ["0 KiB", "1 KiB", "1 MiB", "5120 MiB", "12 GiB"]);
    }
}
