//! How a back end knows that a request comes from this node, and is not an old one again.
//!
//! The header holds the time and an HMAC over time and body, under a secret that both sides know:
//!
//! ```text
//! Throng-Signature: t=1750000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd
//! ```
//!
//! `v1` is HMAC-SHA256, in hexadecimal digits, of the time as written, a full stop and the body. Whoever
//! checks it compares in constant time and refuses times that are minutes away.

use aws_lc_rs::hmac;

use crate::base::secret::Secret;

/// The name of the header.
pub(super) const SIGNATURE: &str = "throng-signature";

/// The value of the header for this body at `now`, in seconds since 1970.
pub(super) fn signature(secret: &Secret, now: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{now}.").as_bytes());
    context.update(body);
    let digits: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={now},v1={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value was computed with OpenSSL: `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac SECRET`.
    #[test]
    fn a_signature_is_what_other_implementations_compute() {
        let secret = Secret::new("a secret of the back end");
        assert_eq!(
            signature(&secret, 1_700_000_000, br#"{"a":1}"#),
            "t=1700000000,v1=a1ee1e13fbd69c4aaab6a659d97ada3c3b81d8a1f03f80294694f2607e92583b"
        );
    }

    #[test]
    fn time_body_and_secret_each_change_it() {
        let of = |secret: &str, now, body: &str| {
            let signature = signature(&Secret::new(secret), now, body.as_bytes());
            signature.split_once("v1=").map(|(_, digits)| digits.to_owned()).unwrap_or_default()
        };
        let one = of("a", 12, "3.4");
        assert_eq!(one.len(), 64);
        for other in
            [of("b", 12, "3.4"), of("a", 13, "3.4"), of("a", 12, "3.5"), of("a", 1, "2.3.4")]
        {
            assert_ne!(one, other);
        }
    }
}
