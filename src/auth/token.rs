//! A token's shape, signature and life (RFC 7515, RFC 7519).
//!
//! The order is that of cost and of trust: the length, the shape, what the header asks for, the signature,
//! and only then what the claims say. The library that knows the algorithms has a clock of its own; it is
//! not asked about time. Verification of an HS256 token is part of every handshake, so it reads each part
//! once.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::claims::{ClaimNames, Claims};
use super::identity::{Claimed, Identity, TokenError};
use super::key::{Algorithm, Key, KeySet};

/// What a token must be besides signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Bytes of a token.
    pub max_bytes: usize,
    /// How far the issuer's clock may be off, in seconds.
    pub leeway: u64,
    /// A token without an end is refused.
    pub require_expiry: bool,
    /// One of these must be among the token's audiences; none: a token must name no audience.
    pub audiences: Vec<String>,
    /// One of these must be the issuer; none: it may be any.
    pub issuers: Vec<String>,
    /// Under which names the claims stand.
    pub names: ClaimNames,
    /// Bytes of what is to be known about a connection; zero: it is not kept.
    pub metadata_bytes: usize,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            max_bytes: 8192,
            leeway: 30,
            require_expiry: true,
            audiences: Vec::new(),
            issuers: Vec::new(),
            names: ClaimNames::default(),
            metadata_bytes: 0,
        }
    }
}

impl TokenRules {
    /// The identity without what is not kept.
    ///
    /// # Errors
    /// When it has more to be known about its connection than may be kept.
    pub(super) fn trim(&self, mut identity: Identity) -> Result<Identity, TokenError> {
        if self.metadata_bytes == 0 {
            identity.metadata = None;
        }
        let length = identity.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        if length > self.metadata_bytes {
            return Err(TokenError::Claim(Claimed::Metadata));
        }
        Ok(identity)
    }
}

/// Checks tokens.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    /// The keys.
    pub keys: KeySet,
    /// The rules.
    pub rules: TokenRules,
}

/// The members of a header that decide (RFC 7515, section 4.1).
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    /// True when it is there, be it null: extensions that must be understood, and none is.
    #[serde(default, rename = "crit", deserialize_with = "whatever")]
    is_critical: bool,
}

/// The headers of nearly all tokens with a shared secret, as they stand in the token: reading one costs as much as its
/// signature. They are `{"alg":"HS256"}`, and with `"typ":"JWT"` behind or before that.
const USUAL: [&str; 3] = [
    "eyJhbGciOiJIUzI1NiJ9",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9",
];

impl<'a> Header<'a> {
    /// What one of the usual headers says.
    fn usual(encoded: &str) -> Option<Self> {
        let alg = Cow::Borrowed(Algorithm::Hs256.name());
        USUAL.contains(&encoded).then_some(Self { alg, kid: None, is_critical: false })
    }

    fn read(json: &'a [u8]) -> Result<Self, TokenError> {
        // A list of the same values would do for the reader, and is no header.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(TokenError::Header);
        }
        serde_json::from_slice(json).map_err(|_| TokenError::Header)
    }
}

/// True for any value.
fn whatever<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Verifier {
    /// Checks a token at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong first, in the order of the module's words.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        if token.len() > self.rules.max_bytes {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Shape)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(TokenError::Shape);
        }
        if let Some(header) = Header::usual(header) {
            self.check_signature(&header, message, signature)?;
        } else {
            let header = decode(header)?;
            self.check_signature(&Header::read(&header)?, message, signature)?;
        }
        let payload = decode(payload)?;
        let claims = Claims::read(&payload, &self.rules.names)?;
        self.check_parties(&claims)?;
        let identity = claims.identity()?;
        self.check_life(&claims, &identity, now)?;
        self.rules.trim(identity)
    }

    /// What the signature of this token costs to check at most, in microseconds, as far as that is known without
    /// checking it. Nothing where a shared secret does, or where it is found wrong by less.
    #[must_use]
    pub fn cost_us(&self, token: &str) -> u32 {
        if token.len() > self.rules.max_bytes || !self.keys.has_public() {
            return 0;
        }
        let header = token.split_once('.').and_then(|(header, _)| decode(header).ok());
        let Some(header) = header else { return 0 };
        let Ok(header) = serde_json::from_slice::<Header<'_>>(&header) else { return 0 };
        let Some(algorithm) = Algorithm::from_name(&header.alg) else { return 0 };
        self.keys.candidates(algorithm, header.kid.as_deref()).map(Key::cost_us).sum()
    }

    fn check_signature(
        &self,
        header: &Header<'_>,
        message: &str,
        signature: &str,
    ) -> Result<(), TokenError> {
        if header.alg.eq_ignore_ascii_case("none") {
            return Err(TokenError::Unsigned);
        }
        if header.is_critical {
            return Err(TokenError::Critical);
        }
        let algorithm = Algorithm::from_name(&header.alg).ok_or(TokenError::UnknownAlgorithm)?;
        let mut keys = self.keys.candidates(algorithm, header.kid.as_deref()).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let is_signed = keys.any(|key| key.verifies(message.as_bytes(), signature));
        is_signed.then_some(()).ok_or(TokenError::Signature)
    }

    /// RFC 7519, section 4.1.3: a service that is not among the audiences named must refuse.
    fn check_parties(&self, claims: &Claims<'_>) -> Result<(), TokenError> {
        let rules = &self.rules;
        if !rules.issuers.is_empty() && !claims.is_from(&rules.issuers)? {
            return Err(TokenError::Issuer);
        }
        match claims.is_for(&rules.audiences)? {
            Some(true) => Ok(()),
            None if rules.audiences.is_empty() => Ok(()),
            Some(false) | None => Err(TokenError::Audience),
        }
    }

    fn check_life(
        &self,
        claims: &Claims<'_>,
        identity: &Identity,
        now: u64,
    ) -> Result<(), TokenError> {
        let leeway = self.rules.leeway;
        match identity.expires {
            Some(ends) if ends.saturating_add(leeway) <= now => return Err(TokenError::Expired),
            None if self.rules.require_expiry => return Err(TokenError::NoExpiry),
            Some(_) | None => {}
        }
        let begins = claims.begins()?.unwrap_or(0);
        if begins > now.saturating_add(leeway) { Err(TokenError::NotYetValid) } else { Ok(()) }
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_header_says_what_it_says_when_it_is_read() {
        for encoded in USUAL {
            let json = decode(encoded).expect("base64");
            assert_eq!(Header::usual(encoded), Header::read(&json).ok(), "{encoded}");
        }
        let other = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"a"}"#);
        assert_eq!(Header::usual(&other), None);
    }
}
