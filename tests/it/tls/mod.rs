//! TLS over real sockets, with rustls and tungstenite as a foreign client.
//!
//! | file | subject |
//! |---|---|
//! | `client` | a secure client, and a node for it |
//! | `proxied` | the client's address told ahead of TLS |
//! | `talking` | who gets in speaks as everybody else does |
//! | `refusing` | who does not get in leaves nothing behind |
//! | `renewing` | new certificates under live connections |

pub(crate) mod client;
pub(crate) mod proxied;
mod refusing;
mod renewing;
mod talking;
