//! What happens when memory runs short.
//!
//! The node has one budget. Each shard knows what it holds itself (frames, queue entries, half-read
//! messages, histories, mail that waits for space) and is told once in a while what the others hold; both together
//! against the budget give a level, and every level does more than the one before it: stop reading from
//! who publishes, let publications for laggards meet their rooms' policies early, close the
//! laggards that hold most, and take in nobody. Nothing else changes: whoever keeps up is served as before.
//!
//! What does not help in time is followed by the next: were publishers to wait for readers who never read,
//! a few of these could stop the whole node at half its budget. Only refusing newcomers is left to the
//! share that is held.
//!
//! A frame is charged once in each shard, however many queues refer to it, because that is what it
//! costs; a laggard is judged by all that waits for it, because what it alone has not read is only kept
//! for its sake. Laggards are looked for in slices of the table, so looking is no stall.
//!
//! A publisher that is not read from cannot end the message that it has begun. What is half-read of it is the
//! node's doing and no lag: it is no reason to close it while there is anything else, nor because waiting has
//! not helped. Only from the share at which laggards are closed anyway do such publishers go too, after all
//! others, the heaviest first: otherwise messages that are never ended would be a way to hold memory for ever.

use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::ConnId;
use crate::base::time::Time;
use crate::connection::{Disconnect, Pause};
use crate::flow::outbound::OutboundLimits;
use crate::shard::hoards::Hoards;
use crate::shard::state::{Shard, enlist};

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// There is enough.
    #[default]
    Calm,
    /// Who publishes is not read from.
    Slow,
    /// Queues meet their policies early as well.
    Tight,
    /// Laggards are closed as well.
    Shed,
    /// Nobody is taken in as well.
    Refuse,
}

/// What is known of the need for memory.
#[derive(Debug)]
pub(super) struct Pressure {
    pub(super) level: Level,
    /// Since when there is not enough.
    since: Option<Time>,
    /// Bytes charged to the other shards, as last told.
    others: u64,
    /// Bytes of half-read messages.
    pub(super) half_read: u64,
    /// The limits of queues while they are to meet their policies early.
    tight: OutboundLimits,
    /// Connections that are not read from until there is enough again.
    paused: Vec<ConnId>,
    /// Where the search for laggards goes on.
    cursor: u32,
    /// What the connections hold that the search has met and that are closing already.
    leaving: u64,
    /// The heaviest found since the search last began, at most [`FOUND`].
    heaviest: SmallVec<[Found; 4]>,
    /// The row of the tenant that holds most of what waits, while memory is short and there is one.
    hog: Option<u32>,
    /// The search for those who hold too much of their tenant's share.
    pub(super) hoards: Hoards,
}

/// One of the heaviest. Those whose own doing it is come before those who are not read from, and then those of the
/// tenant that holds most: both are true of who goes first.
type Found = (bool, bool, usize, ConnId);

/// What a publisher is told that is closed for a message which it could not end.
const HALF_SENT: &str = "memory is short: the rest of a message was not taken, come back later";

/// Laggards closed after one search.
const FOUND: usize = 16;

/// Places of the table looked at in one turn.
const SLICE: u32 = 4096;

/// What waits for a laggard at least, in bytes; closing others would free next to nothing.
const HEAVY: usize = 4096;

/// Connections read from again in one turn.
const RESUMES: usize = 256;

/// How soon to look again while memory is short.
const LOOK: Duration = Duration::from_millis(10);

impl Pressure {
    pub(super) fn new(queue: &OutboundLimits) -> Self {
        Self {
            level: Level::Calm,
            since: None,
            others: 0,
            half_read: 0,
            tight: tightened(queue),
            paused: Vec::new(),
            cursor: 0,
            leaving: 0,
            heaviest: SmallVec::new(),
            hog: None,
            hoards: Hoards::default(),
        }
    }

    /// The limits of queues that are to meet their policies early.
    pub(super) fn tight_limits(&self) -> OutboundLimits {
        self.tight.clone()
    }

    pub(super) fn set_limits(&mut self, queue: &OutboundLimits) {
        self.tight = tightened(queue);
    }

    /// When to look again, even if nothing happens until then.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        let watches = self.level > Level::Calm || !self.paused.is_empty() || self.hoards.goes_on();
        watches.then(|| now.plus(LOOK))
    }
}

/// An eighth of everything at which a publication meets its room's policy.
fn tightened(queue: &OutboundLimits) -> OutboundLimits {
    OutboundLimits {
        high_water: queue.high_water / 8,
        low_water: queue.low_water / 8,
        max_messages: (queue.max_messages / 8).max(1),
        ..queue.clone()
    }
}

/// The level at so many hundredths of the budget.
fn level(percent: u64) -> Level {
    match percent {
        0..50 => Level::Calm,
        50..70 => Level::Slow,
        70..SHED => Level::Tight,
        SHED..REFUSE => Level::Shed,
        _ => Level::Refuse,
    }
}

/// The level after so long a time in which there was not enough.
fn patience(waited: Duration) -> Level {
    if waited >= PATIENCE * 2 {
        Level::Shed
    } else if waited >= PATIENCE {
        Level::Tight
    } else {
        Level::Slow
    }
}

/// How long a level may take to help before the next one follows.
const PATIENCE: Duration = Duration::from_millis(250);

/// Hundredths of the budget from which on laggards are closed.
const SHED: u64 = 85;

/// Hundredths of the budget from which on nobody is taken in.
pub const REFUSE: u64 = 95;

/// Hundredths of the budget below which everybody is read from again.
const ENOUGH: u64 = 40;

/// Bytes of an entry of a queue.
const NODE: u64 = 16;

impl Shard {
    /// Tells what the other shards hold at this time, in bytes.
    pub fn note_others(&mut self, bytes: u64) {
        self.gate.pressure.others = bytes;
    }

    /// Bytes that this shard holds of the node's budget.
    pub(super) fn charged(&self) -> u64 {
        let queued = self.queues.held_bytes() + self.queues.capacity() as u64 * NODE;
        let kept = self.rooms.directory.history().bytes() + self.rooms.repeats.bytes();
        let held = self.gate.people.consults.bytes()
            + self.table.codec.packings.bytes()
            + self.gate.people.petitions.bytes()
            + self.gate.people.petitions.passages.bytes()
            + self.rooms.replays.recalls.bytes()
            + self.rooms.walks.bytes()
            + self.rooms.shelf.lines.bytes();
        queued + kept + held + self.gate.pressure.half_read + self.outbox.bytes()
    }

    /// The limits of queues for publications.
    pub(super) fn queue_limits(&self) -> OutboundLimits {
        if self.gate.pressure.level >= Level::Tight {
            self.gate.pressure.tight.clone()
        } else {
            self.settings.queue.clone()
        }
    }

    /// Brings the level up to date and does what it asks for.
    pub(super) fn mind_memory(&mut self, now: Time) {
        let hundredth = (self.settings.capacity.memory / 100).max(1);
        let percent = self.held() / hundredth;
        let by_share = level(percent);
        let pressure = &mut self.gate.pressure;
        // Between the two marks what has begun goes on: publishers wait until there is enough.
        if percent < ENOUGH {
            pressure.since = None;
        } else if by_share > Level::Calm {
            pressure.since.get_or_insert(now);
        }
        let by_time = pressure.since.map_or(Level::Calm, |since| patience(now.since(since)));
        pressure.level = by_share.max(by_time);
        let is_short = pressure.level > Level::Calm;
        self.gate.pressure.hog = if is_short { self.hog() } else { None };
        let pressure = &mut self.gate.pressure;
        if pressure.level >= Level::Shed {
            let share = if by_time == Level::Shed { ENOUGH } else { SHED };
            let target = (hundredth * share).saturating_sub(1);
            let in_vain = self.hunt(target, by_share >= Level::Shed, now);
            if in_vain && by_share == Level::Calm {
                // What is held lies in other shards. These may never have seen it reach the mark at which
                // something begins, and will if publishing makes more of it.
                self.gate.pressure.since = None;
                self.gate.pressure.level = Level::Calm;
            }
        } else {
            let pressure = &mut self.gate.pressure;
            (pressure.cursor, pressure.leaving) = (0, 0);
            pressure.heaviest.clear();
        }
        if self.gate.pressure.since.is_none() || self.held() / hundredth < ENOUGH {
            self.resume_publishers();
        }
    }

    /// Bytes of the budget that are held in the whole node.
    fn held(&self) -> u64 {
        self.charged().saturating_add(self.gate.pressure.others)
    }

    fn resume_publishers(&mut self) {
        for _ in 0..RESUMES {
            let Some(id) = self.gate.pressure.paused.pop() else { return };
            if let Some(connection) = self.table.get(id) {
                connection.set_pause(Pause::Memory, false);
                enlist(connection, id.index, &mut self.writes);
            }
        }
    }

    /// A connection has published: while memory is short no more is read from it.
    pub(super) fn slow_publisher(&mut self, id: ConnId) {
        if self.gate.pressure.level == Level::Calm {
            return;
        }
        let hog = self.gate.pressure.hog;
        let is_first = self.gate.pressure.level == Level::Slow && hog.is_some();
        if is_first && self.queues.payers.row_of(id.index) != hog {
            return;
        }
        let Some(connection) = self.table.get(id).filter(|c| c.is_living()) else { return };
        if connection.set_pause(Pause::Memory, true) {
            self.counters.memory_pauses_total += 1;
            self.gate.pressure.paused.push(id);
        }
        enlist(connection, id.index, &mut self.writes);
    }

    /// Looks at a slice of the table, and at its end closes the heaviest that were found, until no more
    /// than `target` is held besides what is leaving already. `all`: those too who are not read from and hold
    /// nothing but what is half-read. True at the end of the table when nothing in it would help.
    fn hunt(&mut self, target: u64, all: bool, now: Time) -> bool {
        let mut left = SLICE;
        while left > 0 {
            let (begin, bound) = (self.gate.pressure.cursor, self.table.touched());
            let end = bound.min(begin.saturating_add(left));
            for index in begin..end {
                self.weigh_laggard(index, all);
            }
            self.gate.pressure.cursor = end;
            left -= end.saturating_sub(begin);
            if end < bound {
                return false;
            }
            let is_bare = self.gate.pressure.heaviest.is_empty() && self.gate.pressure.leaving == 0;
            if !self.shed(target, now) {
                return is_bare;
            }
        }
        false
    }

    /// Closes the heaviest of those found; false when that was not needed or did not help.
    fn shed(&mut self, target: u64, now: Time) -> bool {
        let pressure = &mut self.gate.pressure;
        pressure.cursor = 0;
        let mut leaving = std::mem::take(&mut pressure.leaving);
        let mut found = std::mem::take(&mut pressure.heaviest);
        found.sort_unstable_by(|a, b| b.cmp(a));
        let mut helped = false;
        for (lags, _, _, id) in found {
            if self.held().saturating_sub(leaving) <= target {
                return false;
            }
            leaving += self.close_laggard(id, (!lags).then_some(HALF_SENT), now);
            helped = true;
        }
        helped
    }

    /// Closes who holds too much, and gives how many bytes it holds on to until it is gone.
    pub(super) fn close_laggard(&mut self, id: ConnId, words: Option<&str>, now: Time) -> u64 {
        self.close_saying(id, Disconnect::MemoryShort, words, now);
        let Some(connection) = self.table.get(id) else { return 0 };
        // What is half-read will never be read on.
        let decoder = std::mem::take(&mut connection.decoder);
        self.gate.pressure.half_read -= decoder.buffered_capacity() as u64;
        if connection.outbound.in_flight() {
            // What the kernel does not take stays in memory, and no close frame gets past it.
            connection.handle_close_deadline(&mut self.queues, id.index);
        }
        let left = connection.outbound.bytes() as u64;
        self.note_lost(id);
        left
    }

    /// Remembers the connection if it is one of the heaviest.
    fn weigh_laggard(&mut self, index: u32, all: bool) {
        let hog = self.gate.pressure.hog;
        let is_hogs = hog.is_some() && self.queues.payers.row_of(index) == hog;
        let Some((id, connection)) = self.table.at(index) else { return };
        let unread = connection.outbound.bytes();
        let weight = unread + connection.decoder.buffered_capacity();
        if !connection.is_living() {
            self.gate.pressure.leaving += weight as u64;
            return;
        }
        let lags = unread >= HEAVY || !connection.is_paused_for(Pause::Memory);
        if weight < HEAVY || !lags && !all {
            return;
        }
        let heaviest = &mut self.gate.pressure.heaviest;
        if heaviest.len() < FOUND {
            heaviest.push((lags, is_hogs, weight, id));
            return;
        }
        let lightest = heaviest.iter().enumerate().min_by_key(|(_, found)| **found);
        let is_lighter = |found: &Found| (found.0, found.1, found.2) < (lags, is_hogs, weight);
        if let Some((at, _)) = lightest.filter(|(_, found)| is_lighter(found)) {
            heaviest[at] = (lags, is_hogs, weight, id);
        }
    }
}
