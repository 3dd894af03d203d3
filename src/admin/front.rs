//! Plain requests that shards hand on: to this listener's own endpoints, or to a server of the operator's.
//!
//! A shard has seen to framing and limits; here the request is a whole one, and so is its answer. What
//! holds between two neighbours only (RFC 9110, section 7.6.1) is taken out in both directions, and the
//! server is told who the client is as the engine has found it, whatever the client says of itself. How many
//! are under way is bounded by the shards, which wait for each of them.

use std::sync::Arc;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::service::Service as _;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

use super::client::{Client, Failure};
use super::options::{Front, FrontTo};
use super::refusal::Refusal;
use super::routes::{Api, router};
use crate::base::id::ShardId;
use crate::base::outside::Petition;

/// Header lines of a request; the shard's limit is not above it.
const HEADERS: usize = 256;

/// The requests under way.
pub(super) struct Petitions {
    fronts: Arc<[Front]>,
    api: Arc<Api>,
    client: Client,
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
    pub(super) fn new(fronts: &[Front], api: &Arc<Api>, client: &Client) -> Self {
        let (fronts, api, client) = (fronts.into(), Arc::clone(api), client.clone());
        Self { fronts, api, client, under_way: JoinSet::new() }
    }

    /// Begins to answer a request.
    pub(super) fn take(&mut self, petition: Petition) {
        let (fronts, api) = (Arc::clone(&self.fronts), Arc::clone(&self.api));
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let (from, number) = (petition.from, petition.number);
            let (response, is_head) = answer(&fronts, api, client, petition).await;
            Answered { from, number, response: written(response, is_head) }
        });
    }
}

/// The answer to a request, and whether it was one for the head alone.
async fn answer(
    fronts: &[Front],
    api: Arc<Api>,
    client: Client,
    petition: Petition,
) -> (Response<Bytes>, bool) {
    let Some(mut request) = read(&petition.bytes) else {
        return (refused(Refusal::bad("bad_request", "the request cannot be read")).await, false);
    };
    let is_head = request.method() == Method::HEAD;
    let path = request.uri().path().to_owned();
    let fitting = fronts.iter().filter(|front| path.starts_with(&front.path));
    let front = fitting.max_by_key(|front| front.path.len());
    let response = match front.map(|front| &front.to) {
        Some(FrontTo::Own) => own(api, request).await,
        Some(FrontTo::Server { url, timeout, answer_bytes }) => {
            introduce(request.headers_mut(), &petition);
            match readdress(&mut request, url) {
                Some(()) => match client.fetch(request, *answer_bytes, *timeout).await {
                    Ok((parts, body)) => Response::from_parts(parts, body),
                    Err(failure) => refused(beyond(&path, &failure)).await,
                },
                None => refused(Refusal::bad("bad_request", "the target cannot be read")).await,
            }
        }
        None => {
            let message = "there is nothing at this path";
            refused(Refusal::new(StatusCode::NOT_FOUND, "not_found", message)).await
        }
    };
    (response, is_head)
}

/// What a client is told of a server that has not answered; what exactly was wrong is the operator's.
fn beyond(path: &str, failure: &Failure) -> Refusal {
    tracing::warn!(path, "a server that answers for [[proxy]] does not: {failure}");
    match failure {
        Failure::Late => {
            let message = "the server behind this path has not answered in time";
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
        }
        Failure::TooLarge(_) => {
            let message = "the answer of the server behind this path is too large";
            Refusal::new(StatusCode::BAD_GATEWAY, "too_large", message)
        }
        Failure::Connection(_) | Failure::Status(_) => {
            let message = "the server behind this path cannot be reached";
            Refusal::new(StatusCode::BAD_GATEWAY, "bad_gateway", message)
        }
    }
}

/// Has the listener's own endpoints answer.
async fn own(api: Arc<Api>, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let Ok(response) = TowerToHyperService::new(router(api)).call(request).await;
    gathered(response).await
}

async fn refused(refusal: Refusal) -> Response<Bytes> {
    gathered(axum::response::IntoResponse::into_response(refusal)).await
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

/// Takes out what holds for one connection only.
fn part(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let usual = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, EXPECT_NAME];
    for name in named.iter().chain(&usual).chain(&KEPT_BETWEEN.map(HeaderName::from_static)) {
        headers.remove(name);
    }
}

const EXPECT_NAME: HeaderName = hyper::header::EXPECT;
const KEPT_BETWEEN: [&str; 3] = ["keep-alive", "proxy-connection", "proxy-authenticate"];

/// Says who the client is, in place of what it says of itself.
fn introduce(headers: &mut HeaderMap, petition: &Petition) {
    for name in ["forwarded", "x-real-ip", "x-forwarded-host", "x-forwarded-port"] {
        headers.remove(name);
    }
    headers.remove("x-forwarded-for");
    let client = petition.client.as_deref().and_then(|client| client.split('/').next());
    if let Some(client) = client.and_then(|client| HeaderValue::from_str(client).ok()) {
        headers.insert("x-forwarded-for", client);
    }
    let scheme = if petition.is_secure { "https" } else { "http" };
    headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
}

/// Sends a request to a server, by the target that it has.
fn readdress(request: &mut Request<Full<Bytes>>, server: &str) -> Option<()> {
    let mut parts = server.parse::<Uri>().ok()?.into_parts();
    parts.path_and_query = Some(request.uri().path_and_query()?.clone());
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(())
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
