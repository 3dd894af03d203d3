//! What happens when too much waits for one tenant, in the rooms of one namespace, or in one room.
//!
//! The node's budget protects the node; this protects tenants from each other. The bytes that wait for a tenant's
//! connections are counted (`flow::outbound::payers`), and each shard has its part of the tenant's limit. Near it
//! the tenant's publications meet their rooms' policies early. Beyond it those of its own connections are closed
//! that have most to read, until it is clearly below; nobody else's are. A namespace is not made of connections, so
//! near its limit its publications meet their policies early, and beyond it at the first few kilobytes that wait for
//! a reader. So do those of a room near its own, where the namespace limits each.
//!
//! A tenant's limit is divided by the shards. One whose connections are all in a few of them gets less; shards
//! that asked each other would have to do so for every frame.
//!
//! Where the whole node is short (`memory`), the tenant that holds most of a shard's queues comes first: while
//! waiting may help, only its publishers wait, and its readers are closed before others.

use smallvec::SmallVec;

use crate::auth::{plain, tenant_of};
use crate::base::account::Account;
use crate::base::id::ConnId;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::flow::outbound::OutboundLimits;
use crate::flow::outbound::payers::Stage;
use crate::shard::ledger::Figure;
use crate::shard::settings::{RoomRules, Settings};
use crate::shard::state::Shard;

/// The search for those who have most to read, of tenants that are beyond their limit.
#[derive(Debug, Default)]
pub(super) struct Hoards {
    /// True while a tenant is beyond its limit.
    is_on: bool,
    /// Where it goes on.
    cursor: u32,
    /// The heaviest found since it began, at most [`FOUND`]: what waits, the tenant's row, who.
    heaviest: SmallVec<[(usize, u32, ConnId); 4]>,
    /// What tenants' connections hold that are closing already, by row.
    leaving: SmallVec<[(u32, u64); 2]>,
}

/// What a reader is told that is closed because its tenant holds too much.
const TOO_MUCH: &str = "too much waits for your tenant: reads too slowly, come back later";

/// Readers closed after one search.
const FOUND: usize = 16;

/// Places of the table looked at in one turn.
const SLICE: u32 = 4096;

impl Hoards {
    /// True while somebody is looked for.
    pub(super) fn goes_on(&self) -> bool {
        self.is_on
    }

    fn add_leaving(&mut self, row: u32, bytes: u64) {
        match self.leaving.iter_mut().find(|(known, _)| *known == row) {
            Some((_, sum)) => *sum += bytes,
            None => self.leaving.push((row, bytes)),
        }
    }

    fn leaving_of(&self, row: u32) -> u64 {
        let of = |(known, bytes): &(u32, u64)| (*known == row).then_some(*bytes);
        self.leaving.iter().find_map(of).unwrap_or(0)
    }
}

/// A shard's part of a limit of the node; zero is none.
fn part(bytes: u64, shards: u16) -> u64 {
    if bytes == 0 { u64::MAX } else { (bytes / u64::from(shards.max(1))).max(1) }
}

/// The same for namespaces, of which only those with a limit are counted.
pub(super) fn spaces(rules: &RoomRules, shards: u16) -> impl Iterator<Item = u64> {
    let bytes = rules.namespaces.iter().map(|namespace| namespace.queued);
    bytes.map(move |bytes| if bytes == 0 { 0 } else { part(bytes, shards) })
}

/// The same for each room of them.
pub(super) fn rooms(rules: &RoomRules, shards: u16) -> impl Iterator<Item = u64> {
    let bytes = rules.namespaces.iter().map(|namespace| namespace.memory.waiting);
    bytes.map(move |bytes| if bytes == 0 { 0 } else { part(bytes, shards) })
}

impl Shard {
    /// A connection is one of this tenant's from now on: what waits for it is the tenant's.
    pub(super) fn charge_tenant(&mut self, index: u32, tenant: &str) {
        let limit = self.tenant_part(&self.settings, tenant);
        self.queues.payers.enter(index, tenant, limit);
    }

    fn tenant_part(&self, settings: &Settings, tenant: &str) -> u64 {
        let party = Party::tenant(&self.identity.seed, tenant);
        part(settings.limits.of(party).memory, self.identity.shards)
    }

    /// The connection is no more.
    pub(super) fn uncharge_tenant(&mut self, index: u32) {
        let ledger = &mut self.measures.ledger;
        self.queues.payers.leave(index, |held| ledger.hold(held));
    }

    /// The settings are others now. `anew`: the namespaces are others too.
    pub(super) fn set_hoards(&mut self, anew: bool) {
        let shards = self.identity.shards;
        let settings = std::rc::Rc::clone(&self.settings);
        self.queues.payers.set_spaces(spaces(&settings.rooms, shards), anew);
        self.queues.payers.set_rooms(rooms(&settings.rooms, shards));
        let seed = &self.identity.seed;
        let limit = |tenant: &str| settings.limits.of(Party::tenant(seed, tenant)).memory;
        self.queues.payers.set_limits(|tenant| part(limit(tenant), shards));
    }

    /// Whom publications to that room are counted for beside their tenant.
    pub(super) fn space_of(&mut self, room: &str) -> Option<Account> {
        let payers = &mut self.queues.payers;
        if !payers.has_spaces() {
            return None;
        }
        payers.place(room, self.settings.rooms.namespace_at(plain(room))?).cloned()
    }

    /// The limits of queues for publications to one of these rooms, which are all one tenant's.
    pub(super) fn queue_limits_for<'a>(
        &self,
        rooms: impl IntoIterator<Item = &'a str>,
    ) -> OutboundLimits {
        let limits = self.queue_limits();
        let payers = &self.queues.payers;
        if !payers.is_uneasy() {
            return limits;
        }
        let mut stages = (Stage::Calm, Stage::Calm);
        for room in rooms {
            let tenant = tenant_of(room).map_or(Stage::Calm, |tenant| payers.stage(tenant));
            let at = payers.has_spaces().then(|| self.settings.rooms.namespace_at(plain(room)));
            let space = at.flatten().map_or(Stage::Calm, |at| payers.stage_of_space(at));
            stages = (stages.0.max(tenant), stages.1.max(space).max(payers.stage_of_room(room)));
        }
        match stages {
            (_, Stage::Over) => bare(&limits, &self.settings.queue),
            (Stage::Calm, Stage::Calm) => limits,
            _ => self.gate.pressure.tight_limits(),
        }
    }

    /// Brings up to date what is known of who holds how much, and closes readers of tenants that hold too much.
    pub(super) fn mind_hoards(&mut self, now: Time) {
        let ledger = &mut self.measures.ledger;
        self.queues.payers.settle(|held| ledger.hold(held));
        if !self.queues.payers.is_over() {
            self.gate.pressure.hoards = Hoards::default();
            return;
        }
        self.gate.pressure.hoards.is_on = true;
        let (begin, bound) = (self.gate.pressure.hoards.cursor, self.table.touched());
        let end = bound.min(begin.saturating_add(SLICE));
        for index in begin..end {
            self.weigh_hoarder(index);
        }
        self.gate.pressure.hoards.cursor = end;
        if end >= bound {
            self.close_hoarders(now);
        }
    }

    /// Remembers the connection if it is one of the heaviest of a tenant that holds too much.
    fn weigh_hoarder(&mut self, index: u32) {
        let payers = &self.queues.payers;
        let Some(row) = payers.row_of(index).filter(|row| payers.excess(*row) > 0) else { return };
        let Some((id, connection)) = self.table.at(index) else { return };
        let hoards = &mut self.gate.pressure.hoards;
        let weight = connection.outbound.bytes();
        if !connection.is_living() {
            return hoards.add_leaving(row, weight as u64);
        }
        if weight == 0 {
            return;
        }
        if hoards.heaviest.len() < FOUND {
            return hoards.heaviest.push((weight, row, id));
        }
        let lightest = hoards.heaviest.iter_mut().min_by_key(|(weight, ..)| *weight);
        if let Some(found) = lightest.filter(|found| found.0 < weight) {
            *found = (weight, row, id);
        }
    }

    fn close_hoarders(&mut self, now: Time) {
        let mut hoards = std::mem::take(&mut self.gate.pressure.hoards);
        hoards.heaviest.sort_unstable_by(|a, b| b.cmp(a));
        for (_, row, id) in std::mem::take(&mut hoards.heaviest) {
            if self.queues.payers.excess(row) > hoards.leaving_of(row) {
                let left = self.close_laggard(id, Some(TOO_MUCH), now);
                hoards.add_leaving(row, left);
                self.counters.hoarders_closed_total += 1;
            }
        }
        let ledger = &mut self.measures.ledger;
        self.queues.payers.settle(|held| ledger.hold(held));
        self.gate.pressure.hoards.is_on = self.queues.payers.is_over();
    }

    /// The row of the tenant that holds at least half of what waits in this shard.
    pub(super) fn hog(&self) -> Option<u32> {
        let half = self.queues.held_bytes() / 2;
        self.queues.payers.heaviest().filter(|(_, bytes)| *bytes >= half).map(|(row, _)| row)
    }
}

/// A sixty-fourth of everything at which a publication meets its room's policy.
fn bare(limits: &OutboundLimits, queue: &OutboundLimits) -> OutboundLimits {
    OutboundLimits {
        high_water: (queue.high_water / 64).max(1),
        low_water: queue.low_water / 64,
        max_messages: limits.max_messages.min((queue.max_messages / 8).max(1)),
        ..limits.clone()
    }
}

impl crate::shard::ledger::Ledger {
    /// What waits for a tenant's connections has changed.
    fn hold(&mut self, (tenant, before, after): crate::flow::outbound::payers::Held<'_>) {
        self.change(tenant, Figure::QueuedMemory, after.wrapping_sub(before));
    }
}
