//! Rooms whose history all nodes share: their publications are numbered and kept by Redis.
//!
//! A publication to such a room goes to Redis before anybody receives it. One script gives it the next number,
//! keeps it in the room's stream and publishes it with its number on the room's channel; every node, the
//! author's too, delivers it when it comes from there. So all nodes show one order, and a place in it means the
//! same on each of them. What pub/sub loses leaves a hole in the numbers, and a hole is filled from the stream
//! before anything newer is delivered.
//!
//! What is decided here is decided by pure functions over numbers: `follow` says what to do with a message or
//! with what was read. The rest carries it out: nothing waits for Redis, all of it is queued, with bounds.
//!
//! | file | subject |
//! |---|---|
//! | `follow` | where a node stands in a room, what is next, what is missing |
//! | `append` | what waits to be numbered |
//! | `script` | the two scripts, what they are given and what they answer |
//! | `carry` | the work of a link, and what comes of it |
//! | `side` | what the node asks and is told |

mod append;
mod carry;
mod follow;
#[cfg(test)]
mod model;
mod script;
mod side;

pub(super) use carry::{Chore, Streams};
pub(super) use script::is_kept;
pub use side::{Append, Bound, Entry, Fetch, Found, Lost, Refusal, Shares, Verdict};
#[cfg(test)]
pub(super) use {
    append::Appends,
    follow::{Follower, Heard, Read},
    script::{Keys, Letter},
};
