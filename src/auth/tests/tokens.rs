//! Tokens that are in order, and those that are so but for one thing.

use std::num::NonZeroU32;

use super::vectors::{NOW, jwks, rules, signed, token, vectors, verifier};
use crate::auth::{Algorithm, Claimed, Key, KeySet, Right, TokenError, TokenRules, Verifier};

#[test]
fn a_token_of_every_algorithm_is_accepted_and_says_who_it_is_for() {
    let vectors = vectors();
    assert_eq!(vectors.algorithms.len(), Algorithm::ALL.len());
    let all: Vec<_> = vectors.algorithms.values().map(|vector| &vector.key).collect();
    let verifier = Verifier { keys: jwks(&all), rules: rules() };
    for (name, vector) in &vectors.algorithms {
        let identity = verifier.verify(&vector.token, NOW).expect(name);
        assert_eq!((&*identity.user, identity.tenant.as_deref()), ("ada", Some("acme")), "{name}");
        assert_eq!(identity.token.as_deref(), Some("t-1"));
        assert_eq!(identity.issued, Some(1_700_000_000));
        assert_eq!(identity.expires, Some(1_700_003_600));
        assert!(identity.grants.allows("ticker:ACME", Right::Join));
        assert!(!identity.grants.allows("ticker:ACME", Right::Publish));
        assert!(identity.grants.allows("lobby", Right::Publish));
        assert!(!identity.grants.allows("elsewhere", Right::Join));
    }
}

#[test]
fn a_token_of_every_algorithm_is_refused_with_one_bit_changed_anywhere() {
    let vectors = vectors();
    let all: Vec<_> = vectors.algorithms.values().map(|vector| &vector.key).collect();
    let verifier = Verifier { keys: jwks(&all), rules: rules() };
    let (mut cases, mut bits) = (0, 0);
    for (name, vector) in &vectors.algorithms {
        for at in 0..vector.token.len() {
            for bit in 0..8 {
                bits += 1;
                let mut bytes = vector.token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                // With the highest bit it is no text, and whoever reads the request refuses it.
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let verdict = verifier.verify(&text, NOW);
                assert!(verdict.is_err(), "{name}, byte {at}, bit {bit}");
                cases += 1;
            }
        }
    }
    let whole: usize = vectors.algorithms.values().map(|vector| vector.token.len()).sum();
    assert!(whole > 6 * 400, "{whole} bytes");
    assert_eq!((cases, bits), (whole * 7, whole * 8));
}

/// What a token of one algorithm becomes when it claims another.
fn renamed(token: &str, alg: &str, id: Option<&str>) -> String {
    let (_, rest) = token.split_once('.').expect("three parts");
    let header = match id {
        Some(id) => format!(r#"{{"alg":"{alg}","kid":"{id}"}}"#),
        None => format!(r#"{{"alg":"{alg}"}}"#),
    };
    format!("{}.{rest}", super::vectors::b64(header))
}

#[test]
fn a_public_key_is_never_taken_for_one_of_another_algorithm() {
    let vectors = vectors();
    let mut cases = 0;
    for (own, vector) in &vectors.algorithms {
        // A key without a name is tried with every token of its algorithm, so the name saves nothing here.
        let mut nameless = vector.key.clone();
        nameless.as_object_mut().expect("a key").remove("kid");
        let verifier = Verifier { keys: jwks(&[&nameless]), rules: rules() };
        assert!(verifier.verify(&vector.token, NOW).is_ok(), "{own} as it should be");
        for (other, foreign) in vectors.algorithms.iter().filter(|(other, _)| *other != own) {
            for id in [None, Some(own.as_str()), Some(other.as_str())] {
                let verdict = |text: &str| verifier.verify(text, NOW).map(|_| ()).err();
                // The other's token says what it is; then it says that it is one of ours; then ours says that it is
                // one of the other's.
                let said = renamed(&foreign.token, other, id);
                assert_eq!(verdict(&said), Some(TokenError::UnknownKey), "{other} with {own}");
                let forged = renamed(&foreign.token, own, id);
                assert_eq!(verdict(&forged), Some(TokenError::Signature), "{other} as {own}");
                let moved = renamed(&vector.token, other, id);
                assert_eq!(verdict(&moved), Some(TokenError::UnknownKey), "{own} as {other}");
                cases += 3;
            }
            // A key that is called what it is not is no key.
            let mut called = vector.key.clone();
            called["alg"] = other.as_str().into();
            let document = serde_json::json!({"keys": [called]}).to_string();
            let shared = own.starts_with("HS") && other.starts_with("HS");
            assert_eq!(KeySet::from_jwks(document.as_bytes()).is_ok(), shared, "{own} as {other}");
            cases += 1;
        }
    }
    assert_eq!(cases, 6 * 5 * 10);
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_secret() {
    let vectors = vectors();
    let claims =
        r#"{"sub":"mallory","exp":1700003600,"aud":"throng","iss":"https://issuer.example"}"#;
    for name in ["RS256", "ES256", "EdDSA"] {
        let vector = &vectors.algorithms[name];
        let pem = vector.pem.as_deref().expect("a public key");
        let key = Key::from_pem(pem.as_bytes(), Some(name)).expect("a usable key");
        let verifier = Verifier { keys: KeySet::new(vec![key]).expect("a set"), rules: rules() };
        assert!(verifier.verify(&vector.token, NOW).is_ok(), "{name} as it should be");
        for header in
            [r#"{"alg":"HS256"}"#.to_owned(), format!(r#"{{"alg":"HS256","kid":"{name}"}}"#)]
        {
            for secret in [pem, pem.trim_end(), &vector.key["x"].to_string()] {
                let forged = signed(&header, claims, secret.as_bytes());
                assert_eq!(verifier.verify(&forged, NOW).err(), Some(TokenError::UnknownKey));
            }
        }
    }
}

#[test]
fn a_token_without_a_signature_is_refused_however_it_spells_it() {
    let claims = r#"{"sub":"mallory","exp":1700003600}"#;
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        let whole = signed(&header, claims, super::vectors::SECRET);
        let bare = whole.rsplit_once('.').map_or("", |(message, _)| message);
        for text in [whole.clone(), format!("{bare}.")] {
            assert_eq!(verifier().verify(&text, NOW).err(), Some(TokenError::Unsigned), "{alg}");
        }
    }
    let bare = token(claims);
    let (message, _) = bare.rsplit_once('.').expect("three parts");
    let without = format!("{message}.");
    assert_eq!(verifier().verify(&without, NOW).err(), Some(TokenError::Signature));
}

#[test]
fn a_key_serves_only_tokens_of_its_name_and_nameless_ones_serve_all() {
    let claims = r#"{"sub":"ada","exp":1700003600}"#;
    let secrets = [[1_u8; 32], [2; 32], [3; 32]];
    let key = |at: usize, id| Key::from_secret(Algorithm::Hs256, &secrets[at], id).expect("a key");
    let named = vec![key(0, Some("a")), key(1, Some("b"))];
    let verify = |keys: &[Key], header: &str, at: usize| {
        let keys = KeySet::new(keys.to_vec()).expect("a set");
        let verifier = Verifier { keys, rules: TokenRules::default() };
        verifier.verify(&signed(header, claims, &secrets[at]), NOW).map(|_| ()).err()
    };
    let of = |id: &str| format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    assert_eq!(verify(&named, &of("a"), 0), None);
    assert_eq!(verify(&named, &of("b"), 1), None);
    assert_eq!(verify(&named, &of("a"), 1), Some(TokenError::Signature));
    assert_eq!(verify(&named, &of("c"), 0), Some(TokenError::UnknownKey));
    assert_eq!(verify(&named, r#"{"alg":"HS256"}"#, 1), None, "no name: each is tried");
    let with_nameless = [named, vec![key(2, None)]].concat();
    assert_eq!(verify(&with_nameless, &of("c"), 2), None);
    assert_eq!(verify(&with_nameless, &of("a"), 2), None);
    assert_eq!(verify(&[], &of("a"), 0), Some(TokenError::UnknownKey));
}

#[test]
fn a_token_is_valid_from_its_begin_to_its_end_with_the_leeway_on_both_sides() {
    let text = token(r#"{"sub":"ada","nbf":1000,"exp":2000}"#);
    let at = |now| verifier().verify(&text, now).map(|_| ()).err();
    assert_eq!(verifier().rules.leeway, 30);
    assert_eq!(at(969), Some(TokenError::NotYetValid));
    assert_eq!(at(970), None);
    assert_eq!(at(2029), None);
    assert_eq!(at(2030), Some(TokenError::Expired));
    assert_eq!(at(u64::MAX), Some(TokenError::Expired));
    let never = token(r#"{"sub":"ada","exp":18446744073709551615}"#);
    assert!(verifier().verify(&never, u64::MAX - 1).is_ok());
}

#[test]
fn a_token_without_an_end_needs_rules_that_allow_it() {
    let text = token(r#"{"sub":"ada"}"#);
    assert_eq!(verifier().verify(&text, NOW).err(), Some(TokenError::NoExpiry));
    let mut verifier = verifier();
    verifier.rules.require_expiry = false;
    assert_eq!(verifier.verify(&text, NOW).expect("allowed").expires, None);
}

#[test]
fn audience_and_issuer_are_held_to_the_rules() {
    let verdict = |audiences: &[&str], issuers: &[&str], claims: &str| {
        let mut verifier = verifier();
        verifier.rules.audiences = audiences.iter().map(|name| (*name).to_owned()).collect();
        verifier.rules.issuers = issuers.iter().map(|name| (*name).to_owned()).collect();
        let text = token(&format!(r#"{{"sub":"ada","exp":1700003600{claims}}}"#));
        verifier.verify(&text, NOW).map(|_| ()).err()
    };
    let (audience, issuer) = (Some(TokenError::Audience), Some(TokenError::Issuer));
    assert_eq!(verdict(&[], &[], ""), None);
    assert_eq!(verdict(&[], &[], r#","aud":"elsewhere""#), audience, "meant for somebody else");
    assert_eq!(verdict(&["a", "b"], &[], r#","aud":"b""#), None);
    assert_eq!(verdict(&["a"], &[], r#","aud":["x","a"]"#), None);
    assert_eq!(verdict(&["a"], &[], r#","aud":["x","A"]"#), audience);
    assert_eq!(verdict(&["a"], &[], r#","aud":[]"#), audience);
    assert_eq!(verdict(&["a"], &[], ""), audience);
    assert_eq!(verdict(&["a"], &[], r#","aud":7"#), Some(TokenError::Claim(Claimed::Party)));
    assert_eq!(verdict(&[], &["i"], r#","iss":"i""#), None);
    assert_eq!(verdict(&[], &["i"], r#","iss":"j""#), issuer);
    assert_eq!(verdict(&[], &["i"], ""), issuer);
    assert_eq!(verdict(&[], &[], r#","iss":"anyone""#), None);
}

#[test]
fn claims_are_found_under_the_names_that_the_issuer_uses() {
    let mut verifier = verifier();
    verifier.rules.metadata_bytes = 12;
    let names = &mut verifier.rules.names;
    (names.user, names.tenant) = ("uid".to_owned(), "org".to_owned());
    (names.rooms, names.metadata) = ("channels".to_owned(), "about".to_owned());
    let text = token(
        r#"{"uid":"bob","org":"o","channels":["a","b:*"],"about":{"v":[1, 2]},"exp":1700003600.75,
            "sub":"ignored","limits":{"rooms":3,"connections":2},"jti":null}"#,
    );
    let identity = verifier.verify(&text, NOW).expect("in order");
    assert_eq!((&*identity.user, identity.tenant.as_deref()), ("bob", Some("o")));
    assert!(identity.grants.allows("b:x", Right::Presence));
    assert_eq!(identity.metadata.expect("some").get(), r#"{"v":[1, 2]}"#);
    assert_eq!(identity.expires, Some(1_700_003_600));
    assert_eq!(identity.token, None);
    let limits = identity.limits.expect("some");
    assert_eq!((limits.rooms, limits.connections), (Some(3), NonZeroU32::new(2)));
}

#[test]
fn metadata_is_kept_where_the_rules_say_so_and_no_more_of_it_than_they_say() {
    let mut verifier = verifier();
    let text = token(r#"{"sub":"a","exp":1700003600,"meta":{"v":[1, 2]}}"#);
    let kept = |verifier: &Verifier| {
        let identity = verifier.verify(&text, NOW);
        identity.map(|identity| identity.metadata.map(|json| json.get().to_owned()))
    };
    assert_eq!(kept(&verifier), Ok(None));
    verifier.rules.metadata_bytes = 12;
    assert_eq!(kept(&verifier), Ok(Some(r#"{"v":[1, 2]}"#.to_owned())));
    verifier.rules.metadata_bytes = 11;
    assert_eq!(kept(&verifier), Err(TokenError::Claim(Claimed::Metadata)));
}

#[test]
fn what_a_client_is_told_says_nothing_about_keys() {
    let quiet = "the token is not valid";
    for error in [
        TokenError::Shape,
        TokenError::Header,
        TokenError::Unsigned,
        TokenError::UnknownAlgorithm,
        TokenError::UnknownKey,
        TokenError::Signature,
        TokenError::Audience,
        TokenError::Issuer,
        TokenError::Claim(Claimed::User),
    ] {
        assert_eq!(error.public(), quiet);
        assert_ne!(error.label(), "");
    }
    assert_eq!(TokenError::Expired.public(), "the token has expired");
}
