//! From certificates and choices to what rustls goes by.
//!
//! Everything that is wrong is found here, before any client is answered with it: a key that is not its
//! certificate's, a chain that cannot be read, an authority that is none.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::names::ByName;

/// A chain of certificates, our own first, and its key.
#[derive(Debug)]
pub struct Identity {
    /// Our certificate and those that vouch for it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

/// Whether clients are asked for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// They are not.
    Unasked,
    /// Those who show one must have it from one of these authorities.
    Asked(Vec<CertificateDer<'static>>),
    /// Everybody must.
    Required(Vec<CertificateDer<'static>>),
}

/// The oldest protocol that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// What seals the tickets that sessions are resumed with. It changes its keys by itself, and clones are
/// the same one: kept over a change of certificates, it keeps old tickets good.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<dyn ProducesTickets>);

/// Tickets under fresh keys, which change every six hours.
///
/// # Errors
/// When there is no randomness.
pub fn tickets() -> Result<Tickets, ConfigError> {
    aws_lc_rs::Ticketer::new().map(Tickets).map_err(ConfigError::other)
}

/// What a configuration is made of.
#[derive(Debug)]
pub struct Options {
    /// At least one; the first is for clients that ask for a name nobody has.
    pub identities: Vec<Identity>,
    /// Whether clients are asked for certificates.
    pub clients: Clients,
    /// The oldest protocol that is spoken.
    pub oldest: Version,
    /// Sealed tickets; `None`: every handshake is a full one.
    pub tickets: Option<Tickets>,
}

/// Why no configuration could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The identity at that place does not do.
    Identity(usize, String),
    /// The authorities of clients do not do.
    Authorities(String),
    /// Anything else.
    Other(String),
}

impl ConfigError {
    fn other(why: impl fmt::Display) -> Self {
        Self::Other(why.to_string())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(at, why) => write!(f, "certificate {}: {why}", at + 1),
            Self::Authorities(why) => write!(f, "authorities of clients: {why}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Makes what rustls goes by.
///
/// # Errors
/// When a certificate, its key or an authority does not do.
pub fn server_config(options: Options) -> Result<Arc<ServerConfig>, ConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut certified = Vec::new();
    for (at, Identity { chain, key }) in options.identities.into_iter().enumerate() {
        let pair = CertifiedKey::from_der(chain, key, &provider);
        let pair = pair.map_err(|error| ConfigError::Identity(at, error.to_string()))?;
        certified.push(Arc::new(pair));
    }
    if certified.is_empty() {
        return Err(ConfigError::other("there is no certificate"));
    }
    let verifier = verifier(options.clients, &provider)?;
    let versions = match options.oldest {
        Version::Tls12 => &[&TLS13, &TLS12][..],
        Version::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(ConfigError::other)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByName::new(certified)));
    // WebSocket over anything newer is another protocol (RFC 8441), which we do not speak.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // What a session is resumed with is the client's to keep, not ours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match options.tickets {
        Some(Tickets(tickets)) => config.ticketer = tickets,
        None => config.send_tls13_tickets = 0,
    }
    Ok(Arc::new(config))
}

fn verifier(
    clients: Clients,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    let (authorities, required) = match clients {
        Clients::Unasked => return Ok(WebPkiClientVerifier::no_client_auth()),
        Clients::Asked(authorities) => (authorities, false),
        Clients::Required(authorities) => (authorities, true),
    };
    let wrong = |error: &dyn fmt::Display| ConfigError::Authorities(error.to_string());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| wrong(&error))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| wrong(&error))
}
