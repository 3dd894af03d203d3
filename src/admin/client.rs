//! The listener's other half: requests that go out.
//!
//! One request at a time to a URL that the operator wrote, over HTTP or HTTPS. No redirect is followed, for
//! where it leads the operator has not written; the answer is bounded in time and size. HTTPS trusts what
//! the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// Makes requests.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer to use.
#[derive(Debug)]
pub(super) enum Failure {
    /// None in time.
    Late,
    /// The connection failed, or broke.
    Connection(String),
    /// An answer with another status than 200.
    Status(StatusCode),
    /// More bytes than are read.
    TooLarge(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Connection(why) => write!(f, "the connection failed: {why}"),
            Self::Status(status) if status.is_redirection() => {
                write!(f, "the answer is a redirect ({status}), and none is followed")
            }
            Self::Status(status) => write!(f, "the answer has status {status}"),
            Self::TooLarge(limit) => write!(f, "the answer has more than {limit} bytes"),
        }
    }
}

impl Client {
    /// A client that trusts what the system trusts.
    pub(super) fn new() -> io::Result<Self> {
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(32)
            .build(connector()?);
        Ok(Self { pool })
    }

    /// Fetches a document of at most `limit` bytes.
    pub(super) async fn get(
        &self,
        uri: &Uri,
        limit: usize,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri.clone();
        timeout(patience, self.answer(request, limit)).await.unwrap_or(Err(Failure::Late))
    }

    /// Posts a body and fetches the answer, of at most `limit` bytes.
    pub(super) async fn post(
        &self,
        uri: &Uri,
        headers: &[(&'static str, &str)],
        body: Bytes,
        limit: usize,
        patience: Duration,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::post(uri.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| Failure::Connection(error.to_string()))?;
        timeout(patience, self.answer(request, limit)).await.unwrap_or(Err(Failure::Late))
    }

    async fn answer(&self, request: Request<Full<Bytes>>, limit: usize) -> Result<Bytes, Failure> {
        match self.send(request, limit).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(Failure::Status(status)),
        }
    }

    /// Makes a request; the answer, whatever its status.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::Connection(whole(error));
        let response = self.pool.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let read = Limited::new(response.into_body(), limit).collect().await;
        let body = read.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) if status == StatusCode::OK => Failure::TooLarge(limit),
            Some(_) => Failure::Status(status),
            None => failed(&*error),
        })?;
        Ok((status, body.to_bytes()))
    }
}

/// What connects to servers of the operator's, plainly or by TLS, and trusts what the system trusts.
///
/// # Errors
/// When there is no cryptography to be had.
pub(crate) fn connector() -> io::Result<HttpsConnector<HttpConnector>> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read are none; an HTTPS request says then whom it does not trust.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut plain = HttpConnector::new();
    plain.enforce_http(false);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(plain))
}

/// An error with its causes, on one line.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
