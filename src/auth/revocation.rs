//! Tokens that are taken back before their end.
//!
//! A user is revoked up to a moment: what was issued until then is void, a token fetched afterwards is
//! good. A single token is revoked by its name (`jti`). Both are remembered until nothing can come back
//! that they would stop, and no longer. The set is bounded and never forgets to make space: what does not
//! fit is refused, so that whoever revokes knows.

use std::fmt;

use super::identity::Identity;
use super::scope::user_room;
use crate::base::map::{Map, Seed};

/// What is taken back. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// Every token of a user that was issued at this time or before, and every one that does not say when.
    User {
        /// The tenant, where there are tenants.
        tenant: Option<Box<str>>,
        /// The user.
        user: Box<str>,
        /// The last moment whose tokens are void.
        issued: u64,
        /// When the last of those tokens has ended.
        until: u64,
    },
    /// One token.
    Token {
        /// Its `jti`.
        id: Box<str>,
        /// When it ends.
        until: u64,
    },
}

/// The set has no space for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many it holds.
    pub capacity: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} revocations are remembered already", self.capacity)
    }
}

impl std::error::Error for Full {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UserEntry {
    issued: u64,
    until: u64,
}

/// What was taken back and is remembered.
#[derive(Debug)]
pub struct Revocations {
    /// By the name of the user's own room, which tells tenants apart.
    users: Map<String, UserEntry>,
    /// Until when.
    tokens: Map<Box<str>, u64>,
    capacity: usize,
}

impl Revocations {
    /// An empty set with space for `capacity`.
    #[must_use]
    pub fn new(seed: &Seed, capacity: usize) -> Self {
        Self { users: seed.map(), tokens: seed.map(), capacity }
    }

    /// Remembers a revocation. A second one of the same user or token adds to the first.
    ///
    /// # Errors
    /// When there is no space, also after what has ended by `now` was dropped.
    pub fn add(&mut self, revocation: &Revocation, now: u64) -> Result<(), Full> {
        if revocation.until() <= now {
            return Ok(());
        }
        if self.len() >= self.capacity && !self.knows(revocation) {
            self.purge(now);
            if self.len() >= self.capacity {
                return Err(Full { capacity: self.capacity });
            }
        }
        match revocation {
            Revocation::User { tenant, user, issued, until } => {
                let fresh = UserEntry { issued: *issued, until: *until };
                let entry = self.users.entry(user_room(tenant.as_deref(), user)).or_insert(fresh);
                // What has ended by now says nothing any more.
                if entry.until <= now {
                    *entry = fresh;
                }
                entry.issued = entry.issued.max(*issued);
                entry.until = entry.until.max(*until);
            }
            Revocation::Token { id, until } => {
                let entry = self.tokens.entry(id.clone()).or_insert(*until);
                *entry = (*entry).max(*until);
            }
        }
        Ok(())
    }

    /// True when the identity has been taken back.
    #[must_use]
    pub fn holds(&self, identity: &Identity, now: u64) -> bool {
        let by_token = || {
            let id = identity.token.as_deref()?;
            self.tokens.get(id).filter(|until| **until > now)
        };
        let by_user = || {
            let entry = self.users.get(&user_room(identity.tenant.as_deref(), &identity.user))?;
            let is_void = identity.issued.is_none_or(|issued| issued <= entry.issued);
            Some(()).filter(|()| is_void && entry.until > now)
        };
        (!self.tokens.is_empty() && by_token().is_some())
            || (!self.users.is_empty() && by_user().is_some())
    }

    /// How many are remembered, those that have ended since the last purge included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len() + self.tokens.len()
    }

    /// True when none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what has ended.
    pub fn purge(&mut self, now: u64) {
        self.users.retain(|_, entry| entry.until > now);
        self.tokens.retain(|_, until| *until > now);
        self.users.shrink_to(self.users.len() * 2);
        self.tokens.shrink_to(self.tokens.len() * 2);
    }

    fn knows(&self, revocation: &Revocation) -> bool {
        match revocation {
            Revocation::User { tenant, user, .. } => {
                self.users.contains_key(&user_room(tenant.as_deref(), user))
            }
            Revocation::Token { id, .. } => self.tokens.contains_key(id),
        }
    }
}

impl Revocation {
    /// When nothing can come back any more that this would stop.
    #[must_use]
    pub fn until(&self) -> u64 {
        match self {
            Self::User { until, .. } | Self::Token { until, .. } => *until,
        }
    }

    /// True when this takes the identity back.
    #[must_use]
    pub fn takes(&self, identity: &Identity) -> bool {
        match self {
            Self::User { tenant, user, issued, .. } => {
                *user == identity.user
                    && *tenant == identity.tenant
                    && identity.issued.is_none_or(|at| at <= *issued)
            }
            Self::Token { id, .. } => identity.token.as_ref() == Some(id),
        }
    }
}
