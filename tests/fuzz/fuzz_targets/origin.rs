//! Origins: any rule, any origin, any host.
//!
//! The input is cut at its first two line feeds. A rule that is read must not let in what its kind cannot:
//! names below a domain end in the domain, an exact rule lets in one origin only. Expressions are left out,
//! for their library is fuzzed by its own authors.

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
    match &read {
        OriginRule::Any => assert!(is_welcome),
        OriginRule::Below { suffix, .. } if is_welcome => {
            let lower = origin.to_ascii_lowercase();
            let name = lower.trim_end_matches(":80").trim_end_matches(":443");
            assert!(name.ends_with(suffix.as_str()), "{rule} let in {origin}");
        }
        OriginRule::Exact(exact) if is_welcome => {
            let plain = |text: &str| {
                let lower = text.to_ascii_lowercase();
                lower.trim_end_matches(":80").trim_end_matches(":443").to_owned()
            };
            assert_eq!(plain(origin), plain(exact), "{rule} let in {origin}");
        }
        OriginRule::Same if is_welcome => {
            let host = host.expect("the same as something").to_ascii_lowercase();
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            assert!(origin.to_ascii_lowercase().contains(name), "{origin} is not {host}");
        }
        _ => {}
    }
    assert!(rules.check(None, host, true).is_err(), "a cookie without an origin");
});
