//! Origins against rules of every kind.

use proptest::prelude::*;

use crate::auth::{OriginError, OriginRule, OriginRules};

fn rules(allowed: &[&str]) -> OriginRules {
    let allowed = allowed.iter().map(|rule| OriginRule::parse(rule).expect(rule)).collect();
    OriginRules { allowed, required: false, cookies: false }
}

fn is_welcome(rule: &str, origin: &str) -> bool {
    rules(&[rule]).check(Some(origin), Some("here.example:8080"), false).is_ok()
}

#[test]
fn each_kind_of_rule_lets_in_what_it_says_and_nothing_that_looks_like_it() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "https://app.example.com",
            &["https://app.example.com", "https://APP.example.com", "https://app.example.com:443"],
            &[
                "http://app.example.com",
                "https://app.example.com:8443",
                "https://app.example.com.evil.com",
                "https://evil-app.example.com",
                "https://app.example.com@evil.com",
                "https://app.example.com/",
                "null",
                "",
            ],
        ),
        (
            "*.example.com",
            &["https://a.example.com", "http://b.a.example.com"],
            &[
                "https://example.com",
                "https://evilexample.com",
                "https://.example.com",
                "https://a.example.com.evil.com",
                "https://a.example.com:8443",
                "ftp://a.example.com",
                "a.example.com",
                "https://evil.com/a.example.com",
                "https://evil.com?.example.com",
            ],
        ),
        (
            "https://*.example.com",
            &["https://a.example.com", "https://a.example.com:443"],
            &["http://a.example.com", "https://example.com"],
        ),
        (
            r"regex:https://[a-z]+\.example\.(com|org)",
            &["https://a.example.com", "https://b.example.org"],
            &[
                "https://a.example.com.evil.com",
                "xhttps://a.example.com",
                "https://a1.example.com",
                "https://a.example.org:1",
                "https://a.example.com\nx",
            ],
        ),
        (r"regex:https://a|https://b", &["https://a", "https://b"], &["https://ab", "https://bx"]),
        (
            r"regex:(?:https://a)|(?:https://b)|",
            &["https://a", "https://b", ""],
            &["https://a.evil", "evil https://b", "x"],
        ),
        (r"regex:(?m)^https://a$", &["https://a"], &["https://a\nx", "x\nhttps://a"]),
        ("regex:(?x)https://a # one\n", &["https://a"], &["https://a.evil", "https://a # one"]),
        ("null", &["null"], &["https://null", ""]),
        ("*", &["https://a", "null", "what ever"], &[]),
        (
            "self",
            &["http://here.example:8080", "https://HERE.example:8080"],
            &["http://here.example", "https://here.example:8081", "null", "http://example:8080"],
        ),
    ];
    for (rule, welcome, foreign) in cases {
        for origin in *welcome {
            assert!(is_welcome(rule, origin), "{rule} and {origin}");
        }
        for origin in *foreign {
            assert!(!is_welcome(rule, origin), "{rule} and {origin}");
        }
    }
}

#[test]
fn the_same_origin_is_the_one_that_the_request_went_to() {
    let same = rules(&["self"]);
    for (origin, host, is_same) in [
        ("https://a.example", "a.example", true),
        ("https://a.example", "a.example:443", true),
        ("http://a.example", "a.example:80", true),
        ("https://a.example", "a.example:80", false),
        ("http://[::1]:9", "[::1]:9", true),
        ("http://[::1]", "[::1]", true),
        ("http://[::1]", "[::1]:9", false),
        ("https://a.example", "b.example", false),
    ] {
        assert_eq!(same.check(Some(origin), Some(host), false).is_ok(), is_same, "{origin} {host}");
    }
    assert!(same.check(Some("https://a"), None, false).is_err());
}

#[test]
fn without_rules_cookies_make_the_difference() {
    let mut open = rules(&[]);
    assert_eq!(open.check(Some("https://evil"), Some("a"), false), Ok(()));
    open.cookies = true;
    let foreign = Err(OriginError::Foreign);
    assert_eq!(open.check(Some("https://evil"), Some("a"), true), foreign);
    assert_eq!(open.check(Some("https://evil"), Some("a"), false), foreign);
    assert_eq!(open.check(Some("https://a"), Some("a"), true), Ok(()));
    assert_eq!(open.check(Some("null"), Some("a"), true), foreign);
}

#[test]
fn a_request_without_an_origin_needs_one_only_with_a_cookie_or_by_rule() {
    let missing = Err(OriginError::Missing);
    for mut rules in [rules(&[]), rules(&["https://a"])] {
        assert_eq!(rules.check(None, Some("a"), false), Ok(()));
        assert_eq!(rules.check(None, Some("a"), true), missing);
        rules.required = true;
        assert_eq!(rules.check(None, Some("a"), false), missing);
    }
}

#[test]
fn a_rule_that_is_none_is_refused_with_what_was_expected() {
    for rule in [
        "",
        "app.example.com",
        "https://",
        "https://a/b",
        "*.",
        "*.a:1",
        "**.a",
        "a*.b",
        "https://a b",
        "https://a*b",
    ] {
        let error = OriginRule::parse(rule).expect_err(rule).to_string();
        assert!(error.contains("expected an origin"), "{rule}: {error}");
    }
    let error = OriginRule::parse("regex:(").expect_err("open").to_string();
    assert!(error.contains("cannot be read"), "{error}");
    assert!(OriginRule::parse("regex:(a{1000}){1000}").is_err(), "too large once compiled");
}

#[test]
fn an_expression_that_is_none_by_itself_is_refused() {
    for pattern in [
        "https://a)|(?:https://b",
        "https://a)|(https://b",
        "https://a)?(?:.*",
        "(?x)https://a) | (?: https://b",
        "https://a)|(?:",
        ")|(?:",
        "https://a)",
        "(?:https://a",
        r"https://a\",
        "https://[a",
        // What ends it would be a part of the remark.
        "(?x)https://a # one",
    ] {
        let rule = format!("regex:{pattern}");
        let error = OriginRule::parse(&rule).map(|read| format!("{read:?}")).expect_err(pattern);
        assert!(error.to_string().contains("cannot be read"), "{pattern}: {error}");
    }
}

proptest! {
    #[test]
    fn any_origin_is_judged_without_a_panic(origin in ".{0,40}", host in "[ -~]{0,20}") {
        for rule in ["*.a", "self", "https://a", "null", "regex:.*x"] {
            let _ = rules(&[rule]).check(Some(&origin), Some(&host), true);
        }
        let _ = OriginRule::parse(&origin);
    }

    /// From pieces that could end the group in which an expression stands.
    #[test]
    fn an_expression_that_is_read_is_one_by_itself_and_matches_from_end_to_end(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b", "(", ")", "(?:", "|", "[", "]", "^", "$", "\\", "#", "\n", "?", "*", "{2}",
                "(?x)", "(?m)", "(?s)", "(?i:", ".",
            ]),
            0..8,
        ),
        origin in "[ab#\n]{0,4}",
    ) {
        let pattern = pieces.concat();
        let alone = regex::Regex::new(&pattern);
        if let Ok(rule) = OriginRule::parse(&format!("regex:{pattern}")) {
            prop_assert!(alone.is_ok(), "{pattern:?} is read and is no expression");
            let rules = OriginRules { allowed: vec![rule], required: false, cookies: false };
            if rules.check(Some(&origin), None, false).is_ok() {
                let found = alone.ok().and_then(|alone| alone.find(&origin).map(|found| found.start()));
                prop_assert_eq!(found, Some(0), "{:?} lets in {:?}", pattern, origin);
            }
        }
    }
}
