//! Request heads of HTTP/1.1, and the few responses an upgrade port gives.
//!
//! | file | subject |
//! |---|---|
//! | `scan` | the strict pass over bytes as they arrive; finds the end, refuses early |
//! | `head` | the parsed head: fields by httparse, framing rules of RFC 9112 |
//! | `grammar` | the ABNF of header values |
//! | `forwarded` | the client's address, as proxies pass it on |
//! | `upgrade` | the WebSocket handshake of RFC 6455, section 4.2 |
//! | `deflate` | the one extension, offered and answered |
//! | `refusal` | a status and one line that says what was wrong |
//! | `response` | 200, 204 and 101 |
//!
//! One request is served per TCP connection: it becomes a WebSocket or an event stream, or the connection
//! closes with the response. So there is no keep-alive, no body is read, and what cannot be understood without doubt is
//! refused. Which path leads where, and how long a client may take, is decided above.

mod deflate;
mod forwarded;
mod grammar;
mod head;
mod refusal;
mod response;
mod scan;
mod upgrade;

#[cfg(test)]
mod tests;

pub use deflate::Deflate;
pub use forwarded::{Via, client};
pub use head::{Body, Head, HeadLimits, Parsed, Version, parse, parse_more};
pub use refusal::{
    EIO_METHOD, EIO_REQUEST, EIO_SESSION, EIO_TRANSPORT, EIO_VERSION, Extra, Refusal,
};
pub use response::{document, page, polled, preflight, preflight_of, stream, switching};
pub use scan::Scan;
pub use upgrade::{
    FETCH_SITE, SAME_ORIGIN, Upgrade, origin, own_origin, stream as stream_request, upgrade,
};
