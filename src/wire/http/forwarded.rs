//! The client's address, as proxies pass it on.
//!
//! Every proxy appends the address it saw to the end of a list, and whatever the client sent stands at
//! its begin. So a list is read from the right, through the proxies that are trusted, up to the first
//! address that is not one of theirs: nothing a client writes can come before that. Which header is read
//! is the operator's choice and never more than one, because a proxy that keeps one of them true
//! passes the others on as the client wrote them.

use std::net::{IpAddr, SocketAddrV4};

use smallvec::SmallVec;

use super::grammar;
use super::head::Head;

/// The header that the proxies keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// None: the address is that of the socket, or of the PROXY protocol.
    Nothing,
    /// `X-Forwarded-For`, a list.
    XForwardedFor,
    /// `X-Real-IP`, one address.
    XRealIp,
    /// `Forwarded` (RFC 7239), a list of parameters.
    Forwarded,
}

/// The client that a trusted peer names: the right-most address that is not `trusted` itself. Where the
/// list ends, or cannot be read any further, the last address that was read; `None` when there is none.
#[must_use]
pub fn client(head: &Head<'_>, via: Via, trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut hops = Hops::new();
    match via {
        Via::Nothing => {}
        Via::XForwardedFor => {
            let lines = head.values("X-Forwarded-For");
            lines.for_each(|line| hops.extend(list(line)));
        }
        Via::XRealIp => hops.extend(head.values("X-Real-IP").map(hop)),
        Via::Forwarded => {
            for line in head.values("Forwarded") {
                if !elements(line, &mut hops) {
                    hops.push(None);
                }
            }
        }
    }
    let mut found = None;
    for hop in hops.iter().rev() {
        let Some(address) = hop else { break };
        found = Some(*address);
        if !trusted(*address) {
            break;
        }
    }
    found
}

/// From the client to the last proxy; `None` for what is no address: unknown, hidden or malformed.
type Hops = SmallVec<[Option<IpAddr>; 8]>;

fn list(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    line.split(|byte| *byte == b',').map(hop)
}

fn hop(text: &[u8]) -> Option<IpAddr> {
    node(std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']))
}

/// An address as it is found in the field: bare, in brackets, and with or without a port.
fn node(text: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = |digits: &str| digits.parse::<u16>().is_ok();
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::V6(address.parse().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        IpAddr::V4(*text.parse::<SocketAddrV4>().ok()?.ip())
    };
    Some(address.to_canonical())
}

/// The hops of a line of `Forwarded`, one for each element; false when it breaks the grammar of RFC 7239,
/// section 4.
fn elements(line: &[u8], hops: &mut Hops) -> bool {
    let Some(mut rest) = std::str::from_utf8(line).ok().filter(|text| text.is_ascii()) else {
        return false;
    };
    loop {
        let Some((found, after)) = element(rest) else { return false };
        hops.push(found);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty(),
        }
    }
}

/// `[ pair ] *( ";" [ pair ] )`: the address of its `for`, and what follows.
fn element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let (mut found, mut rest) = (None, text.trim_start_matches(SPACE));
    loop {
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            if !grammar::is_token(name.as_bytes()) {
                return None;
            }
            let (value, after) = value(after)?;
            if name.eq_ignore_ascii_case("for") {
                found = node(value);
            }
            rest = after.trim_start_matches(SPACE);
        }
        match rest.strip_prefix(';') {
            Some(next) => rest = next.trim_start_matches(SPACE),
            None => return Some((found, rest)),
        }
    }
}

/// A token or a quoted string without escapes (no address has one), and what follows.
fn value(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((value, rest));
    }
    let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    grammar::is_token(value.as_bytes()).then_some((value, rest))
}

const SPACE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{HeadLimits, parse};
    use proptest::prelude::*;

    /// What the headers give when all of 10.0.0.0/8 is trusted.
    fn seen(via: Via, lines: &[&str]) -> Option<String> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"));
        let limits = HeadLimits { headers: 1024, head_bytes: 1 << 20, ..HeadLimits::default() };
        let parsed = parse(head.as_bytes(), &limits).expect("in order").expect("complete");
        let ours = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
        client(&parsed.head, via, ours).map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_address_that_is_not_ours_is_the_client() {
        let list = Via::XForwardedFor;
        let cases: [(&[&str], Option<&str>); 11] = [
            (&["X-Forwarded-For: 192.0.2.1"], Some("192.0.2.1")),
            (&["X-Forwarded-For: 6.6.6.6, 192.0.2.1"], Some("192.0.2.1")),
            (&["X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.2,10.0.0.3"], Some("192.0.2.1")),
            (&["X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 192.0.2.1"], Some("192.0.2.1")),
            (&["X-Forwarded-For: 10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["X-Forwarded-For: 6.6.6.6, nonsense, 10.0.0.2"], Some("10.0.0.2")),
            (&["X-Forwarded-For: nonsense"], None),
            (&["X-Forwarded-For: 192.0.2.1:1234"], Some("192.0.2.1")),
            (&["X-Forwarded-For: [2001:db8::1]:1234"], Some("2001:db8::1")),
            (&["X-Forwarded-For: ::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(seen(list, lines).as_deref(), expected, "{lines:?}");
        }
        assert_eq!(seen(Via::XRealIp, &["X-Real-IP: 192.0.2.9"]).as_deref(), Some("192.0.2.9"));
        assert_eq!(seen(Via::Nothing, &["X-Forwarded-For: 192.0.2.9"]), None);
    }

    #[test]
    fn elements_of_the_standard_header_are_read_as_its_rfc_has_them() {
        let cases: [(&str, Option<&str>); 12] = [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60")),
            ("For=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17")),
            ("for=6.6.6.6, for=198.51.100.17", Some("198.51.100.17")),
            ("for=6.6.6.6, for=192.0.2.1 , for=\"10.0.0.1:80\"", Some("192.0.2.1")),
            ("for=192.0.2.1;host=\"a,b;c\", for=10.0.0.1", Some("192.0.2.1")),
            ("for=6.6.6.6, for=unknown", None),
            ("for=6.6.6.6, for=_hidden, for=10.0.0.1", Some("10.0.0.1")),
            ("for=6.6.6.6, proto=http", None),
            ("for=6.6.6.6, for=\"1.2.3.4", None),
            ("for=6.6.6.6, nonsense", None),
            ("for=6.6.6.6,", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let line = format!("Forwarded: {line}");
            assert_eq!(seen(Via::Forwarded, &[&line]).as_deref(), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_client_writes_in_front_changes_what_is_seen(
            written in "[ -~]{0,40}",
            proxies in 0usize..4,
        ) {
            let own = [vec!["192.0.2.1"], vec!["10.0.0.9"; proxies]].concat().join(", ");
            let line = format!("X-Forwarded-For: {written},{own}");
            prop_assert_eq!(seen(Via::XForwardedFor, &[&line]), Some("192.0.2.1".to_owned()));
            let split = format!("X-Forwarded-For: {written}\r\nX-Forwarded-For: {own}");
            prop_assert_eq!(seen(Via::XForwardedFor, &[&split]), Some("192.0.2.1".to_owned()));
        }
    }
}
