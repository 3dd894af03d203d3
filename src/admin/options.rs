//! What the listener is told, as values.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::batch::Pace;
use super::reply::Voice;
use crate::base::secret::Secret;
use crate::base::tidings::TidingKinds;

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Making tickets.
    Tickets,
    /// Revoking tokens and users.
    Revoke,
    /// Reading the counters.
    Inspect,
    /// Notifying users, and their inboxes.
    Notify,
    /// Publishing.
    Publish,
}

impl Scope {
    /// The name, as answers give it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tickets => "tickets",
            Self::Revoke => "revoke",
            Self::Inspect => "inspect",
            Self::Notify => "notify",
            Self::Publish => "publish",
        }
    }
}

/// A key of the interface. The secret itself is not kept: what is compared are hashes, so that the time
/// it takes says nothing about a secret, not even its length.
#[derive(Clone)]
pub struct ApiKey {
    /// How logs call its owner.
    pub name: String,
    /// What it opens.
    pub scopes: Vec<Scope>,
    /// The only tenant it is for; `None` for all.
    pub tenant: Option<String>,
    /// How often it may ask.
    pub rate: Rate,
    /// SHA-256 of the secret.
    pub(super) hash: [u8; 32],
}

impl ApiKey {
    /// A key with that secret.
    #[must_use]
    pub fn new(name: &str, secret: &str, scopes: &[Scope], tenant: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            tenant: tenant.map(str::to_owned),
            rate: Rate::default(),
            hash: hash(secret.as_bytes()),
        }
    }

    /// The same key with a rate of its own.
    #[must_use]
    pub fn with_rate(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }
}

/// How often a key may ask, where that is not as for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, one at least; `None` for [`Limits::requests_per_second`].
    pub per_second: Option<u32>,
    /// Requests that may come at once after a pause; `None` for those of one second.
    pub burst: Option<u32>,
}

impl fmt::Debug for ApiKey {
    /// Leaves the hash out: a weak secret can be guessed from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("scopes", &self.scopes).finish()
    }
}

pub(super) fn hash(secret: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret).as_ref());
    out
}

/// How much anybody may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a head to its last, and again for the body and the answer.
    pub request_timeout: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Connections at once; others wait in the kernel.
    pub connections: usize,
    /// Requests a second of each key without a rate of its own; as many may come at once after a pause.
    pub requests_per_second: u32,
    /// How long an answer waits for all shards to have taken what was asked.
    pub shard_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            body_bytes: 65_536,
            connections: 64,
            requests_per_second: 100,
            shard_timeout: Duration::from_secs(1),
        }
    }
}

/// Where keys that tokens are checked with are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// An http or https URL.
    pub url: String,
    /// How often, while it succeeds.
    pub interval: Duration,
    /// How long one fetch may take.
    pub timeout: Duration,
    /// The least time between two fetches.
    pub cool_down: Duration,
}

/// The application's back end that is asked who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// An http or https URL.
    pub url: String,
    /// What questions are signed with.
    pub secret: Secret,
    /// How long an answer may take, waiting included.
    pub timeout: Duration,
    /// Questions under way at a time.
    pub concurrent: usize,
    /// Questions that may wait.
    pub waiting: usize,
}

/// A back end that wants to hear of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHook {
    /// How logs call it.
    pub name: String,
    /// An http or https URL.
    pub url: String,
    /// What requests are signed with.
    pub secret: Secret,
    /// Of which events.
    pub kinds: TidingKinds,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How events are gathered, and tried again.
    pub pace: Pace,
    /// What it may publish by its answers.
    pub voice: Voice,
}

/// Everything a running listener can be told anew.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Who may ask.
    pub keys: Vec<ApiKey>,
    /// How much.
    pub limits: Limits,
    /// Whether the metrics are for everybody who reaches the listener.
    pub metrics_open: bool,
    /// Where keys come from, if from a URL.
    pub jwks: Option<Jwks>,
    /// Who is asked, if anybody is. From none to some takes a new start.
    pub webhook: Option<Webhook>,
    /// Whether shards hand on plain requests for its endpoints. A running listener keeps to what it was started with.
    pub is_public: bool,
    /// Who hears of events. A running listener keeps those it was started with.
    pub hooks: Vec<EventHook>,
}
