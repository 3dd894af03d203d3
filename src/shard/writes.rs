//! What leaves for the driver, and when.
//!
//! Connections with something to say stand on a list. Unless the flush window holds them back, the list is
//! walked and each gets at most one write, which carries everything queued for it. A connection that still
//! has something afterwards waits for the next walk, so that none can hold up the others.
//!
//! A walk may take many turns: each turn has a budget of writes, and then looks for events before it goes on.
//! What is published meanwhile travels in the writes that are still to come, so under load a connection is
//! written to once a round with all that has gathered, and a publication to a large room holds nobody up for
//! longer than a slice of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::contract::{Op, SendBatch};
use crate::flow::flush::FlushWindow;
use crate::wire::websocket;

/// Operations and connections that await the driver.
#[derive(Debug)]
pub(super) struct Writes {
    /// Operations on the listener and on fresh sockets; bounded by the events of a turn.
    pub(super) ops: VecDeque<Op>,
    /// Connections for the next walk.
    next: Vec<u32>,
    /// The walk under way; those before `at` are done.
    walk: Vec<u32>,
    at: usize,
    /// Writes that this turn may still make.
    budget: usize,
    window: FlushWindow,
    held_until: Option<Time>,
    /// Emptied batches with heap memory worth keeping.
    pub(super) spare: Vec<SendBatch>,
    /// Connections whose queues said stop during a fan-out; empty between events.
    pub(super) slow: Vec<ConnId>,
    /// The ping that every connection gets.
    ping: Shared,
}

/// Writes of one turn: at some 3 us each, a fraction of a millisecond.
const WRITES_PER_TURN: usize = 128;

/// Emptied batches kept for the next burst; the rest goes back to the allocator.
const SPARE: usize = 1024;
/// Those that stay when a crowd has gone.
const SPARE_AT_REST: usize = 64;

impl Writes {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            ops: VecDeque::new(),
            next: Vec::new(),
            walk: Vec::new(),
            at: 0,
            budget: 0,
            window: FlushWindow::new(window),
            held_until: None,
            spare: Vec::new(),
            slow: Vec::new(),
            ping: Shared::kept(websocket::PING.as_slice()),
        }
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = FlushWindow::new(window);
    }

    /// The ping that every connection gets: empty, so that all share one.
    pub(super) fn ping(&self) -> Shared {
        self.ping.clone()
    }

    pub(super) fn enlist(&mut self, index: u32) {
        self.next.push(index);
    }

    /// Begins a turn's writes: goes on with the walk under way, or begins one unless the window says to wait.
    /// True when something was held back.
    pub(super) fn begin(&mut self, queued_frames: u64, busy: bool, now: Time) -> bool {
        self.budget = WRITES_PER_TURN;
        if self.at < self.walk.len() {
            return false;
        }
        self.held_until = if self.next.is_empty() {
            None
        } else {
            let frames = usize::try_from(queued_frames).unwrap_or(usize::MAX);
            self.window.plan(self.next.len(), frames, busy, now)
        };
        if self.held_until.is_some() {
            return true;
        }
        self.walk.clear();
        if self.walk.capacity() > 4096 && self.next.len() < self.walk.capacity() / 8 {
            self.walk = Vec::new();
        }
        std::mem::swap(&mut self.walk, &mut self.next);
        self.at = 0;
        false
    }

    /// The connection whose turn it is; `None` at the end of the walk and of the turn's budget.
    pub(super) fn current(&self) -> Option<u32> {
        if self.budget == 0 { None } else { self.walk.get(self.at).copied() }
    }

    /// A write was made.
    pub(super) fn spend(&mut self) {
        self.budget -= 1;
    }

    /// That connection has had its turn.
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// Keeps an emptied batch for reuse.
    pub(super) fn keep(&mut self, batch: SendBatch) {
        if batch.is_spilled() && self.spare.len() < SPARE {
            self.spare.push(batch);
        }
    }

    /// Gives back what a burst has left behind.
    pub(super) fn relax(&mut self) {
        self.spare.truncate(SPARE_AT_REST);
        self.ops.shrink_to(SPARE_AT_REST);
        if self.at == self.walk.len() {
            self.walk = Vec::new();
            self.at = 0;
        }
        self.next.shrink_to_fit();
    }

    /// When the next walk is due: `None` when nobody waits.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        if !self.ops.is_empty() || self.at < self.walk.len() {
            return Some(now);
        }
        if self.next.is_empty() { None } else { Some(self.held_until.unwrap_or(now)) }
    }

    /// Connections on the list.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.next.iter().chain(&self.walk[self.at.min(self.walk.len())..]).copied()
    }
}
