//! The keys that tokens are checked with.
//!
//! A key is bound to one algorithm when it is made, and a token is only ever tried with keys of the
//! algorithm that its header names. So a public key can never be taken for a shared secret, whatever the
//! header says, and a token without a signature finds no key at all. Shared secrets are prepared once:
//! a handshake has two microseconds in all, and preparing one costs a good part of that.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::verify;

/// How a token is signed (RFC 7518, section 3.1, and RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm with the name that headers use.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Hs256, "HS256"),
        (Self::Hs384, "HS384"),
        (Self::Hs512, "HS512"),
        (Self::Rs256, "RS256"),
        (Self::Es256, "ES256"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// The algorithm of that name, exactly as written.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// The name that headers use.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// For a shared secret: the kind of HMAC, and the fewest bytes a secret may have (RFC 7518, section
    /// 3.2: no fewer than the hash has).
    fn hmac(self) -> Option<(hmac::Algorithm, usize)> {
        match self {
            Self::Hs256 => Some((hmac::HMAC_SHA256, 32)),
            Self::Hs384 => Some((hmac::HMAC_SHA384, 48)),
            Self::Hs512 => Some((hmac::HMAC_SHA512, 64)),
            Self::Rs256 | Self::Es256 | Self::EdDsa => None,
        }
    }

    fn public(self) -> Option<jsonwebtoken::Algorithm> {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            Self::Rs256 => Some(jsonwebtoken::Algorithm::RS256),
            Self::Es256 => Some(jsonwebtoken::Algorithm::ES256),
            Self::EdDsa => Some(jsonwebtoken::Algorithm::EdDSA),
        }
    }
}

/// Why something is no key. Holds nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(pub(super) String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

#[derive(Clone)]
enum Material {
    /// More than a kilobyte, with the states of the hash after the secret.
    Secret(Box<hmac::Key>),
    Public(jsonwebtoken::Algorithm, DecodingKey),
}

/// A key, bound to the one algorithm it may be used with.
#[derive(Clone)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
}

impl fmt::Debug for Key {
    /// Everything but the key itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish()
    }
}

impl Key {
    /// A shared secret.
    ///
    /// # Errors
    /// When the algorithm is not of the HMAC family, or the secret is shorter than its hash.
    pub fn from_secret(
        algorithm: Algorithm,
        secret: &[u8],
        id: Option<&str>,
    ) -> Result<Self, KeyError> {
        let name = algorithm.name();
        let Some((kind, least)) = algorithm.hmac() else {
            return Err(KeyError(format!("{name} does not use a shared secret")));
        };
        if secret.len() < least {
            let has = secret.len();
            return Err(KeyError(format!(
                "a secret for {name} has at least {least} bytes, this one has {has}"
            )));
        }
        let material = Material::Secret(Box::new(hmac::Key::new(kind, secret)));
        Ok(Self { id: id.map(Into::into), algorithm, material })
    }

    /// A public key in PEM: RSA (for RS256), P-256 (ES256) or Ed25519 (EdDSA); the key says which.
    ///
    /// # Errors
    /// When it is none of those, or a private key.
    pub fn from_pem(text: &[u8], id: Option<&str>) -> Result<Self, KeyError> {
        if text.windows(11).any(|part| part == b"PRIVATE KEY") {
            let why = "this is a private key; only the issuer needs it, give the public one";
            return Err(KeyError(why.to_owned()));
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(text) {
            return Self::public(Algorithm::Rs256, key, id);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(text) {
            return Self::public(Algorithm::Es256, key, id);
        }
        let key = DecodingKey::from_ed_pem(text).map_err(|_| {
            KeyError("expected a public key in PEM: RSA, P-256 or Ed25519".to_owned())
        })?;
        Self::public(Algorithm::EdDsa, key, id)
    }

    pub(super) fn public(
        algorithm: Algorithm,
        key: DecodingKey,
        id: Option<&str>,
    ) -> Result<Self, KeyError> {
        let (bytes, expected) = match (algorithm, key.kind()) {
            (_, jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. }) => {
                // An encoder may write a zero in front.
                let modulus = n.strip_prefix(&[0]).unwrap_or(n);
                (modulus.len(), 256..=1024)
            }
            // The DER around the modulus takes some bytes.
            (Algorithm::Rs256, jsonwebtoken::DecodingKeyKind::SecretOrDer(der)) => {
                (der.len(), 265..=1100)
            }
            (Algorithm::Es256, jsonwebtoken::DecodingKeyKind::SecretOrDer(point)) => {
                (point.len(), 65..=65)
            }
            (_, jsonwebtoken::DecodingKeyKind::SecretOrDer(point)) => (point.len(), 32..=32),
        };
        let Some(used) = algorithm.public().filter(|_| expected.contains(&bytes)) else {
            return Err(KeyError(format!(
                "expected an RSA key of 2048 to 8192 bits, a P-256 key or an Ed25519 key; this one, \
                 taken for {}, has {bytes} bytes",
                algorithm.name()
            )));
        };
        Ok(Self { id: id.map(Into::into), algorithm, material: Material::Public(used, key) })
    }

    /// The name by which tokens ask for it (`kid`).
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The algorithm it is bound to.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What checking one signature costs, in microseconds, as `benches/auth.rs` finds it on a core of 2024: for RSA it
    /// grows with the square of the modulus.
    #[must_use]
    pub(super) fn cost_us(&self) -> u32 {
        match (&self.material, self.algorithm) {
            (Material::Secret(_), _) => 0,
            (Material::Public(_, key), Algorithm::Rs256) => {
                let bytes = match key.kind() {
                    jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
                    // With some bytes of DER around it.
                    jsonwebtoken::DecodingKeyKind::SecretOrDer(der) => der.len(),
                };
                let blocks = u32::try_from(bytes / 256).unwrap_or(u32::MAX).clamp(1, 4);
                RSA_2048_US * blocks * blocks
            }
            (Material::Public(..), _) => CURVE_US,
        }
    }

    /// True when `signature`, in the base64 of tokens, is this key's over `message`. Secrets are compared
    /// in constant time.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        match &self.material {
            Material::Secret(key) => {
                let mut tag = [0; 64];
                let tag = URL_SAFE_NO_PAD
                    .decode_slice(signature, &mut tag)
                    .ok()
                    .and_then(|length| tag.get(..length));
                tag.is_some_and(|tag| hmac::verify(key, message, tag).is_ok())
            }
            Material::Public(algorithm, key) => {
                verify(signature, message, key, *algorithm).unwrap_or(false)
            }
        }
    }
}

/// What a signature costs to check, in microseconds, roughly: `benches/auth.rs` found 21 for RSA, 41 for Ed25519 and
/// 67 for P-256 on one machine.
const RSA_2048_US: u32 = 20;
const CURVE_US: u32 = 60;

/// The most keys that are kept, and the most that one token is tried with.
pub(super) const MAX_KEYS: usize = 64;
const MAX_TRIES: usize = 4;

/// The keys there are.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// A set of these keys.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        if keys.len() > MAX_KEYS {
            let count = keys.len();
            return Err(KeyError(format!("at most {MAX_KEYS} keys are kept, not {count}")));
        }
        Ok(Self { keys })
    }

    /// The keys of both.
    ///
    /// # Errors
    /// When they are too many.
    pub fn and(mut self, other: Self) -> Result<Self, KeyError> {
        self.keys.extend(other.keys);
        Self::new(self.keys)
    }

    /// The keys, in the order they were given.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// True when there is no key, so that no token can be valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// True when a token may be signed by other means than a shared secret.
    pub(super) fn has_public(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.material, Material::Public(..)))
    }

    /// The keys to try for a token of that algorithm: those of the name it gives, then those without a
    /// name; any of the algorithm when it gives none.
    pub(super) fn candidates<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        let of_kind = move || self.keys.iter().filter(move |key| key.algorithm == algorithm);
        let named = of_kind().filter(move |key| id.is_none() || key.id() == id);
        let nameless = of_kind().filter(move |key| id.is_some() && key.id.is_none());
        named.chain(nameless).take(MAX_TRIES)
    }
}

const _: () = {
    const fn crosses_shards<T: Send + Sync>() {}
    crosses_shards::<KeySet>();
};
