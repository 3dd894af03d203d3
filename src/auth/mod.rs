//! Floor 2: who a client is, what they may do, and whether they may come from where they come from.
//!
//! Everything here is a function of its arguments: a token, the keys and the time give an
//! [`Identity`] or a [`TokenError`]; an origin and the rules give yes or no. Keys are fetched, secrets are
//! read and clocks are looked at elsewhere.
//!
//! | file | subject |
//! |---|---|
//! | `key` | the keys that tokens are checked with, each bound to one algorithm |
//! | `jwks` | keys from a JWK set |
//! | `token` | a token's shape, signature and life |
//! | `claims` | what a token says, under the names that the issuer uses |
//! | `identity` | who someone is, and why they are refused |
//! | `grants` | which rooms someone may join, publish to and look at |
//! | `source` | where in a request a token may stand, and how it is blotted out of what is printed |
//! | `origin` | which web pages may connect |
//! | `ticket` | one-time tickets for clients that can only use a URL |
//! | `proof` | tokens that are checked beside the shard, as that takes long |
//! | `access` | from a request to who comes in |
//! | `revocation` | tokens that are taken back before their end |
//! | `veto` | a refusal in the application's own words |
//! | `consult` | what the application's back end is asked, and how its answer is read |
//! | `reporting` | what the application's back ends are told |
//! | `rulings` | answers that are remembered for a moment |
//! | `scope` | names of tenants' rooms and of users' own rooms within the node |

mod access;
mod claims;
mod consult;
mod grants;
mod identity;
mod jwks;
mod key;
mod origin;
mod proof;
mod reporting;
mod revocation;
mod rulings;
mod scope;
mod source;
mod ticket;
mod token;
mod veto;

#[cfg(test)]
mod tests;

pub use access::{Access, Admission, Denied, Mode, Who};
pub use claims::{ClaimNames, MAX_NAME_BYTES};
pub use consult::{Asker, Consult, Ruling, Wish, key as question_key, question};
pub use grants::{Common, Grants, Right, Rights};
pub use identity::{Claimed, Identity, TokenError, UserLimits};
pub use key::{Algorithm, Key, KeyError, KeySet};
pub use origin::{OriginError, OriginRule, OriginRules};
pub use proof::{Proof, ProofRules, Proven};
pub use reporting::{Deliver, Reporting};
pub use revocation::{Full, Revocation, Revocations};
pub use rulings::Rulings;
pub use scope::{
    Place, connections, everyone, is_user_room, place, plain, room, tenant_of, user_of, user_room,
};
pub use source::{Found, Source, SourceError, SourceRules, TOKEN_SUBPROTOCOL};
pub use ticket::{Ticket, TicketKey, TicketRead, mint, mint_shared};
pub use token::{TokenRules, Verifier};
pub use veto::{MAX_VETO_BYTES, Veto};
