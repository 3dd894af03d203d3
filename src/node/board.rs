//! Where shards post their figures for everybody to read, and say who has gone.
//!
//! Each shard owns one row of relaxed atomics and is the only writer of it; reading costs the shard
//! nothing. Rows are cache lines apart. Only the times of turns, where they are measured at all, are set
//! back by who takes them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::base::counters::Counters;
use crate::base::id::ShardId;
use crate::node::cells::{Cells, Measured};
use crate::node::config::Config;
use crate::node::tenants::Places;
use crate::node::turns::{TurnCells, TurnTimes};
use crate::shard::{Farewell, Progress, Reply, Shard, Surveyed};

#[repr(align(128))]
#[derive(Debug)]
struct Row {
    values: [AtomicU64; Counters::LEN],
    progress: AtomicU8,
    mark: AtomicU64,
    turns: TurnCells,
    cells: Cells,
}

/// Both ends of a bounded queue.
type Channel<T> = (Sender<T>, Receiver<T>);

/// The figures of all shards.
#[derive(Debug)]
pub struct Board {
    rows: Vec<Row>,
    /// True once the graceful end has begun.
    draining: AtomicBool,
    /// Who has gone, on the way to the log.
    farewells: Channel<Farewell>,
    /// Answers to the node's questions.
    replies: Channel<Reply>,
    /// Who has most to read, on the way to the operator who asked.
    surveys: Channel<(ShardId, Surveyed)>,
    /// What tenants have and do.
    tenants: Places,
    /// Where a row holds what is charged to the memory budget.
    charged: usize,
}

/// Ends of connections that may wait for the log, which looks ten times a second.
const FAREWELLS: usize = 1024;

/// Answers to the node's questions that may wait for whoever asked.
const REPLIES: usize = 1024;

impl Board {
    /// A board for so many shards that tells no tenants apart.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        Self::with_tenants(shards, Places::new(0, shards, []))
    }

    /// A board with places for as many tenants as the configuration says.
    pub(super) fn of(config: &Config, shards: u16) -> Self {
        let named = config.lists.tenants.iter().map(|tenant| tenant.name.as_str());
        let places = usize::from(config.admin.metrics_tenants);
        Self::with_tenants(shards, Places::new(places, shards, named))
    }

    fn with_tenants(shards: u16, tenants: Places) -> Self {
        let row = || Row {
            values: std::array::from_fn(|_| AtomicU64::new(0)),
            progress: AtomicU8::new(0),
            mark: AtomicU64::new(0),
            turns: TurnCells::default(),
            cells: Cells::default(),
        };
        let charged = Counters::NAMES.iter().position(|name| *name == "charged_bytes");
        Self {
            rows: (0..shards).map(|_| row()).collect(),
            draining: AtomicBool::new(false),
            farewells: bounded(FAREWELLS),
            replies: bounded(REPLIES),
            surveys: bounded(2 * usize::from(shards.max(1))),
            tenants,
            charged: charged.unwrap_or_default(),
        }
    }

    /// The number of shards.
    pub(super) fn shards(&self) -> usize {
        self.rows.len()
    }

    /// Posts a shard's figures. Only that shard's worker may call it.
    pub(super) fn publish(&self, shard: &mut Shard, id: ShardId) {
        let row = &self.rows[usize::from(id.0)];
        for (cell, value) in row.values.iter().zip(shard.counters().values()) {
            cell.store(value, Ordering::Relaxed);
        }
        row.cells.take(shard);
        self.tenants.take(shard.measures().ledger(), id);
        row.progress.store(u8::from(shard.progress() == Progress::Drained), Ordering::Release);
        row.mark.store(shard.mark(), Ordering::Release);
    }

    /// The last mark that the shard has met in its mail.
    pub(super) fn mark(&self, shard: ShardId) -> u64 {
        self.rows[usize::from(shard.0)].mark.load(Ordering::Acquire)
    }

    /// Notes that the graceful end has begun.
    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True once the graceful end has begun.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Takes what the shard says of those who have gone; what finds no space the shard counts.
    pub(super) fn hear_farewells(&self, shard: &mut Shard) {
        shard.poll_farewells(|farewell| self.farewells.0.try_send(farewell).is_ok());
    }

    /// Takes an answer to the node; gives back what finds no space.
    pub(super) fn tell_reply(&self, reply: Reply) -> Option<Reply> {
        self.replies.0.try_send(reply).err().map(TrySendError::into_inner)
    }

    /// What was answered since this was last asked.
    pub(super) fn replies(&self) -> impl Iterator<Item = Reply> {
        self.replies.1.try_iter()
    }

    /// Takes what a shard has found. What finds no space nobody waits for any more.
    pub(super) fn hear_survey(&self, shard: ShardId, found: Surveyed) {
        let _ = self.surveys.0.try_send((shard, found));
    }

    /// What shards have found since this was last asked.
    pub(super) fn surveys(&self) -> impl Iterator<Item = (ShardId, Surveyed)> {
        self.surveys.1.try_iter()
    }

    /// Who has gone since this was last asked.
    pub(super) fn farewells(&self) -> impl Iterator<Item = Farewell> {
        self.farewells.1.try_iter()
    }

    /// Notes how long a turn of the shard took. Only that shard's worker may call it.
    pub(super) fn note_turn(&self, shard: ShardId, time: Duration) {
        self.rows[usize::from(shard.0)].turns.add(time);
    }

    /// Notes for how long a turn of the shard kept what arrived meanwhile waiting. Only that shard's worker
    /// may call it.
    pub(super) fn note_lag(&self, shard: ShardId, lag: Duration) {
        self.rows[usize::from(shard.0)].cells.note_lag(lag);
    }

    /// What one shard has measured, as last posted.
    pub(super) fn measured(&self, shard: ShardId) -> Measured {
        self.rows[usize::from(shard.0)].cells.read()
    }

    /// What tenants have and do.
    pub(super) fn tenants(&self) -> &Places {
        &self.tenants
    }

    /// Bytes of the memory budget that the other shards hold, as last posted.
    pub(super) fn charged_by_others(&self, shard: ShardId) -> u64 {
        let own = usize::from(shard.0);
        let others = self.rows.iter().enumerate().filter(|(at, _)| *at != own);
        others.map(|(_, row)| row.values[self.charged].load(Ordering::Relaxed)).sum()
    }

    /// What all shards' turns took since this was last asked.
    #[must_use]
    pub fn take_turns(&self) -> TurnTimes {
        self.rows.iter().map(|row| row.turns.take()).fold(TurnTimes::default(), TurnTimes::and)
    }

    /// One shard's figures as last posted.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Counters {
        let row = &self.rows[usize::from(shard.0)];
        Counters::from_values(std::array::from_fn(|at| row.values[at].load(Ordering::Relaxed)))
    }

    /// The sum over all shards.
    #[must_use]
    pub fn total(&self) -> Counters {
        let mut total = Counters::default();
        for shard in (0..).take(self.rows.len()) {
            total.add(&self.shard(ShardId(shard)));
        }
        total
    }

    /// True when every shard has drained.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.rows.iter().all(|row| row.progress.load(Ordering::Acquire) == 1)
    }
}
