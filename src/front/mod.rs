//! Requests that another server answers, from the socket that has left its shard to the end of what it carries.
//!
//! A shard lets go of a connection whose path is a `[[proxy]]`'s, with its socket, its TLS layer and all that was
//! read of it. From there on it lives on one thread of this module, which goes between the client and the server:
//! bodies of any length in both directions, each as fast as the slower side takes it, and upgrades, after which
//! bytes pass unread until either side ends. One connection carries one request, because the next one's path may
//! be a shard's again.
//!
//! Nothing here slows a shard: a worker leaves a connection in a channel with a bound and never waits, and what
//! finds no space there is closed and counted.
//!
//! | file | subject |
//! |---|---|
//! | `options` | what the thread is told |
//! | `line` | from the workers to the thread |
//! | `thread` | the thread, its connections and their end |
//! | `seats` | how many there may be, of a place and of an address |
//! | `spoken` | a socket, with what lies between it and what is said |
//! | `serve` | one request and its answer |
//! | `head` | what of a head concerns two neighbours only, and who the client is |
//! | `tally` | what is counted |

mod head;
mod line;
mod options;
mod seats;
mod serve;
mod spoken;
mod tally;
mod thread;

pub(crate) use head::part;
pub use line::Line;
pub use options::{Options, Place};
pub use tally::Tally;
pub use thread::Front;
