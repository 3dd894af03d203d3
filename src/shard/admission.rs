//! Who gets in, and when accepting stops and resumes.
//!
//! The kernel's refusal of a descriptor (EMFILE) stops the listener until some are free again: trying
//! at once would spin. Above the connection limit a handshake still gets its 503 so that a program can
//! read why; beyond a margin for those, sockets are closed unseen.

use std::time::Duration;

use crate::base::time::Time;
use crate::contract::{ListenerId, Op, SocketTicket};
use crate::shard::drain::Drain;
use crate::shard::people::People;
use crate::shard::secure::Layers;
use crate::shard::state::Shard;

/// Whether the shard takes in connections, and whether it keeps those it has.
#[derive(Debug)]
pub(super) struct Gate {
    /// When accepting is tried again after the kernel refused; `None` while it goes on.
    pub(super) retry: Option<Time>,
    /// The graceful end, once it was asked for.
    pub(super) drain: Option<Drain>,
    /// The worker is to end at once.
    pub(super) stopped: bool,
    /// The number of the last mark that came by mail.
    pub(super) mark: u64,
    /// Who came in.
    pub(super) people: People,
    /// The TLS layers of those who came by that door.
    pub(super) layers: Layers,
}

/// How long accepting rests after the kernel refused a socket.
const REST: Duration = Duration::from_millis(100);

impl Gate {
    /// An open gate, with address space for the TLS layers of `capacity` connections.
    pub(super) fn new(people: People, capacity: usize) -> Self {
        let layers = Layers::new(capacity);
        Self { retry: None, drain: None, stopped: false, mark: 0, people, layers }
    }
}

impl Shard {
    pub(super) fn handle_accepted(
        &mut self,
        socket: SocketTicket,
        listener: ListenerId,
        now: Time,
    ) {
        self.counters.accepted_total += 1;
        let limit = self.settings.capacity.connections;
        let margin = limit / 16 + 64;
        if self.gate.drain.is_some() || self.table.len() >= limit.saturating_add(margin) {
            self.counters.shed_total += 1;
            self.writes.ops.push_back(Op::Refuse { socket });
            return;
        }
        let conn = self.table.insert(now.tick());
        let is_secure =
            self.settings.routes.tls.as_ref().is_some_and(|door| door.listener == listener);
        if let Some(connection) = self.table.get(conn).filter(|_| is_secure) {
            connection.set_secure();
        }
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.handshake));
        self.writes.ops.push_back(Op::Open { conn, socket });
    }

    pub(super) fn handle_accept_failed(&mut self, now: Time) {
        self.counters.accept_paused_total += 1;
        self.gate.retry = Some(now.plus(REST));
    }

    pub(super) fn retry_accept(&mut self, now: Time) {
        if self.gate.retry.is_some_and(|at| at <= now) {
            self.gate.retry = None;
            if self.gate.drain.is_none() {
                self.writes.ops.push_back(Op::ResumeAccept);
            }
        }
    }

    /// True when another session would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.counters.open_connections >= self.settings.capacity.connections as u64
    }
}
