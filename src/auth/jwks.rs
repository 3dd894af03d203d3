//! Keys from a JWK set (RFC 7517), as identity providers publish them.
//!
//! What is not understood is passed over, as section 5 of the RFC asks: keys for encryption, of other
//! kinds, out of range. A document without any usable key is an error, so that it never replaces keys that
//! work. The size is bounded before anything is parsed.

use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Algorithm, Key, KeyError, KeySet, MAX_KEYS};

/// The largest document that is read.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members that matter (RFC 7518, section 6, and RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    k: Option<String>,
}

impl KeySet {
    /// The usable keys of a JWK set.
    ///
    /// # Errors
    /// When the document is too large, no JWK set, or holds no usable key.
    pub fn from_jwks(document: &[u8]) -> Result<Self, KeyError> {
        if document.len() > MAX_DOCUMENT_BYTES {
            let bytes = document.len();
            return Err(KeyError(format!(
                "a JWK set has at most {MAX_DOCUMENT_BYTES} bytes, this one has {bytes}"
            )));
        }
        let parsed: Document<'_> = serde_json::from_slice(document).map_err(|error| {
            KeyError(format!("expected a JWK set, as {{\"keys\":[]}}: {error}"))
        })?;
        let usable = parsed.keys.iter().filter_map(|raw| {
            let jwk: Jwk = serde_json::from_str(raw.get()).ok()?;
            jwk.key()
        });
        let keys: Vec<Key> = usable.take(MAX_KEYS + 1).collect();
        if keys.is_empty() {
            let count = parsed.keys.len();
            return Err(KeyError(format!(
                "none of the {count} keys of the JWK set is one for HS256, HS384, HS512, RS256, ES256 \
                 or EdDSA"
            )));
        }
        Self::new(keys)
    }
}

impl Jwk {
    fn key(&self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let named = self.alg.as_deref().map(Algorithm::from_name);
        // A key for an algorithm that is not known here is for nothing else either.
        let named = match named {
            Some(None) => return None,
            Some(algorithm) => algorithm,
            None => None,
        };
        let kid = self.kid.as_deref();
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => {
                // A secret without an algorithm could be tried with several.
                let secret = decode(self.k.as_deref()?)?;
                return Key::from_secret(named?, &secret, kid).ok();
            }
            ("RSA", _) => {
                let (n, e) = (self.n.as_deref()?, self.e.as_deref()?);
                (Algorithm::Rs256, DecodingKey::from_rsa_components(n, e))
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (self.x.as_deref()?, self.y.as_deref()?);
                (Algorithm::Es256, DecodingKey::from_ec_components(x, y))
            }
            ("OKP", Some("Ed25519")) => {
                (Algorithm::EdDsa, DecodingKey::from_ed_components(self.x.as_deref()?))
            }
            _ => return None,
        };
        if named.is_some_and(|named| named != algorithm) {
            return None;
        }
        Key::public(algorithm, key.ok()?, kid).ok()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}
