//! Which rooms someone may join, publish to and look at.
//!
//! A token grants by patterns of room names with rights. In a claim they are a list of patterns, which
//! grants every right, or an object from pattern to rights:
//!
//!     "rooms": ["lobby", "team:7:*"]
//!     "rooms": {"lobby": ["join", "publish"], "ticker:*": ["join"]}
//!
//! Patterns are matched with the name that the client knows, so a tenant's token names the tenant's own
//! rooms and can name no others.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::base::glob::Glob;

/// One thing to do with a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Become a member, and so receive what is published.
    Join = 1,
    /// Publish.
    Publish = 2,
    /// See who and how many are there.
    Presence = 4,
}

impl Right {
    /// Every right with its name in a claim.
    pub const ALL: &'static [(Self, &'static str)] =
        &[(Self::Join, "join"), (Self::Publish, "publish"), (Self::Presence, "presence")];
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Every right there is.
    pub const ALL: Self = Self(Right::Join as u8 | Right::Publish as u8 | Right::Presence as u8);

    /// These rights and one more.
    #[must_use]
    pub fn with(self, right: Right) -> Self {
        Self(self.0 | right as u8)
    }

    /// True when the right is among them.
    #[must_use]
    pub fn has(self, right: Right) -> bool {
        self.0 & right as u8 != 0
    }
}

/// Rights in the rooms of one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The rooms.
    pub pattern: Glob,
    /// What may be done there.
    pub rights: Rights,
}

/// All that a token grants; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Box<[Grant]>);

/// The most patterns that one token may hold, and the most bytes of one.
const MAX_GRANTS: usize = 256;
const MAX_PATTERN_BYTES: usize = 1024;

impl Grants {
    /// These grants.
    #[must_use]
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants.into())
    }

    /// True when some grant gives the right in the room of that name.
    #[must_use]
    pub fn allows(&self, room: &str, right: Right) -> bool {
        self.0.iter().any(|grant| grant.rights.has(right) && grant.pattern.matches(room))
    }

    /// The grants.
    #[must_use]
    pub fn as_slice(&self) -> &[Grant] {
        &self.0
    }

    /// Bytes on the heap, for the account of what an identity costs.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let patterns: usize = self.0.iter().map(|grant| grant.pattern.as_str().len()).sum();
        size_of_val(&*self.0) + patterns
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Rights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of \"join\", \"publish\" and \"presence\"")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Rights, A::Error> {
                let mut rights = Rights::default();
                while let Some(name) = names.next_element::<std::borrow::Cow<'de, str>>()? {
                    let known = Right::ALL.iter().find(|(_, known)| *known == name);
                    let (right, _) = known.ok_or_else(|| A::Error::custom("no such right"))?;
                    rights = rights.with(*right);
                }
                Ok(rights)
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Patterns;
        impl<'de> Visitor<'de> for Patterns {
            type Value = Grants;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of patterns, or an object from pattern to rights")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Grants, A::Error> {
                let mut grants = Vec::new();
                while let Some(pattern) = list.next_element::<std::borrow::Cow<'de, str>>()? {
                    grants.push(grant(&pattern, Rights::ALL, grants.len())?);
                }
                Ok(Grants::new(grants))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Grants, A::Error> {
                let mut grants = Vec::new();
                while let Some((pattern, rights)) =
                    map.next_entry::<std::borrow::Cow<'de, str>, Rights>()?
                {
                    grants.push(grant(&pattern, rights, grants.len())?);
                }
                Ok(Grants::new(grants))
            }
        }
        deserializer.deserialize_any(Patterns)
    }
}

fn grant<E: Error>(pattern: &str, rights: Rights, before: usize) -> Result<Grant, E> {
    if before >= MAX_GRANTS {
        return Err(E::custom("too many patterns"));
    }
    if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
        return Err(E::custom("a pattern has 1 to 1024 bytes"));
    }
    Ok(Grant { pattern: Glob::new(pattern), rights })
}
