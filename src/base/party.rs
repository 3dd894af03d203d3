//! Who is counted together.
//!
//! A limit that holds for more than one connection holds for a party: everybody behind one address,
//! every connection of one user, everybody of one tenant. A provider gives each customer a /64 of
//! IPv6 at least, so the addresses of one such network are one party; otherwise a single host could be
//! as many parties as it likes. Users and tenants are known by a keyed hash of their names: a party
//! costs 16 bytes whoever it is, and a name chosen by a stranger collides with no other.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::base::map::Seed;

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// One IPv4 address.
    V4(u32),
    /// One /64 of IPv6 addresses, by its first 64 bits.
    V6(u64),
    /// One user, by the hash of tenant and name.
    User(u64),
    /// One tenant, by the hash of its name.
    Tenant(u64),
}

impl Party {
    /// The party that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX))
            }
        }
    }

    /// The party of a user. `own` names the user within the node, the tenant included.
    #[must_use]
    pub fn user(seed: &Seed, own: &str) -> Self {
        Self::User(seed.hash_one(own))
    }

    /// The party of a tenant.
    #[must_use]
    pub fn tenant(seed: &Seed, name: &str) -> Self {
        Self::Tenant(seed.hash_one(name))
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bits) => write!(f, "{}", std::net::Ipv4Addr::from_bits(*bits)),
            Self::V6(bits) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
            Self::User(hash) => write!(f, "user {hash:016x}"),
            Self::Tenant(hash) => write!(f, "tenant {hash:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Party {
        Party::of(text.parse().expect("an address"))
    }

    #[test]
    fn both_forms_of_an_address_and_all_of_a_64_are_one_party() {
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(of("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
        assert_eq!(size_of::<Party>(), 16);
    }
}
