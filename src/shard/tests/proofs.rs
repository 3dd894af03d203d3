//! Tokens that are checked beside the shard: at the door, in a first message and while a connection is open.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::auth::{Access, Consult, KeySet, Proof, ProofRules, Revocation, Source};
use crate::base::id::ConnId;
use crate::contract::Event;
use crate::shard::Mail;
use crate::shard::tests::consult::consult;
use crate::shard::tests::guard::{ada, answer, ask, bearer, guarded, join, keys, knock, login};
use crate::shard::tests::rig::{Heard, Rig};

const PAGE: &str = "Origin: https://app.example\r\n";

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key")
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these claims that a public key is needed for.
fn dear(claims: &Value) -> String {
    let message = format!("{}.{}", encode(br#"{"alg":"EdDSA"}"#), encode(claims.to_string()));
    let signature = pair().sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn shown(claims: &Value) -> String {
    format!("Authorization: Bearer {}\r\n", dear(claims))
}

fn fresh(claims: &Value) -> String {
    json!({"type": "throng:auth", "token": dear(claims), "ref": 9}).to_string()
}

/// A shard that has curves checked beside it, two at a time.
fn rig(source: Source, change: impl FnOnce(&mut Access)) -> Rig {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
        "x": encode(pair().public_key())});
    let public = json!({ "keys": [key] }).to_string();
    let all = KeySet::from_jwks(public.as_bytes()).and_then(|set| set.and(keys())).expect("keys");
    let mut settings = guarded(&[source], |access| {
        access.verifier.keys = all.clone();
        access.proofs = ProofRules { above_us: Some(10), most_waiting: 2 };
        change(access);
    });
    settings.own_keys = all;
    Rig::new(0, 1, settings)
}

/// What is to be checked elsewhere, in order.
fn wanted(rig: &mut Rig) -> Vec<Proof> {
    let mut wanted = Vec::new();
    rig.shard.poll_proofs(&mut |proof| {
        wanted.push(proof);
        Ok(())
    });
    wanted
}

/// Checks that and gives the answer.
fn answered(rig: &mut Rig, proof: &Proof) {
    rig.take(Mail::Proven(Box::new(proof.check())));
    rig.settle();
    rig.settle();
    rig.shard.check();
}

/// A client at the door whose token is being checked.
fn held(rig: &mut Rig, headers: &str) -> (ConnId, Proof) {
    let conn = knock(rig, "/ws", headers);
    assert!(rig.bytes(conn).is_empty(), "nothing is said before it is known");
    let mut wanted = wanted(rig);
    assert_eq!(wanted.len(), 1);
    (conn, wanted.remove(0))
}

/// A client that has come in by a token that was checked elsewhere.
fn inside(rig: &mut Rig, claims: &Value) -> ConnId {
    let (conn, proof) = held(rig, &shown(claims));
    answered(rig, &proof);
    assert!(answer(rig, conn).0.starts_with("HTTP/1.1 101 "));
    conn
}

#[test]
fn a_dear_token_is_checked_elsewhere_and_a_shared_secret_here() {
    let mut rig = rig(Source::Header, |_| {});
    let conn = knock(&mut rig, "/ws", &bearer(&ada()));
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    assert!(wanted(&mut rig).is_empty());
    let (conn, proof) = held(&mut rig, &shown(&ada()));
    assert_eq!((proof.number, proof.unix), (1, 60));
    answered(&mut rig, &proof);
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let [Heard::Text(hello)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((&hello["type"], &hello["userId"]), (&json!("throng:connected"), &json!("ada")));
    assert_eq!(ask(&mut rig, conn, &join("a"))["ok"], json!(true), "with its grants");
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_proofs_total, counters.auth_proofs_shed_total), (1, 0));
    assert_eq!((counters.logins_total, counters.handshakes_total), (2, 2));
}

#[test]
fn what_is_wrong_with_a_dear_token_is_said_as_of_any_other() {
    let mut rig = rig(Source::Header, |access| access.browser_errors = true);
    let forged = shown(&ada()).replacen(".ey", ".eX", 1);
    let expired = shown(&json!({"sub": "ada", "exp": 59}));
    let barred = shown(&json!({"sub": "ada", "exp": 500, "deny": "suspended"}));
    for (headers, status) in [(&forged, "401"), (&expired, "401"), (&barred, "403")] {
        let (conn, proof) = held(&mut rig, headers);
        answered(&mut rig, &proof);
        assert_eq!(&rig.response(conn)[9..12], status);
    }
    let (conn, proof) = held(&mut rig, &format!("{expired}{PAGE}"));
    answered(&mut rig, &proof);
    let (head, frames) = answer(&mut rig, conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "a page reads close frames");
    assert_eq!(frames, [Heard::Close(1008)]);
    let counters = rig.shard.counters();
    assert_eq!((counters.auth_expired_total, counters.auth_vetoed_total), (2, 1));
    assert_eq!((counters.auth_refused_total, counters.handshakes_refused_total), (4, 3));
    assert_eq!((counters.logins_total, counters.memberships), (0, 0));
}

#[test]
fn a_client_that_goes_away_in_mid_check_leaves_nothing() {
    let mut rig = rig(Source::Header, |_| {});
    let (conn, proof) = held(&mut rig, &shown(&ada()));
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    rig.event(Event::Lost { conn, error });
    rig.settle();
    rig.settle();
    let other = rig.accept().expect("let in");
    assert_eq!(other.index, conn.index, "the place is somebody else's");
    answered(&mut rig, &proof);
    assert!(rig.bytes(other).is_empty());
    let counters = rig.shard.counters();
    assert_eq!((counters.logins_total, counters.handshakes_total, counters.memberships), (0, 0, 0));
    // The number is free again: two more may wait.
    let waiting = [(); 2].map(|()| held(&mut rig, &shown(&ada())));
    for (conn, proof) in waiting {
        answered(&mut rig, &proof);
        assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    }
}

#[test]
fn more_than_may_wait_are_sent_away_and_told_when_to_come_back() {
    let mut rig = rig(Source::Header, |access| access.browser_errors = true);
    let first = [(); 2].map(|()| held(&mut rig, &shown(&ada())));
    let conn = knock(&mut rig, "/ws", &shown(&ada()));
    let text = rig.response(conn);
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After: 2\r\n"), "{text}");
    let conn = knock(&mut rig, "/ws", &format!("{}{PAGE}", shown(&ada())));
    assert_eq!(answer(&mut rig, conn).1, [Heard::Close(1013)]);
    let conn = knock(&mut rig, "/ws", &bearer(&ada()));
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "), "a secret needs no place");
    assert!(wanted(&mut rig).is_empty());
    for (conn, proof) in first {
        answered(&mut rig, &proof);
        assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    }
    inside(&mut rig, &ada());
    assert_eq!(rig.shard.counters().auth_proofs_shed_total, 2);
}

#[test]
fn who_is_revoked_in_mid_check_does_not_come_in() {
    let mut rig = rig(Source::Header, |_| {});
    let (conn, proof) = held(&mut rig, &shown(&ada()));
    let revocation = Revocation::User { tenant: None, user: "ada".into(), issued: 51, until: 6000 };
    rig.take(Mail::Revoke(std::sync::Arc::new(revocation)));
    answered(&mut rig, &proof);
    assert!(rig.response(conn).starts_with("HTTP/1.1 401 "));
    assert_eq!(rig.shard.counters().auth_revoked_total, 1);
}

#[test]
fn the_back_end_is_asked_about_a_newcomer_once_its_token_is_found_good() {
    let mut rig =
        rig(Source::Header, |access| access.consult = Some(Consult { connect: true, ..consult() }));
    let (conn, proof) = held(&mut rig, &shown(&ada()));
    assert!(rig.asked().is_empty(), "nobody is asked about a stranger");
    answered(&mut rig, &proof);
    let asked = rig.asked();
    assert_eq!((asked.len(), &asked[0].1["userId"]), (1, &json!("ada")));
    rig.rule(asked[0].0, r#"{"allow":true}"#);
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_first_message_waits_for_its_check_and_what_follows_waits_behind_it() {
    let mut rig = rig(Source::Message, |_| {});
    let conn = knock(&mut rig, "/ws", "");
    assert!(answer(&mut rig, conn).0.starts_with("HTTP/1.1 101 "));
    rig.say(conn, &fresh(&ada()));
    rig.say(conn, &join("a"));
    rig.settle();
    assert_eq!(rig.heard(conn), []);
    let proof = wanted(&mut rig).remove(0);
    answered(&mut rig, &proof);
    let heard = rig.heard(conn);
    let [Heard::Text(hello), Heard::Text(known), Heard::Text(joined)] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(hello["userId"], json!("ada"));
    assert_eq!((&known["userId"], &known["ref"]), (&json!("ada"), &json!(9)));
    assert_eq!((&joined["ok"], &joined["ref"]), (&json!(true), &json!(1)));
}

#[test]
fn fresh_tokens_hold_in_the_order_in_which_they_were_said() {
    let mut rig = rig(Source::Header, |_| {});
    let conn = inside(&mut rig, &ada());
    let of = |room: &str| json!({"sub": "ada", "exp": 900, "rooms": [room]});
    rig.say(conn, &fresh(&of("x")));
    rig.say(conn, &join("x"));
    // This one would be known at once, and would be overtaken by the first.
    rig.say(conn, &login(&of("y")));
    rig.say(conn, &join("x"));
    rig.say(conn, &join("y"));
    rig.settle();
    assert_eq!(rig.heard(conn), []);
    let proof = wanted(&mut rig).remove(0);
    answered(&mut rig, &proof);
    let heard = rig.heard(conn);
    let told: Vec<Value> = heard
        .iter()
        .filter_map(|frame| match frame {
            Heard::Text(text) if text["ref"] == json!(1) => Some(text["code"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(told, [Value::Null, json!("forbidden"), Value::Null], "{heard:?}");
    assert_eq!(rig.shard.counters().reauths_total, 2);
    // Somebody else's is refused, and the session lives.
    rig.say(conn, &fresh(&json!({"sub": "bob", "exp": 900})));
    let proof = wanted(&mut rig).remove(0);
    answered(&mut rig, &proof);
    let heard = rig.heard(conn);
    let [Heard::Text(error)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&error["code"], &error["ref"]), (&json!("unauthorized"), &json!(9)));
}

#[test]
fn a_fresh_token_beyond_what_may_wait_is_refused_and_the_session_lives() {
    let mut rig = rig(Source::Header, |_| {});
    let conn = inside(&mut rig, &ada());
    let first = [(); 2].map(|()| held(&mut rig, &shown(&ada())));
    assert_eq!(ask(&mut rig, conn, &fresh(&ada()))["code"], "overloaded");
    assert_eq!(ask(&mut rig, conn, &join("a"))["ok"], json!(true));
    for (_, proof) in first {
        answered(&mut rig, &proof);
    }
}
