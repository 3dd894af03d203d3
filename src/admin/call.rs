//! One request to the admin listener of a running node, for the command line.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::Full;
use hyper::header::AUTHORIZATION;
use hyper::{Method, Request, Uri};
use tokio::time::timeout;

use super::client::{Client, Failure};

/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 16 << 20;

/// A request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The listener, as `http://127.0.0.1:8081`; what `path` names is behind it.
    pub url: &'a str,
    /// Which endpoint, with its leading slash.
    pub path: &'a str,
    /// The secret of a key.
    pub secret: &'a str,
    /// What is posted; `None` for a GET.
    pub body: Option<String>,
    /// How long it may take.
    pub patience: Duration,
}

impl Call<'_> {
    /// Makes the request and waits: the status and the text of the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn make(self) -> Result<(u16, String), String> {
        let url = format!("{}{}", self.url.trim_end_matches('/'), self.path);
        let uri: Uri = url.parse().map_err(|error| format!("url {url:?}: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("url {url:?}: expected one like http://127.0.0.1:8081"));
        }
        let method = if self.body.is_some() { Method::POST } else { Method::GET };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, format!("Bearer {}", self.secret))
            .body(Full::new(Bytes::from(self.body.unwrap_or_default())))
            .map_err(|error| format!("the request: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| format!("its loop: {error}"))?;
        runtime.block_on(async {
            let client = Client::new().map_err(|error| format!("the client: {error}"))?;
            let answer = timeout(self.patience, client.send(request, ANSWER_BYTES)).await;
            let (status, body) =
                answer.unwrap_or(Err(Failure::Late)).map_err(|why| format!("{url}: {why}"))?;
            Ok((status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
        })
    }
}
