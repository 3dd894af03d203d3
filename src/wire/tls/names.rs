//! Names in certificates: which of ours a client gets, and who a client is.
//!
//! The names of our certificates are read once, when the configuration is made, so that a handshake costs
//! two look-ups. A client that asks for a name nobody has, or for none, gets the first certificate: it may
//! know us by an address, and whether it believes us is for it to decide. Of several certificates for one
//! name it gets the first whose key it can verify, so that a fast one may stand before one for old clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Our certificates, by the names they are good for.
#[derive(Debug)]
pub(super) struct ByName {
    all: Vec<Arc<CertifiedKey>>,
    /// Exact names, and names behind `*.`, in lower case; the places in `all` in their order.
    exact: BTreeMap<String, Vec<usize>>,
    wild: BTreeMap<String, Vec<usize>>,
}

impl ByName {
    /// The certificates in the order of preference; the first is for everyone else.
    pub(super) fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let (mut exact, mut wild) = (BTreeMap::<String, Vec<_>>::new(), BTreeMap::new());
        for (at, certified) in all.iter().enumerate() {
            for name in certified.cert.first().map(dns_names).unwrap_or_default() {
                match name.strip_prefix("*.") {
                    Some(parent) => wild.entry(parent.to_owned()).or_insert_with(Vec::new).push(at),
                    None => exact.entry(name).or_default().push(at),
                }
            }
        }
        Self { all, exact, wild }
    }

    fn places(&self, name: &str) -> impl Iterator<Item = usize> {
        // A star stands for one label (RFC 6125, section 6.4.3).
        let parent = name.split_once('.').and_then(|(_, parent)| self.wild.get(parent));
        self.exact.get(name).into_iter().chain(parent).flatten().copied()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase).unwrap_or_default();
        let named: Vec<usize> = self.places(&name).collect();
        let choice = if named.is_empty() { (0..self.all.len()).collect() } else { named };
        let schemes = hello.signature_schemes();
        let fits = |at: &&usize| self.all[**at].key.choose_scheme(schemes).is_some();
        let at = choice.iter().find(fits).or_else(|| choice.first())?;
        self.all.get(*at).cloned()
    }
}

/// The names a certificate is good for, in lower case.
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let dns = names.0.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// Who has shown a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The subject, as RFC 4514 writes it: `CN=alice,O=example`. Empty for one without a name.
    pub subject: String,
    /// The end of the certificate, in seconds since 1970.
    pub ends: u64,
}

/// Whose certificate it is, and until when; `None` when it cannot be read.
pub(super) fn peer(certificate: &CertificateDer<'_>) -> Option<Peer> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let ends = certificate.validity.not_after.to_unix_duration().as_secs();
    Some(Peer { subject: certificate.subject.to_string(), ends })
}
