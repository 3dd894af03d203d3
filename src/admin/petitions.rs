//! Plain requests that shards hand on to this listener's own endpoints.
//!
//! A shard has seen to framing and limits; here the request is a whole one, and so is its answer. What
//! holds between two neighbours only (RFC 9110, section 7.6.1) is taken out in both directions. How many
//! are under way is bounded by the shards, which wait for each of them.

use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::service::Service as _;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

use super::refusal::Refusal;
use super::routes::{Api, router};
use crate::base::id::ShardId;
use crate::base::outside::Petition;
use crate::front::part;

/// Header lines of a request; the shard's limit is not above it.
const HEADERS: usize = 256;

/// The requests under way.
pub(super) struct Petitions {
    api: Arc<Api>,
    pub(super) under_way: JoinSet<Answered>,
}

/// A request's answer, and where it goes.
pub(super) struct Answered {
    pub(super) from: ShardId,
    pub(super) number: u64,
    /// As it is to be written.
    pub(super) response: Vec<u8>,
}

impl Petitions {
    pub(super) fn new(api: &Arc<Api>) -> Self {
        Self { api: Arc::clone(api), under_way: JoinSet::new() }
    }

    /// Begins to answer a request.
    pub(super) fn take(&mut self, petition: Petition) {
        let api = Arc::clone(&self.api);
        self.under_way.spawn(async move {
            let (from, number) = (petition.from, petition.number);
            let (response, is_head) = answer(api, petition).await;
            Answered { from, number, response: written(response, is_head) }
        });
    }
}

/// The answer to a request, and whether it was one for the head alone.
async fn answer(api: Arc<Api>, petition: Petition) -> (Response<Bytes>, bool) {
    let Some(request) = read(&petition.bytes) else {
        let refusal = Refusal::bad("bad_request", "the request cannot be read");
        return (gathered(axum::response::IntoResponse::into_response(refusal)).await, false);
    };
    let is_head = request.method() == Method::HEAD;
    (own(api, request).await, is_head)
}

/// Has the listener's own endpoints answer.
async fn own(api: Arc<Api>, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let Ok(response) = TowerToHyperService::new(router(api)).call(request).await;
    gathered(response).await
}

async fn gathered(response: Response<axum::body::Body>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    // The listener's own answers are in memory: reading them cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(parts, body)
}

/// The request in a shard's bytes, without what concerned the shard alone.
fn read(bytes: &[u8]) -> Option<Request<Full<Bytes>>> {
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    let body = Bytes::copy_from_slice(&bytes[length..]);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parsed.method?.parse().ok()?;
    *request.uri_mut() = parsed.path?.parse().ok()?;
    for header in &*parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    part(request.headers_mut());
    Some(request)
}

/// A response as it is written on a connection that ends with it.
fn written(response: Response<Bytes>, is_head: bool) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    part(&mut parts.headers);
    let status = parts.status;
    let bare = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    if !is_head {
        parts.headers.remove(CONTENT_LENGTH);
    }
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    if !is_head && !bare {
        out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"connection: close\r\n\r\n");
    if !is_head && !bare {
        out.extend_from_slice(&body);
    }
    out
}
