//! TLS of one client: rustls between the socket and the codec.
//!
//! The generator does not use the engine's TLS but rustls' own buffered one, driven by bytes alone: what is to
//! be said goes in plain and comes out for the socket, and the other way round. Every client is a stranger,
//! so nothing is resumed and each handshake is a full one.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Whom the clients believe, and the name they ask for.
#[derive(Clone)]
pub(crate) struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// Trust in the authorities of a PEM file, or in anybody.
    ///
    /// # Errors
    /// When neither is asked for, or the file or the name will not do.
    pub(crate) fn new(host: &str, ca: &str, insecure: bool) -> Result<Self, String> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|error| format!("{host}: {error}"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = match (ca, insecure) {
            ("", false) => return Err("wss:// needs --ca FILE, or --insecure".to_owned()),
            ("", true) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
            (file, _) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name })
    }
}

fn roots(file: &str) -> Result<RootCertStore, String> {
    let wrong = |error: &dyn fmt::Display| format!("{file}: {error}");
    let text = fs::read(file).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"no certificate")) } else { Ok(roots) }
}

/// Believes everybody who can sign.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One client's TLS.
pub(crate) struct Seal(ClientConnection);

impl Seal {
    /// A client that is about to say hello.
    pub(crate) fn new(trust: &Trust) -> Result<Self, String> {
        let tls = ClientConnection::new(Arc::clone(&trust.config), trust.name.clone());
        let mut tls = tls.map_err(|error| format!("TLS: {error}"))?;
        // What waits is bounded by whoever writes; see `socket`.
        tls.set_buffer_limit(None);
        Ok(Self(tls))
    }

    /// What is to be sent to say `bytes`, behind whatever TLS has to say by itself. During the handshake
    /// they wait for its end.
    pub(crate) fn close(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut sealed = Vec::new();
        self.0.writer().write_all(bytes).map_err(|error| format!("TLS: {error}"))?;
        while self.0.wants_write() {
            self.0.write_tls(&mut sealed).map_err(|error| format!("TLS: {error}"))?;
        }
        Ok(sealed)
    }

    /// What `bytes` say, and whether the server has said that nothing more comes.
    pub(crate) fn open(&mut self, mut bytes: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let (mut plain, mut ended) = (Vec::new(), false);
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).map_err(|error| format!("TLS: {error}"))?;
            self.0.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            match self.0.reader().read_to_end(&mut plain) {
                Ok(_) => ended = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("TLS: {error}")),
            }
            if ended {
                break;
            }
        }
        Ok((plain, ended))
    }
}
