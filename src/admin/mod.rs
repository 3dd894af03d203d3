//! The HTTP listener for back ends and operators, on a thread of its own.
//!
//! Requests are few and may take their time; shards are busy and may not. So this is ordinary tokio code
//! on one thread, which sleeps while nobody asks, and it reaches the shards only through a [`Desk`]: a
//! trait whose implementation posts mail and never waits for it. The module knows neither rooms nor
//! connections, and no shard knows that it exists.
//!
//! | file | subject |
//! |---|---|
//! | `options` | what the listener is told: keys, scopes, limits |
//! | `desk` | what it asks of the node |
//! | `server` | the thread, the listener, connections, the end |
//! | `routes` | the endpoints |
//! | `inbox` | the endpoints of notifications |
//! | `publish` | publishing |
//! | `explain` | what became of a publication, in words |
//! | `gather` | questions to all shards, and the wait for their answers |
//! | `guard` | who may ask: keys, scopes, rates |
//! | `laggards` | the connections with most to read |
//! | `openapi` | the listener described for programs |
//! | `overview` | rooms and connections, and who is sent away |
//! | `page` | the operator's page |
//! | `exposition` | the text that Prometheus reads |
//! | `body` | strict JSON objects |
//! | `call` | one request to another such listener |
//! | `client` | requests that go out |
//! | `sign` | how who gets them knows whose they are |
//! | `consult` | questions of the shards to the application's back end |
//! | `petitions` | requests that shards hand on to this listener's own endpoints |
//! | `line` | those that wait |
//! | `deliver` | events to the back ends that want to hear of them |
//! | `reply` | what they answer |
//! | `batch` | those that wait, and what becomes of a batch that fails |
//! | `jwks` | keys by URL |
//! | `refusal` | every answer that is a no |

mod batch;
mod body;
mod call;
mod client;
mod consult;
mod deliver;
mod desk;
mod explain;
mod exposition;
mod gather;
mod guard;
mod inbox;
mod jwks;
mod laggards;
mod line;
mod openapi;
mod options;
mod overview;
mod page;
mod petitions;
mod presence;
mod publish;
mod refusal;
mod reply;
mod routes;
mod server;
mod sign;

#[cfg(test)]
mod tests;

pub use batch::Pace;
pub use call::Call;
pub(crate) use client::{connector, whole};
pub use desk::{
    Desk, Inquiries, Laggard, Later, Outgoing, Receipt, Refused, Revocation, Revoked, Standing,
    Ticket, TicketAsk,
};
pub use explain::Subject;
pub use exposition::{Exposition, Family, Kind, Label};
pub use options::{ApiKey, EventHook, Jwks, Limits, Options, Rate, Scope, Webhook};
pub use overview::{ConnectionSeen, Crowd, Dismissal, Lookup, Overview, Registry, RoomSeen, Whom};
pub use presence::{Census, MemberSeen, PresenceAsk, PresenceSeen, UserSeen};
pub use publish::{NotPublished, Outcome, Posted, Publisher};
pub use reply::{Reach, Replied, Reply, Voice};
pub use server::Admin;
