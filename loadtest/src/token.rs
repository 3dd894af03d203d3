//! Tokens of clients: a JSON Web Token (RFC 7519) for each, signed with HMAC and SHA-256 (RFC 7515).
//!
//! Every client is a user of its own, `load-N`, and is granted every room, since what is measured is what a
//! known user costs and not who is turned away. The signature comes from other code than the engine's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Seconds that a token is good for: longer than any run.
const LIFE_S: u64 = 86_400;

/// The token of the client with that number, from `now`, in seconds since 1970.
///
/// # Errors
/// When the secret cannot be a key.
pub(crate) fn mint(secret: &str, who: u32, now: u64) -> Result<String, String> {
    let claims = serde_json::json!({
        "sub": format!("load-{who}"),
        "iat": now,
        "exp": now + LIFE_S,
        "rooms": ["*"],
    });
    sign(secret, r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

fn sign(secret: &str, header: &str, claims: &str) -> Result<String, String> {
    let mut token =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut code = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map_err(|error| format!("--token-secret: {error}"))?;
    code.update(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(code.finalize().into_bytes(), &mut token);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.1 in other words: the example that every library is tried with.
    #[test]
    fn a_token_is_signed_as_everybody_signs_it() {
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        let token = sign("your-256-bit-secret", r#"{"alg":"HS256","typ":"JWT"}"#, claims);
        let expected = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                        eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.\
                        SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        assert_eq!(token.as_deref(), Ok(expected));
    }

    #[test]
    fn each_client_is_a_user_of_its_own_for_a_day() {
        let token = mint("secret", 7, 1_000).expect("a token");
        let claims = token.split('.').nth(1).expect("claims");
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!((&claims["sub"], &claims["exp"]), (&"load-7".into(), &87_400.into()));
        assert_ne!(mint("secret", 8, 1_000), Ok(token));
    }
}
