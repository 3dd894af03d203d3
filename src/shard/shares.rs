//! The rates of parties, over all shards of the node.
//!
//! A party's home keeps its budgets (`flow::accounts`), and each shard a view of them (`flow::shares`), by which
//! it decides at once. What it has let through it tells the home afterwards, at most four times a second for
//! each party and only once that is more than a small part of what may be. So those without limits, and those
//! far below them, cost no mail; neither does a node of one shard. While mail is backed up nothing is told, and
//! what is to be told adds up.

use smallvec::SmallVec;

use crate::base::id::ShardId;
use crate::base::party::Party;
use crate::base::time::Time;
use crate::flow::shares::{Share, Spent};
use crate::shard::mail::Mail;
use crate::shard::settings::PARTY_COSTS;
use crate::shard::state::Shard;

/// What a party's home is told.
#[derive(Clone, Copy, Debug)]
pub struct Toll {
    /// The party.
    pub party: Party,
    /// Where it was spent.
    pub from: ShardId,
    /// What.
    pub spent: Spent<PARTY_COSTS>,
}

impl Shard {
    /// Tells the party's home what was let through, when it is time.
    pub(super) fn tell_home(&mut self, party: Party, now: Time) {
        if self.identity.shards == 1 || self.is_overloaded() {
            return;
        }
        let rates = self.settings.limits.of(party).shared();
        let told = self.gate.paces.parties.tell(party, &rates, self.identity.shards, now);
        if let Some(spent) = told {
            self.send_toll(party, spent, now);
        }
    }

    /// Forgets parties that have been silent, and tells the homes of others what is left to be told.
    pub(super) fn sweep_parties(&mut self, most: usize, now: Time) {
        if self.is_overloaded() {
            return;
        }
        let limits = &self.settings.limits;
        let rates = |party| limits.of(party).shared();
        let paces = &mut self.gate.paces;
        let mut told: SmallVec<[(Party, Spent<PARTY_COSTS>); 4]> = SmallVec::new();
        let tell = |party, spent| told.push((party, spent));
        paces.parties.sweep(rates, self.identity.shards, (now, most), tell);
        paces.accounts.sweep(rates, now, most);
        for (party, spent) in told {
            self.send_toll(party, spent, now);
        }
    }

    fn send_toll(&mut self, party: Party, spent: Spent<PARTY_COSTS>, now: Time) {
        self.counters.tolls_total += 1;
        let toll = Toll { party, from: self.identity.id, spent };
        let home = self.home_of(party);
        if home == self.identity.id {
            self.handle_toll(&toll, now);
        } else {
            self.outbox.push(home, Mail::Toll(Box::new(toll)));
        }
    }

    /// As the party's home: so much was let through.
    pub(super) fn handle_toll(&mut self, toll: &Toll, now: Time) {
        let rates = self.settings.limits.of(toll.party).shared();
        let mut shares: SmallVec<[(ShardId, Share<PARTY_COSTS>); 2]> = SmallVec::new();
        let charge = (toll.from, &toll.spent);
        let tell = |shard, share| shares.push((shard, share));
        self.gate.paces.accounts.charge(toll.party, &rates, charge, now, tell);
        for (shard, share) in shares {
            if shard == self.identity.id {
                self.handle_share(toll.party, &share, now);
            } else {
                self.outbox.push(shard, Mail::Share(Box::new((toll.party, share))));
            }
        }
    }

    /// The home's answer.
    pub(super) fn handle_share(&mut self, party: Party, share: &Share<PARTY_COSTS>, now: Time) {
        let rates = self.settings.limits.of(party).shared();
        self.gate.paces.parties.correct(party, share, &rates, now);
    }
}
