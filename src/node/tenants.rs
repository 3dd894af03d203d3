//! The figures of tenants, for all shards: which tenants have a place, and what each shard counts there.
//!
//! Places are given in the order in which tenants come, those of the configuration first, and for the life of
//! the process: a series that Prometheus has seen never becomes another tenant's. There are only so many, because
//! each is ten time series in somebody's database and names come from tokens. A shard asks once for each tenant
//! that is new to it; nobody waits, as a place is written once and only read afterwards.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::admin::{Exposition, Kind};
use crate::base::id::ShardId;
use crate::shard::{FIGURES, Figure, Figures, Ledger};

/// The figures of one row, in one shard.
type Cells = [AtomicU64; FIGURES];

/// How everybody without a place is called; no tenant of that name gets one.
const OTHER: &str = "(other)";

/// The tenants with a place, and their figures.
#[derive(Debug)]
pub(super) struct Places {
    names: Vec<OnceLock<Box<str>>>,
    /// By shard: everybody without a place, then one for each.
    rows: Vec<Vec<Cells>>,
}

impl Places {
    /// So many places, for so many shards; these tenants have the first.
    pub(super) fn new<'a>(
        places: usize,
        shards: u16,
        named: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let cells = || std::array::from_fn(|_| AtomicU64::new(0));
        let rows = if places == 0 { 0 } else { places + 1 };
        let new = Self {
            names: (0..places).map(|_| OnceLock::new()).collect(),
            rows: (0..shards).map(|_| (0..rows).map(|_| cells()).collect()).collect(),
        };
        for name in named {
            new.place(name);
        }
        new
    }

    /// The place of a tenant; `None` when all are taken.
    fn place(&self, name: &str) -> Option<u16> {
        let is_tenant = |place: &&OnceLock<Box<str>>| &**place.get_or_init(|| name.into()) == name;
        if name == OTHER {
            return None;
        }
        let at = self.names.iter().enumerate().find(|(_, place)| is_tenant(place))?.0;
        u16::try_from(at).ok()
    }

    /// Copies what has changed in a shard. Only that shard's worker may call it.
    pub(super) fn take(&self, ledger: &mut Ledger, id: ShardId) {
        let rows = &self.rows[usize::from(id.0)];
        ledger.take(
            |name| self.place(name),
            |place, figures| {
                let row = place.map_or(0, |place| usize::from(place) + 1);
                let Some(cells) = rows.get(row) else { return };
                for (cell, figure) in cells.iter().zip(figures) {
                    cell.store(*figure, Ordering::Relaxed);
                }
            },
        );
    }

    /// The tenants and their figures over all shards; first of all who has no place.
    fn read(&self) -> Vec<(&str, Figures)> {
        let names = self.names.iter().map_while(|name| name.get()).map(|name| &**name);
        let sum = |at: usize| {
            let mut sum = Figures::default();
            for cells in self.rows.iter().filter_map(|rows| rows.get(at)) {
                for (sum, cell) in sum.iter_mut().zip(cells) {
                    *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
                }
            }
            sum
        };
        std::iter::once(OTHER).chain(names).enumerate().map(|(at, name)| (name, sum(at))).collect()
    }

    /// Writes them; nothing where no tenant has a place.
    pub(super) fn expose(&self, out: &mut Exposition) {
        if self.names.is_empty() {
            return;
        }
        let rows = self.read();
        for (name, kind, help, figure) in FAMILIES {
            let mut family = out.family(name, *kind, help);
            for (tenant, figures) in &rows {
                family.sample(&[("tenant", tenant)], figures[*figure as usize]);
            }
        }
        let help = "What clients of a tenant were refused, by reason.";
        let mut family = out.family("throng_tenant_refusals_total", Kind::Counter, help);
        for (tenant, figures) in &rows {
            for (reason, figure) in REASONS {
                let labels = [("reason", *reason), ("tenant", *tenant)];
                family.sample(&labels, figures[*figure as usize]);
            }
        }
    }
}

const FAMILIES: &[(&str, Kind, &str, Figure)] = &[
    (
        "throng_tenant_connections",
        Kind::Gauge,
        "Open connections of a tenant's users; (other) are tenants without a place of their own.",
        Figure::Connections,
    ),
    ("throng_tenant_rooms", Kind::Gauge, "Rooms of a tenant with a member.", Figure::Rooms),
    (
        "throng_tenant_received_messages_total",
        Kind::Counter,
        "Messages that a tenant's clients have sent.",
        Figure::Messages,
    ),
    (
        "throng_tenant_received_bytes_total",
        Kind::Counter,
        "Bytes of messages that a tenant's clients have sent.",
        Figure::Bytes,
    ),
    (
        "throng_tenant_deliveries_total",
        Kind::Counter,
        "Publications queued for a tenant's clients.",
        Figure::Deliveries,
    ),
    (
        "throng_tenant_delivered_bytes_total",
        Kind::Counter,
        "Bytes of the frames of publications queued for a tenant's clients.",
        Figure::DeliveredBytes,
    ),
    (
        "throng_tenant_queued_memory_bytes",
        Kind::Gauge,
        "Bytes of memory that hold what waits for a tenant's clients, in all shards.",
        Figure::QueuedMemory,
    ),
];

const REASONS: &[(&str, Figure)] =
    &[("rate", Figure::OverRate), ("command", Figure::Refused), ("connections", Figure::Evicted)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_in_the_order_of_coming_and_kept() {
        let places = Places::new(3, 2, ["acme"]);
        assert_eq!(
            ["acme", "b", OTHER, "c", "d"].map(|name| places.place(name)),
            [Some(0), Some(1), None, Some(2), None]
        );
        assert_eq!(["d", "b", "acme"].map(|name| places.place(name)), [None, Some(1), Some(0)]);
        places.rows[0][2][0].store(3, Ordering::Relaxed);
        places.rows[1][2][0].store(4, Ordering::Relaxed);
        places.rows[1][0][0].store(9, Ordering::Relaxed);
        let read = places.read();
        let connections: Vec<_> = read.iter().map(|(name, figures)| (*name, figures[0])).collect();
        assert_eq!(connections, [(OTHER, 9), ("acme", 0), ("b", 7), ("c", 0)]);
    }
}
