//! Connections that leave with their sockets, for somebody else to go on with.
//!
//! A request that another server answers may carry what has no end that a shard could wait for: a body of any length, a
//! stream, a socket of another protocol. So the shard reads the head and judges the newcomer by it as it judges all, and
//! then the whole connection leaves: its socket, its TLS layer, and every byte that was read of it. From there on it
//! costs the shard nothing and is none of its connections. In the same way a WebSocket goes to the shard of the session
//! that it names (see [`super::transfers`]), and there to the session itself (see [`super::upgrades`]).
//!
//! The driver may still report bytes while it lets go of the socket; those are kept in order behind the others.

use std::collections::VecDeque;

use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::outside::{Handed, Passage, Seal};
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::shard::petitions::LATER;
use crate::shard::state::Shard;
use crate::shard::transfers::{Transfer, Transfers};
use crate::shard::upgrades::Line;
use crate::wire::http::Refusal;

/// Connections of a shard that are on their way to other servers at one time.
const MOST: usize = 256;

/// Where a connection goes.
#[derive(Debug)]
pub(super) enum To {
    /// To a server: which one, and whose connection it is.
    Front { place: usize, client: Option<String> },
    /// To another shard.
    Shard(Transfer),
    /// To a session of this shard.
    Session(ConnId),
}

/// One on its way out.
#[derive(Debug)]
pub(super) struct Leaving {
    conn: ConnId,
    is_secure: bool,
    pub(super) to: To,
    /// What has come of it so far, as far as it was opened.
    pub(super) said: Vec<u8>,
    /// What came behind that.
    pub(super) unread: Vec<u8>,
}

/// The connections of a shard that leave.
#[derive(Debug)]
pub(super) struct Passages {
    /// By the connections' places.
    leaving: Map<u32, Leaving>,
    /// How many of them go to servers.
    fronts: usize,
    /// Those that have left for servers, until the end of the turn.
    out: VecDeque<(Passage, Handed)>,
    /// Those for other shards.
    pub(super) transfers: Transfers,
}

impl Passages {
    pub(super) fn new(seed: &Seed) -> Self {
        let (out, transfers) = (VecDeque::new(), Transfers::default());
        Self { leaving: seed.map(), fronts: 0, out, transfers }
    }

    /// What they hold, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let leaving = self.leaving.values();
        leaving.map(|one| (one.said.len() + one.unread.len()) as u64).sum()
    }

    fn add(&mut self, leaving: Leaving) {
        match &leaving.to {
            To::Front { .. } => self.fronts += 1,
            To::Shard(_) => self.transfers.leaving += 1,
            To::Session(_) => {}
        }
        self.leaving.insert(leaving.conn.index, leaving);
    }

    fn remove(&mut self, conn: ConnId) -> Option<Leaving> {
        self.leaving.get(&conn.index).filter(|own| own.conn == conn)?;
        let leaving = self.leaving.remove(&conn.index)?;
        match &leaving.to {
            To::Front { .. } => self.fronts -= 1,
            To::Shard(_) => self.transfers.leaving -= 1,
            To::Session(_) => {}
        }
        Some(leaving)
    }

    /// Keeps what came for a connection that leaves; false when it is none.
    pub(super) fn gather(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        if self.leaving.is_empty() {
            return false;
        }
        let Some(leaving) = self.leaving.get_mut(&conn.index).filter(|own| own.conn == conn) else {
            return false;
        };
        let Leaving { said, unread, .. } = leaving;
        if leaving.is_secure { unread } else { said }.extend_from_slice(bytes);
        true
    }

    /// Keeps what was opened of a connection that leaves and is meant for whoever goes on with it.
    pub(super) fn keep(&mut self, conn: ConnId, plain: &[u8]) {
        if let Some(leaving) = self.leaving.get_mut(&conn.index).filter(|own| own.conn == conn) {
            leaving.said.extend_from_slice(plain);
        }
    }

    /// The connection has ended otherwise. The session that was to go on by it, if it was one's.
    pub(super) fn forget(&mut self, conn: ConnId) -> Option<ConnId> {
        match self.remove(conn)?.to {
            To::Session(session) => Some(session),
            To::Front { .. } | To::Shard(_) => None,
        }
    }

    /// Asserts that whoever leaves is there still. `is_there` says it of a connection.
    ///
    /// # Panics
    /// When it is not so.
    pub(super) fn check(&self, is_there: impl Fn(ConnId) -> bool) {
        assert!(self.fronts <= MOST, "too many leave at one time");
        let to = |is: fn(&To) -> bool| self.leaving.values().filter(|one| is(&one.to)).count();
        assert_eq!(to(|to| matches!(to, To::Front { .. })), self.fronts, "they leave for servers");
        let transfers = to(|to| matches!(to, To::Shard(_)));
        assert_eq!(transfers, self.transfers.leaving, "they leave for other shards");
        for leaving in self.leaving.values() {
            assert!(is_there(leaving.conn), "a connection leaves that is gone: {leaving:?}");
        }
    }
}

impl Shard {
    /// Hands out the connections that have left. To be called once a turn.
    pub fn poll_passages(&mut self, take: &mut dyn FnMut(Passage, Handed)) {
        while let Some((passage, socket)) = self.gate.people.petitions.passages.out.pop_front() {
            take(passage, socket);
        }
    }

    /// A request has come for the paths of `front`: what has arrived so far is `bytes`.
    pub(super) fn begin_passage(
        &mut self,
        conn: ConnId,
        mut bytes: Vec<u8>,
        front: &str,
        now: Time,
    ) {
        let Some(refusal) = self.screen_request(conn, &bytes, now) else { return };
        let leaving = self.settings.routes.fronts.iter().filter(|front| front.leaves);
        let place = leaving.map(|front| &front.path).position(|path| path == front);
        let has_space = self.gate.people.petitions.passages.fronts < MOST;
        let place = place.filter(|_| has_space);
        let (None, Some(place)) = (&refusal, place) else {
            self.counters.petitions_refused_total += 1;
            let refusal = refusal.unwrap_or_else(|| Refusal::unavailable(Some(LATER)));
            return self.respond(conn, refusal.response(), now);
        };
        let client = self.gate.seats.party(conn.index).map(|party| party.to_string());
        // Another server's log is no place for what opens this door.
        self.settings.access.sources.withhold(&mut bytes);
        self.send_off(conn, To::Front { place, client }, bytes, now);
    }

    /// Has a connection leave, of which this was said so far.
    pub(super) fn send_off(&mut self, conn: ConnId, to: To, said: Vec<u8>, now: Time) {
        let deadline = now.tick().plus(self.settings.timeouts.close);
        let Some(connection) = self.table.get(conn) else { return };
        let (is_secure, was_open) = (connection.is_secure(), connection.open().is_some());
        connection.begin_passage(deadline);
        let leaving = Leaving { conn, is_secure, to, said, unread: Vec::new() };
        self.gate.people.petitions.passages.add(leaving);
        self.after_close(conn, Disconnect::HandedOver, was_open, now);
    }

    /// The driver has let go of a socket.
    pub(super) fn handle_handed_over(&mut self, conn: ConnId, socket: Handed, now: Time) {
        let passages = &mut self.gate.people.petitions.passages;
        let leaving = passages.remove(conn);
        let layer = self.gate.layers.take(conn.index);
        let window = self.table.get(conn).and_then(|connection| connection.window());
        self.handle_closed(conn, now);
        let Some(leaving) = leaving else { return };
        if leaving.is_secure != layer.is_some() {
            return;
        }
        let Leaving { to, said, unread, .. } = leaving;
        let passages = &mut self.gate.people.petitions.passages;
        match to {
            To::Front { place, client } => {
                let seal = layer.map(|layer| -> Box<dyn Seal> { layer });
                passages.out.push_back((Passage { place, client, said, unread, seal }, socket));
            }
            To::Shard(transfer) => {
                let transfer = Transfer { said, unread, layer, ..transfer };
                passages.transfers.out.push_back((transfer, socket));
            }
            To::Session(session) => {
                let line = Line { socket, layer, window, said, unread };
                self.switch(session, line, now);
            }
        }
    }

    /// Asserts that whoever leaves is there.
    pub(super) fn check_passages(&self) {
        self.gate.people.petitions.passages.check(|conn| {
            let connection = self.table.peek(conn.index);
            connection.is_some_and(|c| c.generation() == conn.generation && !c.is_living())
        });
    }
}
