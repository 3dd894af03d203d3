//! Which rooms someone may join, publish to and look at.
//!
//! A token grants by patterns of room names with rights. In a claim they are a list of patterns, which
//! grants every right, or an object from pattern to rights:
//!
//! ```text
//! "rooms": ["lobby", "team:7:*"]
//! "rooms": {"lobby": ["join", "publish"], "ticker:*": ["join"]}
//! ```
//!
//! Patterns are matched with the name that the client knows, so a tenant's token names the tenant's own
//! rooms and can name no others.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::claims::Text;
use crate::base::glob;
use crate::base::map::Seed;

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
    /// Page back in what was published.
    History = 8,
}

impl Right {
    /// Every right.
    pub const ALL: &'static [Self] = &[Self::Join, Self::Publish, Self::Presence, Self::History];

    /// The name in a claim.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Every right there is.
    pub const ALL: Self = Self(
        Right::Join as u8 | Right::Publish as u8 | Right::Presence as u8 | Right::History as u8,
    );

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

/// All that a token grants; nothing by default. There is one of these for every connection of a known user,
/// so the patterns stand one behind the other: rights, length in two bytes, pattern. Copies share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Arc<[u8]>);

/// Grants that were seen lately. Issuers mostly grant the same to many, and those share what says so.
#[derive(Debug)]
pub struct Common {
    seed: Seed,
    /// By the hash of what stands there; empty until there is something.
    seen: Vec<Grants>,
}

/// Grants that are remembered for others, and the most bytes of one: 16 KiB in all.
const MOST_COMMON: usize = 64;
const MOST_COMMON_BYTES: usize = 256;

impl Common {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { seed: seed.clone(), seen: Vec::new() }
    }

    /// The same grants, in the memory of equal ones that were seen lately if there are any.
    #[must_use]
    pub fn share(&mut self, grants: Grants) -> Grants {
        if grants.0.is_empty() || grants.0.len() > MOST_COMMON_BYTES {
            return grants;
        }
        self.seen.resize(MOST_COMMON, Grants::default());
        let at = usize::from(self.seed.hash_one(&*grants.0).to_be_bytes()[0]) % MOST_COMMON;
        if self.seen[at] != grants {
            self.seen[at] = grants;
        }
        self.seen[at].clone()
    }

    /// Forgets what was seen.
    pub fn clear(&mut self) {
        self.seen = Vec::new();
    }
}

/// The most patterns that one token may hold, and the most bytes of one.
const MAX_GRANTS: usize = 256;
const MAX_PATTERN_BYTES: usize = 1024;

impl Grants {
    /// Every right in the rooms of these patterns; those that no token could hold are left out.
    #[must_use]
    pub fn of_patterns(patterns: &[String]) -> Self {
        let mut grants = Builder::default();
        for pattern in patterns {
            let _ = grants.add::<serde::de::value::Error>(pattern, Rights::ALL);
        }
        grants.finish()
    }

    /// True when some pattern gives the right in the room of that name.
    #[must_use]
    pub fn allows(&self, room: &str, right: Right) -> bool {
        self.iter()
            .any(|(pattern, rights)| rights.has(right) && glob::matches(pattern, room.as_bytes()))
    }

    /// The patterns with what each grants.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Rights)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let [rights, high, low, behind @ ..] = rest else { return None };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let (pattern, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some((pattern, Rights(*rights)))
        })
    }
}

/// Grants as they are read.
#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    count: usize,
}

impl Builder {
    fn add<E: Error>(&mut self, pattern: &str, rights: Rights) -> Result<(), E> {
        self.count += 1;
        if self.count > MAX_GRANTS {
            return Err(E::custom("too many patterns"));
        }
        let length = u16::try_from(pattern.len()).unwrap_or(u16::MAX);
        if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
            return Err(E::custom("a pattern has 1 to 1024 bytes"));
        }
        // Room for what most tokens hold, so that it does not grow byte by byte.
        self.bytes.reserve(if self.count == 1 { 64 } else { 0 });
        self.bytes.push(rights.0);
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(pattern.as_bytes());
        Ok(())
    }

    fn finish(self) -> Grants {
        Grants(self.bytes.into())
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Rights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of \"join\", \"publish\", \"presence\" and \"history\"")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Rights, A::Error> {
                let mut rights = Rights::default();
                while let Some(Text(name)) = names.next_element::<Text<'de>>()? {
                    let known = Right::ALL.iter().find(|known| known.name() == name);
                    let right = known.ok_or_else(|| A::Error::custom("no such right"))?;
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
                let mut grants = Builder::default();
                while let Some(Text(pattern)) = list.next_element::<Text<'de>>()? {
                    grants.add(&pattern, Rights::ALL)?;
                }
                Ok(grants.finish())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Grants, A::Error> {
                let mut grants = Builder::default();
                while let Some((Text(pattern), rights)) = map.next_entry::<Text<'de>, Rights>()? {
                    grants.add(&pattern, rights)?;
                }
                Ok(grants.finish())
            }
        }
        deserializer.deserialize_any(Patterns)
    }
}
