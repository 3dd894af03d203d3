//! Who someone is, and why someone is refused.
//!
//! An identity is what is left of a token once it has been checked: the names, the end, the grants. The
//! token itself is not kept. A refusal has two faces: the whole truth for the operator, by variant and
//! label, and one short sentence for the client, which says what a client may act on and no more.

use std::fmt;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::grants::Grants;
use super::veto::Veto;

/// Limits that a token sets for its user. Each holds where it is lower than what the configuration says,
/// or where that says nothing; none ever allows more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UserLimits {
    /// Connections of the user at a time; all its tokens that say so are counted together.
    pub connections: Option<NonZeroU32>,
    /// Rooms of one connection; zero for none.
    pub rooms: Option<u32>,
    /// Bytes of a message.
    pub message_bytes: Option<NonZeroU32>,
    /// Messages a second of one connection.
    pub messages_per_second: Option<NonZeroU32>,
    /// Bytes a second of one connection.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Joins a second of one connection.
    pub joins_per_second: Option<NonZeroU32>,
    /// Publications a second of one connection, one for each room that a message names.
    pub publishes_per_second: Option<NonZeroU32>,
}

/// Who someone is. Times are seconds since 1970.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user, never empty; unique within the tenant.
    pub user: Box<str>,
    /// The tenant; `None` where there are none.
    pub tenant: Option<Box<str>>,
    /// The token's own name (`jti`), by which it can be revoked.
    pub token: Option<Box<str>>,
    /// When the token was issued.
    pub issued: Option<u64>,
    /// When the identity ends; never, when the issuer says nothing and the rules allow that.
    pub expires: Option<u64>,
    /// The rooms.
    pub grants: Grants,
    /// Limits of the user's own; rare.
    pub limits: Option<Box<UserLimits>>,
    /// What the issuer wants to be known about the connection: any JSON, as it was written. `None` where
    /// the rules do not have it kept.
    pub metadata: Option<Box<RawValue>>,
    /// The issuer says who it is, and that it may not come in.
    pub veto: Option<Box<Veto>>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// No token where one is needed.
    Missing,
    /// A place for one token holds several, or one that cannot be read.
    Ambiguous,
    /// More bytes than the rules allow.
    TooLong,
    /// Not three parts of base64.
    Shape,
    /// The header is not JSON with an algorithm.
    Header,
    /// `alg` is `none`, in any spelling.
    Unsigned,
    /// `alg` names what is not known here.
    UnknownAlgorithm,
    /// `crit` asks for extensions that do not exist here.
    Critical,
    /// No key fits the algorithm and the `kid`.
    UnknownKey,
    /// Some key fits and the signature is not its own.
    Signature,
    /// The claims are not a JSON object, or hold one twice.
    Claims,
    /// A claim has a value it cannot have.
    Claim(Claimed),
    /// There is no `exp`, and the rules want one.
    NoExpiry,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// `aud` does not name this service, or names any while none is configured.
    Audience,
    /// `iss` is not one of the issuers that are trusted.
    Issuer,
    /// The token or its user has been revoked.
    Revoked,
    /// A ticket that is not one of this node's, or that has been used.
    Ticket,
    /// A fresh token for another user or tenant than the connection's.
    OtherUser,
    /// All is in order, and the application says no all the same: by a claim, or when it was asked.
    Vetoed,
}

/// The claim that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claimed {
    /// The user's.
    User,
    /// The tenant's.
    Tenant,
    /// The token's name.
    Token,
    /// One of the times.
    Time,
    /// The rooms.
    Rooms,
    /// The limits.
    Limits,
    /// What is to be known about the connection.
    Metadata,
    /// `aud` or `iss`.
    Party,
    /// The application's refusal.
    Veto,
}

impl TokenError {
    /// The label in logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::TooLong => "too_long",
            Self::Shape => "shape",
            Self::Header => "header",
            Self::Unsigned => "unsigned",
            Self::UnknownAlgorithm => "unknown_algorithm",
            Self::Critical => "critical",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Claim(Claimed::User) => "claim_user",
            Self::Claim(Claimed::Tenant) => "claim_tenant",
            Self::Claim(Claimed::Token) => "claim_token",
            Self::Claim(Claimed::Time) => "claim_time",
            Self::Claim(Claimed::Rooms) => "claim_rooms",
            Self::Claim(Claimed::Limits) => "claim_limits",
            Self::Claim(Claimed::Metadata) => "claim_metadata",
            Self::Claim(Claimed::Party) => "claim_party",
            Self::Claim(Claimed::Veto) => "claim_deny",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Revoked => "revoked",
            Self::Ticket => "ticket",
            Self::OtherUser => "other_user",
            Self::Vetoed => "vetoed",
        }
    }

    /// What the client is told. Whoever guesses learns nothing about keys from it.
    #[must_use]
    pub fn public(self) -> &'static str {
        match self {
            Self::Missing => "a token is needed",
            Self::Ambiguous => "there is more than one token, or one that cannot be read",
            Self::TooLong => "the token is too long",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Revoked => "the token has been revoked",
            Self::Ticket => "the ticket is not valid, or has been used",
            Self::OtherUser => "the token is for somebody else",
            Self::Vetoed => "the application refuses this",
            _ => "the token is not valid",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.public(), self.label())
    }
}

impl std::error::Error for TokenError {}
