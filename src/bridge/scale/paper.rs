//! What nodes do to Redis, on paper: the formula of docs/scaling.md.
//!
//! A room with members on `k` nodes costs one command for a publication and `k` messages out. Everything else is
//! bytes around that, which are counted here by letters, and what nodes do whatever is published: canaries and
//! leases.

use super::redis::Count;

/// What a publication has around its payload and the room's name in an envelope: the type `chat`, an author, and
/// numbers as they are after a day.
pub(super) const ENVELOPE: f64 = 144.0;
/// The same of one that is numbered: as it is kept, and as it is published.
pub(super) const KEPT: f64 = 79.0;
pub(super) const NUMBERED: f64 = 126.0;
/// What RESP3 puts around a `PUBLISH`, besides the channel's name and the message.
const PUBLISH: f64 = 33.0;
/// The same around a message that is handed out.
const MESSAGE: f64 = 32.0;
/// An answer that is a number.
const ANSWER: f64 = 4.0;
/// What stands around the publication in the command that numbers it, but the room's name, which is in it four times.
const APPEND: f64 = 311.0;
/// The answer of that.
const VERDICT: f64 = 48.0;
/// In front of the names of rooms: `throng:room:`.
const ROOM: f64 = 12.0;
/// A canary with its channel, and what it is handed out as.
const CANARY: f64 = 117.0;

/// How many of `nodes` have at least one of `members` who connect to any of them.
pub(super) fn interested(nodes: f64, members: f64) -> f64 {
    nodes * (1.0 - (1.0 - 1.0 / nodes).powf(members))
}

/// Rooms of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    pub(super) count: f64,
    pub(super) members: f64,
    /// Publications a second in each.
    pub(super) rate: f64,
    /// Bytes of a payload, and of the room's name.
    pub(super) payload: f64,
    pub(super) name: f64,
    /// Redis numbers what is published.
    pub(super) is_shared: bool,
}

impl Rooms {
    /// What they cost in a second. Publishers are members.
    pub(super) fn cost(&self, nodes: f64) -> Count {
        self.cost_at(interested(nodes, self.members))
    }

    /// The same where it is known on how many nodes the members are.
    pub(super) fn cost_at(&self, interested: f64) -> Count {
        let rate = self.count * self.rate;
        let channel = ROOM + self.name;
        let (command, answer, message) = if self.is_shared {
            let append = APPEND + 4.0 * self.name + KEPT + self.name + self.payload;
            (append, VERDICT, NUMBERED + self.name + self.payload)
        } else {
            let body = ENVELOPE + self.name + self.payload;
            (PUBLISH + channel + body, ANSWER, body)
        };
        Count {
            commands: rate,
            bytes_in: rate * command,
            messages: rate * interested,
            bytes_out: rate * (answer + interested * (MESSAGE + channel + message)),
        }
    }
}

/// What a `redis-server` spends on a core for a publication, and for each subscriber that gets it, in seconds, as
/// `benches/bridge` measured it.
pub(super) const PLAIN_COST: (f64, f64) = (0.91e-6, 0.20e-6);
pub(super) const NUMBERED_COST: (f64, f64) = (28.6e-6, 0.26e-6);

/// The cores of Redis that take so much.
pub(super) fn cores(count: &Count, is_shared: bool) -> f64 {
    let (command, message) = if is_shared { NUMBERED_COST } else { PLAIN_COST };
    count.commands * command + count.messages * message
}

/// Canaries, so many a second from each node.
pub(super) fn canaries(nodes: f64, rate: f64) -> Count {
    let all = nodes * rate;
    Count { commands: all, bytes_in: all * CANARY, messages: all, bytes_out: all * CANARY }
}

#[test]
fn members_spread_over_nodes_as_the_formula_says() {
    for (nodes, members, expected) in
        [(10.0, 1.0, 1.0), (10.0, 5.0, 4.095), (1000.0, 5.0, 4.99), (10.0, 1000.0, 10.0)]
    {
        assert!((interested(nodes, members) - expected).abs() < 0.01, "{nodes} {members}");
    }
}
