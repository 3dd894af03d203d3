//! Refusals: a status, and one line that says what was wrong.
//!
//! A refused client is told why in words its developer can act on, and the connection closes. The body
//! is made of our own words or the operator's: nothing a peer sent is ever sent back, so a refusal cannot be turned
//! into a reflection (of markup, of another protocol's bytes) by whoever wrote the request.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// A request that is not served, and the response that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of 400, 401, 403, 404, 405, 408, 411, 413, 414, 426, 431, 503.
    pub status: u16,
    /// One line, without its end; our own words, or the operator's.
    pub message: Cow<'static, str>,
    /// A header that the status asks for.
    pub extra: Extra,
}

/// The header beside the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// None.
    None,
    /// `Allow`, with the methods that are allowed (405).
    Allow(&'static str),
    /// `Upgrade: websocket` and `Sec-WebSocket-Version: 13` (426).
    Upgrade,
    /// None; the message is JSON, with this number of an error of Engine.IO (400).
    EngineIo(u8),
    /// `Retry-After`, in seconds (503).
    RetryAfter(u64),
    /// `WWW-Authenticate: Bearer`, with the error that RFC 6750 has for a token that was wrong (401).
    Authenticate {
        /// True when there was a token.
        wrong: bool,
    },
}

/// The number that Engine.IO has for a transport that there is not.
pub const EIO_TRANSPORT: u8 = 0;
/// The number that it has for a session that there is not.
pub const EIO_SESSION: u8 = 1;
/// The number that it has for a method that does not fit.
pub const EIO_METHOD: u8 = 2;
/// The number that it has for a request that makes no sense.
pub const EIO_REQUEST: u8 = 3;
/// The number that it has for a version that is not spoken.
pub const EIO_VERSION: u8 = 5;

impl Refusal {
    /// 400: the request breaks a rule.
    #[must_use]
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, message, Extra::None)
    }

    /// 400: what a client of Engine.IO is told, as its protocol has it.
    #[must_use]
    pub fn engineio(code: u8, message: &'static str) -> Self {
        let message = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
        Self::new(400, message, Extra::EngineIo(code))
    }

    /// 401: no token, or a `wrong` one.
    #[must_use]
    pub fn unauthorized(message: &'static str, wrong: bool) -> Self {
        Self::new(401, message, Extra::Authenticate { wrong })
    }

    /// 403: whoever it is, it may not.
    #[must_use]
    pub fn forbidden(message: &'static str) -> Self {
        Self::new(403, message, Extra::None)
    }

    /// 401 or 403, in the application's own words: whoever signs tokens or is asked about clients says no.
    #[must_use]
    pub fn vetoed(status: u16, words: &str) -> Self {
        let extra = if status == 401 { Extra::Authenticate { wrong: true } } else { Extra::None };
        Self::new(status, words.to_owned(), extra)
    }

    /// 404: nothing is at this path.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(404, "nothing is at this path", Extra::None)
    }

    /// 405; `allow` lists the methods that are allowed.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(405, format!("the method must be one of: {allow}"), Extra::Allow(allow))
    }

    /// 408: the head did not arrive in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new(408, "the request head did not arrive in time", Extra::None)
    }

    /// 411: the length of the body must be known beforehand.
    #[must_use]
    pub fn length_required() -> Self {
        Self::new(411, "a body in chunks is not accepted here: send Content-Length", Extra::None)
    }

    /// 413: the request has a body.
    #[must_use]
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(413, message, Extra::None)
    }

    /// 414: the request target has more than `limit` bytes.
    #[must_use]
    pub fn target_too_long(limit: usize) -> Self {
        Self::new(414, format!("the request target is longer than {limit} bytes"), Extra::None)
    }

    /// 426: a WebSocket handshake is needed here, and this one is missing something.
    #[must_use]
    pub fn upgrade_required(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(426, message, Extra::Upgrade)
    }

    /// 431: the head is too long or has too many headers.
    #[must_use]
    pub fn head_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(431, message, Extra::None)
    }

    /// 503: the node takes no connections now. `retry_after` is rounded up to seconds.
    #[must_use]
    pub fn unavailable(retry_after: Option<Duration>) -> Self {
        let extra = retry_after.map_or(Extra::None, |wait| {
            Extra::RetryAfter(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)))
        });
        Self::new(503, "the server takes no new connections at the moment", extra)
    }

    /// The complete response; the connection is to be closed after it.
    #[must_use]
    pub fn response(&self) -> Vec<u8> {
        let Self { status, message, extra } = self;
        let mut text = format!("HTTP/1.1 {status} {}\r\n", phrase(*status));
        // Writing to a String cannot fail.
        let _ = match extra {
            Extra::None | Extra::EngineIo(_) => text.write_str("Connection: close\r\n"),
            Extra::Allow(methods) => write!(text, "Connection: close\r\nAllow: {methods}\r\n"),
            // RFC 9110 section 7.8: who sends Upgrade names it in Connection as well.
            Extra::Upgrade => text.write_str(
                "Connection: close, Upgrade\r\n\
                 Upgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\n",
            ),
            Extra::Authenticate { wrong } => {
                let error = if *wrong { " error=\"invalid_token\"" } else { "" };
                write!(text, "Connection: close\r\nWWW-Authenticate: Bearer{error}\r\n")
            }
            Extra::RetryAfter(seconds) => {
                write!(text, "Connection: close\r\nRetry-After: {seconds}\r\n")
            }
        };
        let is_json = matches!(extra, Extra::EngineIo(_));
        let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        let length = message.len() + 1;
        let _ = write!(
            text,
            "Content-Type: {kind}\r\n\
             Content-Length: {length}\r\n\
             Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n\r\n{message}\n"
        );
        text.into_bytes()
    }

    fn new(status: u16, message: impl Into<Cow<'static, str>>, extra: Extra) -> Self {
        Self { status, message: message.into(), extra }
    }
}

/// The reason phrase of RFC 9110 and RFC 6585.
pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Refused",
    }
}
