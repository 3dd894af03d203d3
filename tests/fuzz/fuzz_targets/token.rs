//! Tokens: any text, and any header and claims under a good signature.
//!
//! The first byte chooses. Claims that are signed get past the signature, so that the reader of claims
//! meets what the fuzzer wrote; a text of its own is never valid, as the secret is not in it. An identity
//! that is given keeps its bounds. The same text, as a ticket, as a JWK set and as a target to be handed on,
//! is judged without a panic, and no secret is left in what another server is handed.

#![no_main]

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use throng::auth::{
    Algorithm, Identity, Key, KeySet, MAX_NAME_BYTES, Source, SourceRules, TicketKey, TokenRules,
    Verifier,
};

const SECRET: &[u8; 32] = b"a secret of no less than 32 byte";
const NOW: u64 = 1_700_000_000;

fuzz_target!(|data: &[u8]| {
    let [kind, rest @ ..] = data else { return };
    let key = Key::from_secret(Algorithm::Hs256, SECRET, None).expect("a key");
    let keys = KeySet::new(vec![key]).expect("a set");
    let rules = TokenRules { require_expiry: false, ..TokenRules::default() };
    let verifier = Verifier { keys, rules };
    let text = String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => assert!(verifier.verify(&text, NOW).is_err(), "a forged token"),
        1 => {
            if let Ok(identity) = verifier.verify(&signed(br#"{"alg":"HS256"}"#, rest), NOW) {
                check(&identity);
            }
        }
        2 => {
            let at = rest.len() / 2;
            if let Ok(identity) = verifier.verify(&signed(&rest[..at], &rest[at..]), NOW) {
                check(&identity);
            }
        }
        _ => {
            assert!(TicketKey::new(SECRET).read(&text, NOW).is_err(), "a forged ticket");
            if let Ok(set) = KeySet::from_jwks(rest) {
                assert!(!set.is_empty() && set.keys().len() <= 64);
            }
            // A space or a line's end would end the target before the secret, and so it is none there.
            let text = text.replace(char::is_whitespace, "+");
            let mut request =
                format!("GET /ws?{text}&token=SECRET&b HTTP/1.1\r\n\r\n").into_bytes();
            let rules = SourceRules { order: vec![Source::Query], ..SourceRules::default() };
            rules.withhold(&mut request);
            // What the fuzzer wrote may hold the word too, and is no secret.
            let handed_on = String::from_utf8_lossy(&request);
            assert!(text.contains("SECRET") || !handed_on.contains("SECRET"));
        }
    }
});

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn check(identity: &Identity) {
    let names = [Some(&identity.user), identity.tenant.as_ref(), identity.token.as_ref()];
    for name in names.into_iter().flatten() {
        assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES);
        assert!(!name.contains(char::is_control));
    }
    assert!(identity.grants.iter().count() <= 256);
    assert!(identity.expires.is_none_or(|ends| ends + 30 > NOW));
}
