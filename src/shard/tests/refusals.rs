//! What a client is told of a token that is not taken: one table, in every place that tells it.
//!
//! The words are for people and say no more than a client may know: what is wrong with a signature, a key or a claim
//! is one sentence for all of it, so that whoever guesses learns nothing. What exactly it was, is counted.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::{Access, Claimed, Revocation, Source, Ticket, TokenError, mint};
use crate::shard::Mail;
use crate::shard::tests::guard::{ada, ask, bearer, enter, guarded, knock, login, tickets, token};
use crate::shard::tests::rig::{Rig, frame};

const PAGE: &str = "Origin: http://a\r\n";
const INVALID: &str = "the token is not valid";
const HS256: &str = r#"{"alg":"HS256"}"#;

fn strict(access: &mut Access) {
    let rules = &mut access.verifier.rules;
    rules.max_bytes = 300;
    rules.require_expiry = true;
    rules.issuers = vec!["us".to_owned()];
    rules.metadata_bytes = 8;
}

/// A token with this header and these claims, signed as all good ones are.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of no less than 32 byte");
    let tag = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// Good claims but for this.
fn but(change: &Value) -> String {
    let mut claims = json!({"sub": "ada", "iss": "us", "exp": 5000});
    for (name, value) in change.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    signed(HS256, &claims.to_string())
}

/// Tokens that are refused by what they are, each with what is wrong and what is said of it.
fn table() -> Vec<(String, TokenError, &'static str)> {
    let good = r#"{"sub":"ada","iss":"us","exp":5000}"#;
    let forged = format!("{}x", but(&json!({})));
    let claim = |change: Value, which| (but(&change), TokenError::Claim(which), INVALID);
    vec![
        ("x".repeat(301), TokenError::TooLong, "the token is too long"),
        ("a.b".to_owned(), TokenError::Shape, INVALID),
        (signed("[]", good), TokenError::Header, INVALID),
        (signed(r#"{"alg":"nOnE"}"#, good), TokenError::Unsigned, INVALID),
        (signed(r#"{"alg":"HS257"}"#, good), TokenError::UnknownAlgorithm, INVALID),
        (signed(r#"{"alg":"HS256","crit":["x"]}"#, good), TokenError::Critical, INVALID),
        (signed(r#"{"alg":"RS256"}"#, good), TokenError::UnknownKey, INVALID),
        (forged, TokenError::Signature, INVALID),
        (signed(HS256, "[1]"), TokenError::Claims, INVALID),
        claim(json!({"sub": 7}), Claimed::User),
        claim(json!({"tenant": 7}), Claimed::Tenant),
        claim(json!({"jti": 7}), Claimed::Token),
        claim(json!({"exp": "soon"}), Claimed::Time),
        claim(json!({"rooms": 7}), Claimed::Rooms),
        claim(json!({"limits": 7}), Claimed::Limits),
        claim(json!({"meta": {"a": "0123456789"}}), Claimed::Metadata),
        claim(json!({"iss": 7}), Claimed::Party),
        claim(json!({"deny": 7}), Claimed::Veto),
        (signed(HS256, r#"{"sub":"ada","iss":"us"}"#), TokenError::NoExpiry, INVALID),
        (but(&json!({"exp": 59})), TokenError::Expired, "the token has expired"),
        (but(&json!({"nbf": 4000})), TokenError::NotYetValid, "the token is not valid yet"),
        (but(&json!({"aud": "others"})), TokenError::Audience, INVALID),
        (but(&json!({"iss": "them"})), TokenError::Issuer, INVALID),
    ]
}

/// The code and the words of the close frame that ends what was said.
fn farewell(bytes: &[u8]) -> Option<(u16, String)> {
    let at = bytes.iter().rposition(|byte| *byte == 0x88)?;
    let code = u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
    Some((code, String::from_utf8_lossy(&bytes[at + 4..]).into_owned()))
}

fn closed(words: &str) -> Option<(u16, String)> {
    Some((1008, words.to_owned()))
}

fn by(sources: &[Source], change: impl FnOnce(&mut Access)) -> Rig {
    Rig::new(0, 1, guarded(sources, change))
}

/// The response to a program that knocks with these lines.
fn refused(rig: &mut Rig, target: &str, lines: &str) -> String {
    let conn = knock(rig, target, lines);
    String::from_utf8(rig.bytes(conn)).expect("text")
}

#[test]
fn every_token_that_is_refused_is_told_why_in_every_place_and_no_more_than_that() {
    for (token, error, words) in table() {
        let cell = format!("{error:?}");
        let lines = format!("Authorization: Bearer {token}\r\n");
        let mut rig = by(&[Source::Header], strict);
        let verifier = rig.shard.settings.access.verifier.clone();
        assert_eq!(verifier.verify(&token, 60).err(), Some(error), "{cell}");
        let response = refused(&mut rig, "/ws", &lines);
        assert!(response.starts_with("HTTP/1.1 401 "), "{cell}: {response}");
        assert!(response.ends_with(&format!("\r\n\r\n{words}\n")), "{cell}: {response}");

        let mut rig = by(&[Source::Header], |access| {
            strict(access);
            access.browser_errors = true;
        });
        let conn = knock(&mut rig, "/ws", &format!("{lines}{PAGE}"));
        assert_eq!(farewell(&rig.bytes(conn)), closed(words), "{cell}: a page");

        let auth = json!({"type": "throng:auth", "token": token, "ref": 1}).to_string();
        let mut rig = by(&[Source::Message], strict);
        let conn = knock(&mut rig, "/ws", "");
        rig.say(conn, &auth);
        rig.settle();
        assert_eq!(farewell(&rig.bytes(conn)), closed(words), "{cell}: a first message");

        let mut rig = by(&[Source::Header], strict);
        let conn =
            knock(&mut rig, "/ws", &format!("Authorization: Bearer {}\r\n", but(&json!({}))));
        assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 101 "), "{cell}");
        let answer = ask(&mut rig, conn, &auth);
        assert_eq!((&answer["code"], &answer["message"]), (&json!("unauthorized"), &json!(words)));
        let pong = ask(&mut rig, conn, r#"{"type":"throng:ping"}"#);
        assert_eq!(pong["type"], "throng:pong", "{cell}: the old token goes on");
    }
}

#[test]
fn what_is_no_fault_of_the_tokens_own_is_told_in_its_own_words() {
    let browser = |access: &mut Access| access.browser_errors = true;
    // None at all, and more than one.
    let mut rig = by(&[Source::Header], browser);
    for (lines, words) in [
        (String::new(), "a token is needed"),
        (bearer(&ada()).repeat(2), "there is more than one token, or one that cannot be read"),
    ] {
        assert!(refused(&mut rig, "/ws", &lines).ends_with(&format!("\r\n\r\n{words}\n")));
        let conn = knock(&mut rig, "/ws", &format!("{lines}{PAGE}"));
        assert_eq!(farewell(&rig.bytes(conn)), closed(words));
    }
    // Revoked before it comes, and while it is in.
    let conn = enter(&mut rig, &ada());
    let revocation = Revocation::User { tenant: None, user: "ada".into(), issued: 51, until: 6000 };
    rig.take(Mail::Revoke(Arc::new(revocation)));
    rig.settle();
    let revoked = "the token has been revoked";
    assert_eq!(farewell(&rig.bytes(conn)), closed(revoked));
    let conn = knock(&mut rig, "/ws", &format!("{}{PAGE}", bearer(&ada())));
    assert_eq!(farewell(&rig.bytes(conn)), closed(revoked));
    // Somebody else's, on a connection that is somebody's; and the end of a token that was good.
    let conn = enter(&mut rig, &json!({"sub": "bob", "exp": 80, "rooms": []}));
    let other = ask(&mut rig, conn, &login(&json!({"sub": "eve", "exp": 5000})));
    assert_eq!(other["message"], "the token is for somebody else");
    for _ in 0..21 {
        rig.later(Duration::from_secs(1));
        rig.receive(conn, &frame(0x8a, b""));
        rig.settle();
    }
    let last = farewell(&rig.bytes(conn));
    assert_eq!(last, Some((4401, "the token has expired".to_owned())));
    // The application's no has its own words, and these where it gives none.
    let conn = knock(
        &mut rig,
        "/ws",
        &format!("{}{PAGE}", bearer(&json!({"sub": "x", "exp": 5000, "deny": true}))),
    );
    assert_eq!(farewell(&rig.bytes(conn)), closed("the application refuses this"));
}

#[test]
fn a_ticket_that_is_used_ended_or_made_up_is_told_as_such() {
    let mut rig = by(&[Source::Ticket], |access| access.browser_errors = true);
    let claims = r#"{"sub":"ada","rooms":["a"],"exp":5000}"#;
    let ticket = |id, expires| mint(&tickets(), claims, Ticket { id, expires }).expect("a ticket");
    let good = ticket(1, 120);
    let conn = knock(&mut rig, &format!("/ws?ticket={good}"), PAGE);
    assert!(rig.bytes(conn).starts_with(b"HTTP/1.1 101 "));
    let invalid = "the ticket is not valid, or has been used";
    for (text, words) in [
        (good, invalid),
        (ticket(2, 59), "the token has expired"),
        (format!("{}x", ticket(3, 120)), invalid),
        (token(&ada()), invalid),
        ("x".repeat(7000), "the token is too long"),
    ] {
        let conn = knock(&mut rig, &format!("/ws?ticket={text}"), PAGE);
        assert_eq!(farewell(&rig.bytes(conn)), closed(words), "{} bytes", text.len());
    }
}
