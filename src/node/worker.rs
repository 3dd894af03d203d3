//! The loop: where the core and the rim meet, and nowhere else.
//!
//! One thread, one shard, one driver, one port of the mesh. A turn waits for the driver, feeds its
//! events to the shard, lets time pass, takes mail, and submits what came of it all. The clock is read
//! twice a turn: after the wait and after the mail.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ShardId;
use crate::base::time::Time;
use crate::contract::{Driver, Event};
use crate::mesh::{Lane, Port};
use crate::node::board::Board;
use crate::shard::{Mail, Progress, Shard};
use crate::sys::clock::Clock;

/// Mail taken in one turn, per lane, so that a flood of it leaves time for the sockets.
const MAIL_PER_TURN: usize = 1024;

/// What a worker turns.
pub(super) struct Worker {
    pub(super) shard: Shard,
    pub(super) driver: Box<dyn Driver>,
    pub(super) port: Port<Mail>,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) id: ShardId,
}

impl Worker {
    /// Turns until the node says stop.
    #[expect(clippy::result_large_err, reason = "mail that finds no space comes back as it is")]
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut now = self.clock.now();
        while self.shard.progress() != Progress::Stopped {
            let busy = self.wait(now)?;
            now = self.clock.now();
            self.shard.handle_timeout(now);
            self.take_mail(now);
            self.shard.begin_writes(busy, now);
            self.submit(now);
            let (shard, port) = (&mut self.shard, &self.port);
            shard.poll_mail(&mut |to, mail| port.post(usize::from(to.0), lane(&mail), mail));
            self.board.publish(self.id, &self.shard.counters(), self.shard.progress());
        }
        Ok(())
    }

    /// Waits for events and feeds them. True when the thread had no reason to sleep.
    fn wait(&mut self, now: Time) -> io::Result<bool> {
        let mut timeout = self.shard.poll_timeout(now);
        let mut slept = timeout != Some(Duration::ZERO);
        // Requests that must not be taken yet are no reason to stay awake.
        let lanes: &[Lane] = if self.shard.takes_requests() {
            &[Lane::Delivery, Lane::Request]
        } else {
            &[Lane::Delivery]
        };
        if slept && !self.port.before_sleep(lanes) {
            timeout = Some(Duration::ZERO);
            slept = false;
        }
        let (shard, clock) = (&mut self.shard, &self.clock);
        // One reading serves all events of a turn: the first pays for it.
        let mut at = None;
        let result = self.driver.wait(timeout, &mut |event| {
            feed(shard, event, *at.get_or_insert_with(|| clock.now()));
        });
        if slept {
            self.port.awake();
        }
        result.map(|()| !slept)
    }

    fn take_mail(&mut self, now: Time) {
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.port.take(Lane::Delivery) else { break };
            self.shard.handle_mail(mail, now);
        }
        for _ in 0..MAIL_PER_TURN {
            if !self.shard.takes_requests() {
                break;
            }
            let Some(mail) = self.port.take(Lane::Request) else { break };
            self.shard.handle_mail(mail, now);
        }
    }

    fn submit(&mut self, now: Time) {
        while let Some(op) = self.shard.poll_op() {
            if let Some(event) = self.driver.submit(op) {
                feed(&mut self.shard, event, now);
            }
        }
    }
}

/// Hands one event to the shard. A panic of ours ends the connection that the event was about, and the
/// process when the shard's invariants no longer hold (decision 0005).
fn feed(shard: &mut Shard, event: Event<'_>, now: Time) {
    let conn = Shard::blame(&event);
    if catch_unwind(AssertUnwindSafe(|| shard.handle_event(event, now))).is_err() {
        shard.handle_panic(conn, now);
        if catch_unwind(AssertUnwindSafe(|| shard.check())).is_err() {
            tracing::error!("a panic left the shard inconsistent; ending the process");
            std::process::abort();
        }
        tracing::error!(?conn, "a panic was contained; its connection is closed with 1011");
    }
}

fn lane(mail: &Mail) -> Lane {
    if mail.is_request() { Lane::Request } else { Lane::Delivery }
}
