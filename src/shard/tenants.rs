//! Tenants with limits of their own.
//!
//! The configuration knows tenants by their names, and a shard by the keyed hash of these, which it alone can
//! make. So the list is put in order once, when the shard gets it, and asked by a binary search afterwards;
//! where there is none nothing is looked for.

use crate::base::map::Seed;
use crate::base::party::Party;
use crate::shard::settings::PartyLimits;

/// Tenants with limits of their own.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    /// As the configuration has them.
    named: Vec<(String, PartyLimits)>,
    /// The same by party, in its order; empty until a shard has seen to it.
    known: Vec<(Party, PartyLimits)>,
    /// True when something that one of them sends has a rate.
    is_paced: bool,
    /// True when what one of them has asked is limited.
    is_asked_of: bool,
}

impl Tenants {
    /// Tenants by name. Each name is to stand there once.
    #[must_use]
    pub fn new(named: Vec<(String, PartyLimits)>) -> Self {
        let is_paced = named.iter().any(|(_, limits)| limits.is_paced());
        let is_asked_of = named.iter().any(|(_, limits)| limits.outstanding > 0);
        Self { named, known: Vec::new(), is_paced, is_asked_of }
    }

    /// Makes them known by party.
    pub(super) fn know(&mut self, seed: &Seed) {
        let party = |name: &str| Party::tenant(seed, name);
        self.known = self.named.iter().map(|(name, limits)| (party(name), *limits)).collect();
        self.known.sort_unstable_by_key(|(party, _)| *party);
    }

    /// The tenant's own limits, if it has some.
    pub(super) fn get(&self, party: Party) -> Option<&PartyLimits> {
        if self.known.is_empty() {
            return None;
        }
        let at = self.known.binary_search_by_key(&party, |(party, _)| *party).ok()?;
        Some(&self.known[at].1)
    }

    /// True when what one of them has asked is limited.
    pub(super) fn are_asked_of(&self) -> bool {
        self.is_asked_of
    }

    /// True when something that one of them sends has a rate.
    pub(super) fn are_paced(&self) -> bool {
        self.is_paced
    }
}
