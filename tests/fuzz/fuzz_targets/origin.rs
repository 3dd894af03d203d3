//! Origins: any rule, any origin, any host.
//!
//! The input is cut at its first two line feeds. A rule that is read lets in exactly what its kind says, by a
//! reading of origins and hosts of its own that is written below: the same place, one origin, or names below a
//! domain. Expressions are left out, for their library is fuzzed by its own authors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throng::auth::{OriginRule, OriginRules};

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\n');
    let (Some(rule), Some(origin)) = (parts.next(), parts.next()) else { return };
    let host = parts.next();
    if rule.starts_with("regex:") {
        return;
    }
    let Ok(read) = OriginRule::parse(rule) else { return };
    let rules = OriginRules { allowed: vec![read.clone()], required: false, cookies: true };
    let is_welcome = rules.check(Some(origin), host, true).is_ok();
    let expected = match &read {
        OriginRule::Any => true,
        OriginRule::Below { scheme, suffix } => place(origin).is_some_and(|(own, name, port)| {
            let is_known =
                scheme.as_ref().map_or(["http", "https"].contains(&own.as_str()), |s| *s == own);
            is_known
                && port == own_port(&own)
                && name.strip_suffix(suffix.as_str()).is_some_and(|n| n != "")
        }),
        OriginRule::Exact(exact) => {
            origin == exact || place(origin).is_some_and(|place_| Some(place_) == place(exact))
        }
        OriginRule::Same => place(origin).zip(host).is_some_and(|((scheme, name, port), host)| {
            let (at, given) = cut(host);
            let given = given.filter(|given| !given.is_empty()).or(own_port(&scheme));
            name == at.to_ascii_lowercase() && port.is_some() && port == given
        }),
        OriginRule::Matching(_) => unreachable!("left out above"),
    };
    assert_eq!(is_welcome, expected, "{rule} and {origin} at {host:?}");
    assert!(rules.check(None, host, true).is_err(), "a cookie without an origin");
});

/// Scheme, name and port of an origin, the names in small letters and the port as it is meant.
fn place(origin: &str) -> Option<(String, String, Option<&str>)> {
    let at = origin.find("://")?;
    let (scheme, authority) = (origin[..at].to_ascii_lowercase(), &origin[at + 3..]);
    let (name, port) = cut(authority);
    if scheme.is_empty() || name.is_empty() || authority.chars().any(|c| "/?#@ ".contains(c)) {
        return None;
    }
    let port = port.or(own_port(&scheme));
    Some((scheme, name.to_ascii_lowercase(), port))
}

fn own_port(scheme: &str) -> Option<&'static str> {
    [("http", "80"), ("https", "443")]
        .into_iter()
        .find(|(own, _)| *own == scheme)
        .map(|(_, port)| port)
}

/// A name and what stands behind its last colon, unless that colon is one of an address in brackets.
fn cut(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}
