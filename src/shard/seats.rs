//! Which address each connection has.
//!
//! The record of a connection has no room for an address, and most limits are not about one connection.
//! So a seat, 4 bytes at the connection's index, names an entry that all connections of one party share:
//! a party costs some 50 bytes however many connections it has, and an idle connection costs its seat.
//! Beside the entry's number a seat holds what is still to be learned about the address.

use slab::Slab;

use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::base::spare::{Release, cut};

/// A connection's place among those of its party: flags, and the number of the entry plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seat(u32);

/// A PROXY header may stand, or must, before what comes next.
pub(super) const ANNOUNCED: u32 = 1 << 31;
/// The peer is a trusted proxy: its request may name the client.
pub(super) const TRUSTED: u32 = 1 << 30;
/// The party's home was told of the connection and must be told of its end.
pub(super) const COUNTED: u32 = 1 << 29;
/// The party has one connection too many, and this is the one.
pub(super) const REFUSED: u32 = 1 << 28;
/// It arrived while as many as may be were at their handshake.
pub(super) const CROWDED: u32 = 1 << 27;
const FLAGS: u32 = ANNOUNCED | TRUSTED | COUNTED | REFUSED | CROWDED;

/// What the connections of a party share.
#[derive(Debug)]
struct Entry {
    party: Party,
    /// Connections with a seat here; never zero.
    seats: u32,
}

/// The seats of a shard's connections.
#[derive(Debug)]
pub(super) struct Seats {
    seats: Vec<Seat>,
    entries: Slab<Entry>,
    places: Map<Party, u32>,
}

impl Seats {
    /// Seats for connections of indexes below `capacity`, and more when more come.
    pub(super) fn new(seed: &Seed, capacity: usize) -> Self {
        Self { seats: Vec::with_capacity(capacity), entries: Slab::new(), places: seed.map() }
    }

    /// Gives the connection at `index` a seat of its party; the one it had is left.
    pub(super) fn sit(&mut self, index: u32, party: Option<Party>) {
        let flags = self.flags(index);
        self.leave(index);
        let number = party.map_or(0, |party| self.entry(party) + 1);
        let at = index as usize;
        if at >= self.seats.len() {
            self.seats.resize(at + 1, Seat::default());
        }
        self.seats[at] = Seat(flags | number);
    }

    /// Frees the seat at `index`.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(seat) = self.seats.get_mut(index as usize) else { return };
        let number = seat.0 & !FLAGS;
        *seat = Seat::default();
        let Some(place) = number.checked_sub(1) else { return };
        let Some(entry) = self.entries.get_mut(place as usize) else { return };
        entry.seats -= 1;
        if entry.seats == 0 {
            let party = entry.party;
            self.entries.remove(place as usize);
            self.places.remove(&party);
            self.relax();
        }
    }

    /// The party of the connection at `index`; `None` while the kernel or a proxy did not say.
    pub(super) fn party(&self, index: u32) -> Option<Party> {
        let number = self.seats.get(index as usize)?.0 & !FLAGS;
        self.entries.get(number.checked_sub(1)? as usize).map(|entry| entry.party)
    }

    pub(super) fn has(&self, index: u32, flag: u32) -> bool {
        self.flags(index) & flag != 0
    }

    pub(super) fn set(&mut self, index: u32, flag: u32, value: bool) {
        if let Some(seat) = self.seats.get_mut(index as usize) {
            seat.0 = if value { seat.0 | flag } else { seat.0 & !flag };
        }
    }

    /// Connections of the party in this shard.
    pub(super) fn count(&self, party: Party) -> u32 {
        self.places.get(&party).map_or(0, |place| self.entries[*place as usize].seats)
    }

    /// Parties with a connection in this shard.
    pub(super) fn parties(&self) -> usize {
        self.entries.len()
    }

    /// Gives back what the seats from `from` on cost; none of them is taken.
    pub(super) fn trim(&mut self, from: u32, to: &mut impl Release) {
        cut(&mut self.seats, from as usize, to);
    }

    /// Verifies that every entry counts its seats.
    ///
    /// # Panics
    /// When one does not.
    pub(super) fn check(&self) {
        let taken = self.seats.iter().filter(|seat| seat.0 & !FLAGS != 0).count();
        let counted: usize = self.entries.iter().map(|(_, entry)| entry.seats as usize).sum();
        assert_eq!(taken, counted, "seats of parties");
        assert_eq!(self.places.len(), self.entries.len(), "parties by name");
        assert!(self.entries.iter().all(|(_, entry)| entry.seats > 0), "a party without seats");
    }

    fn flags(&self, index: u32) -> u32 {
        self.seats.get(index as usize).map_or(0, |seat| seat.0 & FLAGS)
    }

    fn entry(&mut self, party: Party) -> u32 {
        if let Some(place) = self.places.get(&party) {
            self.entries[*place as usize].seats += 1;
            return *place;
        }
        let place = self.entries.insert(Entry { party, seats: 1 });
        // A shard's descriptors end long before 2^27.
        let place = u32::try_from(place).unwrap_or(0);
        self.places.insert(party, place);
        place
    }

    /// Gives memory back once most parties have gone.
    fn relax(&mut self) {
        let (kept, held) = (self.places.len(), self.places.capacity());
        if held > 64 && kept < held / 8 {
            self.places.shrink_to(kept * 2);
            self.entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The twin is a map from connection to party.
        #[test]
        fn seats_equal_a_map_of_parties(
            steps in prop::collection::vec((0..12u32, prop::option::of(0..5u32), any::<bool>()), 1..100),
        ) {
            let mut seats = Seats::new(&Seed::new(1), 0);
            let mut twin: BTreeMap<u32, Party> = BTreeMap::new();
            for (index, who, leaves) in steps {
                let party = who.map(Party::V4);
                if leaves {
                    seats.leave(index);
                    twin.remove(&index);
                } else {
                    seats.sit(index, party);
                    seats.set(index, COUNTED, true);
                    twin.remove(&index);
                    twin.extend(party.map(|party| (index, party)));
                }
                seats.check();
                for index in 0..12 {
                    prop_assert_eq!(seats.party(index), twin.get(&index).copied());
                }
                let mut parties: Vec<Party> = twin.values().copied().collect();
                parties.sort_unstable();
                parties.dedup();
                prop_assert_eq!(seats.parties(), parties.len());
            }
        }
    }

    #[test]
    fn a_seat_is_four_bytes_and_a_party_is_small() {
        assert_eq!(size_of::<Seat>(), 4);
        assert!(size_of::<Entry>() + size_of::<(Party, u32)>() <= 48);
    }
}
