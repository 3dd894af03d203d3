//! What a driver remembers of a connection: 16 bytes, at the place of its index.
//!
//! The shard owns the connection; a driver owns a descriptor and what is in flight for it, nothing
//! else. The table is a plain vector indexed by [`ConnId::index`], reserved for the configured number
//! of connections at the start: untouched pages cost address space, not memory, and growing never
//! copies. A [`ConnId`] is looked up with its generation, so whatever names a connection that has
//! ended finds nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::base::id::ConnId;
use crate::base::spare::cut;
use crate::sys::memory::Pages;

/// A set of facts about one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts(u16);

impl Facts {
    /// The core asked to stop reading.
    pub(super) const PAUSED: Self = Self(1);
    /// Readiness was reported and has not been read up.
    pub(super) const READABLE: Self = Self(1 << 1);
    /// Behind the readable bytes stands an end or an error: read until it shows.
    pub(super) const ENDING: Self = Self(1 << 2);
    /// The connection waits in the list of those that had more to read than one turn allows.
    pub(super) const QUEUED: Self = Self(1 << 3);
    /// `ReceivedEnd` was reported.
    pub(super) const ENDED: Self = Self(1 << 4);
    /// `Lost` was reported.
    pub(super) const LOST: Self = Self(1 << 5);
    /// FIN is to be sent once the write in flight is done.
    pub(super) const FINISH: Self = Self(1 << 6);
    /// The core asked for the close, which waits for what is in flight.
    pub(super) const CLOSING: Self = Self(1 << 7);
    /// The close is to reset the peer.
    pub(super) const ABORT: Self = Self(1 << 8);
    /// The kernel holds a multishot read or poll of this connection.
    pub(super) const ARMED: Self = Self(1 << 9);
    /// The kernel was asked to cancel it.
    pub(super) const CANCELLING: Self = Self(1 << 10);

    /// The end that waits is a handing over: the socket stays open, and what was read before is reported.
    pub(super) const HANDING: Self = Self(1 << 11);

    /// Both sets together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when any of `facts` holds.
    pub(super) const fn any(self, facts: Self) -> bool {
        self.0 & facts.0 != 0
    }

    pub(super) fn set(&mut self, facts: Self) {
        self.0 |= facts.0;
    }

    pub(super) fn clear(&mut self, facts: Self) {
        self.0 &= !facts.0;
    }
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` while no connection has this index.
    fd: Option<OwnedFd>,
    pub(super) generation: u32,
    /// Place of the write in flight in the driver's own slab, [`Entry::NO_SEND`] when there is none.
    pub(super) send: u32,
    pub(super) facts: Facts,
    /// Requests that the kernel has not yet answered for good; always 0 under epoll.
    pub(super) requests: u16,
}

/// The table's cost counts against the 128 bytes of an idle connection.
const _: () = assert!(size_of::<Entry>() <= 16, "an entry fits in 16 bytes");

impl Entry {
    pub(super) const NO_SEND: u32 = u32::MAX;

    const VACANT: Self =
        Self { fd: None, generation: 0, send: Self::NO_SEND, facts: Facts(0), requests: 0 };

    /// The descriptor of a connection that was found in the table.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("only entries with a descriptor are ever found"),
        }
    }

    /// True while a write is in flight.
    pub(super) fn is_sending(&self) -> bool {
        self.send != Self::NO_SEND
    }
}

/// All connections of one driver.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
}

impl Table {
    /// An empty table with address space for `connections`.
    pub(super) fn new(connections: usize) -> Self {
        Self { entries: Vec::with_capacity(connections) }
    }

    /// Takes the index for a new connection.
    ///
    /// # Panics
    /// When the index is in use: the core reused it before `Closed`.
    pub(super) fn open(&mut self, conn: ConnId, fd: OwnedFd) -> &mut Entry {
        let at = conn.key();
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, || Entry::VACANT);
        }
        let entry = &mut self.entries[at];
        assert!(entry.fd.is_none(), "index {} was reused before Closed", conn.index);
        *entry = Entry { fd: Some(fd), generation: conn.generation, ..Entry::VACANT };
        entry
    }

    /// The connection, unless it has ended.
    pub(super) fn find(&mut self, conn: ConnId) -> Option<&mut Entry> {
        self.at(conn.index).filter(|entry| entry.generation == conn.generation)
    }

    /// Whoever has this index now.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize).filter(|entry| entry.fd.is_some())
    }

    /// Gives back what the places from `from` on cost. A connection there, which the core should not
    /// have, keeps the table as it is.
    pub(super) fn trim(&mut self, from: usize) {
        let is_vacant = |entry: &Entry| entry.fd.is_none();
        if self.entries.get(from..).is_some_and(|rest| rest.iter().all(is_vacant)) {
            cut(&mut self.entries, from, &mut Pages);
        }
    }

    /// Frees the index and gives the descriptor back.
    pub(super) fn release(&mut self, conn: ConnId) -> Option<OwnedFd> {
        self.find(conn)?;
        std::mem::replace(&mut self.entries[conn.key()], Entry::VACANT).fd
    }
}

/// A connection as 64 bits for the kernel to carry; its index is below `u32::MAX`.
pub(super) fn token(conn: ConnId) -> u64 {
    u64::from(conn.index) << 32 | u64::from(conn.generation)
}

/// The connection that [`token`] made the bits from.
#[expect(clippy::cast_possible_truncation, reason = "takes the halves that `token` joined")]
pub(super) fn conn_of(token: u64) -> ConnId {
    ConnId { index: (token >> 32) as u32, generation: token as u32 }
}

/// A slab key in the 32 bits that tickets and entries have for it.
pub(super) fn place(key: usize) -> u32 {
    u32::try_from(key).unwrap_or_else(|_| unreachable!("descriptors are fewer than 2^31"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd;

    fn any_fd() -> OwnedFd {
        let (waker, _source) = eventfd::pair().expect("eventfd");
        waker.as_fd().try_clone_to_owned().expect("dup")
    }

    #[test]
    fn a_connection_is_found_by_index_and_generation_until_released() {
        let mut table = Table::new(0);
        let conn = ConnId { index: 3, generation: 9 };
        table.open(conn, any_fd());
        assert!(table.find(conn).is_some());
        assert!(table.find(ConnId { index: 3, generation: 8 }).is_none());
        assert!(table.find(ConnId { index: 2, generation: 0 }).is_none());
        assert!(table.find(ConnId { index: 4, generation: 0 }).is_none());
        assert!(table.release(ConnId { index: 3, generation: 8 }).is_none());
        assert!(table.release(conn).is_some());
        assert!(table.find(conn).is_none());
        assert!(table.at(3).is_none());
    }

    #[test]
    fn trimming_forgets_vacant_places_and_no_connection() {
        let mut table = Table::new(0);
        for index in 0..1000 {
            table.open(ConnId { index, generation: index }, any_fd());
        }
        for index in 10..1000 {
            table.release(ConnId { index, generation: index });
        }
        table.trim(9);
        assert_eq!(table.entries.len(), 1000, "somebody is still there");
        table.trim(10);
        assert_eq!(table.entries.len(), 10);
        table.trim(500);
        assert!((0..10).all(|index| table.find(ConnId { index, generation: index }).is_some()));
        table.open(ConnId { index: 700, generation: 1 }, any_fd());
        assert!(table.at(700).is_some() && table.at(699).is_none());
    }

    #[test]
    #[should_panic(expected = "reused before Closed")]
    fn an_index_in_use_cannot_be_opened_again() {
        let mut table = Table::new(0);
        table.open(ConnId { index: 0, generation: 1 }, any_fd());
        table.open(ConnId { index: 0, generation: 2 }, any_fd());
    }
}
