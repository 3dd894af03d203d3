//! What a token says, under the names that its issuer uses.
//!
//! The claims are read in one pass: those that mean something here are noted where they stand, the rest
//! is passed over, and one that stands twice refuses the token, because two readers might take different
//! ones. Each is then read by itself, so that a refusal can name the claim that is wrong.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::identity::{Claimed, Identity, TokenError};
use super::veto::Veto;

/// The most bytes of a user's or tenant's name and of a token's.
pub const MAX_NAME_BYTES: usize = 128;

/// The names of the claims that issuers choose; `exp`, `nbf`, `iat`, `aud`, `iss` and `jti` have theirs from
/// RFC 7519.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// Who it is.
    pub user: String,
    /// Whose users they are among.
    pub tenant: String,
    /// The grants.
    pub rooms: String,
    /// Limits of the user's own.
    pub limits: String,
    /// What is to be known about the connection.
    pub metadata: String,
    /// The issuer's refusal.
    pub deny: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            user: "sub".to_owned(),
            tenant: "tenant".to_owned(),
            rooms: "rooms".to_owned(),
            limits: "limits".to_owned(),
            metadata: "meta".to_owned(),
            deny: "deny".to_owned(),
        }
    }
}

/// The claims as they stand in the token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claims<'a> {
    user: Option<&'a RawValue>,
    tenant: Option<&'a RawValue>,
    rooms: Option<&'a RawValue>,
    limits: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
    deny: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    life: Life<'a>,
    audience: Option<&'a RawValue>,
    issuer: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Life<'a> {
    issued: Option<&'a RawValue>,
    begins: Option<&'a RawValue>,
    ends: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    pub(super) fn read(json: &'a [u8], names: &ClaimNames) -> Result<Self, TokenError> {
        // Once for the whole is cheaper than once for every string.
        let json = simdutf8::basic::from_utf8(json).map_err(|_| TokenError::Claims)?;
        let mut reader = serde_json::Deserializer::from_str(json);
        let claims = Names(names).deserialize(&mut reader).map_err(|_| TokenError::Claims)?;
        reader.end().map_err(|_| TokenError::Claims)?;
        Ok(claims)
    }

    /// When the token begins to be valid.
    pub(super) fn begins(&self) -> Result<Option<u64>, TokenError> {
        time(self.life.begins)
    }

    /// The identity that the claims describe.
    pub(super) fn identity(&self) -> Result<Identity, TokenError> {
        let user = name(self.user, Claimed::User)?.ok_or(TokenError::Claim(Claimed::User))?;
        let rooms = TokenError::Claim(Claimed::Rooms);
        let limits = TokenError::Claim(Claimed::Limits);
        Ok(Identity {
            user,
            tenant: name(self.tenant, Claimed::Tenant)?,
            token: name(self.token, Claimed::Token)?,
            issued: time(self.life.issued)?,
            expires: time(self.life.ends)?,
            grants: read(self.rooms, rooms)?.unwrap_or_default(),
            // A list would be read as limits in the order of their definition.
            limits: match self.limits {
                Some(raw) if !raw.get().starts_with('{') => return Err(limits),
                raw => read(raw, limits)?.map(Box::new),
            },
            metadata: self.metadata.map(ToOwned::to_owned),
            veto: self.veto()?.map(Box::new),
        })
    }

    fn veto(&self) -> Result<Option<Veto>, TokenError> {
        let veto = self.deny.map(Veto::from_claim).transpose();
        veto.map(Option::flatten).map_err(|_| TokenError::Claim(Claimed::Veto))
    }

    /// True when one of `expected` is among the audiences; `None` when the token names none.
    pub(super) fn is_for(&self, expected: &[String]) -> Result<Option<bool>, TokenError> {
        let Some(raw) = self.audience else { return Ok(None) };
        let is_one = |name: &str| expected.iter().any(|known| known == name);
        if raw.get().starts_with('[') {
            let names: Vec<Text<'_>> = parse(raw, TokenError::Claim(Claimed::Party))?;
            return Ok(Some(names.iter().any(|name| is_one(&name.0))));
        }
        let only: Cow<'_, str> = text(raw, TokenError::Claim(Claimed::Party))?;
        Ok(Some(is_one(&only)))
    }

    /// True when the token is of one of these issuers.
    pub(super) fn is_from(&self, trusted: &[String]) -> Result<bool, TokenError> {
        let Some(raw) = self.issuer else { return Ok(false) };
        let issuer = text(raw, TokenError::Claim(Claimed::Party))?;
        Ok(trusted.iter().any(|known| *known == issuer))
    }
}

/// True when somebody may be called that.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(char::is_control)
}

/// Names go into logs, rooms and terminals, so they are short and hold no control characters; the node also
/// relies on that to tell its own names from all others.
fn name(raw: Option<&RawValue>, which: Claimed) -> Result<Option<Box<str>>, TokenError> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let name = text(raw, TokenError::Claim(which))?;
    if is_name(&name) { Ok(Some(name.into())) } else { Err(TokenError::Claim(which)) }
}

/// Seconds since 1970; a fraction, which RFC 7519 allows, is cut off.
fn time(raw: Option<&RawValue>) -> Result<Option<u64>, TokenError> {
    let Some(raw) = raw else { return Ok(None) };
    let (whole, fraction) = raw.get().split_once('.').unwrap_or((raw.get(), "0"));
    let is_digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = whole.parse().ok().filter(|_| is_digits);
    seconds.map(Some).ok_or(TokenError::Claim(Claimed::Time))
}

fn read<'a, T: serde::Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    error: TokenError,
) -> Result<Option<T>, TokenError> {
    raw.map(|raw| parse(raw, error)).transpose()
}

fn parse<'a, T: serde::Deserialize<'a>>(
    raw: &'a RawValue,
    error: TokenError,
) -> Result<T, TokenError> {
    serde_json::from_str(raw.get()).map_err(|_| error)
}

/// A string, borrowed when nothing in it is escaped.
fn text(raw: &RawValue, error: TokenError) -> Result<Cow<'_, str>, TokenError> {
    let written = raw.get();
    let inner = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(error)?;
    if inner.contains('\\') { parse(raw, error).map(Cow::Owned) } else { Ok(Cow::Borrowed(inner)) }
}

/// Reads [`Claims`] by the names of one issuer.
struct Names<'n>(&'n ClaimNames);

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = Claims<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Claims<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = Claims<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims<'de>, A::Error> {
        let mut claims = Claims::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let Some(place) = self.place(&key.0, &mut claims) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a claim stands twice"));
            }
        }
        Ok(claims)
    }
}

impl Names<'_> {
    fn place<'c, 'a>(
        &self,
        key: &str,
        claims: &'c mut Claims<'a>,
    ) -> Option<&'c mut Option<&'a RawValue>> {
        Some(match key {
            "exp" => &mut claims.life.ends,
            "nbf" => &mut claims.life.begins,
            "iat" => &mut claims.life.issued,
            "aud" => &mut claims.audience,
            "iss" => &mut claims.issuer,
            "jti" => &mut claims.token,
            _ if key == self.0.user => &mut claims.user,
            _ if key == self.0.tenant => &mut claims.tenant,
            _ if key == self.0.rooms => &mut claims.rooms,
            _ if key == self.0.limits => &mut claims.limits,
            _ if key == self.0.metadata => &mut claims.metadata,
            _ if key == self.0.deny => &mut claims.deny,
            _ => return None,
        })
    }
}

/// A string, borrowed when nothing in it is escaped, as a `Cow` by itself never is.
#[derive(serde::Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);
