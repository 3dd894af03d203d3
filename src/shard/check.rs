//! What holds between any two events, checked at a cost.
//!
//! Tests, fuzzers and the simulator call this after every step; the worker calls it after a panic, to
//! decide whether the process may go on.

use crate::connection::Connection;
use crate::flow::outbound::Lengths;
use crate::hub::Standing;
use crate::shard::state::Shard;

impl Shard {
    /// Asserts the invariants of the whole shard. Walks over everything it owns.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        let mut open = 0;
        let mut queued = 0;
        let mut paused = 0;
        let mut places = Lengths::default().places;
        for (index, connection) in self.table.iter() {
            connection.check(&self.queues, index);
            open += u64::from(connection.open().is_some());
            queued += connection.outbound.bytes() as u64;
            places
                [Lengths::place(u32::try_from(connection.outbound.bytes()).unwrap_or(u32::MAX))] +=
                1;
            paused += u64::from(connection.is_told_paused());
            assert!(
                self.table.wheel.deadline(index).is_some(),
                "connection {index} sleeps without a deadline: {connection:?}"
            );
            if connection.open().is_none() {
                assert!(connection.member.is_none(), "connection {index} is in rooms and not open");
            }
        }
        let half_read: usize =
            self.table.iter().map(|(_, connection)| connection.decoder.buffered_capacity()).sum();
        assert_eq!(half_read as u64, self.gate.pressure.half_read, "half-read messages");
        assert_eq!(open, self.counters.open_connections, "open connections");
        assert_eq!(paused, self.counters.paused_connections, "paused connections");
        assert_eq!(queued, self.queues.queued_bytes(), "queued bytes");
        assert_eq!(places[1..], self.queues.lengths().places[1..], "queues by length");
        assert!(self.queues.losses.is_empty(), "what a queue has lost is to be remembered");
        for index in self.writes.waiting() {
            if let Some(connection) = self.table.peek(index) {
                assert!(connection.is_enlisted(), "connection {index} is listed and does not know");
            }
        }
        self.check_people();
        self.gate.people.pages.check();
        self.check_awaited();
        self.check_petitions();
        let is_secure = |index| self.table.peek(index).is_some_and(Connection::is_secure);
        self.gate.layers.check(is_secure);
        let opening = self.table.iter().filter(|(_, connection)| connection.is_opening()).count();
        assert_eq!(opening, self.gate.opening, "connections at their handshake");
        assert!(self.gate.evicted.is_empty(), "somebody is yet to be sent away");
        self.gate.seats.check();
        self.gate.paces.check();
        self.gate.tally.check();
        self.measures.ledger.check();
        self.rooms.quotas.check();
        self.rooms.hub.check();
        self.rooms.directory.check();
        self.rooms.walks.check();
        self.rooms.repeats.check();
        self.rooms.shelf.check();
        self.check_replays();
        self.rooms.presence.check();
        self.rooms.joint.check();
        self.table.check();
        self.queues.check();
    }

    /// Asserts that whoever has not had everything of a room is there, and in it.
    fn check_replays(&self) {
        for (conn, rooms) in self.rooms.replays.iter() {
            let Some(connection) = self.table.peek(conn.index) else {
                panic!("{conn:?} has not had everything and is gone");
            };
            assert_eq!(connection.generation(), conn.generation, "another connection's replay");
            for room in rooms {
                let standing = self.rooms.hub.standing(&connection.member, room);
                // One that was let in before has paused.
                assert_ne!(standing, Standing::Outside, "{conn:?} has left {room}, and waits");
            }
        }
    }
}
