//! The rules of the door: from a request to who comes in, and who may do what in a room.
//!
//! One request gets one answer, from its head alone: nobody in particular, somebody, somebody whose ticket
//! has yet to be redeemed, or somebody who will say so in the first message. The origin is judged before
//! the token, which is the dearer of the two. What was revoked and which tickets were used is state, and
//! so not known here.

use std::time::Duration;

use super::claims::is_name;
use super::consult::Consult;
use super::grants::{Grants, Right};
use super::identity::{Claimed, Identity, TokenError};
use super::origin::{OriginError, OriginRules};
use super::proof::ProofRules;
use super::reporting::Reporting;
use super::source::{Source, SourceRules};
use super::ticket::{TicketKey, TicketRead};
use super::token::Verifier;
use crate::wire::http::{FETCH_SITE, Head, SAME_ORIGIN, Upgrade, own_origin};
use crate::wire::tls::Peer;

/// Whether a client has to say who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// It need not.
    #[default]
    Open,
    /// It must show a token or a ticket.
    Token,
}

/// Who may do something in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every connection.
    Anyone,
    /// Whoever has shown a token.
    Authenticated,
    /// Whose token grants it.
    Granted,
    /// Whose token grants it, and whomever else the application's back end allows it.
    Webhook,
    /// No client; only back ends.
    Nobody,
}

impl Who {
    /// True when this lets somebody with these grants, or nobody in particular, use `right` in the room that
    /// is called `room` there. Of those about whom the back end is to be asked it is true only if the back
    /// end need not be asked.
    #[must_use]
    pub fn lets(self, grants: Option<&Grants>, room: &str, right: Right) -> bool {
        match self {
            Self::Anyone => true,
            Self::Authenticated => grants.is_some(),
            Self::Granted | Self::Webhook => {
                grants.is_some_and(|grants| grants.allows(room, right))
            }
            Self::Nobody => false,
        }
    }
}

/// The rules of the door.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether a client has to say who it is.
    pub mode: Mode,
    /// Checks tokens.
    pub verifier: Verifier,
    /// Where tokens may stand.
    pub sources: SourceRules,
    /// Which pages may connect.
    pub origins: OriginRules,
    /// What those may who show a certificate.
    pub certified: Grants,
    /// Reads tickets; `None`: there are none.
    pub tickets: Option<TicketKey>,
    /// An upgrade without a good token is made, and closed with the reason: a page sees nothing else.
    pub browser_errors: bool,
    /// How long before the end of its token a client is asked for a fresh one.
    pub reauth_before: Duration,
    /// Revocations remembered at a time.
    pub max_revocations: usize,
    /// What the application's back end is asked; `None`: nothing, for there is none.
    pub consult: Option<Consult>,
    /// What back ends are told.
    pub report: Reporting,
    /// Which tokens are checked beside the shards.
    pub proofs: ProofRules,
}

/// Who comes in.
#[derive(Debug)]
pub enum Admission {
    /// Nobody in particular.
    Anonymous,
    /// Somebody.
    Known(Box<Identity>),
    /// Somebody, if the ticket has not been used.
    Ticket(Box<TicketRead>),
    /// Somebody, if this token is found to be good; checking it is too dear to be done here.
    Unproven(Box<str>),
    /// Somebody who will say so in the first message.
    Later,
}

/// Why nobody comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The page may not connect.
    Origin(OriginError),
    /// The token is missing or wrong.
    Token(TokenError),
}

impl Access {
    /// Who comes in by this request, at `now` in seconds since 1970. `peer` has shown a certificate, and `later` is
    /// where a token may stand that comes after the handshake.
    ///
    /// # Errors
    /// Why nobody does.
    pub fn admit(
        &self,
        head: &Head<'_>,
        upgrade: &Upgrade<'_>,
        peer: Option<&Peer>,
        later: Source,
        now: u64,
    ) -> Result<Admission, Denied> {
        let found = match self.mode {
            Mode::Open => Ok(None),
            Mode::Token => {
                let subject = peer.map(|peer| &*peer.subject);
                self.sources.find(head, &upgrade.protocols, subject)
            }
        };
        let by_cookie = matches!(&found, Ok(Some(found)) if found.source == Source::Cookie);
        let host = head.values("host").next().and_then(|host| std::str::from_utf8(host).ok());
        self.origins.check(upgrade.origin, host, by_cookie).map_err(Denied::Origin)?;
        let found = found.map_err(|_| Denied::Token(TokenError::Ambiguous))?;
        match (found, self.mode) {
            (None, Mode::Open) => Ok(Admission::Anonymous),
            (None, Mode::Token) if self.sources.has(later) => Ok(Admission::Later),
            (None, Mode::Token) => Err(Denied::Token(TokenError::Missing)),
            (Some(found), _) if found.source == Source::Ticket => {
                let key = self.tickets.as_ref().ok_or(Denied::Token(TokenError::Ticket))?;
                let TicketRead { ticket, identity, shared } =
                    key.read(found.text, now).map_err(Denied::Token)?;
                let identity = self.verifier.rules.trim(identity).map_err(Denied::Token)?;
                Ok(Admission::Ticket(Box::new(TicketRead { ticket, identity, shared })))
            }
            (Some(found), _) if found.source == Source::Certificate => {
                let peer = peer.ok_or(Denied::Token(TokenError::Missing))?;
                let identity = self.certified(peer, now).map_err(Denied::Token)?;
                Ok(Admission::Known(Box::new(identity)))
            }
            (Some(found), _) if self.is_dear(found.text) => {
                Ok(Admission::Unproven(found.text.into()))
            }
            (Some(found), _) => {
                let identity = self.verifier.verify(found.text, now).map_err(Denied::Token)?;
                Ok(Admission::Known(Box::new(identity)))
            }
        }
    }

    /// True when this token is to be checked beside the shard.
    #[must_use]
    pub fn is_dear(&self, token: &str) -> bool {
        self.proofs.above_us.is_some_and(|most| self.verifier.cost_us(token) > most)
    }

    /// Who somebody with a certificate is. A session that went on from a ticket may have outlived it.
    fn certified(&self, peer: &Peer, now: u64) -> Result<Identity, TokenError> {
        if self.end_of(peer.ends) <= now {
            return Err(TokenError::Expired);
        }
        let user = &*peer.subject;
        if !is_name(user) {
            return Err(TokenError::Claim(Claimed::User));
        }
        Ok(Identity {
            user: user.into(),
            tenant: None,
            token: None,
            issued: None,
            expires: Some(peer.ends),
            grants: self.certified.clone(),
            limits: None,
            metadata: None,
            veto: None,
        })
    }

    /// Whether a page of that origin may send the request that a browser asks about beforehand. What that will
    /// show is not known yet, so wherever it could be a cookie it is taken for one.
    ///
    /// # Errors
    /// Why it may not.
    pub fn preflight(&self, head: &Head<'_>, origin: Option<&str>) -> Result<(), Denied> {
        let by_cookie = self.mode == Mode::Token && self.sources.has(Source::Cookie);
        let host = head.values("host").next().and_then(|host| std::str::from_utf8(host).ok());
        self.origins.check(origin, host, by_cookie).map_err(Denied::Origin)
    }

    /// Whether a page of that origin may go on with a session that has begun. The session's id is what lets in then, and
    /// no browser sends that by itself; so who names no page is a program, unless all must name one.
    ///
    /// # Errors
    /// Why it may not.
    pub fn goes_on(&self, head: &Head<'_>, origin: Option<&str>) -> Result<(), Denied> {
        let host = head.values("host").next().and_then(|host| std::str::from_utf8(host).ok());
        let is_own = || head.values(FETCH_SITE).any(|site| site == SAME_ORIGIN.as_bytes());
        let own = host.filter(|_| origin.is_none() && is_own()).map(own_origin);
        self.origins.check(origin.or(own.as_deref()), host, false).map_err(Denied::Origin)
    }

    /// The moment, in seconds since 1970, from which a token that ends at `expires` is not accepted any
    /// more.
    #[must_use]
    pub fn end_of(&self, expires: u64) -> u64 {
        expires.saturating_add(self.verifier.rules.leeway)
    }
}
