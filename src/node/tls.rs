//! Certificates from files, and new ones when the files change.
//!
//! What connections go by is made of the files whole and handed to the shards as a value, so a file that is
//! half written or does not fit its key changes nothing: the node goes on with what it had and says so. The
//! main thread looks at the files' times once a second; a connection that has begun keeps what it began
//! with.
//!
//! The keys of tickets outlive a change of certificates, so that clients still resume. They do not outlive
//! a change of what is asked of clients: a ticket stands for a certificate that was checked by the old
//! rules.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{Error as PemError, PemObject as _};

use crate::contract::ListenerId;
use crate::node::config::Config;
use crate::node::config::values::{Certificate, ClientAuth, TlsVersion};
use crate::node::running::LaunchError;
use crate::wire::tls::{
    CertificateDer, Clients, ConfigError, Identity, Options, PrivateKeyDer, SecureListener,
    ServerConfig, Tickets, Version, server_config, tickets,
};

/// What a file looked like: when it was last changed and how long it was; `None` when it is not there.
type Stamp = Option<(SystemTime, u64)>;

/// Who clients are, as far as tickets depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    client_auth: ClientAuth,
    authorities: Vec<CertificateDer<'static>>,
}

/// The certificates in use.
#[derive(Debug)]
pub(super) struct Certificates {
    config: Arc<ServerConfig>,
    tickets: Tickets,
    rules: Rules,
    /// Of the files when they were last read, whatever came of it.
    stamps: Vec<Stamp>,
}

impl Certificates {
    /// Reads the files; `None` where TLS is off.
    ///
    /// # Errors
    /// When a file cannot be read or used; the text names the key and the file.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, String> {
        if config.transport.tls.listen.is_none() {
            return Ok(None);
        }
        let stamps = stamps(config);
        let rules = rules(config)?;
        let tickets = tickets().map_err(|error| error.to_string())?;
        let made = make(config, &rules, &tickets)?;
        Ok(Some(Self { config: made, tickets, rules, stamps }))
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Certificates::load`]; what was in use stays.
    pub(super) fn renew(&mut self, config: &Config) -> Result<(), String> {
        self.stamps = stamps(config);
        let rules = rules(config)?;
        let tickets = if rules == self.rules {
            self.tickets.clone()
        } else {
            tickets().map_err(|error| error.to_string())?
        };
        self.config = make(config, &rules, &tickets)?;
        (self.tickets, self.rules) = (tickets, rules);
        Ok(())
    }

    /// True when a file has changed since it was last read.
    pub(super) fn are_stale(&self, config: &Config) -> bool {
        self.stamps != stamps(config)
    }

    /// What a shard goes by. The listeners stand in the order plain, TLS.
    pub(super) fn secure_listener(&self, config: &Config) -> SecureListener {
        SecureListener {
            listener: ListenerId(u8::from(config.server.listen.is_some())),
            config: Arc::clone(&self.config),
            steps_per_turn: config.transport.tls.handshakes_per_turn,
            time_per_turn: config.transport.tls.handshake_time,
        }
    }
}

/// Reads the certificates as a start would, to say beforehand what is wrong with them.
pub(super) fn check(config: &Config) -> Result<(), LaunchError> {
    Certificates::load(config).map(|_| ()).map_err(LaunchError::of)
}

fn files(config: &Config) -> impl Iterator<Item = &String> {
    let certificates = config.lists.certificates.iter().flat_map(|c| [&c.chain, &c.key]);
    certificates.chain(Some(&config.transport.tls.client_ca).filter(|ca| !ca.is_empty()))
}

fn stamps(config: &Config) -> Vec<Stamp> {
    let stamp = |file: &String| {
        let facts = fs::metadata(file).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    };
    files(config).map(stamp).collect()
}

fn rules(config: &Config) -> Result<Rules, String> {
    let tls = &config.transport.tls;
    let authorities = match tls.client_auth {
        ClientAuth::Off => Vec::new(),
        ClientAuth::Optional | ClientAuth::Required => chain("tls.client_ca", &tls.client_ca)?,
    };
    Ok(Rules { client_auth: tls.client_auth, authorities })
}

fn make(config: &Config, rules: &Rules, tickets: &Tickets) -> Result<Arc<ServerConfig>, String> {
    let tls = &config.transport.tls;
    let identities = config.lists.certificates.iter().map(identity).collect::<Result<_, _>>()?;
    let authorities = rules.authorities.clone();
    let options = Options {
        identities,
        clients: match rules.client_auth {
            ClientAuth::Off => Clients::Unasked,
            ClientAuth::Optional => Clients::Asked(authorities),
            ClientAuth::Required => Clients::Required(authorities),
        },
        oldest: match tls.min_version {
            TlsVersion::V12 => Version::Tls12,
            TlsVersion::V13 => Version::Tls13,
        },
        tickets: tls.tickets.then(|| tickets.clone()),
    };
    server_config(options).map_err(|error| match error {
        ConfigError::Identity(at, why) => {
            let Certificate { chain, key } = &config.lists.certificates[at];
            format!("[[certificate]] chain = {chain:?}, key = {key:?}: {why}")
        }
        ConfigError::Authorities(why) => format!("tls.client_ca = {:?}: {why}", tls.client_ca),
        ConfigError::Other(why) => format!("[tls]: {why}"),
    })
}

fn identity(certificate: &Certificate) -> Result<Identity, String> {
    let Certificate { chain: file, key } = certificate;
    let chain = chain("certificate.chain", file)?;
    let text = read("certificate.key", key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound => {
            format!("certificate.key = {key:?}: expected a private key in PEM")
        }
        error => format!("certificate.key = {key:?}: not PEM: {error}"),
    })?;
    Ok(Identity { chain, key })
}

fn chain(name: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(name, file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(format!("{name} = {file:?}: expected certificates in PEM"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("{name} = {file:?}: not PEM: {error}")),
    }
}

fn read(name: &str, file: &str) -> Result<Vec<u8>, String> {
    fs::read(Path::new(file)).map_err(|error| format!("{name} = {file:?}: cannot be read: {error}"))
}
