//! Keys and tokens made by another implementation (Node's), and a few lines that sign by HMAC.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::auth::{Algorithm, ClaimNames, Key, KeySet, TokenRules, Verifier};

/// A moment at which the tokens of the vectors are valid.
pub(super) const NOW: u64 = 1_700_000_100;
/// The secret of the tests' own tokens.
pub(super) const SECRET: &[u8; 32] = b"a secret of no less than 32 byte";

#[derive(Deserialize)]
pub(super) struct Vector {
    pub(super) key: Value,
    pub(super) pem: Option<String>,
    pub(super) token: String,
}

#[derive(Deserialize)]
pub(super) struct Vectors {
    #[serde(flatten)]
    pub(super) algorithms: BTreeMap<String, Vector>,
    pub(super) unusable: Unusable,
}

#[derive(Deserialize)]
pub(super) struct Unusable {
    pub(super) pem: BTreeMap<String, String>,
}

pub(super) fn vectors() -> Vectors {
    let text = include_str!("../../../tests/vectors/tokens.json");
    serde_json::from_str(text).expect("the vectors")
}

pub(super) fn jwks(keys: &[&Value]) -> KeySet {
    let document = serde_json::json!({ "keys": keys });
    KeySet::from_jwks(document.to_string().as_bytes()).expect("usable keys")
}

/// What the tokens of the vectors need.
pub(super) fn rules() -> TokenRules {
    TokenRules {
        audiences: vec!["throng".to_owned()],
        issuers: vec!["https://issuer.example".to_owned()],
        names: ClaimNames { tenant: "tenantId".to_owned(), ..ClaimNames::default() },
        ..TokenRules::default()
    }
}

/// Checks the tests' own tokens, with the rules as they are by default.
pub(super) fn verifier() -> Verifier {
    let key = Key::from_secret(Algorithm::Hs256, SECRET, None).expect("a key");
    Verifier { keys: KeySet::new(vec![key]).expect("a set"), rules: TokenRules::default() }
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of that header and those claims, whatever they are.
pub(super) fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", b64(tag))
}

/// A token of those claims that is in order otherwise.
pub(super) fn token(claims: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims, SECRET)
}
