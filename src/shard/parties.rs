//! Arrivals and departures told to the homes of parties.
//!
//! What counts for the whole node is counted at one place: each party (an address, a user, a tenant) has a
//! home shard, which is told of every connection that begins and ends, by mail when that is another
//! one, and names the one that has to go. Nobody waits for it, so a user's connection may have been
//! greeted before it is closed. An address is known before the request, which is in `door`; a user and a
//! tenant are known with the token. Whoever has no limit, by the configuration or by its token, is told
//! of to nobody.

use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::party::Party;
use crate::base::time::Time;
use crate::hub;
use crate::shard::mail::Mail;
use crate::shard::people::{TENANT_COUNTED, USER_COUNTED};
use crate::shard::state::Shard;

impl Shard {
    /// Tells the homes of a known user and tenant of their connection, where theirs are limited.
    pub(super) fn arrive(&mut self, conn: ConnId, now: Time) {
        let limits = &self.settings.limits;
        let (user, tenant) = (limits.user.connections, limits.tenant.connections);
        let Some(person) = self.gate.people.get(conn.index) else { return };
        let own = self.gate.people.limits(conn.index).and_then(|limits| limits.connections);
        if user == 0 && tenant == 0 && own.is_none() {
            return;
        }
        let user = match (user, own.map_or(0, |own| own.get())) {
            (0, most) | (most, 0) => most,
            (user, own) => user.min(own),
        };
        let seed = &self.identity.seed;
        let of_tenant = person.tenant(seed).filter(|_| tenant > 0);
        let tenant = of_tenant.map_or(0, |party| limits.of(party).connections);
        let parties =
            [(Some(person.user(seed)), user, USER_COUNTED), (of_tenant, tenant, TENANT_COUNTED)];
        for (party, most, flag) in parties {
            let Some(party) = party.filter(|_| most > 0) else { continue };
            if !self.tell_arrival(party, conn, most) {
                self.close_for_now(conn, now);
                break;
            }
            if let Some(person) = self.gate.people.get_mut(conn.index) {
                person.set(flag);
            }
        }
        self.evict_some(now);
    }

    /// The end of a known user's connection has begun.
    pub(super) fn depart_person(&mut self, conn: ConnId) {
        let Some(person) = self.gate.people.get(conn.index) else { return };
        let seed = &self.identity.seed;
        let user = person.has(USER_COUNTED).then(|| person.user(seed));
        let tenant = person.has(TENANT_COUNTED).then(|| person.tenant(seed)).flatten();
        for party in [user, tenant].into_iter().flatten() {
            self.tell_departure(party, conn);
        }
    }

    /// Tells a party's home of a connection; false when that cannot be: nobody is let in uncounted, and
    /// nothing is added to what is backed up.
    pub(super) fn tell_arrival(&mut self, party: Party, conn: ConnId, most: u32) -> bool {
        let (address, home) = (self.address(conn), self.home_of(party));
        if home == self.identity.id {
            self.handle_enter(party, address, most);
        } else if self.is_overloaded() {
            return false;
        } else {
            self.outbox.push(home, Mail::Enter { party, conn: address, most });
        }
        true
    }

    /// Tells a party's home of the end of a connection of whose begin it was told.
    pub(super) fn tell_departure(&mut self, party: Party, conn: ConnId) {
        let (address, home) = (self.address(conn), self.home_of(party));
        if home == self.identity.id {
            self.gate.tally.leave(party, address);
        } else {
            self.outbox.push(home, Mail::Leave { party, conn: address });
        }
    }

    /// As the party's home: one more connection, of which there may be `most`.
    pub(super) fn handle_enter(&mut self, party: Party, conn: ConnAddress, most: u32) {
        let excess = self.settings.limits.of(party).excess;
        let mut gone = self.gate.tally.enter(party, conn, most, excess);
        while let Some(ConnAddress { shard, conn, .. }) = gone {
            if shard == self.identity.id {
                self.gate.evicted.push((conn, excess));
            } else {
                self.outbox.push(shard, Mail::Evict { conn, excess });
            }
            gone = self.gate.tally.surplus(party, most);
        }
    }

    pub(super) fn home_of(&self, party: Party) -> ShardId {
        hub::home_of(&self.identity.seed, party, self.identity.shards)
    }
}
