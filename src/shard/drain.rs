//! The graceful end of a shard.
//!
//! Accepting stops; everybody is told at once that the node goes and how long to wait before coming
//! back, each another time so that they form a line and not a wave; then the connections are closed
//! with 1012 in a steady pace over the middle of the window. What was queued before is sent before. No turn
//! walks over more than a slice.

use std::time::Duration;

use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::contract::Op;
use crate::session::{Session, encode};
use crate::shard::state::Shard;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No end was asked for.
    Serving,
    /// Connections are being closed.
    Draining,
    /// None is left.
    Drained,
    /// The worker is to end.
    Stopped,
}

/// An end under way.
#[derive(Debug)]
pub(super) struct Drain {
    since: Time,
    window: Duration,
    /// Indexes below this have been told.
    told: u32,
    /// Indexes below this have been closed.
    closed: u32,
    /// The table's bound when the end began; nothing is accepted after.
    bound: u32,
    /// When the next slice is due.
    pub(super) due: Time,
}

const SLICE: u32 = 256;
const STEP: Duration = Duration::from_millis(10);

impl Drain {
    /// The index up to which connections are to be closed by `now`: none in the first fifth of the
    /// window, in which what is under way between shards arrives; all of them at four fifths, so that
    /// the last have time for their close handshake.
    fn target(&self, now: Time) -> u32 {
        let pace = (self.window * 3 / 5).as_nanos().max(1);
        let part = now.since(self.since.plus(self.window / 5)).as_nanos().min(pace);
        u32::try_from(u128::from(self.bound) * part / pace).unwrap_or(self.bound)
    }
}

impl Shard {
    pub(super) fn handle_drain(&mut self, window: Duration, now: Time) {
        if self.gate.drain.is_none() {
            self.writes.ops.push_back(Op::StopAccepting);
            let bound = self.table.bound();
            let drain = Drain { since: now, window, told: 0, closed: 0, bound, due: now };
            self.gate.drain = Some(drain);
        }
    }

    pub(super) fn drain_some(&mut self, now: Time) {
        let Some(drain) = self.gate.drain.as_mut().filter(|drain| drain.due <= now) else { return };
        let told = drain.told..drain.bound.min(drain.told + SLICE);
        drain.told = told.end;
        let expired = now.since(drain.since) >= drain.window;
        let target = if expired { drain.bound } else { drain.target(now) };
        let closed = drain.closed..target.min(drain.told).min(drain.closed + SLICE);
        drain.closed = closed.end;
        let is_behind = drain.told < drain.bound || drain.closed < target;
        drain.due = if is_behind { now } else { now.plus(STEP) };
        if expired && drain.closed == drain.bound {
            // The window is over: whoever has not finished the handshake is released, slice by slice.
            drain.closed = 0;
        }
        for index in told {
            self.tell_reload(index, now);
        }
        for index in closed {
            if let Some((id, connection)) = self.table.at(index) {
                if connection.is_living() {
                    self.close(id, Disconnect::Reload, now);
                } else if expired {
                    connection.handle_close_deadline(&mut self.queues, index);
                    self.note_lost(id);
                    self.enlist(index);
                }
            }
        }
    }

    fn tell_reload(&mut self, index: u32, now: Time) {
        let spread = self.settings.capacity.reconnect_spread;
        let Some((id, connection)) = self.table.at(index) else { return };
        // Who waits for one answer is told by that answer, or by its end.
        let listens = |session| !matches!(session, Session::Echo | Session::Page | Session::Probe);
        if connection.open().is_some_and(|open| listens(open.session)) {
            let delay = spread.mul_f64(self.rng.f64());
            let mut text = Vec::new();
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            encode::reload(&mut text, delay_ms, "the node restarts");
            self.push_text(id, &text, now);
            self.push_retry(id, delay_ms, now);
        }
    }

    /// The number of the last [`crate::shard::Mail::Mark`] that was taken; 0 before the first.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.gate.mark
    }

    /// How far the end has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.gate.drain {
            _ if self.gate.stopped => Progress::Stopped,
            None => Progress::Serving,
            Some(_) if self.table.len() == 0 && self.outbox.len() == 0 => Progress::Drained,
            Some(_) => Progress::Draining,
        }
    }
}
