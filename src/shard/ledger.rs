//! What each tenant has and does, in a shard.
//!
//! A row of figures for each tenant, of which there are only so many; the tenants behind them share one. Which
//! tenants have a row of their own is for all shards together to say, so a tenant that is new to this one has a
//! row on approval until the end of the turn, when the node tells its place or that there is none. What a
//! connection sends is counted by a number at its index, and what is delivered once for all members of a room,
//! so neither looks a name up or takes memory for each message. Where there are no tenants nothing is kept,
//! and where rows are not wanted nothing is looked at.

use crate::auth::{is_user_room, tenant_of};
use crate::shard::state::Shard;

/// How many figures a row has.
pub const FIGURES: usize = 10;
/// A row, by [`Figure`].
pub type Figures = [u64; FIGURES];

/// What is counted for each tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Gauge: open connections of known users.
    Connections,
    /// Gauge: rooms with a member in the node, counted by their homes.
    Rooms,
    /// Messages that its connections have sent.
    Messages,
    /// The bytes of those.
    Bytes,
    /// Publications queued for its connections.
    Deliveries,
    /// The bytes of the frames of those.
    DeliveredBytes,
    /// Messages that came sooner than their rate allows.
    OverRate,
    /// Commands that were refused for another reason.
    Refused,
    /// Connections that had to go because there were too many of a party.
    Evicted,
    /// Gauge: bytes that wait for its connections, each frame counted once in a shard.
    QueuedMemory,
}

#[derive(Debug, Default)]
struct Row {
    figures: Figures,
    /// The tenant's place in the node; `None` until the node was asked. That of the first row is not used.
    place: Option<u16>,
    /// True while the row is on the list of those that have changed.
    is_listed: bool,
}

/// The tenants of a shard.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Tenants of the node that may have a row of their own; zero: nothing is kept.
    places: usize,
    /// The tenants with a row, in the order of their names, and the rows.
    known: Vec<(Box<str>, u16)>,
    /// The first is of everybody who has none.
    rows: Vec<Row>,
    /// Rows that stand for nobody.
    free: Vec<u16>,
    /// By the index of a connection: its row and one, or zero for a connection of no tenant.
    members: Vec<u16>,
    /// How many of those are not zero.
    count: usize,
    /// Connections that came since the node was asked last, of tenants that it was not asked about.
    fresh: Vec<u32>,
    /// True when it is to be asked.
    asks: bool,
    /// Rows that have changed.
    changed: Vec<u16>,
}

/// Tenants that may come in one turn and still be found out to have a place; further ones are counted with
/// those that have none.
const NEWCOMERS: usize = 1024;

impl Ledger {
    /// A ledger for so many tenants with a row of their own.
    pub(super) fn new(places: usize) -> Self {
        Self { places, ..Self::default() }
    }

    /// True once there was a tenant.
    fn is_used(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The row of a tenant, made if it has none.
    fn row(&mut self, tenant: &str) -> u16 {
        if self.rows.is_empty() {
            self.rows.push(Row::default());
        }
        let at = match self.known.binary_search_by(|(name, _)| (**name).cmp(tenant)) {
            Ok(at) => return self.known[at].1,
            Err(at) => at,
        };
        if self.known.len() >= self.places + NEWCOMERS {
            return 0;
        }
        let row = self.free.pop().or_else(|| {
            self.rows.push(Row::default());
            u16::try_from(self.rows.len() - 1).ok()
        });
        let Some(row) = row else { return 0 };
        self.known.insert(at, (tenant.into(), row));
        self.asks = true;
        row
    }

    fn add(&mut self, row: u16, figure: Figure, amount: u64) {
        let Some(own) = self.rows.get_mut(usize::from(row)) else { return };
        let sum = &mut own.figures[figure as usize];
        *sum = sum.wrapping_add(amount);
        if !own.is_listed {
            own.is_listed = true;
            self.changed.push(row);
        }
    }

    /// A connection is one of this tenant's from now on.
    pub(super) fn enter(&mut self, index: u32, tenant: &str) {
        let at = index as usize;
        if self.places == 0 || self.members.get(at).is_some_and(|row| *row > 0) {
            return;
        }
        let row = self.row(tenant);
        if self.members.len() <= at {
            self.members.resize(at + 1, 0);
        }
        self.members[at] = row + 1;
        self.count += 1;
        self.add(row, Figure::Connections, 1);
        if row > 0 && self.rows[usize::from(row)].place.is_none() {
            self.fresh.push(index);
        }
    }

    /// The end of a connection has begun.
    pub(super) fn leave(&mut self, index: u32) {
        let Some(place) = self.members.get_mut(index as usize) else { return };
        let Some(row) = std::mem::take(place).checked_sub(1) else { return };
        self.count -= 1;
        self.add(row, Figure::Connections, 1_u64.wrapping_neg());
        if self.count == 0 {
            self.members = Vec::new();
        }
    }

    /// Counts something for the tenant of a connection, if it is one's.
    pub(super) fn count(&mut self, index: u32, figure: Figure, amount: u64) {
        let row = self.members.get(index as usize).and_then(|row| row.checked_sub(1));
        if let Some(row) = row {
            self.add(row, figure, amount);
        }
    }

    /// Changes a gauge of a tenant's.
    pub(super) fn change(&mut self, tenant: &str, figure: Figure, by: u64) {
        if self.places > 0 && by != 0 {
            let row = self.row(tenant);
            self.add(row, figure, by);
        }
    }

    /// A room has its first member in the node, or has lost its last. It may be nobody's.
    fn count_room(&mut self, room: &str, begins: bool) {
        if let Some(tenant) = tenant_of(room) {
            let row = self.row(tenant);
            self.add(row, Figure::Rooms, if begins { 1 } else { 1_u64.wrapping_neg() });
        }
    }

    /// Gives back the places behind the last connection.
    pub(super) fn trim(&mut self, bound: u32) {
        self.members.truncate(bound as usize);
        self.members.shrink_to_fit();
        self.fresh.shrink_to(64);
    }

    /// Asks the node for the places of tenants that are new, and gives the rows that have changed since the last
    /// call by their place; that of everybody without one is `None`.
    pub fn take(
        &mut self,
        place: impl FnMut(&str) -> Option<u16>,
        mut each: impl FnMut(Option<u16>, &Figures),
    ) {
        if std::mem::take(&mut self.asks) {
            self.find_places(place);
        }
        while let Some(row) = self.changed.pop() {
            let own = &mut self.rows[usize::from(row)];
            own.is_listed = false;
            if row == 0 || own.place.is_some() {
                each(own.place, &own.figures);
            }
        }
    }

    /// A row without a place in the node becomes part of the first one.
    fn find_places(&mut self, mut place: impl FnMut(&str) -> Option<u16>) {
        let mut lost = Vec::new();
        let rows = &mut self.rows;
        self.known.retain(|(name, row)| {
            let own = &mut rows[usize::from(*row)];
            if own.place.is_none() {
                own.place = place(name);
            }
            if own.place.is_none() {
                lost.push((*row, std::mem::take(&mut own.figures)));
            }
            own.place.is_some()
        });
        for index in std::mem::take(&mut self.fresh) {
            let Some(member) = self.members.get_mut(index as usize) else { continue };
            if lost.iter().any(|(row, _)| row + 1 == *member) {
                *member = 1;
            }
        }
        let all = [
            Figure::Connections,
            Figure::Rooms,
            Figure::Messages,
            Figure::Bytes,
            Figure::Deliveries,
            Figure::DeliveredBytes,
            Figure::OverRate,
            Figure::Refused,
            Figure::Evicted,
            Figure::QueuedMemory,
        ];
        for (row, figures) in lost {
            self.free.push(row);
            all.iter().for_each(|figure| self.add(0, *figure, figures[*figure as usize]));
        }
    }

    /// Rows that there are, used or not.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.rows.len()
    }

    /// Verifies that connections are counted where they are.
    ///
    /// # Panics
    /// When they are not.
    pub(super) fn check(&self) {
        let members = self.members.iter().filter(|row| **row > 0).count();
        assert_eq!(members, self.count, "connections of tenants");
        let counted = self.rows.iter().map(|row| row.figures[Figure::Connections as usize]);
        assert_eq!(counted.sum::<u64>(), members as u64, "connections by tenant");
    }
}

impl Shard {
    /// What was delivered by now, where tenants are told apart.
    pub(super) fn delivered(&self) -> Option<(u64, u64)> {
        let counters = &self.counters;
        let ledger = &self.measures.ledger;
        ledger.is_used().then_some((counters.deliveries_total, counters.delivered_bytes_total))
    }

    /// Counts what was delivered since for the tenant of a room.
    pub(super) fn note_delivered(&mut self, room: &str, before: Option<(u64, u64)>) {
        let Some((deliveries, bytes)) = before else { return };
        let Some(tenant) = tenant_of(room) else { return };
        let counters = &self.counters;
        let deliveries = counters.deliveries_total - deliveries;
        let bytes = counters.delivered_bytes_total - bytes;
        if deliveries > 0 {
            let ledger = &mut self.measures.ledger;
            let row = ledger.row(tenant);
            ledger.add(row, Figure::Deliveries, deliveries);
            ledger.add(row, Figure::DeliveredBytes, bytes);
        }
    }

    /// As the room's home: its members in one shard are so many now. Whether anybody is there may have changed,
    /// which counts for its tenant.
    pub(super) fn note_members(&mut self, room: &str, had: bool) {
        let ledger = &mut self.measures.ledger;
        if ledger.places > 0 && !is_user_room(room) {
            let has = self.rooms.directory.has_members(room);
            if has != had {
                ledger.count_room(room, has);
            }
        }
    }

    /// True when the room has members and that is asked for: by other nodes or by the ledger.
    pub(super) fn had_members(&self, room: &str) -> bool {
        (self.is_linked() || self.measures.ledger.places > 0)
            && self.rooms.directory.has_members(room)
    }
}
