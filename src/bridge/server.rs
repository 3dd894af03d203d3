//! Where Redis is, who we are to it, and whom to believe.
//!
//! A certificate, a key or an address that cannot be used is found out before anything is connected, and the fault
//! names the configuration's key. What can only be found out by connecting, such as a certificate that Redis does
//! not accept, is a link that does not come up: it is logged, and tried again.

use std::fmt;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    TlsCertificates, TlsMode,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::source::{Cluster, Source};
use crate::base::secret::Secret;

/// Where Redis is, and who we are to it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// The ACL user; empty: Redis's default user.
    pub user: String,
    /// Its password; empty: none.
    pub password: Secret,
    /// For TLS.
    pub papers: Papers,
}

/// Where Redis is.
#[derive(Clone, Debug)]
pub enum Place {
    /// `redis://HOST:PORT`, `rediss://HOST:PORT` for TLS, or `redis+unix:///PATH`.
    Url(String),
    /// Where the sentinels say.
    Sentinels(Sentinels),
    /// Nodes of a cluster, as URLs. The others are learnt from them.
    Cluster(Vec<String>),
}

/// Whom to ask where the primary is.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// Where they are: `redis://HOST:PORT`, or `rediss://HOST:PORT` for TLS, with them and with the primary.
    pub urls: Vec<String>,
    /// Their name for the primary.
    pub primary: String,
    /// Who we are to them; empty: their default user.
    pub user: String,
    /// The password; empty: none.
    pub password: Secret,
}

/// Certificates, in PEM.
#[derive(Clone, Debug, Default)]
pub struct Papers {
    /// Whom to believe about Redis instead of those whom the system trusts.
    pub roots: Option<Vec<u8>>,
    /// What we show to Redis: a chain of certificates, and the key of the first.
    pub own: Option<(Vec<u8>, Secret)>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A connection.
    pub connect: Duration,
    /// A command, and a canary until it comes back.
    pub command: Duration,
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
    /// Where connections go. Nothing is connected.
    ///
    /// # Errors
    /// When the address, a certificate or a key cannot be used.
    pub(super) fn source(&self, prefix: &str, patience: Patience) -> Result<Source, Fault> {
        match &self.place {
            Place::Url(url) => self.client(url).map(|client| Source::Fixed(Box::new(client))),
            Place::Sentinels(sentinels) => {
                self.sentinels(sentinels).map(|client| Source::Named(Box::new(client)))
            }
            Place::Cluster(urls) => self.cluster(urls, prefix, patience),
        }
    }

    /// A client of the server with that URL.
    pub(super) fn client(&self, url: &str) -> Result<Client, Fault> {
        let info = parsed(url).ok_or_else(bad_url)?;
        let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        if !self.user.is_empty() {
            settings = settings.set_username(&self.user);
        }
        if !self.password.is_empty() {
            settings = settings.set_password(self.password.expose());
        }
        let info = info.set_redis_settings(settings);
        match self.papers.certificates(url.starts_with(TLS))? {
            None => Client::open(info).map_err(|_| bad_url()),
            Some(papers) => Client::build_with_tls(info, papers).map_err(|_| bad_url()),
        }
    }

    /// Where a cluster's nodes are, to begin with.
    ///
    /// # Errors
    /// When one of the URLs, a certificate or a key cannot be used.
    pub(super) fn seeds(&self, urls: &[String]) -> Result<Vec<ConnectionInfo>, Fault> {
        let is_tls = urls.iter().all(|url| url.starts_with(TLS));
        let clients: Vec<Client> =
            urls.iter().map(|url| self.client(url)).collect::<Result<_, _>>()?;
        let seeds: Vec<_> =
            clients.iter().map(|client| client.get_connection_info().clone()).collect();
        let fits = |seed: &ConnectionInfo| match seed.addr() {
            ConnectionAddr::Tcp(..) => !is_tls,
            ConnectionAddr::TcpTls { .. } => is_tls,
            _ => false,
        };
        if seeds.is_empty() || !seeds.iter().all(fits) {
            return Err(bad_seeds());
        }
        Ok(seeds)
    }

    fn cluster(&self, urls: &[String], prefix: &str, patience: Patience) -> Result<Source, Fault> {
        let seeds = self.seeds(urls)?;
        let is_tls = urls.iter().all(|url| url.starts_with(TLS));
        let wait = u64::try_from(LONGEST_RETRY.as_millis()).unwrap_or(u64::MAX);
        let mut builder: ClusterClientBuilder = ClusterClient::builder(seeds.clone())
            .retries(RETRIES)
            .max_retry_wait(wait)
            .connection_timeout(patience.connect)
            .response_timeout(patience.command)
            .use_protocol(ProtocolVersion::RESP3);
        if let Some(papers) = self.papers.certificates(is_tls)? {
            builder = builder.certs(papers);
        }
        let client = builder.build().map_err(|_| bad_seeds())?;
        let key = format!("{}:lease", hub_prefix(prefix));
        Ok(Source::Spread(Box::new(Cluster { client, seeds, key })))
    }

    /// A client of sentinels.
    pub(super) fn sentinels(&self, sentinels: &Sentinels) -> Result<SentinelClient, Fault> {
        let bad = || {
            let expected = "redis://HOST:PORT each, or rediss://HOST:PORT each (TLS), without user or \
                            password";
            wrong("bridge.sentinels", expected)
        };
        let is_tls = sentinels.urls.iter().all(|url| url.starts_with(TLS));
        let address = |url: &String| {
            let address = parsed(url)?.addr().clone();
            let fits = match address {
                ConnectionAddr::Tcp(..) => !is_tls,
                ConnectionAddr::TcpTls { .. } => is_tls,
                _ => false,
            };
            fits.then_some(address)
        };
        let addresses: Option<Vec<_>> = sentinels.urls.iter().map(address).collect();
        let addresses = addresses.filter(|all| !all.is_empty()).ok_or_else(bad)?;
        let master = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(addresses, &sentinels.primary, master)
            .map_err(|_| bad())?
            .set_client_to_redis_protocol(ProtocolVersion::RESP3);
        if is_tls {
            let secure = TlsMode::Secure;
            builder = builder
                .set_client_to_redis_tls_mode(secure)
                .set_client_to_sentinel_tls_mode(secure);
        }
        if let Some(papers) = self.papers.certificates(is_tls)? {
            builder = builder
                .set_client_to_redis_certificates(papers.clone())
                .set_client_to_sentinel_certificates(papers);
        }
        if !self.user.is_empty() {
            builder = builder.set_client_to_redis_username(&self.user);
        }
        if !self.password.is_empty() {
            builder = builder.set_client_to_redis_password(self.password.expose());
        }
        if !sentinels.user.is_empty() {
            builder = builder.set_client_to_sentinel_username(&sentinels.user);
        }
        if !sentinels.password.is_empty() {
            builder = builder.set_client_to_sentinel_password(sentinels.password.expose());
        }
        builder.build().map_err(|_| bad())
    }
}

/// What a URL says, if it is one and says nothing that is not for everybody's eyes.
fn parsed(url: &str) -> Option<ConnectionInfo> {
    let info = url.into_connection_info().ok()?;
    let settings = info.redis_settings();
    // A URL is printed and logged; and one that says "do not look at certificates" says so where nobody looks.
    let is_open = settings.username().is_none() && settings.password().is_none();
    (is_open && !url.contains('#')).then_some(info)
}

impl Papers {
    /// What the library takes; `None` where there is nothing to take.
    ///
    /// # Errors
    /// When something in them is not what it should be, or nobody would look at it.
    fn certificates(&self, is_tls: bool) -> Result<Option<TlsCertificates>, Fault> {
        let roots = self.roots.as_deref();
        let is_bad = |pem: &[u8]| !is_tls || chain(pem).is_none();
        if roots.is_some_and(is_bad) {
            return Err(wrong("bridge.ca_file", "certificates in PEM, and a rediss:// url"));
        }
        let mut client_tls = None;
        if let Some((certificates, key)) = &self.own {
            if is_bad(certificates) {
                return Err(wrong("bridge.cert_file", "certificates in PEM, and a rediss:// url"));
            }
            let key = key.expose().as_bytes();
            if !belong(certificates, key) {
                let expected = "a key in PEM that belongs to the first of bridge.cert_file";
                return Err(wrong("bridge.key_file", expected));
            }
            let (client_cert, client_key) = (certificates.clone(), key.to_vec());
            client_tls = Some(ClientTlsConfig { client_cert, client_key });
        }
        let is_some = self.roots.is_some() || client_tls.is_some();
        Ok(is_some.then(|| TlsCertificates { client_tls, root_cert: self.roots.clone() }))
    }
}

/// What keys begin with that belong to no room, where Redis is a cluster: so they are all on one of its nodes.
pub(super) fn hub_prefix(prefix: &str) -> String {
    format!("{prefix}:{{all}}")
}

const TLS: &str = "rediss:";
/// How often a command goes again before it is given back, and how long it waits between at most: a slot that is on
/// its way holds up only its own rooms for longer.
const RETRIES: u32 = 4;
const LONGEST_RETRY: Duration = Duration::from_millis(50);

fn wrong(key: &'static str, expected: &str) -> Fault {
    Fault { key, expected: expected.to_owned() }
}

fn bad_seeds() -> Fault {
    let expected = "the form of bridge.url, TLS with all or with none, and no unix socket";
    wrong("bridge.seeds", expected)
}

fn bad_url() -> Fault {
    let form = "redis://HOST:PORT, rediss://HOST:PORT (TLS) or redis+unix:///PATH, without user or \
                password";
    wrong("bridge.url", form)
}

/// The certificates in there, if there is one and all are.
fn chain(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// True when the key is that of the first certificate.
fn belong(certificates: &[u8], key: &[u8]) -> bool {
    let (Some(chain), Ok(key)) = (chain(certificates), PrivateKeyDer::from_pem_slice(key)) else {
        return false;
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    const PATIENCE: Patience =
        Patience { connect: Duration::from_secs(1), command: Duration::from_secs(1) };

    fn server(url: &str) -> Server {
        let (user, password) = (String::new(), Secret::new(""));
        Server { place: Place::Url(url.to_owned()), user, password, papers: Papers::default() }
    }

    fn with(papers: Papers) -> Option<&'static str> {
        let server = Server { papers, ..server("rediss://a:1") };
        server.source("throng", PATIENCE).err().map(|fault| fault.key)
    }

    #[test]
    fn an_address_that_is_none_or_holds_a_password_is_refused_with_its_key() {
        let wrong = ["", "redis", "http://a:1", "redis://:secret@a:1", "redis://u:p@a:1"];
        for url in wrong.into_iter().chain(["rediss://a:1/#insecure"]) {
            let fault =
                server(url).source("throng", PATIENCE).err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(fault.key, "bridge.url", "{url}");
            assert!(!fault.to_string().contains("secret"), "{fault}");
        }
        for url in ["redis://a:1", "rediss://a:1", "redis://[::1]:1", "redis+unix:///tmp/r"] {
            assert!(server(url).source("throng", PATIENCE).is_ok(), "{url}");
        }
    }

    #[test]
    fn sentinels_are_all_asked_in_one_way_and_without_a_password_in_their_address() {
        let ask = |urls: &[&str]| {
            let sentinels = Sentinels {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                primary: "main".to_owned(),
                user: String::new(),
                password: Secret::new("secret"),
            };
            let server = Server { place: Place::Sentinels(sentinels), ..server("") };
            server.source("throng", PATIENCE).err().map(|fault| fault.key)
        };
        for right in [&["redis://a:1", "redis://b:1"][..], &["rediss://a:1"]] {
            assert_eq!(ask(right), None, "{right:?}");
        }
        let unix = "redis+unix:///tmp/r";
        for wrong in
            [&[][..], &["redis://a:1", "rediss://b:1"], &[unix], &["redis://u:p@a:1"], &["a:1"]]
        {
            assert_eq!(ask(wrong), Some("bridge.sentinels"), "{wrong:?}");
        }
    }

    #[test]
    fn nodes_of_a_cluster_are_all_reached_in_one_way() {
        let start = |urls: &[&str]| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let server = Server { place: Place::Cluster(urls), ..server("") };
            server.source("throng", PATIENCE).err().map(|fault| fault.key)
        };
        for right in [&["redis://a:1", "redis://b:1"][..], &["rediss://a:1"]] {
            assert_eq!(start(right), None, "{right:?}");
        }
        for wrong in [&[][..], &["redis://a:1", "rediss://b:1"], &["redis+unix:///tmp/r"]] {
            assert_eq!(start(wrong), Some("bridge.seeds"), "{wrong:?}");
        }
        assert_eq!(start(&["redis://u:p@a:1"]), Some("bridge.url"));
    }

    #[test]
    fn certificates_and_keys_that_cannot_be_used_are_refused_with_their_keys() {
        let make = || {
            let made = generate_simple_self_signed(["a".to_owned()]).expect("a certificate");
            let CertifiedKey { cert, signing_key } = made;
            (cert.pem().into_bytes(), Secret::new(&signing_key.serialize_pem()))
        };
        let ((chain, key), (_, other)) = (make(), make());
        let roots = |pem: &[u8]| Papers { roots: Some(pem.to_vec()), own: None };
        let own = |chain: &[u8], key: &Secret| Papers {
            roots: None,
            own: Some((chain.to_vec(), key.clone())),
        };
        assert_eq!(with(roots(&chain)), None);
        assert_eq!(with(own(&chain, &key)), None);
        assert_eq!(with(roots(b"x")), Some("bridge.ca_file"));
        assert_eq!(with(own(b"x", &key)), Some("bridge.cert_file"));
        assert_eq!(with(own(&chain, &Secret::new("x"))), Some("bridge.key_file"));
        assert_eq!(with(own(&chain, &other)), Some("bridge.key_file"));
        // Who has no TLS shows nothing to nobody.
        for papers in [roots(&chain), own(&chain, &key)] {
            let plain = Server { papers, ..server("redis://a:1") };
            assert!(plain.source("throng", PATIENCE).is_err());
        }
    }
}
