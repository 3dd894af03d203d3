//! Which keys are taken, and that none shows itself.

use serde_json::json;

use super::vectors::{NOW, SECRET, b64, jwks, rules, vectors};
use crate::auth::{Algorithm, Key, KeySet, Verifier};

#[test]
fn public_keys_are_read_from_pem_and_know_their_algorithm() {
    let vectors = vectors();
    for (name, vector) in &vectors.algorithms {
        let Some(pem) = &vector.pem else { continue };
        let key = Key::from_pem(pem.as_bytes(), None).expect(name);
        assert_eq!(key.algorithm().name(), name);
        let verifier = Verifier { keys: KeySet::new(vec![key]).expect("a set"), rules: rules() };
        assert!(verifier.verify(&vector.token, NOW).is_ok(), "{name}");
    }
}

#[test]
fn a_key_that_is_weak_private_or_none_is_refused_with_what_was_expected() {
    for (name, pem) in &vectors().unusable.pem {
        let error = Key::from_pem(pem.as_bytes(), None).expect_err(name).to_string();
        let expected = if name.contains("private") { "private" } else { "2048" };
        assert!(error.contains(expected), "{name}: {error}");
    }
    for text in ["", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        let error = Key::from_pem(text.as_bytes(), None).expect_err("no key").to_string();
        assert!(error.contains("P-256"), "{error}");
    }
    for (algorithm, bytes) in
        [(Algorithm::Hs256, 31), (Algorithm::Hs384, 47), (Algorithm::Hs512, 63)]
    {
        let short = vec![7; bytes];
        let error = Key::from_secret(algorithm, &short, None).expect_err("short").to_string();
        assert!(error.contains(&format!("at least {} bytes", bytes + 1)), "{error}");
        assert!(Key::from_secret(algorithm, &vec![7; bytes + 1], None).is_ok());
    }
    assert!(Key::from_secret(Algorithm::Rs256, SECRET, None).is_err());
}

#[test]
fn a_set_passes_over_what_it_cannot_use_and_is_an_error_when_nothing_is_left() {
    let vectors = vectors();
    let good = &vectors.algorithms["ES256"].key;
    let with = |name: &str, value: serde_json::Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let secret = b64([7; 32]);
    let unusable = [
        json!({}),
        json!(7),
        json!({"kty": "oct", "k": secret}),
        json!({"kty": "oct", "k": secret, "alg": "RS256"}),
        json!({"kty": "oct", "k": "AAAA", "alg": "HS256"}),
        json!({"kty": "OKP", "crv": "X25519", "x": secret}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "RSA", "e": "AQAB"}),
        with("use", json!("enc")),
        with("alg", json!("RS256")),
        with("alg", json!("RSA-OAEP")),
        with("crv", json!("P-521")),
        with("x", json!("****")),
        with("x", json!("AAAA")),
    ];
    for key in &unusable {
        let document = json!({ "keys": [key] }).to_string();
        assert!(KeySet::from_jwks(document.as_bytes()).is_err(), "{key}");
    }
    let mut all: Vec<&serde_json::Value> = unusable.iter().collect();
    all.push(good);
    let set = jwks(&all);
    assert_eq!(set.keys().len(), 1);
    assert_eq!(set.keys()[0].id(), Some("ES256"));
}

#[test]
fn a_set_is_bounded_and_must_be_one() {
    for document in ["", "{}", "[]", r#"{"keys":7}"#, r#"{"keys":[]}"#, "\u{feff}{}"] {
        assert!(KeySet::from_jwks(document.as_bytes()).is_err(), "{document}");
    }
    let large = format!(r#"{{"keys":[],"x":"{}"}}"#, "a".repeat(256 * 1024));
    let error = KeySet::from_jwks(large.as_bytes()).expect_err("too large").to_string();
    assert!(error.contains("262144"), "{error}");
    let key = json!({"kty": "oct", "alg": "HS256", "k": b64(SECRET)});
    let many = json!({ "keys": vec![key; 65] }).to_string();
    assert!(KeySet::from_jwks(many.as_bytes()).is_err());
}

#[test]
fn no_key_shows_itself_when_it_is_printed() {
    let key = Key::from_secret(Algorithm::Hs256, SECRET, Some("a")).expect("a key");
    let printed = format!("{key:?} {:?}", KeySet::new(vec![key.clone()]));
    assert!(printed.contains("Hs256") && printed.contains("\"a\""), "{printed}");
    assert!(!printed.contains("97, 32") && !printed.contains("a secret"), "{printed}");
}
