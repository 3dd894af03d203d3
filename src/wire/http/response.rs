//! The two responses that are not refusals: a page, and the switch to WebSocket.
//!
//! A page has its styles inline and its scripts inline or from where it came, so its policy forbids everything
//! else: it may talk to its own origin, WebSocket included, and nothing may frame it. There is no `Date`: the core
//! reads no clock, and RFC 9110 section 6.6.1 asks it of servers that have one.

use super::deflate::Deflate;
use super::refusal::phrase;
use super::upgrade::Upgrade;

/// A complete 200 response; the connection is to be closed after it. `content_type` is the caller's own.
///
/// # Panics
/// When `content_type` would end its line.
#[must_use]
pub fn page(content_type: &str, body: &[u8]) -> Vec<u8> {
    assert!(!content_type.contains(['\r', '\n']), "a content type is one line");
    let mut response = format!(
        "HTTP/1.1 200 OK\r\n\
         Connection: close\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-cache\r\n\
         Content-Security-Policy: {PAGE_POLICY}\r\n\
         Referrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(body);
    response
}

/// The 101 response that ends the handshake (RFC 6455, section 4.2.2); frames follow it. `protocol` is
/// the one chosen of those the client offered, and `deflate` its offer that is kept.
///
/// # Panics
/// When the client did not offer `protocol`: a client would have to fail such a connection.
#[must_use]
pub fn switching(
    upgrade: &Upgrade<'_>,
    protocol: Option<&str>,
    deflate: Option<Deflate>,
) -> Vec<u8> {
    let mut response = Vec::with_capacity(320);
    response.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    response.extend_from_slice(&upgrade.accept);
    if let Some(protocol) = protocol {
        assert!(upgrade.protocols.contains(&protocol), "a protocol that was not offered");
        response.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        response.extend_from_slice(protocol.as_bytes());
    }
    if let Some(deflate) = deflate {
        response.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        deflate.answer(&mut response);
    }
    response.extend_from_slice(b"\r\n\r\n");
    response
}

/// The head of an event stream, whose body lasts until the connection ends; that is the one form which
/// HTTP/1.0 has as well, and nginx asks in that unless it is told otherwise. A page of another origin
/// may read it when `origin`, which the caller has let in, is named.
///
/// # Panics
/// When `origin` would end its line.
#[must_use]
pub fn stream(origin: Option<&str>) -> Vec<u8> {
    let mut response = String::from(
        "HTTP/1.1 200 OK\r\n\
         Content-Type: text/event-stream\r\n\
         Cache-Control: no-cache\r\n\
         Connection: keep-alive\r\n\
         X-Accel-Buffering: no\r\n\
         X-Content-Type-Options: nosniff\r\n",
    );
    share(&mut response, origin);
    response.push_str("\r\n");
    response.into_bytes()
}

/// A JSON document as the whole answer to a request; the connection is to be closed after it.
///
/// # Panics
/// When `origin` would end its line.
#[must_use]
pub fn document(status: u16, origin: Option<&str>, body: &[u8]) -> Vec<u8> {
    whole(status, "application/json", origin, body)
}

/// What is said to a client that polls: packets of Engine.IO, or `ok` to what it has brought. The connection is to
/// be closed after it.
///
/// # Panics
/// When `origin` would end its line.
#[must_use]
pub fn polled(origin: Option<&str>, body: &[u8]) -> Vec<u8> {
    whole(200, "text/plain; charset=UTF-8", origin, body)
}

/// An answer that nothing follows.
fn whole(status: u16, kind: &str, origin: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 {status} {}\r\n\
         Connection: close\r\n\
         Content-Type: {kind}\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n",
        phrase(status),
        body.len()
    );
    share(&mut response, origin);
    response.push_str("\r\n");
    let mut response = response.into_bytes();
    response.extend_from_slice(body);
    response
}

/// What a browser asks before it sends a stream's request with a header of the page's own; the connection is
/// to be closed after it.
///
/// # Panics
/// When `origin` would end its line.
#[must_use]
pub fn preflight(origin: Option<&str>) -> Vec<u8> {
    preflight_of("GET", origin)
}

/// The same for whatever is asked by these methods.
///
/// # Panics
/// When `origin` would end its line.
#[must_use]
pub fn preflight_of(methods: &str, origin: Option<&str>) -> Vec<u8> {
    let content = if methods.contains("POST") { ", Content-Type" } else { "" };
    let mut response = format!(
        "HTTP/1.1 204 No Content\r\n\
         Connection: close\r\n\
         Access-Control-Allow-Methods: {methods}\r\n\
         Access-Control-Allow-Headers: Authorization, Last-Event-ID, Cache-Control{content}\r\n\
         Access-Control-Max-Age: 600\r\n",
    );
    share(&mut response, origin);
    response.push_str("\r\n");
    response.into_bytes()
}

/// Names the one origin that may read the response, with credentials; never `*`, which may not stand beside
/// them (Fetch Standard, section 3.3.5).
fn share(response: &mut String, origin: Option<&str>) {
    let Some(origin) = origin else { return };
    assert!(!origin.contains(['\r', '\n']), "an origin is one line");
    response.push_str("Access-Control-Allow-Origin: ");
    response.push_str(origin);
    response.push_str("\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n");
}

/// Content Security Policy Level 3; `'self'` covers ws: of an http: origin and wss: of an https: one.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; \
    style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
