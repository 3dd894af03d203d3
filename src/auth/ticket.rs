//! One-time tickets: what a back end hands to a client that can only put something into a URL.
//!
//! A ticket is claims, a number of its own and an end, under a secret that only the node knows, or one that
//! several nodes share: base64 of the whole, and of an HMAC-SHA256 over it. Nothing is stored when one is minted.
//! That it is taken only once is the shards' business: they ask the one that the number belongs to, and of a
//! shared one the place that all nodes share. An end a minute away keeps what must be remembered small, and a
//! ticket in a log worthless.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{ClaimNames, Claims};
use super::identity::{Identity, TokenError};

/// The secrets under which tickets are minted and read.
#[derive(Clone, Debug)]
pub struct TicketKey {
    own: hmac::Key,
    /// Of several nodes.
    shared: Option<hmac::Key>,
}

impl TicketKey {
    /// How long a ticket lives unless asked otherwise, in seconds.
    pub const LIFE: u64 = 60;

    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { own: hmac::Key::new(hmac::HMAC_SHA256, secret), shared: None }
    }

    /// The same with a secret that other nodes of this name have as well.
    #[must_use]
    pub fn shared_with(self, name: &str, secret: &[u8]) -> Self {
        let given = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let own = hmac::sign(&given, format!("throng tickets of {name}").as_bytes());
        Self { shared: Some(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref())), ..self }
    }

    /// True where tickets can be minted that are good on several nodes.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

/// A ticket that was minted here and has not ended.
#[derive(Clone, Debug)]
pub struct TicketRead {
    /// The ticket.
    pub ticket: Ticket,
    /// Who comes with it.
    pub identity: Identity,
    /// Other nodes may take it as well.
    pub shared: bool,
}

/// What must be remembered of a ticket that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Its number; random.
    pub id: u128,
    /// When it ends, in seconds since 1970; it need not be remembered longer.
    pub expires: u64,
}

/// Changes with the layout.
const VERSION: u8 = 1;
const ID: usize = 1;
const EXPIRES: usize = ID + 16;
const CLAIMS: usize = EXPIRES + 8;
/// Bytes of a ticket at most, and of its claims.
const MAX_BYTES: usize = 6144;
const MAX_CLAIMS: usize = 4096;

/// Mints a ticket for these claims, written as a token's are, under the names that are used by default;
/// `exp` among them ends the connection. `id` is random and never used twice.
///
/// # Errors
/// When the claims are too long or say something they cannot.
pub fn mint(key: &TicketKey, claims: &str, ticket: Ticket) -> Result<String, TokenError> {
    mint_under(&key.own, claims, ticket)
}

/// The same for a ticket that is good on all nodes with the shared secret; on this one alone where there is none.
///
/// # Errors
/// As those of [`mint`].
pub fn mint_shared(key: &TicketKey, claims: &str, ticket: Ticket) -> Result<String, TokenError> {
    mint_under(key.shared.as_ref().unwrap_or(&key.own), claims, ticket)
}

fn mint_under(key: &hmac::Key, claims: &str, ticket: Ticket) -> Result<String, TokenError> {
    if claims.len() > MAX_CLAIMS {
        return Err(TokenError::TooLong);
    }
    Claims::read(claims.as_bytes(), &ClaimNames::default())?.identity()?;
    let mut bytes = vec![VERSION];
    bytes.extend(ticket.id.to_be_bytes());
    bytes.extend(ticket.expires.to_be_bytes());
    bytes.extend(claims.as_bytes());
    let tag = hmac::sign(key, &bytes);
    let mut text = URL_SAFE_NO_PAD.encode(&bytes);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut text);
    Ok(text)
}

impl TicketKey {
    /// Reads a ticket at `now`, in seconds since 1970. No leeway: the clock that minted it is this one.
    ///
    /// # Errors
    /// `Expired` for one of ours that has ended, `TooLong`, and `Ticket` for whatever else is no ticket of
    /// ours.
    pub fn read(&self, text: &str, now: u64) -> Result<TicketRead, TokenError> {
        if text.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let (body, tag) = text.split_once('.').ok_or(TokenError::Ticket)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Ticket);
        let (body, tag) = (decode(body)?, decode(tag)?);
        let signed = |key: &hmac::Key| hmac::verify(key, &body, &tag).is_ok();
        let shared = !signed(&self.own);
        if shared && !self.shared.as_ref().is_some_and(signed) {
            return Err(TokenError::Ticket);
        }
        if body.first() != Some(&VERSION) || body.len() < CLAIMS {
            return Err(TokenError::Ticket);
        }
        let (mut id, mut expires) = ([0; 16], [0; 8]);
        id.copy_from_slice(&body[ID..EXPIRES]);
        expires.copy_from_slice(&body[EXPIRES..CLAIMS]);
        let ticket = Ticket { id: u128::from_be_bytes(id), expires: u64::from_be_bytes(expires) };
        if ticket.expires <= now {
            return Err(TokenError::Expired);
        }
        let identity = Claims::read(&body[CLAIMS..], &ClaimNames::default())?.identity()?;
        Ok(TicketRead { ticket, identity, shared })
    }
}
