//! Who the connections of a shard are.
//!
//! Most of what is known about a user is asked for seldom, and anonymous connections have none of it, so it
//! stands beside the table and not in the connection's record: a list by index, which is empty while
//! nobody is known. Here too are those whose tickets are being redeemed, the tickets that were redeemed
//! (at their home), and what was revoked. Nothing in here closes or sends.

use std::sync::Arc;

use crate::auth::{Grants, Identity, KeySet, Revocation, Revocations, Ticket, user_of};
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::session::Protocol;

/// One known user's connection: what is left of its identity, in few bytes, as there may be a million.
#[derive(Debug)]
pub(super) struct Person {
    /// The name of the user's own room, which says who it is; the hub holds the same.
    own: Arc<str>,
    pub(super) grants: Grants,
    /// The token's name, hashed; zero without one. A revocation knows the name and hashes it too.
    token: u64,
    /// Seconds since 1970; zero when the token did not say.
    issued: u32,
    /// Seconds since 1970, up to the year 2106; the last second there is stands for never.
    expires: u32,
    /// Rooms of the connection, where the token says so.
    pub(super) rooms: Option<u16>,
    /// True once the client was asked for a fresh token.
    pub(super) asked: bool,
}

impl Person {
    fn new(identity: Identity, own: Arc<str>, seed: &Seed) -> Self {
        let seconds = |time: u64| u32::try_from(time).unwrap_or(u32::MAX);
        let rooms = identity.limits.and_then(|limits| limits.rooms);
        Self {
            own,
            grants: identity.grants,
            token: identity.token.map_or(0, |id| hash(seed, &id)),
            issued: identity.issued.map_or(0, seconds),
            expires: identity.expires.map_or(u32::MAX, seconds),
            rooms: rooms.map(|rooms| u16::try_from(rooms).unwrap_or(u16::MAX)),
            asked: false,
        }
    }

    /// The tenant, where there are tenants, and the user.
    pub(super) fn names(&self) -> (Option<&str>, &str) {
        user_of(&self.own)
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
}

/// The hash of a token's name; never zero.
fn hash(seed: &Seed, id: &str) -> u64 {
    seed.hash_one(id).max(1)
}

/// A handshake that waits for its ticket to be redeemed.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) conn: ConnId,
    pub(super) protocol: Protocol,
    /// The 101 response.
    pub(super) response: Vec<u8>,
    pub(super) identity: Identity,
    /// What came behind the head and is to be read afterwards.
    pub(super) rest: Vec<u8>,
}

/// A revocation that looks for its connection: all are looked at, a slice a turn.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) revocation: Arc<Revocation>,
    /// Indexes below this have been looked at.
    pub(super) at: usize,
}

/// Tickets remembered at their home; each is for a minute or so.
const USED_TICKETS: usize = 1 << 18;

/// Who the connections of a shard are.
#[derive(Debug)]
pub(super) struct People {
    known: Vec<Option<Box<Person>>>,
    /// How many are known.
    count: usize,
    pub(super) pending: Map<u32, Box<Pending>>,
    /// Tickets whose home this shard is, with their ends.
    used: Map<u128, u64>,
    pub(super) revocations: Revocations,
    pub(super) sweeps: Vec<Sweep>,
    /// Keys that were fetched while the node runs, beside those of the configuration.
    pub(super) fetched: Option<Arc<KeySet>>,
}

impl People {
    pub(super) fn new(seed: &Seed, max_revocations: usize) -> Self {
        Self {
            known: Vec::new(),
            count: 0,
            pending: seed.map(),
            used: seed.map(),
            revocations: Revocations::new(seed, max_revocations),
            sweeps: Vec::new(),
            fetched: None,
        }
    }

    /// Who the connection at that index is.
    pub(super) fn get(&self, index: u32) -> Option<&Person> {
        self.known.get(index as usize)?.as_deref()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Person> {
        self.known.get_mut(index as usize)?.as_deref_mut()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// One more than the highest index that may be known.
    pub(super) fn bound(&self) -> usize {
        self.known.len()
    }

    /// Notes who the connection at that index is, from now on; `own` is the name of the user's room.
    pub(super) fn settle(&mut self, index: u32, identity: Identity, own: Arc<str>, seed: &Seed) {
        let at = index as usize;
        if self.known.len() <= at {
            self.known.resize_with(at + 1, || None);
        }
        let person = Box::new(Person::new(identity, own, seed));
        self.count += usize::from(self.known[at].replace(person).is_none());
    }

    /// Forgets the connection at that index.
    pub(super) fn leave(&mut self, index: u32) {
        self.pending.remove(&index);
        let Some(place) = self.known.get_mut(index as usize) else { return };
        self.count -= usize::from(place.take().is_some());
        if self.count == 0 {
            self.known = Vec::new();
        }
    }

    /// Gives back the places behind the last connection.
    pub(super) fn trim(&mut self, bound: u32) {
        self.known.truncate(bound as usize);
        self.known.shrink_to_fit();
        self.pending.shrink_to_fit();
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

    /// Forgets what has ended.
    pub(super) fn purge(&mut self, now: u64) {
        self.used.retain(|_, expires| *expires > now);
        self.used.shrink_to(self.used.len() * 2);
        self.revocations.purge(now);
    }
}
