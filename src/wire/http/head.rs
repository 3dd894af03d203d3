//! A request head: its parts, and the rules about the message around it.
//!
//! The scan has seen every byte when httparse cuts the head into fields; nothing is copied, and up to 24
//! headers stand without heap. Then the framing rules of RFC 9112 are held: one valid Host, one length at
//! most, no length beside a transfer coding. A [`Head`] that exists has passed them, whatever the request
//! is for. What the path means is not known here.

use httparse::{EMPTY_HEADER, Header, Request, Status};
use smallvec::{SmallVec, smallvec};

use super::grammar;
use super::refusal::Refusal;
use super::scan::Scan;

/// Bounds on a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first to the empty line, all included. A buffer for a head needs no more.
    pub head_bytes: usize,
    /// Header lines.
    pub headers: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes: 16 << 10, headers: 64, target_bytes: 8 << 10 }
    }
}

/// A complete head and where it ends.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// The head.
    pub head: Head<'a>,
    /// Bytes of the head; what follows in the buffer belongs to whatever comes next.
    pub length: usize,
}

/// The two versions that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// What a head says about the body behind it (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes; never 0.
    Length(u64),
    /// Chunks, so of unknown length.
    Chunked,
}

/// A request head that broke no rule of framing. Borrows from the buffer it was parsed in.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    method: &'a str,
    target: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    version: Version,
    body: Body,
    headers: SmallVec<[Header<'a>; 24]>,
}

/// Parses the head at the start of `buf`; `None` when it is incomplete and what is there is in order.
/// For a head that comes in pieces [`parse_more`] does less work.
///
/// # Errors
/// A [`Refusal`] as soon as the bytes allow it: 400, 405 (CONNECT), 413, 414 or 431.
pub fn parse<'a>(buf: &'a [u8], limits: &HeadLimits) -> Result<Option<Parsed<'a>>, Refusal> {
    parse_more(&mut Scan::default(), buf, limits)
}

/// Like [`parse`], for a growing buffer: `scan` is new for each head and remembers what was looked at.
///
/// # Errors
/// As [`parse`].
pub fn parse_more<'a>(
    scan: &mut Scan,
    buf: &'a [u8],
    limits: &HeadLimits,
) -> Result<Option<Parsed<'a>>, Refusal> {
    let Some(length) = scan.advance(buf, limits)? else { return Ok(None) };
    let mut headers: SmallVec<[Header<'a>; 24]> = smallvec![EMPTY_HEADER; scan.headers()];
    let mut request = Request::new(&mut headers);
    let parsed = request.parse(&buf[..length]);
    let (method, target, version) = (request.method, request.path, request.version);
    let (Ok(Status::Complete(_)), Some(method), Some(target)) = (parsed, method, target) else {
        return Err(Refusal::bad_request("the request head cannot be read"));
    };
    let version = if version == Some(0) { Version::Http10 } else { Version::Http11 };
    let (path, query) = split(method, target)?;
    let mut head = Head { method, target, path, query, version, body: Body::None, headers };
    head.check_host()?;
    head.body = head.framing()?;
    Ok(Some(Parsed { head, length }))
}

impl<'a> Head<'a> {
    /// The method, as written; methods are case-sensitive.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target, as written.
    #[must_use]
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path, percent-encoding untouched: begins with `/`, or is `*` (OPTIONS only).
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// What stands behind the first `?`, percent-encoding untouched.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The body that follows.
    #[must_use]
    pub fn body(&self) -> Body {
        self.body
    }

    /// Names as written and values without the white space around them, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The values of every header of this name, in order; case does not matter.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that may stand once at most.
    ///
    /// # Errors
    /// 400 when it stands more than once.
    pub fn only(&self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Refusal::bad_request(format!("the header {name} stands more than once"))),
        }
    }

    /// For a request that is to be answered without reading a body.
    ///
    /// # Errors
    /// 413 when it has one.
    pub fn refuse_body(&self) -> Result<(), Refusal> {
        match self.body {
            Body::None => Ok(()),
            Body::Length(_) | Body::Chunked => {
                Err(Refusal::too_large("no body is accepted with this request"))
            }
        }
    }

    /// RFC 9112, section 3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0, valid in both.
    fn check_host(&self) -> Result<(), Refusal> {
        match self.only("Host")? {
            Some(host) if grammar::is_host(host) => Ok(()),
            Some(_) => Err(Refusal::bad_request("the header Host is not a valid host")),
            None if self.version == Version::Http10 => Ok(()),
            None => Err(Refusal::bad_request("the header Host is missing")),
        }
    }

    /// RFC 9112, section 6: what lies behind the head. Everything that two readers could take
    /// differently is refused.
    fn framing(&self) -> Result<Body, Refusal> {
        let coding = self.only("Transfer-Encoding")?;
        match (coding, self.only("Content-Length")?) {
            (None, None) => Ok(Body::None),
            (Some(_), Some(_)) => {
                let message = "Transfer-Encoding and Content-Length stand in one request";
                Err(Refusal::bad_request(message))
            }
            (Some(_), None) if self.version == Version::Http10 => {
                Err(Refusal::bad_request("Transfer-Encoding does not exist in HTTP/1.0"))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
            (Some(_), None) => {
                Err(Refusal::bad_request("the only Transfer-Encoding understood is chunked"))
            }
            (None, Some(length)) if grammar::is_number(length) => {
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                match length {
                    Some(0) => Ok(Body::None),
                    Some(length) => Ok(Body::Length(length)),
                    None => Err(Refusal::too_large("the Content-Length is too large")),
                }
            }
            (None, Some(_)) => Err(Refusal::bad_request("the Content-Length is not a number")),
        }
    }
}

/// The path and query of a target in one of the forms of RFC 9112, section 3.2.
fn split<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::method_not_allowed("GET"));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let local = if target.starts_with('/') { target } else { behind_authority(target)? };
    let (path, query) = local.split_once('?').map_or((local, None), |(p, q)| (p, Some(q)));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// What follows the authority of a target in absolute form, which proxies may be sent and servers must
/// accept (RFC 9112, section 3.2.2).
fn behind_authority(target: &str) -> Result<&str, Refusal> {
    let malformed = || Refusal::bad_request("the request target is neither a path nor a URL");
    let (scheme, rest) = target.split_once("://").ok_or_else(malformed)?;
    let is_known = ["http", "https", "ws", "wss"].iter().any(|s| s.eq_ignore_ascii_case(scheme));
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if is_known && grammar::is_host(authority.as_bytes()) { Ok(local) } else { Err(malformed()) }
}
