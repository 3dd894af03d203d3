//! Several nodes that work as one: what is published on one reaches the others by Redis.
//!
//! The bridge is a thread of its own with one connection to Redis, over which it publishes and hears. It
//! subscribes to what its node has members for and to little else, so what a node receives grows with its
//! own rooms and not with the number of nodes. Pub/sub keeps nothing: while the link is down, and at the
//! moment a subscription begins, publications of other nodes are missed. Of the first the members are told
//! once the link is up again. Nothing that happens here holds up the node: what cannot be sent is queued up
//! to a bound and then dropped and counted, and delivery within the node knows nothing of it.
//!
//! What is published, whom it is for and who may know it are the node's business: it is reached by [`Side`],
//! and a publication is a text here.
//!
//! | file | subject |
//! |---|---|
//! | `bans` | whom all nodes have to refuse |
//! | `claims` | what only one of all nodes may do |
//! | `ids` | which publications were taken before |
//! | `emitter` | the channels of Socket.IO's emitters |
//! | `envelope` | what is published around a node's publication |
//! | `records` | what clients say to back ends, in a stream |
//! | `window` | which envelopes came before |
//! | `interest` | which channels to be subscribed to |
//! | `outgoing` | what waits to be published, and what was dropped |
//! | `sequence` | in which order what several shards have numbered is published |
//! | `streams` | rooms whose history all nodes share |
//! | `server`, `source`, `direct` | where Redis is and whom to believe, and where the next connection goes: ours, or one that is waited for |
//! | `options`, `tally`, `side` | what it is told, what it counts, whom it serves |
//! | `presence` | who is online on which node |
//! | `survey` | questions to all nodes at once |
//! | `scale` | what many nodes do to Redis, on paper and counted |
//! | `line` | the connection to Redis |
//! | `thread`, `life` | the thread, and one life of the link |

mod bans;
mod claims;
mod direct;
mod emitter;
mod envelope;
mod ids;
mod interest;
mod life;
mod line;
mod options;
mod outgoing;
mod presence;
mod records;
#[cfg(test)]
mod scale;
mod sequence;
mod server;
mod side;
mod source;
mod streams;
mod survey;
mod tally;
mod thread;
#[cfg(test)]
mod thread_tests;
mod window;

pub use bans::Ban;
pub use claims::{Claim, Claimed, Era};
pub use direct::Direct;
pub use ids::{Named, Naming};
pub use options::{Bounds, Extras, Options, Presence};
pub use presence::{Absent, Afar, Change, MOST_NODES, Name, Pose};
pub use records::{Receipt, Record};
pub use sequence::{Part, Sequence};
pub use server::{Fault, Papers, Patience, Place, Sentinels, Server};
pub use side::{Channel, Mark, Parcel, Refused, Side, Word};
pub use streams::{Append, Bound, Entry, Fetch, Found, Lost, Refusal, Shares, Verdict};
pub use survey::{Poll, Polled, Survey, Surveyed};
pub use tally::Tally;
pub use thread::Bridge;
