//! What leaves for the driver, and when.
//!
//! Connections with something to say stand on a list. Unless the flush window holds them back, the list is
//! walked and each gets at most one write, which carries everything queued for it. A connection that
//! still has something afterwards waits for the next walk, so that none can hold up the others.
//!
//! A turn walks over one slice of the list ([`OPS_PER_TURN`]). Between the slices the loop looks for
//! events, so a list of a hundred thousand is no stall for those on no list; and what arrives meanwhile
//! for connections that the walk has yet to reach leaves with the same write. Under load that alone
//! gathers frames, without anybody waiting longer than a walk takes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::connection::Form;
use crate::contract::{Op, SendBatch};
use crate::flow::flush::{FlushWindow, Flushed};
use crate::shard::delay::Delays;
use crate::shard::forms::Forms;
use crate::wire::{engineio, sse, websocket};

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
    window: FlushWindow,
    since: Since,
    /// Operations that the walk may still make in this turn.
    left: usize,
    /// What the walk under way, or the last one, has written.
    flushed: Flushed,
    /// Emptied batches with heap memory worth keeping.
    pub(super) spare: Vec<SendBatch>,
    /// Connections whose queues said stop during a fan-out; empty between events.
    pub(super) slow: Vec<ConnId>,
    /// What every connection gets that is asked whether it is there.
    alive: Forms<Shared>,
    /// Rooms whose publications wait to be written.
    pub(super) delays: Delays,
}

/// When the oldest publication arrived at the node, of those that a walk carries.
#[derive(Debug, Default)]
struct Since {
    next: Option<Time>,
    walk: Option<Time>,
}

/// Emptied batches kept for the next burst; the rest goes back to the allocator.
const SPARE: usize = 1024;
/// Those that stay when a crowd has gone.
const SPARE_AT_REST: usize = 64;

/// Operations on connections in one turn. Writes cost 3 to 6 microseconds each, to sockets that no cache
/// holds three times as much, and closes about the same: half a millisecond, one at the worst. Looking for
/// events in between costs less than one of them.
const OPS_PER_TURN: usize = 64;

impl Writes {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            ops: VecDeque::new(),
            next: Vec::new(),
            walk: Vec::new(),
            at: 0,
            window: FlushWindow::new(window),
            since: Since::default(),
            left: 0,
            flushed: Flushed::default(),
            spare: Vec::new(),
            slow: Vec::new(),
            alive: Forms {
                frame: Shared::kept(websocket::PING.to_vec()),
                event: Some(Shared::kept(sse::COMMENT.to_vec())),
                packet: Some(Shared::kept(websocket::text(engineio::PING))),
                small: None,
                small_packet: None,
            },
            delays: Delays::default(),
        }
    }

    pub(super) fn set_window(&mut self, window: Duration) {
        self.window = FlushWindow::new(window);
    }

    /// What a connection gets that is asked whether it is there: of each form one, which all share.
    pub(super) fn ping(&self, form: Form) -> Shared {
        self.alive.of(form).clone()
    }

    pub(super) fn enlist(&mut self, index: u32) {
        self.next.push(index);
    }

    /// Allows a slice of the walk, and begins a new one when the last is done, unless the window says to
    /// wait. True when something was held back. `busy`: the turn found something to read and did not sleep
    /// for it.
    pub(super) fn begin(&mut self, busy: bool, now: Time) -> bool {
        self.left = OPS_PER_TURN;
        if self.at < self.walk.len() {
            return false;
        }
        if self.next.is_empty() {
            // Whatever was published had nobody to hear it.
            self.since.next = None;
            return false;
        }
        if self.window.hold(self.next.len(), self.flushed, busy, now) {
            return true;
        }
        self.walk.clear();
        if self.walk.capacity() > 4096 && self.next.len() < self.walk.capacity() / 8 {
            self.walk = Vec::new();
        }
        std::mem::swap(&mut self.walk, &mut self.next);
        self.at = 0;
        self.since.walk = self.since.next.take();
        self.flushed = Flushed::default();
        false
    }

    /// The connection whose turn it is; `None` at the end of the slice, or of the walk.
    pub(super) fn current(&self) -> Option<u32> {
        self.walk.get(self.at).filter(|_| self.left > 0).copied()
    }

    /// Notes an operation on that connection.
    pub(super) fn count(&mut self, op: &Op) {
        self.left -= 1;
        if let Op::Send { batch, .. } = op {
            self.flushed.sends += 1;
            self.flushed.frames += batch.frames();
        }
    }

    /// The next walk carries a publication that arrived at this time.
    pub(super) fn note_published(&mut self, at: Time) {
        self.since.next = Some(self.since.next.map_or(at, |since| since.min(at)));
    }

    /// When the oldest publication arrived that the last walk carried; once, after its end.
    pub(super) fn take_written(&mut self) -> Option<Time> {
        if self.at < self.walk.len() {
            return None;
        }
        self.since.walk.take()
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

    /// When the next turn is due: at once while anybody waits, also in a hold, which never sleeps; else when the
    /// first delay is over.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        let waits = !self.ops.is_empty() || self.at < self.walk.len() || !self.next.is_empty();
        if waits { Some(now) } else { self.delays.due() }
    }

    /// Connections on the list.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        self.next.iter().chain(&self.walk[self.at.min(self.walk.len())..]).copied()
    }
}
