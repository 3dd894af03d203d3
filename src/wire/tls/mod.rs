//! TLS between the socket and everything else: ciphertext in and out, slices both ways.
//!
//! A [`Layer`] is the state of one connection, worked by `rustls` through its unbuffered interface: what
//! arrives is decrypted out of the bytes that were lent, what leaves is encrypted when it is about to
//! leave, and in between nothing is kept but an incomplete record. A [`ServerConfig`] says who we are and
//! whom we believe; it is made here from values, shared by all shards, and replaced as a whole when
//! certificates change. A layer keeps the one it began with.
//!
//! No file is read here and no socket is known. The randomness of handshakes and the time against which
//! certificates of clients are checked come from the providers in the configuration, which the rim makes.
//!
//! | file | subject |
//! |---|---|
//! | `layer` | the state of one connection |
//! | `config` | certificates, versions, client certificates and tickets to a [`ServerConfig`] |
//! | `names` | which certificate a client gets by the name it asks for; who a client is by its own |

mod config;
mod handed;
mod layer;
mod names;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use config::{
    Clients, ConfigError, Identity, Options, Tickets, Version, server_config, tickets,
};
pub use layer::{Fault, Layer};
pub use names::Peer;
pub use rustls::ServerConfig;
pub use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::contract::ListenerId;

/// How a shard is to serve TLS.
#[derive(Clone, Debug)]
pub struct SecureListener {
    /// Sockets of this listener speak TLS.
    pub listener: ListenerId,
    /// Who we are, for connections that begin from now on.
    pub config: Arc<ServerConfig>,
    /// Steps of handshakes in one turn; what is over waits for the next.
    pub steps_per_turn: u32,
    /// How long those may take together; the step that goes beyond it is the turn's last.
    pub time_per_turn: Duration,
}
