//! Who the connections of a shard are.
//!
//! Most of what is known about a user is asked for seldom, and anonymous connections have none of it, so it
//! stands beside the table and not in the connection's record: a list of numbers by index, which is empty while
//! nobody is known. Here too are those whose tickets are being redeemed, the tickets that were redeemed
//! (at their home), and what was revoked. Nothing in here closes or sends.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::auth::{
    Common, Grants, Identity, KeySet, Revocation, Revocations, Ticket, UserLimits, user_of,
};
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::base::pool::{NONE, Pool, is_sparse};
use crate::base::spare::{Release, cut};
use crate::base::time::Time;
use crate::connection::Wish;
use crate::flow::budget::Rate;
use crate::flow::meter::Rates;
use crate::session::Protocol;
use crate::shard::held::{Arrival, Consults};
use crate::shard::pages::Pages;
use crate::shard::petitions::Petitions;
use crate::shard::settings::COSTS;
use crate::shard::sweeps::{Sweeps, TokenHash};

/// One known user's connection: what is left of its identity, in few bytes, as there may be a million.
#[derive(Debug)]
pub(super) struct Person {
    /// The name of the user's own room, which says who it is; the hub holds the same.
    own: Arc<str>,
    pub(super) grants: Grants,
    /// Seconds since 1970; zero when the token did not say.
    issued: u32,
    /// Seconds since 1970, up to the year 2106; the last second there is stands for never.
    expires: u32,
    /// The token's name, hashed; zero without one. A revocation knows the name and hashes it too.
    token: TokenHash,
    flags: u8,
}

/// What few tokens say, kept apart.
#[derive(Debug)]
struct Extra {
    limits: UserLimits,
    metadata: Option<Box<RawValue>>,
}

impl Extra {
    /// What the token says besides, if anything.
    fn of(identity: &mut Identity) -> Option<Box<Self>> {
        let limits = identity.limits.take().map_or_else(UserLimits::default, |limits| *limits);
        let metadata = identity.metadata.take();
        let says_more = limits != UserLimits::default() || metadata.is_some();
        says_more.then(|| Box::new(Self { limits, metadata }))
    }

    /// These rates, or the token's where they are lower. `burst` is the length of a burst at the token's.
    fn rates(&self, rates: Rates<COSTS>, burst: Duration) -> Rates<COSTS> {
        let own = [
            self.limits.messages_per_second,
            self.limits.bytes_per_second,
            self.limits.joins_per_second,
            self.limits.publishes_per_second,
        ];
        let mut lower = rates;
        for (rate, own) in lower.iter_mut().zip(own) {
            let Some(own) = own.map(NonZeroU32::get) else { continue };
            if rate.is_none_or(|rate| rate.per_second > own) {
                *rate = Rate::over(own, burst);
            }
        }
        lower
    }

    fn metadata_bytes(&self) -> usize {
        self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }
}

/// The client was asked for a fresh token.
pub(super) const ASKED: u8 = 1;
/// The user's home was told of the connection and must be told of its end.
pub(super) const USER_COUNTED: u8 = 2;
/// The same of the tenant's home.
pub(super) const TENANT_COUNTED: u8 = 4;

impl Person {
    fn new(identity: Identity, own: Arc<str>, seed: &Seed) -> Self {
        let seconds = |time: u64| u32::try_from(time).unwrap_or(u32::MAX);
        Self {
            own,
            grants: identity.grants,
            issued: identity.issued.map_or(0, seconds),
            expires: identity.expires.map_or(u32::MAX, seconds),
            token: identity.token.map_or([0; 7], |id| hash(seed, &id)),
            flags: 0,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sets the flag; true when it was not set before.
    pub(super) fn set(&mut self, flag: u8) -> bool {
        let fresh = !self.has(flag);
        self.flags |= flag;
        fresh
    }

    /// The party of all connections of this user.
    pub(super) fn user(&self, seed: &Seed) -> Party {
        Party::user(seed, &self.own)
    }

    /// The party of all connections of this tenant; `None` where there are none.
    pub(super) fn tenant(&self, seed: &Seed) -> Option<Party> {
        self.names().0.map(|tenant| Party::tenant(seed, tenant))
    }

    /// The tenant, where there are tenants, and the user.
    pub(super) fn names(&self) -> (Option<&str>, &str) {
        user_of(&self.own)
    }

    /// The name of the user's own room.
    pub(super) fn own(&self) -> &Arc<str> {
        &self.own
    }

    /// True when the identity is this user's, of the same tenant.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.names() == (identity.tenant.as_deref(), &*identity.user)
    }

    /// When the token ends, in seconds since 1970; `None` when never.
    pub(super) fn expires(&self) -> Option<u64> {
        (self.expires != u32::MAX).then_some(u64::from(self.expires))
    }

    /// True when this takes the connection back.
    pub(super) fn is_taken_by(&self, revocation: &Revocation, seed: &Seed) -> bool {
        match revocation {
            Revocation::User { tenant, user, issued, .. } => {
                self.names() == (tenant.as_deref(), user) && u64::from(self.issued) <= *issued
            }
            Revocation::Token { id, .. } => self.token == hash(seed, id),
        }
    }

    /// The hash of its token's name; zeros when it has none.
    pub(super) fn token(&self) -> TokenHash {
        self.token
    }
}

/// The hash of a token's name, never zero: of seven bytes, so that a person's record has space for flags.
pub(super) fn hash(seed: &Seed, id: &str) -> TokenHash {
    let [_, hash @ ..] = (seed.hash_one(id) | 1).to_be_bytes();
    hash
}

/// A handshake that waits: for its ticket to be redeemed or its token to be checked, for the application's back
/// end, or for the one and then the other.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) conn: ConnId,
    pub(super) offer: Offer,
    /// `None` for nobody in particular.
    pub(super) identity: Option<Identity>,
    /// What came behind the head and is to be read afterwards.
    pub(super) rest: Vec<u8>,
    /// Where the client came from, where the back end is to be asked about it.
    pub(super) arrival: Option<Arrival>,
    /// It is a page and is to be told by a close frame why it must go.
    pub(super) tells: bool,
}

/// What a client gets that is let in.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) protocol: Protocol,
    /// The 101 response, or the head of the stream.
    pub(super) response: Vec<u8>,
    /// The client's window, where messages may be compressed.
    pub(super) window: Option<u8>,
    /// What an event stream is to carry.
    pub(super) wish: Option<Box<Wish>>,
}

/// Tickets remembered at their home; each is for a minute or so.
const USED_TICKETS: usize = 1 << 18;

/// Those who are known.
#[derive(Debug)]
struct Known {
    /// By index, their numbers; [`NONE`] for others. Reserved with the first, so that it does not move, and none while
    /// nobody is known.
    places: Vec<u32>,
    capacity: usize,
    persons: Pool<Person>,
    /// What few tokens say, by index.
    extras: Map<u32, Box<Extra>>,
    /// What many of them have in common.
    common: Common,
    /// Bytes of what tokens say about connections.
    metadata: usize,
}

impl Known {
    fn new(seed: &Seed, capacity: usize) -> Self {
        let (places, persons) = Default::default();
        let (extras, common) = (seed.map(), Common::new(seed));
        Self { places, capacity, persons, extras, common, metadata: 0 }
    }

    fn settle(&mut self, index: u32, mut person: Person, extra: Option<Box<Extra>>) {
        let at = index as usize;
        if self.places.capacity() == 0 {
            self.places.reserve_exact(self.capacity);
        }
        if self.places.len() <= at {
            self.places.resize(at + 1, NONE);
        }
        person.grants = self.common.share(person.grants);
        if let Some(before) = self.persons.get_mut(self.places[at]) {
            // Whose arrival was told before is not to be told again, but of its end.
            person.flags = before.flags & (USER_COUNTED | TENANT_COUNTED);
            *before = person;
        } else {
            self.places[at] = self.persons.insert(person);
        }
        self.set_extra(index, extra);
    }

    fn leave(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        let key = std::mem::replace(place, NONE);
        if key == NONE {
            return;
        }
        self.persons.remove(key);
        self.set_extra(index, None);
        if self.persons.is_empty() {
            self.places = Vec::new();
            self.common.clear();
        }
    }

    fn set_extra(&mut self, index: u32, extra: Option<Box<Extra>>) {
        self.metadata += extra.as_ref().map_or(0, |extra| extra.metadata_bytes());
        let before = match extra {
            Some(extra) => self.extras.insert(index, extra),
            None if self.extras.is_empty() => None,
            None => self.extras.remove(&index),
        };
        self.metadata -= before.map_or(0, |before| before.metadata_bytes());
        if is_sparse(self.extras.len(), self.extras.capacity()) {
            self.extras.shrink_to(self.extras.len() * 2);
        }
    }

    fn extra(&self, index: u32) -> Option<&Extra> {
        if self.extras.is_empty() { None } else { self.extras.get(&index).map(|extra| &**extra) }
    }
}

/// Who the connections of a shard are.
#[derive(Debug)]
pub(super) struct People {
    known: Known,
    pub(super) pending: Map<u32, Box<Pending>>,
    /// Tickets whose home this shard is, with their ends.
    used: Map<u128, u64>,
    pub(super) revocations: Revocations,
    pub(super) sweeps: Sweeps,
    /// Where everybody came from, where a namespace asks for it.
    pub(super) pages: Pages,
    /// Keys that were fetched while the node runs, beside those of the configuration.
    pub(super) fetched: Option<Arc<KeySet>>,
    /// Those who are known and have yet to enter a namespace of Socket.IO.
    pub(super) knocks: Map<u32, Box<Identity>>,
    /// Those who read by plain HTTP and have no answer yet, each with the page that may read it.
    pub(super) readings: Map<u32, Option<Box<str>>>,
    /// What waits for the application's back end.
    pub(super) consults: Consults,
    /// Requests that others answer.
    pub(super) petitions: Petitions,
}

impl People {
    /// Nobody, of so many connections; `number` is known to nobody else.
    pub(super) fn new(seed: &Seed, capacity: usize, max_revocations: usize, number: u64) -> Self {
        Self {
            known: Known::new(seed, capacity),
            pending: seed.map(),
            knocks: seed.map(),
            readings: seed.map(),
            used: seed.map(),
            revocations: Revocations::new(seed, max_revocations),
            sweeps: Sweeps::new(seed),
            pages: Pages::new(seed),
            fetched: None,
            consults: Consults::new(seed),
            petitions: Petitions::new(seed, number),
        }
    }

    /// Who the connection at that index is.
    pub(super) fn get(&self, index: u32) -> Option<&Person> {
        self.known.persons.get(*self.known.places.get(index as usize)?)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Person> {
        self.known.persons.get_mut(*self.known.places.get(index as usize)?)
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.known.persons.len()
    }

    /// One more than the highest index that may be known.
    pub(super) fn bound(&self) -> usize {
        self.known.places.len()
    }

    /// Notes who the connection at that index is, from now on; `own` is the name of the user's room.
    pub(super) fn settle(
        &mut self,
        index: u32,
        mut identity: Identity,
        own: Arc<str>,
        seed: &Seed,
    ) {
        let extra = Extra::of(&mut identity);
        self.known.settle(index, Person::new(identity, own, seed), extra);
    }

    /// What the token of the connection at that index allows at most, where it says so.
    pub(super) fn limits(&self, index: u32) -> Option<&UserLimits> {
        self.known.extra(index).map(|extra| &extra.limits)
    }

    /// These rates, or those of that connection's token where they are lower. `burst` is the length of a burst at the token's.
    pub(super) fn rates(&self, index: u32, rates: Rates<COSTS>, burst: Duration) -> Rates<COSTS> {
        self.known.extra(index).map_or(rates, |extra| extra.rates(rates, burst))
    }

    /// What the token says about the connection at that index, where the configuration has it kept: JSON as it was
    /// written.
    pub(super) fn meta(&self, index: u32) -> Option<&RawValue> {
        self.known.extra(index)?.metadata.as_deref()
    }

    /// Bytes of what tokens say about connections.
    pub(super) fn metadata_bytes(&self) -> usize {
        self.known.metadata
    }

    /// Forgets the connection at that index.
    pub(super) fn leave(&mut self, index: u32) {
        self.pending.remove(&index);
        self.knocks.remove(&index);
        self.readings.remove(&index);
        self.pages.leave(index);
        self.consults.forget(index);
        self.known.leave(index);
    }

    /// Gives back the places behind the last connection.
    pub(super) fn trim(&mut self, bound: u32, to: &mut impl Release) {
        cut(&mut self.known.places, bound as usize, to);
        self.pending.shrink_to_fit();
        self.knocks.shrink_to_fit();
        self.consults.tidings.trim(bound);
        self.pages.trim(bound);
    }

    /// As the ticket's home: true when it is used for the first time. One that cannot be remembered is not
    /// accepted either.
    pub(super) fn redeem(&mut self, ticket: Ticket, now: u64) -> bool {
        if self.used.len() >= USED_TICKETS {
            self.used.retain(|_, expires| *expires > now);
        }
        let has_space = self.used.len() < USED_TICKETS;
        ticket.expires > now && has_space && self.used.insert(ticket.id, ticket.expires).is_none()
    }

    /// Forgets what has ended by `now`, which is `unix` seconds since 1970.
    pub(super) fn purge(&mut self, unix: u64, now: Time) {
        self.used.retain(|_, expires| *expires > unix);
        self.used.shrink_to(self.used.len() * 2);
        self.revocations.purge(unix);
        self.consults.purge(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_user_costs_48_bytes_and_its_names() {
        assert_eq!(Pool::<Person>::PLACE, 48);
    }

    #[test]
    fn a_token_lowers_rates_and_never_raises_them() {
        let mut identity = Identity {
            user: "ada".into(),
            tenant: None,
            token: None,
            issued: None,
            expires: None,
            grants: Grants::default(),
            limits: Some(Box::new(UserLimits {
                messages_per_second: NonZeroU32::new(50),
                bytes_per_second: NonZeroU32::new(50),
                joins_per_second: NonZeroU32::new(50),
                ..UserLimits::default()
            })),
            metadata: None,
            veto: None,
        };
        let extra = Extra::of(&mut identity).expect("it says something");
        let rate = |per_second| Rate::over(per_second, Duration::from_secs(2));
        let lower = extra.rates([rate(100), rate(10), None, rate(7)], Duration::from_secs(2));
        assert_eq!(lower, [rate(50), rate(10), rate(50), rate(7)]);
    }
}
