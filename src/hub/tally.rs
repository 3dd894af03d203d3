//! How many connections a party has in the whole node.
//!
//! A limit divided among shards would be wrong for the few connections of one address, which the kernel
//! spreads by chance. So each party has one home shard, as rooms have, which is told of every arrival and
//! every departure and decides who is one too many. It names the connection that has to go: the
//! newcomer, or the oldest, as the limit says. A newcomer that is refused counts until its departure is
//! told, so that arrivals and departures always cancel out.

use std::collections::VecDeque;

use crate::base::id::ConnAddress;
use crate::base::map::{Map, Seed};
use crate::base::party::Party;

/// Who goes when a party has one connection too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// The newcomer.
    #[default]
    Newest,
    /// The one that has been there longest.
    Oldest,
}

/// The parties whose home this shard is.
#[derive(Debug)]
pub struct Tally {
    parties: Map<Party, Attendance>,
}

#[derive(Debug, Default)]
struct Attendance {
    /// Connections, refused ones included.
    count: u32,
    /// The connections in the order of arrival, kept only where the oldest has to go.
    line: VecDeque<ConnAddress>,
}

impl Tally {
    /// A tally of nobody.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { parties: seed.map() }
    }

    /// A connection of the party has arrived: the one that has to go, if there are more than `most`.
    pub fn enter(
        &mut self,
        party: Party,
        conn: ConnAddress,
        most: u32,
        excess: Excess,
    ) -> Option<ConnAddress> {
        let attendance = self.parties.entry(party).or_default();
        attendance.count += 1;
        match excess {
            Excess::Newest => (attendance.count > most).then_some(conn),
            Excess::Oldest => {
                attendance.line.push_back(conn);
                let over = attendance.line.len() > most as usize;
                over.then(|| attendance.line.pop_front()).flatten()
            }
        }
    }

    /// Another one that has to go: connections of one party may come with different limits, and where the
    /// oldest go, the newcomer's holds for all.
    pub fn surplus(&mut self, party: Party, most: u32) -> Option<ConnAddress> {
        let attendance = self.parties.get_mut(&party)?;
        let over = attendance.line.len() > most as usize;
        over.then(|| attendance.line.pop_front()).flatten()
    }

    /// A connection of the party that had arrived has gone.
    pub fn leave(&mut self, party: Party, conn: ConnAddress) {
        let Some(attendance) = self.parties.get_mut(&party) else { return };
        attendance.count = attendance.count.saturating_sub(1);
        if let Some(at) = attendance.line.iter().position(|other| *other == conn) {
            attendance.line.remove(at);
        }
        if attendance.count == 0 {
            self.parties.remove(&party);
            if self.parties.capacity() > 64 && self.parties.len() < self.parties.capacity() / 8 {
                self.parties.shrink_to(self.parties.len() * 2);
            }
        }
    }

    /// Connections of the party, refused ones included until they have gone.
    #[must_use]
    pub fn count(&self, party: Party) -> u32 {
        self.parties.get(&party).map_or(0, |attendance| attendance.count)
    }

    /// Parties with a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parties.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Verifies the counts.
    ///
    /// # Panics
    /// When a party without connections is kept.
    pub fn check(&self) {
        for (party, attendance) in &self.parties {
            assert!(attendance.count > 0, "{party} has nobody");
            assert!(attendance.line.len() <= attendance.count as usize, "{party} has guests");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ConnId, ShardId};
    use proptest::prelude::*;

    fn conn(index: u32) -> ConnAddress {
        ConnAddress::alone(ShardId(0), ConnId { index, generation: 0 })
    }

    proptest! {
        /// The twin is a list of those present.
        #[test]
        fn no_party_keeps_more_than_its_limit_and_nobody_else_is_sent_away(
            oldest: bool,
            most in 1..4u32,
            steps in prop::collection::vec((any::<bool>(), 0..2u32, any::<prop::sample::Index>()), 1..80),
        ) {
            let excess = if oldest { Excess::Oldest } else { Excess::Newest };
            let mut tally = Tally::new(&Seed::new(1));
            let mut present: Vec<(Party, ConnAddress)> = Vec::new();
            for (number, (enters, who, which)) in (0u32..).zip(steps) {
                let party = Party::V4(who);
                if enters || present.is_empty() {
                    let newcomer = conn(number);
                    present.push((party, newcomer));
                    let gone = tally.enter(party, newcomer, most, excess);
                    let of_party: Vec<ConnAddress> =
                        present.iter().filter(|(p, _)| *p == party).map(|(_, c)| *c).collect();
                    let over = of_party.len() > most as usize;
                    let expected = if oldest { of_party[0] } else { newcomer };
                    prop_assert_eq!(gone, over.then_some(expected));
                    prop_assert_eq!(tally.surplus(party, most), None);
                    if let Some(gone) = gone {
                        present.retain(|(_, conn)| *conn != gone);
                        tally.leave(party, gone);
                    }
                } else {
                    let (party, conn) = present.remove(which.index(present.len()));
                    tally.leave(party, conn);
                }
                tally.check();
                let count = present.iter().filter(|(p, _)| *p == party).count();
                prop_assert_eq!(tally.count(party) as usize, count);
            }
        }
    }
}
