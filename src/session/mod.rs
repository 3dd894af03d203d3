//! The application protocol over whole messages.
//!
//! A session reads a client's messages into [`Request`]s and writes the server's messages into a
//! buffer. It acts on nothing: rooms, queues and deadlines belong to its callers. It knows no frame,
//! no socket and no transport, so that the same session serves WebSocket, SSE and long polling, and
//! whoever sends its messages puts the framing around them.
//!
//! The protocol spoken here is `throng.v1.json`; `docs/protocol.md` describes it to clients, and the
//! examples there are run as tests. What an application says to itself (type, payload, id) passes
//! through as the bytes it was written in; the engine neither parses nor rewrites it, beyond one scan
//! that bounds its depth and its number of keys, and beyond what an operator's schemas ask for.
//!
//! | file | subject |
//! |---|---|
//! | `protocol` | which protocol a client speaks, and the state of a session (one byte) |
//! | `command` | what a client asks: from text to a [`Request`] |
//! | `inbox` | a user's notifications: how they are asked for, and how they are told |
//! | `targets` | whom a publication is for, and whom it is not for |
//! | `order` | what a back end asks to publish |
//! | `envelope` | the fields of a message and the values they may have |
//! | `resume` | cursors, lists of rooms, pages: the fields by which a client comes back |
//! | `schema` | what payloads must look like where the operator says so |
//! | `scan` | depth and keys of a text, before anything is parsed |
//! | `error` | why a message was not obeyed, and the codes clients see |
//! | `encode` | what the server says: replies, errors and pushes |
//! | `packets` | the same in the words of Socket.IO |
//! | `presence` | who is there: what is asked and what is said |
//! | `object` | writing a JSON object field by field |

pub mod command;
pub mod encode;
mod envelope;
pub mod error;
pub mod inbox;
mod object;
pub mod order;
pub mod packets;
pub mod presence;
pub mod protocol;
mod resume;
mod scan;
pub mod schema;
pub mod targets;

#[cfg(test)]
mod tests;

pub use command::{Command, CommandLimits, Publish, Request, parse};
pub use error::{Code, CommandError};
pub use object::in_lines;
pub use order::{Count, Order, OrderError, Orders, parse_order, parse_orders};
pub use presence::{Subjects, Whois};
pub use protocol::{Agreement, Incoming, Protocol, Session, Status};
pub use resume::Return;
pub use targets::{Except, Targets};
