//! `GET /v1/openapi.json`: the listener described for programs, as OpenAPI 3.1.
//!
//! The document is written by hand beside this file and is part of the binary, so a node always serves the one
//! it obeys. It tells nothing of the node, so it needs no key. Tests hold it and the table of endpoints together,
//! and a tool of its own kind asks a running node all that it allows.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;

/// The document.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    let mut response = Response::new(Body::from(DOCUMENT));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
