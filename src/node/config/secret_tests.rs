//! What is secret is printed nowhere: not by `print-config`, not in an error, not of a URL.

use super::source::{AUTHORITY, veil};
use super::tests::parse;
use super::{Config, keys};

/// Long enough for each of them.
const WORD: &str = "hunter2hunter2hunter2hunter2hunter2";

/// Every secret that a file can hold.
fn whole() -> Config {
    let text = format!(
        "[auth]\nmode = \"token\"\nsecret = \"{WORD}\"\n\
         [auth_webhook]\nurl = \"http://[::1]/\"\nsecret = \"{WORD}\"\n\
         [bridge]\nurl = \"redis://a:1\"\npassword = \"{WORD}\"\nsentinel_password = \"{WORD}\"\n\
         ticket_secret = \"{WORD}\"\n\
         [[key]]\nname = \"a\"\nscopes = [\"tickets\"]\nsecret = \"{WORD}\"\n\
         [[webhook]]\nname = \"b\"\nurl = \"http://[::1]/\"\nevents = [\"connected\"]\nsecret = \"{WORD}\"\n"
    );
    parse(&text, &[]).expect("valid")
}

#[test]
fn every_secret_is_printed_as_stars_and_told_as_stars_in_an_error() {
    let secrets: Vec<_> = keys().into_iter().filter(|key| key.secret).collect();
    let config = whole();
    let printed = config.to_toml();
    assert_eq!(printed.matches("= \"***\"").count(), secrets.len(), "{printed}");
    let debugged = format!("{config:?}");
    assert!(!printed.contains("hunter2") && !debugged.contains("hunter2"), "{printed}{debugged}");
    for key in &secrets {
        for (name, value) in [
            (key.name.to_owned(), format!("[\"{WORD}\"]")),
            (format!("{}s", key.name), format!("\"{WORD}\"")),
            (key.name.replace("se", "es").replace("ss", "s"), format!("\"{WORD}\"")),
        ] {
            for text in [
                format!("[{}]\n{name} = {value}\n", key.section),
                format!("[[{}]]\n{name} = {value}\n", key.section),
            ] {
                let error = parse(&text, &[]).expect_err(&text);
                assert!(!error.contains("hunter2"), "{text}{error}");
            }
        }
    }
}

#[test]
fn wrong_rules_of_the_door_are_told_and_the_secret_is_not() {
    let error = parse(
        "[auth]\nallowed_origins = [\"example.com\"]\nsources = [\"cokie\"]\nmode = \"tokn\"\n\
         secret = 7\nsecrt = \"hunter2\"\n",
        &["auth.secret=***"],
    )
    .expect_err("wrong");
    for part in [
        "throng.toml:2: auth.allowed_origins = [\"example.com\"]: expected a list",
        "did you mean \"cookie\"?",
        "did you mean \"token\"?",
        "throng.toml:5: auth.secret = \"***\": expected text",
        "throng.toml:6: auth.secrt = \"***\": there is no such key; did you mean auth.secret?",
        "--set: auth.secret = \"***\": expected text",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
    let config = parse("", &["auth.secret=hunter2hunter2"]).expect("valid");
    let printed = format!("{}{config:?}", config.to_toml());
    assert!(printed.contains("secret = \"***\"") && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn who_logs_in_by_a_url_is_told_neither_in_an_error_nor_by_print_config() {
    let url = format!("https://svc:{WORD}@id.example.com/jwks.json");
    let odd = format!("https://svc:p/{WORD}?#@id.example.com/jwks.json");
    for url in [&url, &odd] {
        for text in [
            format!("[auth]\njwks_url = \"{url}\"\n"),
            format!("[auth_webhook]\nurl = \"{url}\"\n"),
            format!("[[webhook]]\nname = \"b\"\nurl = \"{url}\"\n"),
            format!("[[proxy]]\npath = \"/a/\"\nto = \"{url}\"\n"),
        ] {
            let error = parse(&text, &[]).expect_err(&text);
            assert!(error.contains("without a user"), "{error}");
            assert!(error.contains("\"https://***@id.example.com/"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = parse("", &[&format!("auth.jwks_url={url}")]).expect_err("a user");
        assert!(!error.contains("hunter2"), "{error}");
    }
    // The bridge refuses it at start, and what is printed before says no more.
    let seeds = format!("bridge.seeds=[\"redis://b:1\", \"redis://:{WORD}@c:1\"]");
    let sets = [&*format!("bridge.url=redis://svc:{WORD}@a:1"), "bridge.cluster=true", &seeds];
    let printed = parse("", &sets).expect("a text").to_toml();
    for line in ["url = \"redis://***@a:1\"", "seeds = [\"redis://b:1\", \"redis://***@c:1\"]"] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_url_without_a_user_is_shown_as_it_is() {
    for text in [
        "",
        "\"none\"",
        "\"https://id.example.com/a@1/jwks.json\"",
        "[\"redis://a:1\", \"redis+unix:///tmp/r@1\"]",
        "\"a@b.example\"",
        "\"https://\"",
    ] {
        assert_eq!(veil(text, AUTHORITY), text);
    }
}
