//! Who gets in, and when accepting stops and resumes.
//!
//! The kernel's refusal of a descriptor (EMFILE) stops the listener until some are free again: trying
//! at once would spin. Above the connection limit a handshake still gets its 503 so that a program can
//! read why; beyond a margin for those, sockets are closed unseen.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::map::Seed;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::contract::{ListenerId, Op, SocketTicket};
use crate::hub::{Excess, Tally};
use crate::shard::drain::Drain;
use crate::shard::memory::{Level, Pressure};
use crate::shard::pace::Paces;
use crate::shard::people::People;
use crate::shard::seats::{CROWDED, Seats};
use crate::shard::secure::Layers;
use crate::shard::settings::Settings;
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
    /// Connections whose request has not arrived yet.
    pub(super) opening: usize,
    /// Who each connection is, as far as limits need to know.
    pub(super) seats: Seats,
    /// The budgets of those who are active.
    pub(super) paces: Paces,
    /// The connections of the parties whose home this shard is.
    pub(super) tally: Tally,
    /// How short memory is, and what is done about it.
    pub(super) pressure: Pressure,
    /// Connections of this shard that are one too many of their party, and whether the newest or the
    /// oldest goes; empty between events.
    pub(super) evicted: Vec<(ConnId, Excess)>,
}

/// How long accepting rests after the kernel refused a socket.
const REST: Duration = Duration::from_millis(100);

impl Gate {
    /// An open gate, with address space for what is kept of `capacity` connections.
    /// `number` is known to nobody else.
    pub(super) fn new(capacity: usize, seed: &Seed, settings: &Settings, number: u64) -> Self {
        Self {
            retry: None,
            drain: None,
            stopped: false,
            mark: 0,
            people: People::new(seed, capacity, settings.access.max_revocations, number),
            layers: Layers::new(capacity),
            opening: 0,
            seats: Seats::new(seed, capacity),
            paces: Paces::new(seed),
            tally: Tally::new(seed),
            pressure: Pressure::new(&settings.queue),
            evicted: Vec::new(),
        }
    }
}

impl Shard {
    pub(super) fn handle_accepted(
        &mut self,
        socket: SocketTicket,
        (listener, peer): (ListenerId, Option<IpAddr>),
        now: Time,
    ) {
        self.counters.accepted_total += 1;
        let stranger = self.is_stranger(peer);
        let short = self.gate.pressure.level == Level::Refuse;
        if stranger || short || self.gate.drain.is_some() || self.is_beyond() || self.is_flood(peer)
        {
            let counters = &mut self.counters;
            *match (stranger, short) {
                (true, _) => &mut counters.unannounced_total,
                (_, true) => &mut counters.memory_refused_total,
                _ => &mut counters.shed_total,
            } += 1;
            self.writes.ops.push_back(Op::Refuse { socket });
            return;
        }
        let crowded = self.gate.opening >= self.settings.limits.door.most;
        let conn = self.table.insert(now.tick());
        let is_secure =
            self.settings.routes.tls.as_ref().is_some_and(|door| door.listener == listener);
        if let Some(connection) = self.table.get(conn).filter(|_| is_secure) {
            connection.set_secure();
        }
        self.gate.opening += 1;
        self.seat(conn, peer);
        self.gate.seats.set(conn.index, CROWDED, crowded);
        self.evict_some(now);
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.handshake));
        self.writes.ops.push_back(Op::Open { conn, socket });
    }

    /// True when there is not even space to hear a request and refuse it.
    pub(super) fn is_beyond(&self) -> bool {
        let with_margin = |limit: usize| limit.saturating_add(limit / 16 + 64);
        self.table.len() >= with_margin(self.settings.capacity.connections)
            || self.gate.opening >= with_margin(self.settings.limits.door.most)
    }

    /// True when one address has so many connections that hearing and refusing them costs too much.
    fn is_flood(&self, peer: Option<IpAddr>) -> bool {
        let most = self.settings.limits.address.connections;
        let Some(peer) = peer.filter(|_| most > 0) else { return false };
        !self.settings.limits.clients.trusts(peer)
            && self.gate.seats.count(Party::of(peer)) >= most.saturating_mul(2).saturating_add(16)
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
