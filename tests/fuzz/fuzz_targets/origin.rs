//! Origins: any rule, any origin, any host.
//!
//! The input is cut at its first two line feeds. A rule that is read lets in exactly what its kind says, by a
//! reading of origins and hosts of its own that is written below: the same place, one origin, or names below a
//! domain. An expression is held to itself: it must be one without what is put around it, and lets in what it matches
//! from end to end, as another matcher of the same library sees it, which finds the longest match without any anchors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use regex_automata::nfa::thompson::NFA;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::{Anchored, Input, MatchKind};
use throng::auth::{OriginRule, OriginRules};

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\n');
    let (Some(rule), Some(origin)) = (parts.next(), parts.next()) else { return };
    let host = parts.next();
    // Expressions have lines too.
    let unescaped;
    let rule = if rule.starts_with("regex:") {
        unescaped = rule.replace('\u{b6}', "\n");
        &unescaped
    } else {
        rule
    };
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
        OriginRule::Matching(_) => is_whole_match(rule.strip_prefix("regex:").unwrap_or(rule), origin),
    };
    assert_eq!(is_welcome, expected, "{rule} and {origin} at {host:?}");
    assert!(rules.check(None, host, true).is_err(), "a cookie without an origin");
});

/// True when the longest match at the beginning is all there is.
fn is_whole_match(pattern: &str, text: &str) -> bool {
    let Ok(alone) = NFA::new(pattern) else {
        panic!("{pattern} is read and is no expression");
    };
    let config = PikeVM::config().match_kind(MatchKind::All);
    let machine = PikeVM::builder().configure(config).build_from_nfa(alone).expect("a machine");
    let mut cache = machine.create_cache();
    let found = machine.find(&mut cache, Input::new(text).anchored(Anchored::Yes));
    found.is_some_and(|found| found.end() == text.len())
}

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
