//! Requests that leave with their sockets, for another server to answer.
//!
//! What such a request carries has no end that a shard could wait for: a body of any length, a stream, a socket
//! of another protocol. So the shard reads the head and judges the newcomer by it as it judges all, and then the
//! whole connection leaves: its socket, its TLS layer, and every byte that was read of it. From there on it costs
//! the shard nothing and is none of its connections.
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
use crate::wire::http::Refusal;

/// Connections of a shard that are on their way out at one time.
const MOST: usize = 256;

/// One on its way out.
#[derive(Debug)]
struct Leaving {
    conn: ConnId,
    is_secure: bool,
    passage: Passage,
}

/// The connections of a shard that leave.
#[derive(Debug)]
pub(super) struct Passages {
    /// By the connections' places.
    leaving: Map<u32, Leaving>,
    /// Those that have left, until the end of the turn.
    out: VecDeque<(Passage, Handed)>,
}

impl Passages {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { leaving: seed.map(), out: VecDeque::new() }
    }

    /// What they hold, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let passages = self.leaving.values().map(|leaving| &leaving.passage);
        passages.map(|one| (one.said.len() + one.unread.len()) as u64).sum()
    }

    /// Keeps what came for a connection that leaves; false when it is none.
    pub(super) fn gather(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        if self.leaving.is_empty() {
            return false;
        }
        let Some(leaving) = self.leaving.get_mut(&conn.index).filter(|own| own.conn == conn) else {
            return false;
        };
        let Passage { said, unread, .. } = &mut leaving.passage;
        if leaving.is_secure { unread } else { said }.extend_from_slice(bytes);
        true
    }

    /// The connection has ended otherwise.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if self.leaving.get(&conn.index).is_some_and(|own| own.conn == conn) {
            self.leaving.remove(&conn.index);
        }
    }

    /// Asserts that whoever leaves is there still. `is_there` says it of a connection.
    ///
    /// # Panics
    /// When it is not so.
    pub(super) fn check(&self, is_there: impl Fn(ConnId) -> bool) {
        assert!(self.leaving.len() <= MOST, "too many leave at one time");
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
        let has_space = self.gate.people.petitions.passages.leaving.len() < MOST;
        let place = place.filter(|_| has_space);
        let (None, Some(place)) = (&refusal, place) else {
            self.counters.petitions_refused_total += 1;
            let refusal = refusal.unwrap_or_else(|| Refusal::unavailable(Some(LATER)));
            return self.respond(conn, refusal.response(), now);
        };
        let client = self.gate.seats.party(conn.index).map(|party| party.to_string());
        let deadline = now.tick().plus(self.settings.timeouts.close);
        let Some(connection) = self.table.get(conn) else { return };
        let is_secure = connection.is_secure();
        connection.begin_passage(deadline);
        // Another server's log is no place for what opens this door.
        self.settings.access.sources.withhold(&mut bytes);
        let passage = Passage { place, client, said: bytes, unread: Vec::new(), seal: None };
        let leaving = Leaving { conn, is_secure, passage };
        self.gate.people.petitions.passages.leaving.insert(conn.index, leaving);
        self.after_close(conn, Disconnect::HandedOver, false, now);
    }

    /// The driver has let go of a socket.
    pub(super) fn handle_handed_over(&mut self, conn: ConnId, socket: Handed) {
        let passages = &mut self.gate.people.petitions.passages;
        let own = passages.leaving.get(&conn.index).is_some_and(|own| own.conn == conn);
        let leaving = own.then(|| passages.leaving.remove(&conn.index)).flatten();
        let layer = self.gate.layers.take(conn.index);
        self.handle_closed(conn);
        if let Some(Leaving { mut passage, is_secure, .. }) = leaving {
            passage.seal = layer.map(|layer| -> Box<dyn Seal> { layer });
            if is_secure == passage.seal.is_some() {
                self.gate.people.petitions.passages.out.push_back((passage, socket));
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
