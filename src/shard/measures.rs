//! What a shard measures besides counting: how amounts are spread, and what was lost where.
//!
//! Fixed places, written by the one core that owns them and copied to the board when they have changed.
//! Nothing here is per connection. Losses are told apart by the namespace of their room, so that a laggard in
//! a game is not taken for one in a chat; only so many namespaces have a place of their own, because
//! every one is a time series in somebody's database.

use crate::auth::plain;
use crate::base::histogram::Histogram;
use crate::base::time::Time;
use crate::flow::outbound::Lengths;
use crate::shard::farewells::Farewells;
use crate::shard::inspect::Inspections;
use crate::shard::ledger::Ledger;
use crate::shard::outcomes::Outcomes;
use crate::shard::settings::RoomRules;
use crate::shard::state::Shard;
use crate::shard::survey::Survey;

/// Namespaces with a row of losses of their own; those behind them share one.
pub const NAMESPACES: usize = 32;
/// Rows of losses: rooms of no namespace, namespaces in their order, and the rest.
pub const LOSS_ROWS: usize = NAMESPACES + 2;

/// Publications that readers lost, by what their rooms' policy did about it: dropped the new one, dropped
/// older ones, replaced one, or closed the connection.
pub type Losses = [u64; 4];

/// The names of the columns of [`Losses`], as the configuration has them.
pub const POLICIES: [&str; 4] = ["drop_new", "drop_oldest", "conflate", "disconnect"];

/// The row of a room.
pub(super) fn row_of(rules: &RoomRules, room: &str) -> usize {
    rules.namespace_at(room).map_or(0, |at| at.saturating_add(1).min(LOSS_ROWS - 1))
}

/// What a shard measures.
#[derive(Debug)]
pub struct Measures {
    /// From a publication's arrival at the node to the end of the round of writes that handed it to the
    /// kernel, in nanoseconds: the oldest of each round.
    pub(super) fan_out: Histogram,
    /// Frames that a write carried.
    pub(super) frames: Histogram,
    /// How long sessions were open, in milliseconds.
    pub(super) lives: Histogram,
    pub(super) farewells: Farewells,
    pub(super) outcomes: Outcomes,
    /// Present while an operator waits for it.
    pub(super) survey: Option<Survey>,
    /// What back ends ask about rooms and connections.
    pub(super) inspections: Inspections,
    /// What each tenant has and does.
    pub(super) ledger: Ledger,
    losses: [Losses; LOSS_ROWS],
    /// One bit for each row that has changed since it was last taken.
    lost: u64,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            fan_out: Histogram::default(),
            frames: Histogram::default(),
            lives: Histogram::default(),
            farewells: Farewells::default(),
            outcomes: Outcomes::default(),
            survey: None,
            inspections: Inspections::default(),
            ledger: Ledger::default(),
            losses: [Losses::default(); LOSS_ROWS],
            lost: 0,
        }
    }
}

/// Nanoseconds in the smallest bound of times of delivery.
pub(super) const MICRO: u64 = 1000;
/// Milliseconds in the smallest bound of a session's life.
pub(super) const SECOND: u64 = 1000;

impl Measures {
    /// The histograms: fan-out in nanoseconds, frames of a write, lives of sessions in milliseconds.
    pub fn histograms(&mut self) -> [&mut Histogram; 3] {
        [&mut self.fan_out, &mut self.frames, &mut self.lives]
    }

    /// What each tenant has and does.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Gives the rows of losses that have changed since the last call.
    pub fn take_losses(&mut self, mut each: impl FnMut(usize, Losses)) {
        let mut lost = std::mem::take(&mut self.lost);
        while lost != 0 {
            let row = lost.trailing_zeros() as usize;
            each(row, self.losses[row]);
            lost &= lost - 1;
        }
    }

    /// Notes losses in a room of that row.
    pub(super) fn lose(&mut self, row: usize, losses: Losses) {
        for (sum, count) in self.losses[row].iter_mut().zip(losses) {
            *sum += count;
        }
        self.lost |= 1 << row;
    }

    /// The namespaces have changed: rows stand for others now and begin anew.
    pub(super) fn forget_losses(&mut self) {
        self.losses = [Losses::default(); LOSS_ROWS];
        self.lost = (1 << LOSS_ROWS) - 1;
    }
}

impl Shard {
    /// What this shard measures, to be copied.
    pub fn measures(&mut self) -> &mut Measures {
        &mut self.measures
    }

    /// How many queues are how long.
    #[must_use]
    pub fn queue_lengths(&self) -> &Lengths {
        self.queues.lengths()
    }

    /// A turn has ended at this time: what was to be written by then is with the kernel.
    pub fn end_turn(&mut self, at: Time) {
        if let Some(since) = self.writes.take_written() {
            let nanos = u64::try_from(at.since(since).as_nanos()).unwrap_or(u64::MAX);
            self.measures.fan_out.note(nanos, MICRO);
        }
    }

    /// Notes what readers have lost, of a room if it was of one.
    pub(super) fn note_losses(&mut self, room: Option<&str>, losses: Losses) {
        if losses != Losses::default() {
            let row = room.map_or(0, |room| row_of(&self.settings.rooms, plain(room)));
            self.measures.lose(row, losses);
        }
    }
}
