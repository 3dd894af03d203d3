//! Networks of IP addresses.
//!
//! Whom to believe about a client's address is said in networks. An IPv4 address has two forms on a
//! socket that speaks both versions, its own and the mapped one (`::ffff:192.0.2.1`); they are one
//! address here, so a rule about the one holds for the other, and a rule about all of IPv6 holds for
//! neither.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// Canonical; the bits behind the prefix are zero.
    base: IpAddr,
    /// How many bits are shared; of 32 or 128.
    prefix: u8,
}

impl Network {
    /// True when the address, in either form, is one of the network's.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => masked4(address, self.prefix) == base,
            (IpAddr::V6(base), IpAddr::V6(address)) => masked6(address, self.prefix) == base,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError;

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network is an address, or an address without bits behind its prefix: a/n")
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `address` or `address/prefix`. Bits behind the prefix are refused: whoever writes
    /// `10.0.0.1/8` means either the one address or the network, and nobody can tell which.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let written: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits = if written.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) => number(digits).filter(|n| *n <= bits).ok_or(NetworkError)?,
        };
        let (base, prefix) = match (written.to_canonical(), written) {
            // A mapped network of more than the mapped addresses is left as it is.
            (base @ IpAddr::V4(_), IpAddr::V6(_)) if prefix >= 96 => (base, prefix - 96),
            _ => (written, prefix),
        };
        let bare = match base {
            IpAddr::V4(address) => IpAddr::V4(masked4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(masked6(address, prefix)),
        };
        if bare == base { Ok(Self { base, prefix }) } else { Err(NetworkError) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Digits only; `u8::from_str` would take a sign.
fn number(digits: &str) -> Option<u8> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn masked4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_holds_its_addresses_in_both_forms_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ];
        for (rule, client, holds) in cases {
            assert_eq!(network(rule).contains(address(client)), holds, "{rule} {client}");
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        let texts =
            ["", "10.0.0.0/33", "10.0.0.1/8", "::1/64", "10.0.0.0/+8", "10.0.0.0/", "a", "10.0/8"];
        for text in texts {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_network_reads_back_as_written_and_agrees_with_comparing_bits(
            bits: u32, other: u32, prefix in 0u8..=32,
        ) {
            let base = masked4(Ipv4Addr::from_bits(bits), prefix);
            let rule = network(&format!("{base}/{prefix}"));
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            let same = (0..prefix).all(|bit| (bits ^ other) >> (31 - bit) & 1 == 0);
            prop_assert_eq!(rule.contains(IpAddr::V4(Ipv4Addr::from_bits(other))), same);
        }
    }
}
