//! What the bridge is told.

use std::fmt;
use std::time::Duration;

use redis::{Client, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

use crate::base::secret::Secret;

/// What the bridge is told. Built by `node` from the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is, and who we are to it.
    pub server: Server,
    /// In front of the names of channels.
    pub prefix: String,
    /// The node's name in envelopes.
    pub node: String,
    /// The node's life, by which its envelopes are told from those of an earlier one.
    pub epoch: u64,
    /// The node's tag: the name of its own channel.
    pub tag: u32,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long Redis may take to answer a command, and a canary to come back.
    pub command_timeout: Duration,
    /// What may wait.
    pub bounds: Bounds,
    /// Between two canaries.
    pub canary: Duration,
    /// How long a subscription outlives its last member.
    pub linger: Duration,
    /// How long other nodes may take to answer a question.
    pub survey_timeout: Duration,
    /// What is known of users over nodes.
    pub presence: Presence,
}

/// What is known of users over nodes.
#[derive(Clone, Copy, Debug)]
pub struct Presence {
    /// How long a node that has fallen silent counts as there; `None`: nothing is told and nothing known.
    pub lease: Option<Duration>,
    /// Users of other nodes that are known at most.
    pub most_users: usize,
}

/// What may wait.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Envelopes to be published.
    pub queue: usize,
    /// Bytes of those.
    pub queue_bytes: usize,
    /// Messages from channels, for this thread.
    pub incoming: usize,
}

/// Where Redis is, and who we are to it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where Redis is: `redis://HOST:PORT`, `rediss://HOST:PORT` for TLS, or `redis+unix:///PATH`.
    pub url: String,
    /// The ACL user; empty: Redis's default user.
    pub user: String,
    /// Its password; empty: none.
    pub password: Secret,
    /// The certificates, in PEM, of whom to believe besides those the system trusts.
    pub roots: Option<Vec<u8>>,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The configuration's key.
    pub key: &'static str,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.key, self.expected)
    }
}

impl Server {
    /// A client for it. Nothing is connected.
    ///
    /// # Errors
    /// When the address or a certificate cannot be used.
    pub(super) fn client(&self) -> Result<Client, Fault> {
        let wrong = |key, expected: &str| Fault { key, expected: expected.to_owned() };
        let form = "redis://HOST:PORT, rediss://HOST:PORT (TLS) or redis+unix:///PATH, without user \
                    or password";
        let bad_url = |_| wrong("bridge.url", form);
        let info = self.url.as_str().into_connection_info().map_err(bad_url)?;
        let own = info.redis_settings();
        if own.username().is_some() || own.password().is_some() {
            // A URL is printed and logged.
            return Err(wrong("bridge.url", form));
        }
        let mut settings = own.clone().set_protocol(ProtocolVersion::RESP3);
        if !self.user.is_empty() {
            settings = settings.set_username(&self.user);
        }
        if !self.password.expose().is_empty() {
            settings = settings.set_password(self.password.expose());
        }
        let info = info.set_redis_settings(settings);
        match &self.roots {
            None => Client::open(info).map_err(bad_url),
            Some(roots) => {
                let root_cert = Some(roots.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
                    .map_err(|_| {
                        wrong("bridge.ca_file", "certificates in PEM, and a rediss:// url")
                    })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server { url: url.to_owned(), user: String::new(), password: Secret::new(""), roots: None }
    }

    #[test]
    fn an_address_that_is_none_or_holds_a_password_is_refused_with_its_key() {
        for url in ["", "redis", "http://a:1", "redis://:secret@a:1", "redis://u:p@a:1"] {
            let fault = server(url).client().err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(fault.key, "bridge.url", "{url}");
            assert!(!fault.to_string().contains("secret"), "{fault}");
        }
        for url in ["redis://a:1", "rediss://a:1", "redis://[::1]:1", "redis+unix:///tmp/r"] {
            assert!(server(url).client().is_ok(), "{url}");
        }
        let wrong = Server { roots: Some(b"x".to_vec()), ..server("redis://a:1") };
        assert_eq!(wrong.client().err().map(|fault| fault.key), Some("bridge.ca_file"));
    }
}
